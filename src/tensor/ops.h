/* The ops. Model code calls these fronts; a front checks shapes once, takes the output, counts, records on the tape and
 * calls the backend's slot.
 *
 *     kac_tensor h = {0};                                    // taken from c->scratch by the front
 *     KAC_TRY(kac_group_norm(c, &h, x, gamma, beta, 32, 1e-5, KAC_ACT_SILU));
 *     KAC_TRY(kac_conv2d(c, &h2, h, &w, (kac_conv_opt){.pad = {1, 1, 1, 1}, .stride = 1, .bias = bias}));
 *
 * Every `out` is either {0} (then taken from c->scratch, contiguous, dtype of the first input) or a tensor of exactly
 * the right shape. Inputs are contiguous unless "views" is said. Activations have c->dtype (f32 or bf16); gamma, beta,
 * bias, tables of coefficients are f32. Accumulation is in f32 (cpu) or double (ref). Outputs must not alias inputs
 * unless "in place" is said. ROW RULE, for every op: the result of one image (index n of axis 0) does not depend on N,
 * on its position in the batch, or on the number of threads. Tests pin this. */
#ifndef KAC_OPS_H
#define KAC_OPS_H

#include "ctx.h"

typedef enum kac_act {
    KAC_ACT_NONE,
    KAC_ACT_SILU,
    KAC_ACT_GELU,       /* exact, erf */
    KAC_ACT_GELU_TANH,  /* tanh approximation ("gelu_new", "gelu_pytorch_tanh") */
    KAC_ACT_QUICK_GELU, /* x σ(1.702 x) */
    KAC_ACT_RELU,
    KAC_ACT_TANH,
    KAC_ACT_MISH
} kac_act;

/* A weight as the backend wants it, packed once at load; owned by the model arena. Logical shape [n_out, n_in, kh, kw],
 * kh = kw = 0 for a linear layer. */
typedef struct kac_weight {
    int64_t n_out, n_in;
    int kh, kw;
    kac_dtype dtype; /* storage of `data` */
    void *data;      /* backend's layout */
    size_t n_bytes;
    const void *impl; /* backend's own, e.g. which kernel it was packed for */
} kac_weight;

/* src: [n_out, n_in] or [n_out, n_in, kh, kw] (as in checkpoints: OIHW), f32, f16, bf16 or f64, contiguous; not kept.
 * Memory: the packed copy from c->model, temporaries from c->scratch (released). `hint` is the stride for conv (1
 * allows Winograd), 1 otherwise. */
kac_status kac_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint);
/* Other numbers of the same shape into a weight that was packed with the same hint, in place. KAC_E_UNSUPPORTED on a backend that keeps
 * further copies of a weight (onednn). */
kac_status kac_weight_update(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint);

/* ---- matrix products ---- */
/* A second product, added to the first before bias and activation: x' [..., parts · r] Uᵀ, U [n_out, r]. With several
 * parts the rows of U are in as many equal groups, and group i reads columns i·r … of x' (q, k, v stacked). What LoRA
 * adds to a layer: x' = x Aᵀ. */
typedef struct kac_low {
    kac_tensor x; /* none: no second product */
    const kac_weight *up;
    int parts;
} kac_low;

typedef struct kac_linear_opt {
    kac_tensor bias;     /* f32 [n_out] or none */
    kac_low low;         /* with geglu: one part */
    kac_tensor residual; /* shape of out, added after act; or none. May be out itself (in place). */
    kac_act act;
    bool geglu; /* weight has 2·n rows: out = (x W₁ᵀ + b₁) · gelu(x W₂ᵀ + b₂), out [..., n] */
} kac_linear_opt;
/* out [..., n_out] = act(x [..., n_in] Wᵀ + x' Uᵀ + bias) + residual. x may be a view as long as the last axis is contiguous.
 */
kac_status kac_linear(kac_ctx *c, kac_tensor *out, kac_tensor x, const kac_weight *w, kac_linear_opt o);

typedef struct kac_conv_opt {
    int stride;          /* 1 or 2 */
    int pad[4];          /* top, left, bottom, right */
    kac_tensor bias;     /* f32 [n_out] or none */
    kac_tensor row_bias; /* [U, n_out], c->dtype: added per image (time embedding); or none */
    const int
        *row_index; /* image n uses row_bias[row_index[n]]; NULL: row n (U = N) or 0 (U = 1). Host memory, copied */
    kac_tensor residual; /* shape of out, or none; may be out itself (in place) */
    kac_act act;         /* after bias and row_bias, before residual */
} kac_conv_opt;
/* out [N, Ho, Wo, n_out]; x [N, H, W, n_in]; Ho = (H + top + bottom − kh) / stride + 1. */
kac_status kac_conv2d(kac_ctx *c, kac_tensor *out, kac_tensor x, const kac_weight *w, kac_conv_opt o);

