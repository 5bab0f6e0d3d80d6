#include "util/golden.h"
#include "tensor/convert.h"
#include "util/temp.h"
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#define GOLDEN_ROOT "tests/golden"

/* ---- open, close ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(a, b);
}

int golden_list(char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME], const char *family) {
    char path[GOLDEN_MAX_NAME];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_ROOT, family);
    DIR *folder = opendir(path);
    if (folder == NULL) return 0;
    int n = 0;
    for (struct dirent *e; n < GOLDEN_MAX_CASES && (e = readdir(folder)) != NULL;) {
        const char *dot = strrchr(e->d_name, '.');
        if (dot == NULL || strcmp(dot, ".json") != 0) continue;
        snprintf(names[n++], GOLDEN_MAX_NAME, "%.40s/%.*s", family, (int)KAC_MIN(dot - e->d_name, 80), e->d_name);
    }
    closedir(folder);
    qsort(names, (size_t)n, sizeof names[0], by_name);
    return n;
}

kac_status golden_open_data(golden *g, const char *name) {
    *g = (golden){.tolerance = 1e-5};
    snprintf(g->name, sizeof g->name, "%s", name);
    char path[2 * GOLDEN_MAX_NAME];
    snprintf(path, sizeof path, "%s/%s.json", GOLDEN_ROOT, name);
    KAC_TRY(kac_json_load(&g->json, path));
    snprintf(path, sizeof path, "%s/%s.safetensors", GOLDEN_ROOT, name);
    kac_status s = kac_weights_open(&g->data, path);
    if (s == KAC_OK) {
        g->reports = kac_alloc(GOLDEN_MAX_REPORTS * sizeof *g->reports);
        if (g->reports == NULL) s = KAC_E_MEMORY;
    }
    if (s != KAC_OK) golden_close(g);
    return s;
}

static kac_status open_with(golden *g, const char *name, kac_status (*write)(const golden *g)) {
    static int n_opened;
    KAC_TRY(golden_open_data(g, name));
    snprintf(g->dir, sizeof g->dir, "%.100s/golden-%d", temp_dir(), n_opened++);
    kac_status s = kac_dir_make(g->dir);
    if (s == KAC_OK) s = write(g);
    if (s != KAC_OK) golden_close(g);
    return s;
}

static kac_status write_root(const golden *g) {
    return golden_write_model(&g->json, g->json.root, g->dir);
}

kac_status golden_open(golden *g, const char *name) {
    return open_with(g, name, write_root);
}

static kac_status write_json(const cJSON *item, const char *path) {
    char *text = cJSON_Print(item);
    if (text == NULL) return KAC_FAIL(KAC_E_MEMORY, "%s", path);
    const kac_status s = kac_file_write(path, text, strlen(text));
    cJSON_free(text);
    return s;
}

static kac_status copy_file(const char *to_dir, const char *from_dir, const char *file) {
    char path[512], *text = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", from_dir, file);
    KAC_TRY(kac_file_read(&text, &n, path, 1 << 24));
    snprintf(path, sizeof path, "%s/%s", to_dir, file);
    const kac_status s = kac_file_write(path, text, n);
    kac_free(text);
    return s;
}

/* The tokenizer of the shipped model; files that the case has of its own go over it. */
static kac_status write_tokenizer(const golden *g, const char *name) {
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"};
    char path[2 * GOLDEN_MAX_NAME], key[64];
    const char *from = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(g->json.root, name));
    if (from == NULL) return KAC_OK;
    snprintf(path, sizeof path, "%s/%s", g->dir, name);
    KAC_TRY(kac_dir_make(path));
    for (int i = 0; i < KAC_COUNT_OF(files); i++) KAC_TRY(copy_file(path, from, files[i]));
    snprintf(key, sizeof key, "%s_files", name);
    const cJSON *own = NULL;
    cJSON_ArrayForEach(own, cJSON_GetObjectItemCaseSensitive(g->json.root, key)) {
        snprintf(path, sizeof path, "%s/%s/%s", g->dir, name, own->string);
        KAC_TRY(write_json(own, path));
    }
    return KAC_OK;
}

static kac_status write_root_key(const golden *g, const char *key, const char *path) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(g->json.root, key);
    return item == NULL ? KAC_FAIL(KAC_E_FORMAT, "%s: no %s", g->json.name, key) : write_json(item, path);
}

