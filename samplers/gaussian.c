#include "samplers/gaussian.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

static const double log_2_pi = 1.8378770664093454836;

double kac_log_sum_exp(const double *a, int n) {
    double top = -INFINITY, sum = 0.0;
    for (int i = 0; i < n; i++) top = fmax(top, a[i]);
    if (!isfinite(top)) return top;
    for (int i = 0; i < n; i++) sum += exp(a[i] - top);
    return top + log(sum);
}

bool kac_cholesky(double *out, const double *a, int d) {
    for (int i = 0; i < d; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = a[i * d + j];
            for (int m = 0; m < j; m++) sum -= out[i * d + m] * out[j * d + m];
            if (i == j && !(sum > 0.0)) return false;
            out[i * d + j] = i == j ? sqrt(sum) : sum / out[j * d + j];
        }
    }
    for (int i = 0; i < d; i++)
        for (int j = i + 1; j < d; j++) out[i * d + j] = 0.0;
    return true;
}

void kac_solve_lower(const double *l, double *x, int d) {
    for (int i = 0; i < d; i++) {
        for (int j = 0; j < i; j++) x[i] -= l[i * d + j] * x[j];
        x[i] /= l[i * d + i];
    }
}

void kac_solve_lower_transposed(const double *l, double *x, int d) {
    for (int i = d - 1; i >= 0; i--) {
        for (int j = i + 1; j < d; j++) x[i] -= l[j * d + i] * x[j];
        x[i] /= l[i * d + i];
    }
}

kac_status kac_gmm_init(kac_gmm *g, int k, int d) {
    *g = (kac_gmm){.k = k, .d = d};
    g->w = kac_alloc((size_t)k * sizeof(double) * (size_t)(1 + d + d * d));
    if (g->w == NULL) return KAC_E_MEMORY;
    g->mean = g->w + k;
    g->cov = g->mean + k * d;
    return KAC_OK;
}

void kac_gmm_free(kac_gmm *g) {
    kac_free(g->w);
    *g = (kac_gmm){0};
}

kac_status kac_kernel_init(kac_kernel *q, int k, int d) {
    *q = (kac_kernel){.k = k, .d = d};
    const size_t square = (size_t)k * (size_t)d * (size_t)d;
    q->log_c = kac_alloc(((size_t)k * (size_t)(1 + d) + 4 * square) * sizeof(double));
    if (q->log_c == NULL) return KAC_E_MEMORY;
    q->mean = q->log_c + k;
    q->chol_p = q->mean + k * d;
    q->gain = q->chol_p + square;
    q->cov = q->gain + square;
    q->chol_v = q->cov + square;
    return KAC_OK;
}

void kac_kernel_free(kac_kernel *q) {
    kac_free(q->log_c);
    *q = (kac_kernel){0};
}

/* C = (I − alpha G) S (I − alpha G)' + sigma² G G': stays positive semidefinite under rounding (Joseph's form). */
static void posterior_cov(double *c, const double *s, const double *gain, double alpha, double sigma2, int d) {
    for (int i = 0; i < d; i++) {
        double row[KAC_GMM_MAX]; /* row i of (I − alpha G) S */
        for (int j = 0; j < d; j++) {
            row[j] = s[i * d + j];
            for (int m = 0; m < d; m++) row[j] -= alpha * gain[i * d + m] * s[m * d + j];
        }
        for (int j = 0; j < d; j++) {
            double sum = row[j];
            for (int m = 0; m < d; m++)
                sum += -row[m] * alpha * gain[j * d + m] + sigma2 * gain[i * d + m] * gain[j * d + m];
            c[i * d + j] = sum;
        }
    }
}

static kac_status prepare_component(kac_kernel *q, const kac_gmm *g, int k) {
    const int d = q->d, dd = d * d;
    const double alpha = sqrt(q->bar_t), sigma2 = 1.0 - q->bar_t;
    const double *s = g->cov + k * dd;
    double *p = q->chol_p + k * dd, *gain = q->gain + k * dd, *cov = q->cov + k * dd, *v = q->chol_v + k * dd;
    for (int i = 0; i < dd; i++) p[i] = q->bar_t * s[i] + (i % (d + 1) == 0 ? sigma2 : 0.0);
    if (!kac_cholesky(p, p, d)) return KAC_FAIL(KAC_E_FORMAT, "component %d has a singular covariance", k);
    double log_det = 0.0;
    for (int i = 0; i < d; i++) {
        log_det += 2.0 * log(p[i * d + i]);
        double *row = gain + i * d; /* row i of alpha S P⁻¹ solves P row = alpha S_i */
        for (int j = 0; j < d; j++) row[j] = alpha * s[i * d + j];
        kac_solve_lower(p, row, d);
        kac_solve_lower_transposed(p, row, d);
    }
    posterior_cov(cov, s, gain, alpha, sigma2, d);
    for (int i = 0; i < d; i++)
        for (int j = 0; j < d; j++) {
            const double even = 0.5 * (cov[i * d + j] + cov[j * d + i]);
            v[i * d + j] = q->B * q->B * even + (i == j ? q->v : 0.0);
        }
    if (!kac_cholesky(v, v, d)) return KAC_FAIL(KAC_E_FORMAT, "component %d leaves no variance to a step", k);
    q->log_c[k] = log(g->w[k]) - 0.5 * log_det - 0.5 * d * log_2_pi;
    return KAC_OK;
}

