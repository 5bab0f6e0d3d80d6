/* Kernels of backward: slopes of activations, norms, softmax. Gradients are f32. */
#include "cpu/isa/act.h"
#include "cpu/isa/table.h"

static KAC_INLINE vf v_slope(vf x, kac_act act) {
    switch (act) {
    case KAC_ACT_NONE:
        return v_set(1.0f);
    case KAC_ACT_SILU: {
        const vf s = 1.0f / (1.0f + v_exp(-x));
        return s * (1.0f + x * (1.0f - s));
    }
    case KAC_ACT_GELU:
        return 0.5f * (1.0f + v_erf(x * 0.707106781f)) + x * 0.398942280f * v_exp(-0.5f * x * x);
    case KAC_ACT_GELU_TANH: {
        const vf t = v_tanh(0.797884561f * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * (0.797884561f + 0.107032201f * x * x);
    }
    case KAC_ACT_QUICK_GELU: {
        const vf s = 1.0f / (1.0f + v_exp(x * -1.702f));
        return s * (1.0f + 1.702f * x * (1.0f - s));
    }
    case KAC_ACT_RELU:
        return v_select(x > 0.0f, v_set(1.0f), v_select(x <= 0.0f, (vf){0}, x));
    case KAC_ACT_TANH: {
        const vf t = v_tanh(x);
        return 1.0f - t * t;
    }
    case KAC_ACT_MISH: {
        const vf e = v_exp(v_min(v_set(20.0f), x)), q = e * (e + 2.0f), t = q / (q + 2.0f);
        return t + x * (1.0f - t * t) * (e / (1.0f + e));
    }
    }
    return v_set(1.0f);
}

static KAC_INLINE vf lanes_load(const void *p, int64_t i, int lanes, const int bf16) {
    return lanes == V ? x_load(p, i, bf16) : x_load_n(p, i, lanes, bf16);
}

static KAC_INLINE void lanes_store(float *p, vf x, int lanes) {
    if (lanes == V)
        v_store(p, x);
    else
        v_store_n(p, x, lanes);
}

static KAC_INLINE vf lanes_only(vf x, int lanes) { /* others 0 */
    if (lanes == V) return x;
    float t[V];
    v_store(t, x);
    return v_load_n(t, lanes);
}

#define LANES(n, i) ((n) - (i) < V ? (int)((n) - (i)) : V)

/* dx (+)= dy · act'(x) */
static KAC_INLINE void act_grad_typed(float *dx, const void *x, const float *dy, int64_t n, const kac_act act,
                                      const int bf16, bool add) {
    for (int64_t i = 0; i < n; i += V) {
        const int lanes = LANES(n, i);
        vf d = lanes_load(dy, i, lanes, 0) * v_slope(lanes_load(x, i, lanes, bf16), act);
        if (add) d += lanes_load(dx, i, lanes, 0);
        lanes_store(dx + i, d, lanes);
    }
}

void kac_isa(kac_act_grad_run)(float *dx, const void *x, const float *dy, int64_t n, kac_act act, bool bf16, bool add) {
    if (bf16)
        act_grad_typed(dx, x, dy, n, act, 1, add);
    else if (act == KAC_ACT_SILU)
        act_grad_typed(dx, x, dy, n, KAC_ACT_SILU, 0, add);
    else
        act_grad_typed(dx, x, dy, n, act, 0, add);
}

/* y = z₁ · gelu(z₂), z [2n] -> dz in its place */
void kac_isa(kac_geglu_grad_run)(float *z, const float *dy, int64_t n) {
    for (int64_t i = 0; i < n; i += V) {
        const int lanes = LANES(n, i);
        const vf a = lanes_load(z, i, lanes, 0), b = lanes_load(z, n + i, lanes, 0), d = lanes_load(dy, i, lanes, 0);
        lanes_store(z + i, d * v_act(b, KAC_ACT_GELU), lanes);
        lanes_store(z + n + i, d * a * v_slope(b, KAC_ACT_GELU), lanes);
    }
}

/* to += by · from */
void kac_isa(kac_add_run)(float *to, const float *from, int64_t n, float by) {
    for (int64_t i = 0; i < n; i += V) {
        const int lanes = LANES(n, i);
        lanes_store(to + i, lanes_load(to, i, lanes, 0) + by * lanes_load(from, i, lanes, 0), lanes);
    }
}

/* sum[j] += Σ over rows */
void kac_isa(kac_column_sums_run)(float *sum, const float *x, int64_t ldx, int64_t rows, int64_t n) {
    for (int64_t j = 0; j < n; j += V) {
        const int lanes = LANES(n, j);
        vf s = {0};
        for (int64_t r = 0; r < rows; r++) s += lanes_load(x + r * ldx, j, lanes, 0);
        lanes_store(sum + j, lanes_load(sum, j, lanes, 0) + s, lanes);
    }
}

/* ---- norms ---- */

/* dz through the activation, of z = (x − center) · scale + shift */
static KAC_INLINE vf norm_dz(const kac_norm_grad *g, vf off, int64_t at, int64_t c, int lanes, const kac_act act) {
    const vf dy = lanes_load(g->dy, at, lanes, 0);
    if (act == KAC_ACT_NONE) return dy;
    vf z = off * lanes_load(g->scale, c, lanes, 0);
    if (g->shift) z += lanes_load(g->shift, c, lanes, 0);
    return dy * v_slope(z, act);
}

static KAC_INLINE void norm_sums_typed(const kac_norm_grad *g, float *sum, const kac_act act, const int bf16) {
    for (int64_t c = 0; c < g->n; c += V) {
        const int lanes = LANES(g->n, c);
        const vf center = lanes_load(g->center, c, lanes, 0);
        vf s = {0}, q = {0};
        for (int64_t r = 0; r < g->rows; r++) {
            const vf off = lanes_load(g->x, r * g->n + c, lanes, bf16) - center;
            const vf dz = norm_dz(g, off, r * g->n + c, c, lanes, act);
            s += dz;
            q += dz * off;
        }
        lanes_store(sum + c, s, lanes);
        lanes_store(sum + g->n + c, q, lanes);
    }
}

/* sum[c] = Σ dz, sum[n + c] = Σ dz · (x − center) */
void kac_isa(kac_norm_grad_sums_run)(const kac_norm_grad *g, float *sum) {
    if (g->bf16)
        norm_sums_typed(g, sum, g->act, 1);
    else if (g->act == KAC_ACT_SILU)
        norm_sums_typed(g, sum, KAC_ACT_SILU, 0);
    else
        norm_sums_typed(g, sum, g->act, 0);
}

static KAC_INLINE void norm_apply_typed(const kac_norm_grad *g, const kac_act act, const int bf16) {
    for (int64_t r = 0; r < g->rows; r++)
        for (int64_t c = 0; c < g->n; c += V) {
            const int lanes = LANES(g->n, c);
            const int64_t at = r * g->n + c;
            const vf off = lanes_load(g->x, at, lanes, bf16) - lanes_load(g->center, c, lanes, 0);
            const vf dz = norm_dz(g, off, at, c, lanes, act);
            const vf d = dz * lanes_load(g->scale, c, lanes, 0) - lanes_load(g->by_mean, c, lanes, 0) -
                         off * lanes_load(g->by_along, c, lanes, 0);
            lanes_store(g->dx + at, lanes_load(g->dx, at, lanes, 0) + d, lanes);
        }
}

/* dx += dz · scale − by_mean − (x − center) · by_along */
void kac_isa(kac_norm_grad_apply_run)(const kac_norm_grad *g) {
    if (g->bf16)
        norm_apply_typed(g, g->act, 1);
    else if (g->act == KAC_ACT_SILU)
        norm_apply_typed(g, KAC_ACT_SILU, 0);
    else
        norm_apply_typed(g, g->act, 0);
}

/* One row: dx += (dy γ − mean(dy γ) − x̂ · mean(dy γ x̂)) / deviation. hat [n] is left behind for dγ. */
static KAC_INLINE void layer_row(float *dx, const void *x, const float *dy, int64_t at, int64_t n, const float *gamma,
                                 float eps, float *hat, const int bf16) {
    const vf pivot = v_set(x_load_n(x, at, 1, bf16)[0]);
    vf s = {0}, q = {0};
    for (int64_t c = 0; c < n; c += V) {
        const int lanes = LANES(n, c);
        const vf d = lanes_only(lanes_load(x, at + c, lanes, bf16) - pivot, lanes);
        s += d;
        lanes_store(hat + c, d, lanes);
    }
    const vf mean = v_set(v_sum(s) / (float)n);
    for (int64_t c = 0; c < n; c += V) {
        const int lanes = LANES(n, c);
        const vf d = lanes_only(lanes_load(hat, c, lanes, 0) - mean, lanes);
        q += d * d;
        lanes_store(hat + c, d, lanes);
    }
    const vf by = v_set(1.0f / __builtin_sqrtf(v_sum(q) / (float)n + eps));
    vf total = {0}, along = {0};
    for (int64_t c = 0; c < n; c += V) {
        const int lanes = LANES(n, c);
        const vf h = lanes_load(hat, c, lanes, 0) * by;
        vf d = lanes_load(dy, at + c, lanes, 0);
        if (gamma) d *= lanes_load(gamma, c, lanes, 0);
        total += d;
        along += d * h;
        lanes_store(hat + c, h, lanes);
    }
    if (dx == NULL) return;
    const vf m = v_set(v_sum(total) / (float)n), a = v_set(v_sum(along) / (float)n);
    for (int64_t c = 0; c < n; c += V) {
        const int lanes = LANES(n, c);
        vf d = lanes_load(dy, at + c, lanes, 0);
        if (gamma) d *= lanes_load(gamma, c, lanes, 0);
        d = by * (d - m - lanes_load(hat, c, lanes, 0) * a);
        lanes_store(dx + at + c, lanes_load(dx, at + c, lanes, 0) + d, lanes);
    }
}

/* dx may be NULL; sum [2n], when wanted: += Σ dy x̂, += Σ dy. */
void kac_isa(kac_layer_norm_grad_run)(float *dx, const void *x, const float *dy, int64_t rows, int64_t n,
                                      const float *gamma, float eps, bool bf16, float *hat, float *sum) {
    for (int64_t r = 0; r < rows; r++) {
        if (bf16)
            layer_row(dx, x, dy, r * n, n, gamma, eps, hat, 1);
        else
            layer_row(dx, x, dy, r * n, n, gamma, eps, hat, 0);
        for (int64_t c = 0; c < n && sum != NULL; c += V) {
            const int lanes = LANES(n, c);
            const vf d = lanes_load(dy, r * n + c, lanes, 0), h = lanes_load(hat, c, lanes, 0);
            lanes_store(sum + c, lanes_load(sum, c, lanes, 0) + d * h, lanes);
            lanes_store(sum + n + c, lanes_load(sum, n + c, lanes, 0) + d, lanes);
        }
    }
}

/* ---- softmax ---- */
/* Rows of dp become ds = scale · p (dp − Σ p dp). */
void kac_isa(kac_softmax_grad_run)(float *dp, const float *p, int64_t ld, int rows, int64_t n, float scale) {
    for (int r = 0; r < rows; r++, dp += ld, p += ld) {
        vf s = {0};
        for (int64_t i = 0; i < n; i += V) {
            const int lanes = LANES(n, i);
            s += lanes_only(lanes_load(dp, i, lanes, 0) * lanes_load(p, i, lanes, 0), lanes);
        }
        const vf mean = v_set(v_sum(s));
        for (int64_t i = 0; i < n; i += V) {
            const int lanes = LANES(n, i);
            lanes_store(dp + i, lanes_load(p, i, lanes, 0) * (lanes_load(dp, i, lanes, 0) - mean) * scale, lanes);
        }
    }
}
