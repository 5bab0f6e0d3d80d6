/* Resampling: from weights to ancestors. Every scheme gives particle i k·W_i copies in expectation.
 *
 * A particle with at least one copy keeps its own place; further copies fill the places of those that died, in rising order. So
 * counts follow the scheme's law, nothing that survives is moved, and equal weights give the identity for every scheme but
 * multinomial. */
#ifndef KAC_SAMPLERS_RESAMPLE_H
#define KAC_SAMPLERS_RESAMPLE_H

#include <kac/rng.h>
#include <kac/status.h>

typedef enum kac_scheme {
    KAC_RESAMPLE_MULTINOMIAL,
    KAC_RESAMPLE_STRATIFIED,
    KAC_RESAMPLE_SYSTEMATIC, /* one uniform; counts are floor or ceil of k·W */
    KAC_RESAMPLE_RESIDUAL,   /* at least floor(k·W) copies, the rest multinomial */
    KAC_RESAMPLE_SSP /* Srinivasan sampling process (Gerber, Chopin, Whiteley 2019): floor or ceil, and consistent */
} kac_scheme;

#define KAC_RESAMPLE_CHOICES "multinomial|stratified|systematic|residual|ssp" /* in the order of the enum */

kac_scheme kac_scheme_find(const char *name); /* one of KAC_RESAMPLE_CHOICES */

/* ancestors [k] from normalised weights [k]; uniforms are elements 0, 1, … of `group` under `key`. scratch: k doubles; counts: k ints.
 * Weights of 0 are never chosen. */
void kac_draw_ancestors(kac_scheme scheme, const double *weights, int k, kac_key key, uint32_t group, int *ancestors,
                        double *scratch, int *counts);

#endif
