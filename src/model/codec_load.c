#include "model/codec_net.h"

/* ---- AutoencoderKL ---- */

static kac_nn_resnet_opt resnet_opt(const kac_codec_config *cfg, int64_t n_in, int64_t n_out) {
    return (kac_nn_resnet_opt){
        .n_in = n_in, .n_out = n_out, .groups = cfg->groups, .eps = 1e-6, .out_scale = 1, .act = cfg->act};
}

static kac_status load_mid(const kac_codec_config *cfg, const kac_loader *l, kac_codec_half *h, int64_t n) {
    for (int i = 0; i < 2; i++)
        KAC_TRY(kac_nn_resnet_load(l, &h->mid_resnet[i], kac_path_of("%s.mid_block.resnets.%d", h->path.s, i),
                                   resnet_opt(cfg, n, n)));
    if (!cfg->mid_attention) return KAC_OK;
    return kac_nn_attention_load(l, &h->mid_attention, kac_path_of("%s.mid_block.attentions.0", h->path.s), n, n,
                                 cfg->groups, 1e-6, 1);
}

static kac_status load_block(const kac_codec_config *cfg, const kac_loader *l, kac_codec_half *h, int i, bool up) {
    kac_codec_block *b = &h->block[i];
    const int64_t *channels = up ? cfg->channels_decoder : cfg->channels;
    b->path = kac_path_of("%s.%s_blocks.%d", h->path.s, up ? "up" : "down", i);
    b->n_resnets = (int)(up ? cfg->layers_decoder[i] : cfg->layers[i]);
    for (int k = 0; k < b->n_resnets; k++) {
        const int64_t n_in = channels[k == 0 && i > 0 ? i - 1 : i];
        KAC_TRY(kac_nn_resnet_load(l, &b->resnet[k], kac_path_of("%s.resnets.%d", b->path.s, k),
                                   resnet_opt(cfg, n_in, channels[i])));
    }
    b->has_sampler = i + 1 < cfg->n_blocks;
    if (!b->has_sampler) return KAC_OK;
    b->sampler_path = kac_path_of("%s.%ssamplers.0", b->path.s, up ? "up" : "down");
    return kac_nn_conv_load(l, &b->sampler, kac_path_of("%s.conv", b->sampler_path.s).s, channels[i], channels[i], 3,
                            up ? 1 : 2, up ? 1 : 0, true);
}

static kac_status load_half(const kac_codec_config *cfg, const kac_loader *l, kac_codec_half *h, bool decoder) {
    const int n = cfg->n_blocks;
    const int64_t *channels = decoder ? cfg->channels_decoder : cfg->channels;
    const int64_t n_in = decoder ? cfg->latent_channels : cfg->in_channels,
                  n_out = decoder ? cfg->out_channels : 2 * cfg->latent_channels;
    h->path = kac_path_of("%s", decoder ? "decoder" : "encoder");
    KAC_TRY(kac_nn_conv_load(l, &h->conv_in, kac_path_of("%s.conv_in", h->path.s).s, n_in, channels[0], 3, 1, 1, true));
    for (int i = 0; i < n; i++) KAC_TRY(load_block(cfg, l, h, i, decoder));
    KAC_TRY(load_mid(cfg, l, h, cfg->channels[n - 1]));
    KAC_TRY(kac_nn_group_norm_load(l, &h->norm_out, kac_path_of("%s.conv_norm_out", h->path.s).s, channels[n - 1],
                                   cfg->groups, 1e-6));
    return kac_nn_conv_load(l, &h->conv_out, kac_path_of("%s.conv_out", h->path.s).s, channels[n - 1], n_out, 3, 1, 1,
                            true);
}

static kac_status load_kl(kac_codec *v, const kac_loader *l) {
    const int64_t n = v->cfg.latent_channels;
    v->cfg.has_encoder = kac_loader_has(l, "encoder.conv_in.weight");
    if (v->cfg.has_encoder) {
        KAC_TRY(load_half(&v->cfg, l, &v->encoder, false));
        if (v->cfg.quant_conv) KAC_TRY(kac_nn_linear_load(l, &v->quant, "quant_conv", 2 * n, 2 * n, true));
    }
    KAC_TRY(load_half(&v->cfg, l, &v->decoder, true));
    return v->cfg.post_quant_conv ? kac_nn_linear_load(l, &v->post_quant, "post_quant_conv", n, n, true) : KAC_OK;
}

/* ---- AutoencoderTiny ---- */

static kac_status load_tiny_block(const kac_loader *l, kac_codec_tiny_block *b, kac_path path, int64_t n) {
    for (int i = 0; i < 3; i++)
        KAC_TRY(kac_nn_conv_load(l, &b->conv[i], kac_path_of("%s.conv.%d", path.s, 2 * i).s, n, n, 3, 1, 1, true));
    b->has_pool = kac_loader_has(l, kac_path_of("%s.pool.0.weight", path.s).s);
    if (!b->has_pool) return KAC_OK;
    KAC_TRY(kac_nn_linear_load(l, &b->pool_in, kac_path_of("%s.pool.0", path.s).s, n, 4 * n, false));
    KAC_TRY(kac_nn_group_norm_load(l, &b->pool_norm, kac_path_of("%s.pool.1", path.s).s, 4 * n, 4, 1e-5));
    return kac_nn_linear_load(l, &b->pool_out, kac_path_of("%s.pool.3", path.s).s, 4 * n, n, false);
}

