#include "run/tune.h"
#include "run/backend.h"
#include "run/generate_job.h"
#include "run/run_record.h"
#include "run/tune_job.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- small things ---- */

void kac_tune_say(const kac_tune_job *j, const char *format, ...) {
    va_list args;
    va_start(args, format);
    kac_run_say(j->args->hooks.say, j->args->hooks.self, format, args);
    va_end(args);
}

void kac_tune_phase(const kac_tune_job *j, const char *name) {
    if (j->args->hooks.phase != NULL) j->args->hooks.phase(j->args->hooks.self, name);
}

double kac_tune_seconds(const kac_tune_job *j) {
    return (kac_now_ms() - j->from_ms) / 1000;
}

static bool is_cancelled(const kac_tune_job *j) {
    return j->args->hooks.cancelled != NULL && j->args->hooks.cancelled(j->args->hooks.self);
}

/* With --time alone rounds go on until then. */
static int64_t n_rounds(const kac_tune_job *j) {
    const bool by_time = kac_options_given(j->options, "time") && !kac_options_given(j->options, "rounds");
    return by_time ? 1000000 : kac_options_int(j->options, "rounds");
}

static double share_done(const kac_tune_job *j) {
    const double by_round = (double)j->trainer.round / (double)n_rounds(j);
    if (!kac_options_given(j->options, "time")) return by_round;
    return fmin(1, fmax(by_round, kac_tune_seconds(j) / kac_options_real(j->options, "time")));
}

static bool is_done(const kac_tune_job *j) {
    return j->progress.stopped != 0 || j->trainer.round >= n_rounds(j) ||
           (kac_options_given(j->options, "time") && j->trainer.round > 0 &&
            j->progress.seconds >= kac_options_real(j->options, "time"));
}

/* ---- the folder ---- */

const char *const kac_tune_free_options[] = {"output", "resume", "threads", "memory-limit",   "plan",
                                             "json",   "config", "help",    "reward-timeout", NULL};

/* Of all prompts, so that a resumed run notices when their file has changed. */
static void prompts_sha256(char hex[65], const kac_prompt_list *l) {
    kac_text all = {0};
    for (int i = 0; i < l->n; i++) kac_text_add_bytes(&all, l->items[i], strlen(l->items[i]) + 1);
    kac_sha256(hex, all.s, all.n);
    kac_text_free(&all);
}

static kac_status check_same(const kac_tune_job *j, const cJSON *options) {
    char hex[65];
    KAC_TRY(kac_run_same_options(&j->folder, options, kac_tune_free_options));
    prompts_sha256(hex, &j->wish.prompts);
    const char *then = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j->folder.run, "prompts_sha256"));
    if (then != NULL && strcmp(then, hex) == 0) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "--resume: the run in %s was started with other prompts", j->folder.path);
}

static cJSON *grid_facts(const kac_tune_job *j) {
    const kac_tune_grid g = kac_tune_grid_of(&j->eval);
    cJSON *d = cJSON_CreateObject(), *cells = cJSON_AddArrayToObject(d, "prompts");
    cJSON_AddNumberToObject(d, "columns", g.columns);
    cJSON_AddNumberToObject(d, "rows", g.rows);
    for (int cell = 0; cell < g.columns * g.rows; cell++) {
        int prompt, sample;
        if (kac_tune_grid_cell(&g, &j->eval, cell, &prompt, &sample))
            cJSON_AddItemToArray(cells, cJSON_CreateString(j->wish.prompts.items[j->wish.n_train + prompt]));
    }
    return d;
}

