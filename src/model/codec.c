/* AutoencoderKL, and what both autoencoders share. */
#include "model/codec_net.h"
#include "nn/scope.h"

/* ---- two buffers that take turns ---- */

kac_status kac_codec_turn_open(kac_codec_turn *t, kac_ctx *c, int64_t count) {
    *t = (kac_codec_turn){.c = c};
    for (int i = 0; i < 2 && c->tape == NULL; i++) KAC_TRY(kac_take_make(&t->flat[i], &c->scratch, c->dtype, count));
    return KAC_OK;
}

kac_tensor kac_codec_turn_next(kac_codec_turn *t, int64_t n, int64_t h, int64_t w, int64_t channels) {
    if (t->c->tape != NULL) return KAC_NONE;
    t->i = !t->i;
    KAC_ASSERT(n * h * w * channels <= t->flat[0].shape[0]);
    return kac_tensor_make(t->flat[t->i].data, t->c->dtype, n, h, w, channels);
}

/* ---- AutoencoderKL ---- */

static kac_status run_resnet(kac_codec_turn *turn, const kac_nn_resnet *m, kac_tensor *x) {
    kac_tensor y = kac_codec_turn_next(turn, x->shape[0], x->shape[1], x->shape[2], m->o.n_out);
    KAC_TRY(kac_nn_resnet_run(turn->c, &y, m, *x, (kac_nn_time){0}));
    *x = y;
    return KAC_OK;
}

static kac_status run_mid(kac_codec_turn *turn, const kac_codec_half *h, bool attention, kac_tensor *x) {
    KAC_TRY(run_resnet(turn, &h->mid_resnet[0], x));
    if (attention) KAC_TRY(kac_nn_attention_run(turn->c, &h->mid_attention, x));
    KAC_TRY(run_resnet(turn, &h->mid_resnet[1], x));
    return kac_tap(turn->c, *x, "%s.mid_block", h->path.s);
}

