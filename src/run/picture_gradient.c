#include "run/picture_gradient.h"
#include "tensor/tape.h"
#include <math.h>
#include <string.h>

/* Up to so many numbers in a result of the decoder's last level all of them are kept, not computed again: 32 pictures of the shipped decoder.
 * By shapes alone, so that a plan run knows. */
enum { KEPT_NUMBERS = 1 << 21 };

const char *kac_reward_set_no_grad(const kac_reward_set *s) {
    for (int i = 0; i < s->n; i++)
        if (s->parts[i]->grad == NULL) return s->parts[i]->name;
    return NULL;
}

/* ---- pictures in 0 … 1 ---- */

/* The length of one picture's derivative. */
static kac_status length_of(double *out, const kac_image_reward *r, const float *d, int64_t n) {
    double square = 0;
    for (int64_t i = 0; i < n; i++) square += (double)d[i] * (double)d[i];
    *out = sqrt(square);
    return isfinite(square) ? KAC_OK
                            : KAC_FAIL(KAC_E_NONFINITE, "the gradient of reward %s is not a finite number", r->name);
}

/* coef [n_rewards, n]: what the derivative of each reward by each picture counts. */
static kac_status weigh(double *coef, const kac_reward_set *s, const kac_tensor *d, kac_reward_balance balance,
                        const double *values) {
    const int64_t n = d[0].shape[0], n_numbers = kac_tensor_count(d[0]) / n;
    for (int64_t i = 0; i < n; i++) {
        double slopes[KAC_MAX_REWARDS];
        KAC_TRY(kac_mix_grad(s->mix, slopes, values + i * (s->n + 2)));
        for (int k = 0; k < s->n; k++) {
            double length;
            KAC_TRY(length_of(&length, s->parts[k], (const float *)d[k].data + i * n_numbers, n_numbers));
            const double by = balance == KAC_BALANCE_PLAIN ? 1 : length;
            coef[k * n + i] = by > 0 ? slopes[k] / by : 0;
        }
    }
    return KAC_OK;
}

/* out = Σ coef[k] d[k], picture by picture. */
static kac_status add_up(kac_ctx *c, kac_tensor out, const kac_tensor *d, int n_rewards, const double *coef) {
    const int n = (int)out.shape[0];
    double pair[2 * KAC_REWARD_BATCH];
    KAC_TRY(kac_lincomb(c, &out, 1, d, coef, n));
    for (int k = 1; k < n_rewards; k++) {
        for (int i = 0; i < n; i++) pair[i] = 1, pair[n + i] = coef[k * n + i];
        KAC_TRY(kac_lincomb(c, &out, 2, (kac_tensor[]){out, d[k]}, pair, n));
    }
    return KAC_OK;
}

/* Of at most KAC_REWARD_BATCH images in 0 … 1. */
static kac_status unit_grad(kac_reward_set *s, kac_ctx *c, kac_tensor images, const int *prompt,
                            kac_reward_balance balance, double *values, kac_tensor d_images) {
    const int n = (int)images.shape[0];
    double of_one[KAC_REWARD_BATCH], coef[KAC_MAX_REWARDS * KAC_REWARD_BATCH] = {0};
    kac_tensor d[KAC_MAX_REWARDS];
    for (int k = 0; k < s->n; k++) {
        KAC_TRY(kac_take(&d[k], &c->scratch, KAC_F32, 4, images.shape));
        KAC_TRY(kac_image_reward_grad(s->parts[k], images, prompt, of_one, d[k]));
        for (int i = 0; i < n; i++) values[i * (s->n + 2) + k] = of_one[i];
    }
    for (int i = 0; i < n && c->scratch.counting; i++) memset(values + i * (s->n + 2) + s->n, 0, 2 * sizeof *values);
    KAC_TRY(kac_reward_set_combine(s, values, n));
    if (!c->scratch.counting) KAC_TRY(weigh(coef, s, d, balance, values));
    return add_up(c, d_images, d, s->n, coef);
}

/* ---- states ---- */

