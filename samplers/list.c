#include "samplers/methods.h"
#include <string.h>

static const kac_method *const methods[] = {&kac_method_none, &kac_method_best_of_n, &kac_method_fk,
                                            &kac_method_dps,  &kac_method_tds,       &kac_method_das,
                                            &kac_method_is,   &kac_method_svdd,      NULL};

const kac_method *const *kac_method_list(void) {
    return methods;
}

const kac_method *kac_method_find(const char *name) {
    for (int i = 0; methods[i] != NULL; i++)
        if (strcmp(methods[i]->name, name) == 0) return methods[i];
    return NULL;
}
