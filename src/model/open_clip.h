/* CLIP checkpoints in the names of open_clip (LAION's models, HPSv2), as sources that kac_clip_load_from reads. */
#ifndef KAC_OPEN_CLIP_H
#define KAC_OPEN_CLIP_H

#include "model/source.h"

/* Do the weights have such names, under any prefix ("module.", "model.")? */
bool kac_open_clip_is(const kac_weights *w);

/* Adds to s->weights the tensors under transformers' names (views; q, k, v of in_proj apart, projections transposed) and puts the
 * configuration read from the shapes in place of s->config. Heads: those of the published towers of width 1280, 1408 and 1664, else
 * width / 64 rounded down. s->config, when it is an open_clip_config.json ("model_cfg"), says what shapes do not: quick_gelu, head_width, heads;
 * quick_gelu ≥ 0 overrides it (0: exact GELU, which is also the default).
 * KAC_E_UNSUPPORTED for towers that are not plain transformers (ResNet, timm, text towers of other libraries), KAC_E_FORMAT. */
kac_status kac_open_clip_translate(kac_source *s, int quick_gelu);

#endif
