#include "backend.h"
#include "cpu/onednn.h"
#include <string.h>

kac_status kac_backend_find(const struct kac_ops **out, const char *name) {
    const struct {
        const char *name;
        const struct kac_ops *ops;
    } all[] = {{"cpu", kac_cpu_ops()}, {"ref", &kac_ref_ops}, {"onednn", kac_onednn_ops()}, {"plan", &kac_plan_ops}};
    for (int i = 0; i < KAC_COUNT_OF(all); i++)
        if (strcmp(all[i].name, name) == 0) {
            *out = all[i].ops;
            if (*out == NULL) return KAC_FAIL(KAC_E_UNSUPPORTED, "this build has no oneDNN; use --backend cpu");
            return KAC_OK;
        }
    return KAC_FAIL(KAC_E_USAGE, "there is no backend \"%s\"; use cpu, ref or onednn", name);
}
