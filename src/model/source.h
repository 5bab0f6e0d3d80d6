/* One network's config and weights, wherever they lie: what the networks are loaded from.
 *
 *     kac_source s;
 *     KAC_TRY(kac_source_open_dir(&s, "model/unet", "diffusion_pytorch_model"));
 *     status = kac_unet_load_from(&unet, c, &s);
 *     kac_source_close(&s);                       // the network has its own copy
 */
#ifndef KAC_SOURCE_H
#define KAC_SOURCE_H

#include "base/json.h"
#include "io/lora.h"

typedef struct kac_source {
    char *path;          /* where it comes from, for messages */
    kac_json config;     /* as config.json of a diffusers or transformers folder */
    kac_weights weights; /* under the names of such a folder */
    /* Set by the caller once it is open: what is added while a network is loaded (nn/lora.h), borrowed; NULL: nothing. */
    struct kac_lora_set *lora;
    kac_lora_part lora_part;
} kac_source;

/* dir/config.json and the weights beside it (kac_weights_open_dir). On failure *s is empty. */
kac_status kac_source_open_dir(kac_source *s, const char *dir, const char *stem);
void kac_source_close(kac_source *s); /* an empty one is allowed */

#endif
