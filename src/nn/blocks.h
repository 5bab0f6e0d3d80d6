/* The modules that UNets and autoencoders are made of. Activations are [N, H, W, C] of c->dtype; every function leaves
 * c->scratch as it found it, apart from an `out` that it was asked to take. */
#ifndef KAC_BLOCKS_H
#define KAC_BLOCKS_H

#include "nn/layers.h"

/* The time embedding, one row per distinct timestep: [U, D], bare and activated; row[n] is image n's. act none: no time
 * embedding. */
typedef struct kac_nn_time {
    kac_tensor bare, act;
    const int *row;
} kac_nn_time;

/* ---- residual block (ResnetBlock2D) ----
 * out = (shortcut(x) + conv2(act(norm2(conv1(act(norm1(x))) + time)))) / out_scale; scale_shift: norm2(…)·(1 + s) + b
 * instead of + time. */
typedef struct kac_nn_resnet_opt {
    int64_t n_in, n_out, n_time; /* n_time 0: no time embedding */
    int64_t groups;
    double eps, out_scale;
    kac_act act;
    bool scale_shift, bare_time; /* bare_time: projects the embedding that is not activated */
    int resample;                /* 0, +1: doubles height and width, −1: halves them, both after norm1 */
} kac_nn_resnet_opt;

typedef struct kac_nn_resnet {
    kac_path path;
    kac_nn_resnet_opt o;
    kac_nn_norm norm1, norm2;
    kac_nn_conv conv1, conv2;
    kac_nn_linear time, shortcut;
} kac_nn_resnet;

kac_status kac_nn_resnet_load(const kac_loader *l, kac_nn_resnet *m, kac_path path, kac_nn_resnet_opt o);
/* out must not alias x. */
kac_status kac_nn_resnet_run(kac_ctx *c, kac_tensor *out, const kac_nn_resnet *m, kac_tensor x, kac_nn_time time);
/* The same of x and `more` side by side along the channels; while a tape records they are put together again instead of kept. */
kac_status kac_nn_resnet_join(kac_ctx *c, kac_tensor *out, const kac_nn_resnet *m, kac_tensor x, kac_tensor more,
                              kac_nn_time time);

/* ---- self-attention over pixels (the Attention of UNet2DModel and of autoencoders) ---- */
typedef struct kac_nn_attention {
    kac_path path;
    bool has_norm;
    kac_nn_norm norm;
    kac_nn_linear qkv, to_out;
    int64_t heads;
    double out_scale;
} kac_nn_attention;

/* Also reads the old names query, key, value, proj_attn. groups 0: no norm. */
kac_status kac_nn_attention_load(const kac_loader *l, kac_nn_attention *m, kac_path path, int64_t n, int64_t head_dim,
                                 int64_t groups, double eps, double out_scale);
/* *x becomes the result: in place, or a fresh tensor while a tape records. */
kac_status kac_nn_attention_run(kac_ctx *c, const kac_nn_attention *m, kac_tensor *x);

/* ---- transformer over pixels that also looks at the prompt (Transformer2DModel) ---- */
/* Keys and values of one cross-attention layer: [P, S, heads, d] views. */
typedef struct kac_nn_kv {
    kac_tensor k, v;
} kac_nn_kv;

/* The prompts' keys and values as image n sees them. */
typedef struct kac_nn_cond {
    const kac_nn_kv *layer; /* by the layers' i_kv */
    const int *row;
} kac_nn_cond;

typedef struct kac_nn_cross {
    kac_nn_linear q, kv, to_out; /* self-attention: q holds q, k, v stacked, kv is empty */
    bool cross;
    int i_kv; /* which kac_nn_kv, counted over the whole network */
} kac_nn_cross;

typedef struct kac_nn_transformer_block {
    kac_nn_norm norm1, norm2, norm3;
    kac_nn_cross attn1, attn2;
    kac_nn_linear ff_in, ff_out;
} kac_nn_transformer_block;

typedef struct kac_nn_transformer {
    kac_path path;
    int64_t heads;
    kac_nn_norm norm;
    kac_nn_linear proj_in, proj_out;
    kac_nn_transformer_block *block; /* n_blocks, on the heap */
    int n_blocks;
} kac_nn_transformer;

typedef struct kac_nn_transformer_opt {
    int64_t n, heads, groups, cross_dim, layers;
    bool only_cross;
} kac_nn_transformer_opt;

/* Counts its cross-attention layers in *n_kv. Linear and 1×1 convolution projections read the same. */
kac_status kac_nn_transformer_load(const kac_loader *l, kac_nn_transformer *m, kac_path path, kac_nn_transformer_opt o,
                                   int *n_kv);
void kac_nn_transformer_free(kac_nn_transformer *m);
kac_status kac_nn_transformer_run(kac_ctx *c, const kac_nn_transformer *m, kac_tensor *x, kac_nn_cond cond);
/* Fills kv[i_kv] for every cross-attention layer in it, from tokens [P, S, D] of c->dtype, in c->run. */
kac_status kac_nn_transformer_condition(kac_ctx *c, const kac_nn_transformer *m, kac_nn_kv *kv, kac_tensor tokens);

#endif
