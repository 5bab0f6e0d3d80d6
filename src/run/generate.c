#include "run/generate.h"
#include "io/prompt_list.h"
#include "reward/image_reward.h"
#include "run/generate_job.h"
#include "run/run_record.h"
#include "text/prompt.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- prompts ---- */

/* One negative prompt for all, or one for each. */
static kac_status read_negatives(kac_job *j) {
    const kac_options *o = j->options;
    const int n = kac_options_count(o, "negative-prompt"), n_prompts = KAC_MAX(1, j->n_prompts);
    if (n > 1 && n != n_prompts)
        return KAC_FAIL(KAC_E_USAGE, "%d negative prompts for %d prompts; give one for all, or one for each", n,
                        j->n_prompts);
    j->negatives = kac_alloc((size_t)n_prompts * sizeof *j->negatives);
    if (j->negatives == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n_prompts && n > 0; i++) {
        j->negatives[i] = kac_options_text_at(o, "negative-prompt", n > 1 ? i : 0);
        if (j->negatives[i][0] != '\0') KAC_TRY(kac_prompt_check(j->negatives[i]));
    }
    return KAC_OK;
}

static kac_status read_plain(kac_job *j) {
    j->plain = kac_alloc((size_t)KAC_MAX(1, j->n_prompts) * sizeof *j->plain);
    kac_status s = j->plain == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < j->n_prompts && s == KAC_OK; i++) {
        kac_prompt_pieces pieces;
        s = kac_prompt_parse(&pieces, j->prompts[i]);
        if (s == KAC_OK) j->plain[i] = kac_strdup(pieces.text);
        if (s == KAC_OK && j->plain[i] == NULL) s = KAC_E_MEMORY;
        kac_prompt_pieces_free(&pieces);
    }
    return s;
}

static kac_status read_lists(kac_prompt_list *l, const kac_job *j) {
    const kac_options *o = j->options;
    for (int i = 0; i < j->args->n_words; i++) KAC_TRY(kac_prompt_list_add(l, j->args->words[i]));
    for (int i = 0; i < kac_options_count(o, "prompt"); i++)
        KAC_TRY(kac_prompt_list_add(l, kac_options_text_at(o, "prompt", i)));
    const char *file = kac_options_text(o, "prompts-file");
    return file == NULL ? KAC_OK : kac_prompt_list_add_file(l, file);
}

static kac_status read_prompts(kac_job *j) {
    kac_prompt_list list = {0};
    const kac_status s = read_lists(&list, j);
    j->prompts = list.items, j->n_prompts = list.n; /* the job's from here on */
    list.items = NULL;
    kac_prompt_list_free(&list);
    KAC_TRY(s);
    KAC_TRY(read_negatives(j));
    return kac_options_bool(j->options, "prompt-weighting") ? read_plain(j) : KAC_OK;
}

/* ---- model, rewards, method ---- */

/* Without --reward the shipped judge steers the shipped model. */
static kac_status read_rewards(kac_job *j) {
    const int n = kac_options_count(j->options, "reward");
    const bool by_default = n == 0 && j->model == j->default_model && strcmp(j->method->name, "none") != 0;
    j->rewards = kac_alloc((size_t)(n + 1) * sizeof *j->rewards);
    if (j->rewards == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n + by_default; i++) {
        const char *spec = i < n ? kac_options_text_at(j->options, "reward", i) : "clip";
        j->rewards[i] = kac_image_reward_expand(spec, j->args->weights_dir);
        if (j->rewards[i] == NULL) return KAC_E_MEMORY;
        j->n_rewards++;
    }
    return KAC_OK;
}

static kac_status read_options(kac_job *j) {
    const kac_options *o = j->options;
    j->method = kac_method_find(kac_options_text(o, "steer"));
    if (j->method == NULL) return KAC_FAIL(KAC_E_USAGE, "there is no method \"%s\"", kac_options_text(o, "steer"));
    j->model = kac_options_text(o, "model");
    if (j->model == NULL) {
        j->default_model = kac_path_join(j->args->weights_dir, "shapes-64");
        if (j->default_model == NULL) return KAC_E_MEMORY;
        j->model = j->default_model;
    }
    KAC_TRY(kac_job_read_budget(j));
    j->seed = (uint64_t)kac_options_int(o, "seed");
    j->resume = kac_options_bool(o, "resume");
    if (j->resume && kac_options_text(o, "output") == NULL)
        return KAC_FAIL(KAC_E_USAGE, "--resume needs --output: the folder of the run");
    KAC_TRY(read_prompts(j));
    return read_rewards(j);
}

/* ---- the folder ---- */

void kac_job_say(const kac_job *j, const char *format, ...) {
    va_list args;
    va_start(args, format);
    kac_run_say(j->args->hooks.say, j->args->hooks.self, format, args);
    va_end(args);
}

void kac_job_phase(const kac_job *j, const char *name) {
    if (j->args->hooks.phase != NULL) j->args->hooks.phase(j->args->hooks.self, name);
}

