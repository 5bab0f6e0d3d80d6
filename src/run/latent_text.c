/* What a latent process is conditioned on: prompts, sizes, the guidance scale. */
#include "run/latent_parts.h"
#include <string.h>

enum { MAX_TIME_IDS = 6 };

/* Sizes and crop, as the network counts them: with five numbers the last is the score, with six the target size. */
static kac_status time_ids(double *out, const kac_latent *l, int n, bool negative) {
    const kac_latent_sizes *s = negative ? &l->o.negative_sizes : &l->o.sizes;
    const int64_t own[2] = {l->o.height, l->o.width};
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

/* The network's own share of the conditioning: ids [n, MAX_TIME_IDS] filled as far as it reads them. */
static kac_status condition(kac_latent *l, const kac_conditioning *text, const kac_prompt_text *texts, int n,
                            double *ids) {
    const kac_unet *u = l->pipeline->unet;
    const kac_unet_config *cfg = kac_unet_config_of(u);
    kac_unet_inputs in = {.tokens = text->tokens, .pooled = text->pooled};
    if (cfg->addition == KAC_ADDITION_TEXT_TIME) {
        in.n_time_ids = (int)((cfg->addition_dim - text->pooled.shape[1]) / cfg->addition_time_dim);
        for (int i = 0; i < n; i++) KAC_TRY(time_ids(ids + i * in.n_time_ids, l, in.n_time_ids, texts[i].negative));
        in.time_ids = ids;
    }
    if (cfg->time_cond_dim > 0) {
        double *w = kac_arena_take(&l->c->scratch, (size_t)n * sizeof *w);
        if (w == NULL) return KAC_E_MEMORY;
        for (int i = 0; i < n; i++) w[i] = l->o.cfg_scale - 1;
        KAC_TRY(kac_unet_guidance(&in.timestep_cond, u, l->c, w, n));
    }
    return kac_unet_condition(&l->cond, u, l->c, &in);
}

/* Index of a text in the list, added when new. What was not said is no text. */
static int text_index(kac_prompt_text *list, int *n, const char *text, bool negative) {
    for (int i = 0; i < *n; i++)
        if (list[i].negative == negative && (list[i].text == NULL) == (text == NULL) &&
            (text == NULL || strcmp(list[i].text, text) == 0))
            return i;
    list[*n] = (kac_prompt_text){.text = text, .negative = negative};
    return (*n)++;
}

/* Negative ones first, so that each role is one batch. */
static int list_texts(kac_latent *l, kac_prompt_text *texts) {
    const kac_latent_options *o = &l->o;
    int n = 0;
    for (int g = 0; g < o->n_groups && kac_latent_doubles(l); g++)
        l->uncond_row[g] = text_index(texts, &n, o->negative_prompts == NULL ? NULL : o->negative_prompts[g], true);
    for (int g = 0; g < o->n_groups; g++) l->cond_row[g] = text_index(texts, &n, o->prompts[g], false);
    return n;
}

kac_status kac_latent_open_texts(kac_latent *l) {
    if (l->pipeline->n_texts == 0) return KAC_OK;
    const size_t n_most = (size_t)l->o.n_groups * 2;
    kac_prompt_text *texts = kac_alloc(n_most * sizeof *texts);
    double *ids = kac_alloc(n_most * MAX_TIME_IDS * sizeof *ids);
    if (texts == NULL || ids == NULL) {
        kac_free(texts), kac_free(ids);
        return KAC_E_MEMORY;
    }
    const int n = list_texts(l, texts);
    const double start_ms = kac_now_ms();
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_conditioning encoded;
    kac_status s = kac_pipeline_encode(&encoded, l->pipeline, l->c, texts, n, l->o.text, &l->n_truncated);
    if (s == KAC_OK) s = condition(l, &encoded, texts, n, ids);
    kac_arena_release(&l->c->scratch, mark);
    kac_free(texts), kac_free(ids);
    l->counts.text_ms += kac_now_ms() - start_ms;
    return s;
}
