/* Guidance on exact mixtures: derivatives against finite differences, the density of a shifted step, and what guided samples stand for
 * where that is known: one Gaussian seen through a linear observation (everything stays Gaussian, so the law of the guided chain is a
 * recursion of its mean and covariance, and its distance from the true posterior can be told). */
#include "exact.h"
#include "samplers/gaussian.h"

enum { D = 2 };

/* Writes x into a slot, by way of a saved state. */
static void set_state(kac_process *p, int slot, const double *x) {
    char *state = kac_alloc((size_t)p->state_bytes(p));
    CHECK_OK(p->state_save(p, state));
    memcpy(state + sizeof(uint64_t) + (size_t)slot * D * sizeof *x, x, D * sizeof *x); /* behind a counter */
    CHECK_OK(p->state_load(p, state, (size_t)p->state_bytes(p)));
    kac_free(state);
}

static const double *hat_of(kac_process *p, int i_step, int slot, const double *x) {
    set_state(p, slot, x);
    CHECK_OK(p->predict(p, i_step, &slot, 1));
    return kac_mixture_point(p, slot, KAC_STAGE_PREDICTED);
}

/* pull against (x0-hat(x + h) − x0-hat(x − h)) / 2h. */
static void test_pull(const char *kernel, int i_step) {
    static const double points[][D] = {{0.3, -0.4}, {-1.5, 0.2}, {1.2, 1.7}};
    static const float d_x0[D] = {0.7f, -1.3f};
    kac_mixture *m = exact_mixture(kernel, 1, 1, 2, 3);
    kac_process *p = kac_mixture_process(m);
    const int slots[] = {0, 1};
    CHECK_OK(p->start(p, slots, 2));
    for (int i = 0; i < KAC_COUNT_OF(points); i++) {
        float d_x[D];
        hat_of(p, i_step, 1, points[i]);
        CHECK_OK(p->pull(p, i_step, &slots[1], 1, d_x0, d_x));
        for (int axis = 0; axis < D; axis++) {
            double slope = 0;
            for (int sign = -1; sign <= 1; sign += 2) {
                double x[D] = {points[i][0], points[i][1]};
                x[axis] += sign * 1e-5;
                const double *hat = hat_of(p, i_step, 1, x);
                for (int j = 0; j < D; j++) slope += sign * (double)d_x0[j] * hat[j] / 2e-5;
            }
            CHECK_NEAR((double)d_x[axis], slope, 1e-5 * (1 + fabs(slope)));
        }
    }
    kac_mixture_destroy(m);
}

/* pull_step against differences of the step itself, under one noise. */
static void test_pull_step(double eta, int i_step) {
    static const double points[][D] = {{0.3, -0.4}, {-1.5, 0.2}, {1.2, 1.7}};
    static const float d_next[D] = {0.7f, -1.3f};
    kac_mixture *m = exact_mixture("ddim", eta, 1, 1, 3), *e = exact_mixture("exact", 0, 1, 1, 3);
    kac_process *p = kac_mixture_process(m);
    const int slot = 0;
    float d_x[D];
    CHECK_OK(p->start(p, &slot, 1));
    CHECK_OK(p->pull_step(p, -1, &slot, 1, d_next, d_x));
    CHECK(d_x[0] == d_next[0] && d_x[1] == d_next[1]);
    for (int i = 0; i < KAC_COUNT_OF(points); i++) {
        hat_of(p, i_step, 0, points[i]);
        CHECK_OK(p->pull_step(p, i_step, &slot, 1, d_next, d_x));
        for (int axis = 0; axis < D; axis++) {
            double slope = 0;
            for (int sign = -1; sign <= 1; sign += 2) {
                double x[D] = {points[i][0], points[i][1]};
                x[axis] += sign * 1e-5;
                hat_of(p, i_step, 0, x);
                CHECK_OK(p->step(p, i_step, &slot, &slot, 1));
                const double *next = kac_mixture_point(p, 0, KAC_STAGE_FINAL);
                for (int j = 0; j < D; j++) slope += sign * (double)d_next[j] * next[j] / 2e-5;
            }
            CHECK_NEAR((double)d_x[axis], slope, 1e-5 * (1 + fabs(slope)));
        }
    }
    CHECK(kac_mixture_process(e)->pull_step == NULL);
    kac_mixture_destroy(e);
    kac_mixture_destroy(m);
}

