/* Convolutions: Winograd where it fits, else a product whose rows are gathered by the taps. */
#include "cpu/cpu.h"

typedef struct conv_plan {
    kac_gemm g;
    bool wino, pointwise;
    float *x, *zeros, *bias, *partials;
    int *bias_row;
    void *wino_scratch;
    size_t bytes;
} conv_plan;

static void conv_geometry(const kac_conv2d_args *a, kac_gemm *g) {
    g->n_in = a->w->n_in, g->n_taps = KAC_MAX(1, a->w->kh) * KAC_MAX(1, a->w->kw);
    g->n = a->w->n_out, g->m = kac_tensor_count(a->out) / g->n;
    g->conv = true;
    g->h = a->x.shape[1], g->w = a->x.shape[2], g->ho = a->out.shape[1], g->wo = a->out.shape[2];
    g->kw = KAC_MAX(1, a->w->kw), g->stride = a->o.stride, g->pad_top = a->o.pad[0], g->pad_left = a->o.pad[1];
    g->rows_per_image = g->ho * g->wo;
    g->lda = g->n_in;
}

static conv_plan plan_conv(const kac_ctx *c, const kac_conv2d_args *a, char *scratch) {
    conv_plan p = {.wino = kac_cpu_wino_fits(kac_cpu_kernels_of(c), a)};
    kac_gemm *g = &p.g;
    conv_geometry(a, g);
    p.pointwise = g->n_taps == 1 && g->stride == 1 && g->ho == g->h && g->wo == g->w;
    if (p.pointwise) g->conv = false;
    g->a = a->x.data;
    g->b = a->w->data, g->b_bf16 = a->w->dtype == KAC_BF16;
    g->act = a->o.act;
    g->residual = a->o.residual.data;
    g->out = a->out.data, g->ldo = g->ldr = g->n, g->x_bf16 = a->out.dtype == KAC_BF16;
    kac_carver v = {.base = scratch};
    const bool row_bias = a->o.row_bias.data != NULL, copy_x = a->x.dtype != KAC_F32 && !p.wino;
    p.x = kac_carve(&v, copy_x ? (size_t)kac_tensor_count(a->x) * sizeof(float) : 0);
    p.zeros = kac_carve(&v, g->conv && !p.wino ? (size_t)g->n_in * sizeof(float) : 0);
    p.bias = kac_carve(&v, row_bias ? (size_t)(a->o.row_bias.shape[0] * g->n) * sizeof(float) : 0);
    p.bias_row = kac_carve(&v, row_bias ? (size_t)a->x.shape[0] * sizeof(int) : 0);
    p.partials = kac_carve(&v, p.wino ? 0 : kac_cpu_gemm_partials(c, g));
    p.wino_scratch = kac_carve(&v, p.wino ? kac_cpu_wino_scratch(c, a) : 0);
    p.bytes = v.used;
    return p;
}

size_t kac_cpu_conv2d_scratch(const kac_ctx *c, const kac_conv2d_args *a) {
    return plan_conv(c, a, NULL).bytes;
}

/* bias + row bias as one table of f32 rows. */
static void combine_bias(const kac_conv2d_args *a, conv_plan *p) {
    const kac_tensor *t = &a->o.row_bias;
    const float *bias = a->o.bias.data;
    p->g.bias = bias;
    if (t->data == NULL) return;
    const int64_t n = a->w->n_out;
    for (int64_t u = 0; u < t->shape[0]; u++)
        for (int64_t j = 0; j < n; j++) {
            const int64_t at = u * t->stride[0] + j;
            const float x =
                t->dtype == KAC_BF16 ? kac_bf16_to_f32(((const uint16_t *)t->data)[at]) : ((const float *)t->data)[at];
            p->bias[u * n + j] = x + (bias ? bias[j] : 0);
        }
    for (int64_t i = 0; i < a->x.shape[0]; i++)
        p->bias_row[i] = a->o.row_index ? a->o.row_index[i] : t->shape[0] == 1 ? 0 : (int)i;
    p->g.bias = p->bias;
    p->g.bias_row = p->bias_row;
}

static kac_status run_conv(kac_ctx *c, const kac_conv2d_args *a) {
    const size_t mark = kac_arena_mark(&c->scratch), bytes = kac_cpu_conv2d_scratch(c, a);
    char *scratch = bytes ? kac_arena_take(&c->scratch, bytes) : NULL;
    if (bytes && scratch == NULL) return KAC_E_MEMORY;
    conv_plan p = plan_conv(c, a, scratch);
    combine_bias(a, &p);
    if (p.wino) {
        kac_cpu_wino_run(c, a, p.g.bias, p.g.bias_row, p.wino_scratch);
    } else {
        if (a->x.dtype != KAC_F32) {
            kac_cpu_rows_copy(c, p.x, &a->x);
            p.g.a = p.x;
        }
        if (p.g.conv) memset(p.zeros, 0, (size_t)p.g.n_in * sizeof(float));
        p.g.zeros = p.zeros;
        kac_cpu_gemm(c, &p.g, p.partials);
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

kac_status kac_cpu_conv2d(kac_ctx *c, const kac_conv2d_args *a) {
    if (a->o.residual.data == NULL || a->o.residual.dtype == a->out.dtype) return run_conv(c, a);
    kac_conv2d_args plain = *a; /* a residual of another type comes after */
    plain.o.residual = (kac_tensor){0};
    KAC_TRY(run_conv(c, &plain));
    static const double one[] = {1, 1};
    const kac_lincomb_args sum = {.out = a->out, .n_terms = 2, .x = {a->out, a->o.residual}, .coef = one, .n_coef = 1};
    return kac_cpu_lincomb(c, &sum);
}
