#include "text/prompt.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPT_BYTES = 1 << 16, MAX_WEIGHT = 1000 };

static const char marks[] = "()[]\\";

/* ---- pieces ---- */

/* Lists with room for one entry per byte of the prompt. */
typedef struct parser {
    kac_prompt_pieces *out;
    size_t n_text;
    int *round, *square; /* where the open brackets began, as a number of pieces */
    int n_round, n_square;
} parser;

static void add_text(parser *p, const char *text, size_t n) {
    p->out->items[p->out->n++] = (kac_prompt_piece){.first = p->n_text, .n = n, .weight = 1};
    memcpy(p->out->text + p->n_text, text, n);
    p->n_text += n;
}

static void multiply(parser *p, int first, double by) {
    for (int i = first; i < p->out->n; i++) p->out->items[i].weight *= by;
}

/* The bytes of ":1.3)" at `text`, spaces around the number allowed; 0: something else stands there. *first, *n: the number. */
static size_t weight_at(const char *text, size_t *first, size_t *n) {
    size_t i = 1;
    while (isspace((unsigned char)text[i])) i++;
    *first = i;
    if (text[i] == '+' || text[i] == '-') i++;
    const size_t digits = strspn(text + i, ".0123456789");
    if (digits == 0) return 0;
    i += digits;
    *n = i - *first;
    while (isspace((unsigned char)text[i])) i++;
    return text[i] == ')' ? i + 1 : 0;
}

bool kac_prompt_has_weights(const char *prompt) {
    const char *open = strchr(prompt, '(');
    size_t first, n;
    for (const char *p = open; p != NULL; p = strchr(p + 1, ':'))
        if (*p == ':' && weight_at(p, &first, &n) > 0) return true;
    return false;
}

static kac_status read_weight(double *out, const char *number, size_t n) {
    char text[32], *end = text;
    if (n < sizeof text) {
        memcpy(text, number, n);
        text[n] = '\0';
        *out = strtod(text, &end);
    }
    if (n >= sizeof text || *end != '\0' || end == text || !(fabs(*out) <= MAX_WEIGHT))
        return KAC_FAIL(KAC_E_USAGE, "the prompt's weight \"%.*s\" is no number between -%d and %d",
                        (int)KAC_MIN(n, 40), number, (int)MAX_WEIGHT, (int)MAX_WEIGHT);
    return KAC_OK;
}

/* One element of the grammar at `text`; *used: its bytes. */
static kac_status parse_one(parser *p, const char *text, size_t *used) {
    size_t first, n;
    *used = 1;
    if (text[0] == '\\') { /* in front of anything else it is dropped */
        *used += text[1] != '\0' && strchr(marks, text[1]) != NULL;
        add_text(p, text + 1, *used - 1);
    } else if (text[0] == '(') {
        p->round[p->n_round++] = p->out->n;
    } else if (text[0] == '[') {
        p->square[p->n_square++] = p->out->n;
    } else if (text[0] == ')' && p->n_round > 0) {
        multiply(p, p->round[--p->n_round], 1.1);
    } else if (text[0] == ']' && p->n_square > 0) {
        multiply(p, p->square[--p->n_square], 1 / 1.1);
    } else if (text[0] == ':' && p->n_round > 0 && weight_at(text, &first, &n) > 0) {
        double weight = 1;
        KAC_TRY(read_weight(&weight, text + first, n));
        *used = weight_at(text, &first, &n);
        multiply(p, p->round[--p->n_round], weight);
    } else {
        *used = KAC_MAX(strcspn(text, "()[]\\:"), 1);
        add_text(p, text, *used);
    }
    return KAC_OK;
}

/* Neighbours of one weight become one piece. */
static kac_status join(kac_prompt_pieces *out) {
    int n = 0;
    for (int i = 0; i < out->n; i++) {
        if (!(fabs(out->items[i].weight) <= MAX_WEIGHT))
            return KAC_FAIL(KAC_E_USAGE, "the prompt's brackets give a weight of %g; %d is the most",
                            out->items[i].weight, (int)MAX_WEIGHT);
        if (n > 0 && out->items[n - 1].weight == out->items[i].weight)
            out->items[n - 1].n += out->items[i].n;
        else
            out->items[n++] = out->items[i];
    }
    if (n == 0) out->items[n++] = (kac_prompt_piece){.weight = 1};
    out->n = n;
    return KAC_OK;
}

