/* Searches that move the noise on the way or by a gradient, on mixtures: the law of paths, ReNO's gradient and where it ends, demon's direction. */
#include "noise_sink.h"

/* ---- paths ---- */

/* Noised up and denoised by the exact kernel, a state keeps its law: without a reward to choose by, samples are plain ones. */
static void test_paths_law(void) {
    enum { GROUPS = 3000 };
    static const char *const lines[] = {"paths=1 branches=1 level=0.3 forward=0.4 backward=0.5",
                                        "paths=2 branches=2 level=0.5 forward=0.3 backward=0.6"};
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, "{\"A\": [[0, 0], [0, 0]]}", 23, "zero"));
    for (int i = 0; i < 2; i++) {
        exact_mean x = {0}, y = {0}, xx = {0};
        kac_particles out = {0};
        kac_mixture *m = exact_mixture("exact", 0, GROUPS, 1, 8);
        CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "noise-paths", lines[i], 8));
        CHECK(kac_mixture_evaluations(m) > GROUPS * (i + 1) * (EXACT_STEPS + 4));
        for (int g = 0; g < GROUPS; g++) {
            const double *at = kac_mixture_point(kac_mixture_process(m), g, KAC_STAGE_FINAL);
            exact_add(&x, at[0]), exact_add(&y, at[1]), exact_add(&xx, at[0] * at[0]);
        }
        CHECK(exact_agrees(&x, -0.4, 4, 0.2, "paths: E x"));
        CHECK(exact_agrees(&y, -0.2, 4, 0.2, "paths: E y"));
        CHECK(exact_agrees(&xx, 0.5 * 4.25 + 0.3 * 4.5 + 0.2 * 0.3, 4, 0.3, "paths: E x²"));
        kac_particles_free(&out);
        kac_mixture_destroy(m);
    }
    kac_quadratic_destroy(r);
}

/* Choosing helps: more than the same number of evaluations spent on nothing but the reward of plain samples. */
static void test_paths_choose(void) {
    double mean[2] = {0};
    kac_reward *r = wide_reward();
    for (int chosen = 0; chosen < 2; chosen++) {
        kac_particles out = {0};
        kac_mixture *m = wide_mixture("ddim", 1, 12, 40, 2);
        CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "noise-paths",
                           chosen ? "branches=8 level=0.4 forward=0.2 backward=0.4"
                                  : "branches=1 level=0.4 forward=0.2 backward=0.4",
                           3));
        for (int g = 0; g < 40; g++) mean[chosen] += out.rewards[2 * g] / 40;
        kac_particles_free(&out);
        kac_mixture_destroy(m);
    }
    printf("paths: mean best reward %.3f with 8 branches, %.3f with one\n", mean[1], mean[0]);
    CHECK(mean[1] > mean[0] + 1);
    kac_quadratic_destroy(r);
}

/* ---- noise by gradient ---- */

/* r(x_0) of a first noise, through all steps, under the step noise of particle 0. */
static double reward_of_noise(kac_process *p, kac_reward *r, const float *z) {
    const int slot = 0;
    const uint64_t key = 0;
    double value = 0;
    p->rekey(p, &slot, 1, &key);
    CHECK_OK(p->noise(p, &slot, 1, z));
    CHECK_OK(p->start(p, &slot, 1));
    for (int i = 0; i < p->n_steps; i++) {
        CHECK_OK(p->predict(p, i, &slot, 1));
        CHECK_OK(p->step(p, i, &slot, &slot, 1));
    }
    CHECK_OK(r->score(r, p, &slot, 1, KAC_STAGE_FINAL, &value));
    return value;
}

static void run_reno(sink **s, kac_mixture *m, kac_reward *r, const char *line) {
    kac_particles out = {0};
    *s = make_sink(kac_mixture_process(m), 0);
    CHECK_OK(exact_run(&out, &(*s)->process, r, &(*s)->events, "reno", line, 3));
    kac_particles_free(&out);
}

