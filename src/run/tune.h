/* One tuning run, wired together: model, rewards, method, evaluation, run folder.
 *
 *     kac_options: kac_tune_options + kac_trainer_options + the options of the method that --method names.
 *     kac_tune writes into its folder (layout: report/tune_data.h)
 *         run.json, log.jsonl, log.csv, grids/NAME.png, NAME.safetensors, checkpoints/NAME-000050.safetensors
 *     and while it runs checkpoint.safetensors, from which --resume goes on to the same bits.
 */
#ifndef KAC_RUN_TUNE_H
#define KAC_RUN_TUNE_H

#include "train/trainer.h"

typedef struct kac_tune_hooks {
    void *self;
    void (*say)(void *self, const char *line);   /* a remark for the user; NULL: none */
    void (*phase)(void *self, const char *name); /* "loading", "evaluating", "rounds", "writing"; NULL: none */
    /* after every round; share: of the whole that is done, 0 … 1. NULL: none */
    void (*round)(void *self, const kac_tune_report *report, int64_t n_rounds, double share);
    bool (*cancelled)(void *self); /* asked after every round; NULL: never */
} kac_tune_hooks;

typedef struct kac_tune_args {
    const kac_options *options;
    const char *const *command; /* as typed, for the record */
    int n_command;
    const char *weights_dir; /* where the shipped models lie */
    kac_tune_hooks hooks;
} kac_tune_args;

typedef struct kac_tune_result {
    char *folder;
    char *file; /* the tuned LoRA or network; NULL: none was written */
    char *json; /* run.json as written last; for a plan: the plan */
} kac_tune_result;

/* KAC_E_USAGE: an option (nothing was written). KAC_E_CANCELLED: stopped after a checkpoint, --resume goes on. KAC_E_NONFINITE: names the
 * round; the file then holds the last values that gave finite rewards. Any later failure leaves a readable folder with state "failed".
 * The result is freed by kac_tune_result_free in every case. */
kac_status kac_tune(kac_tune_result *result, const kac_tune_args *args);
void kac_tune_result_free(kac_tune_result *r);

#endif
