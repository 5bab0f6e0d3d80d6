#include "ref/ref.h"

const struct kac_ops kac_ref_ops = {.name = "ref",
                                    .weight_pack = kac_ref_weight_pack,
#define KAC_REF_ENTRY(op) .op = kac_ref_##op,
                                    KAC_OPS(KAC_REF_ENTRY)
#undef KAC_REF_ENTRY
};