kac_status kac_kernel_prepare(kac_kernel *q, const kac_gmm *g, double bar_t, double bar_s) {
    const double sigma_t2 = 1.0 - bar_t, sigma_s2 = 1.0 - bar_s, a = sqrt(bar_t / bar_s);
    const double v_ts = sigma_t2 - a * a * sigma_s2;
    q->bar_t = bar_t;
    q->bar_s = bar_s;
    q->A = a * sigma_s2 / sigma_t2;
    q->B = sqrt(bar_s) * v_ts / sigma_t2;
    q->v = sigma_s2 * v_ts / sigma_t2;
    memcpy(q->mean, g->mean, (size_t)(q->k * q->d) * sizeof(double));
    for (int k = 0; k < q->k; k++) KAC_TRY(prepare_component(q, g, k));
    return KAC_OK;
}

double kac_kernel_posterior(const kac_kernel *q, const double *x, double *log_w, double *means) {
    const int d = q->d;
    const double alpha = sqrt(q->bar_t);
    for (int k = 0; k < q->k; k++) {
        double off[KAC_GMM_MAX], *m = means + k * d;
        const double *mu = q->mean + k * d, *gain = q->gain + k * d * d;
        for (int i = 0; i < d; i++) off[i] = x[i] - alpha * mu[i];
        for (int i = 0; i < d; i++) {
            m[i] = mu[i];
            for (int j = 0; j < d; j++) m[i] += gain[i * d + j] * off[j];
        }
        kac_solve_lower(q->chol_p + k * d * d, off, d);
        double square = 0.0;
        for (int i = 0; i < d; i++) square += off[i] * off[i];
        log_w[k] = q->log_c[k] - 0.5 * square;
    }
    const double log_p = kac_log_sum_exp(log_w, q->k);
    for (int k = 0; k < q->k; k++) log_w[k] -= log_p;
    return log_p;
}

void kac_kernel_x0_hat(const kac_kernel *q, const double *log_w, const double *means, double *x0_hat) {
    memset(x0_hat, 0, (size_t)q->d * sizeof(double));
    for (int k = 0; k < q->k; k++) {
        const double w = exp(log_w[k]);
        for (int i = 0; i < q->d; i++) x0_hat[i] += w * means[k * q->d + i];
    }
}

void kac_kernel_pull(const kac_kernel *q, const double *log_w, const double *means, const float *d_x0, float *d_x) {
    const int d = q->d;
    double hat[KAC_GMM_MAX], sum[KAC_GMM_MAX] = {0};
    kac_kernel_x0_hat(q, log_w, means, hat);
    for (int k = 0; k < q->k; k++) { /* the covariance is that within the components and that of their means */
        const double w = exp(log_w[k]), *cov = q->cov + k * d * d, *m = means + k * d;
        double along = 0.0;
        for (int i = 0; i < d; i++) along += (m[i] - hat[i]) * (double)d_x0[i];
        for (int i = 0; i < d; i++) {
            double row = (m[i] - hat[i]) * along;
            for (int j = 0; j < d; j++) row += 0.5 * (cov[i * d + j] + cov[j * d + i]) * (double)d_x0[j];
            sum[i] += w * row;
        }
    }
    for (int i = 0; i < d; i++) d_x[i] = (float)(sqrt(q->bar_t) / (1.0 - q->bar_t) * sum[i]);
}

void kac_kernel_draw(const kac_kernel *q, const double *x, const double *log_w, const double *means, double u,
                     const float *z, double *to) {
    const int d = q->d;
    int k = 0;
    for (double sum = exp(log_w[0]); k + 1 < q->k && sum <= u;) sum += exp(log_w[++k]);
    const double *l = q->chol_v + k * d * d;
    double next[KAC_GMM_MAX];
    for (int i = 0; i < d; i++) {
        next[i] = q->A * x[i] + q->B * means[k * d + i];
        for (int j = 0; j <= i; j++) next[i] += l[i * d + j] * (double)z[j];
    }
    memcpy(to, next, (size_t)d * sizeof(double));
}

double kac_kernel_log_density(const kac_kernel *q, const double *x, const double *log_w, const double *means,
                              const double *to) {
    const int d = q->d;
    double terms[KAC_GMM_MAX];
    for (int k = 0; k < q->k; k++) {
        const double *l = q->chol_v + k * d * d;
        double off[KAC_GMM_MAX], square = 0.0, log_det = 0.0;
        for (int i = 0; i < d; i++) off[i] = to[i] - q->A * x[i] - q->B * means[k * d + i];
        kac_solve_lower(l, off, d);
        for (int i = 0; i < d; i++) {
            square += off[i] * off[i];
            log_det += log(l[i * d + i]);
        }
        terms[k] = log_w[k] - log_det - 0.5 * (d * log_2_pi + square);
    }
    return kac_log_sum_exp(terms, q->k);
}
