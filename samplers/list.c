#include "base/base.h"
#include "samplers/methods.h"
#include <stdio.h>
#include <string.h>

static const kac_method *const methods[] = {&kac_method_none,
                                            &kac_method_best_of_n,
                                            &kac_method_fk,
                                            &kac_method_dps,
                                            &kac_method_tds,
                                            &kac_method_das,
                                            &kac_method_is,
                                            &kac_method_svdd,
                                            &kac_method_code,
                                            &kac_method_dsearch,
                                            &kac_method_rbf,
                                            &kac_method_dts,
                                            &kac_method_dts_star,
                                            &kac_method_noise_random,
                                            &kac_method_noise_zero_order,
                                            &kac_method_noise_paths,
                                            &kac_method_reno,
                                            &kac_method_psi,
                                            &kac_method_demon,
                                            NULL};

const kac_method *const *kac_method_list(void) {
    return methods;
}

/* Sets "name=value" unless it was set already. */
static kac_status set_one(kac_options *o, const char *setting) {
    char name[64], value[64];
    KAC_ASSERT(sscanf(setting, " %63[^=]=%63s", name, value) == 2);
    return kac_options_has(o, name) && !kac_options_given(o, name) ? kac_options_set(o, name, value) : KAC_OK;
}

kac_status kac_method_preset(const kac_method *method, kac_options *o) {
    const char *name = kac_options_has(o, "preset") ? kac_options_text(o, "preset") : NULL;
    for (const kac_preset *p = method->presets; name != NULL && p != NULL && p->name != NULL; p++) {
        if (strcmp(p->name, name) != 0) continue;
        for (const char *at = p->settings; *at != '\0'; at += strcspn(at, " "), at += strspn(at, " "))
            KAC_TRY(set_one(o, at));
    }
    return KAC_OK;
}

const char *kac_target_text(kac_target target) {
    switch (target) {
    case KAC_TARGET_BASE:
        return "the model itself";
    case KAC_TARGET_TILTED:
        return "base × exp(λ r), exact as the budget grows";
    case KAC_TARGET_MODE:
        return "the highest reward among what the model could have drawn; no law";
    case KAC_TARGET_HEURISTIC:
        break;
    }
    return "near base × exp(λ r), not exact";
}

const kac_method *kac_method_find(const char *name) {
    for (int i = 0; methods[i] != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}
