/* One network's config and weights, wherever they lie: what the networks are loaded from.
 *
 *     kac_source s;
 *     KAC_TRY(kac_source_open(&s, "sd15.safetensors", "unet"));
 *     status = kac_unet_load_from(&unet, c, &s);
 *     kac_source_close(&s);                       // the network has its own copy
 */
#ifndef KAC_SOURCE_H
#define KAC_SOURCE_H

#include "base/json.h"
#include "io/lora.h"
#include "io/weights.h"
#include "model/ldm.h"
#include "nn/loader.h"

typedef struct kac_source {
    char *path;          /* where it comes from, for messages */
    kac_json config;     /* as config.json of a diffusers or transformers folder */
    kac_weights weights; /* under the names of such a folder */
    kac_weights file;    /* what the weights are views into, when the source itself opened it */
    /* Set by the caller once it is open: what is added while a network is loaded (nn/lora.h), borrowed; NULL: nothing. */
    const struct kac_inversion_set *embeddings; /* a text encoder's further tokens (io/inversion.h) */
    struct kac_lora_set *lora;
    kac_lora_part lora_part;
    struct kac_parameters *parameters; /* nn/parameters.h */
} kac_source;

/* The component ("unet", "vae", "text_encoder", "text_encoder_2") of whatever `path` is: its own folder, a model folder, a file
 * with all networks or with this one in the original names; of a vae also what kac_source_open_tiny reads. On failure *s is empty. */
kac_status kac_source_open(kac_source *s, const char *path, const char *component);
/* dir/config.json and the weights beside it (kac_weights_open_dir, kac_weights_open_variant). */
kac_status kac_source_open_dir(kac_source *s, const char *dir, const char *stem);
kac_status kac_source_open_variant(kac_source *s, const char *dir, const char *stem, const char *variant);
/* From an examined file, which must stay open. */
kac_status kac_source_of(kac_source *s, const kac_ldm *m, const char *component);
void kac_source_close(kac_source *s); /* an empty one is allowed */

/* What layers load themselves from; borrows from s. */
kac_loader kac_source_loader(const kac_source *s, kac_ctx *c);

/* "diffusion_pytorch_model", or "model" for text encoders. */
const char *kac_source_stem(const char *component);

#endif
