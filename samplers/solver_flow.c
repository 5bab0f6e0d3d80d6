/* Flow matching: Euler, its stochastic variant (each step predicts x_0 and noises it again) and Heun. The state is
 * (1 − sigma) x_0 + sigma · noise, the network's output its slope by sigma. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

kac_status kac_rows_flow(kac_build *b) {
    enum { STATE, SLOPE };
    const kac_levels *l = b->l;
    const bool heun = b->s->kind == KAC_SOLVER_FLOW_HEUN, noisy = b->s->kind == KAC_SOLVER_FLOW_EULER_SDE;
    b->s->init_noise_sigma = 1.0;
    for (int i = b->first; i < l->n; i++) {
        const double sigma = l->sigma[i], next = l->sigma[i + 1];
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add(&r, &eps, b, l->timestep[i], 1.0 - sigma, sigma));
        if (noisy) {
            r->next.x0 = 1.0 - next;
            r->z = next;
            continue;
        }
        r->next = (kac_sum){.x = 1.0, .out = next - sigma};
        if (!heun || i == l->n - 1) continue;
        r->past[STATE].x = 1.0;
        r->past[SLOPE].out = 1.0;
        KAC_TRY(kac_row_add(&r, &eps, b, l->timestep[i + 1], 1.0 - next, next));
        r->next = kac_sum_past(STATE);
        r->next.past[SLOPE] = 0.5 * (next - sigma);
        r->next.out = 0.5 * (next - sigma);
    }
    return KAC_OK;
}
