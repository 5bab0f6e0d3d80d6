#include "ref/ref.h"

/* Of y = x̂ · γ + β, x̂ = (x − mean) · scale, over n_rows × n_columns elements, given dz = dL/dy through the activation:
 * dx = scale · (dz γ − mean(dz γ) − x̂ · mean(dz γ x̂)). */
typedef struct normed {
    const kac_tensor *x, *dy, *gamma, *beta, *dx;
    kac_act act;
    int64_t start, n_rows, n_columns, stride, channel; /* of the first column */
    kac_ref_moments m;
} normed;

static double hat_at(const normed *g, int64_t r, int64_t i) {
    return (kac_ref_load(g->x, g->start + r * g->stride + i) - g->m.mean) * g->m.scale;
}

static double dz_at(const normed *g, int64_t r, int64_t i, double hat) {
    const double dy = kac_ref_load(g->dy, g->start + r * g->stride + i);
    if (g->act == KAC_ACT_NONE) return dy;
    const double z = hat * kac_ref_load_or(g->gamma, g->channel + i, 1) + kac_ref_load_or(g->beta, g->channel + i, 0);
    return dy * kac_ref_act_slope(z, g->act);
}

static void by_input(const normed *g) {
    double mean = 0, along = 0;
    const double count = (double)(g->n_rows * g->n_columns);
    for (int64_t r = 0; r < g->n_rows; r++)
        for (int64_t i = 0; i < g->n_columns; i++) {
            const double hat = hat_at(g, r, i);
            const double d = dz_at(g, r, i, hat) * kac_ref_load_or(g->gamma, g->channel + i, 1);
            mean += d / count;
            along += d * hat / count;
        }
    for (int64_t r = 0; r < g->n_rows; r++)
        for (int64_t i = 0; i < g->n_columns; i++) {
            const double hat = hat_at(g, r, i);
            const double d = dz_at(g, r, i, hat) * kac_ref_load_or(g->gamma, g->channel + i, 1);
            kac_ref_add(g->dx, g->start + r * g->stride + i, g->m.scale * (d - mean - hat * along));
        }
}

/* dγ and dβ of one column: sums over its rows. */
static void by_column(const normed *g, int64_t i, double *dgamma, double *dbeta) {
    for (int64_t r = 0; r < g->n_rows; r++) {
        const double hat = hat_at(g, r, i), dz = dz_at(g, r, i, hat);
        *dgamma += dz * hat;
        *dbeta += dz;
    }
}

static normed group_of(const kac_group_norm_args *a, const kac_grads *g, int64_t n, int64_t group) {
    const int64_t channels = a->x.shape[a->x.rank - 1], width = channels / a->groups;
    const int64_t n_rows = kac_tensor_count(a->x) / (a->x.shape[0] * channels);
    normed r = {.x = &a->x, .dy = &g->out, .gamma = &a->gamma, .beta = &a->beta, .dx = &g->in[KAC_IN_X], .act = a->act};
    r.start = n * n_rows * channels + group * width;
    r.n_rows = n_rows, r.n_columns = width, r.stride = channels, r.channel = group * width;
    r.m = kac_ref_moments_of(&a->x, r.start, n_rows, width, channels, a->eps);
    return r;
}

kac_status kac_ref_group_norm_grad(kac_ctx *c, const kac_group_norm_args *a, const kac_grads *g) {
    const int64_t n_images = a->x.shape[0];
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t group = 0; group < a->groups; group++) {
            const normed r = group_of(a, g, n, group);
            if (g->in[KAC_IN_X].data != NULL) by_input(&r);
        }
    if (g->in[KAC_IN_SCALE].data == NULL && g->in[KAC_IN_SHIFT].data == NULL) return KAC_OK;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t group = 0; group < a->groups; group++) {
        const int64_t width = a->x.shape[a->x.rank - 1] / a->groups;
        for (int64_t n = 0; n < n_images; n++) {
            const normed r = group_of(a, g, n, group);
            for (int64_t i = 0; i < width; i++) {
                double dgamma = 0, dbeta = 0;
                by_column(&r, i, &dgamma, &dbeta);
                kac_ref_add(&g->in[KAC_IN_SCALE], r.channel + i, dgamma);
                kac_ref_add(&g->in[KAC_IN_SHIFT], r.channel + i, dbeta);
            }
        }
    }
    return KAC_OK;
}

static normed row_of(const kac_layer_norm_args *a, const kac_grads *g, int64_t r) {
    const int64_t channels = a->x.shape[a->x.rank - 1];
    normed row = {.x = &a->x, .dy = &g->out, .gamma = &a->gamma, .beta = &a->beta, .dx = &g->in[KAC_IN_X]};
    row.start = r * channels, row.n_rows = 1, row.n_columns = row.stride = channels;
    row.m = kac_ref_moments_of(&a->x, row.start, 1, channels, channels, a->eps);
    return row;
}

kac_status kac_ref_layer_norm_grad(kac_ctx *c, const kac_layer_norm_args *a, const kac_grads *g) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        const normed row = row_of(a, g, r);
        if (g->in[KAC_IN_X].data != NULL) by_input(&row);
    }
    for (int64_t r = 0; r < n_rows && (g->in[KAC_IN_SCALE].data != NULL || g->in[KAC_IN_SHIFT].data != NULL); r++) {
        const normed row = row_of(a, g, r);
        for (int64_t i = 0; i < channels; i++) {
            double dgamma = 0, dbeta = 0;
            by_column(&row, i, &dgamma, &dbeta);
            kac_ref_add(&g->in[KAC_IN_SCALE], i, dgamma);
            kac_ref_add(&g->in[KAC_IN_SHIFT], i, dbeta);
        }
    }
    return KAC_OK;
}

/* y = x / |x|: dx = (dy − y (y · dy)) / |x| */
kac_status kac_ref_l2_normalize_grad(kac_ctx *c, const kac_l2_normalize_args *a, const kac_grads *g) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        const int64_t at = r * channels;
        const double norm = sqrt(kac_ref_dot(a->x.data, a->x.dtype, at, a->x.data, a->x.dtype, at, channels));
        const double along =
            kac_ref_dot(a->x.data, a->x.dtype, at, g->out.data, g->out.dtype, at, channels) / (norm * norm);
        for (int64_t i = at; i < at + channels; i++)
            kac_ref_add(&g->in[KAC_IN_X], i, (kac_ref_load(&g->out, i) - kac_ref_load(&a->x, i) * along) / norm);
    }
    return KAC_OK;
}

/* mean: 1 / count each; deviation s: (x − mean) / ((count − 1) s) */
kac_status kac_ref_row_stats_grad(kac_ctx *c, const kac_row_stats_args *a, const kac_grads *g) {
    const int64_t n_images = a->x.shape[0], count = kac_tensor_count(a->x) / n_images;
    const kac_tensor *dx = &g->in[KAC_IN_X];
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++) {
        const int64_t start = n * a->x.stride[0];
        const kac_ref_moments m = kac_ref_moments_of(&a->x, start, 1, count, count, 0);
        const double deviation = sqrt((double)count / (double)(count - 1)) / m.scale;
        const double by_mean = kac_ref_load(&g->out, 2 * n) / (double)count;
        const double by_deviation = kac_ref_load(&g->out, 2 * n + 1) / ((double)(count - 1) * deviation);
        for (int64_t i = 0; i < count; i++)
            kac_ref_add(dx, n * dx->stride[0] + i, by_mean + by_deviation * (kac_ref_load(&a->x, start + i) - m.mean));
    }
    return KAC_OK;
}
