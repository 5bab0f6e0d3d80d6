#include "train/methods.h"
#include <string.h>

static const kac_tune_method *const methods[] = {
    &kac_tune_alignprop, &kac_tune_draft_k, &kac_tune_draft_lv,   &kac_tune_refl, &kac_tune_drtune,
    &kac_tune_ddpo,      &kac_tune_raft,    &kac_tune_dpo_online, &kac_tune_nft,  NULL};

const kac_tune_method *const *kac_tune_method_list(void) {
    return methods;
}

const kac_tune_method *kac_tune_method_find(const char *name) {
    for (int i = 0; methods[i] != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}
