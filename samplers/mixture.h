/* The mixture process; its interface is public: include/kac/mixture.h. Reading its file is mixture_config.c. */
#ifndef KAC_SAMPLERS_MIXTURE_H
#define KAC_SAMPLERS_MIXTURE_H

#include "base/json.h"
#include "samplers/gaussian.h"
#include <kac/mixture.h>

typedef struct kac_mixture_model {
    kac_gmm prior;
    int n_steps;       /* K */
    double *alpha_bar; /* [K + 1], alpha_bar[0] = 1 */
    bool ddim;
} kac_mixture_model;

kac_status kac_mixture_model_parse(kac_mixture_model *m, const char *text, size_t n, const char *name);
/* A list of exactly n finite numbers; `what` names it in the message. */
kac_status kac_mixture_numbers(const kac_json *j, const cJSON *list, const char *what, double *out, int n);
void kac_mixture_model_free(kac_mixture_model *m);

#endif
