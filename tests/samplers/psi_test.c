/* Psi-Sampler: its proposal's acceptance ratio, the law of its chains where that is Gaussian, and of its weighted particles against importance
 * sampling of the same chain of steps. */
#include "exact.h"
#include "samplers/pcnl.h"

enum { D = 2, STEPS = 4 };

static const double bars[STEPS + 1] = {1, 0.9, 0.6, 0.25, 0.05};

/* ---- the proposal ---- */

/* log q(to | x) but for a constant, by its definition. */
static double log_q(const float *to, const float *x, const float *slope, double epsilon) {
    const double rho = (1 - epsilon / 4) / (1 + epsilon / 4), v = 1 - rho * rho;
    double sum = 0;
    for (int i = 0; i < D; i++)
        sum -= pow((double)to[i] - rho * (double)x[i] - sqrt(v) * sqrt(epsilon) / 2 * (double)slope[i], 2) / (2 * v);
    return sum;
}

static void test_ratio(void) {
    static const float x[D] = {0.3f, -1.2f}, slope[D] = {1.5f, -0.4f}, next[D] = {-0.7f, 0.2f},
                       next_slope[D] = {0.3f, 2.1f};
    static const double sizes[] = {0.01, 0.5, 2, 4};
    for (int k = 0; k < KAC_COUNT_OF(sizes); k++) {
        double want = 1.7 - 0.6;
        for (int i = 0; i < D; i++) want += ((double)x[i] * (double)x[i] - (double)next[i] * (double)next[i]) / 2;
        want += log_q(x, next, next_slope, sizes[k]) - log_q(next, x, slope, sizes[k]);
        CHECK_NEAR(kac_pcnl_log_ratio(x, slope, 0.6, next, next_slope, 1.7, D, sizes[k]), want,
                   1e-9 * (1 + fabs(want)));
        const double rho = (1 - sizes[k] / 4) / (1 + sizes[k] / 4), rest = sqrt(1 - rho * rho);
        float z[D] = {0.4f, -0.9f};
        kac_pcnl_propose(z, x, slope, D, sizes[k]);
        CHECK_NEAR((double)z[0], rho * 0.3 + rest * (0.4 + sqrt(sizes[k]) / 2 * 1.5), 1e-6);
        CHECK_NEAR((double)z[1], rho * -1.2 + rest * (-0.9 - sqrt(sizes[k]) / 2 * 0.4), 1e-6);
    }
}

/* ---- the chains on one Gaussian ---- */

typedef struct spy {
    kac_process process, *inner;
    float *z; /* of the last call */
    int n, n_calls;
} spy;

static kac_status spy_noise(kac_process *p, const int *slots, int n, const float *z) {
    spy *s = (spy *)((char *)p - offsetof(spy, process));
    memcpy(s->z, z, (size_t)n * D * sizeof *z);
    s->n = n, s->n_calls++;
    return s->inner->noise(s->inner, slots, n, z);
}

static kac_mixture *make_mixture(bool one, double eta, int n_groups, int k) {
    kac_text t = {0};
    kac_text_add(
        &t, "{\"_class_name\": \"GaussianMixture\", %s, \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": [",
        one ? "\"weights\": [1], \"means\": [[0.5, -1]], \"covariances\": [[[1.2, 0.5], [0.5, 0.8]]]" : EXACT_PRIOR);
    for (int i = 1; i <= STEPS; i++) kac_text_add(&t, "%s%.17g", i > 1 ? ", " : "", bars[i]);
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "M", &(kac_mixture_options){n_groups, k, 41, eta}));
    kac_text_free(&t);
    return m;
}

/* x0-hat(z) = mean + G (z − √a mean), so the law of z with r = −|x0-hat − a|² / 2 is Gaussian: precision I + λ G'G, mean its inverse times
 * λ G' (a − x0-hat(0)). */
