/* The reference backend: every op in plain C with double accumulation. It is the meaning of the ops; fast backends are
 * compared with it. One file per op family, the same names as in src/cpu. */
#ifndef KAC_REF_H
#define KAC_REF_H

#include "tensor/convert.h"
#include "tensor/ops.h"

#define KAC_REF_SLOT(name) kac_status kac_ref_##name(kac_ctx *c, const kac_##name##_args *a);
KAC_OPS(KAC_REF_SLOT)
#undef KAC_REF_SLOT
#define KAC_REF_GRAD_SLOT(name) kac_status kac_ref_##name##_grad(kac_ctx *c, const kac_##name##_args *a, const kac_grads *g);
KAC_GRAD_OPS(KAC_REF_GRAD_SLOT)
#undef KAC_REF_GRAD_SLOT

/* Keeps [n_out, n_in] or [n_out, kh, kw, n_in], row-major, in c->dtype. */
kac_status kac_ref_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint);

/* What weight_pack and the slots take from the arenas; see struct kac_ops. */
void kac_ref_weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch);
size_t kac_ref_scratch_bytes(const kac_ctx *c, kac_op op, const void *args);
size_t kac_ref_attention_scratch(const kac_ctx *c, const kac_attention_args *a);
size_t kac_ref_resample_scratch(const kac_resample_args *a);
size_t kac_ref_grad_scratch_bytes(const kac_ctx *c, kac_op op, const void *args, const kac_grads *g);
size_t kac_ref_linear_grad_scratch(const kac_linear_args *a);
size_t kac_ref_conv2d_grad_scratch(const kac_conv2d_args *a);
size_t kac_ref_attention_grad_scratch(const kac_attention_args *a);

double kac_ref_act(double x, kac_act act);
double kac_ref_act_slope(double x, kac_act act); /* its derivative */

/* Before the activation: (x Wᵀ + x' Uᵀ + bias) at a row, which begins at `offset_x` of x, and output feature o; a convolution
 * with its biases. */
double kac_ref_linear_sum(const kac_linear_args *a, int64_t row, int64_t offset_x, int64_t o);
double kac_ref_conv2d_sum(const kac_conv2d_args *a, int64_t n, int64_t y, int64_t x, int64_t o);

/* Σ a[i] b[i] from the given offsets on. */
double kac_ref_dot(const void *a, kac_dtype dtype_a, int64_t offset_a, const void *b, kac_dtype dtype_b,
                   int64_t offset_b, int64_t n);

static inline double kac_ref_load(const kac_tensor *t, int64_t offset) {
    return kac_element_load(t->data, t->dtype, offset);
}

static inline void kac_ref_store(const kac_tensor *t, int64_t offset, double x) {
    kac_element_store(t->data, t->dtype, offset, x);
}

/* g += x, for a gradient that is wanted. */
static inline void kac_ref_add(const kac_tensor *g, int64_t offset, double x) {
    if (g->data != NULL) kac_ref_store(g, offset, kac_ref_load(g, offset) + x);
}

/* Mean and 1/sqrt(variance + eps) of n_rows × n_columns elements, rows n_stride apart. */
typedef struct kac_ref_moments {
    double mean, scale;
} kac_ref_moments;
kac_ref_moments kac_ref_moments_of(const kac_tensor *x, int64_t offset, int64_t n_rows, int64_t n_columns,
                                   int64_t n_stride, double eps);

/* 0 for an optional tensor that was left out. */
static inline double kac_ref_load_or(const kac_tensor *t, int64_t offset, double otherwise) {
    return t->data == NULL ? otherwise : kac_ref_load(t, offset);
}

#endif
