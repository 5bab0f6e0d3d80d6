/* DPM-Solver++ 2M and its SDE (Lu et al. 2022b, eq. 13 and appendix), first order at the ends; also DPM-Solver of
 * noise. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

typedef struct level {
    double alpha, sigma, lambda; /* lambda = log(alpha / sigma); infinite at sigma 0 */
} level;

static level level_at(double ratio, bool flow) {
    level v;
    v.alpha = flow ? 1.0 - ratio : 1.0 / sqrt(ratio * ratio + 1.0);
    v.sigma = flow ? ratio : ratio * v.alpha;
    v.lambda = log(v.alpha) - log(v.sigma);
    return v;
}

/* x' = row.x · x + m0 · (this prediction) + d1 · (its change per unit of lambda · h) + z · noise */
static void coefficients(kac_solver_row *r, const kac_schedule *sch, bool sde, level s, level t, double *m0,
                         double *d1) {
    const double h = t.lambda - s.lambda;
    if (!sch->predict_noise && !sde) {
        const double e = expm1(-h);
        r->x = t.sigma / s.sigma;
        *m0 = -t.alpha * e;
        *d1 = sch->heun ? t.alpha * (e / h + 1.0) : 0.5 * *m0;
    } else if (!sch->predict_noise) {
        const double e = expm1(-2.0 * h);
        r->x = t.sigma / s.sigma * exp(-h);
        *m0 = -t.alpha * e;
        *d1 = sch->heun ? t.alpha * (e / (2.0 * h) + 1.0) : 0.5 * *m0;
        r->z = t.sigma * sqrt(-e);
    } else if (!sde) {
        const double e = expm1(h);
        r->x = t.alpha / s.alpha;
        *m0 = -t.sigma * e;
        *d1 = sch->heun ? -t.sigma * (e / h - 1.0) : 0.5 * *m0;
    } else {
        const double e = expm1(h);
        r->x = t.alpha / s.alpha;
        *m0 = -2.0 * t.sigma * e;
        *d1 = sch->heun ? -2.0 * t.sigma * (e / h - 1.0) : 0.5 * *m0;
        r->z = t.sigma * sqrt(expm1(2.0 * h));
    }
}

static bool first_order(const kac_schedule *sch, int i, int n, int first) {
    if (i <= first || sch->solver_order == 1) return true; /* rows before the first are not used */
    return i == n - 1 && (sch->euler_at_final || (sch->lower_order_final && n < 15) || !sch->final_sigma_min);
}

kac_status kac_rows_dpm(kac_solver *s, const kac_schedule *sch, const kac_levels *l, int first) {
    const bool flow = sch->sigmas == KAC_SIGMAS_FLOW, sde = s->kind == KAC_SOLVER_DPMPP_2M_SDE;
    s->init_noise_sigma = 1.0;
    if (sch->thresholding) {
        s->threshold = sch->dynamic_thresholding_ratio;
        s->threshold_max = sch->sample_max_value;
    }
    for (int i = 0; i < l->n; i++) {
        kac_solver_row *r = &s->rows[i];
        const level from = level_at(l->sigma[i], flow), to = level_at(l->sigma[i + 1], flow);
        *r = (kac_solver_row){.timestep = l->timestep[i], .c_in = 1.0, .alpha = from.alpha, .sigma = from.sigma};
        double eps[2], m0 = 0.0, d1 = 0.0;
        KAC_TRY(kac_row_predict(r, eps, sch->prediction));
        coefficients(r, sch, sde, from, to, &m0, &d1);
        if (!first_order(sch, i, l->n, first)) {
            /* D1 = (m0 − m1) / r0, r0 = (lambda now − lambda before) / h */
            const double before = level_at(l->sigma[i - 1], flow).lambda;
            const double slope = d1 * (to.lambda - from.lambda) / (from.lambda - before);
            m0 += slope;
            r->prev = -slope;
        }
        if (!sch->predict_noise) {
            r->x0 = m0;
            r->prev_x0 = 1.0;
        } else if (sch->thresholding) { /* noise follows from the clipped x0 */
            r->prev_x = 1.0 / from.sigma;
            r->prev_x0 = -from.alpha / from.sigma;
        } else {
            r->prev_x = eps[0];
            r->prev_out = eps[1];
        }
        if (sch->predict_noise) {
            r->x += m0 * r->prev_x;
            r->x0 += m0 * r->prev_x0;
            r->out += m0 * r->prev_out;
        }
    }
    return KAC_OK;
}
