/* One pass of a bench: a method at one budget and seed, over a block of prompts at once. */
#ifndef KAC_RUN_BENCH_PASS_H
#define KAC_RUN_BENCH_PASS_H

#include "run/bench.h"
#include "run/bench_models.h"
#include "run/bench_store.h"

typedef struct kac_bench_pass {
    kac_bench_models *models;
    const char *folder;
    const kac_bench_place *places; /* [n] cells that differ in their prompt alone */
    int n;
    bool keep_best, keep_all, trees;
    bool (*cancelled)(void *self);           /* NULL: never */
    void (*share)(void *self, double share); /* how much of the pass is done; NULL: nobody asks */
    void *self;
} kac_bench_pass;

/* Runs it; the lines of its cells are added to `lines`, those that failed with "error" (*n_failed of them). Fails as a whole with
 * KAC_E_CANCELLED, and when nothing else would do any better: memory, files, scorers that were lost. */
kac_status kac_bench_pass_run(const kac_bench_pass *pass, kac_text *lines, int *n_failed);

#endif