/* Options that may differ between the two halves of a resumed run without changing a picture. */
static const char *const free_options[] = {"output",   "resume", "threads", "batch-size", "memory-limit",   "plan",
                                           "previews", "json",   "config",  "help",       "reward-timeout", NULL};
/* A search goes on to a larger budget too. */
static const char *const free_options_of_search[] = {
    "nfe",  "time",     "output", "resume", "threads", "batch-size",     "memory-limit",
    "plan", "previews", "json",   "config", "help",    "reward-timeout", NULL};

static kac_status check_same_options(const kac_job *j, const cJSON *now) {
    KAC_TRY(kac_run_same_options(&j->folder, now, j->method->anytime ? free_options_of_search : free_options));
    KAC_TRY(kac_job_check_more(j));
    const cJSON *groups = cJSON_GetObjectItemCaseSensitive(j->folder.run, "groups");
    for (int i = 0; i < j->n_prompts; i++) {
        const char *text =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(groups, i), "prompt"));
        if (text == NULL || strcmp(text, j->prompts[i]) != 0)
            return KAC_FAIL(KAC_E_USAGE, "--resume: the run in %s was started with other prompts", j->folder.path);
    }
    return KAC_OK;
}

/* The pictures that a run starts from must still be the ones it started with. */
static kac_status check_same_start(const kac_job *j, const cJSON *facts) {
    static const char *const keys[][2] = {{"sha256", "init-img"}, {"mask_sha256", "mask"}};
    const cJSON *now = cJSON_GetObjectItemCaseSensitive(facts, "start"),
                *then = cJSON_GetObjectItemCaseSensitive(j->folder.run, "start");
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        const char *a = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(now, keys[i][0])),
                   *b = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(then, keys[i][0]));
        if (a != NULL && (b == NULL || strcmp(a, b) != 0))
            return KAC_FAIL(KAC_E_USAGE, "--resume: the file of --%s has changed since the run in %s was started",
                            keys[i][1], j->folder.path);
    }
    return KAC_OK;
}

static void add_groups(const kac_job *j, cJSON *facts) {
    cJSON *groups = cJSON_AddArrayToObject(facts, "groups");
    for (int i = 0; i < KAC_MAX(1, j->n_prompts); i++) {
        cJSON *g = cJSON_CreateObject();
        cJSON_AddStringToObject(g, "prompt", i < j->n_prompts ? j->prompts[i] : "");
        cJSON_AddStringToObject(g, "negative_prompt", j->negatives[i] == NULL ? "" : j->negatives[i]);
        cJSON_AddItemToArray(groups, g);
    }
}

static void add_asked(kac_job *j, cJSON *facts, cJSON *options, cJSON *given) {
    kac_run_add_origin(facts, j->args->command, j->args->n_command);
    cJSON_AddItemToObject(facts, "options", options);
    cJSON_AddItemToObject(facts, "given", given);
    cJSON_AddNumberToObject(facts, "seed", (double)j->seed);
    cJSON_AddNumberToObject(facts, "n_particles", j->n_particles);
    if (j->method->anytime) cJSON_AddTrueToObject(facts, "anytime");
    cJSON_AddStringToObject(facts, "steer", j->method->name);
    add_groups(j, facts);
}

kac_status kac_job_folder_open(kac_job *j, cJSON *facts) {
    const char *asked = kac_options_text(j->options, "output"), *log = "events.jsonl";
    char *path = asked != NULL ? kac_strdup(asked)
                               : kac_run_folder_default(j->n_prompts > 0 ? j->prompts[0] : kac_path_base(j->model));
    cJSON *given = cJSON_CreateArray(), *options = kac_run_options(j->options, given);
    kac_status s = path == NULL ? KAC_E_MEMORY : options == NULL ? KAC_FAIL(KAC_E_MEMORY, "out of memory") : KAC_OK;
    if (s == KAC_OK)
        s = j->resume ? kac_run_folder_resume(&j->folder, path, log) : kac_run_folder_create(&j->folder, path, log);
    if (s == KAC_OK && j->resume) s = check_same_options(j, options);
    if (s == KAC_OK && j->resume) s = check_same_start(j, facts);
    if (s != KAC_OK) {
        cJSON_Delete(given), cJSON_Delete(options), cJSON_Delete(facts);
        kac_free(path);
        return s;
    }
    j->result->folder = path;
    j->folder.start_ms = j->start_ms;
    add_asked(j, facts, options, given);
    KAC_TRY(kac_run_folder_take(&j->folder, facts));
    return kac_run_folder_write(&j->folder, "running", NULL);
}

/* ---- the method ---- */

static kac_status on_step(kac_events *e, const kac_step_event *event) {
    kac_job *j = e->self;
    if (event->i_step == event->n_steps && event->group == 0)
        j->best_reward = NAN; /* from here on finished pictures count */
    for (int i = 0; event->scored && event->rewards != NULL && i < event->n_particles; i++)
        if (!(event->rewards[i] <= j->best_reward)) j->best_reward = event->rewards[i];
    KAC_TRY(kac_run_folder_step(&j->folder, event, j->counts(j->counts_self)));
    if (event->group == event->n_groups - 1) j->i_step = KAC_MIN(event->i_step + 1, event->n_steps);
    if (j->args->hooks.step != NULL) j->args->hooks.step(j->args->hooks.self, event, j->best_reward);
    return KAC_OK;
}

