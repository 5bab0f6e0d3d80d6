#include "reward/color_reward.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double luma[3] = {0.299, 0.587, 0.114};

typedef struct color_reward {
    double target[3]; /* brightness: the first */
} color_reward;

static void color_close(kac_image_reward *r) {
    kac_free(r->self);
}

static kac_status brightness_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const color_reward *self = r->self;
    for (int i = 0; i < n; i++) {
        const size_t n_pixels = (size_t)pictures[i].width * (size_t)pictures[i].height;
        uint64_t sum[3] = {0};
        for (size_t p = 0; p < n_pixels && !r->c->model.counting; p++)
            for (int c = 0; c < 3; c++) sum[c] += pictures[i].rgb[p * 3 + (size_t)c];
        double mean = 0;
        for (int c = 0; c < 3; c++) mean += luma[c] * (double)sum[c] / (255.0 * (double)n_pixels);
        out[i] = -fabs(mean - self->target[0]);
    }
    return KAC_OK;
}

/* d = sign(T − mean) luma / pixels: the same everywhere. */
static kac_status brightness_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                                  kac_tensor d_images) {
    const color_reward *self = r->self;
    const int64_t n_pixels = images.shape[1] * images.shape[2];
    (void)prompt;
    for (int64_t i = 0; i < images.shape[0]; i++) {
        const float *image = (const float *)images.data + i * n_pixels * 3;
        float *d = (float *)d_images.data + i * n_pixels * 3;
        double mean = 0;
        for (int64_t p = 0; p < n_pixels * 3 && !r->c->model.counting; p++)
            mean += luma[p % 3] * (double)image[p] / (double)n_pixels;
        const double off = self->target[0] - mean;
        out[i] = -fabs(off);
        for (int64_t p = 0; p < n_pixels * 3 && !r->c->model.counting; p++)
            d[p] = (float)(((off > 0) - (off < 0)) * luma[p % 3] / (double)n_pixels);
    }
    return KAC_OK;
}

static kac_status color_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const color_reward *self = r->self;
    for (int i = 0; i < n; i++) {
        const size_t n_pixels = (size_t)pictures[i].width * (size_t)pictures[i].height;
        double sum = 0;
        for (size_t p = 0; p < n_pixels && !r->c->model.counting; p++)
            for (int c = 0; c < 3; c++) {
                const double d = pictures[i].rgb[p * 3 + (size_t)c] / 255.0 - self->target[c];
                sum += d * d;
            }
        out[i] = -sum / (3.0 * (double)n_pixels);
    }
    return KAC_OK;
}

/* d = 2 (target − image) / (3 pixels). */
static kac_status color_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                             kac_tensor d_images) {
    const color_reward *self = r->self;
    const int64_t n_numbers = images.shape[1] * images.shape[2] * 3;
    (void)prompt;
    for (int64_t i = 0; i < images.shape[0]; i++) {
        const float *image = (const float *)images.data + i * n_numbers;
        float *d = (float *)d_images.data + i * n_numbers;
        double sum = 0;
        for (int64_t p = 0; p < n_numbers && !r->c->model.counting; p++) {
            const double off = self->target[p % 3] - (double)image[p];
            sum += off * off;
            d[p] = (float)(2 * off / (double)n_numbers);
        }
        out[i] = -sum / (double)n_numbers;
    }
    return KAC_OK;
}

static kac_status color_open(kac_image_reward *r, const double target[3]) {
    color_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    memcpy(self->target, target, sizeof self->target);
    r->self = self, r->close = color_close;
    return KAC_OK;
}

kac_status kac_brightness_reward_open(kac_image_reward *r, const char *target) {
    char *end;
    const double value = strtod(target, &end);
    if (end == target || *end != '\0' || !(value >= 0 && value <= 1))
        return KAC_FAIL(KAC_E_USAGE, "brightness=%s: it must be a number from 0 (black) to 1 (white)", target);
    r->score = brightness_score, r->grad = brightness_grad;
    return color_open(r, (double[3]){value});
}

kac_status kac_color_reward_open(kac_image_reward *r, const char *target) {
    const char *hex = target + (target[0] == '#');
    if (strlen(hex) != 6 || strspn(hex, "0123456789abcdefABCDEF") != 6)
        return KAC_FAIL(KAC_E_USAGE, "color=%s: it must be written #RRGGBB in hexadecimal, such as #ff8000", target);
    const long rgb = strtol(hex, NULL, 16);
    r->score = color_score, r->grad = color_grad;
    return color_open(
        r, (double[3]){(double)(rgb >> 16) / 255, (double)(rgb >> 8 & 255) / 255, (double)(rgb & 255) / 255});
}