static void test_reward_gradient(void) {
    static const char text[] = "{\"A\": [[1, 0.5], [0.1, 2]], \"a\": [0.3, -1], \"b\": [0.2, -0.1], \"c\": 0.3}";
    static const double x[D] = {0.9, 0.4};
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, text, strlen(text), "R"));
    kac_mixture *m = exact_mixture("exact", 0, 1, 1, 3);
    kac_process *p = kac_mixture_process(m);
    const int slot = 0;
    float d_x[D];
    double value, there, back;
    CHECK_OK(p->start(p, &slot, 1));
    set_state(p, 0, x);
    CHECK_OK(r->grad(r, p, &slot, 1, KAC_STAGE_FINAL, &value, d_x));
    CHECK_OK(r->score(r, p, &slot, 1, KAC_STAGE_FINAL, &there));
    CHECK(value == there);
    for (int axis = 0; axis < D; axis++) {
        double up[D] = {x[0], x[1]}, down[D] = {x[0], x[1]};
        up[axis] += 1e-4, down[axis] -= 1e-4;
        set_state(p, 0, up);
        CHECK_OK(r->score(r, p, &slot, 1, KAC_STAGE_FINAL, &there));
        set_state(p, 0, down);
        CHECK_OK(r->score(r, p, &slot, 1, KAC_STAGE_FINAL, &back));
        CHECK_NEAR((double)d_x[axis], (there - back) / 2e-4, 1e-6);
    }
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* ---- a shifted step moves the draw and knows its density ---- */

static double alpha_bar(int n) {
    const double time = (double)n / EXACT_STEPS;
    return n == 0 ? 1.0 : exp(-2.0 * (0.25 * time + 0.5 * time * time * 11.75));
}

/* log p(to | x) of a step at i_step, written out. */
static double log_density(const kac_mixture *m, bool ddim, double eta, int i_step, const double *x, const double *to) {
    const double a = alpha_bar(EXACT_STEPS - i_step), b = alpha_bar(EXACT_STEPS - i_step - 1);
    static const double w[] = {0.5, 0.3, 0.2}, mean[] = {-2, 0, 2, 1, 0, -2.5};
    static const double cov[] = {0.25, 0, 0, 0.25, 0.5, 0.1, 0.1, 0.4, 0.3, 0, 0, 0.8};
    kac_gmm g;
    kac_kernel q;
    (void)m;
    CHECK_OK(kac_gmm_init(&g, 3, D));
    memcpy(g.w, w, sizeof w), memcpy(g.mean, mean, sizeof mean), memcpy(g.cov, cov, sizeof cov);
    CHECK_OK(kac_kernel_init(&q, 3, D));
    CHECK_OK(kac_kernel_prepare(&q, &g, a, b));
    double log_w[3], means[3 * D], hat[D], log_p = 0;
    kac_kernel_posterior(&q, x, log_w, means);
    kac_kernel_x0_hat(&q, log_w, means, hat);
    if (ddim) {
        const double s = eta * sqrt((1 - b) / (1 - a) * (1 - a / b));
        for (int i = 0; i < D; i++) {
            const double eps = (x[i] - sqrt(a) * hat[i]) / sqrt(1 - a);
            const double off = (to[i] - sqrt(b) * hat[i] - sqrt(1 - b - s * s) * eps) / s;
            log_p -= 0.5 * off * off + log(s);
        }
    } else {
        log_p = kac_kernel_log_density(&q, x, log_w, means, to);
    }
    kac_kernel_free(&q);
    kac_gmm_free(&g);
    return log_p;
}