/* out [..., M, N'] = a [..., M, K] · b [..., N', K]ᵀ · scale; leading axes equal. Small products of activations (CLIP
 * logits). */
kac_status kac_matmul_t(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b, double scale);

typedef struct kac_attention_opt {
    double scale;      /* usually 1/sqrt(d) */
    bool causal;       /* query t sees keys ≤ t (needs T = S) */
    const int *kv_row; /* image n uses k[kv_row[n]], v[kv_row[n]]; NULL: row n. Host memory, copied */
} kac_attention_opt;
/* out [N, T, heads, d] = softmax(q kᵀ · scale) v per head; q [N, T, heads, d]; k, v [M, S, heads, d], S ≥ 1. q, k, v
 * may be views with contiguous last axis. Source: Vaswani et al. 2017, eq. 1. */
kac_status kac_attention(kac_ctx *c, kac_tensor *out, kac_tensor q, kac_tensor k, kac_tensor v, kac_attention_opt o);

/* ---- norms, activations ---- */
/* x [N, ..., C], statistics per image and group over all inner positions and C/groups channels; gamma, beta [C]; then
 * act. In place. */
kac_status kac_group_norm(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor gamma, kac_tensor beta, int groups,
                          double eps, kac_act act);
/* Over the last axis; gamma, beta [C] or none. In place. */
kac_status kac_layer_norm(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor gamma, kac_tensor beta, double eps);
/* out = x / |x|₂ over the last axis. */
kac_status kac_l2_normalize(kac_ctx *c, kac_tensor *out, kac_tensor x);
/* In place. */
kac_status kac_activate(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_act act);
/* out = x · scale[c] + shift[c] over the last axis; scale, shift f32 [C] (image normalisation). In place. */
kac_status kac_affine(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor scale, kac_tensor shift);
/* out [N, ..., C] = x · (1 + scale[row]) + shift[row], scale and shift [U, C] views of c->dtype with contiguous last
 * axis; row_index as in conv. In place. */
kac_status kac_modulate(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor scale, kac_tensor shift,
                        const int *row_index);
kac_status kac_clamp(kac_ctx *c, kac_tensor *out, kac_tensor x, double lo, double hi); /* in place */

/* ---- combinations ---- */
enum { KAC_MAX_TERMS = 8 };
/* out[n, ...] = Σ_t coef[t·n_coef + n] · x[t][n, ...]; n_coef = N (a coefficient per image) or 1. x[t]: same shape,
 * dtypes f32 or bf16 mixed; out may be one of them. Coefficients in double on the host, applied in f32 with fma in the
 * order given. Every solver step, guidance and sum of tensors. Views along axis 0 allowed. */
kac_status kac_lincomb(kac_ctx *c, kac_tensor *out, int n_terms, const kac_tensor *x, const double *coef, int n_coef);
/* out = a + b. */
kac_status kac_add(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b);
/* out [N, 2] f32 = mean and (Bessel-corrected) standard deviation over everything but axis 0. */
kac_status kac_row_stats(kac_ctx *c, kac_tensor *out, kac_tensor x);

/* ---- moving data ---- */
/* Views on both sides, any of f32, bf16, f16, f64 and integer dtypes: converts. Shapes equal. */
kac_status kac_copy(kac_ctx *c, kac_tensor *out, kac_tensor x);
/* Along `axis`; a and b equal elsewhere. Views with contiguous last axis allowed. */
kac_status kac_concat(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b, int axis);
/* out[i, ...] = x[index[i], ...]; index on the host. out must not alias x. */
kac_status kac_gather(kac_ctx *c, kac_tensor *out, kac_tensor x, const int *index, int n_index);
/* out [N, T, C] = table[ids[n, t], :] (+ position[t, :] when given); ids i32; table, position c->dtype. KAC_E_SHAPE for
 * an id outside. */
kac_status kac_embedding(kac_ctx *c, kac_tensor *out, kac_tensor ids, kac_tensor table, kac_tensor position);
/* out [U, n] = sinusoids of t[u]: half = n/2, f_i = exp(−ln(max_period) i / (half − shift)); [sin, cos] or with flip
 * [cos, sin]; odd n: one zero at the end. t in double on the host. Source: Ho et al. 2020; diffusers
 * get_timestep_embedding. */
kac_status kac_timestep_embedding(kac_ctx *c, kac_tensor *out, const double *t, int n_t, int n, bool flip, double shift,
                                  double scale, double max_period);
