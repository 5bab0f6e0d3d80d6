#include "reward/preprocess_tensor.h"
#include "nn/scope.h"

enum { CHANNELS = 3 };

static kac_filter filter_of(kac_resize_filter f) {
    static const kac_filter filters[] = {[KAC_RESIZE_NEAREST] = KAC_FILTER_NEAREST,
                                         [KAC_RESIZE_LANCZOS] = KAC_FILTER_LANCZOS,
                                         [KAC_RESIZE_BILINEAR] = KAC_FILTER_BILINEAR,
                                         [KAC_RESIZE_BICUBIC] = KAC_FILTER_BICUBIC};
    return filters[f];
}

/* The part of an axis that is in both: `from` resized rows of which the crop takes `to` from `first` on. */
typedef struct overlap {
    int64_t from, to, n; /* begin in the resized picture, begin in the crop, length */
} overlap;

static overlap overlap_of(int size, int cropped, int first) {
    const int from = KAC_MAX(first, 0), to = KAC_MAX(-first, 0);
    return (overlap){from, to, KAC_MAX(0, KAC_MIN(size - from, cropped - to))};
}

/* Crops or pads with zeros. */
static kac_status crop(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor x) {
    int left, top;
    const int w = (int)x.shape[2], h = (int)x.shape[1];
    kac_preprocess_offset(p, w, h, &left, &top);
    const overlap across = overlap_of(w, p->crop_width, left), down = overlap_of(h, p->crop_height, top);
    static const float zero[1] = {0};
    kac_tensor black = kac_tensor_of((void *)(uintptr_t)zero, KAC_F32, 4, out->shape);
    for (int i = 0; i < 4; i++) black.stride[i] = 0;
    if (across.n < p->crop_width || down.n < p->crop_height) KAC_TRY(kac_copy(c, out, black));
    if (across.n == 0 || down.n == 0) return KAC_OK;
    kac_tensor inner = kac_tensor_slice(kac_tensor_slice(*out, 1, down.to, down.n), 2, across.to, across.n);
    return kac_copy(c, &inner, kac_tensor_slice(kac_tensor_slice(x, 1, down.from, down.n), 2, across.from, across.n));
}

/* Rescaled and normalised. */
static kac_status scale_and_shift(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor x) {
    float numbers[2][CHANNELS];
    for (int i = 0; i < CHANNELS; i++) { /* what the network sees of 255, where the pictures have 1 */
        const double white = 255 * (p->rescale ? p->rescale_factor : 1), std = p->normalize ? p->std[i] : 1;
        numbers[0][i] = (float)(white / std), numbers[1][i] = (float)(p->normalize ? -p->mean[i] / std : 0);
    }
    kac_tensor table;
    KAC_TRY(kac_take_make(&table, &c->scratch, KAC_F32, 2, CHANNELS));
    KAC_TRY(kac_copy(c, &table, kac_tensor_make(numbers, KAC_F32, 2, CHANNELS)));
    const kac_tensor scale = kac_tensor_make(table.data, KAC_F32, CHANNELS),
                     shift = kac_tensor_make((float *)table.data + CHANNELS, KAC_F32, CHANNELS);
    return kac_affine(c, out, x, scale, shift);
}

kac_status kac_preprocess_tensor(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor images) {
    if (images.rank != 4 || images.shape[3] != CHANNELS || images.dtype != KAC_F32)
        return KAC_FAIL(KAC_E_SHAPE, "preprocessing wants pictures [N, H, W, 3] in f32");
    const int width = (int)images.shape[2], height = (int)images.shape[1];
    int w, h, ow, oh;
    KAC_TRY(kac_preprocess_check(p, width, height));
    kac_preprocess_resized(p, width, height, &w, &h);
    kac_preprocess_size(p, width, height, &ow, &oh);
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, images.shape[0], oh, ow, CHANNELS));
    const size_t mark = kac_scope_open(c);
    kac_tensor resized = images, cropped = kac_scope_reuse(c, *out);
    if (cropped.data == NULL) KAC_TRY(kac_take(&cropped, &c->scratch, KAC_F32, 4, out->shape));
    if (w != width || h != height) {
        KAC_TRY(kac_take_make(&resized, &c->scratch, KAC_F32, images.shape[0], h, w, CHANNELS));
        KAC_TRY(kac_resample(c, &resized, images, h, w, filter_of(p->filter)));
    }
    KAC_TRY(p->crop ? crop(c, &cropped, p, resized) : kac_copy(c, &cropped, resized));
    KAC_TRY(scale_and_shift(c, out, p, cropped));
    kac_scope_close(c, mark);
    return KAC_OK;
}
