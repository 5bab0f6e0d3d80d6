/* What the parts of a tuning run share: tune.c (rounds), tune_log.c (log, checkpoints), tune_output.c (evaluations, grids, the result). */
#ifndef KAC_TUNE_JOB_H
#define KAC_TUNE_JOB_H

#include "run/run_folder.h"
#include "run/tune.h"
#include "run/tune_eval.h"

/* How far the run is, beside the trainer's own state: a piece of every checkpoint. */
typedef struct kac_tune_progress {
    int64_t log_bytes, csv_bytes;  /* of the logs; what stands behind is done again */
    int64_t round_evaluated;       /* −1: none yet */
    int64_t best_round, n_worse;   /* of the first held-out reward; evaluations since */
    int64_t stopped;               /* 1: early */
    kac_tune_scores before, after; /* of the base model; of the last evaluation */
    kac_tune_scores best_scores;
    double best;
    kac_trainee_counts counts;
    double seconds; /* of rounds and evaluations so far */
} kac_tune_progress;

typedef struct kac_tune_job {
    const kac_tune_args *args;
    kac_tune_result *result;
    const kac_options *options;
    const kac_tune_method *method;
    kac_tune_wish wish;
    uint64_t seed;
    bool resume;
    double from_ms; /* when progress.seconds was 0 */
    kac_tune_plan plan;
    kac_tune_model model;
    kac_trainer trainer;
    kac_tune_eval eval;
    kac_run_folder folder;
    int csv_fd;
    kac_text csv_extras;           /* ",kl,…": columns of the method, from the first round */
    double checkpoint_ms, cost_ms; /* when the last checkpoint was written; how long it took */
    kac_tune_progress progress;
    float *proven; /* [n_values] the last values that gave finite rewards */
    int64_t proven_round;
    float *before; /* [n_values] before the round that runs now */
    float *best;   /* [n_values] of progress.best_round, NULL: nothing is kept */
} kac_tune_job;

/* Options that change no number of the result; ends with NULL. */
extern const char *const kac_tune_free_options[];

void kac_tune_say(const kac_tune_job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kac_tune_phase(const kac_tune_job *j, const char *name);
double kac_tune_seconds(const kac_tune_job *j);

/* ---- tune_log.c ---- */
kac_status kac_tune_log_open(kac_tune_job *j);
void kac_tune_log_close(kac_tune_job *j);
kac_status kac_tune_log_round(kac_tune_job *j, const kac_tune_report *r);
/* Line "eval" (scale 1, round as it is) or "sweep". */
kac_status kac_tune_log_scores(kac_tune_job *j, const char *event, int64_t round, double scale,
                               const kac_tune_scores *s, const char *grid);
cJSON *kac_tune_counts_json(const kac_trainee_counts *k);
cJSON *kac_tune_scores_json(const kac_tune_job *j, const kac_tune_scores *s);
/* Everything that makes the rest of the run; without `now` at most as often as its cost allows. */
kac_status kac_tune_checkpoint(kac_tune_job *j, bool now);
/* Fills trainer, progress and evaluation, and cuts the logs back. Starts anew without a checkpoint. */
kac_status kac_tune_restore(kac_tune_job *j);

/* ---- tune_output.c ---- */
/* Evaluates `values` (NULL: the base model), logs it and writes its grid. */
kac_status kac_tune_evaluate(kac_tune_job *j, const char *event, const float *values, int64_t round, double scale);
/* Writes values as path in the folder (NAME.safetensors), with all that made them. */
kac_status kac_tune_write_values(kac_tune_job *j, const char *name, const float *values, int64_t round);
/* checkpoints/NAME-000050.safetensors, and the oldest goes. */
kac_status kac_tune_keep(kac_tune_job *j);
/* The result at 0, 1/4 … 1 of its scale; at 1 it has `scores`, of the evaluation after `round`. */
kac_status kac_tune_sweep(kac_tune_job *j, const float *values, const kac_tune_scores *scores, int64_t round);

#endif
