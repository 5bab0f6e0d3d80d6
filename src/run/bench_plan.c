#include "run/bench_plan.h"
#include "reward/image_reward.h"
#include "run/bench_prompts.h"
#include "run/generate_options.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cJSON *at(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* Keys that nobody reads are mistakes. */
static kac_status check_keys(const kac_bench_plan *p, const cJSON *object, const char *where,
                             const char *const *known) {
    for (const cJSON *v = object->child; v != NULL; v = v->next) {
        bool is_known = false;
        for (int i = 0; known[i] != NULL && !is_known; i++) is_known = strcmp(known[i], v->string) == 0;
        if (is_known) continue;
        const char *nearest = kac_nearest(v->string, known);
        return KAC_FAIL(KAC_E_USAGE, "%s: %sunknown key \"%.60s\"%s%s%s", p->file.name, where, v->string,
                        nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
                        nearest == NULL ? "" : "\"?");
    }
    return KAC_OK;
}

/* ---- paths ---- */

char *kac_bench_path(const kac_bench_plan *p, const char *path) {
    return path[0] == '/' || p->folder[0] == '\0' ? kac_strdup(path) : kac_path_join(p->folder, path);
}

static kac_status resolve_text(const kac_bench_plan *p, cJSON *v) {
    if (!cJSON_IsString(v)) return KAC_OK;
    char *path = kac_bench_path(p, v->valuestring);
    const bool done = path != NULL && cJSON_SetValuestring(v, path) != NULL;
    kac_free(path);
    return done ? KAC_OK : KAC_E_MEMORY;
}

/* A copy of an object of options whose paths are relative to where we are. */
static kac_status resolve_options(cJSON **out, const kac_bench_plan *p, const cJSON *object) {
    static const char *const paths[] = {"model", "vae", "preview-decoder", "lora", "embedding"};
    *out = object == NULL ? cJSON_CreateObject() : cJSON_Duplicate(object, true);
    if (*out == NULL) return KAC_FAIL(KAC_E_MEMORY, "out of memory while reading %s", p->file.name);
    for (int i = 0; i < KAC_COUNT_OF(paths); i++) {
        cJSON *v = cJSON_GetObjectItemCaseSensitive(*out, paths[i]);
        if (cJSON_IsArray(v)) {
            cJSON *entry;
            cJSON_ArrayForEach(entry, v) KAC_TRY(resolve_text(p, entry));
        } else if (v != NULL) {
            KAC_TRY(resolve_text(p, v));
        }
    }
    return KAC_OK;
}

/* NAME=PATH… with a path that is there relative to the description; any other text as it is. */
static char *resolve_spec(const kac_bench_plan *p, const char *text) {
    kac_reward_spec spec;
    if (kac_reward_spec_parse(&spec, text) != KAC_OK) return kac_strdup(text); /* said when the reward is opened */
    char *path = spec.path == NULL || spec.path[0] == '\0' ? NULL : kac_bench_path(p, spec.path), *out = NULL;
    const char *found = path == NULL ? NULL : strstr(text, spec.path);
    if (found != NULL && (kac_file_exists(path) || kac_dir_exists(path)))
        out = kac_format("%.*s%s%s", (int)(found - text), text, path, found + strlen(spec.path));
    else
        out = kac_strdup(text);
    kac_free(path);
    kac_reward_spec_free(&spec);
    return out;
}

/* ---- rewards ---- */

static kac_status read_specs(char **out, int *n, const kac_bench_plan *p, const char *key, int most,
                             const char *weights_dir) {
    const char *texts[KAC_MAX_REWARDS];
    const cJSON *list = at(p->file.root, key);
    if (cJSON_IsArray(list) && list->child == NULL) return KAC_OK; /* none */
    KAC_TRY(kac_json_texts(&p->file, p->file.root, key, texts, most, n));
    const int n_texts = *n;
    for (*n = 0; *n < n_texts; ++*n) {
        char *spec = resolve_spec(p, texts[*n]);
        out[*n] = spec == NULL ? NULL : kac_image_reward_expand(spec, weights_dir);
        kac_free(spec);
        if (out[*n] == NULL) return KAC_E_MEMORY;
    }
    return KAC_OK;
}

