/* What is being tuned: a denoiser with parameters θ and a reward of its samples. Methods and the trainer are host code that sees only this, so
 * that the same code tunes a latent diffusion model and a chain small enough for an exact answer.
 *
 *     KAC_TRY(t->use(t, values));                                      θ from here on
 *     KAC_TRY(t->predict(t, &in, out));                                the network's guided output
 *     KAC_TRY(t->backward(t, &in, loss, self, d_x));                   forward again, loss(out) → d_out, then t->grads += …
 *     KAC_TRY(t->reward(t, x0, prompt, n, totals, d_x0));              decoded and scored; gradient by x0
 *
 * Arrays are f32 on the host, states in rows of n_state numbers. */
#ifndef KAC_TRAINEE_H
#define KAC_TRAINEE_H

#include "samplers/solver.h"
#include <kac/status.h>
#include <stdbool.h>
#include <stdint.h>

/* States to evaluate the network at. */
typedef struct kac_denoise {
    int n;                  /* 1 … t->batch */
    const float *x;         /* [n, n_state] */
    const double *timestep; /* [n] */
    const double *c_in;     /* [n] scale of the network's input, which is c_in · x; NULL: 1 */
    const int *prompt;      /* [n] index into the trainee's prompts */
    double cfg_scale;       /* up to 1: the conditional output alone, one evaluation a state instead of two */
} kac_denoise;

/* d_out [n, n_state] = dL/d out for a scalar loss L of the outputs; called once in each backward. */
typedef kac_status (*kac_output_loss)(void *self, const kac_denoise *in, const float *out, float *d_out);

typedef struct kac_trainee_counts {
    int64_t denoiser, denoiser_grad; /* evaluations of one state (two with guidance): plain, and with a backward pass */
    int64_t decoder, reward, reward_grad; /* pictures */
} kac_trainee_counts;

typedef struct kac_trainee kac_trainee;
struct kac_trainee {
    void *self;
    int64_t n_state;
    int n_prompts;
    int batch; /* largest n of one call */
    const kac_schedule *schedule;
    const kac_solver *solver; /* how samples are drawn */
    const char *no_grad; /* why the reward has no gradient, e.g. the name of the part that has none; NULL: it has one */

    int64_t n_values;
    float *values; /* [n_values] θ: the optimiser's; after a change use() must be called */
    float *grads;  /* [n_values] dL/dθ, added to by backward; zeroed by whoever starts a sum */
    kac_trainee_counts counts;

    /* predict and backward act with these values [n_values] until the next call; NULL: the base model, as it was before tuning. */
    kac_status (*use)(kac_trainee *t, const float *values);
    kac_status (*predict)(kac_trainee *t, const kac_denoise *in, float *out);
    /* d_x [n, n_state] = (∂ out / ∂ x)ᵀ d_out, written; NULL: not wanted. With guidance the gradient goes through both evaluations. */
    kac_status (*backward)(kac_trainee *t, const kac_denoise *in, kac_output_loss loss, void *self, float *d_x);
    /* totals [n]: the combined reward of final states x0 [n, n_state], n ≤ batch. d_x0 [n, n_state] = d totals[i] / d x0[i]; NULL: not wanted,
     * and then every reward can be scored. KAC_E_NONFINITE names the reward. */
    kac_status (*reward)(kac_trainee *t, const float *x0, const int *prompt, int n, double *totals, float *d_x0);
};

#endif
