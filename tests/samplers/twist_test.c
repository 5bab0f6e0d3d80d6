/* The optimal twist: when particles are proposed from the tilted mixture itself, weighed by p / q and by the exact value
 * V(x) = log E[exp(lambda r(x_0)) | x], every weight is Z at every step: log Z-hat = log Z to rounding, for any number of particles
 * and any resampling. The sharpest test of log_ratio, its sign, the gathers and the bookkeeping of log Z. */
#include "exact.h"
#include "samplers/gaussian.h"
#include <kac/rng.h>

enum { STEPS = 20, MAX_SLOTS = 64 };

static const double A[2] = {1, 0.5}, centre[2] = {1, 1}, b[2] = {0.2, -0.1},
                    c = 0.3; /* the reward of instance G; A is diagonal */

typedef struct twisted {
    kac_process process;
    kac_gmm prior, target;
    kac_kernel p, q; /* this step's kernels of both */
    double bar[STEPS + 1], lambda;
    double x[MAX_SLOTS][2], ratio[MAX_SLOTS];
    double first[MAX_SLOTS]; /* log p − log q of the start, handed out with the first step's ratio */
    int i_value;             /* step of the states, for V */
} twisted;

/* 8.1 of one component: N(mu, S) exp(lambda r) = exp(log_z) N(mean, cov). */
static double tilt_gaussian(const double *mu, const double *S, double lambda, double *mean, double *cov) {
    const double det = S[0] * S[3] - S[1] * S[2];
    const double inverse[4] = {S[3] / det, -S[1] / det, -S[2] / det, S[0] / det};
    const double P[4] = {inverse[0] + lambda * A[0], inverse[1], inverse[2], inverse[3] + lambda * A[1]};
    const double det_p = P[0] * P[3] - P[1] * P[2];
    const double C[4] = {P[3] / det_p, -P[1] / det_p, -P[2] / det_p, P[0] / det_p};
    double h[2], m[2], prior = 0, posterior = 0, constant = 0;
    for (int i = 0; i < 2; i++)
        h[i] = inverse[2 * i] * mu[0] + inverse[2 * i + 1] * mu[1] + lambda * (A[i] * centre[i] + b[i]);
    for (int i = 0; i < 2; i++) {
        m[i] = C[2 * i] * h[0] + C[2 * i + 1] * h[1];
        prior += mu[i] * (inverse[2 * i] * mu[0] + inverse[2 * i + 1] * mu[1]);
        posterior += h[i] * m[i];
        constant += centre[i] * A[i] * centre[i];
    }
    if (mean != NULL) {
        memcpy(mean, m, sizeof m);
        memcpy(cov, C, sizeof C);
    }
    return -0.5 * log(det * det_p) - 0.5 * prior - 0.5 * lambda * constant + lambda * c + 0.5 * posterior;
}

/* V of a state with alpha-bar `bar`, or lambda r at bar 1. */
static double value(twisted *t, const double *x, int n) {
    if (n == 0) {
        double r = c;
        for (int i = 0; i < 2; i++) r += b[i] * x[i] - 0.5 * A[i] * (x[i] - centre[i]) * (x[i] - centre[i]);
        return t->lambda * r;
    }
    double log_w[3], means[6];
    kac_kernel q;
    kac_kernel_init(&q, 3, 2);
    CHECK_OK(kac_kernel_prepare(&q, &t->prior, t->bar[n], 1.0));
    kac_kernel_posterior(&q, x, log_w, means);
    for (int k = 0; k < 3; k++) log_w[k] += tilt_gaussian(means + 2 * k, q.cov + 4 * k, t->lambda, NULL, NULL);
    kac_kernel_free(&q);
    return kac_log_sum_exp(log_w, 3);
}

static kac_status prepare(twisted *t, int i_step) {
    const int n = STEPS - i_step;
    KAC_TRY(kac_kernel_prepare(&t->p, &t->prior, t->bar[n], t->bar[n - 1]));
    return kac_kernel_prepare(&t->q, &t->target, t->bar[n], t->bar[n - 1]);
}

