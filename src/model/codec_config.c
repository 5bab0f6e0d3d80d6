/* config.json of AutoencoderKL and AutoencoderTiny. Source of the keys and defaults: diffusers. */
#include "model/codec_net.h"
#include "model/config.h"

#include <string.h>

enum { MAX_CHANNELS = 1 << 14 };

static kac_status read_common(kac_codec_config *cfg, const kac_json *j) {
    KAC_TRY(kac_config_int(j, j->root, "in_channels", &cfg->in_channels, 1, 64));
    KAC_TRY(kac_config_int(j, j->root, "out_channels", &cfg->out_channels, 1, 64));
    KAC_TRY(kac_config_int(j, j->root, "latent_channels", &cfg->latent_channels, 1, KAC_CODEC_MAX_LATENT));
    KAC_TRY(kac_config_act(j, j->root, "act_fn", &cfg->act, false));
    KAC_TRY(kac_json_real(j, j->root, "scaling_factor", &cfg->scaling));
    KAC_TRY(kac_json_real(j, j->root, "shift_factor", &cfg->shift));
    return cfg->scaling != 0 ? KAC_OK : kac_config_unsupported(j, "scaling_factor", "it divides");
}

/* Every entry of the list must be `name`; *n is its length, untouched when the key is missing. */
static kac_status check_blocks(const kac_json *j, const char *key, const char *name, int *n) {
    const char *found[KAC_CODEC_MAX_BLOCKS];
    int n_found = 0;
    KAC_TRY(kac_json_texts(j, j->root, key, found, KAC_CODEC_MAX_BLOCKS, &n_found));
    for (int i = 0; i < n_found; i++)
        if (strcmp(found[i], name) != 0)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%s\" holds \"%s\", which is not supported (only %s)", j->name,
                            key, found[i], name);
    if (n_found > 0) *n = n_found;
    return KAC_OK;
}

static kac_status read_stats(kac_codec_config *cfg, const kac_json *j) {
    int n_mean = 0, n_std = 0;
    KAC_TRY(kac_json_reals(j, j->root, "latents_mean", cfg->latents_mean, KAC_CODEC_MAX_LATENT, &n_mean));
    KAC_TRY(kac_json_reals(j, j->root, "latents_std", cfg->latents_std, KAC_CODEC_MAX_LATENT, &n_std));
    if (n_mean == 0 && n_std == 0) return KAC_OK;
    if (n_mean != cfg->latent_channels || n_std != cfg->latent_channels)
        return KAC_FAIL(KAC_E_FORMAT, "%s: latents_mean and latents_std must have %lld entries each", j->name,
                        (long long)cfg->latent_channels);
    for (int i = 0; i < n_std; i++)
        if (!(cfg->latents_std[i] > 0)) return KAC_FAIL(KAC_E_FORMAT, "%s: latents_std must be positive", j->name);
    cfg->n_stats = n_mean;
    return KAC_OK;
}

static kac_status read_kl(kac_codec_config *cfg, const kac_json *j) {
    *cfg = (kac_codec_config){.has_encoder = true,
                              .in_channels = 3,
                              .out_channels = 3,
                              .latent_channels = 4,
                              .channels = {64},
                              .act = KAC_ACT_SILU,
                              .groups = 32,
                              .sample_size = 32,
                              .scaling = 0.18215,
                              .quant_conv = true,
                              .post_quant_conv = true,
                              .mid_attention = true};
    int n_down = 1, n_up = 1, n = 1, n_size = 0;
    int64_t layers = 1, size[2] = {32, 32};
    KAC_TRY(read_common(cfg, j));
    KAC_TRY(check_blocks(j, "down_block_types", "DownEncoderBlock2D", &n_down));
    KAC_TRY(check_blocks(j, "up_block_types", "UpDecoderBlock2D", &n_up));
    KAC_TRY(kac_config_list(j, "block_out_channels", cfg->channels, KAC_CODEC_MAX_BLOCKS, &n, 1, MAX_CHANNELS));
    if (n != n_down || n != n_up)
        return KAC_FAIL(KAC_E_FORMAT,
                        "%s: %d down_block_types, %d up_block_types and %d block_out_channels do not fit together",
                        j->name, n_down, n_up, n);
    KAC_TRY(kac_config_int(j, j->root, "layers_per_block", &layers, 1, KAC_CODEC_MAX_LAYERS));
    KAC_TRY(kac_config_int(j, j->root, "norm_num_groups", &cfg->groups, 1, MAX_CHANNELS));
    KAC_TRY(kac_config_list(j, "sample_size", size, 2, &n_size, 1, 1 << 14));
    cfg->sample_size = size[0];
    KAC_TRY(kac_json_bool(j, j->root, "use_quant_conv", &cfg->quant_conv));
    KAC_TRY(kac_json_bool(j, j->root, "use_post_quant_conv", &cfg->post_quant_conv));
    KAC_TRY(kac_json_bool(j, j->root, "mid_block_add_attention", &cfg->mid_attention));
    KAC_TRY(read_stats(cfg, j));
    cfg->n_blocks = cfg->n_blocks_decoder = n;
    for (int i = 0; i < n; i++) {
        cfg->layers[i] = layers;
        cfg->layers_decoder[i] = layers + 1;
        cfg->channels_decoder[i] = cfg->channels[n - 1 - i];
    }
    cfg->factor = (int64_t)1 << (n - 1);
    return KAC_OK;
}

