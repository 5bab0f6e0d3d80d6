/* What CLIP's towers and vision transformers are made of. */
#ifndef KAC_ENCODER_H
#define KAC_ENCODER_H

#include "nn/layers.h"

/* ---- layer with its norms in front: h += out(attention(norm1(h))); h += fc2(act(fc1(norm2(h)))) ---- */
typedef struct kac_nn_encoder_layer {
    kac_nn_norm norm1, norm2;
    kac_nn_linear qkv, out, fc1, fc2; /* qkv: the three stacked */
} kac_nn_encoder_layer;

/* h [N, T, D]: in place, or a fresh tensor while a tape records. Reported to the tap as `name`, `name`.self_attn, `name`.mlp. */
kac_status kac_nn_encoder_layer_run(kac_ctx *c, const kac_nn_encoder_layer *m, kac_tensor *h, int64_t heads,
                                    kac_act act, bool causal, const char *name);

/* ---- a picture as tokens: the class token, then its patches, positions added ---- */
typedef struct kac_nn_patches_opt {
    const char *proj, *class_token, *positions; /* names in the file */
    int64_t image_size, patch, channels, width;
    bool bias;    /* of proj */
    bool leading; /* class_token is [1, 1, D] and positions [1, 1 + patches, D] instead of [D], [1 + patches, D] */
} kac_nn_patches_opt;

typedef struct kac_nn_patches {
    int64_t patch, side, channels; /* side × side patches */
    kac_nn_linear proj;
    kac_tensor class_row, patch_rows; /* [1, 1, D], [1, patches, D] of c->dtype: their positions added */
} kac_nn_patches;

kac_status kac_nn_patches_load(const kac_loader *l, kac_nn_patches *m, kac_nn_patches_opt o);
/* out [N, 1 + patches, D] of c->dtype, taken from scratch; pixels [N, image_size, image_size, channels], f32 or c->dtype. A picture
 * that is no multiple of the patch loses its right and bottom edge, as in a convolution without padding. N ≤ KAC_NN_MAX_PICTURES. */
enum { KAC_NN_MAX_PICTURES = 1024 };
kac_status kac_nn_patches_run(kac_ctx *c, kac_tensor *out, const kac_nn_patches *m, kac_tensor pixels);

#endif
