/* The one place that knows the backends by name. */
#ifndef KAC_BACKEND_H
#define KAC_BACKEND_H

#include "tensor/ops.h"

#define KAC_BACKEND_CHOICES "cpu|ref"

/* "cpu", "ref" or "plan". KAC_E_USAGE for any other name. */
kac_status kac_backend_find(const struct kac_ops **out, const char *name);

#endif
