#include "run/bench.h"
#include "run/backend.h"
#include "run/bench_pass.h"
#include "run/run_record.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of everything that was asked for. */
typedef struct totals {
    int64_t n_cells, n_done;
    double work_left, nfe;
} totals;

typedef struct bench {
    const kac_bench_args *args;
    const kac_options *options;
    kac_bench_result *result;
    kac_bench_plan plan;
    kac_bench_models models;
    kac_bench_store store;
    bool stored;
    double start_ms, work_at_start;
    double way_seconds[KAC_BENCH_MAX_WAYS], way_work[KAC_BENCH_MAX_WAYS]; /* of this process's passes */
    kac_bench_place *block;                                               /* [batch] the pass in hand */
    int n_block;
    double block_share;
    totals totals; /* when the block began */
} bench;

static void phase(const bench *b, const char *name) {
    if (b->args->hooks.phase != NULL) b->args->hooks.phase(b->args->hooks.self, name);
}

static void say(const bench *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(const bench *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    kac_run_say(b->args->hooks.say, b->args->hooks.self, format, args);
    va_end(args);
}

static bool cancelled(void *self) {
    const bench *b = self;
    return b->args->hooks.cancelled != NULL && b->args->hooks.cancelled(b->args->hooks.self);
}

/* ---- how much there is ---- */

/* A budget that pays for no particle of a method has no cells of it. */
static bool is_asked(const bench *b, int way, int budget) {
    return b->plan.chosen[way] && kac_bench_particles(&b->models, way, budget) > 0;
}

/* In multiply-adds of the denoiser, or in seconds. */
static double work_of(const bench *b, int way, int budget) {
    if (b->plan.unit == KAC_UNIT_SECONDS) return b->plan.budgets[budget];
    return kac_bench_nfe(&b->models, way, budget) * b->models.costs[way].nfe_flops;
}

static totals count(const bench *b) {
    const kac_bench_plan *p = &b->plan;
    totals t = {0};
    for (int w = 0; w < p->n_ways; w++)
        for (int i = 0; i < p->n_budgets; i++) {
            if (!is_asked(b, w, i)) continue;
            int64_t n_done = 0;
            for (int s = 0; s < p->n_seeds && b->stored; s++)
                for (int k = 0; k < p->n_prompts; k++)
                    n_done += kac_bench_store_is_done(&b->store, (kac_bench_place){w, i, s, k});
            const int64_t n = (int64_t)p->n_seeds * p->n_prompts;
            t.n_cells += n, t.n_done += n_done;
            t.work_left += (double)(n - n_done) * work_of(b, w, i);
            t.nfe += (double)n * kac_bench_nfe(&b->models, w, i);
        }
    return t;
}

static void tell(const bench *b) {
    if (b->args->hooks.progress == NULL) return;
    const totals t = b->totals;
    double work_done = b->work_at_start - t.work_left;
    kac_bench_progress p = {.n_done = t.n_done,
                            .n_cells = t.n_cells,
                            .n_failed = b->result->n_failed,
                            .unit = kac_bench_unit_name(b->plan.unit)};
    if (b->n_block > 0) {
        const kac_bench_place at = b->block[0];
        p.label = b->plan.ways[at.way].label, p.budget = b->plan.budgets[at.budget], p.seed = b->plan.seeds[at.seed];
        work_done += b->block_share * b->n_block * work_of(b, at.way, at.budget);
    }
    p.share = b->work_at_start > 0 ? KAC_MIN(work_done / b->work_at_start, 1) : 1;
    b->args->hooks.progress(b->args->hooks.self, &p);
}

static void on_share(void *self, double share) {
    bench *b = self;
    b->block_share = share;
    tell(b);
}

/* ---- what it all was made with ---- */

static cJSON *costs_of(const bench *b) {
    cJSON *costs = cJSON_CreateArray();
    for (int i = 0; i < b->plan.n_ways; i++) {
        if (!b->plan.chosen[i]) continue;
        const kac_bench_cost *c = &b->models.costs[i];
        cJSON *cost = cJSON_CreateObject();
        cJSON_AddStringToObject(cost, "label", b->plan.ways[i].label);
        cJSON_AddNumberToObject(cost, "n_steps", c->n_steps);
        cJSON_AddNumberToObject(cost, "particle_nfe", (double)c->least);
        cJSON_AddNumberToObject(cost, "nfe_flops", c->nfe_flops);
        cJSON_AddItemToArray(costs, cost);
    }
    return costs;
}

static int first_way(const bench *b) {
    int i = 0;
    while (!b->plan.chosen[i]) i++;
    return i;
}

static kac_status read_facts(cJSON *facts, const bench *b) {
    const kac_bench_way *w = &b->plan.ways[first_way(b)];
    const kac_latent_setup setup = {.options = w->options, .model_dir = w->model, .merges = b->models.merges};
    kac_latent_run r;
    KAC_TRY(kac_latent_run_load(&r, &setup, &kac_plan_ops, NULL));
    kac_run_add_origin(facts, b->args->command, b->args->n_command);
    cJSON *model = kac_run_model_facts(w->model, &r.pipeline, true);
    cJSON_AddNumberToObject(model, "nfe_flops", b->models.costs[first_way(b)].nfe_flops);
    cJSON_AddItemToObject(facts, "model", model);
    cJSON *machine = kac_run_machine_facts(&r.ctx);
    cJSON_ReplaceItemInObjectCaseSensitive(machine, "backend",
                                           cJSON_CreateString(kac_options_text(w->options, "backend")));
    cJSON_AddItemToObject(facts, "machine", machine);
    cJSON_AddItemToObject(facts, "costs", costs_of(b));
    kac_latent_run_close(&r);
    return KAC_OK;
}

static kac_status open_store(bench *b) {
    const char *folder = kac_options_text(b->options, "output");
    cJSON *facts = cJSON_CreateObject();
    const kac_status s = facts == NULL ? KAC_FAIL(KAC_E_MEMORY, "out of memory") : read_facts(facts, b);
    if (s != KAC_OK) {
        cJSON_Delete(facts);
        return s;
    }
    KAC_TRY(kac_bench_store_open(&b->store, folder, &b->plan, facts));
    b->stored = true;
    b->result->folder = kac_strdup(folder);
    return b->result->folder == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* ---- the plan alone ---- */

/* Seconds of a unit of work, by one network call. */
static kac_status time_model(double *seconds, bench *b) {
    const int way = first_way(b);
    int prompts[1000];
    const int n = KAC_MIN(b->plan.batch, b->plan.n_prompts);
    for (int i = 0; i < n; i++) prompts[i] = i;
    kac_latent_run *r;
    KAC_TRY(kac_bench_models_begin(&r, &b->models, way, b->plan.n_budgets - 1, 0, prompts, n));
    kac_process *p = kac_latent_process(r->latent);
    const int n_states = KAC_MIN(r->o.batch, n * r->o.n_per_group);
    int *slots = kac_alloc((size_t)n_states * sizeof *slots);
    kac_status s = slots == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n_states && s == KAC_OK; i++) slots[i] = i;
    double start_ms = 0;
    for (int k = 0; k < 2 && s == KAC_OK; k++) { /* the first one warms up */
        start_ms = kac_now_ms();
        s = p->start(p, slots, n_states);
        if (s == KAC_OK) s = p->predict(p, 0, slots, n_states);
    }
    *seconds = (kac_now_ms() - start_ms) / 1000 / (n_states * b->models.costs[way].nfe_flops);
    kac_free(slots);
    kac_latent_run_end(r);
    return s;
}

static kac_status print_plan(bench *b) {
    const kac_bench_plan *p = &b->plan;
    const totals t = count(b);
    double each = 1;
    if (p->unit != KAC_UNIT_SECONDS) KAC_TRY(time_model(&each, b));
    cJSON *d = cJSON_CreateObject(), *methods = cJSON_CreateArray();
    cJSON_AddNumberToObject(d, "cells", (double)t.n_cells);
    cJSON_AddNumberToObject(d, "prompts", p->n_prompts);
    cJSON_AddNumberToObject(d, "seeds", p->n_seeds);
    cJSON_AddNumberToObject(d, "nfe", t.nfe);
    cJSON_AddNumberToObject(d, "seconds", t.work_left * each);
    for (int w = 0; w < p->n_ways; w++) {
        if (!p->chosen[w]) continue;
        double work = 0;
        int n = 0;
        for (int i = 0; i < p->n_budgets; i++)
            if (is_asked(b, w, i)) work += work_of(b, w, i), n++;
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "label", p->ways[w].label);
        cJSON_AddNumberToObject(m, "budgets", n);
        cJSON_AddNumberToObject(m, "steps", b->models.costs[w].n_steps);
        cJSON_AddNumberToObject(m, "seconds", work * each * p->n_prompts * p->n_seeds);
        cJSON_AddItemToArray(methods, m);
    }
    cJSON_AddItemToObject(d, "methods", methods);
    char *text = cJSON_Print(d);
    b->result->json = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text), cJSON_Delete(d);
    return b->result->json == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* ---- passes ---- */

