/* Kernels over rows: conversions, activations, norms, softmax, linear combinations. */
#include "cpu/isa/act.h"
#include "cpu/isa/table.h"

void kac_isa(kac_to_f32)(float *out, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    for (; i + V <= n; i += V) v_store(out + i, x_load(x, i, 1));
    if (i < n) v_store_n(out + i, x_load_n(x, i, (int)(n - i), 1), (int)(n - i));
}

void kac_isa(kac_to_bf16)(uint16_t *out, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + V <= n; i += V) x_store(out, i, v_load(x + i), 1);
    if (i < n) x_store_n(out, i, v_load_n(x + i, (int)(n - i)), (int)(n - i), 1);
}

static KAC_INLINE vf row_load(const void *x, int64_t i, int lanes, const int bf16) {
    return lanes == V ? x_load(x, i, bf16) : x_load_n(x, i, lanes, bf16);
}

static KAC_INLINE void row_store(void *out, int64_t i, vf x, int lanes, const int bf16) {
    if (lanes == V)
        x_store(out, i, x, bf16);
    else
        x_store_n(out, i, x, lanes, bf16);
}

/* ---- activations ---- */
static KAC_INLINE void activate_typed(void *out, const void *x, int64_t n, const kac_act act, const int bf16) {
    int64_t i = 0;
    for (; i + V <= n; i += V) x_store(out, i, v_act(x_load(x, i, bf16), act), bf16);
    if (i < n) x_store_n(out, i, v_act(x_load_n(x, i, (int)(n - i), bf16), act), (int)(n - i), bf16);
}

void kac_isa(kac_activate_run)(void *out, const void *x, int64_t n, kac_act act, bool bf16) {
    if (bf16)
        activate_typed(out, x, n, act, 1);
    else
        activate_typed(out, x, n, act, 0);
}

/* x [2n] -> out [n] = x[0..n) · gelu(x[n..2n)) */
void kac_isa(kac_geglu_run)(void *out, const float *x, int64_t n, bool bf16) {
    for (int64_t i = 0; i < n; i += V) {
        const int lanes = n - i < V ? (int)(n - i) : V;
        const vf a = lanes == V ? v_load(x + i) : v_load_n(x + i, lanes);
        const vf b = lanes == V ? v_load(x + n + i) : v_load_n(x + n + i, lanes);
        const vf y = a * v_act(b, KAC_ACT_GELU);
        row_store(out, i, y, lanes, bf16);
    }
}

/* ---- norms ---- */
static KAC_INLINE void sums_typed(float *sum, const void *x, int64_t ldx, int64_t rows, int64_t n, const float *pivot,
                                  const int bf16) {
    int64_t c = 0;
    for (; c + V <= n; c += V) {
        const vf p = v_load(pivot + c);
        vf s = {0}, q = {0};
        for (int64_t r = 0; r < rows; r++) {
            const vf d = x_load(x, r * ldx + c, bf16) - p;
            s += d;
            q += d * d;
        }
        v_store(sum + c, s);
        v_store(sum + n + c, q);
    }
    const int lanes = (int)(n - c);
    if (lanes == 0) return;
    const vf p = v_load_n(pivot + c, lanes);
    vf s = {0}, q = {0};
    for (int64_t r = 0; r < rows; r++) {
        const vf d = x_load_n(x, r * ldx + c, lanes, bf16) - p;
        s += d;
        q += d * d;
    }
    v_store_n(sum + c, s, lanes);
    v_store_n(sum + n + c, q, lanes);
}

void kac_isa(kac_channel_sums)(float *sum, const void *x, int64_t ldx, int64_t rows, int64_t n, const float *pivot,
                               bool bf16) {
    if (bf16)
        sums_typed(sum, x, ldx, rows, n, pivot, 1);
    else
        sums_typed(sum, x, ldx, rows, n, pivot, 0);
}

static KAC_INLINE void scale_shift_typed(void *out, const void *x, int64_t rows, int64_t n, const float *center,
                                         const float *scale, const float *shift, const kac_act act, const int bf16) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < n; c += V) {
            const int lanes = n - c < V ? (int)(n - c) : V;
            vf y = row_load(x, r * n + c, lanes, bf16);
            if (center) y -= row_load(center, c, lanes, 0);
            y *= row_load(scale, c, lanes, 0);
            if (shift) y += row_load(shift, c, lanes, 0);
            row_store(out, r * n + c, v_act(y, act), lanes, bf16);
        }
}

/* out = act((x − center[c]) · scale[c] + shift[c]); center and shift may be NULL; may be in place. */
void kac_isa(kac_scale_shift)(void *out, const void *x, int64_t rows, int64_t n, const float *center,
                              const float *scale, const float *shift, kac_act act, bool bf16) {
    if (bf16)
        scale_shift_typed(out, x, rows, n, center, scale, shift, act, 1);
    else if (act == KAC_ACT_NONE)
        scale_shift_typed(out, x, rows, n, center, scale, shift, KAC_ACT_NONE, 0);
    else if (act == KAC_ACT_SILU)
        scale_shift_typed(out, x, rows, n, center, scale, shift, KAC_ACT_SILU, 0);
    else
        scale_shift_typed(out, x, rows, n, center, scale, shift, act, 0);
}

static KAC_INLINE vf first_lanes(vf x, int lanes) { /* others 0 */
    if (lanes == V) return x;
    float t[V];
    v_store(t, x);
    return v_load_n(t, lanes);
}

