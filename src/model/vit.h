/* Vision transformers whose norms stand in front (Dosovitskiy et al. 2021), under the names of several families of files. */
#ifndef KAC_VIT_H
#define KAC_VIT_H

#include "nn/encoder.h"

typedef struct kac_vit_config {
    int64_t width, inner, layers, heads, image_size, patch, channels;
    kac_act act;
    double eps;
    bool qkv_bias;
} kac_vit_config;

/* Module paths behind the prefix; `layer` with %d. Either qkv (one stacked weight) or q, k, v. */
typedef struct kac_vit_names {
    const char *class_token, *positions, *patch, *layer;
    const char *norm1, *qkv, *q, *k, *v, *out, *norm2, *fc1, *fc2;
    const char *norm;
} kac_vit_names;

extern const kac_vit_names kac_vit_timm;         /* timm, and BLIP in its own repository */
extern const kac_vit_names kac_vit_transformers; /* transformers ViTModel */

typedef struct kac_vit {
    kac_vit_config cfg;
    kac_nn_patches patches;
    kac_nn_encoder_layer *layer; /* cfg.layers, on the heap */
    kac_nn_norm norm;
    kac_path path; /* prefix of taps */
    const kac_vit_names *names;
} kac_vit;

/* Sizes read from the shapes of the tensors: width, inner, layers, patch, channels, image_size. heads is width / 64 (0 when that is no
 * whole number), eps 1e-6, act GELU: the caller corrects what its config says. KAC_E_FORMAT when no such network is there. */
kac_status kac_vit_config_infer(kac_vit_config *cfg, const kac_weights *w, const char *prefix,
                                const kac_vit_names *names);
/* KAC_E_UNSUPPORTED for a config that cannot be. */
kac_status kac_vit_load(kac_vit *m, const kac_loader *l, const char *prefix, const kac_vit_names *names,
                        kac_vit_config cfg);
void kac_vit_free(kac_vit *m);

/* out [N, 1 + patches, D] of c->dtype in c->scratch: after the last norm, the class token first. pixels [N, image_size, image_size,
 * channels], normalised. */
kac_status kac_vit_run(kac_tensor *out, const kac_vit *m, kac_ctx *c, kac_tensor pixels);

#endif