static void test_shift(const char *kernel, double eta, int i_step) {
    static const float shift[] = {0.11f, -0.07f, 0, 0, -0.3f, 0.2f};
    static const double start[3][D] = {{0.3, -0.4}, {0.2, 0.6}, {-1.2, 0.1}};
    const int slots[] = {0, 1, 2};
    double x[3][D], ratio[3];
    kac_mixture *m = exact_mixture(kernel, eta, 1, 3, 3);
    kac_process *p = kac_mixture_process(m);
    CHECK_OK(p->start(p, slots, 3));
    for (int guided = 0; guided < 2; guided++) {
        for (int i = 0; i < 3; i++) set_state(p, i, start[i]);
        CHECK_OK(p->predict(p, i_step, slots, 3));
        if (guided) CHECK_OK(p->shift(p, i_step, slots, 3, shift));
        CHECK_OK(p->step(p, i_step, slots, slots, 3));
        CHECK_OK(p->log_ratio(p, slots, 3, ratio));
        for (int i = 0; i < 3; i++) {
            const double *to = kac_mixture_point(p, i, KAC_STAGE_FINAL),
                         back[D] = {to[0] - (double)shift[D * i], to[1] - (double)shift[D * i + 1]};
            if (!guided) memcpy(x[i], to, sizeof x[i]);
            if (!guided || i == 1) CHECK(ratio[i] == 0.0);
            if (!guided) continue;
            for (int j = 0; j < D; j++) CHECK_NEAR(to[j], x[i][j] + (double)shift[D * i + j], 1e-12);
            const bool ddim = strcmp(kernel, "ddim") == 0;
            const double want =
                log_density(m, ddim, eta, i_step, start[i], to) - log_density(m, ddim, eta, i_step, start[i], back);
            CHECK_NEAR(ratio[i], want, 1e-6 * (1 + fabs(want)));
        }
    }
    if (i_step + 1 < EXACT_STEPS) { /* forgotten after it */
        CHECK_OK(p->predict(p, i_step + 1, slots, 3));
        CHECK_OK(p->step(p, i_step + 1, slots, slots, 3));
        CHECK_OK(p->log_ratio(p, slots, 3, ratio));
        CHECK(ratio[0] == 0.0 && ratio[2] == 0.0);
    }
    kac_mixture_destroy(m);
}

/* Without noise a shift is taken, but has no density; and copies that were shifted apart are told apart. */
static void test_without_noise(void) {
    static const float shift[] = {0.5f, 0, -0.5f, 0};
    const int slots[] = {0, 1}, from[] = {0}, to[] = {1};
    double ratio[2];
    kac_mixture *m = exact_mixture("ddim", 0, 1, 2, 3);
    kac_process *p = kac_mixture_process(m);
    CHECK_OK(p->start(p, slots, 2));
    CHECK_OK(p->predict(p, 0, slots, 2));
    CHECK_OK(p->copy(p, from, to, 1));
    CHECK_OK(p->shift(p, 0, slots, 2, shift));
    CHECK_OK(p->step(p, 0, slots, slots, 2));
    CHECK_FAILS(p->log_ratio(p, slots, 2, ratio), KAC_E_UNSUPPORTED, "without noise");
    CHECK_OK(p->predict(p, 1, slots, 2));
    const double *a = kac_mixture_point(p, 0, KAC_STAGE_FINAL), *b = kac_mixture_point(p, 1, KAC_STAGE_FINAL);
    CHECK_NEAR(a[0] - b[0], 1.0, 1e-6);
    CHECK(kac_mixture_point(p, 0, KAC_STAGE_PREDICTED)[0] != kac_mixture_point(p, 1, KAC_STAGE_PREDICTED)[0]);
    CHECK(p->deviation(p, 3) == 0.0 && p->gain(p, 3) > 0.0);
    kac_mixture_destroy(m);
}

/* Ancestral DDIM, whose gain is known otherwise: beta / sqrt(1 − beta). The two agree with deviation² as steps get small. */
static void test_gain(void) {
    kac_mixture *m = exact_mixture("ddim", 1, 1, 1, 3), *e = exact_mixture("exact", 1, 1, 1, 3);
    kac_process *p = kac_mixture_process(m), *q = kac_mixture_process(e);
    for (int i = 0; i < EXACT_STEPS; i++) {
        const double beta = 1 - alpha_bar(EXACT_STEPS - i) / alpha_bar(EXACT_STEPS - i - 1);
        CHECK_NEAR(p->gain(p, i), beta / sqrt(1 - beta), 1e-9);
        CHECK_NEAR(q->gain(q, i), beta / sqrt(1 - beta), 1e-9);
        CHECK_NEAR(q->deviation(q, i), p->deviation(p, i), 1e-9);
        if (i > 3 && i < EXACT_STEPS - 4) CHECK(fabs(p->gain(p, i) / pow(p->deviation(p, i), 2) - 1) < 0.8);
    }
    kac_mixture_destroy(m);
    kac_mixture_destroy(e);
}

/* ---- a Gaussian behind a linear observation: y = h x + N(0, 0.25), one number of two unknowns ---- */

static const double prior_mean[D] = {0.5, -1}, prior_cov[D][D] = {{1.2, 0.5}, {0.5, 0.8}}, h[D] = {1, -0.5}, y = 2.2,
                    noise = 0.25;

typedef struct law {
    double mean[D], cov[D][D];
} law;

