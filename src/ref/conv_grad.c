#include "ref/ref.h"

/* dL/dz for every output, z = convolution + biases. */
size_t kac_ref_conv2d_grad_scratch(const kac_conv2d_args *a) {
    return (size_t)kac_tensor_count(a->out) * sizeof(double);
}

static double weight_at(const kac_weight *w, int64_t o, int64_t tap, int64_t i) {
    const int64_t n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw);
    return kac_element_load(w->data, w->dtype, (o * n_taps + tap) * w->n_in + i);
}

static void before_act(const kac_conv2d_args *a, const kac_grads *g, int64_t n, int64_t y, double *dz) {
    const int64_t height = a->out.shape[1], width = a->out.shape[2], n_out = a->out.shape[3];
    for (int64_t x = 0; x < width; x++)
        for (int64_t o = 0; o < n_out; o++) {
            const int64_t at = ((n * height + y) * width + x) * n_out + o;
            const double dy = kac_ref_load(&g->out, at);
            const bool plain = a->o.act == KAC_ACT_NONE;
            dz[at] = plain ? dy : dy * kac_ref_act_slope(kac_ref_conv2d_sum(a, n, y, x, o), a->o.act);
            kac_ref_add(&g->in[KAC_IN_RESIDUAL], at, dy);
        }
}

/* dx[p] = Σ over the outputs whose window holds p of dz · (the weight of that tap). */
static void by_input(const kac_conv2d_args *a, const kac_tensor *dx, int64_t n, int64_t py, const double *dz) {
    const int64_t ho = a->out.shape[1], wo = a->out.shape[2], n_out = a->out.shape[3];
    const int64_t kh = KAC_MAX(1, a->w->kh), kw = KAC_MAX(1, a->w->kw), stride = a->o.stride;
    for (int64_t px = 0; px < a->x.shape[2]; px++)
        for (int64_t i = 0; i < a->w->n_in; i++) {
            double sum = 0;
            for (int64_t ky = 0; ky < kh; ky++)
                for (int64_t kx = 0; kx < kw; kx++) {
                    const int64_t y = py + a->o.pad[0] - ky, x = px + a->o.pad[1] - kx;
                    if (y < 0 || x < 0 || y % stride != 0 || x % stride != 0 || y / stride >= ho || x / stride >= wo)
                        continue;
                    const double *from = dz + ((n * ho + y / stride) * wo + x / stride) * n_out;
                    for (int64_t o = 0; o < n_out; o++) sum += from[o] * weight_at(a->w, o, ky * kw + kx, i);
                }
            kac_ref_add(dx, ((n * a->x.shape[1] + py) * a->x.shape[2] + px) * a->w->n_in + i, sum);
        }
}

/* dW[o, i, ky, kx] = Σ over outputs of dz · (the input under that tap), as checkpoints order it. */
static void by_weight(const kac_conv2d_args *a, const kac_tensor *dw, int64_t o, const double *dz) {
    const int64_t ho = a->out.shape[1], wo = a->out.shape[2], n_out = a->out.shape[3], n_in = a->w->n_in;
    const int64_t kh = KAC_MAX(1, a->w->kh), kw = KAC_MAX(1, a->w->kw), h = a->x.shape[1], w = a->x.shape[2];
    for (int64_t i = 0; i < n_in; i++)
        for (int64_t tap = 0; tap < kh * kw; tap++) {
            double sum = 0;
            for (int64_t at = 0; at < a->out.shape[0] * ho * wo; at++) {
                const int64_t n = at / (ho * wo), y = at / wo % ho * a->o.stride - a->o.pad[0] + tap / kw,
                              x = at % wo * a->o.stride - a->o.pad[1] + tap % kw;
                if (y >= 0 && x >= 0 && y < h && x < w)
                    sum += dz[at * n_out + o] * kac_ref_load(&a->x, ((n * h + y) * w + x) * n_in + i);
            }
            kac_ref_add(dw, (o * n_in + i) * kh * kw + tap, sum);
        }
}

static void by_bias(const kac_conv2d_args *a, const kac_grads *g, int64_t o, const double *dz) {
    const int64_t n_images = a->out.shape[0], pixels = a->out.shape[1] * a->out.shape[2], n_out = a->out.shape[3];
    const kac_tensor *rows = &g->in[KAC_IN_ROW_BIAS];
    double all = 0;
    for (int64_t n = 0; n < n_images; n++) {
        const int64_t row = a->o.row_index != NULL ? a->o.row_index[n] : a->o.row_bias.shape[0] == 1 ? 0 : n;
        double sum = 0;
        for (int64_t at = n * pixels; at < (n + 1) * pixels; at++) sum += dz[at * n_out + o];
        kac_ref_add(rows, row * rows->stride[0] + o, sum);
        all += sum;
    }
    kac_ref_add(&g->in[KAC_IN_BIAS], o, all);
}

kac_status kac_ref_conv2d_grad(kac_ctx *c, const kac_conv2d_args *a, const kac_grads *g) {
    const int64_t n_images = a->out.shape[0], n_out = a->out.shape[3];
    const size_t mark = kac_arena_mark(&c->scratch);
    double *dz = kac_arena_take(&c->scratch, kac_ref_conv2d_grad_scratch(a));
    if (dz == NULL) return KAC_E_MEMORY;
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < a->out.shape[1]; y++) before_act(a, g, n, y, dz);
#pragma omp parallel for collapse(2) num_threads(c->n_threads) if (g->in[KAC_IN_X].data != NULL)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < a->x.shape[1]; y++)
            if (g->in[KAC_IN_X].data != NULL) by_input(a, &g->in[KAC_IN_X], n, y, dz);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t o = 0; o < n_out; o++) {
        by_bias(a, g, o, dz);
        if (g->in[KAC_IN_WEIGHT].data != NULL) by_weight(a, &g->in[KAC_IN_WEIGHT], o, dz);
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