/* A running z would make a picture depend on what was scored before it. */
static kac_status check_shapings(const kac_bench_plan *p) {
    for (int i = 0; i < p->n_rewards; i++) {
        kac_reward_spec spec;
        KAC_TRY(kac_reward_spec_parse(&spec, p->rewards[i]));
        bool running = false;
        for (int k = 0; k < spec.n_shapings; k++) running |= spec.shapings[k].running;
        kac_reward_spec_free(&spec);
        if (running)
            return KAC_FAIL(KAC_E_USAGE,
                            "%s: rewards: \"%s\": ,z by what was scored before would make a cell depend on "
                            "its neighbours; give ,z=MEAN/STD",
                            p->file.name, p->rewards[i]);
    }
    return KAC_OK;
}

static kac_status read_rewards(kac_bench_plan *p, const char *weights_dir) {
    KAC_TRY(read_specs(p->rewards, &p->n_rewards, p, "rewards", KAC_MAX_REWARDS, weights_dir));
    KAC_TRY(read_specs(p->judges, &p->n_judges, p, "judges", KAC_BENCH_JUDGE_SPECS, weights_dir));
    if (p->n_rewards == 0 && at(p->file.root, "model") != NULL)
        return KAC_FAIL(KAC_E_USAGE, "%s: \"rewards\" is missing; what is to be steered by?", p->file.name);
    if (p->n_rewards == 0) {
        p->rewards[0] = kac_image_reward_expand("clip", weights_dir);
        if (p->rewards[0] == NULL) return KAC_E_MEMORY;
        p->n_rewards = 1;
    }
    return check_shapings(p);
}

/* ---- methods ---- */

/* What the bench itself sets, or what would make its cells something else. */
static const char *const not_here[] = {"prompt", "prompts-file", "output",   "seed",   "steer",         "reward",
                                       "nfe",    "time",         "plan",     "resume", "previews",      "model",
                                       "mask",   "init-img",     "strength", "paste",  "first-particle"};

static kac_status check_options(const kac_bench_plan *p, const cJSON *object, const char *where) {
    if (object == NULL) return KAC_OK;
    if (!cJSON_IsObject(object)) return KAC_FAIL(KAC_E_FORMAT, "%s: %s must be an object", p->file.name, where);
    for (int i = 0; i < KAC_COUNT_OF(not_here); i++)
        if (at(object, not_here[i]) != NULL)
            return KAC_FAIL(KAC_E_USAGE, "%s: %s: \"%s\" is no option of a bench%s", p->file.name, where, not_here[i],
                            strcmp(not_here[i], "model") == 0 ? "; it stands beside \"options\"" : "");
    return KAC_OK;
}

static kac_status check_label(const kac_bench_plan *p, const char *label) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+=-";
    if (label[0] == '\0' || label[0] == '.' || strlen(label) > 60 || label[strspn(label, allowed)] != '\0')
        return KAC_FAIL(KAC_E_USAGE,
                        "%s: methods: the label \"%.60s\" must be of letters, digits and . _ + = - (1 to 60)",
                        p->file.name, label);
    for (int i = 0; i < p->n_ways; i++)
        if (strcmp(p->ways[i].label, label) == 0)
            return KAC_FAIL(KAC_E_USAGE, "%s: methods: two have the label \"%s\"; give them different ones",
                            p->file.name, label);
    return KAC_OK;
}

static kac_status find_method(const kac_method **out, const kac_bench_plan *p, const char *name) {
    const char *names[128];
    int n = 0;
    for (; kac_method_list()[n] != NULL; n++) names[n] = kac_method_list()[n]->name;
    names[n] = NULL;
    *out = kac_method_find(name);
    if (*out != NULL) return KAC_OK;
    const char *nearest = kac_nearest(name, names);
    return KAC_FAIL(KAC_E_USAGE, "%s: methods: there is no method \"%.60s\"%s%s%s", p->file.name, name,
                    nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
                    nearest == NULL ? "" : "\"?");
}

/* Sets what the objects say, those of the method first; of the common ones what this method knows. */
static kac_status set_options(kac_bench_plan *p, kac_bench_way *w, const cJSON *common, const cJSON *own) {
    KAC_TRY(kac_options_from_json(w->options, &p->file, own, NULL));
    cJSON *known = cJSON_CreateArray();
    const cJSON *v;
    cJSON_ArrayForEach(v, common) if (kac_options_has(w->options, v->string))
        cJSON_AddItemToArray(known, cJSON_CreateString(v->string));
    const kac_status s = kac_options_from_json(w->options, &p->file, common, known);
    cJSON_Delete(known);
    KAC_TRY(s);
    return kac_method_preset(w->method, w->options);
}