static kac_mixture *one_gaussian(int n_steps, double eta, int k, double *bar) {
    kac_text t = {0};
    kac_text_add(&t,
                 "{\"_class_name\": \"GaussianMixture\", \"weights\": [1], \"means\": [[0.5, -1]], \"covariances\": "
                 "[[[1.2, 0.5], [0.5, 0.8]]], \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": [");
    for (int n = 1; n <= n_steps; n++) {
        const double time = (double)n / n_steps;
        bar[n] = exp(-0.1 * time - 7 * time * time);
        kac_text_add(&t, "%s%.17g", n > 1 ? ", " : "", bar[n]);
    }
    bar[0] = 1;
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "one", &(kac_mixture_options){1, k, 41, eta}));
    kac_text_free(&t);
    return m;
}

/* r = log p(y | x): A = h h' / noise, b = h y / noise. */
static kac_reward *observation(void) {
    kac_reward *r = NULL;
    char text[512];
    snprintf(text, sizeof text, "{\"A\": [[%.17g, %.17g], [%.17g, %.17g]], \"b\": [%.17g, %.17g], \"c\": %.17g}",
             h[0] * h[0] / noise, h[0] * h[1] / noise, h[1] * h[0] / noise, h[1] * h[1] / noise, h[0] * y / noise,
             h[1] * y / noise, -y * y / (2 * noise) - 0.5 * log(2 * M_PI * noise));
    CHECK_OK(kac_quadratic_parse(&r, text, strlen(text), "y"));
    return r;
}

/* The posterior given y, of which the tilted law is the same thing. */
static law posterior(void) {
    law l;
    double sh[D], v = noise, off = y;
    for (int i = 0; i < D; i++) {
        sh[i] = prior_cov[i][0] * h[0] + prior_cov[i][1] * h[1];
        off -= h[i] * prior_mean[i];
    }
    for (int i = 0; i < D; i++) v += h[i] * sh[i];
    for (int i = 0; i < D; i++) {
        l.mean[i] = prior_mean[i] + sh[i] * off / v;
        for (int j = 0; j < D; j++) l.cov[i][j] = prior_cov[i][j] - sh[i] * sh[j] / v;
    }
    return l;
}

/* x0-hat = mean + G (x − alpha mean), G = alpha S (alpha² S + sigma²)⁻¹ */
static void gain_matrix(double a, double G[D][D]) {
    const double s2 = 1 - a, p = a * prior_cov[0][0] + s2, q = a * prior_cov[0][1], r = a * prior_cov[1][1] + s2,
                 det = p * r - q * q;
    const double inverse[D][D] = {{r / det, -q / det}, {-q / det, p / det}};
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++)
            G[i][j] = sqrt(a) * (prior_cov[i][0] * inverse[0][j] + prior_cov[i][1] * inverse[1][j]);
}

/* The law after one guided DDIM step: x' = wx x + wh x0-hat(x) + f G' (b − A x0-hat(x)) + s z. */
static void step_law(law *l, double a, double b, double eta, bool by_noise, double scale) {
    const double s = eta * sqrt((1 - b) / (1 - a) * (1 - a / b)), rest = sqrt(fmax(1 - b - s * s, 0.0));
    const double wx = rest / sqrt(1 - a), wh = sqrt(b) - rest * sqrt(a) / sqrt(1 - a);
    const double f = scale * (by_noise ? s * s : wh * (1 - a) / sqrt(a));
    double G[D][D], gh[D] = {0}, M[D][D], c[D], next[D], cov[D][D];
    gain_matrix(a, G);
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) gh[i] += G[j][i] * h[j];
    double at0 = 0; /* h x0-hat(0) */
    double hat0[D];
    for (int i = 0; i < D; i++) {
        hat0[i] = prior_mean[i] - sqrt(a) * (G[i][0] * prior_mean[0] + G[i][1] * prior_mean[1]);
        at0 += h[i] * hat0[i];
    }
    for (int i = 0; i < D; i++) {
        c[i] = wh * hat0[i] + f * gh[i] * (y - at0) / noise;
        for (int j = 0; j < D; j++) M[i][j] = (i == j ? wx : 0) + wh * G[i][j] - f * gh[i] * gh[j] / noise;
    }
    for (int i = 0; i < D; i++) next[i] = c[i] + M[i][0] * l->mean[0] + M[i][1] * l->mean[1];
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            cov[i][j] = i == j ? s * s : 0;
            for (int u = 0; u < D; u++)
                for (int v = 0; v < D; v++) cov[i][j] += M[i][u] * l->cov[u][v] * M[j][v];
        }
    memcpy(l->mean, next, sizeof next), memcpy(l->cov, cov, sizeof cov);
}

