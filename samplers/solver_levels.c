/* Which timesteps and noise levels the steps visit, with each reference class's own rounding. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

double kac_ratio_at(const kac_schedule *sch, int t) {
    const double bar = sch->zero_snr && t == sch->n_train - 1 ? 0x1p-24 : sch->alphas_cumprod[t];
    const float value = (float)bar;
    return (double)sqrtf((1.0f - value) / value);
}

static double ratio_between(const kac_schedule *sch, double t) {
    const int i = KAC_MIN((int)t, sch->n_train - 1), next = KAC_MIN(i + 1, sch->n_train - 1);
    return kac_ratio_at(sch, i) + (t - i) * (kac_ratio_at(sch, next) - kac_ratio_at(sch, i));
}

void kac_levels_by_spacing(kac_levels *l, const kac_schedule *sch, bool rounded) {
    const int n = l->n, stride = sch->n_train / n;
    const double ratio = (double)sch->n_train / n,
                 step = (sch->n_train - ratio) - sch->n_train; /* as numpy.arange counts */
    for (int i = 0; i < n; i++) {
        double t = 0.0;
        if (sch->spacing == KAC_SPACING_LEADING)
            t = (double)(n - 1 - i) * stride + sch->steps_offset;
        else if (sch->spacing == KAC_SPACING_TRAILING)
            t = rint(sch->n_train + i * step) - 1.0;
        else if (n > 1)
            t = i == 0 ? sch->n_train - 1.0 : (n - 1 - i) * ((sch->n_train - 1.0) / (n - 1));
        l->timestep[i] = rounded ? rint(t) : (double)(float)t;
    }
}

void kac_levels_dpm(kac_levels *l, const kac_schedule *sch) {
    if (sch->sigmas == KAC_SIGMAS_FLOW) return; /* timesteps follow from the levels */
    const int n = l->n;
    int last = sch->n_train; /* training steps whose log SNR is above the clip */
    while (last > 0) {
        const double bar = kac_ratio_at(sch, last - 1);
        if (-log(bar) >= sch->lambda_min_clipped) break;
        last--;
    }
    const double ratio = (double)sch->n_train / n, step = (last - ratio) - last;
    /* Trailing from a clipped end has room for fewer steps. Sigmas that are spread on their own replace these timesteps. */
    if (sch->spacing == KAC_SPACING_TRAILING && sch->sigmas == KAC_SIGMAS_PLAIN)
        l->n = KAC_MAX(KAC_MIN((int)ceil(last / ratio), n), 1);
    for (int i = 0; i < l->n; i++) {
        if (sch->spacing == KAC_SPACING_LEADING)
            l->timestep[i] = (double)(n - i) * (last / (n + 1)) + sch->steps_offset;
        else if (sch->spacing == KAC_SPACING_TRAILING)
            l->timestep[i] = rint(last + i * step) - 1.0;
        else
            l->timestep[i] = i == 0 ? last - 1.0 : rint((n - i) * ((last - 1.0) / n));
    }
}

/* The table's logarithms are float32 as in the reference: where a timestep is then cut to a whole one, their rounding
 * decides. */
double kac_timestep_of(const kac_schedule *sch, double sigma) {
    const double target = log(fmax(sigma, 1e-10));
    int low = 0;
    for (int i = 0; i < sch->n_train && (double)logf((float)kac_ratio_at(sch, i)) <= target; i++) low = i;
    low = KAC_MAX(KAC_MIN(low, sch->n_train - 2), 0);
    const double a = (double)logf((float)kac_ratio_at(sch, low));
    const double b = (double)logf((float)kac_ratio_at(sch, KAC_MIN(low + 1, sch->n_train - 1)));
    const double w = fmin(fmax((a - target) / (a - b), 0.0), 1.0);
    return (1.0 - w) * low + w * (low + 1);
}

/* Continued fraction of the incomplete beta function (Numerical Recipes' betacf, after Lentz). */
static double beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1.0, d = 1.0 - (a + b) * x / (a + 1.0);
    d = 1.0 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m <= 300; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m));
        d = 1.0 + even * d;
        c = 1.0 + even / c;
        d = 1.0 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        h *= d * c;
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0));
        d = 1.0 + odd * d;
        c = 1.0 + odd / c;
        d = 1.0 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        h *= d * c;
        if (fabs(d * c - 1.0) < 1e-15) break;
    }
    return h;
}

static double beta_cdf(double x, double a) { /* both parameters a */
    if (x <= 0.0) return 0.0;
    if (x >= 1.0) return 1.0;
    if (x > 0.5) return 1.0 - beta_cdf(1.0 - x, a);
    const double front = exp(lgamma(2 * a) - 2 * lgamma(a) + a * (log(x) + log1p(-x)));
    return front * beta_fraction(a, a, x) / a;
}

