/* The texts that a network is conditioned on: listed and encoded once, conditioned on as often as its weights change. */
#ifndef KAC_RUN_LATENT_TEXTS_H
#define KAC_RUN_LATENT_TEXTS_H

#include "run/pipeline_text.h"

/* What SDXL is told about the picture's place in its photograph, in pixels; a size of 0: the run's own. */
typedef struct kac_latent_sizes {
    int64_t original[2], target[2]; /* height, width */
    int64_t crop[2];                /* top, left */
    double score;                   /* aesthetic score, of refiners */
} kac_latent_sizes;

typedef struct kac_latent_text_options {
    kac_encode_options encode;
    int64_t width, height;                  /* of the pictures, in pixels */
    kac_latent_sizes sizes, negative_sizes; /* ignored by networks that do not read them */
} kac_latent_text_options;

typedef struct kac_latent_texts {
    kac_prompt_text *list; /* [n], room for n_most */
    int n, n_most;
    int n_truncated;          /* longer than the encoder's context */
    kac_conditioning encoded; /* in c->run */
    double *time_ids;         /* [n, n_time_ids] */
    int n_time_ids;
} kac_latent_texts;

/* Room for n_most texts. */
kac_status kac_latent_texts_open(kac_latent_texts *t, int n_most);
void kac_latent_texts_close(kac_latent_texts *t); /* a zeroed one is fine */

/* Index of a text, added when new; NULL: nothing was said. Strings are borrowed until they are encoded. */
int kac_latent_texts_add(kac_latent_texts *t, const char *text, bool negative);
/* All of them, after the last was added; those of one role that stand together go through the encoder together. */
kac_status kac_latent_texts_encode(kac_latent_texts *t, const kac_pipeline *p, kac_ctx *c,
                                   const kac_latent_text_options *o);
/* The network's own share for the texts row[i] (NULL: all of them), into c->run; distilled networks are told cfg_scale. */
kac_status kac_latent_texts_condition(kac_unet_cond **out, const kac_latent_texts *t, const kac_pipeline *p, kac_ctx *c,
                                      const int *row, int n, double cfg_scale);

#endif
