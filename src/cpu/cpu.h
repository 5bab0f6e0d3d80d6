/* The fast CPU backend: what its files share.
 *
 * Starts from the reference table and overrides slots (backend.c). Drivers (this folder) cut an op into tasks for OpenMP; kernels
 * (isa/) do the arithmetic. A slot takes scratch once, exactly what its `..._scratch` says, so that plan runs are exact. */
#ifndef KAC_CPU_H
#define KAC_CPU_H

#include "cpu/kernels.h"
#include "tensor/convert.h"
#include <omp.h>

/* The kernels for this machine; KAC_ISA=portable|avx2|avx512 in the environment chooses a lower set. KAC_E_USAGE for an unknown or
 * unavailable one. */
kac_status kac_cpu_kernels_find(const struct kac_kernels **out);
/* Those of an open context; in a plan run, those a real run would find. */
const struct kac_kernels *kac_cpu_kernels_of(const kac_ctx *c);

/* Carves named pieces out of one block of scratch; with base NULL it only counts. */
typedef struct kac_carver {
    char *base;
    size_t used;
} kac_carver;
static inline void *kac_carve(kac_carver *v, size_t n_bytes) {
    void *p = v->base ? v->base + v->used : NULL;
    v->used += (n_bytes + 63) / 64 * 64;
    return p;
}

/* Work below this many flops is not worth waking other threads. */
enum { KAC_PARALLEL_FLOPS = 200000 };
static inline int kac_cpu_threads(const kac_ctx *c, double flops) {
    return flops < KAC_PARALLEL_FLOPS ? 1 : c->n_threads;
}

static inline int64_t kac_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* x as f32 rows at a fixed distance: in place when it is that already, else copied to `buffer`. */
bool kac_cpu_rows_in_place(const kac_tensor *x, int64_t *ld);
void kac_cpu_rows_copy(kac_ctx *c, float *buffer, const kac_tensor *x);

/* ---- weights (weight.c) ---- */
typedef struct kac_weight_layout {
    int64_t n_taps, panels;
    size_t direct_bytes, wino_bytes,
        small_bytes; /* behind each other: direct, F(4×4) [36][panel][n_in][nr] f32, F(2×2) [16]… */
} kac_weight_layout;
kac_weight_layout kac_cpu_weight_layout(const struct kac_kernels *k, const kac_weight *w, kac_dtype dtype,
                                        int stride_hint);
kac_status kac_cpu_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint);
void kac_cpu_weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch);

/* ---- slots ---- */
/* Threads over rows and panels of g. partials: kac_cpu_gemm_partials(...) bytes, used when the sum has several blocks. */
void kac_cpu_gemm(kac_ctx *c, const kac_gemm *g, float *partials);
size_t kac_cpu_gemm_partials(const kac_ctx *c, const kac_gemm *g);

/* Products, whose weights weight.c packs; the rest; and slots that stay with the reference: small inputs, or never inside a step. */
#define KAC_CPU_PRODUCTS(X) X(linear) X(conv2d)
#define KAC_CPU_OTHERS(X)                                                                                              \
    X(attention)                                                                                                       \
    X(group_norm) X(layer_norm) X(activate) X(affine) X(lincomb) X(copy) X(concat) X(gather) X(embedding)              \
        X(upsample_nearest) X(randn)
#define KAC_REF_KEPT(X)                                                                                                \
    X(matmul_t) X(l2_normalize) X(modulate) X(clamp) X(row_stats) X(timestep_embedding) X(avg_pool2) X(resample)
#define KAC_CPU_SLOT(name) kac_status kac_cpu_##name(kac_ctx *c, const kac_##name##_args *a);
KAC_CPU_PRODUCTS(KAC_CPU_SLOT)
KAC_CPU_OTHERS(KAC_CPU_SLOT)
#undef KAC_CPU_SLOT

