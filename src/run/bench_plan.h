/* What a bench is to do: its description read, checked and laid out.
 *
 * A description is a JSON object; paths in it are relative to its file:
 *     "model"       folder or file; missing: the shipped one
 *     "options"     options of kac generate and of the methods, for all methods: {"steps": 25, "lambda": 10}
 *     "rewards"     specs, what is steered by (["clip"])       "judges"   specs, what final pictures are scored by beside it ([])
 *     "prompts"     FILE (prompt_list.h), or a list of texts, of objects {"prompt", "category", "id"} and of {"file": FILE, "category"};
 *                   missing: the model is unconditional. Their order here is that of the files, with categories taken in turn, so that
 *                   the first ones are of all categories
 *     "categories"  only prompts of these                      "limit"    only the first so many
 *     "budgets"     what a cell may spend, [25, 50, …], in "unit": "nfe" (evaluations of states by the denoiser), "seconds" (methods that
 *                   search, for each prompt), "particles" (all others)
 *     "seeds"       [0]                                        "title"    a text for the page
 *     "batch"       prompts in one pass (8)
 *     "methods"     [{"label": "fk", "method": "fk", "options": {…}, "model": …, "lora": FILE[:SCALE] or a list, "baseline": true}, …] */
#ifndef KAC_RUN_BENCH_PLAN_H
#define KAC_RUN_BENCH_PLAN_H

#include "base/json.h"
#include "io/prompt_list.h"
#include "reward/mix.h"
#include <kac/steer.h>

enum { KAC_BENCH_MAX_WAYS = 64, KAC_BENCH_BUDGETS = 64, KAC_BENCH_SEEDS = 1024, KAC_BENCH_JUDGE_SPECS = 8 };

typedef enum kac_bench_unit { KAC_UNIT_NFE, KAC_UNIT_SECONDS, KAC_UNIT_PARTICLES } kac_bench_unit;

/* An entry of "methods". */
typedef struct kac_bench_way {
    const char *label; /* of the document */
    const kac_method *method;
    kac_options *options; /* kac_generate_options and the method's, with all that the description says */
    char *model;
    const cJSON *entry;
} kac_bench_way;

typedef struct kac_bench_plan {
    kac_json file;
    char *folder; /* of the description */
    kac_bench_way ways[KAC_BENCH_MAX_WAYS];
    double budgets[KAC_BENCH_BUDGETS]; /* rising */
    int64_t seeds[KAC_BENCH_SEEDS];
    int n_ways, n_budgets, n_seeds;
    bool chosen[KAC_BENCH_MAX_WAYS]; /* by --only */
    kac_bench_unit unit;
    kac_prompt_list prompts; /* all of the chosen categories; without a text for an unconditional model */
    bool unconditional;
    int n_prompts; /* of these the first so many are asked for */
    int batch;
    char *rewards[KAC_MAX_REWARDS], *judges[KAC_BENCH_JUDGE_SPECS];
    int n_rewards, n_judges;
} kac_bench_plan;

/* options: kac_bench_options, whose --limit, --budgets, --seeds, --only, --batch and --threads win. KAC_E_USAGE, KAC_E_FORMAT, KAC_E_IO name
 * file and key. The plan is freed by kac_bench_plan_free in every case. */
kac_status kac_bench_plan_read(kac_bench_plan *p, const char *path, const kac_options *options,
                               const char *weights_dir);
void kac_bench_plan_free(kac_bench_plan *p);

const char *kac_bench_unit_name(kac_bench_unit unit);

#endif