static kac_status write_pipeline(const golden *g) {
    char path[2 * GOLDEN_MAX_NAME];
    snprintf(path, sizeof path, "%s/model_index.json", g->dir);
    KAC_TRY(write_root_key(g, "model_index", path));
    snprintf(path, sizeof path, "%s/scheduler", g->dir);
    KAC_TRY(kac_dir_make(path));
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", g->dir);
    KAC_TRY(write_root_key(g, "scheduler", path));
    KAC_TRY(write_tokenizer(g, "tokenizer"));
    KAC_TRY(write_tokenizer(g, "tokenizer_2"));
    const cJSON *part = NULL;
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(g->json.root, "parts")) {
        snprintf(path, sizeof path, "%s/%s", g->dir, part->string);
        KAC_TRY(kac_dir_make(path));
        KAC_TRY(golden_write_model(&g->json, part, path));
    }
    return KAC_OK;
}

kac_status golden_open_pipeline(golden *g, const char *name) {
    return open_with(g, name, write_pipeline);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw) {
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void golden_close(golden *g) {
    if (g->watched != NULL && g->watched->tap_self == g) {
        g->watched->tap = NULL;
        g->watched->tap_self = NULL;
    }
    if (g->dir[0] != '\0') nftw(g->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    kac_weights_close(&g->data);
    kac_json_free(&g->json);
    kac_free(g->reports);
    *g = (golden){0};
}

const char *golden_class(const golden *g) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(g->json.root, "class"));
    return text == NULL ? "" : text;
}

bool golden_has_output(const golden *g, const char *name) {
    const cJSON *outputs = cJSON_GetObjectItemCaseSensitive(g->json.root, "outputs");
    return cJSON_GetObjectItemCaseSensitive(outputs, name) != NULL;
}

/* ---- inputs ---- */

static kac_status find_input(const golden *g, const char *name, kac_tensor *out) {
    char key[2 * GOLDEN_MAX_NAME];
    snprintf(key, sizeof key, "in.%s", name);
    return kac_weights_find(&g->data, key, out);
}

kac_status golden_input(kac_tensor *out, const golden *g, kac_ctx *c, const char *name) {
    kac_tensor t;
    KAC_TRY(find_input(g, name, &t));
    if (t.rank == 4) t = kac_tensor_transpose(kac_tensor_transpose(t, 1, 2), 2, 3);
    KAC_TRY(kac_take(out, &c->run, t.dtype, t.rank, t.shape));
    for (int64_t i = 0; i < kac_tensor_count(t); i++) {
        const double x = kac_element_load(t.data, t.dtype, kac_element_offset(&t, t.rank, i));
        kac_element_store(out->data, t.dtype, i, x);
    }
    return KAC_OK;
}

kac_status golden_reals(const golden *g, const char *name, double *out, int n_max, int *n) {
    kac_tensor t;
    KAC_TRY(find_input(g, name, &t));
    if (kac_tensor_count(t) > n_max) return KAC_FAIL(KAC_E_SHAPE, "%s: more than %d numbers", name, n_max);
    *n = (int)kac_tensor_count(t);
    for (int i = 0; i < *n; i++) out[i] = kac_element_load(t.data, t.dtype, i);
    return KAC_OK;
}

kac_status golden_ids(const golden *g, const char *name, int32_t *out, int n_max, int64_t *rows, int64_t *columns) {
    kac_tensor t;
    KAC_TRY(find_input(g, name, &t));
    if (t.rank != 2 || kac_tensor_count(t) > n_max)
        return KAC_FAIL(KAC_E_SHAPE, "%s: not a table of at most %d ids", name, n_max);
    *rows = t.shape[0];
    *columns = t.shape[1];
    for (int64_t i = 0; i < *rows * *columns; i++) out[i] = (int32_t)kac_element_load(t.data, t.dtype, i);
    return KAC_OK;
}

/* ---- comparison ---- */

static bool read_shape(kac_tensor *out, const cJSON *list) {
    const int rank = cJSON_GetArraySize(list);
    int64_t shape[KAC_MAX_RANK] = {0};
    if (rank > KAC_MAX_RANK) return false;
    for (int i = 0; i < rank; i++) shape[i] = (int64_t)cJSON_GetNumberValue(cJSON_GetArrayItem(list, i));
    *out = kac_tensor_of(NULL, KAC_F32, rank, shape);
    return true;
}

/* Where element `i` of the file's tensor (NCHW when it has rank 4) lies in ours, counted row-major. */
static int64_t our_index(const kac_tensor *theirs, int64_t i) {
    if (theirs->rank != 4) return i;
    const int64_t n_channels = theirs->shape[1], area = theirs->shape[2] * theirs->shape[3];
    const int64_t pixel = i % area, channel = i / area % n_channels, image = i / area / n_channels;
    return (image * area + pixel) * n_channels + channel;
}

