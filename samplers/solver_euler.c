/* In the state's own scale x_0 + sigma · noise (Karras et al. 2022; k-diffusion): Euler and Euler ancestral, linear
 * multistep, and the two-call methods Heun, DPM2 (KDPM2) and DPM2 ancestral. No churn. */
#include "base/base.h"
#include "samplers/solver_table.h"
#include <math.h>

/* Noise of an ancestral step: it goes down to sigma `down`, fresh noise of `up` brings it back to `next`. Where a step is
 * large, up is almost next and what is left for down is the reference's float32 rounding; it is followed as long as
 * there is something left. */
static void ancestral(double *up, double *down, double sigma, double next, double eta) {
    const float s = (float)sigma, n = (float)next;
    const float up_f = sqrtf(n * n * (s * s - n * n) / (s * s)), down_f = sqrtf(fmaxf(n * n - up_f * up_f, 0.0f));
    *up = (double)up_f, *down = (double)down_f;
    if (eta == 1.0 && (down_f > 0.0f || next == 0.0)) return;
    const double up2 = next * next * (sigma * sigma - next * next) / (sigma * sigma);
    *up = fmin(eta * sqrt(fmax(up2, 0.0)), next);
    *down = sqrt(fmax(next * next - *up * *up, 0.0));
}

static double noise_share(const kac_build *b) {
    return isnan(b->eta) ? 1.0 : b->eta;
}

kac_status kac_rows_euler(kac_build *b) {
    kac_solver_set_sigma_max(b);
    for (int i = b->first; i < b->l->n; i++) {
        const double sigma = b->l->sigma[i], next = b->l->sigma[i + 1];
        double down = next;
        kac_solver_row *r;
        kac_sum eps;
        KAC_TRY(kac_row_add_sigma(&r, &eps, b, b->l->timestep[i], sigma));
        if (b->s->kind == KAC_SOLVER_EULER_ANCESTRAL) ancestral(&r->z, &down, sigma, next, noise_share(b));
        if (b->sch->prediction == KAC_PREDICT_EPSILON)
            r->next = (kac_sum){.x = 1.0, .out = down - sigma};
        else
            r->next = (kac_sum){.x = down / sigma, .x0 = 1.0 - down / sigma};
    }
    return KAC_OK;
}

/* Integral of the polynomial that is 1 at node k and 0 at the other n − 1, from `from` to `to`. */
static double lagrange_integral(const double *node, int n, int k, double from, double to) {
    double c[4] = {1.0}; /* coefficients in (tau − from), which is the first node */
    int degree = 0;
    for (int j = 0; j < n; j++) {
        if (j == k) continue;
        const double root = node[j] - from, scale = 1.0 / (node[k] - node[j]);
        for (int i = ++degree; i > 0; i--) c[i] = (c[i - 1] - root * c[i]) * scale;
        c[0] *= -root * scale;
    }
    double sum = 0.0, power = 1.0;
    for (int i = 0; i <= degree; i++) sum += c[i] * (power *= to - from) / (i + 1);
    return sum;
}

kac_status kac_rows_lms(kac_build *b) {
    enum { ORDER = 4 };
    kac_solver_set_sigma_max(b);
    for (int i = b->first; i < b->l->n; i++) {
        kac_solver_row *r;
        kac_sum slope;
        KAC_TRY(kac_row_add_sigma(&r, &slope, b, b->l->timestep[i], b->l->sigma[i]));
        /* A run that starts in the middle takes its order from the whole schedule's step, as the reference does, and
         * what is missing counts as nothing. */
        const int n = KAC_MIN(i + 1, ORDER), n_known = KAC_MIN(i - b->first + 1, ORDER);
        double node[ORDER];
        for (int j = 0; j < n; j++) node[j] = b->l->sigma[i - j];
        r->next.x = 1.0;
        for (int j = 0; j < KAC_MIN(n, n_known); j++) {
            const kac_sum past = j == 0 ? slope : kac_sum_past(j - 1);
            kac_sum_add(&r->next, lagrange_integral(node, n, j, b->l->sigma[i], b->l->sigma[i + 1]), &past);
        }
        r->past[0] = slope;
        for (int j = 1; j < ORDER - 1; j++) r->past[j] = kac_sum_past(j - 1);
    }
    return KAC_OK;
}

enum { STATE, SLOPE }; /* past[] between the two calls of a step */

kac_status kac_rows_heun(kac_build *b) {
    const kac_levels *l = b->l;
    if (b->sch->clip_sample) b->s->clip = b->sch->clip_sample_range;
    kac_solver_set_sigma_max(b);
    for (int i = b->first; i < l->n; i++) {
        const double sigma = l->sigma[i], next = l->sigma[i + 1];
        kac_solver_row *r;
        kac_sum slope;
        KAC_TRY(kac_row_add_sigma(&r, &slope, b, l->timestep[i], sigma));
        r->next.x = 1.0;
        kac_sum_add(&r->next, next - sigma, &slope);
        if (i == l->n - 1) break; /* to sigma 0 in one go */
        r->past[STATE].x = 1.0;
        r->past[SLOPE] = slope;
        KAC_TRY(kac_row_add_sigma(&r, &slope, b, l->timestep[i + 1], next));
        r->next = kac_sum_past(STATE);
        r->next.past[SLOPE] = 0.5 * (next - sigma);
        kac_sum_add(&r->next, 0.5 * (next - sigma), &slope);
    }
    return KAC_OK;
}

/* The middle of a step in log sigma, float32 as in the reference. */
static double middle_of(double a, double b) {
    const float low = logf((float)a), high = logf((float)b);
    return (double)expf(low + 0.5f * (high - low));
}

kac_status kac_rows_dpm2(kac_build *b) {
    const kac_levels *l = b->l;
    const bool noisy = b->s->kind == KAC_SOLVER_DPM2_ANCESTRAL;
    if (b->sch->prediction == KAC_PREDICT_SAMPLE)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s takes models with prediction_type epsilon or v_prediction only",
                        kac_solver_name(b->s->kind));
    kac_solver_set_sigma_max(b);
    for (int i = b->first; i < l->n; i++) {
        const double sigma = l->sigma[i];
        double up = 0.0, down = l->sigma[i + 1];
        kac_solver_row *r;
        kac_sum slope;
        KAC_TRY(kac_row_add_sigma(&r, &slope, b, l->timestep[i], sigma));
        r->next.x = 1.0;
        if (i == l->n - 1) { /* to sigma 0 in one go */
            kac_sum_add(&r->next, -sigma, &slope);
            break;
        }
        if (noisy) ancestral(&up, &down, sigma, l->sigma[i + 1], noise_share(b));
        const double middle = middle_of(sigma, down);
        kac_sum_add(&r->next, middle - sigma, &slope);
        r->past[STATE].x = 1.0;
        KAC_TRY(kac_row_add_sigma(&r, &slope, b, kac_timestep_of(b->sch, middle), middle));
        r->next = kac_sum_past(STATE);
        kac_sum_add(&r->next, down - sigma, &slope);
        r->z = up;
    }
    return KAC_OK;
}