static kac_status read_stages(const kac_json *j, const char *channels_key, const char *layers_key, int64_t *channels,
                              int64_t *layers, int *n) {
    int n_channels = 4, n_layers = 4;
    KAC_TRY(kac_config_list(j, channels_key, channels, KAC_CODEC_MAX_BLOCKS, &n_channels, 1, MAX_CHANNELS));
    KAC_TRY(kac_config_list(j, layers_key, layers, KAC_CODEC_MAX_BLOCKS, &n_layers, 0, 64));
    if (n_channels != n_layers)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" and \"%s\" must be equally long", j->name, channels_key, layers_key);
    for (int i = 1; i < n_channels; i++)
        if (channels[i] != channels[0])
            return kac_config_unsupported(j, channels_key, "all stages must have the same channels");
    *n = n_channels;
    return KAC_OK;
}

static kac_status read_tiny(kac_codec_config *cfg, const kac_json *j) {
    *cfg = (kac_codec_config){.tiny = true,
                              .has_encoder = true,
                              .in_channels = 3,
                              .out_channels = 3,
                              .latent_channels = 4,
                              .channels = {64, 64, 64, 64},
                              .channels_decoder = {64, 64, 64, 64},
                              .layers = {1, 3, 3, 3},
                              .layers_decoder = {3, 3, 3, 1},
                              .act = KAC_ACT_RELU,
                              .sample_size = 512,
                              .scaling = 1};
    KAC_TRY(read_common(cfg, j));
    KAC_TRY(kac_config_refuse(j, "upsample_fn", "nearest"));
    int64_t factor = 2;
    KAC_TRY(kac_config_int(j, j->root, "upsampling_scaling_factor", &factor, 1, 4));
    if (factor != 2) return kac_config_unsupported(j, "upsampling_scaling_factor", "only 2");
    KAC_TRY(
        read_stages(j, "encoder_block_out_channels", "num_encoder_blocks", cfg->channels, cfg->layers, &cfg->n_blocks));
    KAC_TRY(read_stages(j, "decoder_block_out_channels", "num_decoder_blocks", cfg->channels_decoder,
                        cfg->layers_decoder, &cfg->n_blocks_decoder));
    cfg->factor = (int64_t)1 << (cfg->n_blocks_decoder - 1);
    return KAC_OK;
}

kac_status kac_codec_config_read(kac_codec_config *cfg, const kac_json *j) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "_class_name", &name));
    if (name == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s lacks \"_class_name\": is this the folder of an autoencoder?", j->name);
    if (strcmp(name, "AutoencoderKL") == 0 || strcmp(name, "FlaxAutoencoderKL") == 0) return read_kl(cfg, j);
    if (strcmp(name, "AutoencoderTiny") == 0) return read_tiny(cfg, j);
    return kac_config_unsupported(j, "_class_name", "AutoencoderKL or AutoencoderTiny");
}

kac_status kac_codec_config_load(kac_codec_config *cfg, const char *dir) {
    kac_json j;
    KAC_TRY(kac_config_open(&j, dir));
    const kac_status s = kac_codec_config_read(cfg, &j);
    kac_json_free(&j);
    return s;
}