static kac_status parse_all(parser *p, const char *prompt, size_t n) {
    for (size_t at = 0, used; at < n; at += used) KAC_TRY(parse_one(p, prompt + at, &used));
    while (p->n_round > 0) multiply(p, p->round[--p->n_round], 1.1);
    while (p->n_square > 0) multiply(p, p->square[--p->n_square], 1 / 1.1);
    return join(p->out);
}

/* Room for n bytes of text. */
static kac_status take_pieces(kac_prompt_pieces *out, size_t n) {
    out->text = kac_alloc(n + 1);
    out->items = kac_alloc((n + 1) * sizeof *out->items);
    return out->text == NULL || out->items == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status check_length(size_t n) {
    if (n <= MAX_PROMPT_BYTES) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "the prompt has %zu bytes, more than the %d that are allowed", n,
                    (int)MAX_PROMPT_BYTES);
}

kac_status kac_prompt_parse(kac_prompt_pieces *out, const char *prompt) {
    const size_t n = strlen(prompt);
    *out = (kac_prompt_pieces){0};
    KAC_TRY(check_length(n));
    KAC_TRY(take_pieces(out, n));
    parser p = {
        .out = out, .round = kac_alloc((n + 1) * sizeof *p.round), .square = kac_alloc((n + 1) * sizeof *p.square)};
    const kac_status s = p.round == NULL || p.square == NULL ? KAC_E_MEMORY : parse_all(&p, prompt, n);
    kac_free(p.round), kac_free(p.square);
    return s;
}

void kac_prompt_pieces_free(kac_prompt_pieces *p) {
    kac_free(p->text), kac_free(p->items);
    *p = (kac_prompt_pieces){0};
}

/* ---- ids ---- */

/* The whole prompt as one piece. */
static kac_status take_plain(kac_prompt_pieces *out, const char *prompt) {
    const size_t n = strlen(prompt);
    *out = (kac_prompt_pieces){0};
    KAC_TRY(check_length(n));
    KAC_TRY(take_pieces(out, n));
    memcpy(out->text, prompt, n);
    out->items[out->n++] = (kac_prompt_piece){.n = n, .weight = 1};
    return KAC_OK;
}

/* The tokens of all pieces without BOS and EOS, one after the other. */
typedef struct token_list {
    int32_t *ids;
    float *weight;
    int64_t n;
} token_list;

