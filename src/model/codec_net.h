/* The modules of an autoencoder as codec_load.c reads and codec.c, codec_tiny.c run them. */
#ifndef KAC_CODEC_NET_H
#define KAC_CODEC_NET_H

#include "model/codec.h"
#include "nn/blocks.h"

enum { KAC_CODEC_MAX_LAYERS = 8 };

/* One level of AutoencoderKL's encoder or decoder. */
typedef struct kac_codec_block {
    kac_path path;
    int n_resnets;
    kac_nn_resnet resnet[KAC_CODEC_MAX_LAYERS + 1];
    bool has_sampler;
    kac_path sampler_path;
    kac_nn_conv sampler;
} kac_codec_block;

/* Encoder or decoder: conv_in, levels and middle in the order of the class, norm, conv_out. */
typedef struct kac_codec_half {
    kac_path path;
    kac_nn_conv conv_in, conv_out;
    kac_nn_norm norm_out;
    kac_nn_resnet mid_resnet[2];
    kac_nn_attention mid_attention;
    kac_codec_block block[KAC_CODEC_MAX_BLOCKS];
} kac_codec_half;

/* AutoencoderTinyBlock: relu(conv(act(conv(act(conv(x))))) + x); before that x + W₂ relu(norm(W₁ x)) where the file has a pool (the
 * middle of autoencoders for FLUX.2). */
typedef struct kac_codec_tiny_block {
    kac_nn_conv conv[3];
    bool has_pool;
    kac_nn_linear pool_in, pool_out;
    kac_nn_norm pool_norm;
} kac_codec_tiny_block;

typedef enum kac_codec_step_kind { KAC_STEP_CONV, KAC_STEP_ACT, KAC_STEP_BLOCK, KAC_STEP_UPSAMPLE } kac_codec_step_kind;

/* AutoencoderTiny is a sequence of layers; their numbers in it are their names. */
typedef struct kac_codec_step {
    kac_codec_step_kind kind;
    kac_nn_conv conv;
    kac_codec_tiny_block block;
    int64_t n_out; /* channels after it */
} kac_codec_step;

typedef struct kac_codec_sequence {
    kac_path path;
    kac_codec_step *step; /* n_steps, on the heap */
    int n_steps;
} kac_codec_sequence;

struct kac_codec {
    kac_codec_config cfg;
    kac_codec_half encoder, decoder;
    kac_nn_linear quant, post_quant;
    kac_codec_sequence tiny_encoder, tiny_decoder;
    kac_tensor half, minus_one; /* [channels] f32: x/2 + 1/2 and 2x − 1 between images in [−1, 1] and in [0, 1] */
    kac_tensor two;
    kac_tensor latent_scale, latent_shift;     /* z = latents · scale + shift, per channel */
    kac_tensor unlatent_scale, unlatent_shift; /* latents = z · scale + shift */
};

/* Two tensors that take turns as the result of one layer and the input of the next. */
typedef struct kac_codec_turn {
    kac_ctx *c;
    kac_tensor flat[2];
    int i;
} kac_codec_turn;

kac_status kac_codec_turn_open(kac_codec_turn *t, kac_ctx *c, int64_t count);
kac_tensor kac_codec_turn_next(kac_codec_turn *t, int64_t n, int64_t h, int64_t w, int64_t channels);

kac_status kac_codec_check_image(const kac_codec *v, kac_tensor image);
/* As kac_codec_encode, never in tiles. */
kac_status kac_codec_encode_whole(kac_tensor *moments, const kac_codec *v, kac_ctx *c, kac_tensor image);

/* x of c->dtype -> [N, h, w, C] f32 in *out (taken already). */
kac_status kac_codec_tiny_run(kac_ctx *c, kac_tensor *out, const kac_codec *v, kac_tensor x, bool decode);

#endif
