/* A model, opened: text encoders, denoiser, codec, noise schedule.
 *
 * StableDiffusionPipeline and StableDiffusionXLPipeline folders (text to image in a latent space) and DDPM/DDIMPipeline folders
 * (UNet2DModel, no prompt, pixels are the states). */
#ifndef KAC_PIPELINE_H
#define KAC_PIPELINE_H

#include "io/inversion.h"
#include "model/checkpoint.h"
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "samplers/schedule.h"
#include "text/tokenizer.h"

enum { KAC_PIPELINE_MAX_TEXTS = 2, KAC_PIPELINE_MAX_FILES = 64 };

/* A text encoder, opened but not loaded: its weights are needed while prompts are encoded, not later. */
typedef struct kac_pipeline_text {
    kac_source source;
    kac_clip_config cfg;
    kac_tokenizer *tokenizer;
    int64_t n_tokens; /* context length, of the encoder or as the tokenizer's files say */
} kac_pipeline_text;

typedef struct kac_pipeline {
    kac_checkpoint model; /* stays open: the text encoders are read from it */
    kac_pipeline_text text[KAC_PIPELINE_MAX_TEXTS];
    int n_texts;      /* 0: unconditional */
    bool consistency; /* the model is distilled to few steps: a LatentConsistencyModelPipeline */
    bool zero_empty;  /* where no negative prompt is given, its states are zeros instead of those of "" */
    kac_unet *unet;
    kac_codec *codec;   /* NULL: states are pixels in [−1, 1] */
    kac_codec *preview; /* a cheaper decoder for x0-hat; NULL: codec */
    kac_schedule schedule;
    int64_t channels, factor; /* of a state: [h, w, channels], h = height / factor */
    int64_t width, height;    /* the model's own size in pixels; 0 when it says nothing */
    char *files
        [KAC_PIPELINE_MAX_FILES]; /* where the weights came from, for the record; the first ones if there are more */
    int n_files;
} kac_pipeline;

typedef struct kac_pipeline_options {
    kac_checkpoint_options checkpoint;
    const char *vae;     /* whatever kac_codec_load reads, in place of the model's own; NULL: none */
    const char *preview; /* the same, decodes x0-hat */
    const char *merges;  /* CLIP's bpe_simple_vocab_16e6.txt[.gz], for models in one file; NULL: they are refused */
    /* what is added to the networks, borrowed and needed as long as the pipeline; NULL: nothing */
    struct kac_lora_set *lora;
    const kac_inversion_set *embeddings;
    struct kac_parameters *parameters; /* of the denoiser: nn/parameters.h */
} kac_pipeline_options;

/* path: a diffusers folder or a file in the original names. Weights go to c->model. o NULL: all NULL. Fails with what is missing. */
kac_status kac_pipeline_open(kac_pipeline *p, kac_ctx *c, const char *path, const kac_pipeline_options *o);
void kac_pipeline_close(kac_pipeline *p);

/* Whether the network reads a mask and the masked picture behind the state's channels: an inpainting model. */
bool kac_pipeline_repaints(const kac_pipeline *p);

#endif
