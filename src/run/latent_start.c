/* Where states begin, and what a mask keeps of the first picture: image to image (Meng et al. 2022) and inpainting. */
#include "run/latent_parts.h"
#include <math.h>
#include <string.h>

/* Which draw from the encoder's distribution: each particle's own for the picture, one for all of what the mask leaves of it. */
enum { DRAW_PICTURE = 0, DRAW_MASKED = 1 };

static kac_tensor flat(kac_tensor t) {
    return kac_tensor_make(t.data, t.dtype, 1, kac_tensor_count(t));
}

static kac_tensor vector(kac_tensor t) {
    return kac_tensor_make(t.data, t.dtype, kac_tensor_count(t));
}

static kac_status take_state(kac_latent *l, kac_arena *arena, kac_tensor *out) {
    return kac_take_make(out, arena, KAC_F32, 1, l->h, l->w, l->channels);
}

/* ---- encoding ---- */

/* The picture in [−1, 1]; 0 where repainted when `masked`. */
static kac_status take_pixels(kac_latent *l, kac_tensor *out, bool masked) {
    const kac_latent_start *s = &l->o.start;
    KAC_TRY(kac_take_make(out, &l->c->scratch, KAC_F32, 1, l->o.height, l->o.width, 3));
    float *to = out->data;
    for (int64_t i = 0; i < l->o.height * l->o.width && !kac_latent_is_plan(l); i++)
        for (int k = 0; k < 3; k++) to[3 * i + k] = masked && s->mask[i] != 0 ? 0 : s->rgb[3 * i + k] / 255.0f * 2 - 1;
    return KAC_OK;
}

/* The first channel of a coloured picture becomes its luma: what a model of greys begins with. */
static void to_luma(const kac_latent *l, kac_tensor pixels) {
    float *x = pixels.data;
    for (int64_t i = 0; i < l->h * l->w && !kac_latent_is_plan(l); i++)
        x[3 * i] = 0.299f * x[3 * i] + 0.587f * x[3 * i + 1] + 0.114f * x[3 * i + 2];
}

/* exp(log-variance / 2), limited as the reference does. */
static void deviation_of(kac_latent *l, kac_tensor log_variance) {
    float *v = log_variance.data;
    for (int64_t i = 0; i < kac_tensor_count(log_variance) && !kac_latent_is_plan(l); i++)
        v[i] = expf(0.5f * fminf(fmaxf(v[i], -30), 20));
}

/* mean [1, h, w, channels] and, when it is to be drawn from, deviation of a picture's code before scaling; both taken from `arena`. */
static kac_status encode(kac_latent *l, kac_arena *arena, kac_tensor *mean, kac_tensor *std, bool masked) {
    const kac_codec *codec = l->pipeline->codec;
    const bool draws = codec != NULL && !kac_codec_config_of(codec)->tiny && !l->o.start.mean;
    KAC_TRY(take_state(l, arena, mean));
    if (draws) KAC_TRY(take_state(l, arena, std));
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor pixels = {0}, code = {0};
    KAC_TRY(take_pixels(l, &pixels, masked));
    if (codec != NULL)
        KAC_TRY(kac_codec_encode(&code, codec, l->c, pixels));
    else
        code = pixels;
    if (codec == NULL && l->channels == 1) to_luma(l, pixels);
    KAC_TRY(kac_copy(l->c, mean, kac_tensor_slice(code, 3, 0, l->channels)));
    if (draws) KAC_TRY(kac_copy(l->c, std, kac_tensor_slice(code, 3, l->channels, l->channels)));
    kac_arena_release(&l->c->scratch, mark);
    if (draws) deviation_of(l, *std);
    return KAC_OK;
}