static kac_status fill_way(kac_bench_plan *p, kac_bench_way *w, const cJSON *common, const kac_options *o,
                           const char *weights_dir) {
    const char *model = NULL;
    KAC_TRY(kac_json_text(&p->file, p->file.root, "model", &model));
    KAC_TRY(kac_json_text(&p->file, w->entry, "model", &model));
    w->model = model == NULL ? kac_path_join(weights_dir, "shapes-64") : kac_bench_path(p, model);
    if (w->model == NULL) return KAC_E_MEMORY;
    const size_t n = strlen(w->model);
    if (n > 5 && strcmp(w->model + n - 5, ".json") == 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"model\": a bench is of pictures; %s is a mixture", p->file.name,
                        w->model);
    char where[96];
    snprintf(where, sizeof where, "methods: %s: \"options\"", w->label);
    KAC_TRY(check_options(p, at(w->entry, "options"), where));
    cJSON *own = NULL;
    kac_status s = resolve_options(&own, p, at(w->entry, "options"));
    const cJSON *lora = at(w->entry, "lora");
    if (s == KAC_OK && lora != NULL) {
        cJSON *copy = NULL, *wrapped = cJSON_CreateObject();
        cJSON_AddItemToObject(wrapped, "lora", cJSON_Duplicate(lora, true));
        s = resolve_options(&copy, p, wrapped);
        if (s == KAC_OK) s = kac_options_from_json(w->options, &p->file, copy, NULL);
        cJSON_Delete(copy), cJSON_Delete(wrapped);
    }
    if (s == KAC_OK && kac_options_int(o, "threads") > 0)
        s = kac_options_set(w->options, "threads", kac_options_as_text(o, "threads"));
    if (s == KAC_OK) s = set_options(p, w, common, own);
    cJSON_Delete(own);
    return s;
}

static kac_status read_way(kac_bench_plan *p, const cJSON *entry, const cJSON *common, const kac_options *o,
                           const char *weights_dir) {
    static const char *const keys[] = {"label", "method", "options", "model", "lora", "baseline", NULL};
    if (!cJSON_IsObject(entry))
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"methods\" must be a list of objects with \"method\"", p->file.name);
    KAC_TRY(check_keys(p, entry, "methods: ", keys));
    const char *name = NULL, *label = NULL;
    KAC_TRY(kac_json_text(&p->file, entry, "method", &name));
    if (name == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: methods: one has no \"method\"", p->file.name);
    label = name;
    KAC_TRY(kac_json_text(&p->file, entry, "label", &label));
    KAC_TRY(check_label(p, label));
    if (p->n_ways == KAC_BENCH_MAX_WAYS)
        return KAC_FAIL(KAC_E_USAGE, "%s: at most %d methods can be compared", p->file.name, (int)KAC_BENCH_MAX_WAYS);
    kac_bench_way *w = &p->ways[p->n_ways];
    *w = (kac_bench_way){.label = label, .entry = entry};
    KAC_TRY(find_method(&w->method, p, name));
    w->options = kac_options_create(kac_generate_options);
    p->n_ways++; /* from here on freed with the plan */
    if (w->options == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_options_add(w->options, w->method->options));
    KAC_TRY(kac_options_set(w->options, "steer", w->method->name));
    const kac_status s = fill_way(p, w, common, o, weights_dir);
    return s == KAC_OK || s == KAC_E_MEMORY || strstr(kac_error(), w->label) != NULL
               ? s
               : kac_fail_prefix(s, "method %s", w->label);
}

/* A common option that no method knows is a mistake. */
static kac_status check_common(const kac_bench_plan *p, const cJSON *common) {
    const cJSON *v;
    cJSON_ArrayForEach(v, common) {
        bool known = false;
        for (int i = 0; i < p->n_ways && !known; i++) known = kac_options_has(p->ways[i].options, v->string);
        if (known) continue;
        kac_options *o = kac_options_create(kac_generate_options); /* says which is nearest */
        const kac_status s = o == NULL ? KAC_E_MEMORY : kac_options_set(o, v->string, "");
        kac_options_destroy(o);
        return kac_fail_prefix(s, "%s: options", p->file.name);
    }
    return KAC_OK;
}

