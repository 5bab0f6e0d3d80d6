#include "ref/ref.h"

/* One number for every product: dL/dz, z = x Wᵀ + bias. */
size_t kac_ref_linear_grad_scratch(const kac_linear_args *a) {
    return (size_t)(kac_tensor_count(a->x) / a->w->n_in * a->w->n_out) * sizeof(double);
}

/* Row r of dz: through act, or through both factors of geglu, y = z₁ · gelu(z₂). */
static void before_act(const kac_linear_args *a, const kac_tensor *out, int64_t r, double *dz) {
    const int64_t n = out->shape[out->rank - 1], x = kac_element_offset(&a->x, a->x.rank - 1, r);
    for (int64_t o = 0; o < n; o++) {
        const double dy = kac_ref_load(out, r * n + o);
        if (a->o.geglu) {
            const double value = kac_ref_linear_sum(a, r, x, o), gate = kac_ref_linear_sum(a, r, x, n + o);
            dz[o] = dy * kac_ref_act(gate, KAC_ACT_GELU);
            dz[n + o] = dy * value * kac_ref_act_slope(gate, KAC_ACT_GELU);
        } else {
            const bool plain = a->o.act == KAC_ACT_NONE;
            dz[o] = plain ? dy : dy * kac_ref_act_slope(kac_ref_linear_sum(a, r, x, o), a->o.act);
        }
    }
}

/* x Wᵀ, and x' Uᵀ beside it: rows of W in `parts` groups, each with its own columns of x. */
typedef struct product {
    kac_tensor x, dx, dw;
    const kac_weight *w;
    int64_t parts;
} product;

/* dx = dz W */
static void by_input(const product *p, int64_t r, const double *dz) {
    const int64_t n_in = p->w->n_in, n_part = p->w->n_out / p->parts;
    for (int64_t at = 0; at < p->parts * n_in && p->dx.data != NULL; at++) {
        const int64_t part = at / n_in, i = at % n_in;
        double sum = 0;
        for (int64_t o = part * n_part; o < (part + 1) * n_part; o++)
            sum += dz[o] * kac_element_load(p->w->data, p->w->dtype, o * n_in + i);
        kac_ref_add(&p->dx, kac_element_offset(&p->dx, p->dx.rank - 1, r) + at, sum);
    }
}

/* dW = dzᵀ x */
static void by_weight(const product *p, int64_t o, const double *dz, int64_t n_rows) {
    const int64_t n_in = p->w->n_in, n_out = p->w->n_out, part = o / (n_out / p->parts);
    for (int64_t i = 0; i < n_in && p->dw.data != NULL; i++) {
        double sum = 0;
        for (int64_t r = 0; r < n_rows; r++)
            sum +=
                dz[r * n_out + o] * kac_ref_load(&p->x, kac_element_offset(&p->x, p->x.rank - 1, r) + part * n_in + i);
        kac_ref_add(&p->dw, o * n_in + i, sum);
    }
}

static void by_bias(const kac_tensor *db, int64_t o, int64_t n_out, const double *dz, int64_t n_rows) {
    double sum = 0;
    for (int64_t r = 0; r < n_rows; r++) sum += dz[r * n_out + o];
    kac_ref_add(db, o, sum);
}

kac_status kac_ref_linear_grad(kac_ctx *c, const kac_linear_args *a, const kac_grads *g) {
    const int64_t n_out = a->w->n_out, n_rows = kac_tensor_count(a->x) / a->w->n_in;
    const int64_t n_results = kac_tensor_count(g->out);
    const product whole = {a->x, g->in[KAC_IN_X], g->in[KAC_IN_WEIGHT], a->w, 1};
    const product low = {a->o.low.x, g->in[KAC_IN_LOW], g->in[KAC_IN_UP], a->o.low.up, a->o.low.parts};
    const int n_products = low.x.data != NULL ? 2 : 1;
    const product *const both[] = {&whole, &low};
    const size_t mark = kac_arena_mark(&c->scratch);
    double *dz = kac_arena_take(&c->scratch, kac_ref_linear_grad_scratch(a));
    if (dz == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < n_results; i++) kac_ref_add(&g->in[KAC_IN_RESIDUAL], i, kac_ref_load(&g->out, i));
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        before_act(a, &g->out, r, dz + r * n_out);
        for (int i = 0; i < n_products; i++) by_input(both[i], r, dz + r * n_out);
    }
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t o = 0; o < n_out; o++) {
        by_bias(&g->in[KAC_IN_BIAS], o, n_out, dz, n_rows);
        for (int i = 0; i < n_products; i++) by_weight(both[i], o, dz, n_rows);
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

/* One side of y = scale · a bᵀ: g[i, k] += scale · Σ_j dy[i, j] other[j, k], where dy is read with the strides given. */
static void side(const kac_tensor *g, int64_t at_g, const kac_tensor *dy, int64_t at_dy, int64_t n_j, int64_t stride_j,
                 const kac_tensor *other, int64_t at_other, int64_t n_k, double scale) {
    for (int64_t k = 0; k < n_k && g->data != NULL; k++) {
        double sum = 0;
        for (int64_t j = 0; j < n_j; j++)
            sum += kac_ref_load(dy, at_dy + j * stride_j) * kac_ref_load(other, at_other + j * n_k + k);
        kac_ref_add(g, at_g + k, sum * scale);
    }
}

kac_status kac_ref_matmul_t_grad(kac_ctx *c, const kac_matmul_t_args *a, const kac_grads *g) {
    const int rank = a->a.rank;
    const int64_t n_rows = a->a.shape[rank - 2], n_columns = a->b.shape[rank - 2], n_inner = a->a.shape[rank - 1];
    const int64_t n_products = kac_tensor_count(a->a) / (n_rows * n_inner);
    const kac_tensor *dy = &g->out;
    for (int64_t p = 0; p < n_products; p++) {
        const int64_t at_dy = p * n_rows * n_columns, at_a = p * n_rows * n_inner, at_b = p * n_columns * n_inner;
#pragma omp parallel for num_threads(c->n_threads)
        for (int64_t i = 0; i < n_rows; i++)
            side(&g->in[KAC_IN_A], at_a + i * n_inner, dy, at_dy + i * n_columns, n_columns, 1, &a->b, at_b, n_inner,
                 a->scale);
#pragma omp parallel for num_threads(c->n_threads)
        for (int64_t j = 0; j < n_columns; j++)
            side(&g->in[KAC_IN_B], at_b + j * n_inner, dy, at_dy + j, n_rows, n_columns, &a->a, at_a, n_inner,
                 a->scale);
    }
    return KAC_OK;
}
