/* The exact mixture process against Tweedie's formula, numerical integration and its prior; files that must be refused. */
#include "exact.h"
#include "samplers/gaussian.h"
#include <kac/rng.h>

static void fill_prior(kac_gmm *g) {
    static const double w[] = {0.5, 0.3, 0.2}, mean[] = {-2, 0, 2, 1, 0, -2.5};
    static const double cov[] = {0.25, 0, 0, 0.25, 0.5, 0.1, 0.1, 0.4, 0.3, 0, 0, 0.8};
    CHECK_OK(kac_gmm_init(g, 3, 2));
    memcpy(g->w, w, sizeof w);
    memcpy(g->mean, mean, sizeof mean);
    memcpy(g->cov, cov, sizeof cov);
}

/* x0-hat = (x + sigma² ∇ log p(x)) / alpha */
static void test_tweedie(const kac_kernel *q) {
    static const double points[][2] = {{0.3, -0.4}, {-1.5, 0.2}, {2, 2}, {0, 0}};
    for (int i = 0; i < KAC_COUNT_OF(points); i++) {
        double log_w[3], means[6], hat[2], other_w[3], other[6];
        kac_kernel_posterior(q, points[i], log_w, means);
        kac_kernel_x0_hat(q, log_w, means, hat);
        for (int axis = 0; axis < 2; axis++) {
            const double step = 1e-5;
            double up[2] = {points[i][0], points[i][1]}, down[2] = {points[i][0], points[i][1]};
            up[axis] += step;
            down[axis] -= step;
            const double slope =
                (kac_kernel_posterior(q, up, other_w, other) - kac_kernel_posterior(q, down, other_w, other)) /
                (2 * step);
            CHECK_NEAR(hat[axis], (points[i][axis] + (1 - q->bar_t) * slope) / sqrt(q->bar_t), 1e-7);
        }
    }
}

/* Integrates to 1 with mean E[x_s | x_t] = A x + B x0-hat, and p(x_t) p(x_s | x_t) sums over x_t to p(x_s). */
static void test_density(const kac_gmm *g, double bar_t, double bar_s) {
    enum { POINTS = 161 };
    const double width = 0.1, x[2] = {0.3, -0.4};
    kac_kernel q, next;
    CHECK_OK(kac_kernel_init(&q, 3, 2));
    CHECK_OK(kac_kernel_init(&next, 3, 2));
    CHECK_OK(kac_kernel_prepare(&q, g, bar_t, bar_s));
    CHECK_OK(kac_kernel_prepare(&next, g, bar_s, 1.0));
    test_tweedie(&q);
    double log_w[3], means[6], hat[2], total = 0, mean[2] = {0}, marginal = 0, spare_w[3], spare_m[6];
    const double to[2] = {0.5, -0.2};
    kac_kernel_posterior(&q, x, log_w, means);
    kac_kernel_x0_hat(&q, log_w, means, hat);
    for (int i = 0; i < POINTS * POINTS; i++) {
        const double y[2] = {(i / POINTS - POINTS / 2) * width, (i % POINTS - POINTS / 2) * width};
        const double p = exp(kac_kernel_log_density(&q, x, log_w, means, y)) * width * width;
        total += p;
        for (int j = 0; j < 2; j++) mean[j] += p * y[j];
        const double log_p = kac_kernel_posterior(&q, y, spare_w, spare_m);
        marginal += exp(log_p + kac_kernel_log_density(&q, y, spare_w, spare_m, to)) * width * width;
    }
    CHECK_NEAR(total, 1.0, 1e-8);
    for (int j = 0; j < 2; j++) CHECK_NEAR(mean[j], q.A * x[j] + q.B * hat[j], 1e-7);
    CHECK_NEAR(marginal, exp(kac_kernel_posterior(&next, to, spare_w, spare_m)), 1e-7);
    kac_kernel_free(&q);
    kac_kernel_free(&next);
}

