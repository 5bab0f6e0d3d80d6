#include "ref/ref.h"

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double softplus(double x) {
    return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
}

double kac_ref_act(double x, kac_act act) {
    switch (act) {
    case KAC_ACT_NONE:
        return x;
    case KAC_ACT_SILU:
        return x * sigmoid(x);
    case KAC_ACT_GELU:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case KAC_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case KAC_ACT_QUICK_GELU:
        return x * sigmoid(1.702 * x);
    case KAC_ACT_RELU:
        return x < 0 ? 0 : x; /* NaN stays */
    case KAC_ACT_TANH:
        return tanh(x);
    case KAC_ACT_MISH:
        return x * tanh(softplus(x));
    }
    KAC_ASSERT(!"activation");
}

double kac_ref_act_slope(double x, kac_act act) {
    switch (act) {
    case KAC_ACT_NONE:
        return 1;
    case KAC_ACT_SILU: {
        const double s = sigmoid(x);
        return s * (1 + x * (1 - s));
    }
    case KAC_ACT_GELU: /* Φ(x) + x φ(x) */
        return 0.5 * erfc(-x * 0.70710678118654752440) + x * 0.39894228040143267794 * exp(-0.5 * x * x);
    case KAC_ACT_GELU_TANH: {
        const double t = tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
    }
    case KAC_ACT_QUICK_GELU: {
        const double s = sigmoid(1.702 * x);
        return s * (1 + 1.702 * x * (1 - s));
    }
    case KAC_ACT_RELU:
        return x > 0 ? 1 : x <= 0 ? 0 : x; /* NaN stays */
    case KAC_ACT_TANH: {
        const double t = tanh(x);
        return 1 - t * t;
    }
    case KAC_ACT_MISH: {
        const double t = tanh(softplus(x));
        return t + x * (1 - t * t) * sigmoid(x);
    }
    }
    KAC_ASSERT(!"activation");
}

kac_status kac_ref_activate(kac_ctx *c, const kac_activate_args *a) {
    const int64_t count = kac_tensor_count(a->x);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < count; i++) kac_ref_store(&a->out, i, kac_ref_act(kac_ref_load(&a->x, i), a->act));
    return KAC_OK;
}

kac_status kac_ref_affine(kac_ctx *c, const kac_affine_args *a) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < channels; i++) {
            const double x = kac_ref_load(&a->x, r * channels + i);
            kac_ref_store(&a->out, r * channels + i, x * kac_ref_load(&a->scale, i) + kac_ref_load(&a->shift, i));
        }
    return KAC_OK;
}

kac_status kac_ref_modulate(kac_ctx *c, const kac_modulate_args *a) {
    const int64_t n_images = a->x.shape[0], channels = a->x.shape[a->x.rank - 1];
    const int64_t n_rows = kac_tensor_count(a->x) / (n_images * channels);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++) {
        const int64_t row = a->row_index != NULL ? a->row_index[n] : a->scale.shape[0] == 1 ? 0 : n;
        for (int64_t r = n * n_rows; r < (n + 1) * n_rows; r++)
            for (int64_t i = 0; i < channels; i++) {
                const double scale = kac_ref_load(&a->scale, row * a->scale.stride[0] + i);
                const double shift = kac_ref_load(&a->shift, row * a->shift.stride[0] + i);
                kac_ref_store(&a->out, r * channels + i, kac_ref_load(&a->x, r * channels + i) * (1 + scale) + shift);
            }
    }
    return KAC_OK;
}

kac_status kac_ref_clamp(kac_ctx *c, const kac_clamp_args *a) {
    const int64_t count = kac_tensor_count(a->x);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < count; i++) {
        const double x = kac_ref_load(&a->x, i);
        kac_ref_store(&a->out, i, x < a->lo ? a->lo : x > a->hi ? a->hi : x); /* NaN stays */
    }
    return KAC_OK;
}