static void gaussian_law(double lambda, const double *a, double mean[D], double cov[D][D]) {
    static const double m0[D] = {0.5, -1}, c[D][D] = {{1.2, 0.5}, {0.5, 0.8}};
    const double b = bars[STEPS], p = b * c[0][0] + 1 - b, q = b * c[0][1], r = b * c[1][1] + 1 - b,
                 det = p * r - q * q;
    const double inverse[D][D] = {{r / det, -q / det}, {-q / det, p / det}};
    double G[D][D], P[D][D], h[D] = {0}, off[D];
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) G[i][j] = sqrt(b) * (c[i][0] * inverse[0][j] + c[i][1] * inverse[1][j]);
    for (int i = 0; i < D; i++) off[i] = a[i] - m0[i] + sqrt(b) * (G[i][0] * m0[0] + G[i][1] * m0[1]);
    for (int i = 0; i < D; i++)
        for (int j = 0; j < D; j++) {
            P[i][j] = (i == j) + lambda * (G[0][i] * G[0][j] + G[1][i] * G[1][j]);
            h[i] += lambda * G[j][i] * off[j];
        }
    const double d = P[0][0] * P[1][1] - P[0][1] * P[1][0];
    cov[0][0] = P[1][1] / d, cov[1][1] = P[0][0] / d, cov[0][1] = cov[1][0] = -P[0][1] / d;
    for (int i = 0; i < D; i++) mean[i] = cov[i][0] * h[0] + cov[i][1] * h[1];
}

/* First noises of particles over many groups have the moments of the chains' law; with 3 slots for 5 chains too. */
static void test_chain_law(const char *size, double lambda) {
    enum { GROUPS = 1500, K = 3 };
    static float z[GROUPS * 5 * D];
    static const char text[] = "{\"A\": [[1, 0], [0, 1]], \"a\": [2, 0.5]}";
    static const double a[D] = {2, 0.5};
    kac_reward *r = NULL;
    kac_particles out = {0};
    kac_mixture *m = make_mixture(true, 1, GROUPS, K);
    char line[128];
    double mean[D], cov[D][D];
    CHECK_OK(kac_quadratic_parse(&r, text, strlen(text), "R"));
    spy s = {.process = *kac_mixture_process(m), .inner = kac_mixture_process(m), .z = z};
    s.process.noise = spy_noise;
    snprintf(line, sizeof line, "lambda=%g chain-size=%s burn-in=40 chain-steps=6 gradient-scale=0", lambda, size);
    CHECK_OK(exact_run(&out, &s.process, r, NULL, "psi", line, 3));
    CHECK(s.n == GROUPS * K && s.n_calls == 2 * 47 + 1 && isnan(out.log_z[0]));
    CHECK(kac_mixture_evaluations(m) == GROUPS * (5 * 47 + K * STEPS)); /* gradients come on top */
    kac_options *o = exact_options("psi", line);
    CHECK(kac_method_find("psi")->nfe_beside(o) == 2 * 5 * 47);
    kac_options_destroy(o);
    gaussian_law(lambda, a, mean, cov);
    printf("chains of size %s, lambda %g\n", size, lambda);
    for (int i = 0; i < D; i++) {
        exact_mean first = {0}, second[D] = {{0}};
        for (int g = 0; g < GROUPS; g++) {
            double sum = 0, squares[D] = {0};
            for (int k = 0; k < K; k++) {
                const float *at = z + (g * K + k) * D;
                sum += (double)at[i] / K;
                for (int j = 0; j < D; j++) squares[j] += ((double)at[i] - mean[i]) * ((double)at[j] - mean[j]) / K;
            }
            exact_add(&first, sum);
            for (int j = 0; j < D; j++) exact_add(&second[j], squares[j]);
        }
        CHECK(exact_agrees(&first, mean[i], 4, 0.1, "E z"));
        for (int j = 0; j < D; j++) CHECK(exact_agrees(&second[j], cov[i][j], 4, 0.1, "Cov z"));
    }
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* ---- the particles ---- */

/* E r and E x_0 of the weighted particles, group by group. */
static void run_groups(exact_mean *reward, exact_mean *x, const char *method, const char *line, int n_groups, int k) {
    kac_mixture *m = make_mixture(false, 1, n_groups, k);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, method, line, 7));
    for (int g = 0; g < n_groups; g++) {
        double top = -INFINITY, sum = 0, sum_r = 0, sum_x = 0;
        for (int i = g * k; i < (g + 1) * k; i++) top = fmax(top, out.log_weights[i]);
        for (int i = g * k; i < (g + 1) * k; i++) {
            const double w = exp(out.log_weights[i] - top);
            sum += w, sum_r += w * out.rewards[i];
            sum_x += w * kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL)[0];
        }
        exact_add(reward, sum_r / sum), exact_add(x, sum_x / sum);
    }
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* Many particles of few groups, so that neither the bias of normalised weights nor that of short chains shows. */
static void test_particles(void) {
    exact_mean reward = {0}, x = {0}, want_r = {0}, want_x = {0};
    run_groups(&want_r, &want_x, "best-of-n", "lambda=1", 20, 20000);
    printf("by importance sampling: E r %.5f ± %.5f, E x %.5f ± %.5f\n", want_r.mean, exact_error(&want_r), want_x.mean,
           exact_error(&want_x));
    run_groups(&reward, &x, "psi", "lambda=1 chains=100 burn-in=60 chain-steps=20", 20, 500);
    CHECK(exact_agrees(&reward, want_r.mean, 4, 0.05, "psi: E r"));
    CHECK(exact_agrees(&x, want_x.mean, 4, 0.05, "psi: E x"));
}