/* Draws have the density's mean and variance. */
static void test_draws(const kac_gmm *g) {
    kac_kernel q;
    CHECK_OK(kac_kernel_init(&q, 3, 2));
    CHECK_OK(kac_kernel_prepare(&q, g, 0.3, 0.6));
    const double x[2] = {0.3, -0.4};
    double log_w[3], means[6], hat[2];
    kac_kernel_posterior(&q, x, log_w, means);
    kac_kernel_x0_hat(&q, log_w, means, hat);
    exact_mean first = {0}, second = {0};
    for (int i = 0; i < 100000; i++) {
        float z[2];
        double y[2];
        const kac_key key = {3, KAC_PURPOSE_TEST, 0};
        kac_rng_normal(z, 2, key, (uint32_t)i, 0);
        kac_kernel_draw(&q, x, log_w, means, kac_rng_uniform(key, (uint32_t)i, 1024), z, y);
        exact_add(&first, y[0]);
        exact_add(&second, y[1]);
    }
    CHECK(exact_agrees(&first, q.A * x[0] + q.B * hat[0], 5, 0.02, "E x_s"));
    CHECK(exact_agrees(&second, q.A * x[1] + q.B * hat[1], 5, 0.02, "E y_s"));
    kac_kernel_free(&q);
}

/* The exact chain ends in the prior whatever the number of steps. */
static void test_prior(void) {
    enum { RUNS = 40000 };
    kac_mixture *m = exact_mixture("exact", 0, 1, RUNS, 3);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    exact_mean reward = {0}, left = {0};
    if (CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "none", "", 1)))
        for (int i = 0; i < RUNS; i++) {
            exact_add(&reward, out.rewards[i]);
            exact_add(&left, kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL)[0] < -1.0);
        }
    const double cut = 0.5 * 0.97724987 + 0.3 * 1.1045e-5 + 0.2 * 0.03394458; /* Φ(2), Φ(−3/√.5), Φ(−1/√.3) */
    CHECK(exact_agrees(&reward, -3.26625, 5, 0.1, "E r of the prior"));
    CHECK(exact_agrees(&left, cut, 5, 0.02, "P(x < -1)"));
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

static void refused(const char *weights, const char *means, const char *covs, const char *rest, kac_status status,
                    const char *text) {
    kac_text t = {0};
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"weights\": %s, \"means\": %s, \"covariances\": %s, %s}",
                 weights, means, covs, rest);
    kac_mixture *m = NULL;
    CHECK_FAILS(kac_mixture_parse(&m, t.s, t.n, "bad.json", &(kac_mixture_options){1, 1, 0, 1}), status, text);
    CHECK(m == NULL);
    kac_text_free(&t);
}

static void test_refused(void) {
    const char *w = "[1]", *m = "[[0, 0]]", *c = "[[[1, 0], [0, 1]]]",
               *s = "\"schedule\": {\"alphas_cumprod\": [0.9, 0.5]}";
    refused("[0.5, 0.6]", "[[0], [1]]", "[[[1]], [[1]]]", s, KAC_E_FORMAT, "sum to 1.1");
    refused("[1.5, -0.5]", "[[0], [1]]", "[[[1]], [[1]]]", s, KAC_E_FORMAT, "positive");
    refused("[]", m, c, s, KAC_E_FORMAT, "weights");
    refused("5", m, c, s, KAC_E_FORMAT, "weights");
    refused(w, "[[0, 0], [1, 1]]", c, s, KAC_E_FORMAT, "counts must agree");
    refused(w, "[[]]", c, s, KAC_E_FORMAT, "dimensions");
    refused(w, "[[0, \"x\"]]", c, s, KAC_E_FORMAT, "means");
    refused(w, m, "[[[1, 0]]]", s, KAC_E_FORMAT, "covariances[0]");
    refused(w, m, "[[[1, 0.5], [0.4, 1]]]", s, KAC_E_FORMAT, "not symmetric");
    refused(w, m, "[[[1, 2], [2, 1]]]", s, KAC_E_FORMAT, "positive definite");
    refused(w, m, c, "\"schedule\": {\"alphas_cumprod\": [0.5, 0.9]}", KAC_E_FORMAT, "fall");
    refused(w, m, c, "\"schedule\": {\"alphas_cumprod\": [1.0, 0.9]}", KAC_E_FORMAT, "fall");
    refused(w, m, c, "\"schedule\": {\"alphas_cumprod\": [0.5, 0]}", KAC_E_FORMAT, "fall");
    refused(w, m, c, "\"schedule\": {}", KAC_E_FORMAT, "alphas_cumprod");
    refused(w, m, c, "\"schedule\": 3", KAC_E_FORMAT, "schedule");
    refused(w, m, c, "\"kernel\": \"euler\", \"schedule\": {\"alphas_cumprod\": [0.5]}", KAC_E_UNSUPPORTED, "euler");
    kac_mixture *out = NULL;
    const kac_mixture_options one = {1, 1, 0, 1};
    CHECK_FAILS(kac_mixture_parse(&out, "{\"_class_name\": \"UNet\"}", 23, "bad.json", &one), KAC_E_FORMAT,
                "GaussianMixture");
    CHECK_FAILS(kac_mixture_load(&out, "tests/samplers/no-such.json", &one), KAC_E_IO, "no-such.json");
    char *text = exact_mixture_text("ddim");
    const kac_mixture_options bad[] = {
        {0, 1, 0, 1}, {1, 0, 0, 1}, {1 << 20, 1 << 20, 0, 1}, {1, 1, 0, -1}, {1, 1, 0, 2}};
    for (int i = 0; i < KAC_COUNT_OF(bad); i++)
        CHECK_FAILS(kac_mixture_parse(&out, text, strlen(text), "G", &bad[i]), KAC_E_USAGE, NULL);
    kac_free(text);
}