kac_status kac_picture_colors(kac_ctx *c, kac_tensor *out, kac_tensor image) {
    if (image.rank != 4 || image.shape[3] != 1) return *out = image, KAC_OK;
    kac_tensor two = {0};
    KAC_TRY(kac_concat(c, &two, image, image, 3));
    return kac_concat(c, out, two, image, 3);
}

/* What is recorded: images [n, H, W, 3] in 0 … 1 from states. */
static kac_status show(kac_tensor *images, kac_ctx *c, const kac_codec *codec, kac_tensor states) {
    kac_tensor decoded = {0}, shifted = {0}, table;
    if (codec != NULL) KAC_TRY(kac_codec_decode_latents(&decoded, codec, c, states));
    if (codec == NULL) KAC_TRY(kac_picture_colors(c, &decoded, states));
    if (decoded.rank != 4 || decoded.shape[3] != 3)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "rewards look at pictures of 3 channels, these have %lld",
                        (long long)decoded.shape[decoded.rank - 1]);
    float halves[3] = {0.5f, 0.5f, 0.5f};
    KAC_TRY(kac_take_make(&table, &c->scratch, KAC_F32, 3));
    KAC_TRY(kac_copy(c, &table, kac_tensor_make(halves, KAC_F32, 3)));
    KAC_TRY(kac_affine(c, &shifted, decoded, table, table));
    return kac_clamp(c, images, shifted, 0, 1);
}

static kac_status through_tape(kac_grad_tape *t, kac_reward_set *s, const kac_codec *codec, kac_tensor states,
                               const int *prompt, kac_reward_balance balance, double *values, kac_tensor d_states) {
    kac_ctx *c = t->c;
    kac_tensor images = {0}, d_images;
    KAC_TRY(kac_tape_watch(t, states, d_states));
    const kac_codec_config *cfg = codec == NULL ? NULL : kac_codec_config_of(codec);
    if (cfg != NULL && kac_tensor_count(states) / cfg->latent_channels * cfg->factor * cfg->factor *
                               cfg->channels_decoder[cfg->n_blocks_decoder - 1] <=
                           KEPT_NUMBERS)
        kac_tape_keep_segments(t);
    kac_tape_start(t);
    const kac_status status = show(&images, c, codec, states);
    kac_tape_stop(t);
    KAC_TRY(status);
    KAC_TRY(kac_take(&d_images, &c->scratch, KAC_F32, 4, images.shape));
    const size_t mark = kac_arena_mark(&c->scratch);
    KAC_TRY(unit_grad(s, c, images, prompt, balance, values, d_images));
    kac_arena_release(&c->scratch, mark);
    KAC_TRY(kac_tape_seed(t, images, d_images));
    return kac_tape_replay(t);
}

/* The most pictures of which every reward takes as many at once. */
static int64_t batch_of(const kac_reward_set *s) {
    int batch = KAC_REWARD_BATCH;
    for (int k = 0; k < s->n; k++)
        if (s->parts[k]->batch > 0) batch = KAC_MIN(batch, s->parts[k]->batch);
    return batch;
}

kac_status kac_picture_gradient(kac_reward_set *s, kac_ctx *c, const kac_codec *codec, kac_tensor latents,
                                const int *prompt, kac_reward_balance balance, double *values, kac_tensor d_latents) {
    const int64_t batch = batch_of(s);
    if (s->n == 0) return KAC_FAIL(KAC_E_USAGE, "there is no reward to take a gradient of");
    if (!c->scratch.counting) memset(d_latents.data, 0, kac_tensor_bytes(d_latents));
    kac_grad_tape tape;
    KAC_TRY(kac_tape_open(&tape, c, 0));
    kac_status status = KAC_OK;
    for (int64_t i = 0; i < latents.shape[0] && status == KAC_OK; i += batch) {
        const int64_t n = KAC_MIN(batch, latents.shape[0] - i);
        const size_t mark = kac_arena_mark(&c->scratch);
        status = through_tape(&tape, s, codec, kac_tensor_slice(latents, 0, i, n), prompt + i, balance,
                              values + i * (s->n + 2), kac_tensor_slice(d_latents, 0, i, n));
        if (status == KAC_OK) kac_arena_release(&c->scratch, mark);
    }
    kac_tape_close(&tape);
    return status;
}
