#include "io/safetensors_header.h"
#include "io/safetensors.h"
#include "io/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Dtypes that the format knows and kac does not compute with: name, bits. */
static const struct {
    const char *name;
    int bits;
} other_dtypes[] = {
    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"C64", 64},
};

static const struct {
    const char *name;
    int bytes;
} own_dtypes[] = {
#define OWN_DTYPE(dtype, bytes, name) [dtype] = {name, bytes},
    KAC_DTYPE_LIST(OWN_DTYPE)
#undef OWN_DTYPE
};

#define TENSOR_FAIL(status, ...) tensor_fail(f, e->name, (status), __VA_ARGS__)

__attribute__((format(printf, 4, 5))) static kac_status tensor_fail(const kac_weights_file *f, const char *name,
                                                                    kac_status status, const char *format, ...) {
    char text[256], shown[96];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return KAC_FAIL(status, "%s: tensor \"%s\": %s", f->path, kac_weights_shown(name, shown), text);
}

/* Files that people mistake for safetensors. */
static kac_status refuse_other_kind(const kac_weights_file *f) {
    const char *s = (const char *)f->map.data;
    const size_t n = f->map.n;
    const bool braced = n > 8 && s[8] == '{'; /* a header whose length happens to begin like a pickle */
    if (n >= 2 && !braced && s[0] == (char)0x80 && s[1] >= 2 && s[1] <= 5)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s is a Python pickle, but none of torch.save: kac reads safetensors and PyTorch files",
                        f->path);
    if (n >= 5 && (memcmp(s, "<!DOC", 5) == 0 || memcmp(s, "<html", 5) == 0))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a web page, not weights: the download went wrong", f->path);
    if (n >= 4 && memcmp(s, "GGUF", 4) == 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a GGUF file: kac reads safetensors", f->path);
    if (n >= 23 && memcmp(s, "version https://git-lfs", 23) == 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is a Git LFS pointer, not the weights: run git lfs pull", f->path);
    return KAC_OK;
}

/* A whole number 0 … 2^53, beyond which JSON numbers are no longer exact. */
static bool whole(const cJSON *item, int64_t *out) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 9007199254740992.0)) return false;
    *out = (int64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static kac_status read_dtype(const kac_weights_file *f, const cJSON *item, kac_weights_entry *e, int *bits) {
    if (!cJSON_IsString(item)) return TENSOR_FAIL(KAC_E_FORMAT, "dtype must be a text");
    e->dtype_name = item->valuestring;
    e->dtype = -1;
    for (int i = 0; i < KAC_COUNT_OF(own_dtypes); i++) {
        if (strcmp(own_dtypes[i].name, e->dtype_name) != 0) continue;
        e->dtype = i;
        *bits = 8 * own_dtypes[i].bytes;
        return KAC_OK;
    }
    for (int i = 0; i < KAC_COUNT_OF(other_dtypes); i++) {
        if (strcmp(other_dtypes[i].name, e->dtype_name) != 0) continue;
        *bits = other_dtypes[i].bits;
        return KAC_OK;
    }
    char shown[96];
    return TENSOR_FAIL(KAC_E_FORMAT, "unknown dtype \"%s\"", kac_weights_shown(e->dtype_name, shown));
}

static kac_status read_shape(const kac_weights_file *f, const cJSON *list, kac_weights_entry *e, int bits,
                             int64_t *n_bytes) {
    if (!cJSON_IsArray(list)) return TENSOR_FAIL(KAC_E_FORMAT, "shape must be a list of sizes");
    int64_t n_bits = bits;
    bool overflow = false;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        int64_t size;
        if (!whole(item, &size))
            return TENSOR_FAIL(KAC_E_FORMAT, "size %d of the shape is not a whole number", e->rank);
        if (e->rank < KAC_MAX_RANK) e->shape[e->rank] = size;
        e->rank++;
        overflow |= __builtin_mul_overflow(n_bits, size, &n_bits);
    }
    if (overflow) return TENSOR_FAIL(KAC_E_FORMAT, "the product of its shape overflows");
    if (n_bits % 8 != 0) return TENSOR_FAIL(KAC_E_FORMAT, "does not fill whole bytes");
    *n_bytes = n_bits / 8;
    return KAC_OK;
}

static kac_status read_offsets(const kac_weights_file *f, const cJSON *list, kac_weights_entry *e, const uint8_t *data,
                               int64_t n_data, int64_t n_bytes) {
    int64_t begin, end;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != 2 || !whole(list->child, &begin) ||
        !whole(list->child->next, &end))
        return TENSOR_FAIL(KAC_E_FORMAT, "data_offsets must be two whole numbers");
    if (begin > end || end > n_data)
        return TENSOR_FAIL(KAC_E_FORMAT, "bytes %lld to %lld do not lie in the file, which has %lld bytes of data",
                           (long long)begin, (long long)end, (long long)n_data);
    if (end - begin != n_bytes)
        return TENSOR_FAIL(KAC_E_FORMAT, "its shape needs %lld bytes, its data_offsets give %lld", (long long)n_bytes,
                           (long long)(end - begin));
    e->data = data + begin;
    e->n_bytes = (size_t)n_bytes;
    return KAC_OK;
}

