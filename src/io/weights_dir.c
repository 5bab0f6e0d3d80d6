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

/* `path` is taken over. */
static kac_status add_shard(kac_weights *s, char *path, const char *index) {
    if (path == NULL || kac_file_exists(path)) return kac_weights_add_file(s, path);
    const kac_status status =
        KAC_FAIL(KAC_E_IO, "%s names the shard %s, which is not there: download it too", index, kac_path_base(path));
    kac_free(path);
    return status;
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
        KAC_TRY(add_shard(s, kac_path_join(dir, last), index));
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

static kac_status explain_missing(const char *dir, const char *stem, const char *variant) {
    static const char *const names[] = {"flax_model.msgpack", "diffusion_flax_model.msgpack", "tf_model.h5",
                                        "model.onnx"};
    if (!kac_dir_exists(dir)) return KAC_FAIL(KAC_E_IO, "%s: no such folder", dir);
    for (int i = 0; i < KAC_COUNT_OF(names); i++) {
        char *path = kac_path_join(dir, names[i]);
        if (path == NULL) return KAC_E_MEMORY;
        const bool there = kac_file_exists(path);
        kac_free(path);
        if (there)
            return KAC_FAIL(
                KAC_E_UNSUPPORTED,
                "%s holds %s but no %s.safetensors: kac reads safetensors and PyTorch files; convert it, for "
                "example by save_pretrained() in Python",
                dir, names[i], stem);
    }
    if (variant != NULL)
        return KAC_FAIL(KAC_E_IO, "%s: there is no %s.%s.safetensors (nor its shards, nor .bin)", dir, stem, variant);
    return KAC_FAIL(KAC_E_IO, "%s: there is no %s.safetensors, no %s.safetensors.index.json and no .bin", dir, stem,
                    stem);
}

/* Opens dir/name and sets *found when it is there. */
static kac_status try_name(kac_weights *s, const char *dir, char *name, bool index, bool *found) {
    char *path = name == NULL ? NULL : kac_path_join(dir, name);
    kac_free(name);
    if (path == NULL) return KAC_E_MEMORY;
    *found = kac_file_exists(path);
    if (*found && !index) return kac_weights_add_file(s, path);
    const kac_status status = *found ? open_index(s, dir, path) : KAC_OK;
    kac_free(path);
    return status;
}

/* The file or the shards with this ending; variant "" or ".fp16". Both spellings of an index with a variant exist. */
static kac_status try_variant(kac_weights *s, const char *dir, const char *stem, const char *end, const char *variant,
                              bool *found) {
    KAC_TRY(try_name(s, dir, kac_format("%s%s.%s", stem, variant, end), false, found));
    if (!*found) KAC_TRY(try_name(s, dir, kac_format("%s.%s.index%s.json", stem, end, variant), true, found));
    return *found ? KAC_OK : try_name(s, dir, kac_format("%s%s.%s.index.json", stem, variant, end), true, found);
}

static kac_status open_any(kac_weights *s, const char *dir, const char *stem, const char *variant) {
    char *wanted = kac_format("%s%s", variant == NULL ? "" : ".", variant == NULL ? "" : variant);
    const char *const stems[] = {stem, strcmp(stem, "model") == 0 ? "pytorch_model" : stem},
                      *ends[] = {"safetensors", "bin"};
    const char *const variants[] = {wanted, ".fp16", ".bf16"};
    bool found = false;
    kac_status status = wanted == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int e = 0; e < 2; e++)
        for (int v = 0; v < (variant == NULL ? 3 : 1) && status == KAC_OK && !found; v++)
            status = try_variant(s, dir, stems[e], ends[e], variants[v], &found);
    kac_free(wanted);
    return status == KAC_OK && !found ? explain_missing(dir, stem, variant) : status;
}

kac_status kac_weights_open_variant(kac_weights *s, const char *dir, const char *stem, const char *variant) {
    *s = (kac_weights){.path = kac_strdup(dir)};
    return kac_weights_opened(s, s->path == NULL ? KAC_E_MEMORY : open_any(s, dir, stem, variant));
}

kac_status kac_weights_open_dir(kac_weights *s, const char *dir, const char *stem) {
    return kac_weights_open_variant(s, dir, stem, NULL);
}
