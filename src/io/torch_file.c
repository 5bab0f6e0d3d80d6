#include "io/torch_file.h"
#include "io/pickle.h"
#include "io/utf8.h"
#include "io/zip.h"
#include <stdlib.h>
#include <string.h>

/* Source: torch/serialization.py, _save (zip) and _legacy_save. */
enum {
    MAX_DEPTH = 32,
    MAX_VISITS = 4 << 20, /* of values; a value may hang in many places */
    MAX_TENSORS = 1 << 20,
    MAX_NAME = 500,
    MAX_METADATA = 64,
};

/* The first pickle of the old format: the number 0x1950a86a20f9469cfc6c. */
static const uint8_t old_magic[] = {0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

bool kac_torch_is_file(kac_map map) {
    return (map.n >= 4 && memcmp(map.data, "PK\3\4", 4) == 0) ||
           (map.n >= sizeof old_magic && memcmp(map.data, old_magic, sizeof old_magic) == 0);
}

/* A file on its way to entries. */
typedef struct reader {
    kac_weights_file *f;
    kac_pickle p;
    kac_zip zip;
    char *prefix;            /* of the archive's entries, with the slash; NULL: the old format */
    kac_zip_entry *storages; /* of the old format, sorted by name; names owned */
    int n_storages;
    kac_weights_entry *entries;
    int n, cap, n_visits;
    char name[MAX_NAME + 1]; /* of the value being visited */
} reader;

static char *copy_text(const kac_pickle_value *v) {
    return memchr(v->text.s, 0, v->text.n) == NULL && kac_utf8_valid((const uint8_t *)v->text.s, v->text.n)
               ? kac_format("%.*s", (int)KAC_MIN(v->text.n, 1 << 20), v->text.s)
               : kac_strdup("?");
}

/* ---- storages ---- */

static int by_name(const void *pa, const void *pb) {
    return strcmp(((const kac_zip_entry *)pa)->name, ((const kac_zip_entry *)pb)->name);
}

/* The bytes of a storage; *found NULL when the file has none of that key. */
static kac_status find_storage(const reader *r, const kac_pickle_value *storage, const kac_zip_entry **found) {
    char *key = copy_text(kac_pickle_at(&r->p, storage->storage.key));
    if (key == NULL) return KAC_E_MEMORY;
    *found = NULL;
    if (r->prefix == NULL) {
        const kac_zip_entry wanted = {.name = key};
        if (r->n_storages > 0) *found = bsearch(&wanted, r->storages, (size_t)r->n_storages, sizeof(wanted), by_name);
    } else {
        char *name = kac_format("%sdata/%s", r->prefix, key);
        if (name != NULL) *found = kac_zip_find(&r->zip, name);
        kac_free(name);
        if (name == NULL) {
            kac_free(key);
            return KAC_E_MEMORY;
        }
    }
    char shown[96];
    const kac_status s = *found != NULL ? KAC_OK
                                        : KAC_FAIL(KAC_E_FORMAT, "%s: tensor \"%s\": the file has no storage %s",
                                                   r->f->path, r->name, kac_weights_shown(key, shown));
    kac_free(key);
    return s == KAC_OK ? kac_zip_usable(*found, r->f->path) : s;
}

/* ---- tensors ---- */

#define BAD_TENSOR(r, ...) bad_tensor((r), __VA_ARGS__)
static kac_status bad_tensor(const reader *r, const char *what) {
    char shown[96];
    return KAC_FAIL(KAC_E_FORMAT, "%s: tensor \"%s\" %s", r->f->path, kac_weights_shown(r->name, shown), what);
}

/* Shape and strides; the number of elements and the place of the last one. */
static kac_status read_layout(const reader *r, const kac_pickle_value *v, kac_weights_entry *e, int64_t *count,
                              int64_t *last) {
    const kac_pickle_value *shape = kac_pickle_at(&r->p, v->tensor.shape),
                           *stride = kac_pickle_at(&r->p, v->tensor.stride);
    bool overflow = false;
    int64_t dense = 1;
    *count = 1;
    *last = v->tensor.offset;
    e->rank = (int)shape->list.n;
    for (int i = e->rank - 1; i >= 0; i--) {
        const int64_t size = kac_pickle_at(&r->p, shape->list.items[i])->i,
                      step = kac_pickle_at(&r->p, stride->list.items[i])->i;
        int64_t reach;
        if (i < KAC_MAX_RANK) e->shape[i] = size, e->stride[i] = step;
        e->strided |= size > 1 && step != dense;
        overflow |= __builtin_mul_overflow(*count, size, count);
        overflow |=
            size > 0 && (__builtin_mul_overflow(size - 1, step, &reach) || __builtin_add_overflow(*last, reach, last));
        dense = *count;
    }
    return overflow ? BAD_TENSOR(r, "has a shape that overflows") : KAC_OK;
}

static kac_status add_tensor(reader *r, const kac_pickle_value *v) {
    const kac_pickle_value *storage = kac_pickle_at(&r->p, v->tensor.storage);
    const kac_torch_dtype *dtype = &kac_torch_dtypes[v->dtype];
    const kac_zip_entry *bytes;
    kac_weights_entry e = {.dtype_name = dtype->st_name, .dtype = dtype->dtype};
    int64_t count, last, n_bytes;
    if (r->n == MAX_TENSORS) return BAD_TENSOR(r, "is one too many");
    KAC_TRY(read_layout(r, v, &e, &count, &last));
    KAC_TRY(find_storage(r, storage, &bytes));
    if (__builtin_mul_overflow(count, dtype->n_bytes, &n_bytes)) return BAD_TENSOR(r, "has a shape that overflows");
    if (count > 0 && last >= (int64_t)(bytes->n / (size_t)dtype->n_bytes))
        return BAD_TENSOR(r, "does not lie in its storage");
    /* Expanded tensors repeat elements; a small file must not ask for memory without end. */
    if ((uint64_t)n_bytes > r->f->map.n + (1 << 24)) return BAD_TENSOR(r, "claims more bytes than the file has");
    if (e.strided && e.rank > KAC_MAX_RANK) e.strided = false; /* cannot be used anyway */
    e.n_bytes = (size_t)n_bytes;
    e.data = bytes->data + (count > 0 ? (size_t)v->tensor.offset * (size_t)dtype->n_bytes : 0);
    if (r->n == r->cap) {
        const int cap = r->cap == 0 ? 64 : 2 * r->cap;
        kac_weights_entry *grown = kac_realloc(r->entries, sizeof *grown * (size_t)cap);
        if (grown == NULL) return KAC_E_MEMORY;
        r->entries = grown;
        r->cap = cap;
    }
    e.own_name = kac_strdup(r->name);
    if (e.own_name == NULL) return KAC_E_MEMORY;
    e.name = e.own_name;
    r->entries[r->n++] = e;
    return KAC_OK;
}

/* ---- the tree ---- */

/* Appends ".key" to r->name; *n is where it was. False: the key is neither text nor number. */
static kac_status enter(reader *r, const kac_pickle_value *key, int64_t index, bool *entered) {
    const size_t n = strlen(r->name), room = MAX_NAME - n;
    *entered = false;
    if (key != NULL && key->kind != KAC_PICKLE_TEXT && key->kind != KAC_PICKLE_INT) return KAC_OK;
    char *text = key != NULL && key->kind == KAC_PICKLE_TEXT
                     ? copy_text(key)
                     : kac_format("%lld", (long long)(key != NULL ? key->i : index));
    if (text == NULL) return KAC_E_MEMORY;
    const size_t n_text = strlen(text), n_dot = n > 0;
    const bool fits = n_text + n_dot <= room;
    if (fits) {
        if (n_dot) r->name[n] = '.';
        memcpy(r->name + n + n_dot, text, n_text + 1);
    }
    kac_free(text);
    *entered = true;
    return fits ? KAC_OK : BAD_TENSOR(r, "holds one with a name that is too long");
}

static kac_status visit(reader *r, const kac_pickle_value *v, int depth) {
    if (++r->n_visits > MAX_VISITS) return KAC_FAIL(KAC_E_FORMAT, "%s: holds too many values", r->f->path);
    if (v->kind == KAC_PICKLE_TENSOR) return add_tensor(r, v);
    if (v->kind != KAC_PICKLE_DICT && v->kind != KAC_PICKLE_LIST) return KAC_OK;
    if (depth == MAX_DEPTH)
        return KAC_FAIL(KAC_E_FORMAT, "%s: is nested deeper than %d levels (does something contain itself?)",
                        r->f->path, (int)MAX_DEPTH);
    const bool dict = v->kind == KAC_PICKLE_DICT;
    const size_t n = strlen(r->name);
    for (uint32_t i = 0; i + dict < v->list.n; i += 1 + dict) {
        bool entered;
        const kac_pickle_value *key = dict ? kac_pickle_at(&r->p, v->list.items[i]) : NULL;
        KAC_TRY(enter(r, key, i, &entered));
        if (entered) KAC_TRY(visit(r, kac_pickle_at(&r->p, v->list.items[i + dict]), depth + 1));
        r->name[n] = 0;
    }
    return KAC_OK;
}

/* What lies beside the tensors, as texts. */
static kac_status add_metadata(reader *r, const kac_pickle_value *root) {
    cJSON *all = cJSON_CreateObject(), *metadata = cJSON_AddObjectToObject(all, "__metadata__");
    r->f->header.root = all;
    for (uint32_t i = 0, n = 0; i + 1 < root->list.n && n < MAX_METADATA; i += 2) {
        const kac_pickle_value *key = kac_pickle_at(&r->p, root->list.items[i]),
                               *v = kac_pickle_at(&r->p, root->list.items[i + 1]);
        if (key->kind != KAC_PICKLE_TEXT || key->text.n > 256 || (v->kind == KAC_PICKLE_TEXT && v->text.n > 1024))
            continue;
        char *value = v->kind == KAC_PICKLE_TEXT   ? copy_text(v)
                      : v->kind == KAC_PICKLE_REAL ? kac_format("%.17g", v->r)
                      : v->kind == KAC_PICKLE_INT  ? kac_format("%lld", (long long)v->i)
                                                   : NULL;
        char *name = value == NULL ? NULL : copy_text(key);
        if (name != NULL) cJSON_AddStringToObject(metadata, name, value);
        kac_free(name);
        kac_free(value);
        n++;
    }
    return all == NULL || metadata == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status read_tree(reader *r) {
    static const char *const inner[] = {"state_dict", "params_ema", "params"};
    const kac_pickle_value *root = kac_pickle_at(&r->p, r->p.root);
    if (root->kind == KAC_PICKLE_TENSOR)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: holds one tensor without a name", r->f->path);
    if (root->kind != KAC_PICKLE_DICT) return KAC_FAIL(KAC_E_FORMAT, "%s: holds no dictionary of tensors", r->f->path);
    KAC_TRY(add_metadata(r, root));
    for (int i = 0; i < KAC_COUNT_OF(inner); i++) {
        const kac_pickle_value *v = kac_pickle_key(&r->p, root, inner[i]);
        if (v == NULL || v->kind != KAC_PICKLE_DICT) continue;
        root = v;
        break;
    }
    KAC_TRY(visit(r, root, 0));
    return r->n > 0 ? KAC_OK : KAC_FAIL(KAC_E_FORMAT, "%s: holds no tensors", r->f->path);
}

/* ---- the two formats ---- */

static kac_status check_archive(const reader *r, const char *path) {
    char *script = kac_format("%sconstants.pkl", r->prefix), *order = kac_format("%sbyteorder", r->prefix);
    kac_status s = script == NULL || order == NULL ? KAC_E_MEMORY : KAC_OK;
    const kac_zip_entry *e = s == KAC_OK ? kac_zip_find(&r->zip, order) : NULL;
    if (s == KAC_OK && kac_zip_find(&r->zip, script) != NULL)
        s = KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a TorchScript program, not a file of tensors: save its state_dict()",
                     path);
    else if (e != NULL && !(!e->packed && e->n == 6 && memcmp(e->data, "little", 6) == 0))
        s = KAC_FAIL(KAC_E_UNSUPPORTED, "%s: its numbers are not little-endian", path);
    kac_free(script);
    kac_free(order);
    return s;
}

static kac_status read_zip(reader *r) {
    static const char pickle[] = "data.pkl";
    KAC_TRY(kac_zip_open(&r->zip, r->f->map, r->f->path));
    const kac_zip_entry *found = NULL;
    for (int i = 0; i < r->zip.n_entries; i++) {
        const char *name = r->zip.entries[i].name, *slash = strchr(name, '/');
        if (strcmp(slash == NULL ? name : slash + 1, pickle) != 0) continue;
        if (found != NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: the archive holds more than one data.pkl", r->f->path);
        found = &r->zip.entries[i];
    }
    if (found == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a zip archive, but not PyTorch's: it has no data.pkl", r->f->path);
    r->prefix = kac_format("%.*s", (int)(strlen(found->name) - strlen(pickle)), found->name);
    if (r->prefix == NULL) return KAC_E_MEMORY;
    KAC_TRY(check_archive(r, r->f->path));
    KAC_TRY(kac_zip_usable(found, r->f->path));
    size_t n_used;
    KAC_TRY(kac_pickle_read(&r->p, found->data, found->n, &n_used, r->f->path));
    return read_tree(r);
}

/* One more pickle of the old format, behind *at. */
static kac_status next_pickle(kac_pickle *p, const reader *r, size_t *at) {
    size_t n_used;
    KAC_TRY(kac_pickle_read(p, r->f->map.data + *at, r->f->map.n - *at, &n_used, r->f->path));
    *at += n_used;
    return KAC_OK;
}

/* A storage that the pickle names. */
typedef struct named_storage {
    const char *key;
    size_t n_key;
    int n_element;
} named_storage;

static int by_key(const void *pa, const void *pb) {
    const named_storage *a = pa, *b = pb;
    const int d = memcmp(a->key, b->key, KAC_MIN(a->n_key, b->n_key));
    return d != 0 ? d : (a->n_key > b->n_key) - (a->n_key < b->n_key);
}

/* All storages that r->p names, sorted; caller: kac_free. */
static kac_status named_storages(const reader *r, named_storage **out, size_t *n) {
    *n = 0;
    *out = kac_alloc(sizeof **out * KAC_MAX(r->p.n_values, 1));
    if (*out == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < r->p.n_values; i++) {
        const kac_pickle_value *v = &r->p.values[i];
        if (v->kind != KAC_PICKLE_STORAGE) continue;
        const kac_pickle_value *key = kac_pickle_at(&r->p, v->storage.key);
        (*out)[(*n)++] = (named_storage){key->text.s, key->text.n, kac_torch_dtypes[v->dtype].n_bytes};
    }
    qsort(*out, *n, sizeof **out, by_key);
    return KAC_OK;
}

/* The list of keys, then for each in its order the number of elements and the elements. */
static kac_status read_old_storages(reader *r, const kac_pickle *keys, size_t at, const named_storage *named,
                                    size_t n_named) {
    const kac_map map = r->f->map;
    const kac_pickle_value *list = kac_pickle_at(keys, keys->root);
    if (list->kind != KAC_PICKLE_LIST || list->list.n > MAX_TENSORS)
        return KAC_FAIL(KAC_E_FORMAT, "%s: its list of storages is broken", r->f->path);
    r->storages = kac_alloc(sizeof(*r->storages) * KAC_MAX(list->list.n, 1));
    if (r->storages == NULL) return KAC_E_MEMORY;
    for (uint32_t i = 0; i < list->list.n; i++) {
        const kac_pickle_value *key = kac_pickle_at(keys, list->list.items[i]);
        const named_storage wanted = {key->text.s, key->text.n, 0},
                            *found = key->kind == KAC_PICKLE_TEXT && n_named > 0
                                         ? bsearch(&wanted, named, n_named, sizeof wanted, by_key)
                                         : NULL;
        uint64_t n = 0, n_bytes;
        for (int b = 7; b >= 0 && map.n - at >= 8; b--) n = n << 8 | map.data[at + (size_t)b];
        if (found == NULL || map.n - at < 8 || __builtin_mul_overflow(n, (uint64_t)found->n_element, &n_bytes) ||
            n_bytes > map.n - at - 8)
            return KAC_FAIL(KAC_E_FORMAT, "%s: storage %u of %u does not lie in the file: was the download cut off?",
                            r->f->path, i + 1, list->list.n);
        kac_zip_entry *e = &r->storages[r->n_storages++];
        *e = (kac_zip_entry){.name = copy_text(key), .data = map.data + at + 8, .n = n_bytes};
        if (e->name == NULL) return KAC_E_MEMORY;
        at += 8 + n_bytes;
    }
    qsort(r->storages, (size_t)r->n_storages, sizeof(*r->storages), by_name);
    return KAC_OK;
}

static kac_status read_old(reader *r) {
    kac_pickle keys = {0};
    size_t at = sizeof old_magic;
    KAC_TRY(next_pickle(&keys, r, &at)); /* its version */
    kac_pickle_free(&keys);
    KAC_TRY(next_pickle(&keys, r, &at)); /* the system that wrote it */
    const kac_pickle_value *order = kac_pickle_key(&keys, kac_pickle_at(&keys, keys.root), "little_endian");
    const bool big = order != NULL && order->kind == KAC_PICKLE_BOOL && order->i == 0;
    kac_pickle_free(&keys);
    if (big) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: its numbers are not little-endian", r->f->path);
    KAC_TRY(next_pickle(&r->p, r, &at));
    KAC_TRY(next_pickle(&keys, r, &at));
    named_storage *named;
    size_t n_named;
    kac_status s = named_storages(r, &named, &n_named);
    if (s == KAC_OK) s = read_old_storages(r, &keys, at, named, n_named);
    kac_free(named);
    kac_pickle_free(&keys);
    return s == KAC_OK ? read_tree(r) : s;
}

kac_status kac_torch_read(kac_weights_file *f, kac_weights_entry **entries, int *n_entries) {
    reader r = {.f = f};
    const kac_status s = memcmp(f->map.data, "PK", 2) == 0 ? read_zip(&r) : read_old(&r);
    for (int i = 0; s != KAC_OK && i < r.n; i++) kac_free(r.entries[i].own_name);
    for (int i = 0; i < r.n_storages; i++) kac_free(r.storages[i].name);
    if (s != KAC_OK) kac_free(r.entries);
    kac_free(r.storages);
    kac_free(r.prefix);
    kac_zip_close(&r.zip);
    kac_pickle_free(&r.p);
    *entries = s == KAC_OK ? r.entries : NULL;
    *n_entries = s == KAC_OK ? r.n : 0;
    return s;
}