static void test_quadratic(void) {
    kac_reward *r = NULL;
    const char *texts[] = {"{\"A\": [[1, 0]]}", "{\"A\": []}", "{}", "{\"A\": [[1]], \"a\": [1, 2]}",
                           "{\"A\": [[1]], \"c\": \"x\"}"};
    for (int i = 0; i < KAC_COUNT_OF(texts); i++) {
        CHECK_FAILS(kac_quadratic_parse(&r, texts[i], strlen(texts[i]), "q.json"), KAC_E_FORMAT, "q.json");
        CHECK(r == NULL);
    }
    CHECK_OK(kac_quadratic_parse(&r, "{\"A\": [[2]]}", 12, "q.json"));
    CHECK_TEXT(r->name, "quadratic=q.json");
    kac_mixture *m = exact_mixture("exact", 0, 1, 1, 0);
    kac_process other = {0};
    double value;
    CHECK_FAILS(r->score(r, kac_mixture_process(m), &(int){0}, 1, KAC_STAGE_FINAL, &value), KAC_E_SHAPE,
                "1 dimensions");
    CHECK_FAILS(r->score(r, &other, &(int){0}, 1, KAC_STAGE_FINAL, &value), KAC_E_USAGE, "mixtures");
    kac_quadratic_destroy(r);
    r = exact_reward();
    kac_process *p = kac_mixture_process(m);
    CHECK_OK(p->start(p, &(int){0}, 1));
    CHECK_OK(r->score(r, p, &(int){0}, 1, KAC_STAGE_FINAL, &value));
    const double *x = kac_mixture_point(p, 0, KAC_STAGE_FINAL);
    const double u = x[0] - 1, v = x[1] - 1;
    CHECK_NEAR(value, -0.5 * (u * u + 0.5 * v * v) + 0.2 * x[0] - 0.1 * x[1] + 0.3, 1e-12);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* A permutation of slots moves everything, prediction included. */
static void test_copy(void) {
    kac_mixture *m = exact_mixture("exact", 0, 1, 4, 8);
    kac_process *p = kac_mixture_process(m);
    const int all[] = {0, 1, 2, 3}, turned[] = {1, 2, 3, 0};
    double x[4][2], hat[4][2];
    CHECK_OK(p->start(p, all, 4));
    CHECK_OK(p->predict(p, 0, all, 4));
    for (int i = 0; i < 4; i++) {
        memcpy(x[i], kac_mixture_point(p, i, KAC_STAGE_FINAL), sizeof x[i]);
        memcpy(hat[i], kac_mixture_point(p, i, KAC_STAGE_PREDICTED), sizeof hat[i]);
    }
    CHECK_OK(p->copy(p, turned, all, 4));
    CHECK_OK(p->predict(p, 0, all, 4));
    CHECK(kac_mixture_evaluations(m) == 4);
    for (int i = 0; i < 4; i++) {
        CHECK(memcmp(x[turned[i]], kac_mixture_point(p, i, KAC_STAGE_FINAL), sizeof x[i]) == 0);
        CHECK(memcmp(hat[turned[i]], kac_mixture_point(p, i, KAC_STAGE_PREDICTED), sizeof hat[i]) == 0);
    }
    kac_mixture_destroy(m);
}

int main(void) {
    kac_gmm g;
    fill_prior(&g);
    test_density(&g, 0.4, 0.7);
    test_density(&g, 0.05, 0.2);
    test_draws(&g);
    kac_gmm_free(&g);
    test_prior();
    test_refused();
    test_quadratic();
    test_copy();
    return check_done();
}
