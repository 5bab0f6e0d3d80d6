#include "io/safetensors_header.h"
#include "io/torch_file.h"
#include "io/weights_file.h"
#include <stdlib.h>
#include <string.h>

const char *kac_weights_shown(const char *name, char buffer[96]) {
    size_t n = 0;
    for (; name[n] != 0 && n < 92; n++) buffer[n] = (unsigned char)name[n] < 32 || name[n] == 127 ? '?' : name[n];
    if (name[n] != 0) {
        while (n > 0 && ((unsigned char)name[n] & 0xC0) == 0x80) n--; /* do not cut a character */
        memcpy(buffer + n, "...", 3);
        n += 3;
    }
    buffer[n] = 0;
    return buffer;
}

static int by_name(const void *pa, const void *pb) {
    return strcmp(((const kac_weights_entry *)pa)->name, ((const kac_weights_entry *)pb)->name);
}

kac_status kac_weights_add_file(kac_weights *s, char *path) {
    if (path == NULL) return KAC_E_MEMORY;
    kac_weights_file *files = kac_realloc(s->files, sizeof(*files) * (size_t)(s->n_files + 1));
    if (files == NULL) {
        kac_free(path);
        return KAC_E_MEMORY;
    }
    s->files = files;
    kac_weights_file *f = &files[s->n_files++];
    *f = (kac_weights_file){.path = path};
    if (kac_dir_exists(path)) return KAC_FAIL(KAC_E_IO, "%s is a folder: a file with weights is needed", path);
    KAC_TRY(kac_map_open(&f->map, path));
    kac_weights_entry *entries;
    int n;
    f->torch = kac_torch_is_file(f->map);
    KAC_TRY(f->torch ? kac_torch_read(f, &entries, &n) : kac_st_header_read(f, &entries, &n));
    for (int i = 0; i < n; i++) entries[i].file = s->n_files - 1;
    if (s->entries == NULL) {
        s->entries = entries;
        s->n_entries = n;
        return KAC_OK;
    }
    kac_weights_entry *all = kac_realloc(s->entries, sizeof(*all) * ((size_t)s->n_entries + (size_t)n + 1));
    if (all != NULL) {
        memcpy(all + s->n_entries, entries, sizeof(*all) * (size_t)n);
        s->entries = all;
        s->n_entries += n;
    }
    kac_free(entries);
    return all == NULL ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_weights_sort(kac_weights *s) {
    if (s->n_entries == 0) return KAC_OK;
    qsort(s->entries, (size_t)s->n_entries, sizeof(*s->entries), by_name);
    for (int i = 1; i < s->n_entries; i++) {
        char shown[96];
        if (strcmp(s->entries[i - 1].name, s->entries[i].name) == 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: two tensors are named \"%s\"", s->path,
                            kac_weights_shown(s->entries[i].name, shown));
    }
    return KAC_OK;
}

kac_status kac_weights_opened(kac_weights *s, kac_status status) {
    if (status == KAC_OK) status = kac_weights_sort(s);
    if (status != KAC_OK) kac_weights_close(s);
    return status;
}

kac_status kac_weights_open(kac_weights *s, const char *path) {
    *s = (kac_weights){.path = kac_strdup(path)};
    return kac_weights_opened(s, s->path == NULL ? KAC_E_MEMORY : kac_weights_add_file(s, kac_strdup(path)));
}

void kac_weights_close(kac_weights *s) {
    for (int i = 0; i < s->n_entries; i++) {
        kac_free(s->entries[i].own_name);
        kac_free(s->entries[i].own_data);
    }
    for (int i = 0; i < s->n_files; i++) {
        kac_json_free(&s->files[i].header);
        kac_map_close(&s->files[i].map);
        kac_free(s->files[i].path);
    }
    kac_free(s->entries);
    kac_free(s->files);
    kac_free(s->path);
    *s = (kac_weights){0};
}

const kac_weights_entry *kac_weights_entry_of(const kac_weights *s, const char *name) {
    if (s->n_entries == 0) return NULL;
    const kac_weights_entry key = {.name = name};
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

static kac_status no_tensor(const kac_weights *s, const char *name) {
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
                    kac_weights_shown(nearest, shown));
}

kac_status kac_weights_find(const kac_weights *s, const char *name, kac_tensor *out) {
    const kac_weights_entry *e = kac_weights_entry_of(s, name);
    return e == NULL ? no_tensor(s, name) : kac_weights_view(s, e, out);
}

/* A row-major copy; the strides were checked when the file was read. */
static void gather(uint8_t *out, const kac_weights_entry *e, size_t n_element) {
    int64_t at[KAC_MAX_RANK] = {0};
    const int last = e->rank - 1;
    while (true) {
        int64_t offset = 0;
        for (int i = 0; i < last; i++) offset += at[i] * e->stride[i];
        const uint8_t *row = e->data + (size_t)offset * n_element;
        for (int64_t k = 0; k < e->shape[last]; k++, out += n_element)
            memcpy(out, row + (size_t)(k * e->stride[last]) * n_element, n_element);
        int i = last - 1;
        while (i >= 0 && ++at[i] == e->shape[i]) at[i--] = 0;
        if (i < 0) return;
    }
}

static kac_status own_data(const kac_weights *s, const kac_weights_entry *entry, const void **data) {
    kac_weights_entry *e = &s->entries[entry - s->entries];
    if (e->own_data == NULL) {
        e->own_data = kac_alloc(e->n_bytes);
        if (e->own_data == NULL) return KAC_E_MEMORY;
        if (e->strided)
            gather(e->own_data, e, kac_dtype_bytes((kac_dtype)e->dtype));
        else
            memcpy(e->own_data, e->data, e->n_bytes);
    }
    *data = e->own_data;
    return KAC_OK;
}

kac_status kac_weights_view(const kac_weights *s, const kac_weights_entry *entry, kac_tensor *out) {
    char shown[96];
    const char *path = s->n_files > 0 ? s->files[entry->file].path : s->path;
    if (entry->dtype < 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%s\" is %s, which kac does not read", path,
                        kac_weights_shown(entry->name, shown), entry->dtype_name);
    if (entry->rank > KAC_MAX_RANK)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%s\" has %d axes, kac reads up to %d", path,
                        kac_weights_shown(entry->name, shown), entry->rank, (int)KAC_MAX_RANK);
    const void *data = entry->data;
    const bool misaligned = (uintptr_t)data % kac_dtype_bytes((kac_dtype)entry->dtype) != 0;
    if ((misaligned || entry->strided) && entry->n_bytes > 0) KAC_TRY(own_data(s, entry, &data));
    /* A view of no bytes may point to the end of the mapping; it still counts as a tensor. */
    *out = kac_tensor_of((void *)(uintptr_t)data, (kac_dtype)entry->dtype, entry->rank, entry->shape);
    return KAC_OK;
}

const char *kac_weights_metadata(const kac_weights *s, const char *key) {
    for (int i = 0; i < s->n_files; i++) {
        const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(s->files[i].header.root, "__metadata__");
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(metadata, key);
        if (cJSON_IsString(item)) return item->valuestring;
    }
    return NULL;
}
