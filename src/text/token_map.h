/* Two hash tables of a tokenizer: text → id, and pair of ids → its merge. Open addressing, filled once. */
#ifndef KAC_TEXT_TOKEN_MAP_H
#define KAC_TEXT_TOKEN_MAP_H

#include "base/base.h"

typedef struct kac_vocab_slot {
    const char *text; /* not terminated; NULL: free */
    uint32_t n;
    int32_t id;
} kac_vocab_slot;

/* The texts stay the caller's. */
typedef struct kac_vocab {
    kac_vocab_slot *slots;
    size_t mask;
    int32_t n; /* one more than the largest id */
} kac_vocab;

typedef struct kac_merge_slot {
    int32_t left, right, merged; /* left −1: free */
    int32_t rank;
} kac_merge_slot;

typedef struct kac_merges {
    kac_merge_slot *slots;
    size_t mask;
} kac_merges;

kac_status kac_vocab_init(kac_vocab *v, size_t n_max);
void kac_vocab_free(kac_vocab *v);
/* A second text of the same spelling replaces the id, as in a Python dict. At most n_max texts. */
void kac_vocab_put(kac_vocab *v, const char *text, size_t n, int32_t id);
int32_t kac_vocab_id(const kac_vocab *v, const char *text, size_t n); /* −1: none */

kac_status kac_merges_init(kac_merges *m, size_t n_max);
void kac_merges_free(kac_merges *m);
void kac_merges_put(kac_merges *m, int32_t left, int32_t right, int32_t rank, int32_t merged);
const kac_merge_slot *kac_merges_of(const kac_merges *m, int32_t left, int32_t right); /* NULL: none */

#endif
