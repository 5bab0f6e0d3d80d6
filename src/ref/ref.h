/* The reference backend: every op in plain C with double accumulation. It is the meaning of the ops; fast backends are
 * compared with it. One file per op family, the same names as in src/cpu. */
#ifndef KAC_REF_H
#define KAC_REF_H

#include "tensor/convert.h"
#include "tensor/ops.h"

#define KAC_REF_SLOT(name) kac_status kac_ref_##name(kac_ctx *c, const kac_##name##_args *a);
KAC_OPS(KAC_REF_SLOT)
#undef KAC_REF_SLOT

/* Keeps [n_out, n_in] or [n_out, kh, kw, n_in], row-major, in c->dtype. */
kac_status kac_ref_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint);

/* What weight_pack and the slots take from the arenas; see struct kac_ops. */
void kac_ref_weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch);
size_t kac_ref_scratch_bytes(const kac_ctx *c, kac_op op, const void *args);
size_t kac_ref_attention_scratch(const kac_ctx *c, const kac_attention_args *a);
size_t kac_ref_resample_scratch(const kac_resample_args *a);

double kac_ref_act(double x, kac_act act);

/* Σ a[i] b[i] from the given offsets on. */
double kac_ref_dot(const void *a, kac_dtype dtype_a, int64_t offset_a, const void *b, kac_dtype dtype_b,
                   int64_t offset_b, int64_t n);

static inline double kac_ref_load(const kac_tensor *t, int64_t offset) {
    return kac_element_load(t->data, t->dtype, offset);
}

static inline void kac_ref_store(const kac_tensor *t, int64_t offset, double x) {
    kac_element_store(t->data, t->dtype, offset, x);
}

/* 0 for an optional tensor that was left out. */
static inline double kac_ref_load_or(const kac_tensor *t, int64_t offset, double otherwise) {
    return t->data == NULL ? otherwise : kac_ref_load(t, offset);
}

#endif
