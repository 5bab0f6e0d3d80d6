/* Finished samples noised again to random levels of the sampler, for methods that train on the forward process: x = α x0 + σ z. */
#ifndef KAC_TRAIN_NOISED_H
#define KAC_TRAIN_NOISED_H

#include "train/trainer.h"

typedef struct kac_noised {
    const kac_trainee *t;
    int n;
    float *x, *x0; /* [n, n_state] */
    double *timestep, *c_in;
    int *row, *prompt, *sample;
} kac_noised;

kac_status kac_noised_open(kac_noised *m, const kac_trainee *t, int n);
void kac_noised_close(kac_noised *m); /* a zeroed one is fine */
/* Entry i becomes x0 [n_state] at a random row with fresh noise: functions of (seed of the round and stream, i). `sample` is the caller's. */
void kac_noised_set(kac_noised *m, const kac_trainer *tr, uint32_t stream, int i, const float *x0, int prompt,
                    int sample);
/* Entries first … first + n − 1. */
kac_denoise kac_noised_call(const kac_noised *m, int first, int n, double cfg_scale);
/* The network's outputs for all entries, with the values in use. */
kac_status kac_noised_predict(const kac_noised *m, kac_trainee *t, double cfg_scale, float *out);

#endif
