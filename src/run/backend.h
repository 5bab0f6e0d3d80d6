/* The one place that knows the backends by name. */
#ifndef KAC_BACKEND_H
#define KAC_BACKEND_H

#include "tensor/ops.h"

#define KAC_BACKEND_CHOICES "cpu|ref|onednn"
/* A row of option tables. */
/* clang-format off */
#define KAC_OPTION_BACKEND                                                                                             \
    {"backend", 0, KAC_OPT_CHOICE, "cpu", .choices = KAC_BACKEND_CHOICES,                                              \
     .help = "ref: slow, the formulas in plain C; onednn: products by oneDNN, for comparison"}
/* clang-format on */

/* "cpu", "ref", "onednn" or "plan". KAC_E_USAGE for any other name, KAC_E_UNSUPPORTED for one that this build lacks. */
kac_status kac_backend_find(const struct kac_ops **out, const char *name);

#endif
