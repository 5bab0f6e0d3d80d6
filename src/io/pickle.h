/* A Python pickle, read as data. No code is ever run and no object made: what a pickle asks Python to import is looked up in
 * a short list of names that mean tensors, storages, dictionaries or harmless values; anything else is refused by name.
 *
 *     kac_pickle p;
 *     KAC_TRY(kac_pickle_read(&p, data, n, &n_used, path));
 *     const kac_pickle_value *root = kac_pickle_at(&p, p.root);
 *     kac_pickle_free(&p);
 *
 * Source: CPython's Lib/pickletools.py (opcodes); torch/serialization.py and torch/_utils.py 2.x (what the names mean). */
#ifndef KAC_IO_PICKLE_H
#define KAC_IO_PICKLE_H

#include "base/base.h"

/* What kac_torch_dtypes holds; a storage's and a tensor's dtype is an index into it. */
typedef struct kac_torch_dtype {
    const char *storage, *name, *alias; /* "FloatStorage", "float32", "float" */
    int dtype;                          /* a kac_dtype, or -1 */
    int n_bytes;
    const char *st_name; /* as safetensors spells it */
} kac_torch_dtype;
extern const kac_torch_dtype kac_torch_dtypes[];

typedef enum kac_pickle_kind {
    KAC_PICKLE_NONE,
    KAC_PICKLE_BOOL, /* i */
    KAC_PICKLE_INT,  /* i */
    KAC_PICKLE_REAL, /* r */
    KAC_PICKLE_TEXT, /* text */
    KAC_PICKLE_LIST, /* list; tuples too */
    KAC_PICKLE_DICT, /* list of key, value, key, value, … */
    KAC_PICKLE_NAME, /* i: something imported */
    KAC_PICKLE_STORAGE,
    KAC_PICKLE_TENSOR,
    KAC_PICKLE_OTHER /* harmless, of no interest */
} kac_pickle_kind;

typedef uint32_t kac_pickle_ref; /* index of a value */

typedef struct kac_pickle_value {
    uint8_t kind, dtype; /* kac_pickle_kind; index into kac_torch_dtypes */
    union {
        int64_t i;
        double r;
        struct {
            const char *s; /* in the pickle; not terminated */
            size_t n;
        } text;
        struct {
            kac_pickle_ref *items;
            uint32_t n, cap;
        } list;
        struct {
            kac_pickle_ref key; /* a text */
            int64_t n_elements; /* as claimed, not checked */
        } storage;
        struct {
            kac_pickle_ref storage, shape, stride; /* shape and stride: lists of equally many numbers ≥ 0 */
            int64_t offset;                        /* ≥ 0, in elements */
        } tensor;
    };
} kac_pickle_value;

typedef struct kac_pickle {
    kac_pickle_value *values;
    size_t n_values, cap_values;
    kac_pickle_ref root;
} kac_pickle;

/* Reads one pickle from the start of data; *n_used is where it ends. Values may contain each other in a circle; nothing is
 * checked against storages. KAC_E_FORMAT broken; KAC_E_UNSUPPORTED naming what it wants imported; memory is at most some
 * hundred bytes for each byte of the pickle. `path` is for messages. On failure *p is empty. */
kac_status kac_pickle_read(kac_pickle *p, const uint8_t *data, size_t n, size_t *n_used, const char *path);
void kac_pickle_free(kac_pickle *p);

static inline const kac_pickle_value *kac_pickle_at(const kac_pickle *p, kac_pickle_ref ref) {
    return &p->values[ref];
}
/* The value under a text key of a dict; NULL when there is none. */
const kac_pickle_value *kac_pickle_key(const kac_pickle *p, const kac_pickle_value *dict, const char *key);
bool kac_pickle_is_text(const kac_pickle_value *v, const char *text);

#endif
