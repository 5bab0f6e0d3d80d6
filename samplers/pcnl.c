#include "samplers/pcnl.h"
#include <math.h>

static double rho_of(double epsilon) {
    return (1 - epsilon / 4) / (1 + epsilon / 4);
}

/* √(1 − ρ²), without the cancellation. */
static double rest_of(double epsilon) {
    return sqrt(epsilon) / (1 + epsilon / 4);
}

void kac_pcnl_propose(float *next, const float *x, const float *slope, int64_t n, double epsilon) {
    const double rho = rho_of(epsilon), rest = rest_of(epsilon), half = sqrt(epsilon) / 2;
    for (int64_t i = 0; i < n; i++)
        next[i] = (float)(rho * (double)x[i] + rest * ((double)next[i] + half * (double)slope[i]));
}

double kac_pcnl_log_ratio(const float *x, const float *slope, double phi, const float *next, const float *slope_next,
                          double phi_next, int64_t n, double epsilon) {
    const double rho = rho_of(epsilon), rest = rest_of(epsilon), half = sqrt(epsilon) / 2;
    double along = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        const double m = half * (double)slope[i], m_next = half * (double)slope_next[i];
        along += m_next * ((double)x[i] - rho * (double)next[i]) - m * ((double)next[i] - rho * (double)x[i]);
        squares += m_next * m_next - m * m;
    }
    return phi_next - phi + along / rest - squares / 2;
}
