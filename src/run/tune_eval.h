/* What a tuned model makes of the prompts that are watched: rewards, held-out rewards, diversity, distance to the base model, always from the
 * same noise.
 *
 *     diversity  mean over prompts of 1 − cos between the CLIP embeddings of each two of its pictures; over all pictures when a prompt
 *                has one
 *     distance   mean of 1 − cos between a picture's embedding and that of the base model's picture from the same noise
 */
#ifndef KAC_TUNE_EVAL_H
#define KAC_TUNE_EVAL_H

#include "run/tune_model.h"

typedef struct kac_tune_scores {
    int n; /* pictures */
    double reward, reward_std;
    double reward_se; /* of the mean over prompts */
    double parts[KAC_MAX_REWARDS], held_out[KAC_MAX_REWARDS], held_out_se[KAC_MAX_REWARDS];
    double diversity, distance; /* NAN: no CLIP, or nothing to compare with */
} kac_tune_scores;

typedef struct kac_tune_eval {
    kac_tune_model *m;
    int n_prompts, n_samples;
    uint64_t seed;
    int64_t n_embed; /* width of an embedding; 0: none */
    float *base;     /* [n, n_embed] of the base model; part of a checkpoint */
    int64_t has_base;
    float *embeds;           /* [n, n_embed] of the last evaluation */
    uint8_t *rgb;            /* [n, height, width, 3] of the last evaluation */
    double *totals, *values; /* [n], [n, KAC_MAX_REWARDS] */
} kac_tune_eval;

/* The model must outlive it. */
kac_status kac_tune_eval_open(kac_tune_eval *e, kac_tune_model *m);
void kac_tune_eval_close(kac_tune_eval *e); /* a zeroed one is fine */

/* With these values (NULL: the base model, which is then what distances are measured to). Leaves trainee.values in use. */
kac_status kac_tune_eval_run(kac_tune_eval *e, kac_tune_scores *out, const float *values);

/* The grid of the last evaluation: columns × rows cells. A cell is a picture: n pictures, prompt by prompt; what does not fit is left out. */
typedef struct kac_tune_grid {
    int columns, rows, tile_width, tile_height;
    bool by_sample; /* a row is a sample of all prompts; else prompts go on in the next row, one sample each */
} kac_tune_grid;
kac_tune_grid kac_tune_grid_of(const kac_tune_eval *e);
/* Prompt (of those watched) and sample of a cell; false: it is empty. */
bool kac_tune_grid_cell(const kac_tune_grid *g, const kac_tune_eval *e, int cell, int *prompt, int *sample);
/* rgb [rows · tile_height, columns · tile_width, 3]; caller frees. */
kac_status kac_tune_grid_draw(uint8_t **rgb, const kac_tune_grid *g, const kac_tune_eval *e);

#endif
