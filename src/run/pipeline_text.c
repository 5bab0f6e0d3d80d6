#include "run/pipeline_text.h"
#include <string.h>

/* Token ids of the texts, [n_texts, *n_tokens] on the heap. */
static kac_status tokenize(int32_t **out, int64_t *n_tokens, const kac_pipeline *p, const char *const *texts,
                           int n_texts, int *n_truncated) {
    *n_tokens = kac_clip_config_of(p->text)->max_tokens;
    const int own = kac_tokenizer_max_length(p->tokenizer);
    if (own > 0 && own < *n_tokens) *n_tokens = own;
    int32_t *ids = *out = kac_alloc((size_t)(n_texts * *n_tokens) * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n_texts; i++) {
        kac_tokens used = {0};
        KAC_TRY(
            kac_tokenizer_encode(ids + i * *n_tokens, (int)*n_tokens, &used, p->tokenizer, texts[i], strlen(texts[i])));
        if (n_truncated != NULL && used.n_cut > 0) (*n_truncated)++;
    }
    return KAC_OK;
}

static kac_status encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const int32_t *ids, int n_texts,
                         int64_t n_tokens, int clip_skip) {
    const size_t mark = kac_arena_mark(&c->scratch);
    kac_clip_text_out states = {0};
    KAC_TRY(kac_clip_text(&states, p->text, c, ids, n_texts, n_tokens, clip_skip));
    KAC_TRY(kac_take(&out->tokens, &c->run, states.hidden.dtype, states.hidden.rank, states.hidden.shape));
    KAC_TRY(kac_copy(c, &out->tokens, states.hidden));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const char *const *texts,
                               int n_texts, int clip_skip, int *n_truncated) {
    *out = (kac_conditioning){0};
    if (n_truncated != NULL) *n_truncated = 0;
    int32_t *ids = NULL;
    int64_t n_tokens = 0;
    kac_status s = tokenize(&ids, &n_tokens, p, texts, n_texts, n_truncated);
    if (s == KAC_OK) s = encode(out, p, c, ids, n_texts, n_tokens, clip_skip);
    kac_free(ids);
    return s;
}
