/* Which instruction set: the best that this machine runs, or a lower one by name. */
#include "cpu/cpu.h"
#include "cpu/onednn.h"
#include <stdlib.h>

typedef struct candidate {
    const struct kac_kernels *kernels;
    bool runs, only_named;
} candidate;

kac_status kac_cpu_kernels_find(const struct kac_kernels **out) {
#ifdef KAC_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    const candidate all[] = {{&kac_kernels_avx512, avx512, false},
                             {&kac_kernels_avx2, avx2, false},
                             {&kac_kernels_portable, true, false},
                             {&kac_kernels_wide, avx2, true}};
#else
    const candidate all[] = {{&kac_kernels_portable, true, false}};
#endif
    const char *name = getenv("KAC_ISA");
    const bool any = name == NULL || name[0] == 0;
    for (int i = 0; i < KAC_COUNT_OF(all); i++) {
        if (any ? all[i].only_named : strcmp(name, all[i].kernels->name) != 0) continue;
        if (!all[i].runs && !any)
            return KAC_FAIL(KAC_E_USAGE, "KAC_ISA=%s: this machine cannot run it; unset it", name);
        if (!all[i].runs) continue;
        *out = all[i].kernels;
        return KAC_OK;
    }
    return KAC_FAIL(KAC_E_USAGE, "KAC_ISA=%s is unknown; portable, avx2, avx512 and wide are known", name);
}

const struct kac_kernels *kac_cpu_kernels_of(const kac_ctx *c) {
    const struct kac_kernels *k = &kac_kernels_portable;
    if (c->ops == kac_cpu_ops()) return c->backend;
    if (c->ops == kac_onednn_ops()) return kac_onednn_kernels_of(c);
    return kac_cpu_kernels_find(&k) == KAC_OK ? k : &kac_kernels_portable;
}
