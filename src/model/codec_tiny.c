/* AutoencoderTiny (TAESD). Source: diffusers' EncoderTiny and DecoderTiny. */
#include "model/codec_net.h"
#include "nn/scope.h"

/* x + W₂ relu(norm(W₁ x)) */
static kac_status run_pool(kac_ctx *c, const kac_codec_tiny_block *b, kac_tensor *x) {
    kac_tensor wide = KAC_NONE, sum = KAC_NONE;
    KAC_TRY(kac_nn_linear_run(c, &wide, &b->pool_in, *x, KAC_ACT_NONE, KAC_NONE));
    kac_tensor normed = kac_scope_reuse(c, wide);
    KAC_TRY(kac_nn_norm_run(c, &normed, &b->pool_norm, wide, KAC_ACT_RELU));
    KAC_TRY(kac_nn_linear_run(c, &sum, &b->pool_out, normed, KAC_ACT_NONE, *x));
    *x = sum;
    return KAC_OK;
}

/* y = relu(conv(act(conv(act(conv(x))))) + x) */
static kac_status run_block(kac_ctx *c, kac_tensor *y, const kac_codec_tiny_block *b, kac_act act, kac_tensor x) {
    const size_t mark = kac_scope_open(c);
    kac_tensor h1 = KAC_NONE, h2 = KAC_NONE;
    if (b->has_pool) KAC_TRY(run_pool(c, b, &x));
    KAC_TRY(kac_nn_conv_run(c, &h1, &b->conv[0], x, act, KAC_NONE));
    KAC_TRY(kac_nn_conv_run(c, &h2, &b->conv[1], h1, act, KAC_NONE));
    KAC_TRY(kac_nn_conv_run(c, y, &b->conv[2], h2, KAC_ACT_NONE, x));
    kac_tensor z = kac_scope_reuse(c, *y);
    KAC_TRY(kac_activate(c, &z, *y, KAC_ACT_RELU));
    *y = z;
    kac_scope_close(c, mark);
    return KAC_OK;
}

static kac_status run_step(kac_codec_turn *turn, const kac_codec_step *s, kac_act act, kac_tensor *x) {
    kac_ctx *c = turn->c;
    const int64_t n = x->shape[0], h = x->shape[1], w = x->shape[2];
    kac_tensor y;
    switch (s->kind) {
    case KAC_STEP_ACT:
        y = kac_scope_reuse(c, *x);
        KAC_TRY(kac_activate(c, &y, *x, act));
        break;
    case KAC_STEP_UPSAMPLE:
        y = kac_codec_turn_next(turn, n, 2 * h, 2 * w, s->n_out);
        KAC_TRY(kac_upsample_nearest(c, &y, *x, 2 * h, 2 * w));
        break;
    case KAC_STEP_CONV:
        y = kac_codec_turn_next(turn, n, (h - 1) / s->conv.stride + 1, (w - 1) / s->conv.stride + 1, s->n_out);
        KAC_TRY(kac_nn_conv_run(c, &y, &s->conv, *x, KAC_ACT_NONE, KAC_NONE));
        break;
    default:
        y = kac_codec_turn_next(turn, n, h, w, s->n_out);
        KAC_TRY(run_block(c, &y, &s->block, act, *x));
    }
    *x = y;
    return KAC_OK;
}

static int64_t turn_count(const kac_codec_sequence *q, kac_tensor x) {
    int64_t pixels = x.shape[0] * x.shape[1] * x.shape[2], most = pixels * x.shape[3];
    for (int i = 0; i < q->n_steps; i++) { /* strides only shrink */
        if (q->step[i].kind == KAC_STEP_UPSAMPLE) pixels *= 4;
        most = KAC_MAX(most, pixels * q->step[i].n_out);
    }
    return most;
}

/* Decoding begins with 3·tanh(x / 3), encoding with x / 2 + 1 / 2. */
static kac_status prepare(kac_ctx *c, const kac_codec *v, kac_tensor *x, bool decode) {
    kac_tensor a = KAC_NONE, b, d;
    if (!decode) {
        KAC_TRY(kac_affine(c, &a, *x, v->half, v->half));
        *x = a;
        return KAC_OK;
    }
    KAC_TRY(kac_lincomb(c, &a, 1, x, &(double){1 / 3.0}, 1));
    b = kac_scope_reuse(c, a);
    KAC_TRY(kac_activate(c, &b, a, KAC_ACT_TANH));
    d = kac_scope_reuse(c, b);
    KAC_TRY(kac_lincomb(c, &d, 1, &b, &(double){3}, 1));
    *x = d;
    return KAC_OK;
}

kac_status kac_codec_tiny_run(kac_ctx *c, kac_tensor *out, const kac_codec *v, kac_tensor x, bool decode) {
    const kac_codec_sequence *q = decode ? &v->tiny_decoder : &v->tiny_encoder;
    kac_codec_turn turn;
    KAC_TRY(kac_codec_turn_open(&turn, c, turn_count(q, x)));
    KAC_TRY(prepare(c, v, &x, decode));
    for (int i = 0; i < q->n_steps; i++) {
        KAC_TRY(run_step(&turn, &q->step[i], v->cfg.act, &x));
        KAC_TRY(kac_tap(c, x, "%s.layers.%d", q->path.s, i));
    }
    if (!decode) return kac_copy(c, out, x);
    kac_tensor y = kac_scope_reuse(c, x);
    KAC_TRY(kac_affine(c, &y, x, v->two, v->minus_one));
    return kac_copy(c, out, y);
}
