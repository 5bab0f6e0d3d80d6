/* Numbers of every dtype, one at a time: bit-exact conversions between f32 and the 16-bit formats, and loads and stores
 * through double. */
#ifndef KAC_CONVERT_H
#define KAC_CONVERT_H

#include "base/base.h"
#include <kac/tensor.h>
#include <math.h>
#include <string.h>

static inline uint32_t kac_f32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float kac_f32_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float kac_bf16_to_f32(uint16_t x) {
    return kac_f32_of_bits((uint32_t)x << 16);
}

/* Round to nearest even; a NaN stays a (quiet) NaN, where adding the rounding bit alone could turn it into infinity. */
static inline uint16_t kac_f32_to_bf16(float x) {
    const uint32_t bits = kac_f32_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float kac_f16_to_f32(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 0x1fu, mantissa = x & 0x3ffu;
    if (exponent == 0x1fu) return kac_f32_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * (float)mantissa * 0x1p-24f;
    return kac_f32_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
}

/* Round to nearest even; above 65504 + 15.99 to infinity; NaN kept. */
static inline uint16_t kac_f32_to_f16(float x) {
    const uint32_t bits = kac_f32_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    /* Below 2^-14 the result is subnormal in steps of 2^-24: exactly the spacing of floats in [0.5, 1). */
    if (magnitude < 0x38800000u)
        return (uint16_t)(sign | (kac_f32_bits(kac_f32_of_bits(magnitude) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

/* double -> bf16 with one rounding: through f32 "to odd", so that the second rounding sees what the first one dropped.
 */
static inline float kac_f64_to_f32_odd(double x) {
    const float y = (float)x;
    if (!isfinite(y) || (double)y == x || (kac_f32_bits(y) & 1u) != 0) return y;
    return kac_f32_of_bits(fabs((double)y) < fabs(x) ? kac_f32_bits(y) + 1u : kac_f32_bits(y) - 1u);
}

static inline double kac_element_load(const void *data, kac_dtype dtype, int64_t i) {
    switch (dtype) {
    case KAC_F32:
        return ((const float *)data)[i];
    case KAC_BF16:
        return kac_bf16_to_f32(((const uint16_t *)data)[i]);
    case KAC_F16:
        return kac_f16_to_f32(((const uint16_t *)data)[i]);
    case KAC_F64:
        return ((const double *)data)[i];
    case KAC_I64:
        return (double)((const int64_t *)data)[i];
    case KAC_I32:
        return ((const int32_t *)data)[i];
    case KAC_I16:
        return ((const int16_t *)data)[i];
    case KAC_I8:
        return ((const int8_t *)data)[i];
    case KAC_U8:
        return ((const uint8_t *)data)[i];
    case KAC_BOOL:
        return ((const uint8_t *)data)[i] != 0;
    case KAC_U16:
        return ((const uint16_t *)data)[i];
    case KAC_U32:
        return ((const uint32_t *)data)[i];
    case KAC_U64:
        return (double)((const uint64_t *)data)[i];
    }
    KAC_ASSERT(!"dtype");
}

/* x cut to an integer in [lo, hi]: towards zero, at the limits outside, 0 for NaN. */
static inline int64_t kac_f64_to_int(double x, double lo, double hi) {
    if (isnan(x)) return 0;
    if (x <= lo) return (int64_t)lo;
    if (x >= hi) return hi >= 0x1p63 ? INT64_MAX : (int64_t)hi;
    return (int64_t)x;
}

static inline uint64_t kac_f64_to_u64(double x) {
    if (!(x > 0)) return 0;
    return x >= 0x1p64 ? UINT64_MAX : (uint64_t)x;
}

static inline void kac_element_store(void *data, kac_dtype dtype, int64_t i, double x) {
    switch (dtype) {
    case KAC_F32:
        ((float *)data)[i] = (float)x;
        return;
    case KAC_BF16:
        ((uint16_t *)data)[i] = kac_f32_to_bf16(kac_f64_to_f32_odd(x));
        return;
    case KAC_F16:
        ((uint16_t *)data)[i] = kac_f32_to_f16(kac_f64_to_f32_odd(x));
        return;
    case KAC_F64:
        ((double *)data)[i] = x;
        return;
    case KAC_I64:
        ((int64_t *)data)[i] = kac_f64_to_int(x, -0x1p63, 0x1p63);
        return;
    case KAC_I32:
        ((int32_t *)data)[i] = (int32_t)kac_f64_to_int(x, INT32_MIN, INT32_MAX);
        return;
    case KAC_I16:
        ((int16_t *)data)[i] = (int16_t)kac_f64_to_int(x, INT16_MIN, INT16_MAX);
        return;
    case KAC_I8:
        ((int8_t *)data)[i] = (int8_t)kac_f64_to_int(x, INT8_MIN, INT8_MAX);
        return;
    case KAC_U8:
        ((uint8_t *)data)[i] = (uint8_t)kac_f64_to_int(x, 0, UINT8_MAX);
        return;
    case KAC_BOOL:
        ((uint8_t *)data)[i] = x != 0;
        return;
    case KAC_U16:
        ((uint16_t *)data)[i] = (uint16_t)kac_f64_to_int(x, 0, UINT16_MAX);
        return;
    case KAC_U32:
        ((uint32_t *)data)[i] = (uint32_t)kac_f64_to_int(x, 0, UINT32_MAX);
        return;
    case KAC_U64:
        ((uint64_t *)data)[i] = kac_f64_to_u64(x);
        return;
    }
    KAC_ASSERT(!"dtype");
}

/* Where element `index`, counted row-major over the first n_axes axes, starts: an offset in elements. */
static inline int64_t kac_element_offset(const kac_tensor *t, int n_axes, int64_t index) {
    int64_t offset = 0;
    for (int axis = n_axes - 1; axis >= 0; axis--) {
        offset += index % t->shape[axis] * t->stride[axis];
        index /= t->shape[axis];
    }
    return offset;
}

#endif