/* The first move of plain descent is the gradient through the whole chain; regularisation, momentum and clip are as written. */
static void test_reno_gradient(double eta, int n_steps) {
    kac_mixture *m = wide_mixture("ddim", eta, n_steps, 1, 1);
    kac_process *p = kac_mixture_process(m);
    kac_reward *r = wide_reward();
    sink *s;
    float moved[16];
    run_reno(&s, m, r, "iterations=2 momentum=0 gradient-clip=0 regularization=0 lambda=1 learning-rate=1");
    const float *z = s->noises, *next = s->noises + 16;
    CHECK(s->n_noises == 2 && s->n_pulled == n_steps);
    for (int i = 0; i < 16; i++) {
        double slope = 0;
        for (int sign = -1; sign <= 1; sign += 2) {
            memcpy(moved, z, sizeof moved);
            moved[i] += (float)sign * 1e-3f;
            slope += sign * reward_of_noise(p, r, moved) / ((double)(z[i] + 1e-3f) - (double)(z[i] - 1e-3f));
        }
        CHECK_NEAR((double)next[i] - (double)z[i], slope, 1e-3 * (1 + fabs(slope)));
    }
    free_sink(s);
    run_reno(&s, m, r, "iterations=2 momentum=0 gradient-clip=0 regularization=0.01 lambda=0 learning-rate=5");
    z = s->noises, next = z + 16;
    double length2 = 0;
    for (int i = 0; i < 16; i++) length2 += (double)z[i] * (double)z[i];
    for (int i = 0; i < 16; i++) CHECK_NEAR((double)next[i], (double)z[i] * (1 - 5 * 0.01 * (1 - 15 / length2)), 1e-6);
    free_sink(s);
    run_reno(&s, m, r, "iterations=3 momentum=0.9 gradient-clip=0.1 regularization=0 lambda=1 learning-rate=5");
    z = s->noises, next = z + 16;
    double first = 0;
    for (int i = 0; i < 16; i++) first += pow((double)next[i] - (double)z[i], 2);
    CHECK_NEAR(sqrt(first), 5 * 0.1 * 1.9, 1e-5);
    for (int i = 0; i < 16; i++) { /* v1 = g1, v2 = 0.9 g1 + g2, and the second move is 5 (g2 + 0.9 v2) */
        const double g1 = ((double)next[i] - (double)z[i]) / (5 * 1.9), second = (double)next[16 + i] - (double)next[i],
                     g2 = (second / 5 - 0.81 * g1) / 1.9;
        CHECK(fabs(g2) < 0.1);
    }
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

/* One Gaussian, one step, a quadratic reward: its top is reached. */
static void test_reno_optimum(void) {
    static const char text[] = "{\"_class_name\": \"GaussianMixture\", \"weights\": [1], \"means\": [[0.5, -1]], "
                               "\"covariances\": [[[1.2, 0.5], [0.5, 0.8]]], \"kernel\": \"ddim\", \"schedule\": "
                               "{\"alphas_cumprod\": [0.3]}}";
    static const char reward[] = "{\"A\": [[1, 0.2], [0.2, 2]], \"a\": [1.5, 0.4]}";
    kac_mixture *m = NULL;
    kac_reward *r = NULL;
    kac_particles out = {0};
    CHECK_OK(kac_mixture_parse(&m, text, strlen(text), "one", &(kac_mixture_options){1, 3, 41, 0}));
    CHECK_OK(kac_quadratic_parse(&r, reward, strlen(reward), "R"));
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "reno",
                       "iterations=300 learning-rate=0.2 gradient-clip=0 regularization=0 lambda=1", 3));
    for (int i = 0; i < 3; i++) {
        const double *x = kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL);
        CHECK_NEAR(out.rewards[i], 0, 1e-6);
        CHECK_NEAR(x[0], 1.5, 2e-3);
        CHECK_NEAR(x[1], 0.4, 2e-3);
        CHECK(out.eves[i] == i);
    }
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

static void test_reno_refused(void) {
    kac_mixture *m = exact_mixture("exact", 0, 1, 2, 3), *d = exact_mixture("ddim", 0, 1, 2, 3);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    static const char *const names[] = {"reno", "psi"};
    for (int i = 0; i < 2; i++) {
        kac_status (*grad)(kac_reward *, kac_process *, const int *, int, kac_stage, double *, float *) = r->grad;
        const char *line = i == 1 ? "gradient-scale=0" : "";
        CHECK_FAILS(exact_run(&out, kac_mixture_process(m), r, NULL, names[i], "", 1), KAC_E_UNSUPPORTED,
                    "kernel ddim");
        r->grad = NULL;
        CHECK_FAILS(exact_run(&out, kac_mixture_process(d), r, NULL, names[i], line, 1), KAC_E_UNSUPPORTED,
                    "quadratic=R has no gradient");
        r->grad = grad;
        CHECK_FAILS(exact_run(&out, kac_mixture_process(d), NULL, NULL, names[i], "", 1), KAC_E_USAGE,
                    "needs a reward");
        CHECK(kac_method_find(names[i])->needs_grad(NULL));
    }
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    kac_mixture_destroy(d);
}

