/* The checkpoint folders of golden cases. */
#include "tensor/convert.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include <inttypes.h>

typedef struct model_writer {
    kac_st_item *items;
    int n_items;
    kac_dtype dtype;
    uint32_t crc; /* of the f32 values of all weights, in the file's order */
} model_writer;

/* Zeroed memory for a tensor of the shape in `list`, added to the writer under `name`. */
static kac_status add_item(model_writer *w, const char *name, const cJSON *list, kac_dtype dtype, kac_tensor *out) {
    const int rank = cJSON_GetArraySize(list);
    if (rank > KAC_MAX_RANK) return KAC_FAIL(KAC_E_FORMAT, "%s: rank %d", name, rank);
    int64_t shape[KAC_MAX_RANK] = {0};
    for (int i = 0; i < rank; i++) shape[i] = (int64_t)cJSON_GetNumberValue(cJSON_GetArrayItem(list, i));
    *out = kac_tensor_of(NULL, dtype, rank, shape);
    out->data = kac_alloc(kac_tensor_bytes(*out));
    if (out->data == NULL) return KAC_E_MEMORY;
    w->items[w->n_items++] = (kac_st_item){.name = name, .tensor = *out};
    return KAC_OK;
}

static kac_status add_weight(model_writer *w, const cJSON *entry) {
    kac_tensor t;
    KAC_TRY(add_item(w, entry->string, cJSON_GetArrayItem(entry, 2), w->dtype, &t));
    const double offset = cJSON_GetNumberValue(cJSON_GetArrayItem(entry, 0));
    const double scale = cJSON_GetNumberValue(cJSON_GetArrayItem(entry, 1));
    const int64_t n = kac_tensor_count(t);
    float *values = kac_alloc((size_t)n * sizeof *values);
    if (values == NULL) return KAC_E_MEMORY;
    golden_weights(values, entry->string, n, offset, scale);
    w->crc = kac_crc32(values, (size_t)n * sizeof *values, w->crc);
    for (int64_t i = 0; i < n; i++) kac_element_store(t.data, t.dtype, i, (double)values[i]);
    kac_free(values);
    return KAC_OK;
}

/* A tensor that old files hold and nobody reads: 0, 1, 2, … */
static kac_status add_extra(model_writer *w, const cJSON *entry) {
    kac_tensor t;
    KAC_TRY(add_item(w, entry->string, entry, KAC_I64, &t));
    for (int64_t i = 0; i < kac_tensor_count(t); i++) kac_element_store(t.data, KAC_I64, i, (double)i);
    return KAC_OK;
}

static kac_status write_config(const cJSON *config, const char *dir) {
    char *path = kac_path_join(dir, "config.json"), *text = cJSON_PrintUnformatted(config);
    const kac_status s = path == NULL || text == NULL ? KAC_FAIL(KAC_E_MEMORY, "config of %s", dir)
                                                      : kac_file_write(path, text, strlen(text));
    cJSON_free(text);
    kac_free(path);
    return s;
}

static kac_status write_weights(const kac_json *j, const cJSON *model, const char *dir, model_writer *w) {
    const char *file = NULL, *dtype = NULL;
    double crc = -1;
    KAC_TRY(kac_json_text(j, model, "file", &file));
    KAC_TRY(kac_json_text(j, model, "dtype", &dtype));
    KAC_TRY(kac_json_real(j, model, "weights_crc32", &crc));
    if (file == NULL || dtype == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: file or dtype missing", j->name);
    w->dtype = strcmp(dtype, "F16") == 0 ? KAC_F16 : strcmp(dtype, "BF16") == 0 ? KAC_BF16 : KAC_F32;
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(model, "weights")) KAC_TRY(add_weight(w, entry));
    if ((double)w->crc != crc)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the formula gives other weights (CRC %" PRIu32 ") than the reference used",
                        j->name, w->crc);
    cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(model, "extra")) KAC_TRY(add_extra(w, entry));
    char *path = kac_path_join(dir, file);
    if (path == NULL) return KAC_E_MEMORY;
    const kac_st_pair format = {.key = "format", .value = "pt"};
    const kac_status s = kac_st_write(path, w->items, w->n_items, &format, 1);
    kac_free(path);
    return s;
}

kac_status golden_write_model(const kac_json *j, const cJSON *model, const char *dir) {
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(model, "config");
    if (config == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: no config", j->name);
    KAC_TRY(write_config(config, dir));
    const int n = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(model, "weights")) +
                  cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(model, "extra"));
    model_writer w = {.items = kac_alloc((size_t)KAC_MAX(n, 1) * sizeof(kac_st_item))};
    if (w.items == NULL) return KAC_E_MEMORY;
    const kac_status s = write_weights(j, model, dir, &w);
    for (int i = 0; i < w.n_items; i++) kac_free(w.items[i].tensor.data);
    kac_free(w.items);
    return s;
}
