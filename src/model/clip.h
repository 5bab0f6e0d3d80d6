/* CLIPTextModel, CLIPTextModelWithProjection and CLIPModel (text and vision) of transformers folders. */
#ifndef KAC_CLIP_H
#define KAC_CLIP_H

#include "model/source.h"
#include "tensor/ops.h"

typedef struct kac_clip_tower_config {
    int64_t width, inner, layers, heads;
    kac_act act;
    double eps;
} kac_clip_tower_config;

typedef struct kac_clip_config {
    bool has_text, has_vision, has_projection; /* has_projection: text_projection (and visual_projection) */
    kac_clip_tower_config text, vision;
    int64_t vocab_size, max_tokens, eos_id; /* eos_id 2: the old rule, pool at the largest id */
    int64_t image_size, patch, image_channels;
    int64_t projection;
    double logit_scale; /* exp() of the stored weight already taken; 0 without vision */
} kac_clip_config;

typedef struct kac_clip kac_clip;

/* dir holds config.json and the weights. The structure is on the heap (kac_clip_free), the weights in c->model. */
kac_status kac_clip_load(kac_clip **out, kac_ctx *c, const char *dir);
/* The same from any source. */
kac_status kac_clip_load_from(kac_clip **out, kac_ctx *c, const kac_source *source);
void kac_clip_free(kac_clip *m); /* NULL allowed */
const kac_clip_config *kac_clip_config_of(const kac_clip *m);
kac_status kac_clip_config_load(kac_clip_config *cfg, const char *dir);
kac_status kac_clip_config_read(kac_clip_config *cfg, const kac_json *config);

typedef struct kac_clip_text_out {
    kac_tensor hidden; /* [N, T, D] c->dtype */
    kac_tensor pooled; /* [N, D] c->dtype: the final state (never skipped) at the end-of-text token */
    kac_tensor embeds; /* [N, projection] f32: text_projection(pooled), not normalised; none without a projection */
} kac_clip_text_out;

/* ids [N, T] on the host, T ≤ max_tokens, causal attention, no padding mask. Results in c->scratch.
 *   clip_skip k  hidden = last_hidden_state for k = 0, else hidden_states[-(k + 1)] after final_layer_norm
 * KAC_E_SHAPE for an id outside the vocabulary or T too long, KAC_E_USAGE for clip_skip ≥ layers. */
kac_status kac_clip_text(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                         int64_t n_tokens, int clip_skip);
/* The same with hidden = hidden_states[-(k + 2)], as it is: what SDXL reads. KAC_E_USAGE for clip_skip ≥ layers. */
kac_status kac_clip_text_penultimate(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids,
                                     int64_t n, int64_t n_tokens, int clip_skip);

/* out [N, projection] f32 in c->scratch = text_projection(pooled); `normalized`: of length 1, as CLIPModel returns it.
 */
kac_status kac_clip_text_embeds(kac_tensor *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                                int64_t n_tokens, bool normalized);

/* out [N, projection] f32 = the projected class token of pixels [N, image_size, image_size, channels] (f32 or
 * c->dtype), which are normalised by mean and standard deviation already. */
kac_status kac_clip_image_embeds(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor pixels, bool normalized);

/* Every token projected, as MPS reads them: text_projection of last_hidden_state, out [N, T, projection]; visual_projection of the vision
 * tower's last_hidden_state (no norm behind it), out [N, 1 + patches, projection]. Of c->dtype, in c->scratch, not normalised. */
kac_status kac_clip_text_tokens(kac_tensor *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                                int64_t n_tokens);
kac_status kac_clip_image_tokens(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor pixels);

/* out [N, M] f32 = logit_scale · image [N, E] · text [M, E]ᵀ; both normalised. */
kac_status kac_clip_logits(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor image, kac_tensor text);

#endif
