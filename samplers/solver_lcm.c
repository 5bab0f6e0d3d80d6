/* Consistency samplers: LCM (Luo et al. 2023, algorithm 3) and TCD (Zheng et al. 2024, algorithm 4; gamma is eta). */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

kac_status kac_rows_lcm(kac_build *b) {
    const double *bar = b->sch->alphas_cumprod;
    kac_solver_set_clip(b);
    for (int i = b->first; i < b->l->n; i++) {
        const int t = (int)b->l->timestep[i];
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, t, sqrt(bar[t]), sqrt(1.0 - bar[t])));
        const double scaled = t * b->sch->timestep_scaling, data = 0.5, norm2 = scaled * scaled + data * data;
        r->next = (kac_sum){.x = data * data / norm2, .x0 = scaled / sqrt(norm2)};
        if (i == b->l->n - 1) break;
        const double next = bar[(int)b->l->timestep[i + 1]];
        r->next.x *= sqrt(next), r->next.x0 *= sqrt(next);
        r->z = sqrt(1.0 - next);
    }
    return KAC_OK;
}

kac_status kac_rows_tcd(kac_build *b) {
    const double *bar = b->sch->alphas_cumprod, eta = isnan(b->eta) ? 0.3 : b->eta;
    if (eta > 1.0) return KAC_FAIL(KAC_E_USAGE, "eta is %g; tcd takes 0 to 1", eta);
    for (int i = b->first; i < b->l->n; i++) {
        const bool last = i == b->l->n - 1;
        const int t = (int)b->l->timestep[i], t_next = last ? 0 : (int)b->l->timestep[i + 1];
        const int t_clean = (int)floorf((float)(1.0 - eta) * (float)t_next); /* float32 as in the reference */
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, t, sqrt(bar[t]), sqrt(1.0 - bar[t])));
        r->next.x0 = sqrt(bar[t_clean]);
        kac_sum_add(&r->next, sqrt(1.0 - bar[t_clean]), &eps);
        if (last || eta == 0.0) continue;
        const double share = bar[t_next] / bar[t_clean];
        const kac_sum clean = r->next;
        r->next = (kac_sum){0};
        kac_sum_add(&r->next, sqrt(share), &clean);
        r->z = sqrt(fmax(1.0 - share, 0.0));
    }
    return KAC_OK;
}
