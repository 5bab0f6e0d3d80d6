/* Everything of one steered run over a pipeline, on one context: opened twice, first on the plan backend to learn the exact sizes. */
#ifndef KAC_LATENT_RUN_H
#define KAC_LATENT_RUN_H

#include "nn/lora.h"
#include "run/latent_reward.h"
#include "run/start_image.h"
#include <kac/options.h>

typedef struct kac_latent_run {
    kac_ctx ctx;
    kac_lora_set *lora;           /* NULL: none */
    kac_inversion_set embeddings; /* n 0: none */
    kac_pipeline pipeline;
    kac_solver solver;
    kac_latent_options o;
    kac_start_image start; /* what o.start points to */
    kac_latent *latent;
    kac_reward_set rewards;
    kac_latent_reward *reward; /* NULL without rewards */
    kac_reward_set judges;     /* the run never sees them; the caller scores final pictures with them */
    size_t run_mark;           /* of ctx.run once loaded */
} kac_latent_run;

typedef struct kac_latent_setup {
    const kac_options *options; /* kac_generate_options */
    const char *model_dir;
    const char *merges;           /* as in kac_pipeline_options */
    const char *const *prompts;   /* [n_prompts]; one "" for an unconditional model */
    const char *const *plain;     /* [n_prompts] the same as rewards read them: without weights */
    const char *const *negatives; /* [n_prompts], NULL inside: none given */
    int n_prompts;
    const char *const *rewards; /* reward_spec.h */
    int n_rewards;
    const char *const *judges; /* the same, opened beside the rewards and prepared for the prompts */
    int n_judges;
    const char *density_for; /* what needs a solver with a transition density, for the message; NULL: nothing does */
    bool guided; /* the method will follow gradients: room for them is planned, and rewards without one are refused */
    int64_t nfe_beside; /* of nfe, what the method spends beside its particles */
    int64_t nfe;        /* as many particles as this many evaluations of states pay for; 0: as --particles says */
} kac_latent_setup;

typedef struct kac_latent_plan {
    kac_ctx_sizes sizes; /* exact bytes of each arena */
    size_t tape_bytes;   /* gradients on the way back, at most */
    size_t total_bytes;
    int batch;            /* states per network call */
    double denoise_flops; /* one network call of a full batch */
    double decode_flops;  /* one batch of pictures */
    double reward_flops;
    double gradient_flops; /* of one batch, from the reward to the states */
    double step_bytes;     /* read and written by one network call */
    int n_steps, n_slots, n_per_group;
} kac_latent_plan;

/* Particles of each prompt that a budget pays for: one costs an evaluation a step, guided two; `beside` is spent otherwise. KAC_E_USAGE when
 * there is none. */
kac_status kac_budget_particles(int *n, int64_t nfe, int64_t beside, int n_steps, bool guided);

/* Rehearses the run without computing; chooses the batch (largest of 16, 8, … that fits in `available` bytes, unless --batch-size says).
 * Fails as the run itself would on missing files and wrong options, and with KAC_E_MEMORY when it cannot fit. */
kac_status kac_latent_plan_run(kac_latent_plan *plan, const kac_latent_setup *s, size_t available);

/* Opens for real, with arenas of exactly the planned sizes. */
kac_status kac_latent_run_open(kac_latent_run *r, const kac_latent_setup *s, const struct kac_ops *ops,
                               const kac_ctx_sizes *sizes, int batch);
void kac_latent_run_close(kac_latent_run *r);

/* The two halves of it, for many runs over one model: load keeps model, adapters, rewards and judges; begin opens the rest for the setup's
 * prompts, particles, solver and seed (of the rest of its options load has read those that it needs); end closes that again. A failed
 * begin needs no end. */
kac_status kac_latent_run_load(kac_latent_run *r, const kac_latent_setup *s, const struct kac_ops *ops,
                               const kac_ctx_sizes *sizes);
kac_status kac_latent_run_begin(kac_latent_run *r, const kac_latent_setup *s, int batch);
void kac_latent_run_end(kac_latent_run *r);

#endif
