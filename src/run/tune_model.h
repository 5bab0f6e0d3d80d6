/* All that is open while tuning, on one context: opened twice, first on the plan backend to learn the exact sizes. */
#ifndef KAC_TUNE_MODEL_H
#define KAC_TUNE_MODEL_H

#include "io/prompt_list.h"
#include "model/clip.h"
#include "reward/preprocess.h"
#include "run/latent_trainee.h"
#include <kac/options.h>

/* What was asked for, read from options; owned. */
typedef struct kac_tune_wish {
    const kac_options *options;
    const char *model;
    char *shipped;           /* folder of the shipped model */
    kac_prompt_list prompts; /* those to tune on, then those to watch */
    int n_train, n_eval;
    bool unconditional;         /* no prompts were given: both are one "" */
    char **rewards, **held_out; /* reward_spec.h */
    int n_rewards, n_held_out;
    char *diversity; /* a CLIP; NULL: none */
    char *merges;    /* as in kac_pipeline_options */
} kac_tune_wish;

kac_status kac_tune_wish_read(kac_tune_wish *w, const kac_options *o, const char *weights_dir);
void kac_tune_wish_free(kac_tune_wish *w);

typedef struct kac_tune_model {
    const kac_tune_wish *wish;
    kac_ctx ctx;
    kac_parameters *parameters;
    kac_pipeline pipeline;
    kac_solver solver;
    kac_reward_set rewards, held_out;
    kac_clip *clip; /* of diversity; NULL: none */
    kac_preprocess clip_pixels;
    kac_trainee trainee; /* its prompts are the first n_train; those to watch follow them in the rewards */
    int64_t width, height;
    double cfg_scale;
    const char **negatives; /* [n_train + n_eval], NULL inside; NULL: none */
} kac_tune_model;

typedef struct kac_tune_plan {
    kac_ctx_sizes sizes;
    size_t gradients_bytes, host_bytes, total_bytes;
    int batch;
    bool keep_all; /* of tapes, as in tensor/ctx.h */
    int64_t n_values;
    int n_layers;
} kac_tune_plan;

/* Rehearses without computing; chooses the batch (--batch, halved until it fits in `available` bytes, unless `batch` is not 0), and whether
 * tapes keep everything (--checkpointing; auto: when that fits into half of `room` bytes). Fails as opening would on missing files and wrong options, and with KAC_E_MEMORY when it cannot fit. */
kac_status kac_tune_plan_run(kac_tune_plan *plan, const kac_tune_wish *w, int batch, size_t available, size_t room);

/* plan: batch, keep_all and the sizes; of sizes 0 are generous. */
kac_status kac_tune_model_open(kac_tune_model *m, const kac_tune_wish *w, const struct kac_ops *ops,
                               const kac_tune_plan *plan);
void kac_tune_model_close(kac_tune_model *m); /* a zeroed one is fine */

#endif
