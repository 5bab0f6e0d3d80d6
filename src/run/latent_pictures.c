/* The pictures of states: decoded in batches, at most once per state. */
#include "run/latent_parts.h"
#include "run/picture_gradient.h"
#include <math.h>
#include <string.h>

void kac_latent_to_bytes(uint8_t *out, const float *image, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float v = image[i] * 127.5f + 127.5f;
        out[i] = (uint8_t)(v >= 255 ? 255 : v > 0 ? rintf(v) : 0); /* who needs to know of NaN looks at the states */
    }
}

/* The first picture's pixels wherever the mask keeps them. */
static void paste(const kac_latent *l, uint8_t *rgb) {
    const kac_latent_start *s = &l->o.start;
    for (int64_t i = 0; i < l->o.width * l->o.height; i++)
        if (s->mask[i] == 0) memcpy(rgb + 3 * i, s->rgb + 3 * i, 3);
}

kac_tensor kac_latent_viewed(const kac_latent *l, kac_stage stage) {
    return stage == KAC_STAGE_FINAL ? l->x : l->x0;
}

const kac_codec *kac_latent_decoder(const kac_latent *l, kac_stage stage) {
    const bool preview = stage == KAC_STAGE_PREDICTED && l->pipeline->preview != NULL;
    return preview ? l->pipeline->preview : l->pipeline->codec;
}

static kac_status decode_batch(kac_latent *l, const int *slots, int n, kac_stage stage) {
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor batch = {0}, image = {0};
    KAC_TRY(kac_gather(l->c, &batch, kac_latent_viewed(l, stage), slots, n));
    if (!kac_latent_is_plan(l))
        for (int64_t i = 0; i < n * kac_latent_state_count(l); i++)
            if (!isfinite(((const float *)batch.data)[i]))
                return KAC_FAIL(KAC_E_NONFINITE,
                                "the state of particle %d is not finite; try fewer extremes: --cfg-scale, --dtype f32",
                                slots[i / kac_latent_state_count(l)] % l->o.n_per_group);
    const kac_codec *codec = kac_latent_decoder(l, stage);
    if (codec == NULL) {
        KAC_TRY(kac_picture_colors(l->c, &image, batch));
    } else {
        KAC_TRY(kac_codec_decode_latents(&image, codec, l->c, batch));
    }
    for (int i = 0; i < n && !kac_latent_is_plan(l); i++) {
        kac_latent_to_bytes(l->pictures + (size_t)slots[i] * kac_latent_picture_bytes(l),
                            (const float *)image.data + (size_t)i * kac_latent_picture_bytes(l),
                            kac_latent_picture_bytes(l));
        if (l->o.start.paste) paste(l, l->pictures + (size_t)slots[i] * kac_latent_picture_bytes(l));
        l->picture_id[slots[i]] = l->id[slots[i]];
        l->picture_stage[slots[i]] = (uint8_t)stage;
    }
    l->counts.decoder += n;
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

static bool has_picture(const kac_latent *l, int slot, kac_stage stage) {
    return l->picture_id[slot] == l->id[slot] && l->picture_stage[slot] == stage;
}

kac_status kac_latent_pictures(kac_latent *l, const int *slots, int n, kac_stage stage, const uint8_t **out) {
    const double start_ms = kac_now_ms();
    int n_new = 0;
    for (int i = 0; i < n; i++)
        if (!has_picture(l, slots[i], stage) && kac_latent_find_state(l, l->list, n_new, l->id[slots[i]]) < 0)
            l->list[n_new++] = slots[i];
    for (int i = 0; i < n_new; i += l->o.batch)
        KAC_TRY(decode_batch(l, l->list + i, KAC_MIN(l->o.batch, n_new - i), stage));
    for (int i = 0; i < n; i++) {
        uint8_t *picture = l->pictures + (size_t)slots[i] * kac_latent_picture_bytes(l);
        if (!has_picture(l, slots[i], stage) && !kac_latent_is_plan(l)) {
            const int source = kac_latent_find_state(l, l->list, n_new, l->id[slots[i]]);
            memcpy(picture, l->pictures + (size_t)source * kac_latent_picture_bytes(l), kac_latent_picture_bytes(l));
            l->picture_id[slots[i]] = l->id[slots[i]];
            l->picture_stage[slots[i]] = (uint8_t)stage;
        }
        out[i] = picture;
    }
    l->counts.decoder_ms += kac_now_ms() - start_ms;
    return KAC_OK;
}
