/* What image processors do to a picture before a network sees it: resize, crop the centre, rescale, normalise. */
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

/* Where the crop begins when an odd number of rows is left over. A crop beyond the picture is padded with black. */
typedef enum kac_crop_rule {
    KAC_CROP_DOWN, /* transformers: rounded down, also where negative */
    KAC_CROP_EVEN  /* torchvision: halves to even; padding: the odd row below */
} kac_crop_rule;

typedef struct kac_preprocess {
    bool resize, crop, rescale, normalize;
    bool in_float;     /* resized in f32 from 0 … 1 without rounding, not in 8 bits (HPSv2) */
    bool longest;      /* shortest_edge is meant for the longest edge; sizes rounded, not cut */
    int shortest_edge; /* 0: resize to resize_height × resize_width */
    kac_crop_rule crop_rule;
    int resize_height, resize_width;
    int crop_height, crop_width;
    kac_resize_filter filter;
    double rescale_factor;
    double mean[3], std[3];
} kac_preprocess;

/* CLIP's: short side to `edge` (bicubic), centre, CLIP's mean and standard deviation. */
kac_preprocess kac_preprocess_clip(int edge);

/* Reads dir/preprocessor_config.json; a missing file or key gives the class's defaults (224, bicubic, CLIP's mean and standard
 * deviation), with image_size in place of 224. */
kac_status kac_preprocess_load(kac_preprocess *p, const char *dir, int image_size);

/* Size of the result for a picture of width × height. */
void kac_preprocess_size(const kac_preprocess *p, int width, int height, int *out_width, int *out_height);

/* KAC_E_SHAPE for a picture so narrow that nothing, or far too much, is left of it after resizing. */
kac_status kac_preprocess_check(const kac_preprocess *p, int width, int height);

/* out [h, w, 3] f32 with h, w as from kac_preprocess_size; rgb 8-bit [height, width, 3]. scratch is as before on KAC_OK; when it is a counting one (a
 * plan run) nothing is read or written. KAC_E_MEMORY. */
kac_status kac_preprocess_apply(float *out, const kac_preprocess *p, const uint8_t *rgb, int width, int height,
                                kac_arena *scratch);

/* The size between resizing and cropping, and where the crop begins in it (negative: so much is padded). */
void kac_preprocess_resized(const kac_preprocess *p, int width, int height, int *w, int *h);
void kac_preprocess_offset(const kac_preprocess *p, int w, int h, int *left, int *top);

/* 8-bit resize as Pillow does it: separable, antialiased when shrinking, 22-bit fixed-point weights, rounded to 8 bits between the passes.
 * out [height, width, 3]. A counting scratch as above. Source: Pillow, libImaging/Resample.c (behaviour). */
kac_status kac_resize_u8(uint8_t *out, int width, int height, const uint8_t *rgb, int from_width, int from_height,
                         kac_resize_filter filter, kac_arena *scratch);

#endif
