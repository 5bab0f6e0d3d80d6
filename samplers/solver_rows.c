/* Building rows, and applying one on the host. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>
#include <stdlib.h>

/* ---- sums ---- */

void kac_sum_add(kac_sum *a, double c, const kac_sum *b) {
    a->x += c * b->x;
    a->x0 += c * b->x0;
    a->out += c * b->out;
    for (int j = 0; j < KAC_SOLVER_PAST; j++) a->past[j] += c * b->past[j];
}

kac_sum kac_sum_past(int j) {
    kac_sum s = {0};
    s.past[j] = 1.0;
    return s;
}

/* ---- building ---- */

int kac_rows_room(int n_steps) {
    return 2 * n_steps + 8; /* two calls a step, or the Runge–Kutta start of pndm */
}

/* x0_x, x0_out of a row whose state is alpha · x_0 + sigma · noise, and the noise. */
static kac_status predict(kac_solver_row *row, kac_sum *eps, kac_prediction prediction) {
    const double a = row->alpha, b = row->sigma, norm = sqrt(a * a + b * b);
    *eps = (kac_sum){0};
    switch (prediction) {
    case KAC_PREDICT_EPSILON:
        if (a <= 0.0)
            return KAC_FAIL(
                KAC_E_UNSUPPORTED,
                "timestep %g is pure noise, from which epsilon prediction says nothing about the sample; use a "
                "v_prediction model, or timestep_spacing leading",
                row->timestep);
        row->x0_x = 1.0 / a;
        row->x0_out = -b / a;
        eps->out = 1.0;
        break;
    case KAC_PREDICT_SAMPLE:
        row->x0_x = 0.0;
        row->x0_out = 1.0;
        eps->x = b > 0.0 ? 1.0 / b : 0.0;
        eps->out = b > 0.0 ? -a / b : 0.0;
        break;
    case KAC_PREDICT_V: /* v = (a · noise − b · x_0) / norm */
        row->x0_x = a / (norm * norm);
        row->x0_out = -b / norm;
        eps->x = b / (norm * norm);
        eps->out = a / norm;
        break;
    case KAC_PREDICT_FLOW: /* a + b = 1 */
        row->x0_x = 1.0;
        row->x0_out = -b;
        eps->x = 1.0;
        eps->out = a;
        break;
    }
    return KAC_OK;
}

kac_status kac_row_add(kac_solver_row **row, kac_sum *eps, kac_build *b, double timestep, double alpha, double sigma) {
    KAC_ASSERT(b->s->n_steps < kac_rows_room(b->l->n));
    *row = &b->s->rows[b->s->n_steps++];
    **row = (kac_solver_row){.timestep = timestep, .c_in = 1.0, .alpha = alpha, .sigma = sigma};
    return predict(*row, eps, b->sch->prediction);
}

kac_status kac_row_add_sigma(kac_solver_row **row, kac_sum *eps, kac_build *b, double timestep, double sigma) {
    KAC_TRY(kac_row_add(row, eps, b, timestep, 1.0, sigma));
    (*row)->c_in = 1.0 / sqrt(sigma * sigma + 1.0);
    if (b->s->clip > 0.0) *eps = (kac_sum){.x = 1.0 / sigma, .x0 = -1.0 / sigma};
    return KAC_OK;
}

kac_sum kac_row_data(const kac_build *b, const kac_solver_row *row, const kac_sum *eps, bool noise) {
    if (!noise) return (kac_sum){.x0 = 1.0};
    if (b->s->threshold > 0.0) return (kac_sum){.x = 1.0 / row->sigma, .x0 = -row->alpha / row->sigma};
    return *eps;
}

kac_level kac_level_at(const kac_build *b, int i) {
    const double ratio = b->l->sigma[i];
    const bool flow = b->sch->sigmas == KAC_SIGMAS_FLOW;
    kac_level v;
    v.alpha = flow ? 1.0 - ratio : 1.0 / sqrt(ratio * ratio + 1.0);
    v.sigma = flow ? ratio : ratio * v.alpha;
    v.lambda = log(v.alpha) - log(v.sigma);
    return v;
}

void kac_solver_set_clip(kac_build *b) {
    if (b->sch->thresholding) {
        b->s->threshold = b->sch->dynamic_thresholding_ratio;
        b->s->threshold_max = b->sch->sample_max_value;
    } else if (b->sch->clip_sample) {
        b->s->clip = b->sch->clip_sample_range;
    }
}

void kac_solver_set_sigma_max(kac_build *b) {
    double sigma_max = 0.0;
    for (int i = 0; i < b->l->n; i++) sigma_max = fmax(sigma_max, b->l->sigma[i]);
    b->s->init_noise_sigma = b->sch->spacing == KAC_SPACING_LEADING ? sqrt(sigma_max * sigma_max + 1.0) : sigma_max;
}

/* ---- on the host ---- */

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void kac_solver_clip(const kac_solver *s, float *x0, int64_t n, float *scratch) {
    float limit = (float)s->clip, scale = 1.0f;
    if (s->threshold > 0.0) {
        for (int64_t i = 0; i < n; i++) scratch[i] = fabsf(x0[i]);
        qsort(scratch, (size_t)n, sizeof *scratch, compare_floats);
        const double rank = s->threshold * (double)(n - 1), low = floor(rank);
        const int64_t i = (int64_t)low, next = KAC_MIN(i + 1, n - 1);
        const double quantile = scratch[i] + (rank - low) * ((double)scratch[next] - scratch[i]);
        limit = (float)fmin(fmax(quantile, 1.0), s->threshold_max);
        scale = limit;
    }
    if (limit <= 0.0f) return;
    for (int64_t i = 0; i < n; i++) x0[i] = fminf(fmaxf(x0[i], -limit), limit) / scale;
}

double kac_solver_learned_deviation(const kac_solver *s, const kac_solver_row *row, double v) {
    if (s->learned == KAC_VARIANCE_LEARNED) return sqrt(v);
    const double share = 0.5 * (v + 1.0);
    return exp(0.5 * (share * row->log_max + (1.0 - share) * row->log_min));
}

static double value_of(const kac_sum *s, double x, double x0, double out, const double *past, int n_past) {
    double v = s->x * x + s->x0 * x0 + s->out * out;
    for (int j = 0; j < n_past; j++) v += s->past[j] * past[j];
    return v;
}

void kac_solver_step(const kac_solver *s, const kac_solver_row *row, float *x, const float *x0, const float *out,
                     float *past, const float *z, const float *variance, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const double xi = x[i], x0i = x0[i], oi = out[i];
        double pi[KAC_SOLVER_PAST];
        for (int j = 0; j < s->n_past; j++) pi[j] = past[j * n + i];
        double next = value_of(&row->next, xi, x0i, oi, pi, s->n_past);
        if (row->z != 0.0)
            next += z[i] * (s->learned != 0 ? kac_solver_learned_deviation(s, row, variance[i]) : row->z);
        for (int j = 0; j < s->n_past; j++)
            past[j * n + i] = (float)value_of(&row->past[j], xi, x0i, oi, pi, s->n_past);
        x[i] = (float)next;
    }
}
