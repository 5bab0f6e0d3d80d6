/* What CLIPImageProcessor does to a picture: resize the shortest edge, crop the centre, rescale, normalise. */
#ifndef KAC_PREPROCESS_H
#define KAC_PREPROCESS_H

#include "base/base.h"
#include <kac/status.h>

typedef enum kac_resize_filter {
    KAC_RESIZE_NEAREST = 0,
    KAC_RESIZE_LANCZOS = 1,
    KAC_RESIZE_BILINEAR = 2,
    KAC_RESIZE_BICUBIC = 3
} kac_resize_filter; /* PIL's numbers */

typedef struct kac_preprocess {
    bool resize, crop, rescale, normalize;
    int shortest_edge; /* 0: resize to resize_height × resize_width */
    int resize_height, resize_width;
    int crop_height, crop_width;
    kac_resize_filter filter;
    double rescale_factor;
    double mean[3], std[3];
} kac_preprocess;

/* Reads dir/preprocessor_config.json; a missing file or key gives the class's defaults (224, bicubic, CLIP's mean and standard
 * deviation), with image_size in place of 224. */
kac_status kac_preprocess_load(kac_preprocess *p, const char *dir, int image_size);

/* Size of the result for a picture of width × height. */
void kac_preprocess_size(const kac_preprocess *p, int width, int height, int *out_width, int *out_height);

/* out [h, w, 3] f32 with h, w as from kac_preprocess_size; rgb 8-bit [height, width, 3]. scratch is as before on KAC_OK. KAC_E_MEMORY. */
kac_status kac_preprocess_apply(float *out, const kac_preprocess *p, const uint8_t *rgb, int width, int height,
                                kac_arena *scratch);

/* 8-bit resize as Pillow does it: separable, antialiased when shrinking, 22-bit fixed-point weights, rounded to 8 bits between the passes.
 * out [height, width, 3]. Source: Pillow, libImaging/Resample.c (behaviour). */
kac_status kac_resize_u8(uint8_t *out, int width, int height, const uint8_t *rgb, int from_width, int from_height,
                         kac_resize_filter filter, kac_arena *scratch);

#endif