static cJSON *first_facts(const kac_tune_job *j) {
    const kac_tune_model *m = &j->model;
    char hex[65];
    cJSON *facts = cJSON_CreateObject();
    if (!j->resume) kac_run_add_origin(facts, j->args->command, j->args->n_command);
    cJSON_AddStringToObject(facts, "tune", j->method->name);
    cJSON_AddItemToObject(facts, "model", kac_run_model_facts(j->wish.model, &m->pipeline, true));
    cJSON_AddItemToObject(facts, "machine", kac_run_machine_facts(&m->ctx));
    cJSON_AddNumberToObject(facts, "seed", (double)j->seed);
    cJSON_AddNumberToObject(facts, "n_steps", m->solver.n_steps);
    cJSON_AddStringToObject(facts, "sampler", kac_solver_name(m->solver.kind));
    cJSON_AddNumberToObject(facts, "width", (double)m->width);
    cJSON_AddNumberToObject(facts, "height", (double)m->height);
    cJSON_AddNumberToObject(facts, "batch_size", j->plan.batch);
    cJSON_AddNumberToObject(facts, "n_values", (double)j->plan.n_values);
    cJSON_AddNumberToObject(facts, "n_layers", j->plan.n_layers);
    cJSON_AddNumberToObject(facts, "plan_bytes", (double)j->plan.total_bytes);
    cJSON_AddNumberToObject(facts, "n_prompts", j->wish.n_train);
    cJSON_AddNumberToObject(facts, "n_eval_prompts", j->wish.n_eval);
    prompts_sha256(hex, &j->wish.prompts);
    cJSON_AddStringToObject(facts, "prompts_sha256", hex);
    cJSON_AddItemToObject(facts, "rewards", kac_job_reward_facts(m->rewards.specs, m->rewards.n));
    cJSON_AddItemToObject(facts, "held_out", kac_job_reward_facts(m->held_out.specs, m->held_out.n));
    cJSON_AddItemToObject(facts, "grid", grid_facts(j));
    return facts;
}

static kac_status make_folders(const kac_tune_job *j) {
    static const char *const names[] = {"grids", "checkpoints"};
    for (int i = 0; i < (kac_options_int(j->options, "save-every") > 0 ? 2 : 1); i++) {
        char *path = kac_run_folder_file(&j->folder, names[i]);
        const kac_status s = path == NULL ? KAC_E_MEMORY : kac_dir_make(path);
        kac_free(path);
        KAC_TRY(s);
    }
    return KAC_OK;
}

static kac_status open_folder(kac_tune_job *j) {
    const char *asked = kac_options_text(j->options, "output");
    char *what = kac_format("tune-%s", j->method->name);
    if (what == NULL) return KAC_E_MEMORY;
    j->result->folder = asked != NULL ? kac_strdup(asked) : kac_run_folder_default(what);
    kac_free(what);
    if (j->result->folder == NULL) return KAC_E_MEMORY;
    cJSON *given = cJSON_CreateArray(), *options = kac_run_options(j->options, given), *facts = first_facts(j);
    kac_status s =
        j->resume ? check_same(j, options) : kac_run_folder_create(&j->folder, j->result->folder, "log.jsonl");
    if (s != KAC_OK) {
        cJSON_Delete(given), cJSON_Delete(options), cJSON_Delete(facts);
        kac_free(j->result->folder);
        j->result->folder = NULL; /* nothing of it is ours */
        return s;
    }
    cJSON_AddItemToObject(facts, "options", options);
    cJSON_AddItemToObject(facts, "given", given);
    KAC_TRY(kac_run_folder_take(&j->folder, facts));
    KAC_TRY(make_folders(j));
    return kac_run_folder_write(&j->folder, "running", NULL);
}

/* ---- rounds ---- */

/* After an evaluation: is this the best by the first held-out reward? */
static void note_best(kac_tune_job *j, int64_t round) {
    kac_tune_progress *p = &j->progress;
    const int64_t limit = kac_options_int(j->options, "early-stop");
    p->round_evaluated = round;
    if (j->model.held_out.n == 0) return;
    if (round == 0 || p->after.held_out[0] > p->best) {
        p->best = p->after.held_out[0], p->best_round = round, p->n_worse = 0;
        p->best_scores = p->after;
        if (j->best != NULL)
            memcpy(j->best, kac_trainer_values(&j->trainer), (size_t)j->model.trainee.n_values * sizeof *j->best);
        return;
    }
    p->n_worse++;
    if (limit > 0 && p->n_worse >= limit) p->stopped = 1;
}

