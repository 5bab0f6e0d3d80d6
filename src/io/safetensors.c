#include "io/safetensors.h"
#include "io/safetensors_header.h"
#include <stdlib.h>
#include <string.h>

static int by_name(const void *pa, const void *pb) {
    return strcmp(((const kac_st_entry *)pa)->name, ((const kac_st_entry *)pb)->name);
}

/* Appends the tensors of one more file; the entries are sorted later. `path` is taken over. */
static kac_status add_file(kac_st *s, char *path) {
    if (path == NULL) return KAC_E_MEMORY;
    kac_st_file *files = kac_realloc(s->files, sizeof(*files) * (size_t)(s->n_files + 1));
    if (files == NULL) {
        kac_free(path);
        return KAC_E_MEMORY;
    }
    s->files = files;
    kac_st_file *f = &files[s->n_files++];
    *f = (kac_st_file){.path = path};
    if (kac_dir_exists(path)) return KAC_FAIL(KAC_E_IO, "%s is a folder: a safetensors file is needed", path);
    KAC_TRY(kac_map_open(&f->map, path));
    kac_st_entry *entries;
    int n;
    KAC_TRY(kac_st_header_read(f, &entries, &n));
    for (int i = 0; i < n; i++) entries[i].file = s->n_files - 1;
    if (s->entries == NULL) {
        s->entries = entries;
        s->n_entries = n;
        return KAC_OK;
    }
    kac_st_entry *all = kac_realloc(s->entries, sizeof(*all) * ((size_t)s->n_entries + (size_t)n + 1));
    if (all != NULL) {
        memcpy(all + s->n_entries, entries, sizeof(*all) * (size_t)n);
        s->entries = all;
        s->n_entries += n;
    }
    kac_free(entries);
    return all == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status sort_entries(kac_st *s) {
    if (s->n_entries == 0) return KAC_OK;
    qsort(s->entries, (size_t)s->n_entries, sizeof(*s->entries), by_name);
    for (int i = 1; i < s->n_entries; i++) {
        char shown[96];
        if (strcmp(s->entries[i - 1].name, s->entries[i].name) == 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: two tensors are named \"%s\"", s->path,
                            kac_st_shown(s->entries[i].name, shown));
    }
    return KAC_OK;
}

/* Nothing is left open when opening failed. */
static kac_status opened(kac_st *s, kac_status status) {
    if (status == KAC_OK) status = sort_entries(s);
    if (status != KAC_OK) kac_st_close(s);
    return status;
}

kac_status kac_st_open(kac_st *s, const char *path) {
    *s = (kac_st){.path = kac_strdup(path)};
    return opened(s, s->path == NULL ? KAC_E_MEMORY : add_file(s, kac_strdup(path)));
}

/* A shard is a plain file name inside the folder. */
static bool plain_name(const char *name) {
    return name[0] != 0 && strchr(name, '/') == NULL && strchr(name, '\\') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static kac_status check_weight_map(const kac_st *s, const cJSON *map, const char *index) {
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        const kac_st_entry *e = kac_st_entry_of(s, item->string);
        char shown[96];
        if (e == NULL || strcmp(kac_path_base(s->files[e->file].path), item->valuestring) != 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: tensor \"%s\" is not in the shard that the index names", index,
                            kac_st_shown(item->string, shown));
    }
    return KAC_OK;
}

static kac_status add_shards(kac_st *s, const char *dir, const cJSON *map, const char *index) {
    enum { MAX_SHARDS = 4096 };
    if (!cJSON_IsObject(map)) return KAC_FAIL(KAC_E_FORMAT, "%s: weight_map must be an object", index);
    const char *last = "";
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        char shown[96];
        if (!cJSON_IsString(item) || !plain_name(item->valuestring))
            return KAC_FAIL(KAC_E_FORMAT, "%s: weight_map \"%s\" must be the name of a file in the same folder", index,
                            kac_st_shown(item->string, shown));
        if (strcmp(item->valuestring, last) == 0) continue;
        last = item->valuestring;
        int i = 0;
        while (i < s->n_files && strcmp(kac_path_base(s->files[i].path), last) != 0) i++;
        if (i < s->n_files) continue;
        if (i == MAX_SHARDS) return KAC_FAIL(KAC_E_FORMAT, "%s: names more than %d files", index, (int)MAX_SHARDS);
        KAC_TRY(add_file(s, kac_path_join(dir, last)));
    }
    KAC_TRY(sort_entries(s));
    return check_weight_map(s, map, index);
}