static double beta_quantile(double p, double a) {
    if (p <= 0.0 || p >= 1.0) return p <= 0.0 ? 0.0 : 1.0;
    double low = 0.0, high = 1.0;
    for (int i = 0; i < 80; i++) {
        const double middle = 0.5 * (low + high);
        if (beta_cdf(middle, a) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

double kac_sigma_spread(kac_sigmas kind, double ramp, double low, double high) {
    const double rho = 7.0;
    switch (kind) {
    case KAC_SIGMAS_KARRAS:
        return pow(pow(high, 1.0 / rho) + ramp * (pow(low, 1.0 / rho) - pow(high, 1.0 / rho)), rho);
    case KAC_SIGMAS_BETA:
        return low + beta_quantile(1.0 - ramp, 0.6) * (high - low);
    case KAC_SIGMAS_LU: { /* even in log sigma, from the table's logarithms */
        const double top = (double)logf((float)high);
        return exp(top + ramp * ((double)logf((float)low) - top));
    }
    default: /* exponential: even in log sigma */
        return exp(log(high) + ramp * (log(low) - log(high)));
    }
}

static kac_status spread_all(kac_levels *l, const kac_schedule *sch, double low, double high) {
    if (sch->sigma_min > 0.0) low = sch->sigma_min;
    if (sch->sigma_max > 0.0) high = sch->sigma_max;
    if (!(low > 0.0 && low <= high))
        return KAC_FAIL(KAC_E_FORMAT, "sigma_min %g and sigma_max %g must be positive and in this order", low, high);
    for (int i = 0; i < l->n; i++) {
        l->sigma[i] = kac_sigma_spread(sch->sigmas, l->n > 1 ? (double)i / (l->n - 1) : 0.0, low, high);
        l->timestep[i] = kac_timestep_of(sch, l->sigma[i]);
    }
    return KAC_OK;
}

/* Levels are stored in float32 by the reference, and states have been scaled by them. */
static void finish(kac_levels *l, double last) {
    l->sigma[l->n] = last;
    for (int i = 0; i <= l->n; i++) l->sigma[i] = (double)(float)l->sigma[i];
}

kac_status kac_levels_sigmas_euler(kac_levels *l, const kac_schedule *sch, kac_solver_kind kind) {
    for (int i = 0; i < l->n; i++) l->sigma[i] = ratio_between(sch, l->timestep[i]);
    double after = -1.0;
    if (sch->log_linear) {
        const double high = log(kac_ratio_at(sch, sch->n_train - 1)), low = log(kac_ratio_at(sch, 0));
        for (int i = 0; i < l->n; i++) l->sigma[i] = exp(high + (low - high) * i / l->n);
        after = exp(low); /* the reference spreads one more level than there are steps */
    }
    if (sch->sigmas != KAC_SIGMAS_PLAIN) {
        KAC_TRY(spread_all(l, sch, after > 0.0 ? after : l->sigma[l->n - 1], l->sigma[0]));
        after = -1.0;
        const bool whole =
            (kind == KAC_SOLVER_DPM2 || kind == KAC_SOLVER_DPM2_ANCESTRAL) && sch->sigmas == KAC_SIGMAS_KARRAS;
        for (int i = 0; whole && i < l->n; i++) l->timestep[i] = rint(l->timestep[i]);
    }
    finish(l, after > 0.0 ? after : sch->final_sigma_min ? kac_ratio_at(sch, 0) : 0.0);
    for (int i = 0; i < l->n; i++) {
        if (sch->continuous && sch->prediction == KAC_PREDICT_V) l->timestep[i] = 0.25 * log(l->sigma[i]);
        l->timestep[i] = (double)(float)l->timestep[i];
    }
    return KAC_OK;
}

/* s' = shift s / (1 + (shift − 1) s), the shift given or by mu. */
static double shifted(const kac_schedule *sch, double mu, double sigma) {
    const double shift = !sch->dynamic_shift ? sch->flow_shift : sch->linear_time_shift ? mu : exp(mu);
    return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

/* Levels stretched away from 1 so that the last of them is the schedule's terminal one. */
static void stretch(kac_levels *l, const kac_schedule *sch) {
    if (sch->shift_terminal <= 0.0) return;
    const double scale = (1.0 - l->sigma[l->n - 1]) / (1.0 - sch->shift_terminal);
    for (int i = 0; i < l->n && scale > 0.0; i++) l->sigma[i] = 1.0 - (1.0 - l->sigma[i]) / scale;
}

static void flow_sigmas_dpm(kac_levels *l, const kac_schedule *sch, bool unipc, double mu) {
    const double step = (1.0 - 1.0 / sch->n_train) / l->n;
    for (int i = 0; i < l->n; i++) l->sigma[i] = shifted(sch, mu, unipc ? 1.0 - i * step : (l->n - i) * step);
    if (unipc) stretch(l, sch);
    if (unipc && fabs(l->sigma[0] - 1.0) < 1e-6) l->sigma[0] -= 1e-6; /* at 1 nothing is left of the sample */
    for (int i = 0; i < l->n; i++) l->timestep[i] = l->sigma[i] * sch->n_train;
}

/* Where the last step goes: to 0, or to what each class takes for the smallest level. */
static double last_level(const kac_levels *l, const kac_schedule *sch, kac_solver_kind kind) {
    const bool deis = kind == KAC_SOLVER_DEIS, unipc = kind == KAC_SOLVER_UNIPC;
    if (!deis && !sch->final_sigma_min) return 0.0;
    return (deis || unipc) && sch->sigmas != KAC_SIGMAS_PLAIN ? l->sigma[l->n - 1] : kac_ratio_at(sch, 0);
}

kac_status kac_levels_sigmas_dpm(kac_levels *l, const kac_schedule *sch, kac_solver_kind kind, double mu) {
    if ((sch->prediction == KAC_PREDICT_FLOW) != (sch->sigmas == KAC_SIGMAS_FLOW))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "flow_prediction and use_flow_sigmas only go together");
    if (sch->sigmas == KAC_SIGMAS_FLOW) {
        flow_sigmas_dpm(l, sch, kind == KAC_SOLVER_UNIPC, mu);
    } else if (sch->sigmas == KAC_SIGMAS_PLAIN) {
        for (int i = 0; i < l->n; i++) l->sigma[i] = ratio_between(sch, l->timestep[i]);
    } else {
        KAC_TRY(spread_all(l, sch, kac_ratio_at(sch, 0), kac_ratio_at(sch, sch->n_train - 1)));
        const bool multistep = kind == KAC_SOLVER_DPMPP_2M || kind == KAC_SOLVER_DPMPP_2M_SDE;
        const bool whole =
            (sch->sigmas == KAC_SIGMAS_KARRAS || sch->sigmas == KAC_SIGMAS_LU) && !(multistep && sch->cosine);
        for (int i = 0; whole && i < l->n; i++) l->timestep[i] = rint(l->timestep[i]);
    }
    for (int i = 0; i < l->n; i++) l->timestep[i] = trunc(l->timestep[i]);
    finish(l, last_level(l, sch, kind));
    return KAC_OK;
}

kac_status kac_levels_distilled(kac_levels *l, const kac_schedule *sch, double strength) {
    const int n_all = sch->original_inference_steps, stride = sch->n_train / n_all;
    const int n_origin = strength > 0.0 ? (int)(n_all * strength) : n_all;
    if (l->n > n_origin)
        return KAC_FAIL(KAC_E_USAGE, "%d steps asked; this model was distilled at %d (original_inference_steps)%s",
                        l->n, n_origin, n_origin < n_all ? " up to this strength" : "");
    const double step = (double)n_origin / l->n;
    for (int i = 0; i < l->n; i++) l->timestep[i] = (double)(n_origin - (int)floor(i * step)) * stride - 1.0;
    return KAC_OK;
}

kac_status kac_levels_flow(kac_levels *l, const kac_schedule *sch, const kac_solver_options *o, kac_solver_kind kind) {
    const int n = l->n;
    const float n_train = (float)sch->n_train, shift = (float)sch->flow_shift;
    float low = 1.0f / n_train; /* the table's smallest level, shifted already: the shift acts on it twice */
    if (!sch->dynamic_shift) low = shift * low / (1.0f + (shift - 1.0f) * low);
    const double top = sch->n_train, bottom = (double)low * sch->n_train;
    for (int i = 0; i < n; i++) {
        double t = n > 1 ? top + i * ((bottom - top) / (n - 1)) : top;
        if (i == n - 1 && n > 1) t = bottom;
        if (o->timesteps != NULL) t = (double)(float)o->timesteps[i];
        l->sigma[i] = shifted(sch, o->mu, o->sigmas != NULL ? (double)(float)o->sigmas[i] : t / sch->n_train);
    }
    if (kind != KAC_SOLVER_FLOW_HEUN) {
        stretch(l, sch);
        const bool spread = sch->sigmas != KAC_SIGMAS_FLOW && sch->sigmas != KAC_SIGMAS_PLAIN;
        const double first = sch->sigma_max > 0.0 ? sch->sigma_max : l->sigma[0],
                     last = sch->sigma_min > 0.0 ? sch->sigma_min : l->sigma[n - 1];
        for (int i = 0; spread && i < n; i++)
            l->sigma[i] = kac_sigma_spread(sch->sigmas, n > 1 ? (double)i / (n - 1) : 0.0, last, first);
    }
    finish(l, 0.0);
    for (int i = 0; i < n; i++)
        l->timestep[i] = o->timesteps != NULL ? o->timesteps[i] : (double)((float)l->sigma[i] * n_train);
    for (int i = 0; i < n; i++)
        if (!(l->sigma[i] > l->sigma[i + 1] && l->sigma[i] <= 1.0))
            return KAC_FAIL(KAC_E_USAGE, "flow noise levels must fall from at most 1 to above 0; %g is followed by %g",
                            l->sigma[i], l->sigma[i + 1]);
    return KAC_OK;
}
