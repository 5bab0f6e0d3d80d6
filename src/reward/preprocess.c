#include "reward/preprocess.h"
#include "base/json.h"
#include <math.h>
#include <string.h>

enum { PRECISION = 22, CHANNELS = 3 };

/* ---- filters on (−support, support) ---- */

static double support_of(kac_resize_filter f) {
    return f == KAC_RESIZE_BILINEAR ? 1 : f == KAC_RESIZE_BICUBIC ? 2 : f == KAC_RESIZE_LANCZOS ? 3 : 0.5;
}

static double sinc(double x) {
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

static double filter_at(kac_resize_filter f, double x) {
    const double a = -0.5; /* Keys 1981; Pillow's choice */
    x = fabs(x);
    switch (f) {
    case KAC_RESIZE_BILINEAR:
        return x < 1 ? 1 - x : 0;
    case KAC_RESIZE_BICUBIC:
        if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    case KAC_RESIZE_LANCZOS:
        return x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case KAC_RESIZE_NEAREST:
        return 1;
    }
    return 0;
}

/* Weights of one axis: output i reads n[i] inputs from first[i] with weights[i · n_max …] in fixed point. */
typedef struct axis_weights {
    int n_max, *first, *n;
    int32_t *weights;
} axis_weights;

static kac_status axis_init(axis_weights *a, kac_arena *scratch, int from, int to, kac_resize_filter f) {
    const double scale = (double)from / to, stretch = KAC_MAX(scale, 1.0), support = support_of(f) * stretch;
    *a = (axis_weights){.n_max = (int)ceil(support) * 2 + 1};
    a->first = kac_arena_take(scratch, (size_t)to * sizeof *a->first);
    a->n = kac_arena_take(scratch, (size_t)to * sizeof *a->n);
    a->weights = kac_arena_take(scratch, (size_t)to * (size_t)a->n_max * sizeof *a->weights);
    double *w = kac_arena_take(scratch, (size_t)a->n_max * sizeof *w);
    if (a->first == NULL || a->n == NULL || a->weights == NULL || w == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < to; i++) {
        const double center = (i + 0.5) * scale;
        const int lo = KAC_MAX(0, (int)(center - support + 0.5)), hi = KAC_MIN(from, (int)(center + support + 0.5));
        double sum = 0;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = filter_at(f, (j - center + 0.5) / stretch);
        a->first[i] = lo, a->n[i] = hi - lo;
        for (int j = 0; j < hi - lo; j++) {
            const double v = (sum != 0 ? w[j] / sum : w[j]) * (1 << PRECISION);
            a->weights[(size_t)i * (size_t)a->n_max + (size_t)j] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
    }
    return KAC_OK;
}

/* One pass: along an axis whose entries lie `step` bytes apart; n_lines other positions, each `line_step` bytes apart. */
static void axis_apply(uint8_t *out, const uint8_t *in, const axis_weights *a, int to, size_t out_step,
                       size_t in_step) {
    for (int i = 0; i < to; i++)
        for (int c = 0; c < CHANNELS; c++) {
            int64_t sum = 1 << (PRECISION - 1);
            const int32_t *w = a->weights + (size_t)i * (size_t)a->n_max;
            for (int j = 0; j < a->n[i]; j++)
                sum += (int64_t)w[j] * in[(size_t)(a->first[i] + j) * in_step + (size_t)c];
            sum >>= PRECISION;
            out[(size_t)i * out_step + (size_t)c] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
}

static void resize_nearest(uint8_t *out, int width, int height, const uint8_t *rgb, int from_width, int from_height) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const size_t sy = (size_t)((y + 0.5) * from_height / height), sx = (size_t)((x + 0.5) * from_width / width);
            memcpy(out + ((size_t)y * (size_t)width + (size_t)x) * CHANNELS,
                   rgb + (sy * (size_t)from_width + sx) * CHANNELS, CHANNELS);
        }
}

/* Both passes, with everything they need in scratch. */
static kac_status resize_passes(uint8_t *out, int width, int height, const uint8_t *rgb, int from_width,
                                int from_height, kac_resize_filter filter, kac_arena *scratch) {
    axis_weights across, down;
    const size_t from_row = (size_t)from_width * CHANNELS, row = (size_t)width * CHANNELS;
    uint8_t *between = kac_arena_take(scratch, (size_t)from_height * row);
    if (between == NULL) return KAC_E_MEMORY;
    KAC_TRY(axis_init(&across, scratch, from_width, width, filter));
    KAC_TRY(axis_init(&down, scratch, from_height, height, filter));
    for (int y = 0; y < from_height; y++) {
        if (width == from_width)
            memcpy(between + (size_t)y * row, rgb + (size_t)y * from_row, row);
        else
            axis_apply(between + (size_t)y * row, rgb + (size_t)y * from_row, &across, width, CHANNELS, CHANNELS);
    }
    if (height == from_height) {
        memcpy(out, between, (size_t)height * row);
        return KAC_OK;
    }
    for (int x = 0; x < width; x++)
        axis_apply(out + (size_t)x * CHANNELS, between + (size_t)x * CHANNELS, &down, height, row, row);
    return KAC_OK;
}

kac_status kac_resize_u8(uint8_t *out, int width, int height, const uint8_t *rgb, int from_width, int from_height,
                         kac_resize_filter filter, kac_arena *scratch) {
    if (width == from_width && height == from_height) {
        memcpy(out, rgb, (size_t)width * (size_t)height * CHANNELS);
        return KAC_OK;
    }
    if (filter == KAC_RESIZE_NEAREST) {
        resize_nearest(out, width, height, rgb, from_width, from_height);
        return KAC_OK;
    }
    const size_t mark = kac_arena_mark(scratch);
    const kac_status s = resize_passes(out, width, height, rgb, from_width, from_height, filter, scratch);
    kac_arena_release(scratch, mark);
    return s;
}

/* ---- the processor ---- */

/* "size" as {"shortest_edge": n}, {"height": h, "width": w} or a bare number (shortest edge; for crops a square). */
static kac_status read_size(const kac_json *j, const char *key, int *edge, int *height, int *width) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, key);
    int64_t e = 0, h = 0, w = 0;
    if (v == NULL) return KAC_OK;
    if (cJSON_IsObject(v)) {
        KAC_TRY(kac_json_int(j, v, "shortest_edge", &e));
        KAC_TRY(kac_json_int(j, v, "height", &h));
        KAC_TRY(kac_json_int(j, v, "width", &w));
    } else {
        KAC_TRY(kac_json_int(j, j->root, key, &e));
    }
    const bool square = edge == NULL && e > 0;
    if (square) h = w = e;
    if ((edge == NULL || e == 0) ? h < 1 || w < 1 || h > 8192 || w > 8192 : e < 1 || e > 8192)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must hold shortest_edge, or height and width, from 1 to 8192",
                        j->name, key);
    if (edge != NULL) *edge = (int)e;
    *height = (int)h, *width = (int)w;
    return KAC_OK;
}

