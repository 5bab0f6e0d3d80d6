#include "run/bench_store.h"
#include "run/run_record.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LINE_BYTES = 1 << 20, FOLDER_BYTE = 0 };

static const cJSON *at(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* ---- locks ---- */

/* POSIX locks belong to the process and end with it, or when it closes the file. */
static bool lock(const kac_bench_store *s, int64_t byte, short type, bool wait) {
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(s->claims_fd, wait ? F_SETLKW : F_SETLK, &l) == 0;
}

/* A cell's byte: by what it is, not by where it stands in this process's plan. */
static int64_t byte_of(const kac_bench_store *s, kac_bench_place at) {
    char text[160], hex[65];
    snprintf(text, sizeof text, "%s %.17g %lld %d", s->plan->ways[at.way].label, s->plan->budgets[at.budget],
             (long long)s->plan->seeds[at.seed], at.prompt);
    kac_sha256(hex, text, strlen(text));
    int64_t byte = 0;
    for (int i = 0; i < 15; i++) byte = 16 * byte + (hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10);
    return byte + 1 + FOLDER_BYTE;
}

/* ---- bench.json ---- */

/* Of the options that were given, those that make a cell what it is. */
static bool is_kept(const kac_bench_plan *p, const char *name) {
    static const char *const own[] = {"threads", "seed", "steer", "memory-limit", "batch-size"};
    for (int i = 0; i < KAC_COUNT_OF(own); i++)
        if (strcmp(own[i], name) == 0) return false;
    return p->unit != KAC_UNIT_PARTICLES || strcmp(name, "particles") != 0;
}

static void add_methods(cJSON *d, const kac_bench_plan *p) {
    cJSON *methods = cJSON_AddArrayToObject(d, "methods");
    for (int i = 0; i < p->n_ways; i++) {
        const kac_bench_way *w = &p->ways[i];
        cJSON *m = cJSON_CreateObject(), *given = cJSON_CreateArray();
        cJSON_AddStringToObject(m, "label", w->label);
        cJSON_AddStringToObject(m, "method", w->method->name);
        cJSON_AddStringToObject(m, "target", kac_target_text(w->method->target));
        if (cJSON_IsTrue(at(w->entry, "baseline"))) cJSON_AddTrueToObject(m, "baseline");
        if (at(w->entry, "model") != NULL) cJSON_AddStringToObject(m, "model", w->model);
        cJSON *options = kac_run_options(w->options, given), *kept = cJSON_CreateObject();
        const cJSON *name;
        cJSON_ArrayForEach(name, given) {
            const cJSON *v = at(options, name->valuestring);
            if (v != NULL && is_kept(p, name->valuestring))
                cJSON_AddItemToObject(kept, name->valuestring, cJSON_Duplicate(v, true));
        }
        cJSON_AddItemToObject(m, "options", kept);
        cJSON_Delete(options), cJSON_Delete(given);
        cJSON_AddItemToArray(methods, m);
    }
}

static void add_prompts(cJSON *d, const kac_bench_plan *p) {
    cJSON *prompts = cJSON_AddArrayToObject(d, "prompts");
    for (int i = 0; i < p->n_prompts; i++) {
        cJSON *prompt = cJSON_CreateObject();
        cJSON_AddStringToObject(prompt, "text", p->unconditional ? "" : p->prompts.items[i]);
        if (!p->unconditional && p->prompts.categories[i] != NULL)
            cJSON_AddStringToObject(prompt, "category", p->prompts.categories[i]);
        if (!p->unconditional) cJSON_AddStringToObject(prompt, "id", p->prompts.ids[i]);
        cJSON_AddItemToArray(prompts, prompt);
    }
}

/* As the description has them: a folder of results can be gone on with on another machine. */
static void add_specs(cJSON *d, const kac_bench_plan *p, const char *key, const char *missing) {
    const cJSON *list = at(p->file.root, key);
    const bool given = list != NULL && (list->child != NULL || cJSON_IsString(list));
    cJSON *copy = given ? cJSON_Duplicate(list, true) : cJSON_CreateArray();
    if (!given && missing != NULL) cJSON_AddItemToArray(copy, cJSON_CreateString(missing));
    cJSON_AddItemToObject(d, key, copy);
}

cJSON *kac_bench_document(const kac_bench_plan *p, const cJSON *facts) {
    cJSON *d = cJSON_CreateObject();
    cJSON_AddNumberToObject(d, "kac_bench", 1);
    for (const cJSON *v = facts == NULL ? NULL : facts->child; v != NULL; v = v->next)
        cJSON_AddItemToObject(d, v->string, cJSON_Duplicate(v, true));
    cJSON_AddItemToObject(d, "description", cJSON_Duplicate(p->file.root, true));
    add_methods(d, p);
    cJSON *budgets = cJSON_AddArrayToObject(d, "budgets"), *seeds = cJSON_AddArrayToObject(d, "seeds");
    for (int i = 0; i < p->n_budgets; i++) cJSON_AddItemToArray(budgets, cJSON_CreateNumber(p->budgets[i]));
    for (int i = 0; i < p->n_seeds; i++) cJSON_AddItemToArray(seeds, cJSON_CreateNumber((double)p->seeds[i]));
    cJSON_AddStringToObject(d, "budget_unit", kac_bench_unit_name(p->unit));
    add_prompts(d, p);
    add_specs(d, p, "rewards", "clip");
    add_specs(d, p, "judges", NULL);
    return d;
}

static kac_status differs(const kac_bench_store *s, const char *what) {
    return KAC_FAIL(KAC_E_USAGE, "the bench in %s was started with %s; give another --output", s->path, what);
}

/* The files of a model: their checksums as far as they were made. */
static bool same_model(const cJSON *a, const cJSON *b) {
    const cJSON *x = at(a, "files"), *y = at(b, "files");
    return x == NULL || y == NULL || cJSON_Compare(x, y, true);
}

static kac_status check_methods(const kac_bench_store *s, const cJSON *then, const cJSON *now) {
    const cJSON *m, *old;
    cJSON_ArrayForEach(m, at(now, "methods")) cJSON_ArrayForEach(old, at(then, "methods")) {
        const char *label = cJSON_GetStringValue(at(m, "label")), *old_label = cJSON_GetStringValue(at(old, "label"));
        if (label == NULL || old_label == NULL || strcmp(label, old_label) != 0) continue;
        if (cJSON_Compare(m, old, true)) continue;
        char what[128];
        snprintf(what, sizeof what, "another method or other options labelled \"%.60s\"", label);
        return differs(s, what);
    }
    return KAC_OK;
}

static kac_status check_prompts(const kac_bench_store *s, const cJSON *then, const cJSON *now) {
    const cJSON *list = at(then, "prompts"), *a = at(now, "prompts")->child, *b = list == NULL ? NULL : list->child;
    for (int i = 1; a != NULL && b != NULL; a = a->next, b = b->next, i++) {
        const char *x = cJSON_GetStringValue(at(a, "text")), *y = cJSON_GetStringValue(at(b, "text"));
        if (x != NULL && y != NULL && strcmp(x, y) == 0) continue;
        char what[64];
        snprintf(what, sizeof what, "other prompts (prompt %d)", i);
        return differs(s, what);
    }
    return KAC_OK;
}

static kac_status check_same(const kac_bench_store *s, const cJSON *then, const cJSON *now) {
    static const char *const keys[][2] = {
        {"rewards", "other \"rewards\""}, {"judges", "other \"judges\""}, {"budget_unit", "another \"unit\""}};
    for (int i = 0; i < KAC_COUNT_OF(keys); i++)
        if (!cJSON_Compare(at(then, keys[i][0]), at(now, keys[i][0]), true)) return differs(s, keys[i][1]);
    KAC_TRY(check_methods(s, then, now));
    KAC_TRY(check_prompts(s, then, now));
    const cJSON *m = at(at(now, "model"), "path"), *old = at(at(then, "model"), "path");
    if (cJSON_IsString(m) && cJSON_IsString(old) &&
        strcmp(kac_path_base(m->valuestring), kac_path_base(old->valuestring)) != 0)
        return differs(s, "another \"model\"");
    return same_model(at(then, "model"), at(now, "model")) ? KAC_OK : differs(s, "other weights of the model");
}

static bool has_number(const cJSON *list, double v) {
    const cJSON *entry;
    cJSON_ArrayForEach(entry, list) if (cJSON_IsNumber(entry) && entry->valuedouble == v) return true;
    return false;
}

/* What the bench has grown by: numbers and methods of either, the longer list of prompts. */
static void merge(cJSON *now, const cJSON *then) {
    static const char *const lists[] = {"budgets", "seeds"};
    for (int k = 0; k < KAC_COUNT_OF(lists); k++) {
        cJSON *list = cJSON_GetObjectItemCaseSensitive(now, lists[k]), *place;
        const cJSON *old;
        cJSON_ArrayForEach(old, at(then, lists[k])) {
            if (!cJSON_IsNumber(old) || has_number(list, old->valuedouble)) continue;
            int i = 0;
            cJSON_ArrayForEach(place, list) {
                if (place->valuedouble > old->valuedouble) break;
                i++;
            }
            cJSON_InsertItemInArray(list, i, cJSON_CreateNumber(old->valuedouble));
        }
    }
    cJSON *methods = cJSON_GetObjectItemCaseSensitive(now, "methods");
    const cJSON *old, *m;
    cJSON_ArrayForEach(old, at(then, "methods")) {
        bool there = false;
        cJSON_ArrayForEach(m, methods) there |= cJSON_Compare(at(m, "label"), at(old, "label"), true);
        if (!there) cJSON_AddItemToArray(methods, cJSON_Duplicate(old, true));
    }
    if (cJSON_GetArraySize(at(then, "prompts")) > cJSON_GetArraySize(at(now, "prompts")))
        cJSON_ReplaceItemInObjectCaseSensitive(now, "prompts", cJSON_Duplicate(at(then, "prompts"), true));
}

static kac_status start(const cJSON *now, const char *path) {
    char *text = cJSON_Print(now);
    const kac_status status = text == NULL ? KAC_FAIL(KAC_E_MEMORY, "out of memory while writing %s", path)
                                           : kac_file_write(path, text, strlen(text));
    cJSON_free(text);
    return status;
}

static kac_status join(kac_bench_store *s, cJSON *now, const char *path) {
    kac_json then;
    KAC_TRY(kac_json_load(&then, path));
    kac_status status = check_same(s, then.root, now);
    if (status == KAC_OK) merge(now, then.root);
    const bool same = status == KAC_OK && cJSON_Compare(now, then.root, true);
    kac_json_free(&then);
    if (status != KAC_OK || same) return status;
    return start(now, path);
}

/* ---- opening ---- */

static kac_status open_log(int *fd, const char *folder, const char *name) {
    char *path = kac_path_join(folder, name);
    if (path == NULL) return KAC_E_MEMORY;
    *fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    const kac_status s = *fd < 0 ? KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(errno)) : KAC_OK;
    kac_free(path);
    return s;
}

