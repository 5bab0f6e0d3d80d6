#include "run/pipeline_text.h"
#include "text/prompt.h"
#include <string.h>

enum { MOST_TEXTS = 32 }; /* that are encoded at once */

/* One call: where its texts go, and what it knows. */
typedef struct encoding {
    kac_conditioning *out;
    const kac_pipeline *p;
    kac_ctx *c;
    const kac_prompt_text *texts;
    int n_texts;
    kac_encode_options o;
    bool penultimate; /* SDXL: the states before the last layer, and the pooled text beside them */
    kac_prompt_ids *ids[KAC_PIPELINE_MAX_TEXTS]; /* [n_texts] for each encoder */
    int n_chunks;                                /* of every text */
} encoding;

/* ---- tokens ---- */

static kac_status tokenize(encoding *e, int i_encoder, int *n_truncated) {
    const kac_pipeline_text *t = &e->p->text[i_encoder];
    const kac_prompt_options o = {.weighting = e->o.weighting, .chunks = e->o.chunks};
    kac_prompt_ids *ids = e->ids[i_encoder] = kac_alloc((size_t)e->n_texts * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < e->n_texts; i++) {
        const char *text = e->texts[i].text == NULL ? "" : e->texts[i].text;
        KAC_TRY(kac_prompt_encode(&ids[i], t->tokenizer, text, (int)t->n_tokens, o));
        e->n_chunks = KAC_MAX(e->n_chunks, ids[i].n_chunks);
        if (n_truncated != NULL && i_encoder == 0 && ids[i].n_cut > 0) (*n_truncated)++;
    }
    return KAC_OK;
}

static kac_status tokenize_all(encoding *e, int *n_truncated) {
    for (int k = 0; k < e->p->n_texts; k++) KAC_TRY(tokenize(e, k, n_truncated));
    for (int k = 0; k < e->p->n_texts; k++)
        for (int i = 0; i < e->n_texts; i++)
            KAC_TRY(kac_prompt_extend(&e->ids[k][i], e->p->text[k].tokenizer, e->n_chunks));
    return KAC_OK;
}

static void free_ids(encoding *e) {
    for (int k = 0; k < e->p->n_texts; k++) {
        for (int i = 0; i < e->n_texts && e->ids[k] != NULL; i++) kac_prompt_ids_free(&e->ids[k][i]);
        kac_free(e->ids[k]);
    }
}

/* ---- states ---- */

/* One encoder at work. */
typedef struct encoder_run {
    const encoding *e;
    const kac_clip *m;
    const kac_prompt_ids *ids; /* [n_texts] */
    int64_t column;            /* of the token states that this encoder's begin at */
    bool pool;
} encoder_run;

/* States of one text's chunk [1, T, D] to their place, weighed where the prompt says so. */
static kac_status place_states(const encoder_run *r, kac_tensor to, kac_tensor states, int text, int chunk) {
    kac_ctx *c = r->e->c;
    const kac_prompt_ids *ids = &r->ids[text];
    if (!ids->weighted) return kac_copy(c, &to, states);
    kac_tensor z;
    KAC_TRY(kac_take(&z, &c->scratch, KAC_F32, states.rank, states.shape));
    KAC_TRY(kac_copy(c, &z, states));
    if (!c->model.counting)
        kac_prompt_weigh(z.data, ids->weight + (int64_t)chunk * ids->n_each, ids->n_each, states.shape[2]);
    return kac_copy(c, &to, z);
}

/* Chunk `chunk` of the texts first … end − 1: their token states and, from the first chunk, the pooled rows. */
static kac_status encode_chunk(const encoder_run *r, const int32_t *ids, int first, int end, int chunk) {
    const encoding *e = r->e;
    kac_ctx *c = e->c;
    const int n = end - first, skip = e->texts[first].negative ? 0 : e->o.clip_skip;
    const int64_t n_each = r->ids[first].n_each;
    kac_clip_text_out states;
    KAC_TRY((e->penultimate ? kac_clip_text_penultimate : kac_clip_text)(&states, r->m, c, ids, n, n_each, skip));
    for (int i = 0; i < n; i++) {
        kac_tensor to = kac_tensor_slice(e->out->tokens, 0, first + i, 1);
        to = kac_tensor_slice(kac_tensor_slice(to, 1, chunk * n_each, n_each), 2, r->column, states.hidden.shape[2]);
        KAC_TRY(place_states(r, to, kac_tensor_slice(states.hidden, 0, i, 1), first + i, chunk));
    }
    if (!r->pool || chunk > 0) return KAC_OK;
    kac_tensor pooled = kac_tensor_slice(e->out->pooled, 0, first, n);
    return kac_copy(c, &pooled, states.embeds);
}