static kac_status start(kac_process *process, const int *slots, int n) {
    twisted *t = process->self;
    KAC_TRY(prepare(t, 0));
    const kac_key key = {5, KAC_PURPOSE_INIT, 0};
    for (int i = 0; i < n; i++) {
        float z[2];
        double *x = t->x[slots[i]], log_w[3], means[6];
        const double u = kac_rng_uniform(key, (uint32_t)slots[i], 1024);
        int k = 0;
        for (double sum = t->target.w[0]; k < 2 && sum <= u;) sum += t->target.w[++k];
        kac_rng_normal(z, 2, key, (uint32_t)slots[i], 0);
        const double *l = t->q.chol_p + 4 * k, alpha = sqrt(t->bar[STEPS]);
        x[0] = alpha * t->target.mean[2 * k] + l[0] * (double)z[0];
        x[1] = alpha * t->target.mean[2 * k + 1] + l[2] * (double)z[0] + l[3] * (double)z[1];
        t->first[slots[i]] =
            kac_kernel_posterior(&t->p, x, log_w, means) - kac_kernel_posterior(&t->q, x, log_w, means);
    }
    return KAC_OK;
}

static kac_status predict(kac_process *process, int i_step, const int *slots, int n) {
    twisted *t = process->self;
    (void)slots, (void)n;
    t->i_value = i_step;
    return prepare(t, i_step);
}

static kac_status step(kac_process *process, int i_step, const int *from, const int *to, int n) {
    twisted *t = process->self;
    const kac_key key = {5, KAC_PURPOSE_STEP, (uint32_t)i_step};
    for (int i = 0; i < n; i++) {
        float z[2];
        double log_w[3], means[6], base_w[3], base_m[6], next[2];
        const double *x = t->x[from[i]];
        kac_rng_normal(z, 2, key, (uint32_t)to[i], 0);
        kac_kernel_posterior(&t->q, x, log_w, means);
        kac_kernel_posterior(&t->p, x, base_w, base_m);
        kac_kernel_draw(&t->q, x, log_w, means, kac_rng_uniform(key, (uint32_t)to[i], 1024), z, next);
        t->ratio[to[i]] = kac_kernel_log_density(&t->p, x, base_w, base_m, next) -
                          kac_kernel_log_density(&t->q, x, log_w, means, next) +
                          (i_step == 0 ? t->first[from[i]] : 0.0);
        memcpy(t->x[to[i]], next, sizeof next);
    }
    t->i_value = i_step + 1;
    return KAC_OK;
}

static kac_status copy(kac_process *process, const int *from, const int *to, int n) {
    twisted *t = process->self;
    double spare[MAX_SLOTS][2];
    memcpy(spare, t->x, sizeof spare);
    for (int i = 0; i < n; i++) memcpy(t->x[to[i]], spare[from[i]], sizeof spare[0]);
    return KAC_OK;
}

static kac_status log_ratio(kac_process *process, const int *slots, int n, double *out) {
    const twisted *t = process->self;
    for (int i = 0; i < n; i++) out[i] = t->ratio[slots[i]];
    return KAC_OK;
}

static kac_status score(kac_reward *r, kac_process *process, const int *slots, int n, kac_stage stage, double *out) {
    twisted *t = process->self;
    (void)r, (void)stage;
    for (int i = 0; i < n; i++) out[i] = value(t, t->x[slots[i]], STEPS - t->i_value) / t->lambda;
    return KAC_OK;
}

