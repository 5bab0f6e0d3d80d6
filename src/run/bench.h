/* A comparison of steering methods: methods × budgets × prompts × seeds, a line for each finished cell (bench_store.h).
 *
 *     kac_options: kac_bench_options.
 *     kac_bench goes on where other processes, or an earlier one, have stopped; nothing but what is in the folder is needed for that. */
#ifndef KAC_RUN_BENCH_H
#define KAC_RUN_BENCH_H

#include <kac/options.h>
#include <stdbool.h>
#include <stdint.h>

extern const kac_option_spec kac_bench_options[];

/* How far it is. */
typedef struct kac_bench_progress {
    int64_t n_done, n_cells, n_failed; /* of all that were asked for, by whichever process */
    double share;      /* of the work that was left when this process began, the pass in hand included: 0 … 1 */
    const char *label; /* of the pass in hand */
    double budget;
    const char *unit;
    int64_t seed;
} kac_bench_progress;

typedef struct kac_bench_hooks {
    void *self;
    void (*say)(void *self, const char *line);   /* a remark for the user; NULL: none */
    void (*phase)(void *self, const char *name); /* "planning", "passes"; NULL: none */
    void (*progress)(void *self, const kac_bench_progress *p);
    bool (*cancelled)(void *self);
} kac_bench_hooks;

typedef struct kac_bench_args {
    const char *description; /* path */
    const kac_options *options;
    const char *const *command; /* as typed, for the record */
    int n_command;
    const char *weights_dir;
    kac_bench_hooks hooks;
} kac_bench_args;

typedef struct kac_bench_result {
    char *folder;
    char *json;                                     /* for --plan: the plan */
    int64_t n_cells, n_done, n_failed, n_elsewhere; /* elsewhere: in the hands of other processes at the end */
    bool stopped;                                   /* by --time-limit */
} kac_bench_result;

/* KAC_E_USAGE, KAC_E_FORMAT, KAC_E_IO: before anything ran. KAC_E_CANCELLED: the pass in hand is lost, all finished ones are kept. The result
 * is freed by kac_bench_result_free in every case. */
kac_status kac_bench(kac_bench_result *result, const kac_bench_args *args);
void kac_bench_result_free(kac_bench_result *r);

#endif
