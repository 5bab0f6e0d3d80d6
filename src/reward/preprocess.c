#include "reward/preprocess.h"
#include "base/json.h"
#include "reward/resize_axis.h"
#include <math.h>
#include <string.h>

enum { PRECISION = 22, CHANNELS = 3 };

/* Weights of one axis in fixed point. */
typedef struct fixed_axis {
    kac_axis axis;
    int32_t *weights; /* as axis.weights */
} fixed_axis;

static kac_status axis_init(fixed_axis *a, kac_arena *scratch, int from, int to, kac_resize_filter f) {
    KAC_TRY(kac_axis_make(&a->axis, scratch, from, to, f));
    const size_t n = (size_t)to * (size_t)a->axis.n_max;
    a->weights = kac_arena_take(scratch, n * sizeof *a->weights);
    if (a->weights == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < n && !scratch->counting; i++) {
        const double v = a->axis.weights[i] * (1 << PRECISION);
        a->weights[i] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
    return KAC_OK;
}

/* One pass: along an axis whose entries lie `step` bytes apart; n_lines other positions, each `line_step` bytes apart. */
static void axis_apply(uint8_t *out, const uint8_t *in, const fixed_axis *a, int to, size_t out_step, size_t in_step) {
    for (int i = 0; i < to; i++)
        for (int c = 0; c < CHANNELS; c++) {
            int64_t sum = 1 << (PRECISION - 1);
            const int32_t *w = a->weights + (size_t)i * (size_t)a->axis.n_max;
            for (int j = 0; j < a->axis.n[i]; j++)
                sum += (int64_t)w[j] * in[(size_t)(a->axis.first[i] + j) * in_step + (size_t)c];
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
    fixed_axis across, down;
    const size_t from_row = (size_t)from_width * CHANNELS, row = (size_t)width * CHANNELS;
    uint8_t *between = kac_arena_take(scratch, (size_t)from_height * row);
    if (between == NULL) return KAC_E_MEMORY;
    KAC_TRY(axis_init(&across, scratch, from_width, width, filter));
    KAC_TRY(axis_init(&down, scratch, from_height, height, filter));
    if (scratch->counting) return KAC_OK;
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
        if (!scratch->counting) memcpy(out, rgb, (size_t)width * (size_t)height * CHANNELS);
        return KAC_OK;
    }
    if (filter == KAC_RESIZE_NEAREST) {
        if (!scratch->counting) resize_nearest(out, width, height, rgb, from_width, from_height);
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

/* Classes whose defaults are not CLIP's. */
static kac_status read_class(kac_preprocess *p, const kac_json *j) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "feature_extractor_type", &name));
    KAC_TRY(kac_json_text(j, j->root, "image_processor_type", &name));
    const bool vit = name != NULL && strncmp(name, "ViT", 3) == 0;
    if (!vit && (name == NULL || strncmp(name, "Blip", 4) != 0)) return KAC_OK;
    p->crop = false;
    p->resize_height = p->resize_width = p->shortest_edge;
    p->shortest_edge = 0;
    if (!vit) return KAC_OK;
    p->filter = KAC_RESIZE_BILINEAR;
    for (int i = 0; i < 3; i++) p->mean[i] = p->std[i] = 0.5;
    return KAC_OK;
}

static kac_status read_config(kac_preprocess *p, const kac_json *j) {
    KAC_TRY(read_class(p, j));
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
    KAC_TRY(
        read_size(j, "size", p->shortest_edge == 0 ? NULL : &p->shortest_edge, &p->resize_height, &p->resize_width));
    return read_size(j, "crop_size", NULL, &p->crop_height, &p->crop_width);
}

kac_preprocess kac_preprocess_clip(int edge) {
    return (kac_preprocess){.resize = true,
                            .crop = true,
                            .rescale = true,
                            .normalize = true,
                            .shortest_edge = edge,
                            .crop_height = edge,
                            .crop_width = edge,
                            .filter = KAC_RESIZE_BICUBIC,
                            .rescale_factor = 1 / 255.0,
                            .mean = {0.48145466, 0.4578275, 0.40821073},
                            .std = {0.26862954, 0.26130258, 0.27577711}};
}

kac_status kac_preprocess_load(kac_preprocess *p, const char *dir, int image_size) {
    *p = kac_preprocess_clip(image_size);
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

/* transformers and torchvision cut the longer edge to whole pixels; open_clip's ResizeMaxSize rounds both. */
void kac_preprocess_resized(const kac_preprocess *p, int width, int height, int *w, int *h) {
    *w = width, *h = height;
    if (!p->resize) return;
    if (p->shortest_edge == 0) {
        *w = p->resize_width, *h = p->resize_height;
        return;
    }
    const int e = p->shortest_edge;
    const double scale = (double)e / KAC_MAX(width, height);
    if (p->longest)
        *w = (int)rint(width * scale), *h = (int)rint(height * scale); /* halves to even, as Python rounds */
    else if (width <= height)
        *w = e, *h = (int)((int64_t)e * height / width);
    else
        *h = e, *w = (int)((int64_t)e * width / height);
}

static int offset_of(kac_crop_rule rule, int from, int to) {
    if (rule == KAC_CROP_DOWN) return (from - to - (from < to)) / 2;
    return from < to ? -((to - from) / 2) : (int)rint((from - to) / 2.0);
}

void kac_preprocess_offset(const kac_preprocess *p, int w, int h, int *left, int *top) {
    *left = p->crop ? offset_of(p->crop_rule, w, p->crop_width) : 0;
    *top = p->crop ? offset_of(p->crop_rule, h, p->crop_height) : 0;
}

void kac_preprocess_size(const kac_preprocess *p, int width, int height, int *out_width, int *out_height) {
    kac_preprocess_resized(p, width, height, out_width, out_height);
    if (p->crop) *out_width = p->crop_width, *out_height = p->crop_height;
}

kac_status kac_preprocess_check(const kac_preprocess *p, int width, int height) {
    int w, h;
    kac_preprocess_resized(p, width, height, &w, &h);
    if (w < 1 || h < 1 || (int64_t)w * h > (int64_t)1 << 28)
        return KAC_FAIL(KAC_E_SHAPE, "a picture of %d × %d is too narrow to be resized", width, height);
    return KAC_OK;
}

kac_status kac_preprocess_apply(float *out, const kac_preprocess *p, const uint8_t *rgb, int width, int height,
                                kac_arena *scratch) {
    int w, h, ow, oh;
    kac_preprocess_resized(p, width, height, &w, &h);
    kac_preprocess_size(p, width, height, &ow, &oh);
    KAC_TRY(kac_preprocess_check(p, width, height));
    const size_t mark = kac_arena_mark(scratch);
    uint8_t *resized = kac_arena_take(scratch, (size_t)w * (size_t)h * CHANNELS);
    if (resized == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_resize_u8(resized, w, h, rgb, width, height, p->filter, scratch));
    int left, top;
    kac_preprocess_offset(p, w, h, &left, &top);
    for (int y = 0; y < oh && !scratch->counting; y++)
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
