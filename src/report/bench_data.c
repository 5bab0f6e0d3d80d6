#include "bench_data.h"
#include "run_data.h"
#include <math.h>
#include <string.h>

enum {
    MAX_PROMPTS = 1 << 16,
    MAX_SEEDS = 1 << 16,
    MAX_CELLS = 1 << 24,
    MAX_FILE_BYTES = 1 << 30,
    MAX_LINE_BYTES = 1 << 20,
    MAX_CURVE_POINTS = 1024
};

/* ---- bench.json ---- */

static int find_method(const kac_bench_data *d, const char *label) {
    for (int i = 0; label != NULL && i < d->n_methods; i++)
        if (strcmp(d->methods[i].label, label) == 0) return i;
    return -1;
}

static int size_of(const cJSON *list) {
    return cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
}

/* The list under `key`, with 1 … max entries. */
static kac_status list_of(const cJSON **out, int *n, const kac_bench_data *d, const char *key, int max) {
    *out = kac_run_at(d->file.root, key);
    *n = size_of(*out);
    if (*n < 1) return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must be a list with at least one entry", d->file.name, key);
    if (*n > max)
        return KAC_FAIL(KAC_E_SHAPE, "%s: \"%s\" has %d entries, at most %d are read", d->file.name, key, *n, max);
    return KAC_OK;
}

static kac_status read_methods(kac_bench_data *d) {
    const cJSON *list, *v;
    int i = 0, n_baselines = 0;
    KAC_TRY(list_of(&list, &d->n_methods, d, "methods", KAC_BENCH_MAX_METHODS));
    d->methods = kac_alloc((size_t)d->n_methods * sizeof *d->methods);
    if (d->methods == NULL) return KAC_E_MEMORY;
    cJSON_ArrayForEach(v, list) {
        kac_bench_method *m = &d->methods[i++];
        *m = (kac_bench_method){.method = kac_run_text(v, "method", ""),
                                .target = kac_run_text(v, "target", ""),
                                .options = kac_run_at(v, "options"),
                                .baseline = cJSON_IsTrue(kac_run_at(v, "baseline"))};
        m->label = kac_run_text(v, "label", m->method);
        n_baselines += m->baseline;
        for (int k = 0; k < i - 1; k++)
            if (strcmp(d->methods[k].label, m->label) == 0)
                return KAC_FAIL(KAC_E_FORMAT, "%s: two methods have the label \"%s\"", d->file.name, m->label);
    }
    for (i = 0; i < d->n_methods && n_baselines == 0; i++)
        d->methods[i].baseline =
            strcmp(d->methods[i].method, "best-of-n") == 0 || strcmp(d->methods[i].method, "none") == 0;
    return KAC_OK;
}

static kac_status read_numbers(double **out, int *n, const kac_bench_data *d, const char *key, int max) {
    const cJSON *list, *v;
    int i = 0;
    KAC_TRY(list_of(&list, n, d, key, max));
    *out = kac_alloc((size_t)*n * sizeof **out);
    if (*out == NULL) return KAC_E_MEMORY;
    cJSON_ArrayForEach(v, list) {
        if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
            return KAC_FAIL(KAC_E_FORMAT, "%s: entry %d of \"%s\" must be a number", d->file.name, i, key);
        (*out)[i++] = v->valuedouble;
    }
    return KAC_OK;
}

static int category_of(kac_bench_data *d, const char *name) {
    if (name == NULL || name[0] == '\0') return -1;
    for (int i = 0; i < d->n_categories; i++)
        if (strcmp(d->categories[i], name) == 0) return i;
    if (d->n_categories == KAC_BENCH_MAX_CATEGORIES) return -1;
    d->categories[d->n_categories] = name;
    return d->n_categories++;
}