static kac_status encode_some(const encoder_run *r, int first, int end) {
    const int64_t n_each = r->ids[first].n_each;
    int32_t *ids = kac_alloc((size_t)((end - first) * n_each) * sizeof *ids);
    kac_status s = ids == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int k = 0; k < r->e->n_chunks && s == KAC_OK; k++) {
        const size_t mark = kac_arena_mark(&r->e->c->scratch);
        for (int i = first; i < end; i++)
            memcpy(ids + (i - first) * n_each, r->ids[i].ids + k * n_each, (size_t)n_each * sizeof *ids);
        s = encode_chunk(r, ids, first, end, k);
        kac_arena_release(&r->e->c->scratch, mark);
    }
    kac_free(ids);
    return s;
}

/* Texts of one role go together, as many as one call needs to be busy. */
static kac_status encode_all(const encoder_run *r) {
    const encoding *e = r->e;
    for (int i = 0, end = 0; i < e->n_texts; i = end) {
        while (end < e->n_texts && end - i < MOST_TEXTS && e->texts[end].negative == e->texts[i].negative) end++;
        KAC_TRY(encode_some(r, i, end));
    }
    return KAC_OK;
}

/* Model and scratch arena change places: what is loaded then lies in scratch memory. */
static void swap_arenas(kac_ctx *c) {
    const kac_arena model = c->model;
    c->model = c->scratch;
    c->scratch = model;
}

static kac_status run_encoder(const encoding *e, int i_encoder, int64_t column) {
    kac_ctx *c = e->c;
    const kac_pipeline_text *t = &e->p->text[i_encoder];
    const bool pool = e->penultimate && i_encoder == e->p->n_texts - 1;
    kac_clip *m = NULL;
    const size_t mark = kac_arena_mark(&c->scratch);
    swap_arenas(c);
    kac_status s = kac_clip_load_from(&m, c, &t->source);
    swap_arenas(c);
    if (s == KAC_OK && pool && !kac_clip_config_of(m)->has_projection)
        s = KAC_FAIL(KAC_E_FORMAT, "%s: the network reads pooled text, but this encoder has no text_projection",
                     t->source.path);
    const encoder_run r = {.e = e, .m = m, .ids = e->ids[i_encoder], .column = column, .pool = pool};
    if (s == KAC_OK) s = encode_all(&r);
    kac_arena_release(&c->scratch, mark);
    kac_clip_free(m);
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

static kac_status encode_texts(const encoding *e) {
    const kac_pipeline *p = e->p;
    const kac_pipeline_text *last = &p->text[p->n_texts - 1];
    int64_t width = 0, column = 0;
    for (int i = 0; i < p->n_texts; i++) width += p->text[i].cfg.text.width;
    KAC_TRY(kac_take_make(&e->out->tokens, &e->c->run, e->c->dtype, e->n_texts, e->n_chunks * last->n_tokens, width));
    if (e->penultimate) KAC_TRY(kac_take_make(&e->out->pooled, &e->c->run, KAC_F32, e->n_texts, last->cfg.projection));
    for (int i = 0; i < p->n_texts; i++) {
        KAC_TRY(run_encoder(e, i, column));
        column += p->text[i].cfg.text.width;
    }
    return p->zero_empty ? zero_rows(e) : KAC_OK;
}

kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const kac_prompt_text *texts,
                               int n_texts, kac_encode_options o, int *n_truncated) {
    *out = (kac_conditioning){0};
    if (n_truncated != NULL) *n_truncated = 0;
    encoding e = {.out = out,
                  .p = p,
                  .c = c,
                  .texts = texts,
                  .n_texts = n_texts,
                  .o = o,
                  .penultimate = kac_unet_config_of(p->unet)->addition == KAC_ADDITION_TEXT_TIME};
    kac_status s = tokenize_all(&e, n_truncated);
    if (s == KAC_OK) s = encode_texts(&e);
    free_ids(&e);
    return s;
}