static kac_status check_unit(const kac_bench_plan *p) {
    for (int i = 0; i < p->n_ways; i++) {
        const kac_bench_way *w = &p->ways[i];
        if (p->unit == KAC_UNIT_SECONDS && !w->method->anytime)
            return KAC_FAIL(KAC_E_USAGE, "%s: \"unit\": %s (%s) cannot be stopped by time; \"nfe\" is for all methods",
                            p->file.name, w->label, w->method->name);
        if (p->unit == KAC_UNIT_PARTICLES && w->method->anytime)
            return KAC_FAIL(KAC_E_USAGE,
                            "%s: \"unit\": %s (%s) searches until its budget is spent, its particles are "
                            "no budget; \"nfe\" is for all methods",
                            p->file.name, w->label, w->method->name);
    }
    return KAC_OK;
}

static kac_status read_ways(kac_bench_plan *p, const kac_options *o, const char *weights_dir) {
    const cJSON *methods = at(p->file.root, "methods"), *entry;
    if (!cJSON_IsArray(methods) || methods->child == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"methods\" must be a list of objects with \"method\"", p->file.name);
    KAC_TRY(check_options(p, at(p->file.root, "options"), "\"options\""));
    cJSON *common = NULL;
    kac_status s = resolve_options(&common, p, at(p->file.root, "options"));
    for (entry = methods->child; entry != NULL && s == KAC_OK; entry = entry->next)
        s = read_way(p, entry, common, o, weights_dir);
    if (s == KAC_OK) s = check_common(p, common);
    cJSON_Delete(common);
    return s == KAC_OK ? check_unit(p) : s;
}

static kac_status choose_ways(kac_bench_plan *p, const kac_options *o) {
    const int n = kac_options_count(o, "only");
    const char *labels[KAC_BENCH_MAX_WAYS + 1];
    for (int i = 0; i < p->n_ways; i++) labels[i] = p->ways[i].label, p->chosen[i] = n == 0;
    labels[p->n_ways] = NULL;
    for (int k = 0; k < n; k++) {
        const char *wanted = kac_options_text_at(o, "only", k);
        bool found = false;
        for (int i = 0; i < p->n_ways; i++)
            if (strcmp(labels[i], wanted) == 0) p->chosen[i] = found = true;
        const char *nearest = found ? NULL : kac_nearest(wanted, labels);
        if (!found)
            return KAC_FAIL(KAC_E_USAGE, "--only: %s has no method labelled \"%.60s\"%s%s%s", p->file.name, wanted,
                            nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
                            nearest == NULL ? "" : "\"?");
    }
    return KAC_OK;
}

/* ---- budgets and seeds ---- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static kac_status read_unit(kac_bench_plan *p) {
    static const char *const names[] = {"nfe", "seconds", "particles"};
    const char *name = "nfe";
    KAC_TRY(kac_json_text(&p->file, p->file.root, "unit", &name));
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(names[i], name) == 0) {
            p->unit = (kac_bench_unit)i;
            return KAC_OK;
        }
    return KAC_FAIL(KAC_E_USAGE, "%s: \"unit\" must be \"nfe\", \"seconds\" or \"particles\", not \"%.60s\"",
                    p->file.name, name);
}

/* "25,50" */
static kac_status split_budgets(kac_bench_plan *p, const char *text) {
    for (const char *s = text;; s++) {
        char *end;
        const double v = strtod(s, &end);
        if (end == s || (*end != ',' && *end != '\0') || p->n_budgets == KAC_BENCH_BUDGETS)
            return KAC_FAIL(KAC_E_USAGE, "--budgets %.60s: up to %d numbers with commas between them are wanted", text,
                            (int)KAC_BENCH_BUDGETS);
        p->budgets[p->n_budgets++] = v;
        if (*end == '\0') return KAC_OK;
        s = end;
    }
}

static kac_status read_budgets(kac_bench_plan *p, const kac_options *o) {
    const char *given = kac_options_text(o, "budgets");
    KAC_TRY(kac_json_reals(&p->file, p->file.root, "budgets", p->budgets, KAC_BENCH_BUDGETS, &p->n_budgets));
    if (given != NULL) {
        p->n_budgets = 0;
        KAC_TRY(split_budgets(p, given));
    }
    if (p->n_budgets == 0) return KAC_FAIL(KAC_E_USAGE, "%s: \"budgets\" is missing: [25, 50, 100]", p->file.name);
    qsort(p->budgets, (size_t)p->n_budgets, sizeof *p->budgets, by_size);
    int n = 0;
    for (int i = 0; i < p->n_budgets; i++) {
        const double v = p->budgets[i];
        const bool whole = p->unit == KAC_UNIT_SECONDS || v == floor(v);
        if (!(v > 0 && v <= 1e12 && whole && (p->unit != KAC_UNIT_PARTICLES || v <= 1e6)))
            return KAC_FAIL(KAC_E_USAGE, "%s: a budget of %g %s makes no sense", p->file.name, v,
                            kac_bench_unit_name(p->unit));
        if (n == 0 || v != p->budgets[n - 1]) p->budgets[n++] = v;
    }
    p->n_budgets = n;
    return KAC_OK;
}

