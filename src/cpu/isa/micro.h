/* The microkernel: a tile of MR × NR sums in registers.
 *
 * Twelve (AVX2) or 24 (AVX-512) accumulators hide the latency of fused multiply-add; a column vector of W is read once for all rows
 * of the tile and an element of A is broadcast from where it lies, so that activations need no packing. */
#ifndef KAC_CPU_MICRO_H
#define KAC_CPU_MICRO_H

#include "cpu/isa/vec.h"

#if defined(KAC_ISA_avx512) || defined(KAC_ISA_wide)
#define MR 12
#else
#define MR 6
#endif
#define NV 2
#define NR (NV * V)

/* tile[i][0..nv·V) = Σ over taps and k of rows[tap · MR + i][k0 + k] · b[(tap · ldb + k) · NR + ...]. b in f32 or bf16. */
static KAC_INLINE void micro_sum(const int mr, const int nv, const int bf16, const float *const *rows, int n_taps,
                                 int64_t k0, int64_t n_k, const void *b, int64_t tap_stride, float *restrict tile) {
    vf c[MR][NV];
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) c[i][j] = (vf){0};
    for (int t = 0; t < n_taps; t++) {
        const float *a[MR];
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) a[i] = rows[t * MR + i] + k0;
        const int64_t b0 = t * tap_stride;
#pragma GCC unroll 2
        for (int64_t k = 0; k < n_k; k++) {
            vf w[NV];
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) w[j] = x_load(b, b0 + k * NR + j * V, bf16);
#pragma GCC unroll 16
            for (int i = 0; i < mr; i++) {
                const vf x = v_set(a[i][k]);
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) c[i][j] += x * w[j];
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) v_store(tile + i * NR + j * V, c[i][j]);
}

typedef void micro_fn(const float *const *rows, int n_taps, int64_t k0, int64_t n_k, const void *b, int64_t tap_stride,
                      float *restrict tile);

#endif
