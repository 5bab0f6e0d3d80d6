/* The same preprocessing on float pictures, by ops: what HPSv2 does, and the way for gradients from a reward to a decoder's output. Resizing is
 * not rounded to 8 bits (torchvision on tensors, antialias): scores differ from the 8-bit way in the third digit. */
#ifndef KAC_PREPROCESS_TENSOR_H
#define KAC_PREPROCESS_TENSOR_H

#include "reward/preprocess.h"
#include "tensor/ops.h"

/* images [N, H, W, 3] f32 in 0 … 1 (rescaled already); out [N, h, w, 3] f32, taken from scratch when none. Linear in the images up to
 * the constant of normalisation. KAC_E_SHAPE. */
kac_status kac_preprocess_tensor(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor images);

/* The derivative carried back, one picture on the host: d_image [height, width, 3] = Jᵀ d_out, d_out [h, w, 3]. scratch is as before. */
kac_status kac_preprocess_adjoint(float *d_image, const kac_preprocess *p, const float *d_out, int width, int height,
                                  kac_arena *scratch);

#endif