static kac_status read_prompts(kac_bench_data *d) {
    const cJSON *list, *v;
    int i = 0;
    KAC_TRY(list_of(&list, &d->n_prompts, d, "prompts", MAX_PROMPTS));
    d->prompts = kac_alloc((size_t)d->n_prompts * sizeof *d->prompts);
    if (d->prompts == NULL) return KAC_E_MEMORY;
    cJSON_ArrayForEach(v, list) {
        const char *text = cJSON_IsString(v) ? v->valuestring : kac_run_text(v, "text", "");
        d->prompts[i++] = (kac_bench_prompt){.text = text,
                                             .id = kac_run_text(v, "id", ""),
                                             .category = category_of(d, kac_run_text(v, "category", NULL))};
    }
    return KAC_OK;
}

/* Methods that cannot run with a budget have no cells there. */
static void read_costs(kac_bench_data *d) {
    const cJSON *v;
    if (d->unit != KAC_BENCH_IN_NFE) return;
    cJSON_ArrayForEach(v, kac_run_at(d->file.root, "costs")) {
        const int m = find_method(d, kac_run_text(v, "label", NULL));
        const double least = kac_run_number(v, "particle_nfe");
        if (m >= 0 && isfinite(least)) d->methods[m].least = least;
    }
}

static void count_possible(kac_bench_data *d) {
    read_costs(d);
    for (int m = 0; m < d->n_methods; m++)
        for (int b = 0; b < d->n_budgets; b++)
            d->n_possible += d->budgets[b] >= d->methods[m].least ? d->n_prompts * d->n_seeds : 0;
}

static kac_status read_file(kac_bench_data *d) {
    KAC_TRY(read_methods(d));
    KAC_TRY(read_numbers(&d->budgets, &d->n_budgets, d, "budgets", KAC_BENCH_MAX_BUDGETS));
    KAC_TRY(read_numbers(&d->seeds, &d->n_seeds, d, "seeds", MAX_SEEDS));
    KAC_TRY(read_prompts(d));
    for (int i = 0; i < d->n_budgets; i++) {
        if (!(d->budgets[i] > 0))
            return KAC_FAIL(KAC_E_FORMAT, "%s: budget %g is not above 0", d->file.name, d->budgets[i]);
        if (i > 0 && !(d->budgets[i] > d->budgets[i - 1]))
            return KAC_FAIL(KAC_E_FORMAT, "%s: the budgets must rise, %g comes after %g", d->file.name, d->budgets[i],
                            d->budgets[i - 1]);
    }
    const char *unit = kac_run_text(d->file.root, "budget_unit", "nfe");
    d->unit = strcmp(unit, "seconds") == 0     ? KAC_BENCH_IN_SECONDS
              : strcmp(unit, "particles") == 0 ? KAC_BENCH_IN_PARTICLES
                                               : KAC_BENCH_IN_NFE;
    if (d->n_methods * d->n_budgets > MAX_CURVE_POINTS)
        return KAC_FAIL(KAC_E_SHAPE, "%s: %d methods at %d budgets, at most %d pairs are read", d->file.name,
                        d->n_methods, d->n_budgets, MAX_CURVE_POINTS);
    const double n = (double)d->n_methods * d->n_budgets * d->n_prompts * d->n_seeds;
    if (n > MAX_CELLS) return KAC_FAIL(KAC_E_SHAPE, "%s: %.0f cells, at most %d are read", d->file.name, n, MAX_CELLS);
    d->index = kac_alloc((size_t)n * sizeof *d->index);
    if (d->index == NULL) return KAC_E_MEMORY;
    memset(d->index, 0xff, (size_t)n * sizeof *d->index);
    count_possible(d);
    return KAC_OK;
}

/* ---- results.jsonl ---- */

static size_t place_of(const kac_bench_data *d, int method, int budget, int prompt, int seed) {
    return (((size_t)method * (size_t)d->n_budgets + (size_t)budget) * (size_t)d->n_prompts + (size_t)prompt) *
               (size_t)d->n_seeds +
           (size_t)seed;
}

/* Whole numbers to the last digit; others as two programs print them. */
static int find_number(const double *list, int n, double v) {
    for (int i = 0; i < n; i++)
        if (list[i] == v || (list[i] != floor(list[i]) && fabs(list[i] - v) <= 1e-9 * fabs(list[i]))) return i;
    return -1;
}