static double make_twisted(twisted *t, double lambda, int n_groups, int k) {
    static const double w[] = {0.5, 0.3, 0.2}, mean[] = {-2, 0, 2, 1, 0, -2.5};
    static const double cov[] = {0.25, 0, 0, 0.25, 0.5, 0.1, 0.1, 0.4, 0.3, 0, 0, 0.8};
    *t = (twisted){.lambda = lambda};
    t->process = (kac_process){.self = t,
                               .n_steps = STEPS,
                               .n_groups = n_groups,
                               .n_per_group = k,
                               .stochastic = true,
                               .start = start,
                               .predict = predict,
                               .step = step,
                               .copy = copy,
                               .log_ratio = log_ratio};
    CHECK_OK(kac_gmm_init(&t->prior, 3, 2));
    CHECK_OK(kac_gmm_init(&t->target, 3, 2));
    CHECK_OK(kac_kernel_init(&t->p, 3, 2));
    CHECK_OK(kac_kernel_init(&t->q, 3, 2));
    memcpy(t->prior.w, w, sizeof w);
    memcpy(t->prior.mean, mean, sizeof mean);
    memcpy(t->prior.cov, cov, sizeof cov);
    double log_z[3];
    for (int i = 0; i < 3; i++)
        log_z[i] =
            log(w[i]) + tilt_gaussian(mean + 2 * i, cov + 4 * i, lambda, t->target.mean + 2 * i, t->target.cov + 4 * i);
    const double all = kac_log_sum_exp(log_z, 3);
    for (int i = 0; i < 3; i++) t->target.w[i] = exp(log_z[i] - all);
    for (int n = 0; n <= STEPS; n++) {
        const double time = (double)n / STEPS;
        t->bar[n] = exp(-2.0 * (0.25 * time + 0.5 * time * time * 11.75));
    }
    return all;
}

static void free_twisted(twisted *t) {
    kac_gmm_free(&t->prior);
    kac_gmm_free(&t->target);
    kac_kernel_free(&t->p);
    kac_kernel_free(&t->q);
}

static void test_twist(const char *method, double lambda, int k, const char *line) {
    static twisted t;
    const double log_z = make_twisted(&t, lambda, 3, k);
    for (int i = 0; i < 2; i++)
        if (exact_answers[i].lambda == lambda) CHECK_NEAR(log_z, exact_answers[i].log_z, 1e-9);
    kac_reward reward = {.name = "value", .score = score};
    kac_particles out = {0};
    char all[128];
    snprintf(all, sizeof all, "lambda=%g %s", lambda, line);
    if (CHECK_OK(exact_run(&out, &t.process, &reward, NULL, method, all, 2)))
        for (int g = 0; g < 3; g++)
            /* svdd chooses a start before the ratio of the start, which comes with the first step: alike but for 1e-4 */
            if (!CHECK_NEAR(out.log_z[g], log_z, strcmp(method, "svdd") == 0 && k > 1 ? 1e-4 : 1e-11)) printf("  k = %d, %s %s\n", k, method, all);
    kac_particles_free(&out);
    free_twisted(&t);
}

int main(void) {
    static const int counts[] = {1, 2, 4, 20};
    for (int i = 0; i < KAC_COUNT_OF(counts); i++) {
        test_twist("fk", 1.0, counts[i], "score-every=1");
        test_twist("fk", 4.0, counts[i], "score-every=1 score-end=19");
        test_twist("fk", 1.0, counts[i], "score-every=1 ess-threshold=1 resampling=multinomial");
        test_twist("fk", 2.5, counts[i], "score-every=3 ess-threshold=1 resampling=multinomial");
        test_twist("fk", 1.0, counts[i], "ess-threshold=0");
        test_twist("best-of-n", 1.0, counts[i], "");
        test_twist("is", 4.0, counts[i], "gradient-scale=0");
        test_twist("tds", 1.0, counts[i], "gradient-scale=0 ess-threshold=0.9 resampling=multinomial");
        test_twist("das", 2.5, counts[i], "gradient-scale=0 tempering=none");
        test_twist("svdd", 1.0, counts[i], "");
        test_twist("svdd", 4.0, counts[i], counts[i] % 2 == 0 ? "candidates=2" : "candidates=1");
    }
    return check_done();
}