/* One process at a time decides what bench.json says. */
static kac_status settle(kac_bench_store *s, cJSON *now) {
    char *path = kac_path_join(s->path, "bench.json");
    kac_status status = path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (status == KAC_OK && !lock(s, FOLDER_BYTE, F_WRLCK, true))
        status = KAC_FAIL(KAC_E_IO, "cannot lock %s/claims: %s", s->path, strerror(errno));
    if (status == KAC_OK) status = kac_file_exists(path) ? join(s, now, path) : start(now, path);
    lock(s, FOLDER_BYTE, F_UNLCK, false);
    kac_free(path);
    return status;
}

kac_status kac_bench_store_open(kac_bench_store *s, const char *folder, const kac_bench_plan *p, cJSON *facts) {
    *s = (kac_bench_store){.plan = p, .path = kac_strdup(folder), .results_fd = -1, .claims_fd = -1};
    s->n_cells = (int64_t)p->n_ways * p->n_budgets * p->n_seeds * p->n_prompts;
    cJSON *now = kac_bench_document(p, facts);
    cJSON_Delete(facts);
    kac_status status = s->path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (status == KAC_OK && s->n_cells > 100000000)
        status = KAC_FAIL(KAC_E_USAGE, "%lld cells are too many", (long long)s->n_cells);
    char *run = kac_path_join(folder, "run.json");
    if (status == KAC_OK && (run == NULL || kac_file_exists(run)))
        status = KAC_FAIL(KAC_E_USAGE, "%s holds a run of another command; give another --output", folder);
    kac_free(run);
    if (status == KAC_OK) status = kac_dir_make(folder);
    if (status == KAC_OK) status = open_log(&s->claims_fd, folder, "claims");
    if (status == KAC_OK) status = settle(s, now);
    if (status == KAC_OK) status = open_log(&s->results_fd, folder, "results.jsonl");
    cJSON_Delete(now);
    if (status == KAC_OK) {
        s->done = kac_alloc((size_t)s->n_cells);
        status = s->done == NULL ? KAC_E_MEMORY : kac_bench_store_refresh(s);
    }
    if (status != KAC_OK) kac_bench_store_close(s);
    return status;
}

