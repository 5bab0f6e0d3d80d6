/* The folder of a bench, which several processes may fill at once: bench.json says what the cells are, results.jsonl has a line for each
 * that is finished. Cells are claimed by locks on bytes of the file `claims`, which end with the process that holds them. */
#ifndef KAC_RUN_BENCH_STORE_H
#define KAC_RUN_BENCH_STORE_H

#include "run/bench_plan.h"

/* One cell of the plan, by its numbers in it. */
typedef struct kac_bench_place {
    int way, budget, seed, prompt;
} kac_bench_place;

typedef struct kac_bench_store {
    const kac_bench_plan *plan;
    char *path;
    int results_fd, claims_fd;
    int64_t n_read;  /* bytes of results.jsonl that were read, whole lines */
    uint8_t *done;   /* [ways, budgets, seeds, prompts] 1: finished */
    int64_t n_cells, n_done;
    double known_seconds, known_flops; /* of the finished cells of all processes, for estimates */
} kac_bench_store;

/* Makes the folder or joins it: `facts` (bench.json without what the plan says; deleted) must agree with those there, but for the machine
 * and the command; budgets, seeds, prompts and methods may have grown. KAC_E_USAGE names what differs. */
kac_status kac_bench_store_open(kac_bench_store *s, const char *folder, const kac_bench_plan *plan, cJSON *facts);
void kac_bench_store_close(kac_bench_store *s);

/* Reads what came to results.jsonl. */
kac_status kac_bench_store_refresh(kac_bench_store *s);
bool kac_bench_store_is_done(const kac_bench_store *s, kac_bench_place at);
/* Of the places those that are neither finished nor claimed by another process are claimed and stay in the list; returns how many. */
kac_status kac_bench_store_claim(kac_bench_store *s, kac_bench_place *places, int *n);
void kac_bench_store_release(kac_bench_store *s, const kac_bench_place *places, int n);
/* Appends whole lines with one write, on the disk when it returns. */
kac_status kac_bench_store_add(kac_bench_store *s, const char *lines);

/* bench.json, written whole; for a plan alone. The document is the caller's. */
cJSON *kac_bench_document(const kac_bench_plan *plan, const cJSON *facts);

#endif
