#include "run/start_image.h"
#include "io/image.h"
#include "reward/preprocess.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Address space: one pass over the largest picture, and its weights. */
static const size_t RESIZE_BYTES = (size_t)1 << 31;

/* Strength 1 stands for "all new" where a mask says what stays, while without one it would leave nothing of the picture. */
static double strength_of(const kac_options *o) {
    if (kac_options_given(o, "strength")) return kac_options_real(o, "strength");
    return kac_options_text(o, "mask") != NULL ? 1 : 0.8;
}

double kac_start_image_strength(const kac_options *o) {
    return kac_options_text(o, "init-img") == NULL ? 0 : strength_of(o);
}

kac_status kac_start_image_begin(int *begin, const kac_options *o, int n_steps) {
    *begin = 0;
    if (kac_options_text(o, "init-img") == NULL) return KAC_OK;
    const double strength = strength_of(o);
    const int n_left = (int)KAC_MIN(floor(n_steps * strength), (double)n_steps);
    if (n_left < 1)
        return KAC_FAIL(KAC_E_USAGE, "--strength %g of %d steps is less than one step; give more of either", strength,
                        n_steps);
    *begin = n_steps - n_left;
    return KAC_OK;
}

static kac_status check_options(const kac_options *o) {
    static const char *const need_picture[] = {"strength", "mask", "init-latents"};
    for (int i = 0; i < KAC_COUNT_OF(need_picture); i++)
        if (kac_options_given(o, need_picture[i]) && kac_options_text(o, "init-img") == NULL)
            return KAC_FAIL(KAC_E_USAGE, "--%s needs --init-img: the picture to start from", need_picture[i]);
    if (kac_options_bool(o, "paste") && kac_options_text(o, "mask") == NULL)
        return KAC_FAIL(KAC_E_USAGE, "--paste needs --mask, which says what stays");
    return KAC_OK;
}

static kac_status load(kac_image *image, char sha256[65], const char *path) {
    KAC_TRY(kac_image_load(image, path));
    return kac_sha256_file(sha256, path);
}

/* The size that covers width × height with the picture's own proportions. */
static void cover(int *w, int *h, const kac_image *image, int64_t width, int64_t height) {
    const double scale = fmax((double)width / image->width, (double)height / image->height);
    *w = (int)fmax(rint(image->width * scale), (double)width);
    *h = (int)fmax(rint(image->height * scale), (double)height);
}

/* Replaces the picture by its resized, cropped self on the heap. */
static kac_status fit(kac_image *image, int64_t width, int64_t height) {
    int w, h;
    cover(&w, &h, image, width, height);
    if ((int64_t)w * h > KAC_IMAGE_MAX_PIXELS)
        return KAC_FAIL(KAC_E_USAGE, "a picture of %d × %d is too narrow to be cropped to %lld × %lld", image->width,
                        image->height, (long long)width, (long long)height);
    uint8_t *resized = kac_alloc((size_t)w * (size_t)h * 3), *out = kac_alloc((size_t)(width * height) * 3);
    kac_status s = resized == NULL || out == NULL ? KAC_E_MEMORY : KAC_OK;
    kac_arena scratch = {0}; /* a plan run's own arenas hold nothing */
    if (s == KAC_OK) s = kac_arena_init(&scratch, "resizing", RESIZE_BYTES);
    if (s == KAC_OK)
        s = kac_resize_u8(resized, w, h, image->rgb, image->width, image->height, KAC_RESIZE_LANCZOS, &scratch);
    kac_arena_free(&scratch);
    const size_t left = (size_t)(w - width) / 2, top = (size_t)(h - height) / 2, row = (size_t)width * 3;
    for (size_t y = 0; y < (size_t)height && s == KAC_OK; y++)
        memcpy(out + y * row, resized + ((y + top) * (size_t)w + left) * 3, row);
    kac_free(resized);
    if (s != KAC_OK) {
        kac_free(out);
        return s;
    }
    kac_free(image->rgb);
    *image = (kac_image){.rgb = out, .width = (int)width, .height = (int)height};
    return KAC_OK;
}

