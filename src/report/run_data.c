#include "run_data.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTICLES = 1 << 20, MAX_STEP = 1 << 24, MAX_FILE_BYTES = 1 << 30 };

const cJSON *kac_run_at(const cJSON *object, const char *key) {
    return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
}

const char *kac_run_text(const cJSON *object, const char *key, const char *or_else) {
    const cJSON *v = kac_run_at(object, key);
    return cJSON_IsString(v) ? v->valuestring : or_else;
}

double kac_run_number(const cJSON *object, const char *key) {
    const cJSON *v = kac_run_at(object, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* A whole number from lo to hi, or `or_else`. */
static int whole(const cJSON *object, const char *key, int lo, int hi, int or_else) {
    const double v = kac_run_number(object, key);
    return v >= lo && v <= hi && v == floor(v) ? (int)v : or_else;
}

const char *kac_run_inner_path(const cJSON *object, const char *key) {
    const char *s = kac_run_text(object, key, NULL);
    if (s == NULL || s[0] == '\0' || s[0] == '/' || strchr(s, '\\') != NULL || strlen(s) > 1000) return NULL;
    for (const char *p = s; p != NULL; p = strchr(p, '/')) {
        if (*p == '/') p++;
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0')) return NULL;
    }
    return s;
}

/* One cJSON value a line; a line that is cut or is no object is counted and left out. */
kac_status kac_run_lines(cJSON **out, int *n_bad, const char *path) {
    char *text;
    size_t n;
    KAC_TRY(kac_file_read(&text, &n, path, MAX_FILE_BYTES));
    *out = cJSON_CreateArray();
    for (char *line = text; line < text + n;) {
        char *end = memchr(line, '\n', (size_t)(text + n - line));
        const bool whole_line = end != NULL;
        if (!whole_line) end = text + n;
        cJSON *v = end > line ? cJSON_ParseWithLength(line, (size_t)(end - line)) : NULL;
        if (cJSON_IsObject(v)) {
            cJSON_AddItemToArray(*out, v);
        } else {
            cJSON_Delete(v);
            *n_bad += end > line;
        }
        line = end + 1;
    }
    kac_free(text);
    return KAC_OK;
}

static bool ints_of(int *out, const cJSON *list, int n, int limit) {
    int i = 0;
    const cJSON *v;
    if (!cJSON_IsArray(list)) return false;
    cJSON_ArrayForEach(v, list) {
        if (i >= n || !cJSON_IsNumber(v) || !(v->valuedouble >= 0) || !(v->valuedouble < limit)) return false;
        out[i++] = (int)v->valuedouble;
    }
    return i == n;
}

static bool reals_of(double *out, const cJSON *list, int n) {
    int i = 0;
    const cJSON *v;
    if (!cJSON_IsArray(list)) return false;
    cJSON_ArrayForEach(v, list) {
        if (i >= n) return false;
        out[i++] = cJSON_IsNumber(v) ? v->valuedouble : NAN;
    }
    return i == n;
}

/* Fills one step from its line; *ok says whether it makes sense. */
static kac_status read_step(kac_run_step *s, const cJSON *line, bool *ok) {
    *s = (kac_run_step){.i_step = whole(line, "i_step", 0, MAX_STEP, -1),
                        .group = whole(line, "group", 0, MAX_PARTICLES, 0)};
    const cJSON *weights = kac_run_at(line, "log_weights");
    s->n = cJSON_IsArray(weights) ? cJSON_GetArraySize(weights) : 0;
    *ok = s->i_step >= 0 && s->n > 0 && s->n <= MAX_PARTICLES;
    if (!*ok) return KAC_OK;
    const size_t n = (size_t)s->n;
    s->ancestors = kac_alloc(n * sizeof *s->ancestors);
    s->eves = kac_alloc(n * sizeof *s->eves);
    s->log_weights = kac_alloc(n * sizeof *s->log_weights);
    s->rewards = kac_alloc(n * sizeof *s->rewards);
    if (s->ancestors == NULL || s->eves == NULL || s->log_weights == NULL || s->rewards == NULL) return KAC_E_MEMORY;
    s->resampled = cJSON_IsTrue(kac_run_at(line, "resampled"));
    s->ess = kac_run_number(line, "ess");
    s->log_z = kac_run_number(line, "log_z");
    if (!ints_of(s->ancestors, kac_run_at(line, "ancestors"), s->n, s->n)) {
        for (int i = 0; i < s->n; i++) s->ancestors[i] = i;
        s->resampled = false;
    }
    if (!ints_of(s->eves, kac_run_at(line, "eves"), s->n, MAX_PARTICLES))
        for (int i = 0; i < s->n; i++) s->eves[i] = i;
    *ok = reals_of(s->log_weights, weights, s->n);
    if (!reals_of(s->rewards, kac_run_at(line, "rewards"), s->n)) {
        kac_free(s->rewards);
        s->rewards = NULL;
    }
    return KAC_OK;
}

static void free_step(kac_run_step *s) {
    kac_free(s->ancestors);
    kac_free(s->eves);
    kac_free(s->log_weights);
    kac_free(s->rewards);
}

static kac_run_picture *find_picture(kac_run_picture *list, int n, const kac_run_picture *like) {
    for (int i = n - 1; i >= 0; i--)
        if (list[i].group == like->group && list[i].particle == like->particle && list[i].i_step == like->i_step)
            return &list[i];
    return NULL;
}

static int compare_steps(const void *a, const void *b) {
    const kac_run_step *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->i_step != y->i_step) return x->i_step < y->i_step ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

static int compare_pictures(const void *a, const void *b) {
    const kac_run_picture *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->i_step != y->i_step) return x->i_step < y->i_step ? -1 : 1;
    if (x->rank != y->rank) return x->rank < y->rank ? -1 : 1;
    return (x->particle > y->particle) - (x->particle < y->particle);
}

/* A later "start" at step i makes what was written of steps ≥ i before it void: drop those. */
static void restart(kac_run_data *d, int i_step) {
    int n = 0;
    for (int i = 0; i < d->n_step_events; i++) {
        if (d->steps[i].i_step < i_step)
            d->steps[n++] = d->steps[i];
        else
            free_step(&d->steps[i]);
    }
    d->n_step_events = n;
    n = 0;
    for (int i = 0; i < d->n_previews; i++)
        if (d->previews[i].i_step < i_step) d->previews[n++] = d->previews[i];
    d->n_previews = n;
}

static void take_picture(kac_run_data *d, const cJSON *line, bool final) {
    kac_run_picture p = {.group = whole(line, "group", 0, MAX_PARTICLES, 0),
                         .particle = whole(line, "particle", 0, MAX_PARTICLES, -1),
                         .i_step = final ? -1 : whole(line, "i_step", 0, MAX_STEP, -1),
                         .rank = MAX_PARTICLES,
                         .eve = -1,
                         .reward = NAN,
                         .log_weight = NAN,
                         .weight = NAN,
                         .file = kac_run_inner_path(line, "file")};
    if (p.file == NULL || p.particle < 0 || (!final && p.i_step < 0)) return;
    if (final) {
        if (find_picture(d->finals, d->n_finals, &p) == NULL) d->finals[d->n_finals++] = p;
    } else {
        d->previews[d->n_previews++] = p;
    }
}

static kac_status take_events(kac_run_data *d, int n_lines) {
    const cJSON *line;
    cJSON_ArrayForEach(line, d->events) {
        const char *kind = kac_run_text(line, "event", "");
        if (strcmp(kind, "start") == 0) {
            restart(d, whole(line, "i_step", 0, MAX_STEP, 0));
        } else if (strcmp(kind, "preview") == 0 || strcmp(kind, "image") == 0) {
            take_picture(d, line, kind[0] == 'i');
        } else if (strcmp(kind, "step") == 0 && d->n_step_events < n_lines) {
            bool ok;
            kac_run_step *s = &d->steps[d->n_step_events];
            const kac_status status = read_step(s, line, &ok);
            s->line = d->n_step_events;
            if (status != KAC_OK || !ok) free_step(s);
            KAC_TRY(status);
            d->n_step_events += ok;
        }
    }
    return KAC_OK;
}

/* The final pictures as run.json lists them; those known from events only stay after them. */
static void take_images(kac_run_data *d, const cJSON *images) {
    const int n_events = d->n_finals;
    const cJSON *v;
    cJSON_ArrayForEach(v, images) {
        kac_run_picture p = {.i_step = -1,
                             .group = whole(v, "group", 0, MAX_PARTICLES, 0),
                             .particle = whole(v, "particle", 0, MAX_PARTICLES, -1),
                             .rank = whole(v, "rank", 0, MAX_PARTICLES, MAX_PARTICLES),
                             .eve = whole(v, "eve", 0, MAX_PARTICLES, -1),
                             .reward = kac_run_number(v, "reward"),
                             .log_weight = kac_run_number(v, "log_weight"),
                             .weight = kac_run_number(v, "weight"),
                             .file = kac_run_inner_path(v, "file"),
                             .entry = v};
        if (p.file == NULL || p.particle < 0) continue;
        kac_run_picture *known = find_picture(d->finals, n_events, &p);
        if (known != NULL)
            *known = p;
        else
            d->finals[d->n_finals++] = p;
    }
}

static void count_groups(kac_run_data *d) {
    const cJSON *groups = kac_run_at(d->run.root, "groups");
    d->n_groups = cJSON_IsArray(groups) ? KAC_MIN(cJSON_GetArraySize(groups), MAX_PARTICLES) : 0;
    d->n_steps = whole(d->run.root, "n_steps", 0, MAX_STEP, 0);
    int last = -1;
    for (int i = 0; i < d->n_step_events; i++) {
        last = KAC_MAX(last, d->steps[i].group);
        d->n_steps = KAC_MAX(d->n_steps, d->steps[i].i_step);
    }
    for (int i = 0; i < d->n_finals; i++) last = KAC_MAX(last, d->finals[i].group);
    for (int i = 0; i < d->n_previews; i++) last = KAC_MAX(last, d->previews[i].group);
    d->n_groups = KAC_MAX(d->n_groups, KAC_MIN(last + 1, 10000));
}

static void sort_and_unique(kac_run_data *d) {
    if (d->n_step_events > 0) qsort(d->steps, (size_t)d->n_step_events, sizeof *d->steps, compare_steps);
    int n = 0;
    for (int i = 0; i < d->n_step_events; i++) {
        const bool replaced = i + 1 < d->n_step_events && d->steps[i].group == d->steps[i + 1].group &&
                              d->steps[i].i_step == d->steps[i + 1].i_step;
        if (replaced)
            free_step(&d->steps[i]);
        else
            d->steps[n++] = d->steps[i];
    }
    d->n_step_events = n;
    if (d->n_finals > 0) qsort(d->finals, (size_t)d->n_finals, sizeof *d->finals, compare_pictures);
    if (d->n_previews > 0) qsort(d->previews, (size_t)d->n_previews, sizeof *d->previews, compare_pictures);
}

/* Everything from the two files as they were parsed. */
static kac_status take_all(kac_run_data *d) {
    const cJSON *images = kac_run_at(d->run.root, "images");
    const int n_lines = d->events == NULL ? 0 : cJSON_GetArraySize(d->events);
    const int n_images = cJSON_IsArray(images) ? cJSON_GetArraySize(images) : 0;
    d->steps = kac_alloc((size_t)(n_lines + 1) * sizeof *d->steps);
    d->previews = kac_alloc((size_t)(n_lines + 1) * sizeof *d->previews);
    d->finals = kac_alloc((size_t)(n_lines + n_images + 1) * sizeof *d->finals);
    if (d->steps == NULL || d->previews == NULL || d->finals == NULL) return KAC_E_MEMORY;
    KAC_TRY(take_events(d, n_lines));
    take_images(d, images);
    sort_and_unique(d);
    count_groups(d);
    return KAC_OK;
}

kac_status kac_run_data_load(kac_run_data *d, const char *folder) {
    *d = (kac_run_data){.folder = kac_strdup(folder)};
    char *run_path = kac_path_join(folder, "run.json"), *events_path = kac_path_join(folder, "events.jsonl");
    kac_status s = d->folder == NULL || run_path == NULL || events_path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && !kac_file_exists(run_path) && !kac_file_exists(events_path))
        s = KAC_FAIL(KAC_E_IO, "%s is no run folder: it holds neither run.json nor events.jsonl", folder);
    if (s == KAC_OK && kac_file_exists(run_path)) {
        s = kac_json_load(&d->run, run_path);
        if (s == KAC_E_FORMAT) s = KAC_OK; /* half-written: shown as missing */
    }
    if (s == KAC_OK && kac_file_exists(events_path)) s = kac_run_lines(&d->events, &d->n_bad_lines, events_path);
    kac_free(run_path);
    kac_free(events_path);
    KAC_TRY(s);
    return take_all(d);
}

kac_status kac_run_data_load_events(kac_run_data *d, const char *path) {
    *d = (kac_run_data){0};
    KAC_TRY(kac_run_lines(&d->events, &d->n_bad_lines, path));
    return take_all(d);
}

void kac_run_data_free(kac_run_data *d) {
    for (int i = 0; i < d->n_step_events; i++) free_step(&d->steps[i]);
    kac_free(d->steps);
    kac_free(d->previews);
    kac_free(d->finals);
    cJSON_Delete(d->events);
    kac_json_free(&d->run);
    kac_free(d->folder);
    *d = (kac_run_data){0};
}
