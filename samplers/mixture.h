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

/* One record of doubles per slot: x [d], x0-hat [d], log_w [k], means [k, d]; what the posterior of a predicted state is. */
struct kac_mixture {
    kac_process process;
    kac_mixture_model model;
    kac_kernel kernel; /* of step kernel_step */
    int kernel_step;
    int k, d, n_slots;
    size_t record; /* doubles */
    double *records, *spare;
    int *predicted; /* i_step at which the slot was predicted; −1: not since it last changed */
    uint64_t *root; /* deterministic chains: two slots of one root at one step hold one state */
    uint64_t next_root;
    int *known; /* [n_slots] slot that holds the prediction of a root, at its remainder; −1: none */
    uint64_t seed;
    double eta;
    int64_t n_evaluations;
    float *shift;   /* [n_slots, d] guidance of the next step */
    bool *shifted;  /* [n_slots] */
    double *ratio;  /* [n_slots] log p − log q of the step just drawn; NAN: it has no density */
    uint64_t *key;  /* [n_slots] whose noise the slot draws */
    float *noise;   /* [n_slots, d] of the next step, where `noised` */
    bool *noised;   /* [n_slots] */
    double *places; /* [n_places, record + 2] what was stored, and its entries of predicted and root behind it */
    int64_t n_places, most_places;
};

static inline double *kac_mixture_x(const kac_mixture *m, int slot) {
    return m->records + (size_t)slot * m->record;
}
static inline double *kac_mixture_x0(const kac_mixture *m, int slot) {
    return kac_mixture_x(m, slot) + m->d;
}
static inline double *kac_mixture_log_w(const kac_mixture *m, int slot) {
    return kac_mixture_x(m, slot) + 2 * m->d;
}
static inline double *kac_mixture_means(const kac_mixture *m, int slot) {
    return kac_mixture_x(m, slot) + 2 * m->d + m->k;
}

/* Search (process.h), in mixture_search.c. */
void kac_mixture_search_open(kac_mixture *m);
void kac_mixture_search_close(kac_mixture *m);

kac_status kac_mixture_model_parse(kac_mixture_model *m, const char *text, size_t n, const char *name);
/* A list of exactly n finite numbers; `what` names it in the message. */
kac_status kac_mixture_numbers(const kac_json *j, const cJSON *list, const char *what, double *out, int n);
void kac_mixture_model_free(kac_mixture_model *m);

#endif