static kac_status read_seeds(kac_bench_plan *p, const kac_options *o) {
    p->n_seeds = 0;
    KAC_TRY(kac_json_ints(&p->file, p->file.root, "seeds", p->seeds, KAC_BENCH_SEEDS, &p->n_seeds));
    const int n = kac_options_count(o, "seeds");
    if (n > KAC_BENCH_SEEDS) return KAC_FAIL(KAC_E_USAGE, "--seeds: at most %d", (int)KAC_BENCH_SEEDS);
    if (n > 0) p->n_seeds = n;
    for (int i = 0; i < n; i++) p->seeds[i] = kac_options_int_at(o, "seeds", i);
    if (p->n_seeds == 0) p->n_seeds = 1; /* seed 0 */
    for (int i = 0; i < p->n_seeds; i++) {
        if (p->seeds[i] < 0 || p->seeds[i] > 9007199254740992)
            return KAC_FAIL(KAC_E_USAGE, "%s: seed %lld is outside of 0 … 2^53", p->file.name, (long long)p->seeds[i]);
        for (int k = 0; k < i; k++)
            if (p->seeds[k] == p->seeds[i])
                return KAC_FAIL(KAC_E_USAGE, "%s: seed %lld stands twice in \"seeds\"", p->file.name,
                                (long long)p->seeds[i]);
    }
    return KAC_OK;
}

/* ---- all ---- */

static kac_status open_file(kac_bench_plan *p, const char *path) {
    static const char *const keys[] = {"title", "model",   "options", "rewards", "judges", "prompts", "categories",
                                       "limit", "budgets", "unit",    "seeds",   "batch",  "methods", NULL};
    KAC_TRY(kac_json_load(&p->file, path));
    const char *base = kac_path_base(path);
    p->folder = kac_format("%.*s", base > path + 1 ? (int)(base - path - 1) : (int)(base - path), path);
    if (p->folder == NULL) return KAC_E_MEMORY;
    const char *title = NULL;
    KAC_TRY(kac_json_text(&p->file, p->file.root, "title", &title));
    return check_keys(p, p->file.root, "", keys);
}

static kac_status read_batch(kac_bench_plan *p, const kac_options *o) {
    int64_t batch = 8;
    KAC_TRY(kac_json_int(&p->file, p->file.root, "batch", &batch));
    if (kac_options_given(o, "batch")) batch = kac_options_int(o, "batch");
    if (batch < 1 || batch > 1000)
        return KAC_FAIL(KAC_E_USAGE, "%s: \"batch\" must be between 1 and 1000", p->file.name);
    p->batch = (int)batch;
    return KAC_OK;
}

kac_status kac_bench_plan_read(kac_bench_plan *p, const char *path, const kac_options *o, const char *weights_dir) {
    *p = (kac_bench_plan){0};
    KAC_TRY(open_file(p, path));
    KAC_TRY(read_unit(p));
    KAC_TRY(read_budgets(p, o));
    KAC_TRY(read_seeds(p, o));
    KAC_TRY(read_batch(p, o));
    KAC_TRY(read_rewards(p, weights_dir));
    KAC_TRY(read_ways(p, o, weights_dir));
    KAC_TRY(choose_ways(p, o));
    return kac_bench_prompts_read(p, o);
}

void kac_bench_plan_free(kac_bench_plan *p) {
    for (int i = 0; i < p->n_ways; i++) kac_options_destroy(p->ways[i].options), kac_free(p->ways[i].model);
    for (int i = 0; i < p->n_rewards; i++) kac_free(p->rewards[i]);
    for (int i = 0; i < p->n_judges; i++) kac_free(p->judges[i]);
    kac_prompt_list_free(&p->prompts);
    kac_free(p->folder);
    kac_json_free(&p->file);
    *p = (kac_bench_plan){0};
}

const char *kac_bench_unit_name(kac_bench_unit unit) {
    return unit == KAC_UNIT_NFE ? "nfe" : unit == KAC_UNIT_SECONDS ? "seconds" : "particles";
}