static int find_judge(kac_bench_data *d, const char *name) {
    for (int i = 0; i < d->n_judges; i++)
        if (strcmp(d->judges[i], name) == 0) return i;
    if (d->n_judges == KAC_BENCH_MAX_JUDGES) return -1;
    d->judges[d->n_judges] = kac_strdup(name);
    return d->judges[d->n_judges] == NULL ? -1 : d->n_judges++;
}

static void read_judges(kac_bench_data *d, double *values, const cJSON *object, int offset) {
    const cJSON *v;
    if (!cJSON_IsObject(object)) return;
    cJSON_ArrayForEach(v, object) {
        const int j = cJSON_IsNumber(v) && v->string != NULL ? find_judge(d, v->string) : -1;
        if (j >= 0) values[KAC_BENCH_JUDGES + 2 * j + offset] = v->valuedouble;
    }
}

static void read_values(kac_bench_data *d, double *values, const cJSON *line) {
    static const char *const keys[KAC_BENCH_COUNT_DENOISER] = {
        "reward", "mean_reward", "n", "nfe", "flops", "seconds", "host_seconds", "log_z", "ess", "n_eves", "diversity"};
    static const char *const counts[] = {"denoiser", "decoder", "reward", "denoiser_grad", "reward_grad"};
    for (int i = 0; i < KAC_BENCH_MAX_QUANTITIES; i++) values[i] = NAN;
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) values[i] = kac_run_number(line, keys[i]);
    for (int i = 0; i < KAC_COUNT_OF(counts); i++)
        values[KAC_BENCH_COUNT_DENOISER + i] = kac_run_number(kac_run_at(line, "counts"), counts[i]);
    read_judges(d, values, kac_run_at(line, "judges"), 0);
    read_judges(d, values, kac_run_at(line, "mean_judges"), 1);
    for (int i = 0; i < KAC_BENCH_MAX_QUANTITIES; i++)
        if (!isfinite(values[i])) values[i] = NAN;
}

static void free_texts(kac_bench_cell *c) {
    kac_free(c->error), kac_free(c->picture), kac_free(c->tree), kac_free(c->family);
    c->error = c->picture = c->tree = c->family = NULL;
}

