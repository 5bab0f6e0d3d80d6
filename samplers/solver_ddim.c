/* DDIM (Song et al. 2021, eq. 12 and 16) and DDPM (Ho et al. 2020, eq. 7; posterior of a respaced chain; learned
 * variance: Nichol & Dhariwal 2021, eq. 15). */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

/* 1 − beta of a step. The quotient of two float32 numbers next to 1 says beta to 3 or 4 digits; taking the reference's
 * own rounding gives the reference's digits. */
static double step_alpha(double bar, double next) {
    return (double)(float)(bar / next);
}

static double alpha_bar_at(const kac_schedule *sch, double timestep) {
    return sch->alphas_cumprod[(int)timestep];
}

kac_status kac_rows_ddim(kac_build *b) {
    const kac_schedule *sch = b->sch;
    const kac_levels *l = b->l;
    const double eta = isnan(b->eta) ? 0.0 : b->eta;
    kac_solver_set_clip(b);
    const int stride = sch->n_train / l->n;
    for (int i = b->first; i < l->n; i++) {
        /* The reference steps by a fixed stride, not to the next timestep of its list; they differ for some spacings. */
        int before = (int)l->timestep[i] - stride;
        if (l->own) before = i + 1 < l->n ? (int)l->timestep[i + 1] : -1;
        const double bar = alpha_bar_at(sch, l->timestep[i]);
        const double next = before >= 0             ? alpha_bar_at(sch, before)
                            : sch->set_alpha_to_one ? 1.0
                                                    : sch->alphas_cumprod[0];
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, l->timestep[i], sqrt(bar), sqrt(1.0 - bar)));
        const double variance = fmax((1.0 - next) / (1.0 - bar) * (1.0 - step_alpha(bar, next)), 0.0);
        r->z = eta * sqrt(variance);
        const double direction2 = 1.0 - next - r->z * r->z;
        if (direction2 < -1e-6)
            return KAC_FAIL(KAC_E_USAGE,
                            "eta %g adds more noise at timestep %g than the next state holds; use 1 or less", eta,
                            r->timestep);
        r->next.x0 = sqrt(next);
        kac_sum_add(&r->next, sqrt(fmax(direction2, 0.0)), &eps);
    }
    return KAC_OK;
}

kac_status kac_rows_ddpm(kac_build *b) {
    const kac_schedule *sch = b->sch;
    const kac_levels *l = b->l;
    kac_solver_set_clip(b);
    if (sch->variance >= KAC_VARIANCE_LEARNED) b->s->learned = sch->variance;
    for (int i = b->first; i < l->n; i++) {
        const double bar = alpha_bar_at(sch, l->timestep[i]);
        const double next = i + 1 < l->n ? alpha_bar_at(sch, l->timestep[i + 1]) : 1.0;
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, l->timestep[i], sqrt(bar), sqrt(1.0 - bar)));
        const double alpha = step_alpha(bar, next), beta = 1.0 - alpha;
        r->next.x0 = sqrt(next) * beta / (1.0 - bar);
        r->next.x = sqrt(alpha) * (1.0 - next) / (1.0 - bar);
        const double variance = fmax((1.0 - next) / (1.0 - bar) * beta, 1e-20);
        r->log_min = log(variance);
        r->log_max = log(beta);
        if (l->timestep[i] > 0.0) r->z = sqrt(sch->variance == KAC_VARIANCE_LARGE ? beta : variance);
    }
    return KAC_OK;
}