static kac_status evaluate_now(kac_tune_job *j) {
    const int64_t round = j->trainer.round;
    KAC_TRY(kac_tune_evaluate(j, "eval", round == 0 ? NULL : kac_trainer_values(&j->trainer), round, 1));
    if (round == 0) j->progress.before = j->progress.after;
    note_best(j, round);
    return KAC_OK;
}

static kac_status one_round(kac_tune_job *j) {
    const size_t n_bytes = (size_t)j->model.trainee.n_values * sizeof(float);
    const int64_t every = kac_options_int(j->options, "eval-every");
    kac_tune_report report;
    memcpy(j->before, kac_trainer_values(&j->trainer), n_bytes);
    kac_tune_phase(j, "rounds");
    KAC_TRY(kac_trainer_round(&j->trainer, &report));
    memcpy(j->proven, j->before, n_bytes);
    j->proven_round = j->trainer.round - 1;
    j->progress.seconds = kac_tune_seconds(j);
    KAC_TRY(kac_tune_log_round(j, &report));
    KAC_TRY(kac_tune_keep(j));
    if (every > 0 && j->trainer.round % every == 0) KAC_TRY(evaluate_now(j));
    if (j->args->hooks.round != NULL) j->args->hooks.round(j->args->hooks.self, &report, n_rounds(j), share_done(j));
    return KAC_OK;
}

static kac_status all_rounds(kac_tune_job *j) {
    if (j->progress.round_evaluated < 0) {
        KAC_TRY(evaluate_now(j));
        KAC_TRY(kac_tune_checkpoint(j, true));
    }
    while (!is_done(j)) {
        KAC_TRY(one_round(j));
        const bool stop = is_cancelled(j);
        KAC_TRY(kac_tune_checkpoint(j, stop));
        if (stop) return KAC_FAIL(KAC_E_CANCELLED, "stopped after round %lld", (long long)j->trainer.round);
    }
    if (j->progress.stopped)
        kac_tune_say(j, "stopped early: %s has not been better than after round %lld for %lld evaluations",
                     j->model.held_out.specs[0]->label, (long long)j->progress.best_round,
                     (long long)j->progress.n_worse);
    return KAC_OK;
}

/* ---- the result ---- */

static kac_status write_result(kac_tune_job *j, const float *values, int64_t round) {
    char *name = kac_format("%s.safetensors", kac_options_text(j->options, "name"));
    if (name == NULL) return KAC_E_MEMORY;
    kac_tune_phase(j, "writing");
    kac_status s = kac_tune_write_values(j, name, values, round);
    if (s == KAC_OK && (j->result->file = kac_run_folder_file(&j->folder, name)) == NULL) s = KAC_E_MEMORY;
    if (s == KAC_OK) s = kac_run_folder_set(&j->folder, "file", cJSON_CreateString(name));
    if (s == KAC_OK) s = kac_run_folder_set(&j->folder, "file_round", cJSON_CreateNumber((double)round));
    kac_free(name);
    return s;
}

static kac_status finish_rounds(kac_tune_job *j) {
    if (j->progress.round_evaluated != j->trainer.round) KAC_TRY(evaluate_now(j));
    KAC_TRY(kac_tune_checkpoint(j, true));
    const bool keeps_best = j->best != NULL;
    const float *values = keeps_best ? j->best : kac_trainer_values(&j->trainer);
    const int64_t round = keeps_best ? j->progress.best_round : j->trainer.round;
    KAC_TRY(kac_run_folder_set(&j->folder, "before", kac_tune_scores_json(j, &j->progress.before)));
    const kac_tune_scores *scores = keeps_best ? &j->progress.best_scores : &j->progress.after;
    KAC_TRY(kac_run_folder_set(&j->folder, "after", kac_tune_scores_json(j, scores)));
    KAC_TRY(write_result(j, values, round));
    return kac_options_bool(j->options, "sweep") ? kac_tune_sweep(j, values, scores, round) : KAC_OK;
}