/* Not only the same count: a transposed result must not pass as far as shapes can tell. */
static bool shapes_agree(const kac_tensor *theirs, const kac_tensor *ours) {
    if (kac_tensor_count(*theirs) != kac_tensor_count(*ours)) return false;
    if (ours->rank == 0 || theirs->rank == 0) return true;
    const int64_t n_last = theirs->rank == 4 ? theirs->shape[1] : theirs->shape[theirs->rank - 1];
    const bool same_height = theirs->rank != 4 || ours->rank != 4 || theirs->shape[2] == ours->shape[1];
    return ours->shape[ours->rank - 1] == n_last && same_height;
}

static double relative_error(const kac_tensor *theirs, const kac_tensor *stored, int64_t stride,
                             const kac_tensor *ours) {
    if (stride < 1 || (kac_tensor_count(*stored) - 1) * stride >= kac_tensor_count(*theirs)) return INFINITY;
    if (!shapes_agree(theirs, ours)) return INFINITY;
    double difference = 0, norm = 0;
    for (int64_t k = 0; k < kac_tensor_count(*stored); k++) {
        const double want = kac_element_load(stored->data, stored->dtype, k);
        const int64_t at = kac_element_offset(ours, ours->rank, our_index(theirs, k * stride));
        const double d = kac_element_load(ours->data, ours->dtype, at) - want;
        difference += d * d;
        norm += want * want;
    }
    if (!isfinite(difference)) return INFINITY;
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

/* `table` is "outputs" or "taps"; false when the file does not have `name`. */
static bool compare(golden *g, const char *table, const char *prefix, const char *name, const kac_tensor *ours) {
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(g->json.root, table);
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(entries, name);
    char key[2 * GOLDEN_MAX_NAME];
    snprintf(key, sizeof key, "%s%s", prefix, name);
    kac_tensor theirs, stored;
    if (entry == NULL || g->n_reports >= GOLDEN_MAX_REPORTS) return false;
    if (!read_shape(&theirs, cJSON_GetObjectItemCaseSensitive(entry, "shape"))) return false;
    if (kac_weights_find(&g->data, key, &stored) != KAC_OK) return false;
    const int64_t stride = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(entry, "stride"));
    golden_report *r = &g->reports[g->n_reports++];
    snprintf(r->name, sizeof r->name, "%.*s", GOLDEN_MAX_NAME - 1, key);
    r->error = relative_error(&theirs, &stored, stride, ours);
    if (r->error == INFINITY) {
        char ours_text[96], theirs_text[96];
        printf("%s: %s: %s is not finite, or its shape is not the reference's %s\n", g->name, key,
               kac_tensor_text(*ours, ours_text, sizeof ours_text),
               kac_tensor_text(theirs, theirs_text, sizeof theirs_text));
    }
    return true;
}

static kac_status on_tap(void *self, const char *name, kac_tensor value) {
    golden *g = self;
    if (!compare(g, "taps", "tap.", name, &value)) g->n_unknown++;
    return KAC_OK;
}

double golden_bf16_tolerance(const golden *g) {
    const double own = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(g->json.root, "reference_bf16_error"));
    return 1.25 * own > 2e-2 ? 1.25 * own : 2e-2; /* NaN when the file has none */
}

void golden_watch(golden *g, kac_ctx *c, double tolerance) {
    g->tolerance = tolerance;
    g->watched = c;
    c->tap = on_tap;
    c->tap_self = g;
}

bool golden_output(golden *g, const char *name, kac_tensor value) {
    if (!compare(g, "outputs", "out.", name, &value)) {
        printf("%s: the case has no output %s\n", g->name, name);
        return false;
    }
    return g->reports[g->n_reports - 1].error <= g->tolerance;
}

bool golden_done(const golden *g) {
    int first_bad = -1, worst = 0;
    for (int i = 0; i < g->n_reports; i++) {
        if (first_bad < 0 && !(g->reports[i].error <= g->tolerance)) first_bad = i;
        if (g->reports[i].error > g->reports[worst].error) worst = i;
    }
    if (g->n_reports == 0) {
        printf("%s: nothing was compared\n", g->name);
        return false;
    }
    const int n_file = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(g->json.root, "taps")) +
                       cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(g->json.root, "outputs"));
    printf("%-26s %3d of %3d compared, %5.1f %% of tolerance %.0e used (%s)\n", g->name, g->n_reports, n_file,
           100 * g->reports[worst].error / g->tolerance, g->tolerance, g->reports[worst].name);
    if (first_bad >= 0)
        printf("%s: first beyond tolerance: %s, relative L2 %.3g > %.0e%s%s\n", g->name, g->reports[first_bad].name,
               g->reports[first_bad].error, g->tolerance, first_bad > 0 ? "; the one before it is good: " : "",
               first_bad > 0 ? g->reports[first_bad - 1].name : "");
    return first_bad < 0;
}
