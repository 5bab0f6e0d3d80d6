/* From betas to alphas_cumprod; between schedule_config.c, which reads them, and schedule.c. */
#ifndef KAC_SAMPLERS_SCHEDULE_BETAS_H
#define KAC_SAMPLERS_SCHEDULE_BETAS_H

#include "samplers/schedule.h"

typedef enum kac_betas_kind {
    KAC_BETAS_LINEAR,
    KAC_BETAS_SCALED_LINEAR, /* linear in sqrt(beta) */
    KAC_BETAS_COSINE,        /* squaredcos_cap_v2 */
    KAC_BETAS_SIGMOID,
    KAC_BETAS_LAPLACE,
    KAC_BETAS_TRAINED
} kac_betas_kind;

typedef struct kac_betas {
    kac_betas_kind kind;
    double start, end;
    const double *trained; /* [n_train] */
} kac_betas;

/* Fills s->alphas_cumprod from s->n_train, s->zero_snr and the betas. */
kac_status kac_schedule_betas(kac_schedule *s, const kac_betas *b);

#endif
