/* States of a sampled chain at mixed rows, collected for one call of the network. */
#ifndef KAC_TRAIN_GATHER_H
#define KAC_TRAIN_GATHER_H

#include "train/chain.h"

/* One transition of a chain: sample `sample` at row `row`. */
typedef struct kac_transition {
    int sample, row;
} kac_transition;

typedef struct kac_gather {
    float *x;
    double *timestep, *c_in;
    int *prompt;
} kac_gather;

kac_status kac_gather_open(kac_gather *g, const kac_trainee *t);
void kac_gather_close(kac_gather *g); /* a zeroed one is fine */
/* n ≤ t->batch transitions, with the guidance that the chain was drawn with; good until the next call. */
kac_denoise kac_gather_call(kac_gather *g, const kac_chain *ch, const kac_transition *list, int n);
/* Every sample of first … first + n − 1 at its own random choice of n_kept of the rows, all of them in random order. List: n · n_kept.
 * Random numbers are functions of seed. */
void kac_gather_shuffle(kac_transition *list, const int *samples, int n, const int *rows, int n_rows, int n_kept,
                        uint64_t seed);

#endif