/* Seconds that a pass will take; 0: nobody knows yet. */
static double guess_seconds(const bench *b, int way, int budget, int n) {
    const double work = work_of(b, way, budget) * n;
    if (b->plan.unit == KAC_UNIT_SECONDS) return work;
    if (b->way_work[way] > 0) return work * b->way_seconds[way] / b->way_work[way];
    return b->store.known_flops > 0 ? work * b->store.known_seconds / b->store.known_flops : 0;
}

static bool is_out_of_time(const bench *b, int way, int budget, int n) {
    if (!kac_options_given(b->options, "time-limit")) return false;
    const double spent = (kac_now_ms() - b->start_ms) / 1000;
    return spent + guess_seconds(b, way, budget, n) > kac_options_real(b->options, "time-limit");
}

static kac_status run_claimed(bench *b) {
    const kac_bench_place at = b->block[0];
    const char *keep = kac_options_text(b->options, "keep");
    const kac_bench_pass pass = {.models = &b->models,
                                 .folder = b->store.path,
                                 .places = b->block,
                                 .n = b->n_block,
                                 .keep_best = strcmp(keep, "best") == 0,
                                 .keep_all = strcmp(keep, "all") == 0,
                                 .trees = kac_options_bool(b->options, "trees"),
                                 .cancelled = cancelled,
                                 .share = on_share,
                                 .self = b};
    kac_text lines = {0};
    int n_failed = 0;
    const double start_ms = kac_now_ms();
    kac_status s = kac_bench_pass_run(&pass, &lines, &n_failed);
    if (s == KAC_OK) s = kac_bench_store_add(&b->store, lines.s);
    kac_text_free(&lines);
    b->result->n_failed += n_failed;
    b->way_seconds[at.way] += (kac_now_ms() - start_ms) / 1000;
    b->way_work[at.way] += work_of(b, at.way, at.budget) * b->n_block;
    if (s == KAC_OK || s == KAC_E_CANCELLED || s == KAC_E_MEMORY) return s;
    return kac_fail_prefix(s, "%s at %g %s", b->plan.ways[at.way].label, b->plan.budgets[at.budget],
                           kac_bench_unit_name(b->plan.unit));
}

