/* A diffusers folder, opened: text encoder, denoiser, codec, noise schedule.
 *
 * StableDiffusionPipeline folders (text to image in a latent space) and DDPM/DDIMPipeline folders (UNet2DModel, no prompt, pixels are
 * the states). */
#ifndef KAC_PIPELINE_H
#define KAC_PIPELINE_H

#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "samplers/schedule.h"
#include "text/tokenizer.h"

typedef struct kac_pipeline {
    kac_clip *text;           /* NULL: unconditional */
    kac_tokenizer *tokenizer; /* NULL: unconditional */
    kac_unet *unet;
    kac_codec *codec;   /* NULL: states are pixels in [−1, 1] */
    kac_codec *preview; /* a cheaper decoder for x0-hat; NULL: codec */
    kac_schedule schedule;
    int64_t channels, factor; /* of a state: [h, w, channels], h = height / factor */
    int64_t width, height;    /* the model's own size in pixels; 0 when it says nothing */
} kac_pipeline;

/* Weights go to c->model. preview_dir: a folder with an AutoencoderTiny, or NULL. Fails with what is missing in the folder. */
kac_status kac_pipeline_open(kac_pipeline *p, kac_ctx *c, const char *dir, const char *preview_dir);
void kac_pipeline_close(kac_pipeline *p);

/* Whether the network reads a mask and the masked picture behind the state's channels: an inpainting model. */
bool kac_pipeline_repaints(const kac_pipeline *p);

#endif
