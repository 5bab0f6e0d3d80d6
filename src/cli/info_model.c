#include "info.h"
#include "io/weights.h"
#include "model/checkpoint.h"
#include <string.h>

static double count(const kac_weights_entry *e) {
    double n = 1;
    for (int i = 0; i < KAC_MIN(e->rank, KAC_MAX_RANK); i++) n *= (double)e->shape[i];
    return n;
}

/* parameters, bytes, dtypes */
static void add_counts(cJSON *row, const kac_weights *w) {
    double parameters = 0, bytes = 0;
    const char *dtype = NULL;
    for (int i = 0; i < w->n_entries; i++) {
        parameters += count(&w->entries[i]);
        bytes += (double)w->entries[i].n_bytes;
        if (dtype != NULL && strcmp(dtype, w->entries[i].dtype_name) != 0)
            dtype = "mixed";
        else if (dtype == NULL)
            dtype = w->entries[i].dtype_name;
    }
    cJSON_AddNumberToObject(row, "parameters", parameters);
    cJSON_AddNumberToObject(row, "bytes", bytes);
    cJSON_AddStringToObject(row, "dtype", dtype == NULL ? "none" : dtype);
}

/* The same of the weights in a folder; nothing when it holds none. */
static kac_status add_weights(cJSON *row, const char *dir) {
    const char *const stems[] = {"diffusion_pytorch_model", "model"};
    kac_weights st = {0};
    kac_status s = KAC_E_IO;
    for (int i = 0; i < KAC_COUNT_OF(stems) && s == KAC_E_IO; i++) s = kac_weights_open_dir(&st, dir, stems[i]);
    if (s != KAC_OK) return s;
    add_counts(row, &st);
    kac_weights_close(&st);
    return KAC_OK;
}

/* The class that a config file in dir names; "" when there is no such file or key. Caller frees. */
static kac_status class_of(char **out, const char *dir, const char *file) {
    *out = NULL;
    char *path = kac_path_join(dir, file);
    if (path == NULL) return KAC_E_MEMORY;
    kac_json j = {0};
    const char *name = NULL;
    kac_status s = KAC_OK;
    if (kac_file_exists(path)) {
        s = kac_json_load(&j, path);
        if (s == KAC_OK) s = kac_json_text(&j, j.root, "_class_name", &name);
        if (s == KAC_OK && name == NULL && cJSON_IsArray(cJSON_GetObjectItem(j.root, "architectures"))) {
            const cJSON *first = cJSON_GetObjectItem(j.root, "architectures")->child;
            if (cJSON_IsString(first)) name = first->valuestring;
        }
    }
    if (s == KAC_OK && (*out = kac_strdup(name == NULL ? "" : name)) == NULL) s = KAC_E_MEMORY;
    kac_json_free(&j);
    kac_free(path);
    return s;
}

/* One row for a component whose folder is dir/name. */
static kac_status add_component(cJSON *rows, const char *dir, const char *name, const char *class_name) {
    char *path = kac_path_join(dir, name);
    if (path == NULL) return KAC_E_MEMORY;
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "name", name);
    cJSON_AddStringToObject(row, "class", class_name);
    kac_status s = KAC_OK;
    const bool is_network = strstr(class_name, "Tokenizer") == NULL && strstr(class_name, "Scheduler") == NULL &&
                            strstr(class_name, "Processor") == NULL && strstr(class_name, "Extractor") == NULL;
    if (!kac_dir_exists(path))
        s = KAC_FAIL(KAC_E_IO, "%s names the component %s, but there is no folder %s", dir, name, path);
    else if (is_network)
        s = add_weights(row, path);
    cJSON_AddItemToArray(rows, row);
    kac_free(path);
    return s;
}

static void add_totals(cJSON *d, const cJSON *rows) {
    double parameters = 0, bytes = 0;
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) {
        const cJSON *p = cJSON_GetObjectItem(row, "parameters"), *b = cJSON_GetObjectItem(row, "bytes");
        parameters += p == NULL ? 0 : p->valuedouble;
        bytes += b == NULL ? 0 : b->valuedouble;
    }
    cJSON_AddNumberToObject(d, "parameters", parameters);
    cJSON_AddNumberToObject(d, "weight_bytes", bytes);
}

