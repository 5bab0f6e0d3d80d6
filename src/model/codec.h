/* Latents ↔ images: AutoencoderKL and AutoencoderTiny behind one interface; the class is read from config.json.
 *
 * Two scales of latents exist. z is what the autoencoder itself encodes to and decodes from. The latents that a
 * diffusion model sees are scaled: z = latents / scaling_factor + shift_factor, or latents · latents_std /
 * scaling_factor + latents_mean where the config has them. kac_codec_decode takes z, kac_codec_decode_latents takes the
 * diffusion model's latents; the same for encoding. */
#ifndef KAC_CODEC_H
#define KAC_CODEC_H

#include "model/source.h"
#include "tensor/ops.h"

enum { KAC_CODEC_MAX_BLOCKS = 8, KAC_CODEC_MAX_LATENT = 64, KAC_CODEC_MAX_WHOLE = 1 << 28 };

typedef struct kac_codec_config {
    bool tiny;        /* AutoencoderTiny */
    bool has_encoder; /* false: decoder weights only (some tiny decoders) */
    int64_t in_channels, out_channels, latent_channels;
    int n_blocks, n_blocks_decoder;
    int64_t channels[KAC_CODEC_MAX_BLOCKS], channels_decoder[KAC_CODEC_MAX_BLOCKS]; /* the same for AutoencoderKL */
    int64_t layers[KAC_CODEC_MAX_BLOCKS], layers_decoder[KAC_CODEC_MAX_BLOCKS];
    kac_act act;
    int64_t groups;
    int64_t sample_size;
    double scaling, shift;
    int n_stats; /* length of latents_mean and latents_std; 0: none */
    double latents_mean[KAC_CODEC_MAX_LATENT], latents_std[KAC_CODEC_MAX_LATENT];
    bool quant_conv, post_quant_conv, mid_attention;
    int64_t factor; /* pixels per latent along each side: 8 for most */
} kac_codec_config;

typedef struct kac_codec kac_codec;

kac_status kac_codec_load(kac_codec **out, kac_ctx *c, const char *dir);
/* The same from any source. */
kac_status kac_codec_load_from(kac_codec **out, kac_ctx *c, const kac_source *source);
void kac_codec_free(kac_codec *v); /* NULL allowed */
const kac_codec_config *kac_codec_config_of(const kac_codec *v);
kac_status kac_codec_config_load(kac_codec_config *cfg, const char *dir);
kac_status kac_codec_config_read(kac_codec_config *cfg, const kac_json *config);

/* image [N, h·factor, w·factor, out_channels] f32, nominally in [−1, 1], not clamped ({0}: taken from c->scratch); z
 * [N, h, w, latent_channels] f32 or c->dtype. Images are decoded one batch at a time: callers bound N by memory. */
kac_status kac_codec_decode(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z);
/* As kac_codec_decode of the unscaled latents; in tiles where one image's largest intermediate result would have more than
 * KAC_CODEC_MAX_WHOLE numbers (above 1024 x 1024 pixels for the autoencoder of Stable Diffusion). */
kac_status kac_codec_decode_latents(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor latents);

/* z = latents · scale + shift, f32: for kac_codec_decode_tiled. */
kac_status kac_codec_unscale(kac_tensor *z, const kac_codec *v, kac_ctx *c, kac_tensor latents);

/* latents from z [N, h, w, latent_channels] f32; the inverse of kac_codec_unscale. */
kac_status kac_codec_scale(kac_tensor *latents, const kac_codec *v, kac_ctx *c, kac_tensor z);

/* In overlapping tiles of `tile` latents a side, blended: for large images, memory as for one tile (plus the image).
 * tile 0: sample_size / factor. Differs slightly from the whole decode, since each tile normalises by itself. Same
 * formula as diffusers' enable_tiling (AutoencoderKL). */
kac_status kac_codec_decode_tiled(kac_tensor *image, const kac_codec *v, kac_ctx *c, kac_tensor z, int64_t tile);

/* AutoencoderKL: moments [N, h, w, 2·latent_channels] f32 = mean, log-variance; AutoencoderTiny: latents [N, h, w,
 * latent_channels]. image [N, H, W, in_channels] in [−1, 1], H and W multiples of factor. In tiles where one image's largest
 * intermediate result would have more than KAC_CODEC_MAX_WHOLE numbers, as kac_codec_decode_latents. */
kac_status kac_codec_encode(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image);
/* In overlapping tiles of `tile` latents a side, as kac_codec_decode_tiled; the moments are what is blended. */
kac_status kac_codec_encode_tiled(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image, int64_t tile);
/* The mean, scaled as the diffusion model wants it: [N, h, w, latent_channels] f32. */
kac_status kac_codec_encode_latents(kac_tensor *latents, const kac_codec *v, kac_ctx *c, kac_tensor image);

#endif
