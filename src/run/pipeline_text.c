#include "run/pipeline_text.h"
#include <string.h>

/* One call: where its texts go, and what it knows. */
typedef struct encoding {
    kac_conditioning *out;
    const kac_pipeline *p;
    kac_ctx *c;
    const kac_prompt_text *texts;
    int n_texts, clip_skip;
    bool penultimate; /* SDXL: the states before the last layer, and the pooled text beside them */
} encoding;

/* Token ids of the texts, [n_texts, n_tokens] on the heap. */
static kac_status tokenize(int32_t **out, const kac_pipeline_text *t, const encoding *e, int *n_truncated) {
    const int64_t n_tokens = t->n_tokens;
    int32_t *ids = *out = kac_alloc((size_t)(e->n_texts * n_tokens) * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < e->n_texts; i++) {
        const char *text = e->texts[i].text == NULL ? "" : e->texts[i].text;
        kac_tokens used = {0};
        KAC_TRY(kac_tokenizer_encode(ids + i * n_tokens, (int)n_tokens, &used, t->tokenizer, text, strlen(text)));
        if (n_truncated != NULL && used.n_cut > 0) (*n_truncated)++;
    }
    return KAC_OK;
}

/* Texts first … end − 1 through one encoder: columns `column` … of the token states, and the pooled rows. */
static kac_status encode_some(const encoding *e, const kac_clip *m, const int32_t *ids, int first, int end,
                              int64_t column, bool pool) {
    kac_ctx *c = e->c;
    const size_t mark = kac_arena_mark(&c->scratch);
    const int n = end - first, skip = e->texts[first].negative ? 0 : e->clip_skip;
    const int64_t n_tokens = e->out->tokens.shape[1];
    kac_clip_text_out states;
    KAC_TRY((e->penultimate ? kac_clip_text_penultimate : kac_clip_text)(&states, m, c, ids + first * n_tokens, n,
                                                                         n_tokens, skip));
    kac_tensor rows = kac_tensor_slice(e->out->tokens, 0, first, n),
               to = kac_tensor_slice(rows, 2, column, states.hidden.shape[2]);
    KAC_TRY(kac_copy(c, &to, states.hidden));
    if (pool) {
        kac_tensor pooled = kac_tensor_slice(e->out->pooled, 0, first, n);
        KAC_TRY(kac_copy(c, &pooled, states.embeds));
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

static kac_status encode_all(const encoding *e, const kac_clip *m, const int32_t *ids, int64_t column, bool pool) {
    for (int i = 0, end = 0; i < e->n_texts; i = end) {
        while (end < e->n_texts && e->texts[end].negative == e->texts[i].negative) end++;
        KAC_TRY(encode_some(e, m, ids, i, end, column, pool));
    }
    return KAC_OK;
}

/* Model and scratch arena change places: what is loaded then lies in scratch memory. */
static void swap_arenas(kac_ctx *c) {
    const kac_arena model = c->model;
    c->model = c->scratch;
    c->scratch = model;
}

static kac_status run_encoder(const encoding *e, const kac_pipeline_text *t, int64_t column, int *n_truncated) {
    kac_ctx *c = e->c;
    const bool pool = e->penultimate && t == &e->p->text[e->p->n_texts - 1];
    int32_t *ids = NULL;
    kac_clip *m = NULL;
    const size_t mark = kac_arena_mark(&c->scratch);
    kac_status s = tokenize(&ids, t, e, n_truncated);
    if (s == KAC_OK) {
        swap_arenas(c);
        s = kac_clip_load_from(&m, c, &t->source);
        swap_arenas(c);
    }
    if (s == KAC_OK && pool && !kac_clip_config_of(m)->has_projection)
        s = KAC_FAIL(KAC_E_FORMAT, "%s: the network reads pooled text, but this encoder has no text_projection",
                     t->source.path);
    if (s == KAC_OK) s = encode_all(e, m, ids, column, pool);
    kac_arena_release(&c->scratch, mark);
    kac_clip_free(m);
    kac_free(ids);
    return s;
}

/* Rows of texts that were not said become zeros. */
static kac_status zero_rows(const encoding *e) {
    kac_tensor all[2] = {e->out->tokens, e->out->pooled};
    for (int i = 0; i < e->n_texts; i++)
        for (int k = 0; k < 2 && e->texts[i].text == NULL; k++) {
            if (all[k].data == NULL) continue;
            kac_tensor row = kac_tensor_slice(all[k], 0, i, 1);
            KAC_TRY(kac_lincomb(e->c, &row, 1, &row, (double[]){0}, 1));
        }
    return KAC_OK;
}

kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const kac_prompt_text *texts,
                               int n_texts, int clip_skip, int *n_truncated) {
    *out = (kac_conditioning){0};
    if (n_truncated != NULL) *n_truncated = 0;
    const encoding e = {.out = out,
                        .p = p,
                        .c = c,
                        .texts = texts,
                        .n_texts = n_texts,
                        .clip_skip = clip_skip,
                        .penultimate = kac_unet_config_of(p->unet)->addition == KAC_ADDITION_TEXT_TIME};
    const kac_pipeline_text *last = &p->text[p->n_texts - 1];
    int64_t width = 0, column = 0;
    for (int i = 0; i < p->n_texts; i++) width += p->text[i].cfg.text.width;
    KAC_TRY(kac_take_make(&out->tokens, &c->run, c->dtype, n_texts, last->n_tokens, width));
    if (e.penultimate) KAC_TRY(kac_take_make(&out->pooled, &c->run, KAC_F32, n_texts, last->cfg.projection));
    for (int i = 0; i < p->n_texts; i++) {
        KAC_TRY(run_encoder(&e, &p->text[i], column, i == 0 ? n_truncated : NULL));
        column += p->text[i].cfg.text.width;
    }
    return p->zero_empty ? zero_rows(&e) : KAC_OK;
}
