#include "ref/ref.h"

size_t kac_ref_scratch_bytes(const kac_ctx *c, kac_op op, const void *args) {
    if (op == KAC_OP_attention) return kac_ref_attention_scratch(c, args);
    if (op == KAC_OP_resample) return kac_ref_resample_scratch(args);
    return 0;
}

size_t kac_ref_grad_scratch_bytes(const kac_ctx *c, kac_op op, const void *args, const kac_grads *g) {
    (void)c, (void)g;
    if (op == KAC_OP_linear) return kac_ref_linear_grad_scratch(args);
    if (op == KAC_OP_conv2d) return kac_ref_conv2d_grad_scratch(args);
    if (op == KAC_OP_attention) return kac_ref_attention_grad_scratch(args);
    if (op == KAC_OP_resample) return kac_ref_resample_scratch(args);
    return 0;
}

const struct kac_ops kac_ref_ops = {.name = "ref",
                                    .weight_pack = kac_ref_weight_pack,
                                    .weight_bytes = kac_ref_weight_bytes,
                                    .scratch_bytes = kac_ref_scratch_bytes,
#define KAC_REF_ENTRY(op) .op = kac_ref_##op,
                                    KAC_OPS(KAC_REF_ENTRY)
#undef KAC_REF_ENTRY
                                    .grad_scratch_bytes = kac_ref_grad_scratch_bytes,
#define KAC_REF_GRAD_ENTRY(op) .op##_grad = kac_ref_##op##_grad,
                                    KAC_GRAD_OPS(KAC_REF_GRAD_ENTRY)
#undef KAC_REF_GRAD_ENTRY
};
