/* The same preprocessing on float pictures, by ops: what HPSv2 does, and the way for gradients from a reward to a decoder's output. Resizing is
 * not rounded to 8 bits (torchvision on tensors, antialias): scores differ from the 8-bit way in the third digit. */
#ifndef KAC_PREPROCESS_TENSOR_H
#define KAC_PREPROCESS_TENSOR_H

#include "reward/preprocess.h"
#include "tensor/ops.h"

/* images [N, H, W, 3] f32 in 0 … 1, which stands for 0 … 255; out [N, h, w, 3] f32, taken from scratch when none. Linear in the images up to
 * the constant of normalisation. KAC_E_SHAPE. */
kac_status kac_preprocess_tensor(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor images);

#endif
