/* Vectors of one instruction set, in compiler extensions: the same source is compiled once per set with another width.
 * Included by the files of src/cpu/isa only. */
#ifndef KAC_CPU_VEC_H
#define KAC_CPU_VEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(KAC_ISA_avx2) || defined(KAC_ISA_avx512)
#include <immintrin.h>
#endif

#if defined(KAC_ISA_avx512) || defined(KAC_ISA_wide)
#define KAC_VB 64
#elif defined(KAC_ISA_avx2)
#define KAC_VB 32
#else
#define KAC_VB 16
#endif
#define V (KAC_VB / 4) /* floats of a vector */

typedef float vf __attribute__((vector_size(KAC_VB)));
typedef int32_t vi __attribute__((vector_size(KAC_VB)));
typedef uint32_t vu __attribute__((vector_size(KAC_VB)));
typedef uint16_t vh __attribute__((vector_size(KAC_VB / 2)));
typedef float vf_mem __attribute__((vector_size(KAC_VB), aligned(4), may_alias));
typedef uint16_t vh_mem __attribute__((vector_size(KAC_VB / 2), aligned(2), may_alias));

#define KAC_INLINE inline __attribute__((always_inline))
#define KAC_CAT_(a, b) a##b
#define KAC_CAT(a, b) KAC_CAT_(a, b)
#define kac_isa(name) KAC_CAT(KAC_CAT(name, _), KAC_ISA) /* exported symbols carry the set's name */

static KAC_INLINE vf v_load(const float *p) {
    return *(const vf_mem *)p;
}
static KAC_INLINE void v_store(float *p, vf x) {
    *(vf_mem *)p = x;
}
static KAC_INLINE vf v_set(float x) {
    return x - (vf){0};
}

/* The first n < V lanes, the others 0. */
static KAC_INLINE vf v_load_n(const float *p, int n) {
    float t[V] = {0};
    for (int i = 0; i < n; i++) t[i] = p[i];
    return v_load(t);
}
static KAC_INLINE void v_store_n(float *p, vf x, int n) {
    float t[V];
    v_store(t, x);
    for (int i = 0; i < n; i++) p[i] = t[i];
}

/* bf16: the upper half of an f32; rounding to nearest even, NaN stays NaN. */
static KAC_INLINE vf v_from_bf16(vh h) {
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
static KAC_INLINE vh v_to_bf16(vf x) {
    const vu u = (vu)x;
    const vu nan = (vu)(x != x);
    const vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return __builtin_convertvector((rounded & ~nan) | (((u >> 16) | 0x40u) & nan), vh);
}

/* Activations of either type; `bf16` is a constant where it matters. i counts elements. */
static KAC_INLINE vf x_load(const void *p, int64_t i, int bf16) {
    if (bf16) return v_from_bf16(*(const vh_mem *)((const uint16_t *)p + i));
    return v_load((const float *)p + i);
}
static KAC_INLINE void x_store(void *p, int64_t i, vf x, int bf16) {
    if (bf16)
        *(vh_mem *)((uint16_t *)p + i) = v_to_bf16(x);
    else
        v_store((float *)p + i, x);
}
static KAC_INLINE vf x_load_n(const void *p, int64_t i, int n, int bf16) {
    if (!bf16) return v_load_n((const float *)p + i, n);
    uint16_t t[V] = {0};
    for (int j = 0; j < n; j++) t[j] = ((const uint16_t *)p)[i + j];
    return v_from_bf16(*(const vh_mem *)t);
}
static KAC_INLINE void x_store_n(void *p, int64_t i, vf x, int n, int bf16) {
    if (!bf16) {
        v_store_n((float *)p + i, x, n);
        return;
    }
    uint16_t t[V];
    *(vh_mem *)t = v_to_bf16(x);
    for (int j = 0; j < n; j++) ((uint16_t *)p)[i + j] = t[j];
}

static KAC_INLINE vf v_select(vi mask, vf a, vf b) {
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}
/* b where a is NaN or both are equal; a NaN in b stays. */
static KAC_INLINE vf v_max(vf a, vf b) {
#if defined(KAC_ISA_avx512)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(KAC_ISA_avx2)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return v_select(a > b, a, b);
#endif
}
static KAC_INLINE vf v_min(vf a, vf b) {
#if defined(KAC_ISA_avx512)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(KAC_ISA_avx2)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return v_select(a < b, a, b);
#endif
}
static KAC_INLINE vf v_abs(vf a) {
    return (vf)((vi)a & 0x7fffffff);
}
static KAC_INLINE vf v_copysign(vf a, vf sign) {
    return (vf)(((vi)a & 0x7fffffff) | ((vi)sign & (int32_t)0x80000000));
}

/* Lanes added in a fixed tree. */
static KAC_INLINE float v_sum(vf x) {
    float t[V];
    v_store(t, x);
    for (int n = V / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) t[i] += t[i + n];
    return t[0];
}
static KAC_INLINE float v_max_lane(vf x) {
    float t[V];
    v_store(t, x);
    float m = t[0];
    for (int i = 1; i < V; i++) m = t[i] > m ? t[i] : m;
    return m;
}

/* e^x, ~1 ulp; saturates at e^-87.3 and e^88.7; NaN stays. Cody-Waite reduction, Cephes' polynomial. */
static KAC_INLINE vf v_exp(vf x) {
    const vf t = v_min(v_set(88.7f), v_max(v_set(-87.3f), x));
    const vf magic = v_set(12582912.0f); /* 1.5 · 2^23: adding it rounds to an integer */
    const vf shifted = t * 1.44269504f + magic;
    const vf n = shifted - magic;
    vf r = t - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = v_set(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (vf)((vi)p + ((vi)shifted << 23)); /* the magic's own bits are shifted out */
}

/* erf, within 3.4e-7: a quotient of polynomials on [-4, 4] (Eigen's coefficients), ±1 beyond. */
static KAC_INLINE vf v_erf(vf x) {
    const vf t = v_min(v_set(4.0f), v_max(v_set(-4.0f), x)), z = t * t;
    vf p = z * -2.72614225801306e-10f + 2.77068142495902e-08f;
    p = p * z - 2.10102402082508e-06f;
    p = p * z - 5.69250639462346e-05f;
    p = p * z - 7.34990630326855e-04f;
    p = p * z - 2.95459980854025e-03f;
    p = p * z - 1.60960333262415e-02f;
    vf q = z * -1.45660718464996e-05f - 2.13374055278905e-04f;
    q = q * z - 1.68282697438203e-03f;
    q = q * z - 7.37332916720468e-03f;
    q = q * z - 1.42647390514189e-02f;
    return t * p / q;
}

/* tanh, ~1e-7 relative. Cephes. */
static KAC_INLINE vf v_tanh(vf x) {
    const vf t = v_abs(x), z = x * x;
    vf p = z * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    p = p * z * x + x;
    const vf e = v_exp(t + t);
    const vf big = v_copysign(1.0f - 2.0f / (e + 1.0f), x);
    return v_select(t > 0.625f, big, p);
}

#endif
