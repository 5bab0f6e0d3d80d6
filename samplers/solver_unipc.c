/* DEIS in log rho (Zhang & Chen 2023, eq. 15) and UniPC (Zhao et al. 2023, algorithms 5 and 7). */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

/* ---- DEIS ---- */

/* Antiderivative by rho of the polynomial in log rho that is 1 at node[0] and 0 at the other n − 1. */
static double deis_integral(double rho, const double *node, int n) {
    const double l = log(rho), b = log(node[0]), c = n > 1 ? log(node[1]) : 0.0, d = n > 2 ? log(node[2]) : 0.0;
    if (n == 1) return rho;
    if (n == 2) return rho * (-c + l - 1.0) / (b - c);
    return rho * (c * (d - l + 1.0) - d * l + d + l * l - 2.0 * l + 2.0) / ((b - c) * (b - d));
}

kac_status kac_rows_deis(kac_build *b) {
    enum { MAX_ORDER = 3 };
    const kac_schedule *sch = b->sch;
    b->s->init_noise_sigma = 1.0;
    if (sch->thresholding) kac_solver_set_clip(b);
    const int n = b->l->n;
    for (int i = b->first; i < n; i++) {
        const kac_level from = kac_level_at(b, i), to = kac_level_at(b, i + 1);
        const bool few = sch->lower_order_final && n < 15;
        int order = KAC_MIN(sch->solver_order, i - b->first + 1);
        if (few && i == n - 1) order = 1;
        if (few && i == n - 2) order = KAC_MIN(order, 2);
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, b->l->timestep[i], from.alpha, from.sigma));
        const kac_sum m[MAX_ORDER] = {kac_row_data(b, r, &eps, true), kac_sum_past(0), kac_sum_past(1)};
        double rho[2 * MAX_ORDER];
        for (int j = 0; j < 2 * order; j++) { /* each node can be the first of a list */
            const kac_level v = kac_level_at(b, i - j % order);
            rho[j] = v.sigma / v.alpha;
        }
        r->next.x = to.alpha / from.alpha;
        const double end = to.sigma / to.alpha;
        for (int j = 0; j < order; j++)
            kac_sum_add(&r->next,
                        to.alpha * (deis_integral(end, rho + j, order) - deis_integral(rho[0], rho + j, order)), &m[j]);
        r->past[0] = m[0];
        r->past[1] = m[1];
    }
    return KAC_OK;
}

/* ---- UniPC ---- */

enum { MAX_ORDER = 3, STATE = 0, M1 = 1 }; /* past[]: the last corrected state, then outputs, newest first */

/* Solves a (n × n, row by row) rho = b in place by elimination with pivots. */
static void solve(double a[MAX_ORDER][MAX_ORDER], double *b, int n) {
    for (int k = 0; k < n; k++) {
        int p = k;
        for (int i = k + 1; i < n; i++)
            if (fabs(a[i][k]) > fabs(a[p][k])) p = i;
        for (int j = 0; j < n; j++) {
            const double t = a[k][j];
            a[k][j] = a[p][j], a[p][j] = t;
        }
        const double t = b[k];
        b[k] = b[p], b[p] = t;
        for (int i = 0; i < n; i++) {
            if (i == k) continue;
            const double f = a[i][k] / a[k][k];
            for (int j = k; j < n; j++) a[i][j] -= f * a[k][j];
            b[i] -= f * b[k];
        }
    }
    for (int k = 0; k < n; k++) b[k] /= a[k][k];
}

/* One update from level i to i + 1: state is where it starts, m[0] the output there, m[1] … older ones, `ahead` the
 * output at its end (the corrector) or NULL (the predictor). */
static kac_sum update(const kac_build *b, int i, int order, const kac_sum *state, const kac_sum *m,
                      const kac_sum *ahead) {
    const bool noise = b->sch->predict_noise;
    const kac_level s = kac_level_at(b, i), t = kac_level_at(b, i + 1);
    const double h = t.lambda - s.lambda, hh = noise ? h : -h, phi1 = expm1(hh), scale = noise ? t.sigma : t.alpha;
    const double bh = b->sch->bh1 ? hh : phi1;
    kac_sum next = {0};
    kac_sum_add(&next, noise ? t.alpha / s.alpha : t.sigma / s.sigma, state);
    kac_sum_add(&next, -scale * phi1, &m[0]);
    const int n = ahead != NULL ? order : order - 1; /* slopes in use */
    if (n == 0) return next;
    double rk[MAX_ORDER], rho[MAX_ORDER], powers[MAX_ORDER][MAX_ORDER];
    for (int k = 1; k < order; k++) rk[k - 1] = (kac_level_at(b, i - k).lambda - s.lambda) / h;
    rk[order - 1] = 1.0;
    double phi = phi1 / hh - 1.0, factorial = 1.0;
    for (int k = 0; k < n; k++) {
        for (int j = 0; j < n; j++) powers[k][j] = pow(rk[j], k);
        rho[k] = phi * factorial / bh;
        factorial *= k + 2;
        phi = phi / hh - 1.0 / factorial;
    }
    if (n == 1) /* the reference's own, for both halves */
        rho[0] = 0.5;
    else
        solve(powers, rho, n);
    for (int k = 0; k < n; k++) {
        const kac_sum *other = ahead != NULL && k == n - 1 ? ahead : &m[k + 1];
        const double c = -scale * bh * rho[k] / (ahead != NULL && k == n - 1 ? 1.0 : rk[k]);
        kac_sum_add(&next, c, other);
        kac_sum_add(&next, -c, &m[0]);
    }
    return next;
}

kac_status kac_rows_unipc(kac_build *b) {
    const kac_schedule *sch = b->sch;
    const int n = b->l->n;
    if (sch->predict_noise && sch->prediction == KAC_PREDICT_FLOW)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "unipc takes a flow model with predict_x0 only");
    if (sch->predict_noise && b->l->sigma[n] == 0.0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "unipc with predict_x0 off needs final_sigmas_type \"sigma_min\"");
    b->s->init_noise_sigma = 1.0;
    if (sch->thresholding && !sch->predict_noise) kac_solver_set_clip(b);
    int order = 0;
    for (int i = b->first; i < n; i++) {
        const kac_level at = kac_level_at(b, i);
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, b->l->timestep[i], at.alpha, at.sigma));
        const kac_sum now = kac_row_data(b, r, &eps, sch->predict_noise), last = kac_sum_past(STATE);
        kac_sum m[MAX_ORDER + 1] = {now};
        for (int k = 0; k < MAX_ORDER; k++) m[k + 1] = kac_sum_past(M1 + k);
        kac_sum state = {.x = 1.0};
        if (i > b->first) state = update(b, i - 1, order, &last, m + 1, &now);
        order = KAC_MIN(sch->solver_order, i - b->first + 1);
        if (sch->lower_order_final) order = KAC_MIN(order, n - i);
        r->next = update(b, i, order, &state, m, NULL);
        r->past[STATE] = state;
        for (int k = 0; k < MAX_ORDER; k++) r->past[M1 + k] = m[k];
    }
    return KAC_OK;
}