static kac_status copy_text(char **out, const char *text) {
    if (text == NULL) return KAC_OK;
    *out = kac_strdup(text);
    return *out == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* The place of a new cell, or that of an earlier line for the same one. */
static kac_status cell_for(kac_bench_cell **out, kac_bench_data *d, int32_t *at, int *n_room) {
    if (*at < 0) {
        if (d->n_cells == *n_room) {
            const int more = KAC_MAX(256, *n_room * 2);
            void *cells = kac_realloc(d->cells, (size_t)more * sizeof *d->cells);
            if (cells == NULL) return KAC_E_MEMORY;
            d->cells = cells;
            void *values = kac_realloc(d->values, (size_t)more * KAC_BENCH_MAX_QUANTITIES * sizeof *d->values);
            if (values == NULL) return KAC_E_MEMORY;
            d->values = values;
            *n_room = more;
        }
        *at = d->n_cells++;
        d->cells[*at] = (kac_bench_cell){0};
    }
    *out = &d->cells[*at];
    free_texts(*out);
    return KAC_OK;
}

static kac_status take_line(kac_bench_data *d, const cJSON *line, int *n_room) {
    const double prompt = kac_run_number(line, "prompt");
    const int method = find_method(d, kac_run_text(line, "method", NULL)),
              budget = find_number(d->budgets, d->n_budgets, kac_run_number(line, "budget")),
              seed = find_number(d->seeds, d->n_seeds, kac_run_number(line, "seed"));
    const char *error = kac_run_text(line, "error", NULL);
    const bool sensible = method >= 0 && budget >= 0 && seed >= 0 && prompt >= 0 && prompt < d->n_prompts &&
                          prompt == floor(prompt) && (error != NULL || isfinite(kac_run_number(line, "reward")));
    if (!sensible) {
        d->n_strange_lines++;
        return KAC_OK;
    }
    kac_bench_cell *c;
    KAC_TRY(cell_for(&c, d, &d->index[place_of(d, method, budget, (int)prompt, seed)], n_room));
    c->method = method, c->budget = budget, c->prompt = (int)prompt, c->seed = seed;
    c->done = error == NULL;
    double *values = d->values + (size_t)(c - d->cells) * KAC_BENCH_MAX_QUANTITIES;
    read_values(d, values, line);
    if (d->unit == KAC_BENCH_IN_NFE && isnan(values[KAC_BENCH_NFE])) values[KAC_BENCH_NFE] = d->budgets[budget];
    if (d->unit == KAC_BENCH_IN_SECONDS && isnan(values[KAC_BENCH_SECONDS]))
        values[KAC_BENCH_SECONDS] = d->budgets[budget];
    KAC_TRY(copy_text(&c->error, error));
    KAC_TRY(copy_text(&c->picture, kac_run_inner_path(line, "picture")));
    KAC_TRY(copy_text(&c->tree, kac_run_inner_path(line, "tree")));
    return copy_text(&c->family, kac_run_inner_path(line, "family"));
}

static kac_status read_results(kac_bench_data *d, const char *text, size_t n) {
    int n_room = 0;
    kac_status s = KAC_OK;
    for (const char *line = text; s == KAC_OK && line < text + n;) {
        const char *end = memchr(line, '\n', (size_t)(text + n - line));
        if (end == NULL) end = text + n;
        const size_t length = (size_t)(end - line);
        cJSON *v = length > 0 && length <= MAX_LINE_BYTES ? cJSON_ParseWithLength(line, length) : NULL;
        if (cJSON_IsObject(v))
            s = take_line(d, v, &n_room);
        else
            d->n_bad_lines += length > 0;
        cJSON_Delete(v);
        line = end + 1;
    }
    for (int i = 0; i < d->n_cells; i++) {
        d->n_done += d->cells[i].done;
        d->n_failed += !d->cells[i].done;
    }
    d->n_quantities = KAC_BENCH_JUDGES + 2 * d->n_judges;
    return s;
}

bool kac_bench_folder(const char *folder) {
    char *path = kac_path_join(folder, "bench.json");
    const bool is = path != NULL && kac_file_exists(path);
    kac_free(path);
    return is;
}

kac_status kac_bench_data_load(kac_bench_data *d, const char *folder) {
    *d = (kac_bench_data){.folder = kac_strdup(folder), .n_quantities = KAC_BENCH_JUDGES};
    char *file = kac_path_join(folder, "bench.json"), *results = kac_path_join(folder, "results.jsonl"), *text = NULL;
    size_t n = 0;
    kac_status s = d->folder == NULL || file == NULL || results == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) s = kac_json_load(&d->file, file);
    if (s == KAC_OK) s = read_file(d);
    if (s == KAC_OK && kac_file_exists(results)) s = kac_file_read(&text, &n, results, MAX_FILE_BYTES);
    if (s == KAC_OK && text != NULL) s = read_results(d, text, n);
    kac_free(file), kac_free(results), kac_free(text);
    return s;
}

void kac_bench_data_free(kac_bench_data *d) {
    for (int i = 0; i < d->n_cells; i++) free_texts(&d->cells[i]);
    for (int i = 0; i < d->n_judges; i++) kac_free(d->judges[i]);
    kac_free(d->cells), kac_free(d->values), kac_free(d->index);
    kac_free(d->methods), kac_free(d->budgets), kac_free(d->seeds), kac_free(d->prompts);
    kac_json_free(&d->file);
    kac_free(d->folder);
    *d = (kac_bench_data){0};
}

const kac_bench_cell *kac_bench_cell_at(const kac_bench_data *d, int method, int budget, int prompt, int seed) {
    const int32_t at = d->index[place_of(d, method, budget, prompt, seed)];
    return at < 0 || !d->cells[at].done ? NULL : &d->cells[at];
}

double kac_bench_value(const kac_bench_data *d, const kac_bench_cell *cell, int quantity) {
    return d->values[(size_t)(cell - d->cells) * KAC_BENCH_MAX_QUANTITIES + (size_t)quantity];
}
