#include "base/staged.h"
#include "io/safetensors.h"
#include "io/utf8.h"
#include "io/weights.h"
#include <stdlib.h>
#include <string.h>

/* The reference library's order of dtypes in a file, the largest elements first so that all stay aligned. */
static const kac_dtype dtype_order[] = {KAC_U64, KAC_I64, KAC_F64, KAC_F32, KAC_U32, KAC_I32, KAC_BF16,
                                        KAC_F16, KAC_U16, KAC_I16, KAC_I8,  KAC_U8,  KAC_BOOL};

static int dtype_place(kac_dtype dtype) {
    int i = 0;
    while (dtype_order[i] != dtype) i++;
    return i;
}

static int by_dtype_and_name(const void *pa, const void *pb) {
    const kac_st_item *a = *(const kac_st_item *const *)pa, *b = *(const kac_st_item *const *)pb;
    const int d = dtype_place(a->tensor.dtype) - dtype_place(b->tensor.dtype);
    return d != 0 ? d : strcmp(a->name, b->name);
}

static int by_name(const void *pa, const void *pb) {
    return strcmp((*(const kac_st_item *const *)pa)->name, (*(const kac_st_item *const *)pb)->name);
}

/* Sorts `sorted` by name to see pairs. */
static kac_status check_items(const char *path, const kac_st_item **sorted, int n) {
    for (int i = 0; i < n; i++) {
        char shown[96];
        const kac_st_item *it = sorted[i];
        if (!kac_utf8_valid(it->name, strlen(it->name)) || strcmp(it->name, "__metadata__") == 0)
            return KAC_FAIL(KAC_E_USAGE, "%s: \"%s\" cannot name a tensor", path, kac_weights_shown(it->name, shown));
        if (!kac_tensor_contiguous(it->tensor))
            return KAC_FAIL(KAC_E_USAGE, "%s: tensor \"%s\" has gaps", path, kac_weights_shown(it->name, shown));
    }
    qsort(sorted, (size_t)n, sizeof(*sorted), by_name);
    for (int i = 1; i < n; i++) {
        char shown[96];
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return KAC_FAIL(KAC_E_USAGE, "%s: two tensors are named \"%s\"", path,
                            kac_weights_shown(sorted[i]->name, shown));
    }
    return KAC_OK;
}

static void add_quoted(kac_text *t, const char *s) {
    static const char short_forms[] = "\b\t\n\f\r\"\\", letters[] = "btnfr\"\\";
    kac_text_add_bytes(t, "\"", 1);
    for (; *s != 0; s++) {
        const char *known = strchr(short_forms, *s);
        if (known != NULL)
            kac_text_add(t, "\\%c", letters[known - short_forms]);
        else if ((unsigned char)*s < 32)
            kac_text_add(t, "\\u%04x", (unsigned)(unsigned char)*s);
        else
            kac_text_add_bytes(t, s, 1);
    }
    kac_text_add_bytes(t, "\"", 1);
}

static void add_header(kac_text *t, const kac_st_item *const *sorted, int n, const kac_st_pair *metadata,
                       int n_metadata) {
    kac_text_add(t, "{");
    for (int i = 0; i < n_metadata; i++) {
        kac_text_add(t, i == 0 ? "\"__metadata__\":{" : ",");
        add_quoted(t, metadata[i].key);
        kac_text_add(t, ":");
        add_quoted(t, metadata[i].value);
    }
    if (n_metadata > 0) kac_text_add(t, n > 0 ? "}," : "}");
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const kac_tensor x = sorted[i]->tensor;
        if (i > 0) kac_text_add(t, ",");
        add_quoted(t, sorted[i]->name);
        kac_text_add(t, ":{\"dtype\":\"%s\",\"shape\":[", kac_dtype_name(x.dtype));
        for (int a = 0; a < x.rank; a++) kac_text_add(t, "%s%lld", a > 0 ? "," : "", (long long)x.shape[a]);
        kac_text_add(t, "],\"data_offsets\":[%zu,%zu]}", at, at + kac_tensor_bytes(x));
        at += kac_tensor_bytes(x);
    }
    kac_text_add(t, "}");
    while (t->n % 8 != 0 && !t->failed) kac_text_add(t, " ");
}

/* Where the numbers come from: fetch NULL: the tensors themselves. */
typedef struct numbers {
    const kac_st_item *items;
    kac_st_fetch *fetch;
    void *self;
} numbers;

static kac_status write_file(const char *path, const kac_text *header, const kac_st_item *const *sorted, int n,
                             const numbers *from) {
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header->n >> (8 * i));
    kac_staged f;
    KAC_TRY(kac_staged_open(&f, path));
    KAC_TRY(kac_staged_add(&f, length, sizeof(length)));
    KAC_TRY(kac_staged_add(&f, header->s, header->n));
    for (int i = 0; i < n; i++) {
        const void *data = sorted[i]->tensor.data;
        const kac_status s =
            from->fetch == NULL ? KAC_OK : from->fetch(from->self, (int)(sorted[i] - from->items), &data);
        if (s != KAC_OK) kac_staged_cancel(&f);
        KAC_TRY(s);
        KAC_TRY(kac_staged_add(&f, data, kac_tensor_bytes(sorted[i]->tensor)));
    }
    return kac_staged_commit(&f);
}

kac_status kac_st_write(const char *path, const kac_st_item *items, int n_items, const kac_st_pair *metadata,
                        int n_metadata) {
    return kac_st_write_fetched(path, items, n_items, metadata, n_metadata, NULL, NULL);
}

kac_status kac_st_write_fetched(const char *path, const kac_st_item *items, int n_items, const kac_st_pair *metadata,
                                int n_metadata, kac_st_fetch *fetch, void *self) {
    for (int i = 0; i < n_metadata; i++)
        if (!kac_utf8_valid(metadata[i].key, strlen(metadata[i].key)) ||
            !kac_utf8_valid(metadata[i].value, strlen(metadata[i].value)))
            return KAC_FAIL(KAC_E_USAGE, "%s: metadata %d is not UTF-8", path, i);
    const kac_st_item **sorted = kac_alloc(sizeof(*sorted) * (size_t)n_items);
    if (sorted == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n_items; i++) sorted[i] = &items[i];
    kac_status status = check_items(path, sorted, n_items);
    kac_text header = {0};
    if (status == KAC_OK) {
        qsort(sorted, (size_t)n_items, sizeof(*sorted), by_dtype_and_name);
        add_header(&header, sorted, n_items, metadata, n_metadata);
        if (header.failed)
            status = KAC_E_MEMORY;
        else if (header.n > KAC_ST_MAX_HEADER_BYTES)
            status = KAC_FAIL(KAC_E_USAGE, "%s: the header would be longer than the format allows", path);
    }
    if (status == KAC_OK) status = write_file(path, &header, sorted, n_items, &(numbers){items, fetch, self});
    kac_text_free(&header);
    kac_free(sorted);
    return status;
}
