/* What every particle method shares: the particles' weights and bookkeeping, scoring, events, checkpoints. A method is a loop over
 *
 *     KAC_TRY(kac_swarm_start(&s, &i_step));
 *     for (; i_step < K; i_step++) {
 *         KAC_TRY(kac_swarm_predict(&s, i_step));
 *         … kac_swarm_score(predicted), change log_w, kac_swarm_resample …
 *         KAC_TRY(kac_swarm_report(&s, i_step, scored));
 *         KAC_TRY(kac_swarm_step(&s, i_step));
 *     }
 *     … kac_swarm_score(final), change log_w …
 *     KAC_TRY(kac_swarm_report(&s, K, scored));
 *     kac_swarm_finish(&s, out);
 *
 * with all groups in one pass, so that the network sees the largest batch. */
#ifndef KAC_SAMPLERS_SWARM_H
#define KAC_SAMPLERS_SWARM_H

#include "samplers/resample.h"
#include <kac/steer.h>

typedef struct kac_swarm {
    kac_process *process;
    kac_reward *reward; /* may be NULL */
    kac_events *events; /* may be NULL */
    uint64_t seed;
    int n_groups, n_per_group, n; /* n = n_groups · n_per_group slots */

    /* per slot; everything that belongs to a particle is moved by kac_swarm_resample and saved in checkpoints */
    double *log_w;       /* since the last resampling */
    double *log_product; /* Σ log G so far, for potentials whose last factor divides by it */
    double *memory;      /* what the potential remembers: previous reward, running maximum or sum */
    int *eves;           /* root ancestor, local to the group */

    bool weightless; /* a guided proposal is not weighed: the samples are its own */
    kac_status (*begin)(void *self); /* puts x_K into all slots in place of drawing it; NULL: it is drawn */
    void *begin_self;
    double *rewards; /* of the last scoring */
    double *log_z;   /* [n_groups] of the resamplings so far */

    /* of this step, for its event */
    bool *resampled; /* [n_groups] */
    int *ancestors;  /* local to the group */
    double *ess, *running_log_z, *weights_before;

    /* scratch */
    int *slots, *from, *to, *counts;
    double *shares, *sums;
    kac_blob own; /* what else the method saves; data NULL: nothing */
    void *state;  /* the process's, for checkpoints */
    size_t state_bytes;
} kac_swarm;

kac_status kac_swarm_init(kac_swarm *s, kac_process *process, kac_reward *reward, kac_events *events, uint64_t seed);
void kac_swarm_free(kac_swarm *s);

/* Draws x_K, or restores a checkpoint; *i_step is where to go on. */
kac_status kac_swarm_start(kac_swarm *s, int *i_step);
kac_status kac_swarm_predict(kac_swarm *s, int i_step);
/* Fills rewards; copies in a deterministic chain are scored once. KAC_E_NONFINITE, for infinities too, names the particle, its group and the step. */
kac_status kac_swarm_score(kac_swarm *s, int i_step, kac_stage stage);
/* Of these slots alone; the others' rewards stay. */
kac_status kac_swarm_score_some(kac_swarm *s, int i_step, kac_stage stage, const int *slots, int n);
/* The same check of rewards that came otherwise. */
kac_status kac_swarm_check_rewards(const kac_swarm *s, int i_step);
/* Where ESS < threshold · k (threshold 1: wherever weights differ) draws ancestors, moves the particles, adds to log_z
 * and resets log_w. Threshold 0 never resamples. */
kac_status kac_swarm_resample(kac_swarm *s, int i_step, double threshold, kac_scheme scheme);
/* Every particle becomes its ancestor as the caller has filled them in; what happens to weights is the caller's. After kac_swarm_resample
 * with threshold 0. */
kac_status kac_swarm_move(kac_swarm *s);
/* One event per group, of what kac_swarm_resample found and did: it must have been called for this step, if with threshold 0. */
kac_status kac_swarm_report(kac_swarm *s, int i_step, bool scored);
/* x' ~ p(· | x) for all, weights of a proposal (unless weightless), checkpoint, cancellation. */
kac_status kac_swarm_step(kac_swarm *s, int i_step);
/* Checkpoint and cancellation alone, for methods that step otherwise. */
kac_status kac_swarm_end_step(kac_swarm *s, int i_step);
/* All of it without steering, from start or restore to x_0. */
kac_status kac_swarm_run_plain(kac_swarm *s);
/* Hands the weighted particles over. */
void kac_swarm_finish(kac_swarm *s, kac_particles *out);

/* Effective sample size 1 / Σ W² of unnormalised log-weights: 1 … k. */
double kac_log_weights_ess(const double *log_w, int k);
/* log of the mean of exp(log_w). */
double kac_log_weights_log_mean(const double *log_w, int k);
/* Normalised weights. */
void kac_log_weights_normalise(double *w, const double *log_w, int k);

#endif