void kac_bench_store_close(kac_bench_store *s) {
    if (s->results_fd >= 0) close(s->results_fd);
    if (s->claims_fd >= 0) close(s->claims_fd);
    kac_free(s->done), kac_free(s->path);
    *s = (kac_bench_store){.results_fd = -1, .claims_fd = -1};
}

/* ---- results ---- */

static size_t index_of(const kac_bench_store *s, kac_bench_place at) {
    const kac_bench_plan *p = s->plan;
    return (((size_t)at.way * (size_t)p->n_budgets + (size_t)at.budget) * (size_t)p->n_seeds + (size_t)at.seed) *
               (size_t)p->n_prompts +
           (size_t)at.prompt;
}

bool kac_bench_store_is_done(const kac_bench_store *s, kac_bench_place at) {
    return s->done[index_of(s, at)] != 0;
}

static double number(const cJSON *line, const char *key) {
    const cJSON *v = at(line, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* The place that a line speaks of; false: none of this plan. */
static bool place_of(kac_bench_place *out, const kac_bench_plan *p, const cJSON *line) {
    const char *label = cJSON_GetStringValue(at(line, "method"));
    const double budget = number(line, "budget"), seed = number(line, "seed"), prompt = number(line, "prompt");
    *out = (kac_bench_place){-1, -1, -1, -1};
    for (int i = 0; i < p->n_ways && label != NULL; i++)
        if (strcmp(p->ways[i].label, label) == 0) out->way = i;
    for (int i = 0; i < p->n_budgets; i++)
        if (fabs(p->budgets[i] - budget) <= 1e-9 * p->budgets[i]) out->budget = i;
    for (int i = 0; i < p->n_seeds; i++)
        if ((double)p->seeds[i] == seed) out->seed = i;
    if (prompt >= 0 && prompt < p->n_prompts && prompt == floor(prompt)) out->prompt = (int)prompt;
    return out->way >= 0 && out->budget >= 0 && out->seed >= 0 && out->prompt >= 0;
}

/* A line that makes no sense, or tells of an error, leaves its cell to be done. */
static void take_line(kac_bench_store *s, const char *text, size_t n) {
    kac_bench_place place;
    cJSON *line = n <= MAX_LINE_BYTES ? cJSON_ParseWithLength(text, n) : NULL;
    if (cJSON_IsObject(line) && cJSON_IsNumber(at(line, "reward")) && place_of(&place, s->plan, line)) {
        uint8_t *done = &s->done[index_of(s, place)];
        if (*done == 0) s->n_done++;
        *done = 1;
        const double seconds = number(line, "seconds"), flops = number(line, "flops");
        if (seconds > 0 && flops > 0) s->known_seconds += seconds, s->known_flops += flops;
    }
    cJSON_Delete(line);
}

kac_status kac_bench_store_refresh(kac_bench_store *s) {
    const off_t end = lseek(s->results_fd, 0, SEEK_END);
    if (end < 0) return KAC_FAIL(KAC_E_IO, "cannot read %s/results.jsonl: %s", s->path, strerror(errno));
    const size_t n = end > s->n_read ? (size_t)(end - s->n_read) : 0;
    char *text = kac_alloc(n + 1);
    if (text == NULL) return KAC_E_MEMORY;
    size_t have = 0;
    while (have < n) {
        const ssize_t got = pread(s->results_fd, text + have, n - have, (off_t)(s->n_read + (int64_t)have));
        if (got <= 0) break;
        have += (size_t)got;
    }
    for (const char *line = text, *stop; (stop = memchr(line, '\n', (size_t)(text + have - line))) != NULL;
         line = stop + 1) {
        take_line(s, line, (size_t)(stop - line));
        s->n_read += stop + 1 - line;
    }
    kac_free(text);
    return KAC_OK;
}

kac_status kac_bench_store_claim(kac_bench_store *s, kac_bench_place *places, int *n) {
    int n_kept = 0;
    for (int i = 0; i < *n; i++)
        if (!kac_bench_store_is_done(s, places[i]) && lock(s, byte_of(s, places[i]), F_WRLCK, false))
            places[n_kept++] = places[i];
    *n = n_kept;
    if (n_kept == 0) return KAC_OK;
    KAC_TRY(kac_bench_store_refresh(s)); /* another process may have finished them just before */
    n_kept = 0;
    for (int i = 0; i < *n; i++) {
        if (kac_bench_store_is_done(s, places[i]))
            lock(s, byte_of(s, places[i]), F_UNLCK, false);
        else
            places[n_kept++] = places[i];
    }
    *n = n_kept;
    return KAC_OK;
}

void kac_bench_store_release(kac_bench_store *s, const kac_bench_place *places, int n) {
    for (int i = 0; i < n; i++) lock(s, byte_of(s, places[i]), F_UNLCK, false);
}

/* A line that a kill has cut is ended first, unless another process writes it right now: then the empty line does no harm. */
kac_status kac_bench_store_add(kac_bench_store *s, const char *lines) {
    char last = '\n';
    const off_t end = lseek(s->results_fd, 0, SEEK_END);
    if (end > 0 && pread(s->results_fd, &last, 1, end - 1) != 1) last = '\n';
    char *text = kac_format("%s%s", last == '\n' ? "" : "\n", lines);
    if (text == NULL) return KAC_E_MEMORY;
    const size_t n = strlen(text);
    const ssize_t put = write(s->results_fd, text, n);
    kac_status status = KAC_OK;
    if (put != (ssize_t)n || fsync(s->results_fd) != 0)
        status = KAC_FAIL(KAC_E_IO, "cannot write %s/results.jsonl: %s", s->path,
                          strerror(put >= 0 && put != (ssize_t)n ? ENOSPC : errno));
    kac_free(text);
    return status == KAC_OK ? kac_bench_store_refresh(s) : status;
}
