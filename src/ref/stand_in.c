#include "tensor/ops.h"

/* Until there is a CPU backend, ref stands in for it. */
#pragma weak kac_cpu_ops
const struct kac_ops *kac_cpu_ops(void) {
    return &kac_ref_ops;
}
