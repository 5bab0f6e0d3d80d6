/* Backward of convolutions: dx is a convolution of dz (spread out where the stride is not 1) by the weights with inputs and outputs
 * exchanged and taps reversed; dW is a sum of outer products over pixels. */
#include "cpu/cpu.h"
#include "ref/ref.h"

/* Pixels of a map from which on turning Winograd's weights round as well costs less than it saves. By the map alone: the row rule. */
enum { WINO_PIXELS = 100 };

typedef struct conv_grad {
    const kac_conv2d_args *a;
    const kac_grads *g;
    int64_t m, n, n_taps, hs, ws; /* pixels and channels of out; size of dz spread out */
    bool recompute, wino;
    kac_weight_layout layout; /* of the weights turned round */
    float *dz, *spread, *reverse, *dw, *sums;
    void *outer;
    kac_weight back;
    kac_conv2d_args forward, input;
    size_t bytes, inner;
} conv_grad;

/* z again: without activation and residual. */
static void plan_forward(conv_grad *p) {
    p->forward = *p->a;
    p->forward.out = kac_tensor_of(p->dz, KAC_F32, 4, p->a->out.shape);
    p->forward.o.residual = (kac_tensor){0};
    p->forward.o.act = KAC_ACT_NONE;
}

static void plan_input(conv_grad *p) {
    const kac_weight *w = p->a->w;
    const int kh = KAC_MAX(1, w->kh), kw = KAC_MAX(1, w->kw);
    p->back.data = p->reverse;
    p->input = (kac_conv2d_args){.out = p->g->in[KAC_IN_X], .w = &p->back};
    p->input.x = kac_tensor_make(p->spread, KAC_F32, p->a->out.shape[0], p->hs, p->ws, p->n);
    p->input.o = (kac_conv_opt){.stride = 1, .residual = p->g->in[KAC_IN_X]};
    p->input.o.pad[0] = kh - 1 - p->a->o.pad[0];
    p->input.o.pad[1] = kw - 1 - p->a->o.pad[1];
}

static void plan_weights(const kac_ctx *c, conv_grad *p) {
    const kac_weight *w = p->a->w;
    p->back = (kac_weight){.n_out = w->n_in, .n_in = w->n_out, .kh = w->kh, .kw = w->kw, .dtype = KAC_F32};
    p->layout = kac_cpu_weight_layout(kac_cpu_kernels_of(c), &p->back, KAC_F32, 1);
    p->wino = p->layout.wino_bytes > 0 && p->a->x.shape[1] * p->a->x.shape[2] >= WINO_PIXELS;
    p->back.n_bytes = p->layout.direct_bytes + (p->wino ? p->layout.wino_bytes : 0);
}

static void plan_conv_grad(conv_grad *p, const kac_ctx *c, const kac_conv2d_args *a, const kac_grads *g,
                           char *scratch) {
    const int64_t stride = a->o.stride;
    *p = (conv_grad){.a = a, .g = g, .n = a->w->n_out, .n_taps = (int64_t)KAC_MAX(1, a->w->kh) * KAC_MAX(1, a->w->kw)};
    p->m = kac_tensor_count(a->out) / p->n;
    p->hs = (a->out.shape[1] - 1) * stride + 1, p->ws = (a->out.shape[2] - 1) * stride + 1;
    p->recompute = a->o.act != KAC_ACT_NONE;
    const bool dx = g->in[KAC_IN_X].data != NULL, dw = g->in[KAC_IN_WEIGHT].data != NULL;
    const int64_t k = p->n_taps * a->w->n_in;
    plan_weights(c, p);
    kac_carver v = {.base = scratch};
    p->dz = kac_carve(&v, p->recompute ? (size_t)(p->m * p->n) * sizeof(float) : 0);
    p->spread = kac_carve(&v, dx && stride > 1 ? (size_t)(a->out.shape[0] * p->hs * p->ws * p->n) * sizeof(float) : 0);
    p->reverse = kac_carve(&v, dx ? p->back.n_bytes : 0);
    p->dw = kac_carve(&v, dw ? (size_t)(p->n * k) * sizeof(float) : 0);
    p->outer = kac_carve(&v, dw ? kac_cpu_outer_bytes(c, p->n, k) : 0);
    p->sums = kac_carve(&v, (size_t)p->n * sizeof(float));
    p->bytes = v.used;
    plan_forward(p);
    plan_input(p);
    p->inner = p->recompute ? kac_cpu_conv2d_scratch(c, &p->forward) : 0;
    if (dx) p->inner = KAC_MAX(p->inner, kac_cpu_conv2d_scratch(c, &p->input));
}

size_t kac_cpu_conv2d_grad_scratch(const kac_ctx *c, const kac_conv2d_args *a, const kac_grads *g) {
    conv_grad p;
    plan_conv_grad(&p, c, a, g, NULL);
    return p.bytes + p.inner;
}

static kac_status before_act(kac_ctx *c, conv_grad *p) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    if (!p->recompute) {
        p->dz = p->g->out.data;
        return KAC_OK;
    }
    KAC_TRY(kac_cpu_conv2d(c, &p->forward));
#pragma omp parallel for num_threads(c->n_threads) if (p->m * p->n > 16384)
    for (int64_t r = 0; r < p->m; r++)
        k->act_grad(p->dz + r * p->n, p->dz + r * p->n, (const float *)p->g->out.data + r * p->n, p->n, p->a->o.act,
                    false, false);
    return KAC_OK;
}

