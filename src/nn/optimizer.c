#include "nn/optimizer.h"
#include <math.h>
#include <string.h>

enum {
    PARTS = 64,         /* of the norm: summed apart and then in order, so that threads do not change its bits */
    ALONE_MAX = 1 << 14 /* as many numbers one thread does faster than two */
};

kac_status kac_optimizer_open(kac_optimizer *opt, const kac_optimizer_options *o, const float *values, int64_t n) {
    *opt = (kac_optimizer){.o = *o, .n = n};
    opt->m = kac_alloc((size_t)n * sizeof(float));
    opt->v = kac_alloc((size_t)n * sizeof(float));
    if (o->ema > 0.0) opt->ema = kac_alloc((size_t)n * sizeof(float));
    if (opt->m == NULL || opt->v == NULL || (o->ema > 0.0 && opt->ema == NULL)) {
        kac_optimizer_close(opt);
        return KAC_E_MEMORY;
    }
    if (opt->ema != NULL) memcpy(opt->ema, values, (size_t)n * sizeof(float));
    return KAC_OK;
}

void kac_optimizer_close(kac_optimizer *opt) {
    kac_free(opt->m);
    kac_free(opt->v);
    kac_free(opt->ema);
    *opt = (kac_optimizer){0};
}

static double norm_of(const float *g, int64_t n) {
    double sums[PARTS], sum = 0.0;
    const int64_t part = (n + PARTS - 1) / PARTS;
#pragma omp parallel for schedule(static) if (n > ALONE_MAX)
    for (int p = 0; p < PARTS; p++) {
        double s = 0.0;
        for (int64_t i = p * part; i < KAC_MIN((p + 1) * part, n); i++) s += (double)g[i] * g[i];
        sums[p] = s;
    }
    for (int p = 0; p < PARTS; p++) sum += sums[p];
    return sqrt(sum);
}

/* Of the update that follows `done` others, as get_scheduler of diffusers has it. */
static double rate_factor(const kac_optimizer_options *o, int64_t done) {
    if (done < o->warmup) return (double)done / (double)o->warmup;
    if (o->schedule == KAC_LR_CONSTANT || o->total <= 0) return 1.0;
    const double rest = (double)KAC_MAX(o->total - o->warmup, 1), share = fmin((double)(done - o->warmup) / rest, 1.0);
    return o->schedule == KAC_LR_LINEAR ? 1.0 - share : 0.5 * (1.0 + cos(M_PI * share));
}

kac_status kac_optimizer_step(kac_optimizer *opt, float *values, float *grads, double *norm, double *lr) {
    const kac_optimizer_options *o = &opt->o;
    *norm = norm_of(grads, opt->n);
    if (!isfinite(*norm)) return KAC_FAIL(KAC_E_NONFINITE, "the gradient's norm is %g", *norm);
    *lr = o->lr * rate_factor(o, opt->update);
    opt->update++;
    const double correction1 = 1.0 - pow(o->beta1, (double)opt->update),
                 correction2 = sqrt(1.0 - pow(o->beta2, (double)opt->update));
    const float scale = o->clip > 0.0 ? (float)fmin(o->clip / (*norm + 1e-6), 1.0) : 1.0f;
    const float keep = (float)(1.0 - *lr * o->weight_decay), step = (float)(-*lr / correction1);
    const float share1 = (float)(1.0 - o->beta1), beta2 = (float)o->beta2, share2 = (float)(1.0 - o->beta2);
    const float root2 = (float)correction2, eps = (float)o->eps;
    /* The average of few updates should not hold on to the start. */
    const double decay = fmin(o->ema, (1.0 + (double)opt->update) / (10.0 + (double)opt->update));
    const float follow = (float)(1.0 - decay);
#pragma omp parallel for schedule(static) if (opt->n > ALONE_MAX)
    for (int64_t i = 0; i < opt->n; i++) {
        const float g = grads[i] *= scale;
        opt->m[i] += share1 * (g - opt->m[i]);
        opt->v[i] = opt->v[i] * beta2 + share2 * g * g;
        values[i] = values[i] * keep + step * (opt->m[i] / (sqrtf(opt->v[i]) / root2 + eps));
        if (opt->ema != NULL) opt->ema[i] += follow * (values[i] - opt->ema[i]);
    }
    return KAC_OK;
}