static kac_status grow(token_list *l, int64_t n_more) {
    int32_t *ids = kac_realloc(l->ids, (size_t)(l->n + n_more) * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    l->ids = ids;
    float *weight = kac_realloc(l->weight, (size_t)(l->n + n_more) * sizeof *weight);
    if (weight == NULL) return KAC_E_MEMORY;
    l->weight = weight;
    return KAC_OK;
}

static kac_status add_piece(token_list *l, const kac_tokenizer *t, const char *text, const kac_prompt_piece *piece) {
    kac_tokens used = {.n_cut = (int64_t)piece->n};
    int64_t room = 0;
    int32_t *ids = NULL;
    kac_status s = KAC_OK;
    while (s == KAC_OK && used.n_cut > 0) { /* a token of several vectors may need more room than its text has bytes */
        room += used.n_cut;
        kac_free(ids);
        ids = kac_alloc((size_t)(room + 2) * sizeof *ids);
        s = ids == NULL ? KAC_E_MEMORY
                        : kac_tokenizer_encode(ids, (int)room + 2, &used, t, text + piece->first, piece->n);
    }
    const int64_t n = ids == NULL ? 0 : used.n - 2;
    if (s == KAC_OK && n > 0) s = grow(l, n);
    for (int64_t i = 0; i < n && s == KAC_OK; i++) {
        l->ids[l->n] = ids[i + 1];
        l->weight[l->n++] = (float)piece->weight;
    }
    kac_free(ids);
    return s;
}

/* Chunk i with the n tokens at `tokens`. */
static void set_chunk(kac_prompt_ids *out, const kac_tokenizer *t, int i, const token_list *l, int64_t first, int n) {
    int32_t *ids = out->ids + (int64_t)i * out->n_each;
    float *weight = out->weight + (int64_t)i * out->n_each;
    for (int k = 0; k < out->n_each; k++) {
        const bool text = k > 0 && k <= n;
        ids[k] = k == 0       ? kac_tokenizer_bos(t)
                 : text       ? l->ids[first + k - 1]
                 : k == n + 1 ? kac_tokenizer_eos(t)
                              : kac_tokenizer_pad(t);
        weight[k] = text ? l->weight[first + k - 1] : 1;
        out->weighted |= weight[k] != 1;
    }
}

kac_status kac_prompt_extend(kac_prompt_ids *p, const kac_tokenizer *t, int n_chunks) {
    if (n_chunks <= p->n_chunks) return KAC_OK;
    const size_t n = (size_t)n_chunks * (size_t)p->n_each;
    int32_t *ids = kac_realloc(p->ids, n * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    p->ids = ids;
    float *weight = kac_realloc(p->weight, n * sizeof *weight);
    if (weight == NULL) return KAC_E_MEMORY;
    p->weight = weight;
    while (p->n_chunks < n_chunks) set_chunk(p, t, p->n_chunks++, NULL, 0, 0);
    return KAC_OK;
}

static kac_status cut(kac_prompt_ids *out, const kac_tokenizer *t, const token_list *l, bool chunks) {
    const int64_t n_text = out->n_each - 2;
    const int64_t wanted = KAC_MAX((l->n + n_text - 1) / n_text, 1);
    if (chunks && wanted > KAC_PROMPT_MAX_CHUNKS)
        return KAC_FAIL(KAC_E_USAGE, "the prompt has %lld tokens, more than the %lld that fit in %d chunks",
                        (long long)l->n, (long long)(n_text * KAC_PROMPT_MAX_CHUNKS), (int)KAC_PROMPT_MAX_CHUNKS);
    const int n = chunks ? (int)wanted : 1;
    KAC_TRY(kac_prompt_extend(out, t, n));
    for (int i = 0; i < n; i++) set_chunk(out, t, i, l, i * n_text, (int)KAC_MIN(l->n - i * n_text, n_text));
    out->n_cut = KAC_MAX(l->n - n * n_text, 0);
    return KAC_OK;
}

kac_status kac_prompt_encode(kac_prompt_ids *out, const kac_tokenizer *t, const char *prompt, int n_each,
                             kac_prompt_options o) {
    *out = (kac_prompt_ids){.n_each = n_each};
    if (n_each < 3) return KAC_FAIL(KAC_E_USAGE, "a context of %d tokens has no room between BOS and EOS", n_each);
    kac_prompt_pieces pieces;
    token_list l = {0};
    kac_status s = o.weighting ? kac_prompt_parse(&pieces, prompt) : take_plain(&pieces, prompt);
    for (int i = 0; i < pieces.n && s == KAC_OK; i++) s = add_piece(&l, t, pieces.text, &pieces.items[i]);
    if (s == KAC_OK) s = cut(out, t, &l, o.chunks);
    kac_prompt_pieces_free(&pieces);
    kac_free(l.ids), kac_free(l.weight);
    if (s != KAC_OK) kac_prompt_ids_free(out);
    return s;
}

void kac_prompt_ids_free(kac_prompt_ids *p) {
    kac_free(p->ids), kac_free(p->weight);
    *p = (kac_prompt_ids){0};
}

/* ---- weights on token states ---- */

void kac_prompt_weigh(float *z, const float *weight, int64_t n_tokens, int64_t width) {
    double before = 0, after = 0;
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t k = 0; k < width; k++) {
            float *v = &z[t * width + k];
            before += *v;
            *v *= weight[t];
            after += *v;
        }
    const float scale = before != 0 && after != 0 ? (float)(before / after) : 1;
    for (int64_t i = 0; i < n_tokens * width; i++) z[i] *= scale;
}
