/* Transition densities of a solver's row, as likelihood-ratio methods need them: x' ~ N(mean(x, out), z²), log-densities as means over the
 * state's numbers, as the published codes have them. */
#ifndef KAC_TRAIN_DENSITY_H
#define KAC_TRAIN_DENSITY_H

#include "samplers/solver.h"

/* KAC_E_USAGE: a solver whose next state depends on earlier outputs, which would depend on θ as well. */
kac_status kac_density_check(const kac_solver *s, const char *who);
/* Rows that draw noise; the others, like a last row that ends at x0-hat, say nothing about θ. Writes their numbers; returns how many. */
int kac_density_rows(const kac_solver *s, int *rows);
/* log p(next | x; out) − log p(next | x; other). Exactly 0 for equal outputs. */
double kac_density_log_ratio(const kac_solver *s, int i_row, const float *x, const float *next, const float *out,
                             const float *other, int64_t n);
/* d_out = scale · d log p(next | x; out) / d out. */
void kac_density_slope(const kac_solver *s, int i_row, const float *x, const float *next, const float *out,
                       double scale, float *d_out, int64_t n);

#endif
