#include "util/golden_run.h"
#include <stdio.h>

typedef struct setting {
    const char *text;
    const struct kac_ops *ops;
    kac_dtype dtype;
    double tolerance; /* 0: the case's own for bf16 */
} setting;

static bool run_one(const char *name, setting s, golden_case run) {
    golden g;
    kac_ctx c;
    if (golden_open(&g, name) != KAC_OK) {
        printf("%s: %s\n", name, kac_error());
        return false;
    }
    bool fine = kac_ctx_open(&c, s.ops, s.dtype, 2, NULL) == KAC_OK;
    if (fine) {
        golden_watch(&g, &c, s.tolerance == 0 ? golden_bf16_tolerance(&g) : s.tolerance);
        printf("%s %s: ", name, s.text);
        fine = run(&g, &c);
        fine = golden_done(&g) && fine;
        kac_ctx_close(&c);
    } else {
        printf("%s: %s\n", name, kac_error());
    }
    golden_close(&g);
    return fine;
}

int golden_run(const char *family, golden_case run) {
    const setting settings[] = {{"ref f32", &kac_ref_ops, KAC_F32, 1e-5},
                                {"cpu f32", kac_cpu_ops(), KAC_F32, 1e-5},
                                {"cpu bf16", kac_cpu_ops(), KAC_BF16, 0}};
    static char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME];
    const int n = golden_list(names, family);
    int n_failed = n == 0;
    if (n == 0) printf("%s: no cases\n", family);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < KAC_COUNT_OF(settings); k++) n_failed += !run_one(names[i], settings[k], run);
    return n_failed;
}