kac_status kac_info_pipeline(cJSON *d, const char *dir) {
    char *path = kac_path_join(dir, "model_index.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json j = {0};
    kac_status s = kac_json_load(&j, path);
    kac_free(path);
    KAC_TRY(s);
    const char *class_name = "";
    s = kac_json_text(&j, j.root, "_class_name", &class_name);
    cJSON_AddStringToObject(d, "kind", "model");
    cJSON_AddStringToObject(d, "path", dir);
    cJSON_AddStringToObject(d, "class", class_name);
    cJSON *rows = cJSON_AddArrayToObject(d, "components");
    for (const cJSON *v = j.root->child; v != NULL && s == KAC_OK; v = v->next) {
        if (!cJSON_IsArray(v) || v->child == NULL || v->child->next == NULL || !cJSON_IsString(v->child->next))
            continue;
        if (strchr(v->string, '/') != NULL || strcmp(v->string, "..") == 0)
            s = KAC_FAIL(KAC_E_FORMAT, "%s: '%.60s' is no component's name", j.name, v->string);
        else
            s = add_component(rows, dir, v->string, v->child->next->valuestring);
    }
    kac_json_free(&j);
    add_totals(d, rows);
    return s;
}

kac_status kac_info_component(cJSON *d, const char *dir) {
    char *class_name;
    KAC_TRY(class_of(&class_name, dir, "config.json"));
    cJSON_AddStringToObject(d, "kind", "network");
    cJSON_AddStringToObject(d, "path", dir);
    cJSON_AddStringToObject(d, "class", class_name);
    kac_free(class_name);
    return add_weights(d, dir);
}

/* One row for a network in a file of all networks. */
static kac_status add_single_component(cJSON *rows, const kac_checkpoint *m, const char *name, const char *class_name) {
    kac_source source;
    cJSON *row = cJSON_CreateObject();
    cJSON_AddItemToArray(rows, row);
    cJSON_AddStringToObject(row, "name", name);
    cJSON_AddStringToObject(row, "class", class_name);
    if (strcmp(name, "scheduler") == 0 || strncmp(name, "tokenizer", 9) == 0) return KAC_OK;
    KAC_TRY(kac_checkpoint_source(&source, m, name));
    add_counts(row, &source.weights);
    kac_source_close(&source);
    return KAC_OK;
}

/* A model in one file, in the original names. */
static kac_status describe_single(cJSON *d, const kac_checkpoint *m) {
    static const char *const families[] = {"Stable Diffusion 1", "Stable Diffusion 2", "Stable Diffusion XL",
                                           "Stable Diffusion XL refiner"};
    cJSON_AddStringToObject(d, "kind", "model in one file");
    cJSON_AddStringToObject(d, "path", m->path);
    cJSON_AddStringToObject(d, "family", families[m->ldm.family]);
    cJSON_AddStringToObject(d, "class", cJSON_GetObjectItem(m->index.root, "_class_name")->valuestring);
    cJSON_AddStringToObject(d, "prediction", m->ldm.v_prediction ? "v_prediction" : "epsilon");
    cJSON *rows = cJSON_AddArrayToObject(d, "components");
    for (const cJSON *v = m->index.root->child; v != NULL; v = v->next)
        if (kac_checkpoint_has(m, v->string))
            KAC_TRY(add_single_component(rows, m, v->string, cJSON_GetArrayItem(v, 1)->valuestring));
    add_totals(d, rows);
    return KAC_OK;
}

kac_status kac_info_weights(cJSON *d, const char *path) {
    kac_checkpoint m;
    kac_weights st = {0};
    KAC_TRY(kac_weights_open(&st, path));
    kac_ldm ldm;
    const bool single = kac_ldm_examine(&ldm, &st) == KAC_OK;
    if (single && ldm.has_unet) {
        kac_weights_close(&st);
        KAC_TRY(kac_checkpoint_open(&m, path, NULL));
        const kac_status s = describe_single(d, &m);
        kac_checkpoint_close(&m);
        return s;
    }
    cJSON_AddStringToObject(d, "kind", st.files[0].torch ? "PyTorch file" : "safetensors");
    cJSON_AddStringToObject(d, "path", path);
    double parameters = 0, bytes = 0;
    cJSON *rows = cJSON_CreateArray();
    for (int i = 0; i < st.n_entries; i++) {
        const kac_weights_entry *e = &st.entries[i];
        parameters += count(e);
        bytes += (double)e->n_bytes;
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", e->name);
        cJSON_AddStringToObject(row, "dtype", e->dtype_name);
        cJSON *shape = cJSON_AddArrayToObject(row, "shape");
        for (int k = 0; k < KAC_MIN(e->rank, KAC_MAX_RANK); k++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)e->shape[k]));
        cJSON_AddNumberToObject(row, "bytes", (double)e->n_bytes);
        cJSON_AddItemToArray(rows, row);
    }
    cJSON_AddNumberToObject(d, "parameters", parameters);
    cJSON_AddNumberToObject(d, "bytes", bytes);
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(st.files[0].header.root, "__metadata__");
    if (metadata != NULL && metadata->child != NULL)
        cJSON_AddItemToObject(d, "metadata", cJSON_Duplicate(metadata, true));
    cJSON_AddItemToObject(d, "tensors", rows);
    kac_weights_close(&st);
    return KAC_OK;
}
