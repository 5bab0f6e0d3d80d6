/* Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) and normals that agree to the bit
 * between compilers and devices. Every rounding is named: int -> float, fma, multiply, sqrt, all to nearest; no product
 * feeds an addition outside fma, so contraction cannot change anything; no libm function, never compiled with
 * fast-math. */
#ifndef KAC_PHILOX_H
#define KAC_PHILOX_H

#include <kac/rng.h>
#include <math.h>
#include <string.h>

typedef struct kac_philox_block {
    uint32_t v[4];
} kac_philox_block;

static inline kac_philox_block kac_philox_rounds(kac_philox_block c, uint32_t k0, uint32_t k1) {
    for (int i = 0; i < 10; i++) {
        const uint64_t p = (uint64_t)0xD2511F53u * c.v[0], q = (uint64_t)0xCD9E8D57u * c.v[2];
        const kac_philox_block n = {
            {(uint32_t)(q >> 32) ^ c.v[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ c.v[3] ^ k1, (uint32_t)p}};
        c = n, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}

static inline kac_philox_block kac_philox(kac_key key, uint32_t slot, uint32_t block) {
    const kac_philox_block counter = {{block, slot, key.step, key.purpose}};
    return kac_philox_rounds(counter, (uint32_t)key.seed, (uint32_t)(key.seed >> 32));
}

static inline uint32_t kac_float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

static inline float kac_bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

/* ln u for u = (a + 1/2) / 2^32 in (0, 1]: u = 2^e m with m in [0.7071, 1.4142), ln(1+t) = t - t²/2 + t³ p(t). */
static inline float kac_log_u32(uint32_t a) {
    static const float p9[10] = {0x1.555556p-2f,  -0x1.fffff2p-3f, 0x1.9999a8p-3f,  -0x1.555c54p-3f, 0x1.249688p-3f,
                                 -0x1.fdfb82p-4f, 0x1.c41b8cp-4f,  -0x1.b4116ap-4f, 0x1.af581ep-4f,  -0x1.fc06e2p-5f};
    const float u = fmaf((float)a, 0x1p-32f, 0x1p-33f);
    const uint32_t bits = kac_float_bits(u);
    const int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23; /* arithmetic shift: floor */
    const float m = kac_bits_float(bits - ((uint32_t)e << 23)), t = m - 1.0f;
    float p = p9[9];
    for (int i = 8; i >= 0; i--) p = fmaf(p, t, p9[i]);
    const float t2 = t * t;
    return fmaf((float)e, 0x1.62e430p-1f, fmaf(t2 * t, p, fmaf(t2, -0.5f, t)));
}

/* Two normals from two words (Box and Muller 1958): radius from a, angle from b as an exact integer quadrant and rest.
 */
static inline void kac_normal2(uint32_t a, uint32_t b, float *n0, float *n1) {
    const float r2 = -2.0f * kac_log_u32(a), r = sqrtf(r2 > 0.0f ? r2 : 0.0f);
    const uint32_t q = (b + 0x20000000u) >> 30;
    const float x = (float)(int32_t)(b - (q << 30)) * 0x1.921fb6p-30f, z = x * x; /* 2π / 2^32 */
    float s = fmaf(fmaf(fmaf(0x1.71d7b4p-19f, z, -0x1.a013aap-13f), z, 0x1.111110p-7f), z, -0x1.555556p-3f);
    float c = fmaf(fmaf(fmaf(0x1.99eb9cp-16f, z, -0x1.6c0c34p-10f), z, 0x1.55554ap-5f), z, -0.5f);
    s = fmaf(s * z, x, x), c = fmaf(c, z, 1.0f);
    const float cc = (q & 1u) ? s : c, ss = (q & 1u) ? c : s; /* quadrants: (c,s) (−s,c) (−c,−s) (s,−c) */
    *n0 = r * kac_bits_float(kac_float_bits(cc) ^ (((q + 1u) & 2u) << 30));
    *n1 = r * kac_bits_float(kac_float_bits(ss) ^ ((q & 2u) << 30));
}

static inline void kac_philox_normal4(float z[4], kac_key key, uint32_t slot, uint32_t block) {
    const kac_philox_block b = kac_philox(key, slot, block);
    kac_normal2(b.v[0], b.v[1], &z[0], &z[1]);
    kac_normal2(b.v[2], b.v[3], &z[2], &z[3]);
}

#endif
