/* The preconditioned Crank-Nicolson Langevin proposal (Cotter et al. 2013) for a density N(x; 0, I) exp(φ(x)):
 *
 *     x' = ρ x + √(1 − ρ²) (z + √ε / 2 · ∇φ(x)),   z ~ N(0, I),   ρ = (1 − ε/4) / (1 + ε/4)
 *
 * Accepted with the probability min(1, exp(log ratio)) it keeps the density; with m = √ε / 2 · ∇φ the Gaussian parts cancel but for
 *
 *     log ratio = φ' − φ + (m'·(x − ρ x') − m·(x' − ρ x)) / √(1 − ρ²) − (|m'|² − |m|²) / 2 */
#ifndef KAC_SAMPLERS_PCNL_H
#define KAC_SAMPLERS_PCNL_H

#include <stdint.h>

/* next [n], which holds z, becomes x'. slope = ∇φ(x). epsilon > 0. */
void kac_pcnl_propose(float *next, const float *x, const float *slope, int64_t n, double epsilon);

/* phi, slope: of x; phi_next, slope_next: of x' = next. */
double kac_pcnl_log_ratio(const float *x, const float *slope, double phi, const float *next, const float *slope_next,
                          double phi_next, int64_t n, double epsilon);

#endif
