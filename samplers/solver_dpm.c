/* DPM-Solver and DPM-Solver++, multistep and singlestep, orders 1 to 3, and their SDE (Lu et al. 2022a, 2022b). */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

/* x' = x · state + d0 · D0 + d1 · D1 + d2 · D2 + z · noise, the D being the derivatives of what is integrated (x0-hat or
 * noise) by lambda in units of the step h. */
typedef struct weights {
    double x, d0, d1, d2, z;
} weights;

static weights weights_of(const kac_build *b, kac_level s, kac_level t) {
    const bool sde = b->s->kind == KAC_SOLVER_DPMPP_2M_SDE || b->s->kind == KAC_SOLVER_DPMPP_2S_SDE;
    const double h = t.lambda - s.lambda;
    weights w = {0};
    if (!b->sch->predict_noise) {
        const double k = sde ? 2.0 * h : h, e = expm1(-k);
        w.x = t.sigma / s.sigma * (sde ? exp(-h) : 1.0);
        w.d0 = -t.alpha * e;
        w.d1 = t.alpha * (e / k + 1.0);
        /* The reference's third order of the SDE has 1 − e^−2h − 2h where the ODE has e^−h − 1 + h. */
        w.d2 = sde ? t.alpha * ((-e - k) / (k * k) - 0.5) : -t.alpha * ((e + k) / (k * k) - 0.5);
        if (sde) w.z = t.sigma * sqrt(-e);
        return w;
    }
    const double e = expm1(h), twice = sde ? 2.0 : 1.0;
    w.x = t.alpha / s.alpha;
    w.d0 = -twice * t.sigma * e;
    w.d1 = -twice * t.sigma * (e / h - 1.0);
    w.d2 = -twice * t.sigma * ((e - h) / (h * h) - 0.5);
    if (sde) w.z = t.sigma * sqrt(expm1(2.0 * h));
    return w;
}

static void add_difference(kac_sum *d, double c, const kac_sum *a, const kac_sum *b) {
    kac_sum_add(d, c, a);
    kac_sum_add(d, -c, b);
}

static kac_status check(const kac_build *b, bool sde) {
    const kac_schedule *sch = b->sch;
    if (sch->predict_noise && b->l->sigma[b->l->n] == 0.0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "algorithm_type dpmsolver needs final_sigmas_type \"sigma_min\"");
    if (sch->predict_noise && sde && sch->solver_order > 2)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "algorithm_type sde-dpmsolver has solver_order 1 and 2; set it to 2");
    if (sch->predict_noise && sch->prediction == KAC_PREDICT_FLOW)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "a flow model takes algorithm_type dpmsolver++ or sde-dpmsolver++");
    return KAC_OK;
}

/* ---- multistep ---- */

static int multistep_order(const kac_build *b, int i) {
    const kac_schedule *sch = b->sch;
    const int n = b->l->n, n_known = i - b->first + 1;
    const bool few = sch->lower_order_final && n < 15;
    int order = KAC_MIN(sch->solver_order, n_known);
    if (i == n - 1 && (sch->euler_at_final || few || !sch->final_sigma_min)) order = 1;
    if (i == n - 2 && few) order = KAC_MIN(order, 2);
    return order;
}

kac_status kac_rows_dpm(kac_build *b) {
    b->s->init_noise_sigma = 1.0;
    KAC_TRY(check(b, b->s->kind == KAC_SOLVER_DPMPP_2M_SDE));
    if (b->sch->thresholding) kac_solver_set_clip(b);
    for (int i = b->first; i < b->l->n; i++) {
        const kac_level from = kac_level_at(b, i), to = kac_level_at(b, i + 1);
        const double h = to.lambda - from.lambda;
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, b->l->timestep[i], from.alpha, from.sigma));
        const weights w = weights_of(b, from, to);
        const kac_sum m0 = kac_row_data(b, r, &eps, b->sch->predict_noise), m1 = kac_sum_past(0), m2 = kac_sum_past(1);
        const int order = multistep_order(b, i);
        kac_sum d0 = {0}, d1 = {0};
        r->next.x = w.x, r->z = w.z;
        kac_sum_add(&r->next, w.d0, &m0);
        if (order > 1) {
            const double r0 = (from.lambda - kac_level_at(b, i - 1).lambda) / h;
            add_difference(&d0, 1.0 / r0, &m0, &m1);
            if (order == 2) kac_sum_add(&r->next, b->sch->heun ? w.d1 : 0.5 * w.d0, &d0);
            if (order == 3) {
                const double r1 = (kac_level_at(b, i - 1).lambda - kac_level_at(b, i - 2).lambda) / h;
                add_difference(&d1, 1.0 / r1, &m1, &m2);
                kac_sum first = d0, second = {0};
                add_difference(&second, 1.0 / (r0 + r1), &d0, &d1);
                kac_sum_add(&first, r0, &second);
                kac_sum_add(&r->next, w.d1, &first);
                kac_sum_add(&r->next, w.d2, &second);
            }
        }
        r->past[0] = m0;
        r->past[1] = m1;
    }
    return KAC_OK;
}