static bool on_cancelled(kac_events *e) {
    const kac_job *j = e->self;
    return j->args->hooks.cancelled != NULL && j->args->hooks.cancelled(j->args->hooks.self);
}

enum { MAX_BLOBS = 32 };

/* A method's blobs and those of the run itself; how many. */
static int add_own_blobs(const kac_job *j, kac_blob all[MAX_BLOBS], const kac_blob *blobs, int n) {
    KAC_ASSERT(n < MAX_BLOBS);
    memcpy(all, blobs, (size_t)n * sizeof *all);
    size_t n_bytes = 0;
    void *means = j->mix == NULL ? NULL : kac_mix_state(j->mix, &n_bytes);
    if (means != NULL) all[n++] = (kac_blob){"reward_means", means, n_bytes};
    return n;
}

static kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n) {
    kac_job *j = e->self;
    kac_blob all[MAX_BLOBS];
    return kac_run_folder_checkpoint(&j->folder, i_step, all, add_own_blobs(j, all, blobs, n), on_cancelled(e));
}

static kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n) {
    kac_job *j = e->self;
    *i_step = 0;
    if (j->resume) {
        kac_blob all[MAX_BLOBS];
        KAC_TRY(kac_run_folder_restore(&j->folder, i_step, all, add_own_blobs(j, all, blobs, n)));
        memcpy(blobs, all, (size_t)n * sizeof *blobs); /* those of any size */
        j->i_step = *i_step;
        if (*i_step == 0)
            kac_job_say(j, "no checkpoint yet: starting anew");
        else if (j->method->anytime)
            kac_job_say(j, "going on with the search");
        else
            kac_job_say(j, "going on at step %d", *i_step);
    }
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "i_step", *i_step);
    return kac_run_folder_event(&j->folder, "start", line);
}

kac_status kac_job_steer(kac_job *j, kac_particles *out, kac_process *p, kac_reward *r) {
    if (r == NULL && strcmp(j->method->name, "none") != 0)
        return KAC_FAIL(KAC_E_USAGE, "--steer %s needs a --reward (or --steer none)", j->method->name);
    kac_job_phase(j, "steps");
    j->process = p;
    kac_events events = {.self = j,
                         .on_step = on_step,
                         .on_search = kac_job_on_search,
                         .on_tree = kac_job_on_tree,
                         .nfe = j->nfe,
                         .seconds = j->seconds,
                         .on_checkpoint = on_checkpoint,
                         .on_restore = on_restore,
                         .cancelled = on_cancelled};
    KAC_TRY(j->method->run(out, p, r, &events, j->options, j->seed));
    j->stopped = j->method->anytime && on_cancelled(&events);
    return KAC_OK;
}

void kac_job_weights(double *weights, const kac_particles *p) {
    for (int g = 0; g < p->n_groups; g++) {
        const double *lw = p->log_weights + g * p->n_per_group;
        double top = -INFINITY, sum = 0;
        for (int i = 0; i < p->n_per_group; i++) top = fmax(top, lw[i]);
        for (int i = 0; i < p->n_per_group; i++) sum += exp(lw[i] - top);
        for (int i = 0; i < p->n_per_group; i++) weights[g * p->n_per_group + i] = exp(lw[i] - top) / sum;
    }
}

kac_status kac_job_finish(kac_job *j, kac_status status, cJSON *facts) {
    j->folder.stopped = j->result->stopped = j->stopped;
    return kac_run_folder_finish(&j->folder, status, facts, &j->result->json);
}

/* ---- entry ---- */

static bool is_mixture(const char *model) {
    const size_t n = strlen(model);
    return n > 5 && strcmp(model + n - 5, ".json") == 0 && !kac_dir_exists(model);
}

kac_status kac_generate(kac_generate_result *result, const kac_generate_args *args) {
    *result = (kac_generate_result){.best_reward = NAN};
    kac_job j = {.args = args,
                 .result = result,
                 .options = args->options,
                 .start_ms = kac_now_ms(),
                 .best_reward = NAN,
                 .folder = {.events_fd = -1}};
    kac_status s = read_options(&j);
    if (s == KAC_OK) s = is_mixture(j.model) ? kac_generate_mixture(&j) : kac_generate_latent(&j);
    result->best_reward = j.best_reward;
    kac_run_folder_close(&j.folder);
    for (int i = 0; i < j.n_prompts; i++) kac_free(j.prompts[i]);
    for (int i = 0; i < j.n_prompts && j.plain != NULL; i++) kac_free(j.plain[i]);
    for (int i = 0; i < j.n_rewards; i++) kac_free(j.rewards[i]);
    kac_free(j.prompts), kac_free(j.negatives), kac_free(j.plain), kac_free(j.rewards), kac_free(j.default_model);
    return s;
}

void kac_generate_result_free(kac_generate_result *r) {
    kac_free(r->folder), kac_free(r->best), kac_free(r->json);
    *r = (kac_generate_result){0};
}