/* Pillow's grey of a pixel, 128 and more counts as white. */
static void threshold(uint8_t *mask, const uint8_t *rgb, int64_t n) {
    for (int64_t i = 0; i < n; i++, rgb += 3)
        mask[i] = (rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16 >= 128;
}

static kac_status open_picture(kac_start_image *s, const kac_latent_options *o) {
    kac_image image = {0};
    KAC_TRY(load(&image, s->sha256, s->path));
    s->width = image.width, s->height = image.height;
    int w, h;
    cover(&w, &h, &image, o->width, o->height);
    const bool crops = w != o->width || h != o->height;
    if (image.width != o->width || image.height != o->height)
        snprintf(s->note, sizeof s->note, "--init-img is %d × %d: resized to %d × %d%s", image.width, image.height, w,
                 h, crops ? " and cropped to the middle" : "");
    const kac_status status = fit(&image, o->width, o->height);
    if (status == KAC_OK)
        s->rgb = image.rgb;
    else
        kac_image_free(&image);
    return status;
}

static kac_status open_mask(kac_start_image *s, const kac_latent_options *o) {
    kac_image image = {0};
    KAC_TRY(load(&image, s->mask_sha256, s->mask_path));
    kac_status status = KAC_OK;
    if (image.width != s->width || image.height != s->height)
        status = KAC_FAIL(KAC_E_USAGE, "the mask %s is %d × %d, the picture %s %d × %d; they must have one size",
                          s->mask_path, image.width, image.height, s->path, s->width, s->height);
    if (status == KAC_OK) status = fit(&image, o->width, o->height);
    if (status == KAC_OK) s->mask = kac_alloc((size_t)(o->width * o->height));
    if (status == KAC_OK && s->mask == NULL) status = KAC_E_MEMORY;
    if (status == KAC_OK) threshold(s->mask, image.rgb, o->width * o->height);
    kac_image_free(&image);
    return status;
}

kac_status kac_start_image_open(kac_start_image *s, kac_latent_options *o, const kac_options *options) {
    *s = (kac_start_image){.path = kac_options_text(options, "init-img"),
                           .mask_path = kac_options_text(options, "mask"),
                           .strength = strength_of(options)};
    KAC_TRY(check_options(options));
    if (s->path == NULL) return KAC_OK;
    KAC_TRY(open_picture(s, o));
    if (s->mask_path != NULL) KAC_TRY(open_mask(s, o));
    o->start = (kac_latent_start){.rgb = s->rgb,
                                  .mask = s->mask,
                                  .mean = strcmp(kac_options_text(options, "init-latents"), "mean") == 0,
                                  .from_noise = s->mask != NULL && s->strength == 1,
                                  .paste = kac_options_bool(options, "paste")};
    return KAC_OK;
}

void kac_start_image_close(kac_start_image *s) {
    kac_free(s->rgb), kac_free(s->mask);
    *s = (kac_start_image){0};
}

cJSON *kac_start_image_facts(const kac_start_image *s, bool network_reads_mask) {
    if (s->rgb == NULL) return NULL;
    cJSON *facts = cJSON_CreateObject();
    cJSON_AddStringToObject(facts, "image", s->path);
    cJSON_AddStringToObject(facts, "sha256", s->sha256);
    cJSON_AddNumberToObject(facts, "width", s->width);
    cJSON_AddNumberToObject(facts, "height", s->height);
    cJSON_AddNumberToObject(facts, "strength", s->strength);
    if (s->mask == NULL) return facts;
    cJSON_AddStringToObject(facts, "mask", s->mask_path);
    cJSON_AddStringToObject(facts, "mask_sha256", s->mask_sha256);
    cJSON_AddStringToObject(facts, "mask_acts_on", network_reads_mask ? "the network's input" : "the states");
    return facts;
}
