/* How many bits a JPEG spends on each block of 8×8 pixels, as a smooth function of them: the cosine transform divided by the quantiser's steps, a
 * smooth |x|, and a small network for each block. Fitted by tools/train_jpeg_size.py; weights/jpeg-size/README.md says how close it is. */
#ifndef KAC_JPEG_SIZE_H
#define KAC_JPEG_SIZE_H

#include "model/source.h"
#include "nn/layers.h"

/* Bits of a block from its coefficients with both signs. */
typedef struct kac_jpeg_half {
    kac_nn_linear spread, mix, out;
} kac_jpeg_half;

typedef struct kac_jpeg_size_net {
    kac_nn_linear dct[3];  /* Y, and Cb and Cr of the halved picture: patches [64, 3] to coefficients */
    kac_weight sign;       /* of coefficients to both signs, the constant part less that of the left neighbour: 1×2 */
    kac_jpeg_half half[2]; /* luma, chroma */
} kac_jpeg_size_net;

enum { KAC_JPEG_PLANES = 3 };

/* config.json says "quality": 95. KAC_E_FORMAT, KAC_E_UNSUPPORTED, KAC_E_SHAPE. */
kac_status kac_jpeg_size_load(kac_jpeg_size_net *m, kac_ctx *c, const kac_source *source);

/* bits[0 … 2] [n, h, w, 1] of c->dtype in scratch: of each block of Y, Cb, Cr. images [n, H, W, 3] f32 in 0 … 1 of any size; sides are filled up to
 * multiples of 16 by repeating the last row and column, as a JPEG does. */
kac_status kac_jpeg_size_bits(kac_tensor bits[KAC_JPEG_PLANES], const kac_jpeg_size_net *m, kac_ctx *c,
                              kac_tensor images);

#endif
