#include "io/weights_file.h"
#include <string.h>

/* A shard is a plain file name inside the folder. */
static bool plain_name(const char *name) {
    return name[0] != 0 && strchr(name, '/') == NULL && strchr(name, '\\') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static kac_status check_weight_map(const kac_weights *s, const cJSON *map, const char *index) {
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        const kac_weights_entry *e = kac_weights_entry_of(s, item->string);
        char shown[96];
        if (e == NULL || strcmp(kac_path_base(s->files[e->file].path), item->valuestring) != 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: tensor \"%s\" is not in the shard that the index names", index,
                            kac_weights_shown(item->string, shown));
    }
    return KAC_OK;
}

static kac_status add_shards(kac_weights *s, const char *dir, const cJSON *map, const char *index) {
    enum { MAX_SHARDS = 4096 };
    if (!cJSON_IsObject(map)) return KAC_FAIL(KAC_E_FORMAT, "%s: weight_map must be an object", index);
    const char *last = "";
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        char shown[96];
        if (!cJSON_IsString(item) || !plain_name(item->valuestring))
            return KAC_FAIL(KAC_E_FORMAT, "%s: weight_map \"%s\" must be the name of a file in the same folder", index,
                            kac_weights_shown(item->string, shown));
        if (strcmp(item->valuestring, last) == 0) continue;
        last = item->valuestring;
        int i = 0;
        while (i < s->n_files && strcmp(kac_path_base(s->files[i].path), last) != 0) i++;
        if (i < s->n_files) continue;
        if (i == MAX_SHARDS) return KAC_FAIL(KAC_E_FORMAT, "%s: names more than %d files", index, (int)MAX_SHARDS);
        KAC_TRY(kac_weights_add_file(s, kac_path_join(dir, last)));
    }
    KAC_TRY(kac_weights_sort(s));
    return check_weight_map(s, map, index);
}

static kac_status open_index(kac_weights *s, const char *dir, const char *index) {
    kac_json json = {0};
    kac_status status = kac_json_load(&json, index);
    if (status == KAC_OK) status = add_shards(s, dir, cJSON_GetObjectItemCaseSensitive(json.root, "weight_map"), index);
    kac_json_free(&json);
    return status;
}

/* Why a folder has no weights that kac reads. */
static kac_status explain_missing(const char *dir, const char *stem) {
    const char *names[] = {"diffusion_pytorch_model.bin",  "pytorch_model.bin", "model.ckpt", "flax_model.msgpack",
                           "diffusion_flax_model.msgpack", "tf_model.h5"};
    if (!kac_dir_exists(dir)) return KAC_FAIL(KAC_E_IO, "%s: no such folder", dir);
    for (int i = 0; i < KAC_COUNT_OF(names); i++) {
        char *path = kac_path_join(dir, names[i]);
        if (path == NULL) return KAC_E_MEMORY;
        const bool there = kac_file_exists(path);
        kac_free(path);
        if (there)
            return KAC_FAIL(KAC_E_UNSUPPORTED,
                            "%s holds %s but no %s.safetensors: kac reads safetensors only; convert it, for example by "
                            "save_pretrained(..., safe_serialization=True) in Python",
                            dir, names[i], stem);
    }
    return KAC_FAIL(KAC_E_IO, "%s: there is no %s.safetensors and no %s.safetensors.index.json", dir, stem, stem);
}

kac_status kac_weights_open_dir(kac_weights *s, const char *dir, const char *stem) {
    static const char *const suffixes[] = {".safetensors", ".safetensors.index.json", ".fp16.safetensors",
                                           ".safetensors.index.fp16.json"};
    *s = (kac_weights){.path = kac_strdup(dir)};
    if (s->path == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < KAC_COUNT_OF(suffixes); i++) {
        char *path = kac_format("%s/%s%s", dir, stem, suffixes[i]);
        if (path == NULL) return kac_weights_opened(s, KAC_E_MEMORY);
        if (!kac_file_exists(path)) {
            kac_free(path);
            continue;
        }
        if (i % 2 == 0) return kac_weights_opened(s, kac_weights_add_file(s, path));
        const kac_status status = open_index(s, dir, path);
        kac_free(path);
        return kac_weights_opened(s, status);
    }
    return kac_weights_opened(s, explain_missing(dir, stem));
}