/* Nearest neighbour to [N, h, w, C]: source index floor(i · H / h). */
kac_status kac_upsample_nearest(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t h, int64_t w);
kac_status kac_avg_pool2(kac_ctx *c, kac_tensor *out, kac_tensor x); /* 2×2, stride 2, H and W even or floored */

typedef enum kac_filter { KAC_FILTER_NEAREST, KAC_FILTER_BILINEAR, KAC_FILTER_BICUBIC, KAC_FILTER_LANCZOS } kac_filter;
/* x [N, H, W, C] -> [N, h, w, C], separable with antialiasing when shrinking, pixel centres at half integers, edges
 * renormalised: what Pillow's resize does (bicubic a = −0.5), in floating point without rounding between passes. */
kac_status kac_resample(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t h, int64_t w, kac_filter filter);

/* out [N, ...] f32: image n holds kac_rng_normal(key, slot[n]) from element 0. Element order is that of the memory of
 * one image. */
kac_status kac_randn(kac_ctx *c, kac_tensor *out, kac_key key, const int *slot);

/* ---- the table ---- */
/* One argument struct per op: what the front checked. Rows: slot name, struct name. Backends fill struct kac_ops. */
typedef struct kac_linear_args {
    kac_tensor out, x;
    const kac_weight *w;
    kac_linear_opt o;
} kac_linear_args;
typedef struct kac_conv2d_args {
    kac_tensor out, x;
    const kac_weight *w;
    kac_conv_opt o;
} kac_conv2d_args;
typedef struct kac_matmul_t_args {
    kac_tensor out, a, b;
    double scale;
} kac_matmul_t_args;
typedef struct kac_attention_args {
    kac_tensor out, q, k, v;
    kac_attention_opt o;
} kac_attention_args;
typedef struct kac_group_norm_args {
    kac_tensor out, x, gamma, beta;
    int groups;
    double eps;
    kac_act act;
} kac_group_norm_args;
typedef struct kac_layer_norm_args {
    kac_tensor out, x, gamma, beta;
    double eps;
} kac_layer_norm_args;
typedef struct kac_l2_normalize_args {
    kac_tensor out, x;
} kac_l2_normalize_args;
typedef struct kac_activate_args {
    kac_tensor out, x;
    kac_act act;
} kac_activate_args;
typedef struct kac_affine_args {
    kac_tensor out, x, scale, shift;
} kac_affine_args;
typedef struct kac_modulate_args {
    kac_tensor out, x, scale, shift;
    const int *row_index;
} kac_modulate_args;
typedef struct kac_clamp_args {
    kac_tensor out, x;
    double lo, hi;
} kac_clamp_args;
typedef struct kac_lincomb_args {
    kac_tensor out;
    int n_terms;
    kac_tensor x[KAC_MAX_TERMS];
    const double *coef;
    int n_coef;
} kac_lincomb_args;
typedef struct kac_row_stats_args {
    kac_tensor out, x;
} kac_row_stats_args;
typedef struct kac_copy_args {
    kac_tensor out, x;
} kac_copy_args;
typedef struct kac_concat_args {
    kac_tensor out, a, b;
    int axis;
} kac_concat_args;
typedef struct kac_gather_args {
    kac_tensor out, x;
    const int *index;
    int n_index;
} kac_gather_args;
typedef struct kac_embedding_args {
    kac_tensor out, ids, table, position;
} kac_embedding_args;
typedef struct kac_timestep_embedding_args {
    kac_tensor out;
    const double *t;
    int n_t, n;
    bool flip;
    double shift, scale, max_period;
} kac_timestep_embedding_args;
typedef struct kac_upsample_nearest_args {
    kac_tensor out, x;
} kac_upsample_nearest_args;
typedef struct kac_avg_pool2_args {
    kac_tensor out, x;
} kac_avg_pool2_args;
typedef struct kac_resample_args {
    kac_tensor out, x;
    kac_filter filter;
} kac_resample_args;
typedef struct kac_randn_args {
    kac_tensor out;
    kac_key key;
    const int *slot;
} kac_randn_args;

#define KAC_OPS(X)                                                                                                     \
    X(linear)                                                                                                          \
    X(conv2d) X(matmul_t) X(attention) X(group_norm) X(layer_norm) X(l2_normalize) X(activate) X(affine) X(modulate)   \
        X(clamp) X(lincomb) X(row_stats) X(copy) X(concat) X(gather) X(embedding) X(timestep_embedding)                \
            X(upsample_nearest) X(avg_pool2) X(resample) X(randn)

typedef enum kac_op {
#define KAC_OP_ENUM(name) KAC_OP_##name,
    KAC_OPS(KAC_OP_ENUM)
#undef KAC_OP_ENUM
        KAC_N_OPS
} kac_op;