/* Prompts first … of one method, budget and seed, but for those that are done or in the hands of others. */
static kac_status run_pass(bench *b, int way, int budget, int seed, int first) {
    const int end = KAC_MIN(first + b->plan.batch, b->plan.n_prompts);
    int n = 0;
    for (int i = first; i < end; i++) {
        const kac_bench_place at = {way, budget, seed, i};
        if (!kac_bench_store_is_done(&b->store, at)) b->block[n++] = at;
    }
    if (n == 0) return KAC_OK;
    if (is_out_of_time(b, way, budget, n)) {
        b->result->stopped = true;
        return KAC_OK;
    }
    KAC_TRY(kac_bench_store_claim(&b->store, b->block, &n));
    if (n == 0) return KAC_OK;
    b->n_block = n, b->block_share = 0;
    b->totals = count(b);
    tell(b);
    const kac_status s = run_claimed(b);
    kac_bench_store_release(&b->store, b->block, n);
    b->n_block = 0;
    KAC_TRY(s);
    b->totals = count(b);
    tell(b);
    return cancelled(b) ? KAC_FAIL(KAC_E_CANCELLED, "stopped") : KAC_OK;
}

/* Seeds, then rising budgets, then blocks of prompts; methods take turns, so that what is there can be compared at any time. */
static kac_status run_passes(bench *b) {
    const kac_bench_plan *p = &b->plan;
    for (int s = 0; s < p->n_seeds; s++)
        for (int i = 0; i < p->n_budgets; i++)
            for (int first = 0; first < p->n_prompts; first += p->batch)
                for (int w = 0; w < p->n_ways && !b->result->stopped; w++)
                    if (is_asked(b, w, i)) KAC_TRY(run_pass(b, w, i, s, first));
    return KAC_OK;
}

