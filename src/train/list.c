#include "train/methods.h"
#include <string.h>

static const kac_tune_method *const methods[] = {&kac_tune_alignprop, NULL};

const kac_tune_method *const *kac_tune_method_list(void) {
    return methods;
}

const kac_tune_method *kac_tune_method_find(const char *name) {
    for (int i = 0; methods[i] != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}
