/* What a latent process is conditioned on: its prompts and what stands against them. */
#include "run/latent_parts.h"

/* Negative ones first, so that each role is one batch. */
static void list_texts(kac_latent *l, kac_latent_texts *texts) {
    const kac_latent_options *o = &l->o;
    for (int g = 0; g < o->n_groups && kac_latent_doubles(l); g++)
        l->uncond_row[g] =
            kac_latent_texts_add(texts, o->negative_prompts == NULL ? NULL : o->negative_prompts[g], true);
    for (int g = 0; g < o->n_groups; g++) l->cond_row[g] = kac_latent_texts_add(texts, o->prompts[g], false);
}

kac_status kac_latent_open_texts(kac_latent *l) {
    if (l->pipeline->n_texts == 0) return KAC_OK;
    const kac_latent_text_options o = {.encode = l->o.text,
                                       .width = l->o.width,
                                       .height = l->o.height,
                                       .sizes = l->o.sizes,
                                       .negative_sizes = l->o.negative_sizes};
    const double start_ms = kac_now_ms();
    kac_latent_texts texts;
    kac_status s = kac_latent_texts_open(&texts, l->o.n_groups * 2);
    if (s == KAC_OK) {
        list_texts(l, &texts);
        s = kac_latent_texts_encode(&texts, l->pipeline, l->c, &o);
        l->n_truncated = texts.n_truncated;
    }
    if (s == KAC_OK) s = kac_latent_texts_condition(&l->cond, &texts, l->pipeline, l->c, NULL, texts.n, l->o.cfg_scale);
    kac_latent_texts_close(&texts);
    l->counts.text_ms += kac_now_ms() - start_ms;
    return s;
}