/* The latents that mean and deviation give: scaled, drawn with the noise (draw, particle). */
static kac_status latents_of(kac_latent *l, kac_tensor *out, kac_tensor mean, kac_tensor std, int draw,
                             uint64_t particle) {
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor z = mean;
    if (std.data != NULL) {
        const kac_key key = {.seed = l->o.seed, .purpose = KAC_PURPOSE_ENCODE, .step = (uint32_t)draw};
        const int slot = (int)(uint32_t)particle;
        kac_tensor noise = {0}, sum = {0};
        KAC_TRY(take_state(l, &l->c->scratch, &noise));
        KAC_TRY(kac_randn(l->c, &noise, kac_key_of_particle(key, particle), &slot));
        KAC_TRY(take_state(l, &l->c->scratch, &z));
        sum = flat(z);
        KAC_TRY(kac_affine(l->c, &sum, flat(noise), vector(std), vector(mean)));
    }
    if (l->pipeline->codec != NULL)
        KAC_TRY(kac_codec_scale(out, l->pipeline->codec, l->c, z));
    else
        KAC_TRY(kac_copy(l->c, out, z));
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* ---- the mask ---- */

/* 1 where the latent at (y, x) is repainted: the mask's pixel at its corner, as nearest-neighbour interpolation takes it. */
static bool repainted(const kac_latent *l, int64_t y, int64_t x) {
    const int64_t factor = l->pipeline->factor;
    return l->o.start.mask[y * factor * l->o.width + x * factor] != 0;
}

static kac_status take_mask(kac_latent *l) {
    const int64_t n = kac_latent_state_count(l);
    kac_tensor *const all[] = {&l->mask, &l->keep, &l->zero};
    for (int k = 0; k < KAC_COUNT_OF(all); k++) KAC_TRY(kac_take_make(all[k], &l->c->run, KAC_F32, n));
    float *mask = l->mask.data, *keep = l->keep.data, *zero = l->zero.data;
    for (int64_t i = 0; i < n && !kac_latent_is_plan(l); i++) {
        const int64_t pixel = i / l->channels;
        mask[i] = repainted(l, pixel / l->w, pixel % l->w);
        keep[i] = 1 - mask[i];
        zero[i] = 0;
    }
    return KAC_OK;
}

/* Mask and latents of the picture without what is repainted. */
static kac_status take_extra(kac_latent *l) {
    KAC_TRY(kac_take_make(&l->extra, &l->c->run, KAC_F32, 1, l->h, l->w, l->channels + 1));
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor mean = {0}, std = {0}, latents = {0};
    KAC_TRY(encode(l, &l->c->scratch, &mean, &std, true));
    KAC_TRY(take_state(l, &l->c->scratch, &latents));
    KAC_TRY(latents_of(l, &latents, mean, std, DRAW_MASKED, 0));
    kac_tensor to = kac_tensor_slice(l->extra, 3, 1, l->channels);
    KAC_TRY(kac_copy(l->c, &to, latents));
    float *extra = l->extra.data;
    for (int64_t i = 0; i < l->h * l->w && !kac_latent_is_plan(l); i++)
        extra[i * (l->channels + 1)] = repainted(l, i / l->w, i % l->w);
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* ---- what the process calls ---- */

kac_status kac_latent_start_open(kac_latent *l) {
    const kac_latent_start *s = &l->o.start;
    const bool reads_mask = kac_pipeline_repaints(l->pipeline);
    if (reads_mask && (s->rgb == NULL || s->mask == NULL))
        return KAC_FAIL(KAC_E_USAGE, "this model repaints parts of a picture: give --init-img and --mask");
    if (s->rgb == NULL) return KAC_OK;
    if (reads_mask) KAC_TRY(take_extra(l));
    if (s->mask != NULL && !reads_mask) KAC_TRY(take_mask(l));
    if (s->from_noise && reads_mask) return KAC_OK;
    return encode(l, &l->c->run, &l->init_mean, &l->init_std, false);
}

/* Those that were given, or the particle's own. */
static kac_status first_noise(kac_latent *l, kac_tensor *x, const float *given, uint64_t particle) {
    if (given != NULL) return kac_copy(l->c, x, kac_tensor_of((float *)given, KAC_F32, x->rank, x->shape));
    const kac_key key = {.seed = l->o.seed, .purpose = KAC_PURPOSE_INIT, .step = 0};
    const int slot = (int)(uint32_t)particle;
    return kac_randn(l->c, x, kac_key_of_particle(key, particle), &slot);
}

/* out = alpha · picture + sigma · first noise */
static kac_status picture_at(kac_latent *l, kac_tensor *out, double alpha, double sigma, const float *given,
                             uint64_t particle) {
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor terms[2] = {0};
    for (int i = 0; i < 2; i++) KAC_TRY(take_state(l, &l->c->scratch, &terms[i]));
    KAC_TRY(latents_of(l, &terms[0], l->init_mean, l->init_std, DRAW_PICTURE, particle));
    KAC_TRY(first_noise(l, &terms[1], given, particle));
    KAC_TRY(kac_lincomb(l->c, out, sigma == 0 ? 1 : 2, terms, (double[]){alpha, sigma}, 1));
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

kac_status kac_latent_start_state(kac_latent *l, kac_tensor *x, const float *given, uint64_t particle) {
    const kac_latent_start *s = &l->o.start;
    if (s->rgb != NULL && !s->from_noise)
        return picture_at(l, x, l->solver->rows[0].alpha, l->solver->rows[0].sigma, given, particle);
    KAC_TRY(first_noise(l, x, given, particle));
    return kac_lincomb(l->c, x, 1, x, &l->solver->init_noise_sigma, 1);
}

kac_status kac_latent_start_keep(kac_latent *l, kac_tensor *x, int i_step, uint64_t particle) {
    if (l->mask.data == NULL) return KAC_OK;
    const bool last = i_step + 1 == l->solver->n_steps;
    const kac_solver_row *next = last ? NULL : &l->solver->rows[i_step + 1];
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor known = {0}, kept = {0}, both = flat(*x);
    KAC_TRY(take_state(l, &l->c->scratch, &known));
    KAC_TRY(picture_at(l, &known, last ? 1 : next->alpha, last ? 0 : next->sigma, NULL, particle));
    KAC_TRY(kac_affine(l->c, &kept, flat(known), l->keep, l->zero));
    KAC_TRY(kac_affine(l->c, &both, both, l->mask, vector(kept)));
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}
