/* The log of a tuning run, read. Nothing in it is trusted.
 *
 *     RUN/run.json        as report.h says, and: "tune": the method's name; "rewards", "held_out": [{"name", "weight"}, …];
 *                         "n_prompts", "n_eval_prompts", "batch_size", "n_values", "n_layers", "n_rounds";
 *                         "grid": {"columns", "rows", "prompts": of its cells}; "file", "file_round": the result and the round it is of;
 *                         "before", "after": scores as below, at the end
 *     RUN/log.jsonl       one JSON object a line, appended as things happen; after --resume it goes on where the checkpoint was
 *         "round"   "round", "update", "seconds", "reward", "reward_std", "samples", "loss", "grad_norm", "lr", "round_ms",
 *                   "extras": {name: value}, "counts": so far
 *         "eval"    "round", "seconds", "pictures", "reward", "reward_std", "reward_se" (of the mean, over prompts),
 *                   "rewards": {label: mean}, "held_out": {label: mean}, "held_out_se", "diversity", "distance", "grid": a file;
 *                   round 0 is the base model
 *         "sweep"   the same with "scale": of the result
 *         "end"     "state"
 *     RUN/log.csv         the rounds again, a table
 *     RUN/grids/NAME.png  pictures of the evaluations    RUN/NAME.safetensors  the result
 */
#ifndef KAC_REPORT_TUNE_DATA_H
#define KAC_REPORT_TUNE_DATA_H

#include "run_data.h"

enum { KAC_TUNE_MAX_HELD = 16 };

typedef struct kac_tune_round_row {
    double round, seconds, reward, reward_std, loss, grad_norm;
} kac_tune_round_row;

typedef struct kac_tune_eval_row {
    double round, seconds, scale, reward, reward_se, diversity, distance;
    double held_out[KAC_TUNE_MAX_HELD], held_out_se[KAC_TUNE_MAX_HELD];
    const char *grid; /* relative, checked; NULL: none */
} kac_tune_eval_row;

typedef struct kac_tune_data {
    cJSON *lines;
    int n_bad_lines;
    const char *held_out[KAC_TUNE_MAX_HELD]; /* labels */
    int n_held_out;
    kac_tune_round_row *rounds;
    int n_rounds;
    kac_tune_eval_row *evals; /* by round */
    int n_evals;
    kac_tune_eval_row *sweep; /* by scale */
    int n_sweep;
} kac_tune_data;

/* KAC_E_MEMORY, KAC_E_IO. A missing log is an empty one. The caller ends with kac_tune_data_free, also on failure. */
kac_status kac_tune_data_load(kac_tune_data *d, const kac_run_data *run);
void kac_tune_data_free(kac_tune_data *d);

/* Where the tuned reward goes on rising while a held-out one falls: the evaluation with the best value of held-out reward k, when the last
 * one has more reward and less of that by more than two standard errors. −1: nowhere. */
int kac_tune_hacked(const kac_tune_data *d, int k);

#endif
