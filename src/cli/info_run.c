#include "info.h"
#include <string.h>

static const cJSON *at(const cJSON *object, const char *key) {
    return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
}

static void copy(cJSON *d, const cJSON *from, const char *key) {
    const cJSON *v = at(from, key);
    if (v != NULL) cJSON_AddItemToObject(d, key, cJSON_Duplicate(v, true));
}

/* The pictures, best first within each prompt, as short rows. */
static void add_images(cJSON *d, const cJSON *images) {
    cJSON *rows = cJSON_AddArrayToObject(d, "images");
    const int n = cJSON_IsArray(images) ? cJSON_GetArraySize(images) : 0;
    for (int rank = 0; rank < n; rank++) {
        const cJSON *v;
        cJSON_ArrayForEach(v, images) {
            const cJSON *r = at(v, "rank");
            if (!cJSON_IsNumber(r) || r->valuedouble != rank) continue;
            cJSON *row = cJSON_CreateObject();
            copy(row, v, "file");
            copy(row, v, "group");
            copy(row, v, "particle");
            copy(row, v, "reward");
            copy(row, v, "weight");
            cJSON_AddItemToArray(rows, row);
        }
    }
}

kac_status kac_info_run(cJSON *d, const char *dir) {
    char *path = kac_path_join(dir, "run.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json j = {0};
    const kac_status s = kac_json_load(&j, path);
    kac_free(path);
    KAC_TRY(s);
    cJSON_AddStringToObject(d, "kind", at(j.root, "tune") != NULL ? "tuning run" : "run");
    cJSON_AddStringToObject(d, "path", dir);
    const char *const keys[] = {"state", "error",    "started",  "version",    "command",   "steer",       "tune",
                                "file",  "n_rounds", "n_layers", "n_values",   "rewards",   "held_out",    "before",
                                "after", "sampler",  "seed",     "n_steps",    "n_prompts", "n_particles", "groups",
                                "log_z", "counts",   "seconds",  "peak_bytes", "options"};
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) copy(d, j.root, keys[i]);
    if (at(j.root, "images") != NULL || at(j.root, "tune") == NULL) add_images(d, at(j.root, "images"));
    kac_json_free(&j);
    return KAC_OK;
}
