/* PNDM (Liu et al. 2022): four steps' worth of pseudo Runge–Kutta, then linear multistep; or, without that start, PLMS
 * whose first step is taken twice. One row per network call. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

enum { SAVED, LAST, LAST2, LAST3, TOTAL }; /* past[]: the step's first state, outputs newest first, sum of a step's */

typedef struct plan {
    kac_build *b;
    double *timestep; /* [n] in sampling order, n_prk of them of the start */
    int n, n_prk, stride;
    int n_outputs; /* known of the last outputs */
} plan;

/* From `sample` at timestep t to t_next by the combined output m (eq. 11). */
static kac_status transfer(const plan *p, kac_solver_row *r, kac_sum sample, int t, int t_next, kac_sum m) {
    const kac_schedule *sch = p->b->sch;
    if (t < 0 || t >= sch->n_train || t_next >= sch->n_train)
        return KAC_FAIL(KAC_E_USAGE, "%d steps of pndm reach timestep %d; the schedule has 0 … %d; use fewer steps",
                        p->b->l->n, KAC_MAX(t, t_next), sch->n_train - 1);
    const double a = sch->alphas_cumprod[t];
    const double next = t_next >= 0             ? sch->alphas_cumprod[t_next]
                        : sch->set_alpha_to_one ? 1.0
                                                : sch->alphas_cumprod[0];
    const double denominator = a * sqrt(1.0 - next) + sqrt(a * (1.0 - a) * next);
    kac_sum eps = {0};
    if (sch->prediction == KAC_PREDICT_V) {
        kac_sum_add(&eps, sqrt(a), &m);
        kac_sum_add(&eps, sqrt(1.0 - a), &sample);
    } else {
        eps = m;
    }
    kac_sum_add(&r->next, sqrt(next / a), &sample);
    kac_sum_add(&r->next, -(next - a) / denominator, &eps);
    return KAC_OK;
}

static void keep_outputs(plan *p, kac_solver_row *r, bool add) {
    r->past[LAST] = add ? (kac_sum){.out = 1.0} : kac_sum_past(LAST);
    r->past[LAST2] = kac_sum_past(add ? LAST : LAST2);
    r->past[LAST3] = kac_sum_past(add ? LAST2 : LAST3);
    p->n_outputs += add;
}

static kac_status runge_kutta(plan *p, kac_solver_row *r, int i) {
    static const double weight[4] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    const kac_sum x = {.x = 1.0}, out = {.out = 1.0}, saved = i % 4 == 0 ? x : kac_sum_past(SAVED);
    kac_sum total = i % 4 == 0 ? (kac_sum){0} : kac_sum_past(TOTAL);
    kac_sum_add(&total, weight[i % 4], &out);
    keep_outputs(p, r, i % 4 == 0);
    r->past[SAVED] = saved;
    r->past[TOTAL] = total;
    const int t_next = (int)p->timestep[i] - (i % 2 ? 0 : p->stride / 2);
    return transfer(p, r, saved, (int)p->timestep[i / 4 * 4], t_next, i % 4 == 3 ? total : out);
}

/* i counts the rows of this run: its second one takes the first step again. */
static kac_status multistep(plan *p, kac_solver_row *r, int i, int t) {
    static const double weight[4][4] = {
        {1.0}, {3.0 / 2, -1.0 / 2}, {23.0 / 12, -16.0 / 12, 5.0 / 12}, {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}};
    const kac_sum x = {.x = 1.0}, out = {.out = 1.0}, last = kac_sum_past(LAST);
    const bool again = i == 1;
    kac_sum m = {0}, sample = x;
    if (again) {
        kac_sum_add(&m, 0.5, &out);
        kac_sum_add(&m, 0.5, &last);
        sample = kac_sum_past(SAVED);
        KAC_TRY(transfer(p, r, sample, t + p->stride, t, m));
    } else {
        const int n = KAC_MIN(p->n_outputs, 3);
        m.out = weight[n][0];
        for (int j = 0; j < n; j++) m.past[LAST + j] = weight[n][j + 1];
        KAC_TRY(transfer(p, r, sample, t, t - p->stride, m));
    }
    keep_outputs(p, r, !again);
    r->past[SAVED] = i == 0 ? x : (kac_sum){0};
    return KAC_OK;
}

/* The reference's two lists, in sampling order; l->timestep falls. */
static void list_timesteps(plan *p) {
    const double *t = p->b->l->timestep;
    const int n = p->b->l->n;
    if (p->b->sch->skip_prk_steps) {
        for (int i = 0; i < n; i++) {
            if (i == 1) p->timestep[p->n++] = t[1];
            p->timestep[p->n++] = t[i];
        }
        return;
    }
    const int half = p->stride / 2;
    for (int i = 0; i < 3; i++) { /* t, half a step, half a step, a whole one, for three steps */
        p->timestep[p->n++] = t[i];
        p->timestep[p->n++] = t[i + 1] + half;
        p->timestep[p->n++] = t[i + 1] + half;
        p->timestep[p->n++] = t[i + 1];
    }
    p->n_prk = p->n;
    for (int i = 3; i < n; i++) p->timestep[p->n++] = t[i];
}

static kac_status add_rows(plan *p) {
    for (int i = p->b->first; i < p->n; i++) {
        const double t = p->timestep[i];
        if (t < 0.0 || t >= p->b->sch->n_train)
            return KAC_FAIL(KAC_E_USAGE, "%d steps of pndm reach timestep %g; use fewer steps", p->b->l->n, t);
        const double bar = p->b->sch->alphas_cumprod[(int)t];
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, p->b, t, sqrt(bar), sqrt(1.0 - bar)));
        if (i < p->n_prk)
            KAC_TRY(runge_kutta(p, r, i));
        else
            KAC_TRY(multistep(p, r, p->n_prk + i - p->b->first, (int)t));
    }
    return KAC_OK;
}

kac_status kac_rows_pndm(kac_build *b) {
    if (b->sch->prediction != KAC_PREDICT_EPSILON && b->sch->prediction != KAC_PREDICT_V)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "pndm takes models with prediction_type epsilon or v_prediction only");
    if (!b->sch->skip_prk_steps && b->l->n < 4)
        return KAC_FAIL(KAC_E_USAGE, "pndm with its Runge–Kutta start takes at least 4 steps, not %d", b->l->n);
    if (!b->sch->skip_prk_steps && b->first > 0)
        return KAC_FAIL(KAC_E_USAGE,
                        "pndm with its Runge–Kutta start cannot begin at a partly noised sample; use ddim");
    plan p = {.b = b, .stride = b->sch->n_train / b->l->n};
    p.timestep = kac_alloc((size_t)kac_rows_room(b->l->n) * sizeof *p.timestep);
    if (p.timestep == NULL) return KAC_E_MEMORY;
    list_timesteps(&p);
    const kac_status status = add_rows(&p);
    kac_free(p.timestep);
    return status;
}