/* What had given finite rewards is kept; `status` says what happened. */
static kac_status keep_proven(kac_tune_job *j, kac_status status) {
    char why[512];
    snprintf(why, sizeof why, "%s", kac_error());
    if (j->proven_round <= 0)
        return KAC_FAIL(status, "%s; nothing was tuned before that is worth keeping; a lower --lr may help", why);
    KAC_TRY(write_result(j, j->proven, j->proven_round));
    return KAC_FAIL(status, "%s; %s holds round %lld, the last that gave finite rewards; a lower --lr may help", why,
                    j->result->file, (long long)j->proven_round);
}

static kac_status finish_folder(kac_tune_job *j, kac_status status) {
    cJSON *facts = cJSON_CreateObject();
    cJSON_AddNumberToObject(facts, "n_rounds", (double)j->trainer.round);
    cJSON_AddNumberToObject(facts, "peak_bytes", (double)kac_memory_peak_bytes());
    cJSON_AddItemToObject(facts, "counts", kac_tune_counts_json(&j->model.trainee.counts));
    cJSON *seconds = cJSON_AddObjectToObject(facts, "seconds");
    cJSON_AddNumberToObject(seconds, "tuning", j->progress.seconds);
    cJSON_AddNumberToObject(seconds, "total", kac_tune_seconds(j));
    if (j->progress.stopped) cJSON_AddTrueToObject(facts, "stopped_early");
    return kac_run_folder_finish(&j->folder, status, facts, &j->result->json);
}

/* ---- opening ---- */

static kac_status take_memory(kac_tune_job *j) {
    const size_t n_bytes = (size_t)j->model.trainee.n_values * sizeof(float);
    j->proven = kac_alloc(n_bytes), j->before = kac_alloc(n_bytes);
    const bool keeps_best = kac_options_int(j->options, "early-stop") > 0;
    if (keeps_best) j->best = kac_alloc(n_bytes);
    return j->proven == NULL || j->before == NULL || (keeps_best && j->best == NULL) ? KAC_E_MEMORY : KAC_OK;
}

static kac_status run(kac_tune_job *j) {
    KAC_TRY(kac_trainer_open(&j->trainer, &j->model.trainee, j->method, j->options, j->seed));
    KAC_TRY(kac_tune_eval_open(&j->eval, &j->model));
    KAC_TRY(take_memory(j));
    const int n_cut = kac_latent_trainee_n_truncated(&j->model.trainee);
    if (n_cut > 0)
        kac_tune_say(j, "%d of the prompts are longer than the text encoder's context; the rest of them is not seen",
                     n_cut);
    KAC_TRY(open_folder(j));
    j->from_ms = kac_now_ms();
    j->folder.start_ms = j->from_ms;
    kac_status s = kac_tune_log_open(j);
    if (s == KAC_OK && j->resume) s = kac_tune_restore(j);
    if (s == KAC_OK) s = all_rounds(j);
    if (s == KAC_OK) s = finish_rounds(j);
    if (s == KAC_E_NONFINITE) s = keep_proven(j, s);
    return finish_folder(j, s);
}

