/* Tuning a pipeline's denoiser: kac_trainee (train/trainee.h) over a latent diffusion model.
 *
 *     KAC_TRY(kac_parameters_create(&parameters, &spec));                    // before the pipeline is opened, which gets them
 *     …
 *     kac_trainee t;
 *     KAC_TRY(kac_latent_trainee_open(&t, &ctx, &pipeline, &solver, parameters, &rewards, &options));
 *     … t.predict, t.backward, t.reward …
 *     kac_latent_trainee_close(&t);
 *
 * Prompts go through the text encoder once; their keys and values in the denoiser are computed for the prompts of a call and kept as long as
 * these and θ stay the same. Backward records them too where they depend on θ. States and gradients of a call lie in c->scratch and are gone
 * afterwards, so that memory does not depend on the number of steps. */
#ifndef KAC_LATENT_TRAINEE_H
#define KAC_LATENT_TRAINEE_H

#include "nn/parameters.h"
#include "run/latent_texts.h"
#include "run/picture_gradient.h"
#include "train/trainee.h"

typedef struct kac_latent_trainee_options {
    const char *const *prompts;   /* [n_prompts]; one "" for an unconditional model */
    const char *const *plain;     /* [n_prompts] the same as rewards read them: without weights; NULL: prompts */
    const char *const *negatives; /* [n_prompts]; NULL, there or inside: none given */
    int n_prompts;
    kac_latent_text_options text; /* width and height too: pixels, multiples of the pipeline's factor */
    int batch;                    /* states of one call */
    kac_reward_balance balance;
} kac_latent_trainee_options;

/* Everything is borrowed and must outlive it. Calls kac_parameters_finish; θ at its start is in use and in t->values. Takes from c->run what
 * stays; nothing else may stay there above it. rewards NULL or empty: t->reward fails. KAC_E_UNSUPPORTED, by name: networks that predict a
 * variance, that repaint, backends whose weights cannot change. */
kac_status kac_latent_trainee_open(kac_trainee *t, kac_ctx *c, const kac_pipeline *p, const kac_solver *solver,
                                   kac_parameters *parameters, kac_reward_set *rewards,
                                   const kac_latent_trainee_options *o);
void kac_latent_trainee_close(kac_trainee *t); /* a zeroed one is fine */

int kac_latent_trainee_n_truncated(const kac_trainee *t); /* prompts longer than the text encoder's context */

/* The picture of a state x0 [n_state]: 8-bit RGB [height, width, 3]. n at once, at most t->batch. */
kac_status kac_latent_trainee_pictures(kac_trainee *t, const float *x0, int n, uint8_t *rgb);

/* Every call that a tuning step makes, once, on the plan backend: the peaks of c's arenas are then those of a real run. Of gradients, and of
 * arrays on the host: what a trainee itself has. */
typedef struct kac_latent_trainee_bytes {
    size_t model, run, scratch, gradients, host;
} kac_latent_trainee_bytes;
kac_status kac_latent_trainee_rehearse(kac_trainee *t, kac_latent_trainee_bytes *bytes);

#endif