static kac_status read_triple(const kac_json *j, const char *key, double out[3]) {
    int n = 0;
    KAC_TRY(kac_json_reals(j, j->root, key, out, 3, &n));
    if (n == 1) out[1] = out[2] = out[0];
    return n == 2 ? KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must hold three numbers", j->name, key) : KAC_OK;
}

static kac_status read_config(kac_preprocess *p, const kac_json *j) {
    int64_t filter = p->filter;
    KAC_TRY(kac_json_bool(j, j->root, "do_resize", &p->resize));
    KAC_TRY(kac_json_bool(j, j->root, "do_center_crop", &p->crop));
    KAC_TRY(kac_json_bool(j, j->root, "do_rescale", &p->rescale));
    KAC_TRY(kac_json_bool(j, j->root, "do_normalize", &p->normalize));
    KAC_TRY(kac_json_int(j, j->root, "resample", &filter));
    if (filter < 0 || filter > 3)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"resample\": %lld is not supported; 0, 1, 2 and 3 (bicubic) are",
                        j->name, (long long)filter);
    p->filter = (kac_resize_filter)filter;
    KAC_TRY(kac_json_real(j, j->root, "rescale_factor", &p->rescale_factor));
    KAC_TRY(read_triple(j, "image_mean", p->mean));
    KAC_TRY(read_triple(j, "image_std", p->std));
    for (int i = 0; i < 3; i++)
        if (p->std[i] == 0) return KAC_FAIL(KAC_E_FORMAT, "%s: \"image_std\" must not hold 0", j->name);
    KAC_TRY(read_size(j, "size", &p->shortest_edge, &p->resize_height, &p->resize_width));
    return read_size(j, "crop_size", NULL, &p->crop_height, &p->crop_width);
}

