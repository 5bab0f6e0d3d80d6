/* DDIM (Song et al. 2021, eq. 12 and 16) and DDPM (Ho et al. 2020, eq. 7; posterior of a respaced chain). */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

static void set_clip(kac_solver *s, const kac_schedule *sch) {
    if (sch->thresholding) {
        s->threshold = sch->dynamic_thresholding_ratio;
        s->threshold_max = sch->sample_max_value;
    } else if (sch->clip_sample) {
        s->clip = sch->clip_sample_range;
    }
    s->init_noise_sigma = 1.0;
}

/* 1 − beta of a step. The quotient of two float32 numbers next to 1 says beta to 3 or 4 digits; taking the reference's
 * own rounding gives the reference's digits. */
static double step_alpha(double bar, double next) {
    return (double)(float)(bar / next);
}

static double alpha_bar_at(const kac_schedule *sch, double timestep) {
    return sch->alphas_cumprod[(int)timestep];
}

kac_status kac_rows_ddim(kac_solver *s, const kac_schedule *sch, const kac_levels *l, double eta) {
    set_clip(s, sch);
    const int stride = sch->n_train / l->n;
    for (int i = 0; i < l->n; i++) {
        kac_solver_row *r = &s->rows[i];
        /* The reference steps by a fixed stride, not to the next timestep of its list; they differ for some spacings. */
        int before = (int)l->timestep[i] - stride;
        if (l->own) before = i + 1 < l->n ? (int)l->timestep[i + 1] : -1;
        const double bar = alpha_bar_at(sch, l->timestep[i]);
        const double next = before >= 0             ? alpha_bar_at(sch, before)
                            : sch->set_alpha_to_one ? 1.0
                                                    : sch->alphas_cumprod[0];
        *r = (kac_solver_row){.timestep = l->timestep[i], .c_in = 1.0, .alpha = sqrt(bar), .sigma = sqrt(1.0 - bar)};
        double eps[2];
        KAC_TRY(kac_row_predict(r, eps, sch->prediction));
        const double variance = fmax((1.0 - next) / (1.0 - bar) * (1.0 - step_alpha(bar, next)), 0.0);
        r->z = eta * sqrt(variance);
        const double direction2 = 1.0 - next - r->z * r->z;
        if (direction2 < -1e-6)
            return KAC_FAIL(KAC_E_USAGE,
                            "eta %g adds more noise at timestep %g than the next state holds; use 1 or less", eta,
                            r->timestep);
        const double direction = sqrt(fmax(direction2, 0.0));
        r->x = direction * eps[0];
        r->out = direction * eps[1];
        r->x0 = sqrt(next);
    }
    return KAC_OK;
}

kac_status kac_rows_ddpm(kac_solver *s, const kac_schedule *sch, const kac_levels *l) {
    set_clip(s, sch);
    for (int i = 0; i < l->n; i++) {
        kac_solver_row *r = &s->rows[i];
        const double bar = alpha_bar_at(sch, l->timestep[i]);
        const double next = i + 1 < l->n ? alpha_bar_at(sch, l->timestep[i + 1]) : 1.0;
        *r = (kac_solver_row){.timestep = l->timestep[i], .c_in = 1.0, .alpha = sqrt(bar), .sigma = sqrt(1.0 - bar)};
        double eps[2];
        KAC_TRY(kac_row_predict(r, eps, sch->prediction));
        const double alpha = step_alpha(bar, next), beta = 1.0 - alpha;
        r->x0 = sqrt(next) * beta / (1.0 - bar);
        r->x = sqrt(alpha) * (1.0 - next) / (1.0 - bar);
        const double variance = fmax((1.0 - next) / (1.0 - bar) * beta, 1e-20);
        if (l->timestep[i] > 0.0) r->z = sqrt(sch->variance == KAC_VARIANCE_LARGE ? beta : variance);
    }
    return KAC_OK;
}