static kac_status load_step(const kac_loader *l, kac_codec_sequence *q, kac_codec_step_kind kind, int64_t n_in,
                            int64_t n_out, int stride, bool bias) {
    kac_codec_step *s = &q->step[q->n_steps];
    const kac_path path = kac_path_of("%s.layers.%d", q->path.s, q->n_steps++);
    s->kind = kind;
    s->n_out = n_out;
    if (kind == KAC_STEP_CONV) return kac_nn_conv_load(l, &s->conv, path.s, n_in, n_out, 3, stride, 1, bias);
    return kind == KAC_STEP_BLOCK ? load_tiny_block(l, &s->block, path, n_out) : KAC_OK;
}

static kac_status load_sequence(const kac_codec_config *cfg, const kac_loader *l, kac_codec_sequence *q, bool decoder) {
    const int n = decoder ? cfg->n_blocks_decoder : cfg->n_blocks;
    const int64_t *layers = decoder ? cfg->layers_decoder : cfg->layers;
    const int64_t width = decoder ? cfg->channels_decoder[0] : cfg->channels[0];
    int64_t n_steps = 2;
    for (int i = 0; i < n; i++) n_steps += layers[i] + 2;
    q->path = kac_path_of("%s", decoder ? "decoder" : "encoder");
    q->step = kac_alloc((size_t)n_steps * sizeof *q->step);
    if (q->step == NULL) return KAC_E_MEMORY;
    if (decoder) {
        KAC_TRY(load_step(l, q, KAC_STEP_CONV, cfg->latent_channels, width, 1, true));
        KAC_TRY(load_step(l, q, KAC_STEP_ACT, width, width, 1, true));
    }
    for (int i = 0; i < n; i++) {
        if (!decoder)
            KAC_TRY(load_step(l, q, KAC_STEP_CONV, i == 0 ? cfg->in_channels : width, width, i == 0 ? 1 : 2, i == 0));
        for (int64_t k = 0; k < layers[i]; k++) KAC_TRY(load_step(l, q, KAC_STEP_BLOCK, width, width, 1, true));
        if (!decoder) continue;
        const bool last = i + 1 == n;
        if (!last) KAC_TRY(load_step(l, q, KAC_STEP_UPSAMPLE, width, width, 1, true));
        KAC_TRY(load_step(l, q, KAC_STEP_CONV, width, last ? cfg->out_channels : width, 1, last));
    }
    return decoder ? KAC_OK : load_step(l, q, KAC_STEP_CONV, width, cfg->latent_channels, 1, true);
}

static kac_status load_tiny(kac_codec *v, const kac_loader *l) {
    v->cfg.has_encoder = kac_loader_has(l, "encoder.layers.0.weight");
    if (v->cfg.has_encoder) KAC_TRY(load_sequence(&v->cfg, l, &v->tiny_encoder, false));
    return load_sequence(&v->cfg, l, &v->tiny_decoder, true);
}

/* ---- both ---- */

static kac_status load_constants(kac_codec *v, const kac_loader *l) {
    const kac_codec_config *cfg = &v->cfg;
    float value[7][KAC_CODEC_MAX_LATENT];
    for (int i = 0; i < KAC_CODEC_MAX_LATENT; i++) {
        const double std = cfg->n_stats > i ? cfg->latents_std[i] : 1,
                     mean = cfg->n_stats > i ? cfg->latents_mean[i] : cfg->shift;
        value[0][i] = 0.5f;
        value[1][i] = 2;
        value[2][i] = -1;
        value[3][i] = (float)(std / cfg->scaling);
        value[4][i] = (float)mean;
        value[5][i] = (float)(cfg->scaling / std);
        value[6][i] = (float)(-mean * cfg->scaling / std);
    }
    KAC_TRY(kac_loader_constant(l, &v->half, value[0], cfg->in_channels));
    KAC_TRY(kac_loader_constant(l, &v->two, value[1], cfg->out_channels));
    KAC_TRY(kac_loader_constant(l, &v->minus_one, value[2], cfg->out_channels));
    KAC_TRY(kac_loader_constant(l, &v->latent_scale, value[3], cfg->latent_channels));
    KAC_TRY(kac_loader_constant(l, &v->latent_shift, value[4], cfg->latent_channels));
    KAC_TRY(kac_loader_constant(l, &v->unlatent_scale, value[5], cfg->latent_channels));
    return kac_loader_constant(l, &v->unlatent_shift, value[6], cfg->latent_channels);
}

kac_status kac_codec_load_from(kac_codec **out, kac_ctx *c, const kac_source *source) {
    *out = NULL;
    kac_codec *v = kac_alloc(sizeof *v);
    if (v == NULL) return KAC_E_MEMORY;
    const kac_loader l = kac_source_loader(source, c);
    kac_status s = kac_codec_config_read(&v->cfg, &source->config);
    if (s == KAC_OK) s = v->cfg.tiny ? load_tiny(v, &l) : load_kl(v, &l);
    if (s == KAC_OK) s = load_constants(v, &l);
    if (s == KAC_OK)
        *out = v;
    else
        kac_codec_free(v);
    return s;
}

kac_status kac_codec_load(kac_codec **out, kac_ctx *c, const char *dir) {
    kac_source source;
    *out = NULL;
    KAC_TRY(kac_source_open(&source, dir, "vae"));
    const kac_status s = kac_codec_load_from(out, c, &source);
    kac_source_close(&source);
    return s;
}

void kac_codec_free(kac_codec *v) {
    if (v == NULL) return;
    kac_free(v->tiny_encoder.step);
    kac_free(v->tiny_decoder.step);
    kac_free(v);
}

const kac_codec_config *kac_codec_config_of(const kac_codec *v) {
    return &v->cfg;
}
