/* The folder of `kac bench`, read. Nothing in it is trusted.
 *
 *     BENCH/bench.json      "kac_bench": 1, "methods": [{"label", "method", "target": text, "baseline": true, "options"}, …],
 *                           "budgets": [numbers], "budget_unit": "nfe" | "seconds" | "particles",
 *                           "prompts": [{"text", "category", "id"}, …],
 *                           "seeds": [numbers], "rewards", "judges": [specs], "model", "machine", "description": objects to show,
 *                           "costs": [{"label", "particle_nfe": least NFE that the method can spend}, …]
 *     BENCH/results.jsonl   one line per finished cell, appended by several processes; the last line may be cut by a kill; of two lines
 *                           for one cell the later counts:
 *         {"method": LABEL, "budget", "prompt": index, "seed", "reward", "mean_reward", "judges": {NAME: value}, "mean_judges",
 *          "n", "nfe", "flops", "seconds", "host_seconds", "log_z", "ess", "n_eves", "diversity",
 *          "counts": {"denoiser", "decoder", "reward", "denoiser_grad", "reward_grad"},
 *          "picture", "tree", "family": files in the folder, "error": one line instead of values}
 */
#ifndef KAC_REPORT_BENCH_DATA_H
#define KAC_REPORT_BENCH_DATA_H

#include "base/base.h"
#include "base/json.h"

enum {
    KAC_BENCH_MAX_METHODS = 64,
    KAC_BENCH_MAX_BUDGETS = 64,
    KAC_BENCH_MAX_JUDGES = 8,
    KAC_BENCH_MAX_CATEGORIES = 64
};

/* What a cell tells. Judges follow: KAC_BENCH_JUDGES + 2 j is judge j's value of the picture with the best reward, one more the mean. */
enum {
    KAC_BENCH_REWARD, /* of the best picture */
    KAC_BENCH_MEAN_REWARD,
    KAC_BENCH_N, /* pictures handed over */
    KAC_BENCH_NFE,
    KAC_BENCH_FLOPS,
    KAC_BENCH_SECONDS,
    KAC_BENCH_HOST_SECONDS,
    KAC_BENCH_LOG_Z,
    KAC_BENCH_ESS,
    KAC_BENCH_EVES,
    KAC_BENCH_DIVERSITY,
    KAC_BENCH_COUNT_DENOISER,
    KAC_BENCH_COUNT_DECODER,
    KAC_BENCH_COUNT_REWARD,
    KAC_BENCH_COUNT_DENOISER_GRAD,
    KAC_BENCH_COUNT_REWARD_GRAD,
    KAC_BENCH_JUDGES,
    KAC_BENCH_MAX_QUANTITIES = KAC_BENCH_JUDGES + 2 * KAC_BENCH_MAX_JUDGES
};

typedef enum kac_bench_unit { KAC_BENCH_IN_NFE, KAC_BENCH_IN_SECONDS, KAC_BENCH_IN_PARTICLES } kac_bench_unit;

typedef struct kac_bench_method {
    const char *label, *method, *target;
    const cJSON *options; /* NULL: none */
    bool baseline;        /* what speed-ups are measured against */
    double least;         /* budget below which it cannot run at all: no cells there; 0: none */
} kac_bench_method;

typedef struct kac_bench_prompt {
    const char *text, *id; /* "" when missing */
    int category;          /* −1: none */
} kac_bench_prompt;

/* One finished cell. Texts may be NULL and belong to the data; files are relative, checked. */
typedef struct kac_bench_cell {
    int method, budget, prompt, seed; /* indices */
    bool done;                        /* values below; else `error` says why not */
    char *error, *picture, *tree, *family;
} kac_bench_cell;

typedef struct kac_bench_data {
    char *folder;
    kac_json file;
    kac_bench_method *methods;
    double *budgets, *seeds;
    kac_bench_prompt *prompts;
    int n_methods, n_budgets, n_prompts, n_seeds;
    const char *categories[KAC_BENCH_MAX_CATEGORIES];
    int n_categories;
    kac_bench_unit unit;                /* of the budgets */
    char *judges[KAC_BENCH_MAX_JUDGES]; /* names, in the order in which the results bring them */
    int n_judges, n_quantities;
    kac_bench_cell *cells;
    double *values; /* [n_cells, KAC_BENCH_MAX_QUANTITIES]; NAN: not said */
    int n_cells, n_done, n_failed;
    int n_possible;                   /* cells that can be done: budgets are not below what a method needs */
    int n_bad_lines, n_strange_lines; /* no JSON object; of a cell that bench.json does not have */
    int32_t *index;                   /* [n_methods, n_budgets, n_prompts, n_seeds]: the cell, −1: none yet */
} kac_bench_data;

/* Fails: IO (no bench.json), FORMAT (it is none, or lists no method, budget, prompt or seed; labels that are not unique), SHAPE (more cells
 * than make sense), MEMORY. Lines of the results that make no sense are counted and left out. The caller ends with kac_bench_data_free,
 * also on failure. */
kac_status kac_bench_data_load(kac_bench_data *d, const char *folder);
void kac_bench_data_free(kac_bench_data *d);

/* NULL: not finished, or failed. */
const kac_bench_cell *kac_bench_cell_at(const kac_bench_data *d, int method, int budget, int prompt, int seed);
/* A quantity of a finished cell. */
double kac_bench_value(const kac_bench_data *d, const kac_bench_cell *cell, int quantity);

/* A folder that kac_bench_data_load may read: it holds bench.json. */
bool kac_bench_folder(const char *folder);

#endif
