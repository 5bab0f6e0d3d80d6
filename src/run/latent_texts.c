#include "run/latent_texts.h"
#include <string.h>

enum { MAX_TIME_IDS = 6 };

kac_status kac_latent_texts_open(kac_latent_texts *t, int n_most) {
    *t = (kac_latent_texts){.n_most = n_most};
    t->list = kac_alloc((size_t)n_most * sizeof *t->list);
    t->time_ids = kac_alloc((size_t)n_most * MAX_TIME_IDS * sizeof *t->time_ids);
    return t->list == NULL || t->time_ids == NULL ? KAC_E_MEMORY : KAC_OK;
}

void kac_latent_texts_close(kac_latent_texts *t) {
    kac_free(t->list), kac_free(t->time_ids);
    *t = (kac_latent_texts){0};
}

int kac_latent_texts_add(kac_latent_texts *t, const char *text, bool negative) {
    for (int i = 0; i < t->n; i++)
        if (t->list[i].negative == negative && (t->list[i].text == NULL) == (text == NULL) &&
            (text == NULL || strcmp(t->list[i].text, text) == 0))
            return i;
    KAC_ASSERT(t->n < t->n_most);
    t->list[t->n] = (kac_prompt_text){.text = text, .negative = negative};
    return t->n++;
}

/* Sizes and crop, as the network counts them: with five numbers the last is the score, with six the target size. */
static kac_status time_ids(double *out, const kac_latent_text_options *o, int n, bool negative) {
    const kac_latent_sizes *s = negative ? &o->negative_sizes : &o->sizes;
    const int64_t own[2] = {o->height, o->width};
    for (int i = 0; i < 2; i++) {
        out[i] = (double)(s->original[i] > 0 ? s->original[i] : own[i]);
        out[2 + i] = (double)s->crop[i];
        if (n == 6) out[4 + i] = (double)(s->target[i] > 0 ? s->target[i] : own[i]);
    }
    if (n == 5) out[4] = s->score;
    return n == 5 || n == 6
               ? KAC_OK
               : KAC_FAIL(KAC_E_UNSUPPORTED, "the network reads %d sizes beside the text; 5 and 6 are known", n);
}

kac_status kac_latent_texts_encode(kac_latent_texts *t, const kac_pipeline *p, kac_ctx *c,
                                   const kac_latent_text_options *o) {
    const kac_unet_config *cfg = kac_unet_config_of(p->unet);
    KAC_TRY(kac_pipeline_encode(&t->encoded, p, c, t->list, t->n, o->encode, &t->n_truncated));
    if (cfg->addition != KAC_ADDITION_TEXT_TIME) return KAC_OK;
    t->n_time_ids = (int)((cfg->addition_dim - t->encoded.pooled.shape[1]) / cfg->addition_time_dim);
    for (int i = 0; i < t->n; i++)
        KAC_TRY(time_ids(t->time_ids + i * t->n_time_ids, o, t->n_time_ids, t->list[i].negative));
    return KAC_OK;
}

/* Rows of everything that was encoded, in scratch. */
static kac_status choose(kac_unet_inputs *in, const kac_latent_texts *t, kac_ctx *c, const int *row, int n) {
    double *ids = kac_arena_take(&c->scratch, (size_t)(n * KAC_MAX(1, t->n_time_ids)) * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    in->tokens = in->pooled = (kac_tensor){0};
    KAC_TRY(kac_gather(c, &in->tokens, t->encoded.tokens, row, n));
    if (t->encoded.pooled.data != NULL) KAC_TRY(kac_gather(c, &in->pooled, t->encoded.pooled, row, n));
    for (int i = 0; i < n && !c->scratch.counting; i++)
        for (int k = 0; k < t->n_time_ids; k++) ids[i * t->n_time_ids + k] = t->time_ids[row[i] * t->n_time_ids + k];
    in->time_ids = ids;
    return KAC_OK;
}

static kac_status condition(kac_unet_cond **out, const kac_latent_texts *t, const kac_pipeline *p, kac_ctx *c,
                            const int *row, int n, double cfg_scale) {
    kac_unet_inputs in = {
        .tokens = t->encoded.tokens, .pooled = t->encoded.pooled, .time_ids = t->time_ids, .n_time_ids = t->n_time_ids};
    if (row != NULL) KAC_TRY(choose(&in, t, c, row, n));
    if (kac_unet_config_of(p->unet)->time_cond_dim > 0) {
        double *w = kac_alloc((size_t)n * sizeof *w);
        if (w == NULL) return KAC_E_MEMORY;
        for (int i = 0; i < n; i++) w[i] = cfg_scale - 1;
        const kac_status s = kac_unet_guidance(&in.timestep_cond, p->unet, c, w, n);
        kac_free(w);
        KAC_TRY(s);
    }
    return kac_unet_condition(out, p->unet, c, &in);
}

kac_status kac_latent_texts_condition(kac_unet_cond **out, const kac_latent_texts *t, const kac_pipeline *p, kac_ctx *c,
                                      const int *row, int n, double cfg_scale) {
    const size_t mark = kac_arena_mark(&c->scratch);
    const kac_status s = condition(out, t, p, c, row, row == NULL ? t->n : n, cfg_scale);
    if (c->tape == NULL) kac_arena_release(&c->scratch, mark); /* else the replay reads it */
    return s;
}