/* ---- stopping and continuing ---- */

enum { BLOBS = 6 };

typedef struct sink {
    kac_events events;
    kac_blob saved[BLOBS];
    int stop_after, last;
    bool restore;
} sink;

static kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n) {
    sink *s = e->self;
    CHECK(n == BLOBS);
    for (int i = 0; i < n; i++) {
        if (s->saved[i].data == NULL) s->saved[i].data = kac_alloc(blobs[i].n_bytes);
        s->saved[i].n_bytes = blobs[i].n_bytes;
        memcpy(s->saved[i].data, blobs[i].data, blobs[i].n_bytes);
    }
    s->last = i_step;
    return KAC_OK;
}

static kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n) {
    sink *s = e->self;
    *i_step = s->restore ? s->last + 1 : 0;
    for (int i = 0; i < n && s->restore; i++) {
        if (blobs[i].data == NULL) { /* of any size */
            blobs[i].n_bytes = s->saved[i].n_bytes;
            blobs[i].data = kac_alloc(blobs[i].n_bytes);
        }
        memcpy(blobs[i].data, s->saved[i].data, blobs[i].n_bytes);
    }
    return KAC_OK;
}

static bool cancelled(kac_events *e) {
    const sink *s = e->self;
    return s->stop_after == -1 || (s->last >= 0 && s->last == s->stop_after);
}

/* Stopped in its chains it begins anew; stopped later it goes on to the same bits. */
static void test_resume(void) {
    static const char line[] = "lambda=1 chains=7 burn-in=2 chain-steps=3";
    double want[12] = {0};
    for (int stop = -2; stop < STEPS - 1; stop++) {
        sink s = {.stop_after = stop, .last = -1};
        s.events =
            (kac_events){.self = &s, .on_checkpoint = on_checkpoint, .on_restore = on_restore, .cancelled = cancelled};
        kac_reward *r = exact_reward();
        kac_particles out = {0};
        kac_mixture *m = make_mixture(false, 1, 2, 6);
        const kac_status status = exact_run(&out, kac_mixture_process(m), r, &s.events, "psi", line, 7);
        CHECK(status == (stop == -2 ? KAC_OK : KAC_E_CANCELLED));
        kac_mixture_destroy(m);
        m = make_mixture(false, 1, 2, 6);
        if (stop > -2) {
            s.stop_after = -2, s.restore = s.last >= 0;
            CHECK(s.restore == (stop >= 0));
            if (CHECK_OK(exact_run(&out, kac_mixture_process(m), r, &s.events, "psi", line, 7)))
                CHECK(memcmp(want, out.rewards, sizeof want) == 0);
        } else {
            memcpy(want, out.rewards, sizeof want);
        }
        for (int i = 0; i < BLOBS; i++) kac_free(s.saved[i].data);
        kac_particles_free(&out);
        kac_quadratic_destroy(r);
        kac_mixture_destroy(m);
    }
}

int main(void) {
    test_ratio();
    test_chain_law("0.5", 3);
    test_chain_law("2", 1);
    test_chain_law("3.5", 8); /* most proposals are far off: without their refusal the law is another */
    test_particles();
    test_resume();
    return check_done();
}