/* ---- demon ---- */

typedef struct watched {
    kac_reward reward, *inner;
    double values[MOST];
    int n;
} watched;

static kac_status watch_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    watched *w = r->self;
    KAC_TRY(w->inner->score(w->inner, p, slots, n, stage, out));
    for (int i = 0; i < n && w->n < MOST; i++) w->values[w->n++] = out[i];
    return KAC_OK;
}

/* The noise of every step lies along Σ w_j z_j and has the length √d. */
static void test_demon_direction(const char *line, int kind, double tau) {
    enum { M = 5, STEPS = 6 };
    static watched w;
    kac_mixture *m = wide_mixture("ddim", 1, STEPS, 1, M);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    w = (watched){.inner = r};
    w.reward = (kac_reward){.self = &w, .name = "watched", .score = watch_score};
    sink *s = make_sink(kac_mixture_process(m), 1 + (STEPS - 1) * (M + 1));
    CHECK_OK(exact_run(&out, &s->process, &w.reward, &s->events, "demon", line, 3));
    CHECK(s->n_noises == (M + 1) * (STEPS - 1) && s->nfe == s->events.nfe);
    for (int step = 0; step < STEPS - 1; step++) {
        const float *z = s->noises + step * (M + 1) * 16, *chosen = z + M * 16;
        const double *v = w.values + step * M;
        double mean = 0, variance = 0, sum[16] = {0}, length = 0;
        for (int j = 0; j < M; j++) mean += v[j] / M;
        for (int j = 0; j < M; j++) variance += pow(v[j] - mean, 2) / M;
        const double t = tau > 0 ? tau : sqrt(variance);
        for (int j = 0; j < M; j++) {
            const double weight = kind == 0 ? tanh((v[j] - mean) / t) : kind == 1 ? exp(v[j] / t) : v[j];
            for (int i = 0; i < 16; i++) sum[i] += weight * (double)z[j * 16 + i];
        }
        for (int i = 0; i < 16; i++) length += sum[i] * sum[i];
        for (int i = 0; i < 16; i++) CHECK_NEAR((double)chosen[i], sum[i] * 4 / sqrt(length), 1e-5);
    }
    kac_particles_free(&out);
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

static void test_demon(void) {
    test_demon_direction("candidates=5", 0, 0);
    test_demon_direction("candidates=5 temperature=2", 0, 2);
    test_demon_direction("candidates=5 weights=softmax temperature=3", 1, 3);
    test_demon_direction("candidates=5 weights=reward", 2, 0);
    kac_mixture *m = wide_mixture("ddim", 1, 6, 30, 2), *d = wide_mixture("ddim", 0, 6, 1, 2);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    exact_mean plain = {0}, chosen = {0};
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "best-of-n", "", 3));
    for (int i = 0; i < 60; i++) exact_add(&plain, out.rewards[i]);
    kac_particles_free(&out);
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "demon", "candidates=8", 3));
    for (int i = 0; i < 60; i++) exact_add(&chosen, out.rewards[i]);
    kac_particles_free(&out);
    printf("demon: mean reward %.3f, of plain samples %.3f\n", chosen.mean, plain.mean);
    CHECK(chosen.mean > plain.mean + 4 * (exact_error(&plain) + exact_error(&chosen)));
    CHECK_FAILS(exact_run(&out, kac_mixture_process(d), r, NULL, "demon", "", 3), KAC_E_UNSUPPORTED, "draw none");
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    kac_mixture_destroy(d);
}

int main(void) {
    test_paths_law();
    test_paths_choose();
    test_reno_gradient(0, 1);
    test_reno_gradient(1, 6);
    test_reno_optimum();
    test_reno_refused();
    test_demon();
    return check_done();
}