static kac_status read_entry(const kac_weights_file *f, const cJSON *info, kac_weights_entry *e, const uint8_t *data,
                             size_t n_data) {
    e->name = info->string;
    if (!cJSON_IsObject(info)) return TENSOR_FAIL(KAC_E_FORMAT, "must be an object");
    const cJSON *dtype = NULL, *shape = NULL, *offsets = NULL, *item;
    cJSON_ArrayForEach(item, info) {
        const cJSON **slot = strcmp(item->string, "dtype") == 0          ? &dtype
                             : strcmp(item->string, "shape") == 0        ? &shape
                             : strcmp(item->string, "data_offsets") == 0 ? &offsets
                                                                         : NULL;
        if (slot == NULL) continue;
        if (*slot != NULL) return TENSOR_FAIL(KAC_E_FORMAT, "%s is given twice", item->string);
        *slot = item;
    }
    if (dtype == NULL || shape == NULL || offsets == NULL)
        return TENSOR_FAIL(KAC_E_FORMAT, "needs dtype, shape and data_offsets");
    int bits = 0;
    int64_t n_bytes = 0;
    KAC_TRY(read_dtype(f, dtype, e, &bits));
    KAC_TRY(read_shape(f, shape, e, bits, &n_bytes));
    return read_offsets(f, offsets, e, data, (int64_t)n_data, n_bytes);
}

static kac_status check_metadata(const kac_weights_file *f, const cJSON *metadata) {
    if (!cJSON_IsObject(metadata)) return KAC_FAIL(KAC_E_FORMAT, "%s: __metadata__ must be an object", f->path);
    const cJSON *item;
    cJSON_ArrayForEach(item, metadata) {
        char shown[96];
        if (!cJSON_IsString(item))
            return KAC_FAIL(KAC_E_FORMAT, "%s: __metadata__ \"%s\" must be a text", f->path,
                            kac_weights_shown(item->string, shown));
    }
    return KAC_OK;
}

static int by_place(const void *pa, const void *pb) {
    const kac_weights_entry *a = pa, *b = pb;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    return a->n_bytes < b->n_bytes ? -1 : a->n_bytes > b->n_bytes;
}

/* No gaps, no overlaps, nothing after the last one: what the reference library demands. */
static kac_status check_cover(const kac_weights_file *f, kac_weights_entry *entries, int n, const uint8_t *data,
                              size_t n_data) {
    qsort(entries, (size_t)n, sizeof(*entries), by_place);
    const uint8_t *at = data;
    for (int i = 0; i < n; i++) {
        const kac_weights_entry *e = &entries[i];
        if (e->data != at)
            return TENSOR_FAIL(KAC_E_FORMAT,
                               e->data < at ? "overlaps the one before it" : "unused bytes lie before it");
        at = e->data + e->n_bytes;
    }
    if (at != data + n_data)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %zu bytes after the last tensor belong to none", f->path,
                        (size_t)(data + n_data - at));
    return KAC_OK;
}

static kac_status read_entries(const kac_weights_file *f, kac_weights_entry *entries, int *n_entries,
                               const uint8_t *data, size_t n_data) {
    const cJSON *item, *metadata = NULL;
    int n = 0;
    cJSON_ArrayForEach(item, f->header.root) {
        if (strcmp(item->string, "__metadata__") == 0) {
            if (metadata != NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: __metadata__ is given twice", f->path);
            metadata = item;
            KAC_TRY(check_metadata(f, metadata));
        } else {
            KAC_TRY(read_entry(f, item, &entries[n], data, n_data));
            n++;
        }
    }
    *n_entries = n;
    return check_cover(f, entries, n, data, n_data);
}

kac_status kac_st_header_read(kac_weights_file *f, kac_weights_entry **entries, int *n_entries) {
    *entries = NULL;
    *n_entries = 0;
    KAC_TRY(refuse_other_kind(f));
    if (f->map.n < 8) return KAC_FAIL(KAC_E_FORMAT, "%s: %zu bytes are too few for weights", f->path, f->map.n);
    uint64_t n_header = 0;
    for (int i = 7; i >= 0; i--) n_header = n_header << 8 | f->map.data[i];
    if (n_header > KAC_ST_MAX_HEADER_BYTES)
        return KAC_FAIL(KAC_E_FORMAT,
                        "%s: header of %llu bytes is larger than the format allows (not a safetensors file?)", f->path,
                        (unsigned long long)n_header);
    if (n_header > f->map.n - 8)
        return KAC_FAIL(KAC_E_FORMAT, "%s: header of %llu bytes does not fit into the file of %zu bytes (cut off?)",
                        f->path, (unsigned long long)n_header, f->map.n);
    const uint8_t *header = f->map.data + 8, *data = header + n_header;
    if (!kac_utf8_valid(header, n_header)) return KAC_FAIL(KAC_E_FORMAT, "%s: the header is not UTF-8", f->path);
    KAC_TRY(kac_json_parse(&f->header, (const char *)header, n_header, f->path));
    const int n = cJSON_GetArraySize(f->header.root);
    *entries = kac_alloc(sizeof(**entries) * (size_t)KAC_MAX(n, 1));
    if (*entries == NULL) return KAC_E_MEMORY;
    const kac_status status = read_entries(f, *entries, n_entries, data, f->map.n - 8 - n_header);
    if (status != KAC_OK) {
        kac_free(*entries);
        *entries = NULL;
        *n_entries = 0;
    }
    return status;
}
