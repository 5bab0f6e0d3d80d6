/* Counter-based randomness: a value is a pure function of (seed, purpose, step, slot, element).
 *
 * Philox4x32-10 (Salmon et al. 2011) with key = seed and counter = {element / 4, slot, step, purpose}. Normals by
 * Box-Muller from correctly rounded operations only, so that every backend gives the same bits. Consequence: particle k
 * of a run does not depend on how many others there are, how they are batched, or on threads. */
#ifndef KAC_RNG_H
#define KAC_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef enum kac_purpose {
    KAC_PURPOSE_INIT = 1,     /* initial noise x_K */
    KAC_PURPOSE_STEP = 2,     /* noise of a reverse step */
    KAC_PURPOSE_RESAMPLE = 3, /* uniforms of a resampling */
    KAC_PURPOSE_SEARCH = 4,   /* proposals of noise search, trees */
    KAC_PURPOSE_DATA = 5,     /* training data, dropout */
    KAC_PURPOSE_TEST = 6,
    KAC_PURPOSE_ENCODE = 7 /* samples of an encoder's distribution */
} kac_purpose;

typedef struct kac_key {
    uint64_t seed;
    uint32_t purpose; /* kac_purpose */
    uint32_t step;
} kac_key;

/* The key under which slot (uint32_t)particle belongs to this particle: the same for numbers below 2^32, another for each high word. */
kac_key kac_key_of_particle(kac_key key, uint64_t particle);

/* out[i] ~ N(0, 1) for elements first … first+n-1 of `slot`. */
void kac_rng_normal(float *out, int64_t n, kac_key key, uint32_t slot, int64_t first);

/* Element `index` of `slot`, uniform on (0, 1), 32 bits of randomness. */
double kac_rng_uniform(kac_key key, uint32_t slot, int64_t index);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