size_t kac_cpu_linear_scratch(const kac_ctx *c, const kac_linear_args *a);
size_t kac_cpu_conv2d_scratch(const kac_ctx *c, const kac_conv2d_args *a);
size_t kac_cpu_attention_scratch(const kac_ctx *c, const kac_attention_args *a);
size_t kac_cpu_group_norm_scratch(const kac_ctx *c, const kac_group_norm_args *a);

/* ---- backward ---- */
/* Slots of its own; the rest uses the reference's. */
#define KAC_CPU_GRADS(X)                                                                                               \
    X(linear)                                                                                                          \
    X(conv2d) X(attention) X(group_norm) X(layer_norm) X(activate) X(lincomb) X(copy) X(concat) X(upsample_nearest)
#define KAC_REF_GRADS_KEPT(X)                                                                                          \
    X(matmul_t) X(l2_normalize) X(affine) X(modulate) X(clamp) X(row_stats) X(gather) X(embedding) X(avg_pool2) X(resample)
#define KAC_CPU_GRAD_SLOT(name) kac_status kac_cpu_##name##_grad(kac_ctx *c, const kac_##name##_args *a, const kac_grads *g);
KAC_CPU_GRADS(KAC_CPU_GRAD_SLOT)
#undef KAC_CPU_GRAD_SLOT
size_t kac_cpu_linear_grad_scratch(const kac_ctx *c, const kac_linear_args *a, const kac_grads *g);
size_t kac_cpu_conv2d_grad_scratch(const kac_ctx *c, const kac_conv2d_args *a, const kac_grads *g);
size_t kac_cpu_attention_grad_scratch(const kac_ctx *c, const kac_attention_args *a);
size_t kac_cpu_group_norm_grad_scratch(const kac_ctx *c, const kac_group_norm_args *a);
size_t kac_cpu_layer_norm_grad_scratch(const kac_ctx *c, const kac_layer_norm_args *a, const kac_grads *g);

/* Outputs o0 … o1 of w as inputs, its inputs as outputs, taps from the last to the first; f32 panels. */
size_t kac_cpu_reverse_bytes(const kac_ctx *c, const kac_weight *w, int64_t n_rows);
void kac_cpu_reverse(kac_ctx *c, float *to, const kac_weight *w, int64_t o0, int64_t o1);
/* to += by · from, n numbers; nothing when `to` is NULL. */
void kac_cpu_add(kac_ctx *c, float *to, const float *from, int64_t n, float by);
/* to[j] += Σ over m rows of dz. */
void kac_cpu_column_sums(kac_ctx *c, float *to, const float *dz, int64_t ld, int64_t m, int64_t n);
/* dw [n_o, n_i] += Σ over m rows of dz[m, o] · x[m, i]; row() gives row m of x. */
typedef struct kac_outer {
    float *dw;
    int64_t ld, n_o, n_i, m;
    const float *dz;
    int64_t ldz;
    void (*row)(const void *self, int64_t m, float *to);
    const void *self;
} kac_outer;
size_t kac_cpu_outer_bytes(const kac_ctx *c, int64_t n_o, int64_t n_i);
void kac_cpu_outer(kac_ctx *c, const kac_outer *p, void *scratch);
/* Per image and channel: the group's mean, γ / deviation, 1 / deviation. */
size_t kac_cpu_group_stats_scratch(const kac_ctx *c, const kac_group_norm_args *a);
kac_status kac_cpu_group_stats(kac_ctx *c, const kac_group_norm_args *a, float *center, float *scale, float *inverse);

/* Winograd's part of conv2d (winograd.c). x: f32 or bf16 NHWC; bias rows prepared by conv2d. */
/* size: outputs of a tile along one axis, 4 or 2. */
void kac_cpu_wino_pack(kac_ctx *c, float *u, const kac_weight *w, const kac_tensor *src, int64_t panels, int size);
bool kac_cpu_wino_fits(const struct kac_kernels *k, const kac_conv2d_args *a);
size_t kac_cpu_wino_scratch(const kac_ctx *c, const kac_conv2d_args *a);
void kac_cpu_wino_run(kac_ctx *c, const kac_conv2d_args *a, const float *bias, const int *bias_row, void *scratch);

#endif
