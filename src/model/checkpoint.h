/* A whole model: a diffusers folder, or one file in the original names (model/ldm.h).
 *
 *     kac_checkpoint m;
 *     kac_source s;
 *     KAC_TRY(kac_checkpoint_open(&m, "sd15.safetensors", NULL));
 *     if (kac_checkpoint_has(&m, "text_encoder_2")) ...
 *     KAC_TRY(kac_checkpoint_source(&s, &m, "unet"));
 *     status = kac_unet_load_from(&unet, c, &s);
 *     kac_source_close(&s);                       // before m
 *     kac_checkpoint_close(&m);
 */
#ifndef KAC_CHECKPOINT_H
#define KAC_CHECKPOINT_H

#include "model/ldm.h"
#include "model/source.h"

typedef struct kac_checkpoint_options {
    const char *variant;    /* of a folder's weights: "fp16"; NULL: the plain ones, or whichever there are */
    const char *prediction; /* "epsilon" or "v_prediction", whatever the model says; NULL: as it says */
} kac_checkpoint_options;

typedef struct kac_checkpoint {
    char *path, *variant, *prediction;
    bool single;      /* one file */
    kac_json index;   /* model_index.json, made up for a single file */
    kac_weights file; /* of a single file */
    kac_ldm ldm;
} kac_checkpoint;

/* o NULL: defaults. KAC_E_IO, KAC_E_FORMAT, KAC_E_UNSUPPORTED, KAC_E_USAGE (an unknown prediction). On failure *m is empty. */
kac_status kac_checkpoint_open(kac_checkpoint *m, const char *path, const kac_checkpoint_options *o);
void kac_checkpoint_close(kac_checkpoint *m);

/* Does the model have this component ("unet", "vae", "text_encoder_2", "tokenizer")? */
bool kac_checkpoint_has(const kac_checkpoint *m, const char *component);
/* A network of it, which borrows from m. */
kac_status kac_checkpoint_source(kac_source *s, const kac_checkpoint *m, const char *component);
/* scheduler_config.json with the prediction that was asked for. */
kac_status kac_checkpoint_scheduler(kac_json *config, const kac_checkpoint *m);
/* The folder of a tokenizer, caller: kac_free; *out is NULL for a single file, which has none. */
kac_status kac_checkpoint_tokenizer(char **out, const kac_checkpoint *m, const char *component);

#endif