static law guided_law(int n_steps, const double *bar, double eta, bool by_noise, double scale) {
    law l = {{0, 0}, {{1, 0}, {0, 1}}};
    for (int n = n_steps; n >= 1; n--) step_law(&l, bar[n], bar[n - 1], eta, by_noise, scale);
    return l;
}

static law sampled_law(kac_process *p, int k) {
    law l = {{0}};
    for (int i = 0; i < k; i++) {
        const double *x = kac_mixture_point(p, i, KAC_STAGE_FINAL);
        for (int a = 0; a < D; a++) l.mean[a] += x[a] / k;
    }
    for (int i = 0; i < k; i++) {
        const double *x = kac_mixture_point(p, i, KAC_STAGE_FINAL);
        for (int a = 0; a < D; a++)
            for (int b = 0; b < D; b++) l.cov[a][b] += (x[a] - l.mean[a]) * (x[b] - l.mean[b]) / k;
    }
    return l;
}

/* Runs dps and returns how far its law is from the posterior: error of the mean of h x, ratio of the variances of h x. Where the law is
 * known (`linear`), samples are held to it, and the distance is its own. */
static void run_dps(const char *what, int n_steps, double eta, const char *line, bool linear, double scale, double *off,
                    double *ratio) {
    enum { K = 4000 };
    double bar[1001];
    kac_mixture *m = one_gaussian(n_steps, eta, K, bar);
    kac_process *p = kac_mixture_process(m);
    kac_reward *r = observation();
    kac_particles out = {0};
    CHECK_OK(exact_run(&out, p, r, NULL, "dps", line, 5));
    const law have = sampled_law(p, K), want = guided_law(n_steps, bar, eta, strstr(line, "variance") != NULL, scale),
              truth = posterior();
    const law *told = linear ? &want : &have;
    double variance = 0, true_variance = 0;
    *off = 0;
    for (int i = 0; i < D; i++) {
        *off += h[i] * (told->mean[i] - truth.mean[i]);
        if (linear) CHECK_NEAR(have.mean[i], want.mean[i], 5 * sqrt(want.cov[i][i] / K) + 1e-3);
        for (int j = 0; j < D; j++) {
            variance += h[i] * told->cov[i][j] * h[j];
            true_variance += h[i] * truth.cov[i][j] * h[j];
            if (linear)
                CHECK_NEAR(have.cov[i][j], want.cov[i][j], 7 * sqrt(want.cov[i][i] * want.cov[j][j] / K) + 1e-3);
        }
    }
    *ratio = variance / true_variance;
    printf("  %-34s eta %g, %4d steps: E h x off by %+.4f (posterior deviation %.3f), variance × %.3f\n", what, eta,
           n_steps, *off, sqrt(true_variance), *ratio);
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* What each form does, against the posterior. None is exact: x0-hat stands in for the posterior of x_0. */
static void test_observation(void) {
    double off[4], ratio[4];
    printf("dps, one Gaussian behind a linear observation\n");
    run_dps("score", 25, 1, "lambda=1 gradient-clip=0 gradient-form=score", true, 1, &off[0], &ratio[0]);
    run_dps("score", 100, 1, "lambda=1 gradient-clip=0 gradient-form=score", true, 1, &off[1], &ratio[1]);
    run_dps("score", 400, 1, "lambda=1 gradient-clip=0 gradient-form=score", true, 1, &off[2], &ratio[2]);
    run_dps("score, no noise drawn", 100, 0, "lambda=1 gradient-clip=0 gradient-form=score", true, 1, &off[3],
            &ratio[3]);
    CHECK(off[2] > 0.2 && off[2] < 0.25 && fabs(off[2] - off[1]) < 0.01); /* the bias is not one of finite steps */
    CHECK(off[3] > off[2]);
    run_dps("variance", 25, 1, "lambda=1 gradient-clip=0 gradient-form=variance", true, 1, &off[0], &ratio[0]);
    run_dps("variance", 400, 1, "lambda=1 gradient-clip=0 gradient-form=variance", true, 1, &off[1], &ratio[1]);
    CHECK(fabs(off[1] - off[2]) < 0.02); /* both forms are the same thing in the limit */
    run_dps("score, half the scale", 100, 1, "lambda=1 gradient-clip=0 gradient-scale=0.5", true, 0.5, &off[0],
            &ratio[0]);
    run_dps("not guided", 100, 1, "lambda=1 gradient-clip=0 gradient-scale=0", true, 0, &off[0], &ratio[0]);
    CHECK(fabs(off[0]) > 0.5);
    run_dps("direction, 0.3", 100, 1, "gradient-form=direction gradient-scale=0.3", false, 0, &off[0], &ratio[0]);
    run_dps("score, clipped at 0.2", 100, 1, "lambda=1 gradient-clip=0.2", false, 0, &off[0], &ratio[0]);
    run_dps("score, last half", 100, 1, "lambda=1 gradient-clip=0 gradient-start=0.5", false, 0, &off[0], &ratio[0]);
}

/* ---- after a resampling every particle follows its own gradient, not that of the one whose place it took ---- */

static kac_status (*plain_shift)(kac_process *p, int i_step, const int *slots, int n, const float *shift);
static kac_reward *followed;
static int n_followed;

static kac_status checked_shift(kac_process *p, int i_step, const int *slots, int n, const float *shift) {
    for (int i = 0; i < n; i++) {
        float d_x0[D], d_x[D];
        double value;
        CHECK_OK(followed->grad(followed, p, &slots[i], 1, KAC_STAGE_PREDICTED, &value, d_x0));
        CHECK_OK(p->pull(p, i_step, &slots[i], 1, d_x0, d_x));
        const double a = (double)shift[D * i], b = (double)shift[D * i + 1], u = (double)d_x[0], v = (double)d_x[1];
        const double lengths = sqrt((a * a + b * b) * (u * u + v * v));
        CHECK(fabs(a * v - b * u) <= 1e-4 * lengths && a * u + b * v >= 0);
        n_followed++;
    }
    return plain_shift(p, i_step, slots, n, shift);
}

static void test_follow(const char *method, const char *line) {
    kac_mixture *m = exact_mixture("exact", 0, 2, 32, 3);
    kac_process p = *kac_mixture_process(m);
    kac_particles out = {0};
    followed = exact_reward();
    plain_shift = p.shift;
    p.shift = checked_shift;
    n_followed = 0;
    CHECK_OK(exact_run(&out, &p, followed, NULL, method, line, 1));
    CHECK(n_followed > 32 * 2 * EXACT_STEPS / 2);
    kac_particles_free(&out);
    kac_quadratic_destroy(followed);
    kac_mixture_destroy(m);
}

static void test_refused(void) {
    kac_mixture *m = exact_mixture("exact", 0, 1, 4, 3);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    kac_status (*grad)(kac_reward *, kac_process *, const int *, int, kac_stage, double *, float *) = r->grad;
    r->grad = NULL;
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), r, NULL, "dps", "", 1), KAC_E_UNSUPPORTED,
                "quadratic=R has no");
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "fk", "lambda=1", 1));
    kac_particles_free(&out);
    r->grad = grad;
    kac_process none = *kac_mixture_process(m);
    none.pull = NULL;
    CHECK_FAILS(exact_run(&out, &none, r, NULL, "dps", "", 1), KAC_E_UNSUPPORTED, "process has no gradient");
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), NULL, NULL, "dps", "", 1), KAC_E_USAGE, "needs a reward");
    kac_quadratic_destroy(r);
    static const char text[] = "{\"A\": [[1, 0], [0, 1]], \"c\": 100}";
    CHECK_OK(kac_quadratic_parse(&r, text, strlen(text), "R"));
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), r, NULL, "dps", "gradient-form=residual", 1), KAC_E_USAGE,
                "minus a squared error");
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

int main(void) {
    test_pull("exact", 0);
    test_pull("exact", 19);
    test_pull("ddim", 8);
    test_pull_step(0, 0);
    test_pull_step(1, 9);
    test_pull_step(0.5, 19);
    test_reward_gradient();
    for (int i = 0; i < EXACT_STEPS; i += 6) test_shift("exact", 0, i);
    test_shift("exact", 0, 19);
    for (int i = 0; i < EXACT_STEPS; i += 6) test_shift("ddim", i % 4 == 0 ? 1 : 0.5, i);
    test_without_noise();
    test_gain();
    test_observation();
    test_follow("tds", "lambda=2 resampling=multinomial");
    test_follow("das", "lambda=2 ess-threshold=1 resampling=multinomial");
    test_follow("fk", "lambda=2 gradient-scale=1 ess-threshold=1 score-every=1");
    test_refused();
    return check_done();
}