/* ---- singlestep ---- */

/* Orders go 1, 2, 3, 1, 2, 3, …: each row goes on from where the last one of order 1 began, knowing more. */
static int singlestep_order(const kac_build *b, int i) {
    const kac_schedule *sch = b->sch;
    const int n = b->l->n, order = sch->solver_order;
    const bool zero = !sch->final_sigma_min, lower = sch->lower_order_final || n % order != 0 || zero;
    if (i == n - 1 && zero) return 1;
    if (lower && order == 3 && n % 3 == 0 && i == n - 1) return 1;
    if (lower && order == 2 && n % 2 == 0 && i == n - 1) return 1;
    return i % order + 1;
}

kac_status kac_rows_dpm_single(kac_build *b) {
    enum { STATE, M1, M2 };
    const bool noise = b->sch->predict_noise, sde = b->s->kind == KAC_SOLVER_DPMPP_2S_SDE;
    b->s->init_noise_sigma = 1.0;
    KAC_TRY(check(b, sde));
    if (noise && sde)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "singlestep has algorithm_type sde-dpmsolver++, no sde-dpmsolver");
    if (b->sch->thresholding) kac_solver_set_clip(b);
    for (int i = b->first; i < b->l->n; i++) {
        const kac_level at = kac_level_at(b, i), to = kac_level_at(b, i + 1);
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, b->l->timestep[i], at.alpha, at.sigma));
        const kac_sum x = {.x = 1.0}, m0 = kac_row_data(b, r, &eps, noise), m1 = kac_sum_past(M1),
                      m2 = kac_sum_past(M2);
        const int order = KAC_MIN(singlestep_order(b, i), i - b->first + 1);
        const kac_level from = kac_level_at(b, i - order + 1);
        const weights w = weights_of(b, from, to);
        const double h = to.lambda - from.lambda, r0 = (at.lambda - from.lambda) / h;
        const kac_sum state = order == 1 ? x : kac_sum_past(STATE), begin = order == 1 ? m0 : order == 2 ? m1 : m2;
        kac_sum d = {0};
        r->z = w.z;
        kac_sum_add(&r->next, w.x, &state);
        kac_sum_add(&r->next, w.d0, &begin);
        if (order > 1) add_difference(&d, 1.0 / r0, &m0, &begin);
        if (order == 2) kac_sum_add(&r->next, b->sch->heun ? w.d1 : 0.5 * w.d0, &d);
        if (order == 3 && !b->sch->heun) kac_sum_add(&r->next, w.d1, &d);
        if (order == 3 && b->sch->heun) {
            const double r1 = (kac_level_at(b, i - 1).lambda - from.lambda) / h;
            kac_sum near = {0}, first = {0}, second = {0};
            add_difference(&near, 1.0 / r1, &m1, &m2);
            kac_sum_add(&first, r0 / (r0 - r1), &near);
            kac_sum_add(&first, -r1 / (r0 - r1), &d);
            add_difference(&second, 2.0 / (r0 - r1), &d, &near);
            kac_sum_add(&r->next, w.d1, &first);
            kac_sum_add(&r->next, w.d2, &second);
        }
        r->past[STATE] = state;
        r->past[M1] = m0;
        r->past[M2] = m1;
    }
    return KAC_OK;
}