static kac_status open_index(kac_st *s, const char *dir, const char *index) {
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

kac_status kac_st_open_dir(kac_st *s, const char *dir, const char *stem) {
    static const char *const suffixes[] = {".safetensors", ".safetensors.index.json", ".fp16.safetensors",
                                           ".safetensors.index.fp16.json"};
    *s = (kac_st){.path = kac_strdup(dir)};
    if (s->path == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < KAC_COUNT_OF(suffixes); i++) {
        char *path = kac_format("%s/%s%s", dir, stem, suffixes[i]);
        if (path == NULL) return opened(s, KAC_E_MEMORY);
        if (!kac_file_exists(path)) {
            kac_free(path);
            continue;
        }
        if (i % 2 == 0) return opened(s, add_file(s, path));
        const kac_status status = open_index(s, dir, path);
        kac_free(path);
        return opened(s, status);
    }
    return opened(s, explain_missing(dir, stem));
}

void kac_st_close(kac_st *s) {
    for (int i = 0; i < s->n_entries; i++) kac_free(s->entries[i].aligned);
    for (int i = 0; i < s->n_files; i++) {
        kac_json_free(&s->files[i].header);
        kac_map_close(&s->files[i].map);
        kac_free(s->files[i].path);
    }
    kac_free(s->entries);
    kac_free(s->files);
    kac_free(s->path);
    *s = (kac_st){0};
}

const kac_st_entry *kac_st_entry_of(const kac_st *s, const char *name) {
    if (s->n_entries == 0) return NULL;
    const kac_st_entry key = {.name = name};
    return bsearch(&key, s->entries, (size_t)s->n_entries, sizeof(key), by_name);
}

/* Edit distance of two short names; INT_MAX/2 for long ones. */
static int distance(const char *a, const char *b) {
    enum { MAX = 128 };
    int row[MAX + 1];
    const int na = (int)strnlen(a, MAX + 1), nb = (int)strnlen(b, MAX + 1);
    if (na > MAX || nb > MAX) return 1 << 30;
    for (int j = 0; j <= nb; j++) row[j] = j;
    for (int i = 1; i <= na; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            const int above = row[j], change = corner + (a[i - 1] != b[j - 1]);
            row[j] = KAC_MIN(change, KAC_MIN(above, row[j - 1]) + 1);
            corner = above;
        }
    }
    return row[nb];
}

static kac_status no_tensor(const kac_st *s, const char *name) {
    const char *nearest = NULL;
    int least = (int)strlen(name) / 2 + 2; /* a name that shares less is no hint */
    for (int i = 0; i < KAC_MIN(s->n_entries, 5000); i++) {
        const int d = distance(name, s->entries[i].name);
        if (d >= least) continue;
        least = d;
        nearest = s->entries[i].name;
    }
    char shown[96];
    const char *path = s->n_files == 1 ? s->files[0].path : s->path;
    if (nearest == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s has no tensor \"%s\"", path, name);
    return KAC_FAIL(KAC_E_FORMAT, "%s has no tensor \"%s\" (the nearest is \"%s\")", path, name,
                    kac_st_shown(nearest, shown));
}

kac_status kac_st_find(const kac_st *s, const char *name, kac_tensor *out) {
    const kac_st_entry *e = kac_st_entry_of(s, name);
    return e == NULL ? no_tensor(s, name) : kac_st_view(s, e, out);
}

kac_status kac_st_view(const kac_st *s, const kac_st_entry *entry, kac_tensor *out) {
    char shown[96];
    const char *path = s->files[entry->file].path;
    if (entry->dtype < 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%s\" is %s, which kac does not read", path,
                        kac_st_shown(entry->name, shown), entry->dtype_name);
    if (entry->rank > KAC_MAX_RANK)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%s\" has %d axes, kac reads up to %d", path,
                        kac_st_shown(entry->name, shown), entry->rank, (int)KAC_MAX_RANK);
    const void *data = entry->data;
    if ((uintptr_t)data % kac_dtype_bytes((kac_dtype)entry->dtype) != 0 && entry->n_bytes > 0) {
        kac_st_entry *e = &s->entries[entry - s->entries];
        if (e->aligned == NULL) {
            e->aligned = kac_alloc(e->n_bytes);
            if (e->aligned == NULL) return KAC_E_MEMORY;
            memcpy(e->aligned, e->data, e->n_bytes);
        }
        data = e->aligned;
    }
    /* A view of no bytes may point to the end of the mapping; it still counts as a tensor. */
    *out = kac_tensor_of((void *)(uintptr_t)data, (kac_dtype)entry->dtype, entry->rank, entry->shape);
    return KAC_OK;
}

const char *kac_st_metadata(const kac_st *s, const char *key) {
    for (int i = 0; i < s->n_files; i++) {
        const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(s->files[i].header.root, "__metadata__");
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(metadata, key);
        if (cJSON_IsString(item)) return item->valuestring;
    }
    return NULL;
}
