/* The one place that knows the backends by name. */
#ifndef KAC_BACKEND_H
#define KAC_BACKEND_H

#include "tensor/ops.h"

#define KAC_BACKEND_CHOICES "cpu|ref|onednn"

/* "cpu", "ref", "onednn" or "plan". KAC_E_USAGE for any other name, KAC_E_UNSUPPORTED for one that this build lacks. */
kac_status kac_backend_find(const struct kac_ops **out, const char *name);

#endif