static kac_status run_sampler(kac_codec_turn *turn, const kac_codec_block *b, bool up, kac_tensor *x) {
    kac_ctx *c = turn->c;
    const int64_t n = x->shape[0], height = up ? 2 * x->shape[1] : x->shape[1] / 2,
                  width = up ? 2 * x->shape[2] : x->shape[2] / 2;
    kac_tensor y = kac_codec_turn_next(turn, n, height, width, b->sampler.w.n_out), large = *x;
    KAC_TRY(kac_nn_out(c, &y, n, height, width, b->sampler.w.n_out));
    const size_t mark = kac_scope_open(c);
    if (up) {
        large = KAC_NONE;
        KAC_TRY(kac_upsample_nearest(c, &large, *x, height, width));
    }
    KAC_TRY(kac_nn_conv_run(c, &y, &b->sampler, large, KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark);
    *x = y;
    return kac_tap(c, *x, "%s", b->sampler_path.s);
}

static kac_status run_block(kac_codec_turn *turn, const kac_codec_block *b, bool up, kac_tensor *x) {
    for (int i = 0; i < b->n_resnets; i++) KAC_TRY(run_resnet(turn, &b->resnet[i], x));
    if (b->has_sampler) KAC_TRY(run_sampler(turn, b, up, x));
    return kac_tap(turn->c, *x, "%s", b->path.s);
}

/* Elements of the largest result between two layers. */
static int64_t turn_count(const kac_codec_config *cfg, kac_tensor x, bool decode) {
    int64_t pixels = x.shape[0] * x.shape[1] * x.shape[2], most = 0;
    for (int i = 0; i < cfg->n_blocks; i++) {
        const int64_t n = decode ? cfg->channels_decoder[i] : cfg->channels[i];
        const bool grows = decode && i + 1 < cfg->n_blocks;
        if (grows) pixels *= 4;
        most = KAC_MAX(most, pixels * n);
        if (!decode) pixels /= 4;
    }
    return most;
}

static kac_status run_half(kac_ctx *c, const kac_codec_config *cfg, const kac_codec_half *h, bool decode,
                           kac_tensor *x) {
    kac_codec_turn turn;
    KAC_TRY(kac_codec_turn_open(&turn, c, turn_count(cfg, *x, decode)));
    kac_tensor y = kac_codec_turn_next(&turn, x->shape[0], x->shape[1], x->shape[2], h->conv_in.w.n_out), z = KAC_NONE;
    KAC_TRY(kac_nn_conv_run(c, &y, &h->conv_in, *x, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_tap(c, y, "%s.conv_in", h->path.s));
    if (decode) KAC_TRY(run_mid(&turn, h, cfg->mid_attention, &y));
    for (int i = 0; i < cfg->n_blocks; i++) KAC_TRY(run_block(&turn, &h->block[i], decode, &y));
    if (!decode) KAC_TRY(run_mid(&turn, h, cfg->mid_attention, &y));
    kac_tensor normed = kac_codec_turn_next(&turn, y.shape[0], y.shape[1], y.shape[2], y.shape[3]);
    KAC_TRY(kac_nn_norm_run(c, &normed, &h->norm_out, y, KAC_ACT_SILU));
    KAC_TRY(kac_nn_conv_run(c, &z, &h->conv_out, normed, KAC_ACT_NONE, KAC_NONE));
    *x = z;
    return kac_tap(c, z, "%s.conv_out", h->path.s);
}

static kac_status decode(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z) {
    KAC_TRY(kac_nn_cast(c, &z));
    if (v->cfg.tiny) return kac_codec_tiny_run(c, image, v, z, true);
    if (v->cfg.post_quant_conv) {
        kac_tensor y = KAC_NONE;
        KAC_TRY(kac_nn_linear_run(c, &y, &v->post_quant, z, KAC_ACT_NONE, KAC_NONE));
        KAC_TRY(kac_tap(c, y, "post_quant_conv"));
        z = y;
    }
    KAC_TRY(run_half(c, &v->cfg, &v->decoder, true, &z));
    return kac_copy(c, image, z);
}

static kac_status encode(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image) {
    KAC_TRY(kac_nn_cast(c, &image));
    if (v->cfg.tiny) return kac_codec_tiny_run(c, moments, v, image, false);
    KAC_TRY(run_half(c, &v->cfg, &v->encoder, false, &image));
    if (v->cfg.quant_conv) {
        kac_tensor y = KAC_NONE;
        KAC_TRY(kac_nn_linear_run(c, &y, &v->quant, image, KAC_ACT_NONE, KAC_NONE));
        KAC_TRY(kac_tap(c, y, "quant_conv"));
        image = y;
    }
    return kac_copy(c, moments, image);
}

/* ---- the interface ---- */

static kac_status check_latent(const kac_codec *v, kac_tensor z) {
    if (z.rank != 4 || z.shape[0] < 1 || z.shape[1] < 1 || z.shape[2] < 1 || z.shape[3] != v->cfg.latent_channels)
        return KAC_FAIL(KAC_E_SHAPE, "this autoencoder decodes latents with %lld channels",
                        (long long)v->cfg.latent_channels);
    return KAC_OK;
}

static kac_status take_image(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z) {
    if (image->data != NULL) return KAC_OK;
    return kac_take_make(image, &c->scratch, KAC_F32, z.shape[0], z.shape[1] * v->cfg.factor,
                         z.shape[2] * v->cfg.factor, v->cfg.out_channels);
}

kac_status kac_codec_decode(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z) {
    KAC_TRY(check_latent(v, z));
    KAC_TRY(take_image(image, v, c, z));
    const size_t mark = kac_scope_open(c);
    const kac_status s = decode(image, v, c, z);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_codec_unscale(kac_tensor *z, const kac_codec *v, kac_ctx *c, kac_tensor latents) {
    KAC_TRY(check_latent(v, latents));
    return kac_affine(c, z, latents, v->latent_scale, v->latent_shift);
}

kac_status kac_codec_scale(kac_tensor *latents, const kac_codec *v, kac_ctx *c, kac_tensor z) {
    KAC_TRY(check_latent(v, z));
    return kac_affine(c, latents, z, v->unlatent_scale, v->unlatent_shift);
}

/* 0 when one image can be processed whole; else the side of tiles, in latents, that need a quarter of the limit (64 latents for the decoder of
 * Stable Diffusion). A rule of shapes alone, so that a picture does not depend on the machine that makes it. */
static int64_t tile_needed(const kac_codec *v, kac_tensor x, bool is_image) {
    const int64_t unit = is_image ? v->cfg.factor : 1;
    x.shape[0] = 1;
    if (turn_count(&v->cfg, x, !is_image) <= KAC_CODEC_MAX_WHOLE) return 0;
    int64_t tile = 4;
    do {
        tile += 4;
        x.shape[1] = x.shape[2] = tile * unit;
    } while (turn_count(&v->cfg, x, !is_image) <= KAC_CODEC_MAX_WHOLE / 4);
    return tile - 4;
}

kac_status kac_codec_decode_latents(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor latents) {
    KAC_TRY(check_latent(v, latents));
    KAC_TRY(take_image(image, v, c, latents));
    const size_t mark = kac_scope_open(c);
    kac_tensor z = KAC_NONE;
    const int64_t tile = tile_needed(v, latents, false);
    if (tile > 0 && c->tape != NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "a picture of %lldx%lld is decoded in tiles, which has no gradient; take a smaller one",
                        (long long)(latents.shape[2] * v->cfg.factor), (long long)(latents.shape[1] * v->cfg.factor));
    kac_status s = kac_codec_unscale(&z, v, c, latents);
    if (s == KAC_OK) s = tile > 0 ? kac_codec_decode_tiled(image, v, c, z, tile) : decode(image, v, c, z);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_codec_check_image(const kac_codec *v, kac_tensor image) {
    const kac_codec_config *cfg = &v->cfg;
    if (!cfg->has_encoder) return KAC_FAIL(KAC_E_UNSUPPORTED, "this autoencoder's file holds no encoder");
    if (image.rank != 4 || image.shape[0] < 1 || image.shape[3] != cfg->in_channels)
        return KAC_FAIL(KAC_E_SHAPE, "this autoencoder encodes images with %lld channels", (long long)cfg->in_channels);
    if (image.shape[1] < cfg->factor || image.shape[2] < cfg->factor || image.shape[1] % cfg->factor != 0 ||
        image.shape[2] % cfg->factor != 0)
        return KAC_FAIL(KAC_E_SHAPE, "an image of %lldx%lld cannot be encoded; its sides must be multiples of %lld",
                        (long long)image.shape[2], (long long)image.shape[1], (long long)cfg->factor);
    return KAC_OK;
}

kac_status kac_codec_encode_whole(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image) {
    const kac_codec_config *cfg = &v->cfg;
    KAC_TRY(kac_codec_check_image(v, image));
    if (moments->data == NULL)
        KAC_TRY(kac_take_make(moments, &c->scratch, KAC_F32, image.shape[0], image.shape[1] / cfg->factor,
                              image.shape[2] / cfg->factor, cfg->latent_channels * (cfg->tiny ? 1 : 2)));
    const size_t mark = kac_scope_open(c);
    const kac_status s = encode(moments, v, c, image);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_codec_encode(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image) {
    KAC_TRY(kac_codec_check_image(v, image));
    const int64_t tile = tile_needed(v, image, true);
    return tile > 0 ? kac_codec_encode_tiled(moments, v, c, image, tile) : kac_codec_encode_whole(moments, v, c, image);
}

static kac_status encode_latents(kac_tensor *latents, const kac_codec *v, kac_ctx *c, kac_tensor image) {
    kac_tensor moments = KAC_NONE, mean;
    KAC_TRY(kac_codec_encode(&moments, v, c, image));
    KAC_TRY(kac_take(&mean, &c->scratch, KAC_F32, latents->rank, latents->shape));
    KAC_TRY(kac_copy(c, &mean, kac_tensor_slice(moments, 3, 0, v->cfg.latent_channels)));
    return kac_codec_scale(latents, v, c, mean);
}

kac_status kac_codec_encode_latents(kac_tensor *latents, const kac_codec *v, kac_ctx *c, kac_tensor image) {
    KAC_TRY(kac_codec_check_image(v, image));
    if (latents->data == NULL)
        KAC_TRY(kac_take_make(latents, &c->scratch, KAC_F32, image.shape[0], image.shape[1] / v->cfg.factor,
                              image.shape[2] / v->cfg.factor, v->cfg.latent_channels));
    const size_t mark = kac_scope_open(c);
    const kac_status s = encode_latents(latents, v, c, image);
    kac_scope_close(c, mark);
    return s;
}
