/* One steered run, wired together: model, rewards, method, run folder.
 *
 *     kac_options: kac_generate_options + the options of the method that --steer names.
 *     kac_generate writes run.json, events.jsonl, PNGs (or samples.safetensors); the page is made from the folder afterwards (report.h).
 */
#ifndef KAC_GENERATE_H
#define KAC_GENERATE_H

#include <kac/events.h>
#include <kac/options.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct kac_generate_hooks {
    void *self;
    void (*say)(void *self, const char *line);   /* a remark for the user; NULL: none */
    void (*phase)(void *self, const char *name); /* "loading", "encoding", "steps", "writing"; NULL: none */
    void (*step)(void *self, const kac_step_event *event,
                 double best_reward); /* best so far, NAN before any; NULL: none */
    /* the same of a method that searches until its budget is spent; NULL: none */
    void (*search)(void *self, const kac_search_event *event, double best_reward);
    bool (*cancelled)(void *self);    /* asked after every step; NULL: never */
} kac_generate_hooks;

typedef struct kac_generate_args {
    const kac_options *options;
    const char *const *words; /* prompts given without a dash */
    int n_words;
    const char *const *command; /* as typed, for the record: ["kac", "generate", …] */
    int n_command;
    const char *weights_dir; /* where shapes-64, shapes-clip and clip-tokenizer lie */
    kac_generate_hooks hooks;
} kac_generate_args;

typedef struct kac_generate_result {
    char *folder; /* of the run */
    char *best;   /* path of the best picture of the first prompt, or of samples.safetensors; NULL: none */
    double best_reward;
    char *json; /* run.json as written last; for a plan: the plan */
    int n_images;
    bool stopped; /* a search ended early, as the hooks asked; there are results, and --resume goes on */
} kac_generate_result;

/* KAC_E_USAGE: an option (nothing was written). KAC_E_CANCELLED: stopped after a checkpoint without results, --resume goes on to the same bits; the
 * folder then stays with state "interrupted". Any later failure leaves a readable folder with state "failed". The result is freed by
 * kac_generate_result_free in every case. With --plan nothing is written: result->json holds bytes and flops. */
kac_status kac_generate(kac_generate_result *result, const kac_generate_args *args);
void kac_generate_result_free(kac_generate_result *r);

#endif
