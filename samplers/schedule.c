#include "samplers/schedule.h"
#include "base/base.h"
#include "samplers/schedule_betas.h"
#include <math.h>

/* torch.linspace in float32: from both ends towards the middle, fused. */
static float linspace_at(double first, double last, int n, int i) {
    const float a = (float)first, b = (float)last, step = n > 1 ? (b - a) / (float)(n - 1) : 0.0f;
    return i < n / 2 ? fmaf(step, (float)i, a) : fmaf(-step, (float)(n - 1 - i), b);
}

static double cosine_alpha_bar(double t) {
    const double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

static double laplace_alpha_bar(double t) {
    const double lambda = -0.5 * copysign(1.0, 0.5 - t) * log(1.0 - 2.0 * fabs(0.5 - t) + 1e-6);
    return sqrt(exp(lambda) / (1.0 + exp(lambda)));
}

static float beta_at(const kac_betas *b, int n, int i) {
    const double t1 = (double)i / n, t2 = (double)(i + 1) / n;
    switch (b->kind) {
    case KAC_BETAS_LINEAR:
        return linspace_at(b->start, b->end, n, i);
    case KAC_BETAS_SCALED_LINEAR: {
        const float root = linspace_at(sqrt(b->start), sqrt(b->end), n, i);
        return root * root;
    }
    case KAC_BETAS_COSINE:
        return (float)KAC_MIN(1.0 - cosine_alpha_bar(t2) / cosine_alpha_bar(t1), 0.999);
    case KAC_BETAS_LAPLACE:
        return (float)KAC_MIN(1.0 - laplace_alpha_bar(t2) / laplace_alpha_bar(t1), 0.999);
    case KAC_BETAS_SIGMOID: {
        const float s = 1.0f / (1.0f + expf(-linspace_at(-6.0, 6.0, n, i)));
        return s * (float)(b->end - b->start) + (float)b->start;
    }
    case KAC_BETAS_TRAINED:
        return (float)b->trained[i];
    }
    return 0.0f;
}

/* Products are accumulated in double and stored rounded, as torch.cumprod does. */
static void cumulative_product(double *out, const float *alphas, int n) {
    double product = 1.0;
    for (int i = 0; i < n; i++) {
        product *= alphas[i];
        out[i] = (double)(float)product;
    }
}

/* Shifts and scales sqrt(alpha-bar) so that the last one is 0 and the first stays (Lin et al. 2023, algorithm 1). */
static void rescale_to_zero_snr(float *alphas, const double *bar, int n) {
    const float first = sqrtf((float)bar[0]), last = sqrtf((float)bar[n - 1]), scale = first / (first - last);
    float before = 1.0f;
    for (int i = 0; i < n; i++) {
        const float root = (sqrtf((float)bar[i]) - last) * scale, square = root * root;
        const float beta = 1.0f - (i == 0 ? square : square / before);
        alphas[i] = 1.0f - beta;
        before = square;
    }
}

kac_status kac_schedule_betas(kac_schedule *s, const kac_betas *b) {
    const int n = s->n_train;
    s->alphas_cumprod = kac_alloc((size_t)n * sizeof(double));
    float *alphas = kac_alloc((size_t)n * sizeof(float));
    if (s->alphas_cumprod == NULL || alphas == NULL) {
        kac_free(alphas);
        return KAC_E_MEMORY;
    }
    for (int i = 0; i < n; i++) alphas[i] = 1.0f - beta_at(b, n, i);
    cumulative_product(s->alphas_cumprod, alphas, n);
    if (s->zero_snr && n > 1) {
        rescale_to_zero_snr(alphas, s->alphas_cumprod, n);
        cumulative_product(s->alphas_cumprod, alphas, n);
    }
    kac_free(alphas);
    for (int i = 0; i < n; i++) {
        const double a = s->alphas_cumprod[i];
        const bool zero_allowed = s->zero_snr && i == n - 1;
        if (!(a < 1.0) || !(a > 0.0 || (zero_allowed && a == 0.0)))
            return KAC_FAIL(KAC_E_FORMAT, "the betas give alpha-bar %g at timestep %d; it must lie between 0 and 1", a,
                            i);
    }
    return KAC_OK;
}

void kac_schedule_free(kac_schedule *s) {
    kac_free(s->alphas_cumprod);
    s->alphas_cumprod = NULL;
}
