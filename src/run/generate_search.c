/* Budgets of a run, and what methods that search until theirs is spent leave in the folder. */
#include "run/generate_job.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the budget ---- */

/* "dts, noise-random": the methods that can stop at any moment. */
static void add_anytime_names(kac_text *t) {
    const kac_method *const *list = kac_method_list();
    for (int i = 0; list[i] != NULL; i++)
        if (list[i]->anytime) kac_text_add(t, "%s%s", t->n == 0 ? "" : ", ", list[i]->name);
}

static kac_status refuse_time(const kac_method *m) {
    kac_text names = {0};
    add_anytime_names(&names);
    const kac_status s = KAC_FAIL(KAC_E_USAGE, "--time is for methods that can stop at any moment%s%s; %s takes --nfe",
                                  names.n > 0 ? ": " : "", names.n > 0 ? names.s : "", m->name);
    kac_text_free(&names);
    return s;
}

kac_status kac_job_read_budget(kac_job *j) {
    const kac_options *o = j->options;
    const bool nfe = kac_options_given(o, "nfe");
    j->nfe = nfe ? kac_options_int(o, "nfe") : 0;
    j->seconds = kac_options_given(o, "time") ? kac_options_real(o, "time") : 0;
    if (j->method->anytime) return KAC_OK;
    if (j->seconds > 0) return refuse_time(j->method);
    if (nfe && kac_options_given(o, "particles"))
        return KAC_FAIL(KAC_E_USAGE, "--nfe says how many particles %s has; --particles cannot be given beside it",
                        j->method->name);
    return KAC_OK;
}

static double number_in(const cJSON *options, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(options, name));
    return text == NULL ? 0 : strtod(text, NULL);
}

kac_status kac_job_check_more(const kac_job *j) {
    const cJSON *then = cJSON_GetObjectItemCaseSensitive(j->folder.run, "options");
    const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j->folder.run, "state"));
    if (state == NULL || strcmp(state, "finished") != 0) return KAC_OK;
    if ((double)j->nfe > number_in(then, "nfe") || j->seconds > number_in(then, "time")) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "the run in %s is finished; with a larger --nfe or --time its search goes on",
                    j->folder.path);
}

/* ---- events ---- */

kac_status kac_job_on_search(kac_events *e, const kac_search_event *event) {
    kac_job *j = e->self;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "group", event->group);
    cJSON_AddNumberToObject(line, "n_groups", event->n_groups);
    cJSON_AddNumberToObject(line, "nfe", (double)event->nfe);
    cJSON_AddNumberToObject(line, "nfe_budget", (double)event->nfe_budget);
    cJSON_AddItemToObject(line, "seconds", kac_json_number(event->seconds));
    cJSON_AddItemToObject(line, "seconds_budget", kac_json_number(event->seconds_budget));
    cJSON_AddNumberToObject(line, "n_samples", (double)event->n_samples);
    cJSON_AddNumberToObject(line, "n_nodes", (double)event->n_nodes);
    cJSON_AddItemToObject(line, "best_reward", kac_json_number(event->best_reward));
    cJSON *rewards = cJSON_AddArrayToObject(line, "rewards");
    for (int i = 0; i < event->n_rewards; i++) cJSON_AddItemToArray(rewards, kac_json_number(event->rewards[i]));
    cJSON_AddItemToObject(line, "log_z", kac_json_number(event->log_z));
    cJSON_AddItemToObject(line, "ess", kac_json_number(event->ess));
    cJSON_AddItemToObject(line, "counts", j->counts(j->counts_self));
    KAC_TRY(kac_run_folder_event(&j->folder, "search", line));
    if (!(event->best_reward <= j->best_reward)) j->best_reward = event->best_reward;
    if (j->args->hooks.search != NULL) j->args->hooks.search(j->args->hooks.self, event, j->best_reward);
    return KAC_OK;
}

/* ---- trees ---- */

static void add_whole(kac_text *t, const char *key, const int64_t *v, int64_t n) {
    kac_text_add(t, ",\n\"%s\":[", key);
    for (int64_t i = 0; i < n; i++) kac_text_add(t, "%s%lld", i == 0 ? "" : ",", (long long)v[i]);
    kac_text_add(t, "]");
}

static void add_steps(kac_text *t, const int *v, int64_t n) {
    kac_text_add(t, ",\n\"i_step\":[");
    for (int64_t i = 0; i < n; i++) kac_text_add(t, "%s%d", i == 0 ? "" : ",", v[i]);
    kac_text_add(t, "]");
}

static void add_real(kac_text *t, const char *key, const double *v, int64_t n) {
    kac_text_add(t, ",\n\"%s\":[", key);
    for (int64_t i = 0; i < n; i++)
        if (isfinite(v[i]))
            kac_text_add(t, "%s%.7g", i == 0 ? "" : ",", v[i]);
        else
            kac_text_add(t, "%snull", i == 0 ? "" : ",");
    kac_text_add(t, "]");
}

kac_status kac_tree_write(const char *path, const kac_tree_event *e, int n_steps) {
    kac_text t = {0};
    kac_text_add(&t, "{\"group\":%d,\"n_steps\":%d,\"n_nodes\":%lld", e->group, n_steps, (long long)e->n_nodes);
    add_whole(&t, "parent", e->parent, e->n_nodes);
    add_steps(&t, e->i_step, e->n_nodes);
    add_whole(&t, "visits", e->visits, e->n_nodes);
    add_real(&t, "value", e->value, e->n_nodes);
    add_real(&t, "log_prob", e->log_prob, e->n_nodes);
    add_whole(&t, "chosen", e->chosen, e->n_particles);
    kac_text_add(&t, "}\n");
    const kac_status s =
        t.failed ? KAC_FAIL(KAC_E_MEMORY, "out of memory while writing %s", path) : kac_file_write(path, t.s, t.n);
    kac_text_free(&t);
    return s;
}

kac_status kac_job_on_tree(kac_events *e, const kac_tree_event *event) {
    kac_job *j = e->self;
    char name[48];
    snprintf(name, sizeof name, "trees/group_%02d.json", event->group);
    char *folder = kac_run_folder_file(&j->folder, "trees"), *path = kac_run_folder_file(&j->folder, name);
    kac_status s = folder == NULL || path == NULL ? KAC_E_MEMORY : kac_dir_make(folder);
    if (s == KAC_OK) s = kac_tree_write(path, event, j->process->n_steps);
    kac_free(folder), kac_free(path);
    KAC_TRY(s);
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "group", event->group);
    cJSON_AddStringToObject(line, "file", name);
    cJSON_AddNumberToObject(line, "n_nodes", (double)event->n_nodes);
    return kac_run_folder_event(&j->folder, "tree", line);
}