static KAC_INLINE void layer_norm_row(void *out, const void *x, int64_t at, int64_t n, const float *gamma,
                                      const float *beta, float eps, const int bf16) {
    const vf pivot = v_set(x_load_n(x, at, 1, bf16)[0]); /* sums of differences: a mean far from 0 costs no digits */
    const int64_t whole = n / V * V;
    const int rest = (int)(n - whole);
    vf s = {0}, q = {0};
    for (int64_t c = 0; c < whole; c += V) s += x_load(x, at + c, bf16) - pivot;
    if (rest) s += first_lanes(x_load_n(x, at + whole, rest, bf16) - pivot, rest);
    const vf mean = pivot + v_sum(s) / (float)n;
    for (int64_t c = 0; c < whole; c += V) {
        const vf d = x_load(x, at + c, bf16) - mean;
        q += d * d;
    }
    if (rest) {
        const vf d = first_lanes(x_load_n(x, at + whole, rest, bf16) - mean, rest);
        q += d * d;
    }
    const vf by = v_set(1.0f / __builtin_sqrtf(v_sum(q) / (float)n + eps));
    for (int64_t c = 0; c < n; c += V) {
        const int lanes = c < whole ? V : rest;
        vf y = (row_load(x, at + c, lanes, bf16) - mean) * by;
        if (gamma) y *= row_load(gamma, c, lanes, 0);
        if (beta) y += row_load(beta, c, lanes, 0);
        row_store(out, at + c, y, lanes, bf16);
    }
}

void kac_isa(kac_layer_norm_run)(void *out, const void *x, int64_t rows, int64_t n, const float *gamma,
                                 const float *beta, float eps, bool bf16) {
    for (int64_t r = 0; r < rows; r++) {
        if (bf16)
            layer_norm_row(out, x, r * n, n, gamma, beta, eps, 1);
        else
            layer_norm_row(out, x, r * n, n, gamma, beta, eps, 0);
    }
}

/* ---- linear combinations ---- */
/* The roundings are part of the contract: a product, then fused multiply-adds. Nothing may merge the first product with what
 * follows. Sets without fused multiply-add leave the slot empty. */
#if defined(KAC_ISA_avx2) || defined(KAC_ISA_avx512)
void kac_isa(kac_lincomb_run)(void *out, int n_terms, const void *const *x, const bool *x_bf16, const float *coef,
                              int64_t n, bool out_bf16) {
    for (int64_t i = 0; i < n; i += V) {
        const int lanes = n - i < V ? (int)(n - i) : V;
        vf y = row_load(x[0], i, lanes, x_bf16[0]) * coef[0];
        __asm__("" : "+x"(y));
        for (int t = 1; t < n_terms; t++) y += row_load(x[t], i, lanes, x_bf16[t]) * coef[t];
        row_store(out, i, y, lanes, out_bf16);
    }
}

#endif

/* ---- softmax of attention ---- */
/* One row: max, then e^(s·scale − max) in place and its sum; keys from n on become 0. */
static KAC_INLINE void softmax_row(const kac_softmax_block *b, int row, int n) {
    float *s = b->s + row * b->lds;
    const vf low = v_set(-__builtin_inff());
    vf top = low;
    int i = 0;
    for (; i + V <= n; i += V) top = v_max(top, v_load(s + i));
    float block_max = v_max_lane(top);
    for (int j = i; j < n; j++) block_max = s[j] > block_max ? s[j] : block_max;
    const float old = b->max[row], now = KAC_MAX(old, block_max * b->scale);
    vf sum = {0};
    for (i = 0; i + V <= n; i += V) {
        const vf e = v_exp(v_load(s + i) * b->scale - now);
        sum += e;
        v_store(s + i, e);
    }
    if (i < n) {
        const vf e = first_lanes(v_exp(v_load_n(s + i, n - i) * b->scale - now), n - i);
        sum += e;
        v_store_n(s + i, e, n - i);
    }
    for (i = n; i < b->n_keys; i++) s[i] = 0;
    const vf shrink = v_exp(v_set(old - now));
    b->shrink[row] = shrink[0];
    b->max[row] = now;
    b->sum[row] = b->sum[row] * shrink[0] + v_sum(sum);
}

void kac_isa(kac_softmax_block_run)(const kac_softmax_block *b) {
    for (int row = 0; row < b->rows; row++) {
        const int64_t n = b->causal ? KAC_MIN(b->n_keys, b->n_visible + row) : b->n_keys;
        if (n > 0) {
            softmax_row(b, row, (int)n);
        } else { /* nothing of this block is visible */
            memset(b->s + row * b->lds, 0, (size_t)b->n_keys * sizeof(float));
            b->shrink[row] = 1;
        }
    }
}

void kac_isa(kac_scale_rows)(float *x, int64_t ld, int rows, int64_t n, const float *by) {
    for (int r = 0; r < rows; r++, x += ld) {
        if (by[r] == 1.0f) continue;
        int64_t c = 0;
        for (; c + V <= n; c += V) v_store(x + c, v_load(x + c) * by[r]);
        for (; c < n; c++) x[c] *= by[r];
    }
}

/* out[c, r] = x[r, c], in blocks that fit the first-level cache. */
void kac_isa(kac_transpose)(float *out, int64_t ldo, const float *x, int64_t ldx, int64_t rows, int64_t cols) {
    enum { B = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += B)
        for (int64_t c0 = 0; c0 < cols; c0 += B)
            for (int64_t c = c0; c < KAC_MIN(cols, c0 + B); c++)
                for (int64_t r = r0; r < KAC_MIN(rows, r0 + B); r++) out[c * ldo + r] = x[r * ldx + c];
}