static kac_status print_plan(kac_tune_job *j) {
    const kac_tune_plan *p = &j->plan;
    cJSON *plan = cJSON_CreateObject(), *bytes = cJSON_AddObjectToObject(plan, "bytes");
    cJSON_AddNumberToObject(bytes, "model", (double)p->sizes.model);
    cJSON_AddNumberToObject(bytes, "run", (double)p->sizes.run);
    cJSON_AddNumberToObject(bytes, "scratch", (double)p->sizes.scratch);
    cJSON_AddNumberToObject(bytes, "gradients", (double)p->gradients_bytes);
    cJSON_AddNumberToObject(bytes, "host", (double)p->host_bytes);
    cJSON_AddNumberToObject(bytes, "total", (double)p->total_bytes);
    cJSON_AddNumberToObject(plan, "batch_size", p->batch);
    cJSON_AddBoolToObject(plan, "checkpointing", !p->keep_all);
    cJSON_AddNumberToObject(plan, "values", (double)p->n_values);
    cJSON_AddNumberToObject(plan, "layers", p->n_layers);
    char *text = cJSON_Print(plan);
    j->result->json = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text), cJSON_Delete(plan);
    return j->result->json == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* A resumed run computes in the batches that it began with. */
static int batch_of(const kac_tune_job *j) {
    const cJSON *v = j->resume ? cJSON_GetObjectItemCaseSensitive(j->folder.run, "batch_size") : NULL;
    return cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= 1 << 16 ? (int)v->valuedouble : 0;
}

static kac_status tune(kac_tune_job *j) {
    const kac_options *o = j->options;
    const struct kac_ops *ops;
    j->method = kac_tune_method_find(kac_options_text(o, "method"));
    if (j->method == NULL) return KAC_FAIL(KAC_E_USAGE, "there is no method \"%s\"", kac_options_text(o, "method"));
    if (j->resume && kac_options_text(o, "output") == NULL)
        return KAC_FAIL(KAC_E_USAGE, "--resume needs --output: the folder of the run");
    if (strchr(kac_options_text(o, "name"), '/') != NULL || kac_options_text(o, "name")[0] == '\0')
        return KAC_FAIL(KAC_E_USAGE, "--name is a file's name without a folder");
    KAC_TRY(kac_backend_find(&ops, kac_options_text(o, "backend")));
    if (j->resume) KAC_TRY(kac_run_folder_resume(&j->folder, kac_options_text(o, "output"), "log.jsonl"));
    KAC_TRY(kac_tune_wish_read(&j->wish, o, j->args->weights_dir));
    kac_tune_phase(j, "loading");
    const bool only_plan = kac_options_bool(o, "plan");
    const size_t room = kac_run_available_bytes(o);
    KAC_TRY(kac_tune_plan_run(&j->plan, &j->wish, batch_of(j), only_plan ? SIZE_MAX : room, room));
    if (only_plan) return print_plan(j);
    KAC_TRY(kac_tune_model_open(&j->model, &j->wish, ops, &j->plan));
    return run(j);
}

kac_status kac_tune(kac_tune_result *result, const kac_tune_args *args) {
    *result = (kac_tune_result){0};
    kac_tune_job *j = kac_alloc(sizeof *j);
    if (j == NULL) return KAC_E_MEMORY;
    *j = (kac_tune_job){.args = args,
                        .result = result,
                        .options = args->options,
                        .seed = (uint64_t)kac_options_int(args->options, "seed"),
                        .resume = kac_options_bool(args->options, "resume"),
                        .from_ms = kac_now_ms(),
                        .folder = {.events_fd = -1},
                        .csv_fd = -1,
                        .progress = {.round_evaluated = -1}};
    const kac_status s = tune(j);
    kac_tune_log_close(j);
    kac_trainer_close(&j->trainer);
    kac_tune_eval_close(&j->eval);
    kac_tune_model_close(&j->model);
    kac_run_folder_close(&j->folder);
    kac_tune_wish_free(&j->wish);
    kac_free(j->proven), kac_free(j->before), kac_free(j->best), kac_free(j);
    return s;
}

void kac_tune_result_free(kac_tune_result *r) {
    kac_free(r->folder), kac_free(r->file), kac_free(r->json);
    *r = (kac_tune_result){0};
}
