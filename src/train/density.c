#include "train/density.h"
#include <math.h>

kac_status kac_density_check(const kac_solver *s, const char *who) {
    if (s->n_past == 0) return KAC_OK;
    return KAC_FAIL(
        KAC_E_USAGE,
        "%s needs a solver whose steps depend on the present state alone, and %s remembers earlier ones; use "
        "--sampling-method ddim with --eta 1, ddpm, euler-ancestral or flow-euler-sde",
        who, kac_solver_name(s->kind));
}

int kac_density_rows(const kac_solver *s, int *rows) {
    int n = 0;
    for (int i = 0; i < s->n_steps; i++)
        if (s->rows[i].z != 0.0) rows[n++] = i;
    return n;
}

/* next − mean, and d mean / d out. */
static double distance(const kac_solver *s, const kac_solver_row *r, double x, double next, double out, double *slope) {
    double x0 = r->x0_x * x + r->x0_out * out, d_x0 = r->x0_out;
    if (s->clip > 0.0 && fabs(x0) > s->clip) x0 = copysign(s->clip, x0), d_x0 = 0.0;
    *slope = r->next.x0 * d_x0 + r->next.out;
    return next - (r->next.x * x + r->next.x0 * x0 + r->next.out * out);
}

double kac_density_log_ratio(const kac_solver *s, int i_row, const float *x, const float *next, const float *out,
                             const float *other, int64_t n) {
    const kac_solver_row *r = &s->rows[i_row];
    double sum = 0.0, slope;
    for (int64_t i = 0; i < n; i++) {
        const double a = distance(s, r, x[i], next[i], out[i], &slope),
                     b = distance(s, r, x[i], next[i], other[i], &slope);
        sum += (b - a) * (b + a);
    }
    return sum / (2.0 * r->z * r->z * (double)n);
}

void kac_density_slope(const kac_solver *s, int i_row, const float *x, const float *next, const float *out,
                       double scale, float *d_out, int64_t n) {
    const kac_solver_row *r = &s->rows[i_row];
    for (int64_t i = 0; i < n; i++) {
        double slope;
        const double a = distance(s, r, x[i], next[i], out[i], &slope);
        d_out[i] = (float)(scale * a * slope / (r->z * r->z * (double)n));
    }
}
