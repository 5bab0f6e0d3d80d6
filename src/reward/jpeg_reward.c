#include "reward/jpeg_reward.h"
#include "io/image.h"
#include "model/jpeg_size.h"
#include "reward/reward_files.h"
#include "tensor/tape.h"
#include <math.h>
#include <string.h>

enum { QUALITY = 95 };

typedef struct jpeg_reward {
    double sign;
    kac_jpeg_size_net net;
} jpeg_reward;

static void jpeg_close(kac_image_reward *r) {
    kac_free(r->self);
}

static kac_status score_one(double *out, const kac_image_reward *r, const uint8_t *rgb, int width, int height) {
    size_t bytes = 0;
    if (!r->c->model.counting) KAC_TRY(kac_jpeg_size(&bytes, rgb, width, height, QUALITY));
    *out = ((const jpeg_reward *)r->self)->sign * (double)bytes / 1000;
    return KAC_OK;
}

static kac_status jpeg_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    for (int i = 0; i < n; i++) KAC_TRY(score_one(&out[i], r, pictures[i].rgb, pictures[i].width, pictures[i].height));
    return KAC_OK;
}

/* ---- gradient ---- */

/* The true sizes, of pixels rounded to 8 bits. */
static kac_status true_sizes(double *out, const kac_image_reward *r, kac_tensor images) {
    const int64_t n_numbers = images.shape[1] * images.shape[2] * images.shape[3];
    uint8_t *rgb = kac_arena_take(&r->c->scratch, (size_t)n_numbers);
    if (rgb == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < images.shape[0]; i++) {
        const float *image = (const float *)images.data + i * n_numbers;
        bool finite = true;
        for (int64_t k = 0; k < n_numbers && !r->c->scratch.counting; k++) {
            finite = finite && isfinite(image[k]);
            rgb[k] = (uint8_t)lrintf(255 * fminf(fmaxf(image[k], 0), 1));
        }
        KAC_TRY(score_one(&out[i], r, rgb, (int)images.shape[2], (int)images.shape[1]));
        if (!finite) out[i] = NAN; /* the caller names the reward */
    }
    return KAC_OK;
}

/* kB from bits: the same derivative for every block. */
static kac_status seed(kac_grad_tape *t, const kac_image_reward *r, const kac_tensor bits[KAC_JPEG_PLANES]) {
    for (int i = 0; i < KAC_JPEG_PLANES; i++) {
        kac_tensor d;
        KAC_TRY(kac_take(&d, &r->c->scratch, KAC_F32, bits[i].rank, bits[i].shape));
        for (int64_t k = 0; k < kac_tensor_count(d) && !r->c->scratch.counting; k++)
            ((float *)d.data)[k] = (float)(((const jpeg_reward *)r->self)->sign / 8000);
        KAC_TRY(kac_tape_seed(t, bits[i], d));
    }
    return KAC_OK;
}

static kac_status through_tape(kac_grad_tape *t, kac_image_reward *r, kac_tensor images, kac_tensor d_images) {
    kac_tensor bits[KAC_JPEG_PLANES] = {{0}};
    KAC_TRY(kac_tape_watch(t, images, d_images));
    kac_tape_start(t);
    const kac_status s = kac_jpeg_size_bits(bits, &((const jpeg_reward *)r->self)->net, r->c, images);
    kac_tape_stop(t);
    KAC_TRY(s);
    KAC_TRY(seed(t, r, bits));
    return kac_tape_replay(t);
}

static kac_status jpeg_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                            kac_tensor d_images) {
    (void)prompt;
    KAC_TRY(true_sizes(out, r, images));
    if (!r->c->scratch.counting) memset(d_images.data, 0, kac_tensor_bytes(d_images));
    kac_grad_tape tape;
    KAC_TRY(kac_tape_open(&tape, r->c, 0));
    const kac_status s = through_tape(&tape, r, images, d_images);
    kac_tape_close(&tape);
    return s;
}

/* ---- opening ---- */

static kac_status open_net(kac_jpeg_size_net *net, kac_ctx *c, const char *dir) {
    kac_source s;
    KAC_TRY(kac_reward_source_open(&s, dir));
    const kac_status status = kac_reward_content_of(&s) == KAC_CONTENT_JPEG_SIZE
                                  ? kac_jpeg_size_load(net, c, &s)
                                  : kac_reward_wrong_content(&s, "the network of weights/jpeg-size");
    kac_source_close(&s);
    return status;
}

static kac_status jpeg_open(kac_image_reward *r, const char *dir, double sign) {
    jpeg_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    self->sign = sign;
    r->self = self, r->score = jpeg_score, r->close = jpeg_close;
    if (dir == NULL) return KAC_OK;
    r->grad = jpeg_grad;
    return open_net(&self->net, r->c, dir);
}

kac_status kac_incompressibility_reward_open(kac_image_reward *r, const char *dir) {
    return jpeg_open(r, dir, 1);
}

kac_status kac_compressibility_reward_open(kac_image_reward *r, const char *dir) {
    return jpeg_open(r, dir, -1);
}
