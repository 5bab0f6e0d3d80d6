/* The network of ImageReward (Xu et al. 2023): BLIP's vision transformer and a BERT that reads the prompt while looking at the picture. */
#ifndef KAC_IMAGE_TEXT_H
#define KAC_IMAGE_TEXT_H

#include "model/bert.h"
#include "model/source.h"
#include "model/vit.h"

typedef struct kac_image_text {
    kac_vit vision;
    kac_bert *text;
} kac_image_text;

/* Weights under "blip.visual_encoder.", "blip.text_encoder." (ImageReward.pt), or the same without "blip." (BLIP's own files). Sizes come from the shapes; the source's config, when it has one, adds
 * vision_config and text_config's num_attention_heads, layer_norm_eps, hidden_act (heads of 64 otherwise). */
kac_status kac_image_text_load(kac_image_text *m, kac_ctx *c, const kac_source *source);
void kac_image_text_free(kac_image_text *m);

/* out [N, D] f32 in c->scratch: the state of the first token of each text. pixels [N, H, W, 3], normalised; ids [N, T] on the host. */
kac_status kac_image_text_features(kac_tensor *out, const kac_image_text *m, kac_ctx *c, kac_tensor pixels,
                                   const int32_t *ids, int64_t n_tokens);

#endif
