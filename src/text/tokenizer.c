#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"
#include <string.h>

enum { MAX_TEXT_BYTES = 1 << 16 };

/* One token of a word while it is merged; a list in the order of the word. */
typedef struct symbol {
    int32_t id; /* −2: swallowed by its left neighbour */
    int32_t previous, next;
} symbol;

typedef struct candidate {
    int32_t rank, at;
} candidate;

/* The work of one call of encode. */
typedef struct encoder {
    const kac_tokenizer *t;
    int32_t *ids; /* after BOS */
    int n_room;
    int64_t n_tokens; /* also those that did not fit */
    symbol *symbols;
    candidate *heap;
    size_t n_heap, n_word; /* n_word: room for a word of so many bytes */
    pcre2_match_data *match;
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->n_tokens < e->n_room) e->ids[e->n_tokens] = id;
    e->n_tokens++;
}

static void emit_special(encoder *e, const kac_special *s) {
    for (int i = 0; i <= s->n_more; i++) emit(e, s->id + i);
}

/* ---- a heap of possible merges: least rank first, then the leftmost ---- */

static bool before(candidate a, candidate b) {
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_add(encoder *e, candidate c) {
    size_t i = e->n_heap++;
    for (; i > 0 && before(c, e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
}

static candidate heap_take(encoder *e) {
    const candidate top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->n_heap; i = child) {
        if (child + 1 < e->n_heap && before(e->heap[child + 1], e->heap[child])) child++;
        if (!before(e->heap[child], last)) break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return top;
}

static const kac_merge_slot *merge_at(const encoder *e, int32_t at) {
    const symbol *s = &e->symbols[at];
    return s->next < 0 ? NULL : kac_merges_of(&e->t->merges, s->id, e->symbols[s->next].id);
}

static void offer(encoder *e, int32_t at) {
    const kac_merge_slot *m = at < 0 ? NULL : merge_at(e, at);
    if (m != NULL) heap_add(e, (candidate){m->rank, at});
}

/* Room for a word of n bytes; each merge offers at most two new candidates. */
static kac_status reserve_word(encoder *e, size_t n) {
    if (n <= e->n_word) return KAC_OK;
    kac_free(e->symbols);
    kac_free(e->heap);
    e->n_word = 2 * n;
    e->symbols = kac_alloc(e->n_word * sizeof(*e->symbols));
    e->heap = kac_alloc(3 * e->n_word * sizeof(*e->heap));
    return e->symbols == NULL || e->heap == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status encode_word(encoder *e, const char *word, size_t n) {
    KAC_TRY(reserve_word(e, n));
    int32_t n_symbols = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t byte = (uint8_t)word[i];
        int32_t id = i + 1 < n ? e->t->byte_id[byte] : e->t->last_byte_id[byte];
        if (id < 0) id = e->t->unknown;
        if (id < 0) continue;
        e->symbols[n_symbols] = (symbol){.id = id, .previous = n_symbols - 1, .next = n_symbols + 1};
        n_symbols++;
    }
    if (n_symbols == 0) return KAC_OK;
    e->symbols[n_symbols - 1].next = -1;
    e->n_heap = 0;
    for (int32_t i = 0; i < n_symbols; i++) offer(e, i);
    while (e->n_heap > 0) {
        const candidate c = heap_take(e);
        symbol *left = &e->symbols[c.at];
        const kac_merge_slot *m = left->id < 0 ? NULL : merge_at(e, c.at);
        if (m == NULL || m->rank != c.rank) continue; /* its symbols were merged otherwise */
        symbol *right = &e->symbols[left->next];
        left->id = m->merged;
        left->next = right->next;
        right->id = -2;
        if (left->next >= 0) e->symbols[left->next].previous = c.at;
        offer(e, left->previous);
        offer(e, c.at);
    }
    for (int32_t i = 0; i >= 0; i = e->symbols[i].next) emit(e, e->symbols[i].id);
    return KAC_OK;
}

/* Pieces of normalised text. */
static kac_status encode_pieces(encoder *e, const char *text, size_t n) {
    static const char *const tags[] = {"<|startoftext|>", "<|endoftext|>"};
    for (size_t at = 0; at < n;) {
        const int rc = pcre2_match(e->t->pattern, (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK, e->match, NULL);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) return KAC_FAIL(KAC_E_MEMORY, "the text could not be split into words (PCRE2 error %d)", rc);
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(e->match);
        const char *piece = text + range[0];
        const size_t n_piece = range[1] - range[0];
        at = range[1];
        bool tag = false;
        for (int i = 0; i < KAC_COUNT_OF(tags); i++)
            tag |= n_piece == strlen(tags[i]) && memcmp(piece, tags[i], n_piece) == 0;
        if (tag) { /* spelled out rather than meant: the reference's second split takes the brackets off */
            KAC_TRY(encode_word(e, piece, 2));
            KAC_TRY(encode_word(e, piece + 2, n_piece - 4));
            KAC_TRY(encode_word(e, piece + n_piece - 2, 2));
        } else
            KAC_TRY(encode_word(e, piece, n_piece));
    }
    return KAC_OK;
}

/* The first special token of the wanted kind in text, the longest of those that begin there; NULL: none. */
static const kac_special *find_special(const kac_tokenizer *t, bool normalized, const char *text, size_t n,
                                       size_t *at) {
    const kac_special *found = NULL;
    for (int i = 0; i < t->n_special; i++) {
        const kac_special *s = &t->special[i];
        const size_t n_special = strlen(s->text);
        if (s->normalized != normalized || n_special == 0) continue;
        const char *place = memmem(text, n, s->text, n_special);
        if (place == NULL) continue;
        const size_t where = (size_t)(place - text);
        if (found != NULL && (where > *at || (where == *at && n_special < strlen(found->text)))) continue;
        found = s;
        *at = where;
    }
    return found;
}

static kac_status encode_normalized(encoder *e, const char *text, size_t n) {
    while (n > 0) {
        size_t at = n;
        const kac_special *s = find_special(e->t, true, text, n, &at);
        KAC_TRY(encode_pieces(e, text, at));
        if (s == NULL) break;
        emit_special(e, s);
        const size_t used = at + strlen(s->text);
        text += used;
        n -= used;
    }
    return KAC_OK;
}

static kac_status encode_text(encoder *e, const char *text, size_t n) {
    while (n > 0) {
        size_t at = n;
        const kac_special *s = find_special(e->t, false, text, n, &at);
        kac_text normal = {0};
        kac_status status = kac_text_normalize(&normal, text, at);
        if (status == KAC_OK) status = encode_normalized(e, normal.s, normal.n);
        kac_text_free(&normal);
        KAC_TRY(status);
        if (s == NULL) break;
        emit_special(e, s);
        const size_t used = at + strlen(s->text);
        text += used;
        n -= used;
    }
    return KAC_OK;
}

kac_status kac_tokenizer_encode(int32_t *ids, int n_ids, kac_tokens *used, const kac_tokenizer *t, const char *text,
                                size_t n_text) {
    if (n_ids < 2) return KAC_FAIL(KAC_E_USAGE, "a text needs room for at least 2 tokens, not %d", n_ids);
    if (n_text > MAX_TEXT_BYTES)
        return KAC_FAIL(KAC_E_USAGE, "the text has %zu bytes, more than the %d that are allowed", n_text,
                        (int)MAX_TEXT_BYTES);
    encoder e = {.t = t, .ids = ids + 1, .n_room = n_ids - 2};
    e.match = pcre2_match_data_create(1, NULL);
    const kac_status status =
        e.match == NULL ? KAC_FAIL(KAC_E_MEMORY, "out of memory for the text") : encode_text(&e, text, n_text);
    pcre2_match_data_free(e.match);
    kac_free(e.symbols);
    kac_free(e.heap);
    KAC_TRY(status);
    const int n_kept = (int)KAC_MIN(e.n_tokens, (int64_t)e.n_room);
    ids[0] = t->bos;
    ids[n_kept + 1] = t->eos;
    for (int i = n_kept + 2; i < n_ids; i++) ids[i] = t->pad;
    if (used != NULL) *used = (kac_tokens){.n = n_kept + 2, .n_cut = e.n_tokens - n_kept};
    return KAC_OK;
}

int kac_tokenizer_max_length(const kac_tokenizer *t) {
    return t->max_length;
}

int32_t kac_tokenizer_vocab_size(const kac_tokenizer *t) {
    return t->n_vocab;
}

int32_t kac_tokenizer_bos(const kac_tokenizer *t) {
    return t->bos;
}

int32_t kac_tokenizer_eos(const kac_tokenizer *t) {
    return t->eos;
}

kac_status kac_tokenizer_set_pad(kac_tokenizer *t, int32_t id, const char *text) {
    t->pad = id;
    if (text == NULL) return KAC_OK;
    KAC_ASSERT(t->n_special < KAC_TOKENIZER_MAX_SPECIAL);
    char *own = kac_strdup(text);
    if (own == NULL) return KAC_E_MEMORY;
    t->special[t->n_special++] = (kac_special){.text = own, .id = id};
    return KAC_OK;
}
int32_t kac_tokenizer_pad(const kac_tokenizer *t) {
    return t->pad;
}

static kac_status add_token(kac_tokenizer *t, const char *text, int32_t id, int n_more) {
    kac_text spelled = {0};
    KAC_TRY(kac_text_normalize(&spelled, text, strlen(text)));
    kac_status s =
        spelled.s == NULL || spelled.n == 0 ? KAC_FAIL(KAC_E_USAGE, "\"%s\" cannot be a token", text) : KAC_OK;
    for (int i = 0; i < t->n_special && s == KAC_OK; i++)
        if (strcmp(t->special[i].text, spelled.s) == 0)
            s = KAC_FAIL(KAC_E_USAGE, "the tokenizer already has a token \"%s\"; choose another", spelled.s);
    if (s == KAC_OK && t->n_special == KAC_TOKENIZER_MAX_SPECIAL)
        s = KAC_FAIL(KAC_E_USAGE, "a tokenizer takes at most %d tokens of its own", (int)KAC_TOKENIZER_MAX_SPECIAL);
    if (s != KAC_OK) {
        kac_text_free(&spelled);
        return s;
    }
    t->special[t->n_special++] = (kac_special){.text = spelled.s, .id = id, .n_more = n_more, .normalized = true};
    t->n_vocab = KAC_MAX(t->n_vocab, id + n_more + 1);
    return KAC_OK;
}

kac_status kac_tokenizer_add(kac_tokenizer *t, const char *text, int32_t first_id, int n) {
    KAC_TRY(add_token(t, text, first_id, n - 1));
    for (int i = 1; i < n; i++) {
        char *one = kac_format("%s_%d", text, i);
        const kac_status s = one == NULL ? KAC_E_MEMORY : add_token(t, one, first_id + i, 0);
        kac_free(one);
        KAC_TRY(s);
    }
    return KAC_OK;
}