/* dz with stride − 1 zeros between neighbours. */
static void spread(kac_ctx *c, const conv_grad *p) {
    const int64_t ho = p->a->out.shape[1], wo = p->a->out.shape[2], stride = p->a->o.stride, n = p->n;
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t image = 0; image < p->a->out.shape[0]; image++)
        for (int64_t y = 0; y < p->hs; y++) {
            float *to = p->spread + (image * p->hs + y) * p->ws * n;
            memset(to, 0, (size_t)(p->ws * n) * sizeof(float));
            if (y % stride != 0) continue;
            const float *from = p->dz + (image * ho + y / stride) * wo * n;
            for (int64_t x = 0; x < wo; x++) memcpy(to + x * stride * n, from + x * n, (size_t)n * sizeof(float));
        }
}

static void turn_wino(kac_ctx *c, const conv_grad *p) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    float *u = (float *)(void *)((char *)p->reverse + p->layout.direct_bytes);
    const int64_t plane = p->layout.panels * p->n * k->nr;
#pragma omp parallel for num_threads(c->n_threads) if (plane > 8192)
    for (int64_t panel = 0; panel < p->layout.panels; panel++)
        for (int64_t i = 0; i < p->n; i++)
            k->wino_filters(u + (panel * p->n + i) * k->nr, plane, p->reverse + (panel * 9 * p->n + i) * k->nr,
                            p->n * k->nr);
}

static kac_status by_input(kac_ctx *c, conv_grad *p) {
    if (p->g->in[KAC_IN_X].data == NULL) return KAC_OK;
    kac_cpu_reverse(c, p->reverse, p->a->w, 0, p->n);
    if (p->wino) turn_wino(c, p);
    if (p->a->o.stride > 1)
        spread(c, p);
    else
        p->input.x.data = p->dz;
    return kac_cpu_conv2d(c, &p->input);
}

/* The inputs under all taps of output pixel m, side by side. */
static void load_window(const void *self, int64_t m, float *to) {
    const kac_conv2d_args *a = self;
    const int64_t ho = a->out.shape[1], wo = a->out.shape[2], h = a->x.shape[1], w = a->x.shape[2], n = a->w->n_in;
    const int kh = KAC_MAX(1, a->w->kh), kw = KAC_MAX(1, a->w->kw);
    for (int tap = 0; tap < kh * kw; tap++, to += n) {
        const int64_t y = m / wo % ho * a->o.stride - a->o.pad[0] + tap / kw;
        const int64_t x = m % wo * a->o.stride - a->o.pad[1] + tap % kw;
        const int64_t at = ((m / (ho * wo) * h + y) * w + x) * n;
        if (y < 0 || x < 0 || y >= h || x >= w)
            memset(to, 0, (size_t)n * sizeof(float));
        else if (a->x.dtype == KAC_F32)
            memcpy(to, (const float *)a->x.data + at, (size_t)n * sizeof(float));
        else
            for (int64_t i = 0; i < n; i++) to[i] = kac_bf16_to_f32(((const uint16_t *)a->x.data)[at + i]);
    }
}

static void by_weight(kac_ctx *c, const conv_grad *p) {
    float *dw = p->g->in[KAC_IN_WEIGHT].data;
    if (dw == NULL) return;
    const int64_t n_in = p->a->w->n_in, k = p->n_taps * n_in;
    const kac_outer o = {.dw = p->dw,
                         .ld = k,
                         .n_o = p->n,
                         .n_i = k,
                         .m = p->m,
                         .dz = p->dz,
                         .ldz = p->n,
                         .row = load_window,
                         .self = p->a};
    memset(p->dw, 0, (size_t)(p->n * k) * sizeof(float));
    kac_cpu_outer(c, &o, p->outer);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t row = 0; row < p->n; row++)
        for (int64_t i = 0; i < n_in; i++)
            for (int64_t tap = 0; tap < p->n_taps; tap++)
                dw[(row * n_in + i) * p->n_taps + tap] += p->dw[row * k + tap * n_in + i];
}

static void by_bias(kac_ctx *c, const conv_grad *p) {
    const kac_tensor *rows = &p->g->in[KAC_IN_ROW_BIAS], *bias = &p->g->in[KAC_IN_BIAS];
    const int64_t n_images = p->a->out.shape[0], pixels = p->m / n_images;
    if (bias->data == NULL && rows->data == NULL) return;
    for (int64_t i = 0; i < n_images; i++) {
        memset(p->sums, 0, (size_t)p->n * sizeof(float));
        kac_cpu_column_sums(c, p->sums, p->dz + i * pixels * p->n, p->n, pixels, p->n);
        const int64_t row = p->a->o.row_index != NULL ? p->a->o.row_index[i] : p->a->o.row_bias.shape[0] == 1 ? 0 : i;
        if (rows->data != NULL) kac_cpu_add(c, (float *)rows->data + row * rows->stride[0], p->sums, p->n, 1);
        kac_cpu_add(c, bias->data, p->sums, p->n, 1);
    }
}

kac_status kac_cpu_conv2d_grad(kac_ctx *c, const kac_conv2d_args *a, const kac_grads *g) {
    conv_grad p;
    plan_conv_grad(&p, c, a, g, NULL);
    const size_t mark = kac_arena_mark(&c->scratch);
    char *scratch = kac_arena_take(&c->scratch, p.bytes);
    if (scratch == NULL) return KAC_E_MEMORY;
    plan_conv_grad(&p, c, a, g, scratch);
    kac_status s = before_act(c, &p);
    kac_cpu_add(c, g->in[KAC_IN_RESIDUAL].data, g->out.data, kac_tensor_count(g->out), 1);
    if (s == KAC_OK) s = by_input(c, &p);
    if (s == KAC_OK) {
        by_weight(c, &p);
        by_bias(c, &p);
    }
    kac_arena_release(&c->scratch, mark);
    return s;
}
