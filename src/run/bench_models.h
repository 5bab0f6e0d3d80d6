/* The models of a bench, each opened once and kept while prompts, particles, seeds and methods change. */
#ifndef KAC_RUN_BENCH_MODELS_H
#define KAC_RUN_BENCH_MODELS_H

#include "run/bench_plan.h"
#include "run/latent_run.h"

/* What one way needs to know of its model. */
typedef struct kac_bench_cost {
    int model;   /* index */
    int n_steps; /* rows of its solver */
    bool guided;
    int batch; /* states in a network call */
    double
        nfe_flops; /* of one evaluation of a state, with its share of decoding and scoring where the method scores at every step */
    int64_t least; /* NFE of one particle */
} kac_bench_cost;

typedef struct kac_bench_model {
    const kac_bench_way *way; /* the first that uses it: others have the same options, as far as loading reads them */
    kac_ctx_sizes sizes;      /* room for the largest pass of any of its ways */
    size_t tape_bytes, total_bytes;
    bool open;
    int64_t used; /* when, for closing what was not needed longest */
    kac_latent_run run;
} kac_bench_model;

typedef struct kac_bench_models {
    const kac_bench_plan *plan;
    char *merges;
    size_t available;
    kac_bench_cost costs[KAC_BENCH_MAX_WAYS];
    kac_bench_model models[KAC_BENCH_MAX_WAYS];
    int n_models;
    int64_t clock;
    char density_for[96];
    const char **prompts, **plain, **negatives; /* [batch] of the pass that was set up last */
    char **owned;                               /* [batch] plain texts that had weights */
    int n_plain;
} kac_bench_models;

/* Rehearses every way at its largest budget, so that nothing that can be known fails later: KAC_E_USAGE, KAC_E_MEMORY, … name the way. */
kac_status kac_bench_models_plan(kac_bench_models *m, const kac_bench_plan *plan, const char *weights_dir);
void kac_bench_models_close(kac_bench_models *m);

/* Particles of each prompt at a budget; 0: it does not pay for one. */
int kac_bench_particles(const kac_bench_models *m, int way, int budget);
/* Evaluations of states that a cell will take, as far as can be known: all of them, or for budgets in seconds 0. */
double kac_bench_nfe(const kac_bench_models *m, int way, int budget);

/* The model of a way, loaded and begun for these prompts; the caller ends with kac_latent_run_end. */
kac_status kac_bench_models_begin(kac_latent_run **run, kac_bench_models *m, int way, int budget, int64_t seed,
                                  const int *prompts, int n);

#endif