static void say_of_gaps(const bench *b) {
    const kac_bench_plan *p = &b->plan;
    for (int w = 0; w < p->n_ways; w++)
        for (int i = p->n_budgets - 1; i >= 0; i--)
            if (p->chosen[w] && !is_asked(b, w, i)) {
                say(b, "%s has no cells at %g nfe and below: one particle takes %lld evaluations", p->ways[w].label,
                    p->budgets[i], (long long)b->models.costs[w].least);
                break;
            }
}

static kac_status run(bench *b) {
    KAC_TRY(kac_bench_plan_read(&b->plan, b->args->description, b->options, b->args->weights_dir));
    phase(b, "planning");
    KAC_TRY(kac_bench_models_plan(&b->models, &b->plan, b->args->weights_dir));
    say_of_gaps(b);
    if (kac_options_bool(b->options, "plan")) return print_plan(b);
    b->block = kac_alloc((size_t)b->plan.batch * sizeof *b->block);
    if (b->block == NULL) return KAC_E_MEMORY;
    KAC_TRY(open_store(b));
    b->totals = count(b), b->work_at_start = b->totals.work_left;
    phase(b, "passes");
    tell(b);
    const kac_status s = run_passes(b);
    const totals t = count(b);
    b->result->n_cells = t.n_cells, b->result->n_done = t.n_done;
    b->result->n_elsewhere = b->result->stopped ? 0 : t.n_cells - t.n_done - b->result->n_failed;
    return s;
}

kac_status kac_bench(kac_bench_result *result, const kac_bench_args *args) {
    *result = (kac_bench_result){0};
    if (kac_options_text(args->options, "output") == NULL && !kac_options_bool(args->options, "plan"))
        return KAC_FAIL(KAC_E_USAGE, "say where results go: -o DIR; the same command again goes on there");
    bench *b = kac_alloc(sizeof *b);
    if (b == NULL) return KAC_E_MEMORY;
    *b = (bench){.args = args, .options = args->options, .result = result, .start_ms = kac_now_ms()};
    const kac_status s = run(b);
    if (b->stored) kac_bench_store_close(&b->store);
    kac_bench_models_close(&b->models);
    kac_bench_plan_free(&b->plan);
    kac_free(b->block);
    kac_free(b);
    return s;
}

void kac_bench_result_free(kac_bench_result *r) {
    kac_free(r->folder), kac_free(r->json);
    *r = (kac_bench_result){0};
}
