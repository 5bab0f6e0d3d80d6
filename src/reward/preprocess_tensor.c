#include "reward/preprocess_tensor.h"
#include "nn/scope.h"
#include "reward/resize_axis.h"
#include <string.h>

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

static kac_status normalize(kac_ctx *c, kac_tensor *out, const kac_preprocess *p, kac_tensor x) {
    float numbers[2][CHANNELS];
    for (int i = 0; i < CHANNELS; i++)
        numbers[0][i] = (float)(1 / p->std[i]), numbers[1][i] = (float)(-p->mean[i] / p->std[i]);
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
    kac_tensor resized = images, cropped = p->normalize ? kac_scope_reuse(c, *out) : *out;
    if (cropped.data == NULL) KAC_TRY(kac_take(&cropped, &c->scratch, KAC_F32, 4, out->shape));
    if (w != width || h != height) {
        KAC_TRY(kac_take_make(&resized, &c->scratch, KAC_F32, images.shape[0], h, w, CHANNELS));
        KAC_TRY(kac_resample(c, &resized, images, h, w, filter_of(p->filter)));
    }
    KAC_TRY(p->crop ? crop(c, &cropped, p, resized) : kac_copy(c, &cropped, resized));
    if (p->normalize) KAC_TRY(normalize(c, out, p, cropped));
    kac_scope_close(c, mark);
    return KAC_OK;
}

/* ---- adjoint ---- */

/* out[first[i] + j] += weight · in[i] along an axis whose entries lie `step` numbers apart. */
static void spread(double *out, const double *in, const kac_axis *a, int n_in, size_t step) {
    for (int i = 0; i < n_in; i++)
        for (int j = 0; j < a->n[i]; j++)
            for (size_t k = 0; k < CHANNELS; k++)
                out[(size_t)(a->first[i] + j) * step + k] +=
                    a->weights[(size_t)i * (size_t)a->n_max + (size_t)j] * in[(size_t)i * step + k];
}

/* Rows, then columns: the passes in reverse order. */
static kac_status spread_picture(double *image, const double *resized, const kac_preprocess *p, int width, int height,
                                 int w, int h, kac_arena *scratch) {
    kac_axis across, down;
    const size_t n_between = (size_t)height * (size_t)w * CHANNELS;
    double *between = kac_arena_take(scratch, n_between * sizeof *between);
    if (between == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_axis_make(&across, scratch, width, w, p->filter));
    KAC_TRY(kac_axis_make(&down, scratch, height, h, p->filter));
    memset(between, 0, n_between * sizeof *between);
    for (int x = 0; x < w; x++) spread(between + x * CHANNELS, resized + x * CHANNELS, &down, h, (size_t)w * CHANNELS);
    for (int y = 0; y < height; y++)
        spread(image + (size_t)y * (size_t)width * CHANNELS, between + (size_t)y * (size_t)w * CHANNELS, &across, w,
               CHANNELS);
    return KAC_OK;
}

/* resized [h, w, 3] = the crop's derivative, through normalisation, in its place. */
static void uncrop(double *resized, const kac_preprocess *p, const float *d_out, int w, int h, int ow, int oh) {
    int left, top;
    kac_preprocess_offset(p, w, h, &left, &top);
    for (int y = 0; y < oh; y++)
        for (int x = 0; x < ow; x++) {
            const int sy = y + top, sx = x + left;
            if (sy < 0 || sy >= h || sx < 0 || sx >= w) continue;
            for (int k = 0; k < CHANNELS; k++)
                resized[((size_t)sy * (size_t)w + (size_t)sx) * CHANNELS + (size_t)k] =
                    d_out[((size_t)y * (size_t)ow + (size_t)x) * CHANNELS + (size_t)k] / (p->normalize ? p->std[k] : 1);
        }
}

kac_status kac_preprocess_adjoint(float *d_image, const kac_preprocess *p, const float *d_out, int width, int height,
                                  kac_arena *scratch) {
    int w, h, ow, oh;
    KAC_TRY(kac_preprocess_check(p, width, height));
    kac_preprocess_resized(p, width, height, &w, &h);
    kac_preprocess_size(p, width, height, &ow, &oh);
    const size_t mark = kac_arena_mark(scratch), n_resized = (size_t)w * (size_t)h * CHANNELS,
                 n_image = (size_t)width * (size_t)height * CHANNELS;
    double *resized = kac_arena_take(scratch, n_resized * sizeof *resized),
           *image = kac_arena_take(scratch, n_image * sizeof *image);
    if (resized == NULL || image == NULL) return KAC_E_MEMORY;
    memset(resized, 0, n_resized * sizeof *resized);
    memset(image, 0, n_image * sizeof *image);
    uncrop(resized, p, d_out, w, h, ow, oh);
    KAC_TRY(spread_picture(image, resized, p, width, height, w, h, scratch));
    for (size_t i = 0; i < n_image; i++) d_image[i] = (float)image[i];
    kac_arena_release(scratch, mark);
    return KAC_OK;
}