/* ---- gradients ---- */
/* Backward of one recorded call. Gradients are f32 in every mode, so that sums over many uses keep their digits: `out` is contiguous
 * with the shape of the op's out; in[i] has the shape of input i (views where that was one) and is ADDED TO; data NULL: not wanted.
 * The inputs of an op, in this order (kac_op_inputs): */
enum { KAC_IN_X, KAC_IN_BIAS, KAC_IN_RESIDUAL, KAC_IN_WEIGHT, KAC_IN_ROW_BIAS, KAC_IN_LOW, KAC_IN_UP }; /* linear, conv2d */
enum { KAC_IN_A, KAC_IN_B };             /* matmul_t, concat */
enum { KAC_IN_Q, KAC_IN_K, KAC_IN_V };   /* attention */
enum { KAC_IN_SCALE = 1, KAC_IN_SHIFT }; /* after x: norms, affine, modulate */
enum { KAC_IN_TABLE, KAC_IN_POSITION };  /* embedding */
/* lincomb: its terms. All others: x. */
typedef struct kac_grads {
    kac_tensor out, in[KAC_MAX_TERMS];
} kac_grads;

#define KAC_GRAD_OPS(X)                                                                                                \
    X(linear)                                                                                                          \
    X(conv2d) X(matmul_t) X(attention) X(group_norm) X(layer_norm) X(l2_normalize) X(activate) X(affine) X(modulate)   \
        X(clamp) X(lincomb) X(row_stats) X(copy) X(concat) X(gather) X(embedding) X(upsample_nearest) X(avg_pool2)     \
            X(resample)

/* Copies the tensors of an op's arguments to `in` (data NULL where left out), returns how many there are. A weight stands there as
 * f32 [n_out, n_in] or [n_out, n_in, kh, kw] at the address of its packed data, which identifies it: its gradient lies as in checkpoints. */
int kac_op_inputs(kac_op op, const void *args, kac_tensor in[KAC_MAX_TERMS]);
kac_tensor kac_op_output(kac_op op, const void *args);
kac_tensor kac_weight_identity(const kac_weight *w);

struct kac_ops {
    const char *name;
    kac_status (*open)(kac_ctx *c); /* sets c->backend */
    void (*close)(kac_ctx *c);
    kac_status (*weight_pack)(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint); /* w's shape is filled in */
    /* For plan runs, which must find the exact bytes: what weight_pack takes from the model and (at its peak) scratch arenas, and what
     * a slot takes from scratch for itself while it runs. They depend on shapes, c->dtype and c->n_threads only. */
    void (*weight_bytes)(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch);
    size_t (*scratch_bytes)(const kac_ctx *c, kac_op op, const void *args);
#define KAC_OP_SLOT(name) kac_status (*name)(kac_ctx * c, const kac_##name##_args *a);
    KAC_OPS(KAC_OP_SLOT)
#undef KAC_OP_SLOT
    /* Backward: the call as it was recorded (inputs and output unchanged since), gradients added to g->in. */
    size_t (*grad_scratch_bytes)(const kac_ctx *c, kac_op op, const void *args, const kac_grads *g);
#define KAC_GRAD_SLOT(name) kac_status (*name##_grad)(kac_ctx * c, const kac_##name##_args *a, const kac_grads *g);
    KAC_GRAD_OPS(KAC_GRAD_SLOT)
#undef KAC_GRAD_SLOT
};

extern const struct kac_ops kac_ref_ops;  /* src/ref: every slot, plain C, double accumulation */
extern const struct kac_ops kac_plan_ops; /* src/plan: computes nothing */
const struct kac_ops *kac_cpu_ops(void);  /* src/cpu: starts from ref, overrides */

/* Calls the slot of op's gradient. KAC_E_UNSUPPORTED for an op without one. */
kac_status kac_op_grad(kac_ctx *c, kac_op op, const void *args, const kac_grads *g);

/* What a tape sees: each op as it was called. tensor/tape.h is the one that goes backward. */
typedef kac_status (*kac_segment_fn)(kac_ctx *c, const void *args);
typedef struct kac_tape {
    kac_status (*record)(struct kac_tape *t, kac_op op, const void *args, size_t n_args);
    /* May be NULL: then a segment is only its ops. */
    kac_status (*segment)(struct kac_tape *t, kac_segment_fn run, const void *args, size_t n_args, kac_tensor out);
    /* May be NULL. Memory of n bytes that lives as long as what is recorded. */
    void *(*keep)(struct kac_tape *t, const void *data, size_t n);
} kac_tape;

const char *kac_op_name(kac_op op);

#endif
