/* The table: the reference with the slots that src/cpu has. */
#include "cpu/cpu.h"
#include "ref/ref.h"

static kac_status open_backend(kac_ctx *c) {
    const struct kac_kernels *k;
    KAC_TRY(kac_cpu_kernels_find(&k));
    c->backend = (void *)k;
    return KAC_OK;
}

static void close_backend(kac_ctx *c) {
    c->backend = NULL;
}

static size_t scratch_bytes(const kac_ctx *c, kac_op op, const void *args) {
    switch (op) {
    case KAC_OP_linear:
        return kac_cpu_linear_scratch(c, args);
    case KAC_OP_conv2d:
        return kac_cpu_conv2d_scratch(c, args);
    case KAC_OP_attention:
        return kac_cpu_attention_scratch(c, args);
    case KAC_OP_group_norm:
        return kac_cpu_group_norm_scratch(c, args);
    default:
        return kac_ref_scratch_bytes(c, op, args);
    }
}

static size_t grad_scratch_bytes(const kac_ctx *c, kac_op op, const void *args, const kac_grads *g) {
    switch (op) {
    case KAC_OP_linear:
        return kac_cpu_linear_grad_scratch(c, args, g);
    case KAC_OP_conv2d:
        return kac_cpu_conv2d_grad_scratch(c, args, g);
    case KAC_OP_attention:
        return kac_cpu_attention_grad_scratch(c, args);
    case KAC_OP_group_norm:
        return kac_cpu_group_norm_grad_scratch(c, args);
    case KAC_OP_layer_norm:
        return kac_cpu_layer_norm_grad_scratch(c, args, g);
    default:
        return kac_ref_grad_scratch_bytes(c, op, args, g);
    }
}

static const struct kac_ops cpu_ops = {.name = "cpu",
                                       .open = open_backend,
                                       .close = close_backend,
                                       .weight_pack = kac_cpu_weight_pack,
                                       .weight_bytes = kac_cpu_weight_bytes,
                                       .scratch_bytes = scratch_bytes,
#define REF_ENTRY(op) .op = kac_ref_##op,
                                       KAC_REF_KEPT(REF_ENTRY)
#undef REF_ENTRY
#define CPU_ENTRY(op) .op = kac_cpu_##op,
                                           KAC_CPU_PRODUCTS(CPU_ENTRY) KAC_CPU_OTHERS(CPU_ENTRY)
#undef CPU_ENTRY
                                       .grad_scratch_bytes = grad_scratch_bytes,
#define REF_GRAD_ENTRY(op) .op##_grad = kac_ref_##op##_grad,
                                       KAC_REF_GRADS_KEPT(REF_GRAD_ENTRY)
#undef REF_GRAD_ENTRY
#define CPU_GRAD_ENTRY(op) .op##_grad = kac_cpu_##op##_grad,
                                           KAC_CPU_GRADS(CPU_GRAD_ENTRY)
#undef CPU_GRAD_ENTRY
};

const struct kac_ops *kac_cpu_ops(void) {
    return &cpu_ops;
}
