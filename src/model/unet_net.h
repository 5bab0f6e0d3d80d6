/* The modules of a UNet as unet_load.c reads and unet.c runs them. */
#ifndef KAC_UNET_NET_H
#define KAC_UNET_NET_H

#include "model/unet.h"
#include "nn/blocks.h"

/* TimestepEmbedding: out(act(in(x))), then `post`. */
typedef struct kac_unet_mlp {
    kac_nn_linear in, out;
    kac_act act, post;
} kac_unet_mlp;

/* TextTimeEmbedding: norm2(proj(attention of the mean token over all tokens of norm1(x))). */
typedef struct kac_unet_text_pool {
    kac_nn_norm norm1, norm2;
    kac_tensor position; /* [1, D] added to the mean */
    kac_nn_linear q, kv, proj;
} kac_unet_text_pool;

typedef struct kac_unet_block {
    kac_path path;
    kac_unet_block_type type;
    int n_resnets, n_attentions;
    kac_nn_resnet resnet[KAC_UNET_MAX_LAYERS + 1];
    kac_nn_transformer transformer[KAC_UNET_MAX_LAYERS + 1]; /* of CROSS_ATTN blocks */
    kac_nn_attention attention[KAC_UNET_MAX_LAYERS + 1];     /* of ATTN blocks */
    bool all_resnets;                                        /* ResnetDown/UpsampleBlock2D */
    bool has_sampler, sampler_is_resnet;
    kac_path sampler_path;
    kac_nn_conv sampler;
    kac_nn_resnet sampler_resnet;
    int64_t n_out;
} kac_unet_block;

struct kac_unet {
    kac_unet_config cfg;
    kac_tensor center_scale, center_shift; /* 2 and −1 per channel, when center_input */
    float *frequency;                      /* [wave_dim / 2] on the heap, when fourier */
    kac_unet_mlp time, class_mlp, addition;
    kac_nn_linear time_cond, class_simple, text_projection;
    kac_tensor class_table; /* [n_classes, time_dim] */
    kac_unet_text_pool text_pool;
    kac_nn_conv conv_in, conv_out;
    kac_nn_norm norm_out;
    kac_unet_block down[KAC_UNET_MAX_BLOCKS], mid, up[KAC_UNET_MAX_BLOCKS];
    int n_kv; /* cross-attention layers in all */
};

struct kac_unet_cond {
    int64_t n;            /* prompts */
    kac_tensor wave_add;  /* [P, wave_dim]: added to the sinusoids; or none */
    kac_tensor time_add;  /* [P, time_dim]: added to the time embedding; or none */
    kac_tensor time_more; /* [P, time_dim]: beside it; or none */
    int n_kv;
    kac_nn_kv kv[]; /* n_kv */
};

/* out [n, wave_dim] c->dtype in scratch. */
kac_status kac_unet_wave(kac_ctx *c, kac_tensor *out, const kac_unet *u, const double *t, int n);
kac_status kac_unet_mlp_run(kac_ctx *c, kac_tensor *out, const kac_unet_mlp *m, kac_tensor x);

#endif
