/* The plan backend: computes nothing and touches no memory. The fronts check shapes, take outputs and count as ever;
 * here each slot takes and gives back what the CPU backend's slot would, so that the arenas' peaks are exactly those of
 * a real run. */
#include "tensor/ops.h"

static kac_status take_and_release(kac_arena *arena, size_t n_bytes) {
    if (n_bytes == 0) return KAC_OK;
    const size_t mark = kac_arena_mark(arena);
    if (kac_arena_take(arena, n_bytes) == NULL) return KAC_E_MEMORY;
    kac_arena_release(arena, mark);
    return KAC_OK;
}

static kac_status weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    (void)src;
    size_t scratch;
    kac_cpu_ops()->weight_bytes(c, w, stride_hint, &w->n_bytes, &scratch);
    w->data = kac_arena_take(&c->model, w->n_bytes);
    return w->data == NULL ? KAC_E_MEMORY : take_and_release(&c->scratch, scratch);
}

#define PLAN_SLOT(op)                                                                                                  \
    static kac_status plan_##op(kac_ctx *c, const kac_##op##_args *a) {                                                \
        return take_and_release(&c->scratch, kac_cpu_ops()->scratch_bytes(c, KAC_OP_##op, a));                         \
    }
KAC_OPS(PLAN_SLOT)
#undef PLAN_SLOT

#define PLAN_GRAD_SLOT(op)                                                                                             \
    static kac_status plan_##op##_grad(kac_ctx *c, const kac_##op##_args *a, const kac_grads *g) {                     \
        return take_and_release(&c->scratch, kac_cpu_ops()->grad_scratch_bytes(c, KAC_OP_##op, a, g));                 \
    }
KAC_GRAD_OPS(PLAN_GRAD_SLOT)
#undef PLAN_GRAD_SLOT

const struct kac_ops kac_plan_ops = {.name = "plan",
                                     .weight_pack = weight_pack,
#define PLAN_ENTRY(op) .op = plan_##op,
                                     KAC_OPS(PLAN_ENTRY)
#undef PLAN_ENTRY
#define PLAN_GRAD_ENTRY(op) .op##_grad = plan_##op##_grad,
                                         KAC_GRAD_OPS(PLAN_GRAD_ENTRY)
#undef PLAN_GRAD_ENTRY
};
