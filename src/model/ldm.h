/* Checkpoints in the original names of Stable Diffusion (CompVis' latent-diffusion, Stability's generative-models, OpenCLIP):
 * one file that holds all networks and no configuration. Names are translated to those of diffusers and transformers, and
 * configurations read off the tensors' shapes.
 *
 * Source: diffusers 0.42.1, loaders/single_file_utils.py (names); ComfyUI's supported_models.py (v-prediction of SD 2). */
#ifndef KAC_LDM_H
#define KAC_LDM_H

#include "base/json.h"
#include "io/weights.h"

/* Metadata of the files that kac writes: this and the component's name. */
#define KAC_LDM_CONFIG_KEY "kac.config."

typedef enum kac_ldm_family { KAC_LDM_SD1, KAC_LDM_SD2, KAC_LDM_XL, KAC_LDM_REFINER } kac_ldm_family;

/* What the names alone say. */
typedef struct kac_ldm {
    const kac_weights *file; /* borrowed */
    kac_ldm_family family;
    bool has_unet, has_vae, has_text, has_text_2;
    const char *unet, *vae, *text, *text_2; /* prefixes, with the dot; "" for a file with one network */
    bool v_prediction;
    int64_t in_channels;
} kac_ldm;

/* KAC_E_UNSUPPORTED when the file holds none of the networks. */
kac_status kac_ldm_examine(kac_ldm *m, const kac_weights *file);

/* The translated weights, views into m->file, which must stay open; and the config, as in config.json. `component`: unet, vae,
 * text_encoder, text_encoder_2. `path` is for messages. On failure both are empty. */
kac_status kac_ldm_open(kac_weights *weights, kac_json *config, const kac_ldm *m, const char *component,
                        const char *path);

/* The configs that no network has: model_index.json, scheduler_config.json. */
kac_status kac_ldm_index(kac_json *index, const kac_ldm *m);
kac_status kac_ldm_scheduler(kac_json *config, const kac_ldm *m);

#endif
