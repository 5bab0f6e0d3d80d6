#include "text/token_map.h"
#include <string.h>

/* A power of two, at most half full: a search always meets a free slot. */
static size_t slots_for(size_t n_max) {
    size_t n = 16;
    while (n < 2 * n_max + 1) n *= 2;
    return n;
}

static uint64_t mixed(uint64_t h) {
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

kac_status kac_vocab_init(kac_vocab *v, size_t n_max) {
    const size_t n = slots_for(n_max);
    *v = (kac_vocab){.slots = kac_alloc(n * sizeof(*v->slots)), .mask = n - 1};
    return v->slots == NULL ? KAC_E_MEMORY : KAC_OK;
}

void kac_vocab_free(kac_vocab *v) {
    kac_free(v->slots);
    *v = (kac_vocab){0};
}

static kac_vocab_slot *vocab_slot(const kac_vocab *v, const char *text, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)text[i]) * 0x100000001B3u;
    size_t i = mixed(h) & v->mask;
    while (v->slots[i].text != NULL && (v->slots[i].n != n || memcmp(v->slots[i].text, text, n) != 0))
        i = (i + 1) & v->mask;
    return &v->slots[i];
}

void kac_vocab_put(kac_vocab *v, const char *text, size_t n, int32_t id) {
    *vocab_slot(v, text, n) = (kac_vocab_slot){.text = text, .n = (uint32_t)n, .id = id};
    v->n = KAC_MAX(v->n, id + 1);
}

int32_t kac_vocab_id(const kac_vocab *v, const char *text, size_t n) {
    const kac_vocab_slot *s = vocab_slot(v, text, n);
    return s->text == NULL ? -1 : s->id;
}

kac_status kac_merges_init(kac_merges *m, size_t n_max) {
    const size_t n = slots_for(n_max);
    *m = (kac_merges){.slots = kac_alloc(n * sizeof(*m->slots)), .mask = n - 1};
    if (m->slots == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < n; i++) m->slots[i].left = -1;
    return KAC_OK;
}

void kac_merges_free(kac_merges *m) {
    kac_free(m->slots);
    *m = (kac_merges){0};
}

static kac_merge_slot *merge_slot(const kac_merges *m, int32_t left, int32_t right) {
    size_t i = mixed((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & m->mask;
    while (m->slots[i].left >= 0 && (m->slots[i].left != left || m->slots[i].right != right)) i = (i + 1) & m->mask;
    return &m->slots[i];
}

void kac_merges_put(kac_merges *m, int32_t left, int32_t right, int32_t rank, int32_t merged) {
    *merge_slot(m, left, right) = (kac_merge_slot){.left = left, .right = right, .merged = merged, .rank = rank};
}

const kac_merge_slot *kac_merges_of(const kac_merges *m, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return NULL;
    const kac_merge_slot *s = merge_slot(m, left, right);
    return s->left < 0 ? NULL : s;
}
