/* Euler and Euler ancestral (Karras et al. 2022, algorithm 1 without churn; k-diffusion), in the state's own scale x_0
 * + sigma · noise. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

/* eta 0: plain Euler. Otherwise the step goes down to sigma_down and fresh noise of eta · sigma_up brings it back up.
 */
kac_status kac_rows_euler(kac_solver *s, const kac_schedule *sch, const kac_levels *l, double eta) {
    double sigma_max = 0.0;
    for (int i = 0; i < l->n; i++) sigma_max = fmax(sigma_max, l->sigma[i]);
    s->init_noise_sigma = sch->spacing == KAC_SPACING_LEADING ? sqrt(sigma_max * sigma_max + 1.0) : sigma_max;
    for (int i = 0; i < l->n; i++) {
        kac_solver_row *r = &s->rows[i];
        const double sigma = l->sigma[i], next = l->sigma[i + 1];
        *r = (kac_solver_row){.timestep = l->timestep[i], .alpha = 1.0, .sigma = sigma};
        r->c_in = 1.0 / sqrt(sigma * sigma + 1.0);
        double eps[2];
        KAC_TRY(kac_row_predict(r, eps, sch->prediction));
        double down = next;
        if (eta > 0.0) {
            const double up2 = next * next * (sigma * sigma - next * next) / (sigma * sigma);
            const double up = fmin(eta * sqrt(fmax(up2, 0.0)), next);
            r->z = up;
            down = sqrt(fmax(next * next - up * up, 0.0));
        }
        if (sch->prediction == KAC_PREDICT_EPSILON) {
            r->x = 1.0;
            r->out = down - sigma;
        } else {
            r->x = down / sigma;
            r->x0 = 1.0 - down / sigma;
        }
    }
    return KAC_OK;
}