kac_status kac_preprocess_load(kac_preprocess *p, const char *dir, int image_size) {
    *p = (kac_preprocess){.resize = true,
                          .crop = true,
                          .rescale = true,
                          .normalize = true,
                          .shortest_edge = image_size,
                          .crop_height = image_size,
                          .crop_width = image_size,
                          .filter = KAC_RESIZE_BICUBIC,
                          .rescale_factor = 1 / 255.0,
                          .mean = {0.48145466, 0.4578275, 0.40821073},
                          .std = {0.26862954, 0.26130258, 0.27577711}};
    char *path = kac_path_join(dir, "preprocessor_config.json");
    if (path == NULL) return KAC_E_MEMORY;
    kac_json j = {0};
    kac_status s = KAC_OK;
    if (kac_file_exists(path)) s = kac_json_load(&j, path);
    if (s == KAC_OK && j.root != NULL) s = read_config(p, &j);
    kac_json_free(&j);
    kac_free(path);
    return s;
}

/* The size after resizing; the longer edge is truncated as the reference does. */
static void resized_size(const kac_preprocess *p, int width, int height, int *w, int *h) {
    *w = width, *h = height;
    if (!p->resize) return;
    if (p->shortest_edge == 0) {
        *w = p->resize_width, *h = p->resize_height;
        return;
    }
    const int e = p->shortest_edge;
    if (width <= height)
        *w = e, *h = (int)((int64_t)e * height / width);
    else
        *h = e, *w = (int)((int64_t)e * width / height);
}

void kac_preprocess_size(const kac_preprocess *p, int width, int height, int *out_width, int *out_height) {
    resized_size(p, width, height, out_width, out_height);
    if (p->crop) *out_width = p->crop_width, *out_height = p->crop_height;
}

kac_status kac_preprocess_apply(float *out, const kac_preprocess *p, const uint8_t *rgb, int width, int height,
                                kac_arena *scratch) {
    int w, h, ow, oh;
    resized_size(p, width, height, &w, &h);
    kac_preprocess_size(p, width, height, &ow, &oh);
    if ((int64_t)w * h > (int64_t)1 << 28)
        return KAC_FAIL(KAC_E_SHAPE, "a picture of %d × %d is too narrow to be resized", width, height);
    const size_t mark = kac_arena_mark(scratch);
    uint8_t *resized = kac_arena_take(scratch, (size_t)w * (size_t)h * CHANNELS);
    if (resized == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_resize_u8(resized, w, h, rgb, width, height, p->filter, scratch));
    /* Rounded down, also where negative: the crop is larger then and is padded with zeros. */
    const int top = (h - oh - (h < oh)) / 2, left = (w - ow - (w < ow)) / 2;
    for (int y = 0; y < oh; y++)
        for (int x = 0; x < ow; x++)
            for (int c = 0; c < CHANNELS; c++) {
                const int sy = y + top, sx = x + left;
                const bool inside = sy >= 0 && sy < h && sx >= 0 && sx < w;
                double v = inside ? resized[((size_t)sy * (size_t)w + (size_t)sx) * CHANNELS + (size_t)c] : 0;
                if (p->rescale) v *= p->rescale_factor;
                if (p->normalize) v = (v - p->mean[c]) / p->std[c];
                out[((size_t)y * (size_t)ow + (size_t)x) * CHANNELS + (size_t)c] = (float)v;
            }
    kac_arena_release(scratch, mark);
    return KAC_OK;
}
