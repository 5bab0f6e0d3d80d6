/* More laws that are known exactly, for every method that claims base × exp(lambda r): a Gaussian in many dimensions under a discrete
 * sampler, the evidence of a linear observation, a classifier's class, a ratio of mixtures, a table of rewards, a chain without noise. In
 * all of them E Z-hat = Z and E[Z-hat f-hat] = Z E f are tested, which hold for any number of particles. */
#include "exact.h"
#include "samplers/gaussian.h"

static double coordinate(kac_process *p, int slot, int which) {
    return kac_mixture_point(p, slot, KAC_STAGE_FINAL)[which];
}

static kac_mixture *parse(const char *text, int n_groups, int k, double eta) {
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, text, strlen(text), "law", &(kac_mixture_options){n_groups, k, 23, eta}));
    return m;
}

/* ---- one Gaussian in 48 dimensions, DDIM with eta 0.6: everything is linear, so the sampler's own law is a recursion per dimension ---- */

enum { WIDE = 48, WIDE_STEPS = 12 };

static double wide_mean(int i) {
    return 0.8 * sin(1.7 * i);
}
static double wide_variance(int i) {
    return 0.3 + 0.2 * (i % 5);
}
static double wide_curve(int i) {
    return 1.0 / (1 + i % 3);
} /* A of the reward */
static double wide_centre(int i) {
    return 0.5 * cos(0.9 * i);
}
static double wide_bar(int n) {
    const double time = (double)n / WIDE_STEPS;
    return n == 0 ? 1.0 : exp(-0.1 * time - 6.0 * time * time);
}

/* Law of x_0 in dimension i. */
static void wide_law(int i, double eta, double *mean, double *variance) {
    const double m = wide_mean(i), s = wide_variance(i);
    *mean = 0, *variance = 1;
    for (int n = WIDE_STEPS; n >= 1; n--) {
        const double a = wide_bar(n), b = wide_bar(n - 1), gain = sqrt(a) * s / (a * s + 1 - a);
        const double v = eta * eta * (1 - b) / (1 - a) * (1 - a / b), rest = sqrt(fmax(1 - b - v, 0.0)) / sqrt(1 - a);
        const double of_hat =
            sqrt(b) - rest * sqrt(a); /* x' = rest x + of_hat x0-hat + noise, x0-hat = m + gain (x − √a m) */
        *mean = rest * *mean + of_hat * (m + gain * (*mean - sqrt(a) * m));
        *variance = pow(rest + of_hat * gain, 2) * *variance + v;
    }
}

static kac_mixture *wide_mixture(void) {
    kac_text t = {0};
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [1], \"means\": [[");
    for (int i = 0; i < WIDE; i++) kac_text_add(&t, "%s%.17g", i > 0 ? ", " : "", wide_mean(i));
    kac_text_add(&t, "]], \"covariances\": [[");
    for (int i = 0; i < WIDE; i++)
        for (int j = 0; j < WIDE; j++)
            kac_text_add(&t, "%s%g%s", j == 0 ? "[" : ", ", i == j ? wide_variance(i) : 0.0,
                         j < WIDE - 1   ? ""
                         : i < WIDE - 1 ? "], "
                                        : "]");
    kac_text_add(&t, "]], \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": [");
    for (int n = 1; n <= WIDE_STEPS; n++) kac_text_add(&t, "%s%.17g", n > 1 ? ", " : "", wide_bar(n));
    kac_text_add(&t, "]}}");
    kac_mixture *m = parse(t.s, 300, 8, 0.6);
    kac_text_free(&t);
    return m;
}

static void test_wide(void) {
    kac_text t = {0};
    kac_text_add(&t, "{\"A\": [");
    for (int i = 0; i < WIDE; i++)
        for (int j = 0; j < WIDE; j++)
            kac_text_add(&t, "%s%.17g%s", j == 0 ? "[" : ", ", i == j ? wide_curve(i) : 0.0,
                         j < WIDE - 1   ? ""
                         : i < WIDE - 1 ? "], "
                                        : "]], \"a\": [");
    for (int i = 0; i < WIDE; i++) kac_text_add(&t, "%s%.17g", i > 0 ? ", " : "", wide_centre(i));
    kac_text_add(&t, "]}");
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, t.s, t.n, "wide"));
    kac_text_free(&t);
    const double lambda = 8.0 / WIDE; /* keeps the spread of the log-weights near 1 */
    double log_z = 0, want[3];
    for (int i = 0; i < WIDE; i++) {
        double m, s;
        wide_law(i, 0.6, &m, &s);
        const double c = lambda * wide_curve(i), off = m - wide_centre(i), tilted = s / (1 + c * s);
        log_z += -0.5 * log(1 + c * s) - 0.5 * c * off * off / (1 + c * s);
        if (i < 3) want[i] = tilted * (m / s + c * wide_centre(i));
    }
    exact_check_claims("a Gaussian in 48 dimensions, DDIM eta 0.6", wide_mixture, r, lambda, log_z, 3, coordinate, want,
                       0.12);
    kac_quadratic_destroy(r);
}

/* ---- three components that overlap: evidence of a linear observation, and the class of a component ---- */

static const double pi_g[3] = {0.5, 0.3, 0.2}, mean_g[3][2] = {{-1, 0}, {1, 0.5}, {0, -1.2}};
static const double cov_g[3][3] = {{0.5, 0, 0.5}, {0.7, 0.2, 0.6}, {0.4, -0.1, 0.8}}; /* xx, xy, yy */

static kac_mixture *overlapping(void) {
    static const char text[] =
        "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-1, 0], [1, 0.5], [0, "
        "-1.2]], "
        "\"covariances\": [[[0.5, 0], [0, 0.5]], [[0.7, 0.2], [0.2, 0.6]], [[0.4, -0.1], [-0.1, 0.8]]], "
        "\"kernel\": \"exact\", \"schedule\": {\"alphas_cumprod\": [0.99, 0.95, 0.85, 0.65, 0.4, 0.2, 0.08, 0.02]}}";
    return parse(text, 1200, 8, 0);
}

static const double h[2] = {1, -0.5}, y = 1.2, noise = 1.0;

static double observed(const double *x) {
    const double off = y - h[0] * x[0] - h[1] * x[1];
    return -0.5 * off * off / noise - 0.5 * log(2 * M_PI * noise);
}

static void test_evidence(void) {
    double log_p[3], posterior[3][2], want[2] = {0};
    for (int k = 0; k < 3; k++) {
        const double *c = cov_g[k], sh[2] = {c[0] * h[0] + c[1] * h[1], c[1] * h[0] + c[2] * h[1]};
        const double v = h[0] * sh[0] + h[1] * sh[1] + noise, off = y - h[0] * mean_g[k][0] - h[1] * mean_g[k][1];
        log_p[k] = log(pi_g[k]) - 0.5 * log(2 * M_PI * v) - 0.5 * off * off / v;
        for (int j = 0; j < 2; j++) posterior[k][j] = mean_g[k][j] + sh[j] * off / v;
    }
    const double log_z = kac_log_sum_exp(log_p, 3);
    for (int k = 0; k < 3; k++)
        for (int j = 0; j < 2; j++) want[j] += exp(log_p[k] - log_z) * posterior[k][j];
    exact_field field;
    exact_check_claims("a linear observation: log Z is the evidence", overlapping,
                       exact_field_init(&field, 2, observed, true), 1, log_z, 2, coordinate, want, 0.12);
}

static double component(const double *x, int k) {
    const double *c = cov_g[k], u = x[0] - mean_g[k][0], v = x[1] - mean_g[k][1], det = c[0] * c[2] - c[1] * c[1];
    return log(pi_g[k]) - 0.5 * log(det) - 0.5 * (c[2] * u * u - 2 * c[1] * u * v + c[0] * v * v) / det;
}

static double class_two(const double *x) {
    const double all[3] = {component(x, 0), component(x, 1), component(x, 2)};
    return all[1] - kac_log_sum_exp(all, 3);
}

static void test_classifier(void) {
    exact_field field;
    exact_check_claims("log p(class | x): the target is that component", overlapping,
                       exact_field_init(&field, 2, class_two, true), 1, log(pi_g[1]), 2, coordinate, mean_g[1], 0.12);
}

/* ---- a ratio of mixtures on a ring of eight: Z = 1 and the target has the weights of the numerator ---- */

enum { RING = 8 };

static double ring_weight(int k) {
    double sum = 0;
    for (int i = 0; i < RING; i++) sum += exp(0.3 * i);
    return exp(0.3 * k) / sum;
}

static double ring_log_density(const double *x, int k) {
    const double u = x[0] - 4 * cos(2 * M_PI * k / RING), v = x[1] - 4 * sin(2 * M_PI * k / RING);
    return -0.5 * (u * u + v * v) / 0.09;
}

static double ring_ratio(const double *x) {
    double above[RING], below[RING];
    for (int k = 0; k < RING; k++) {
        below[k] = ring_log_density(x, k);
        above[k] = log(ring_weight(k)) + below[k];
    }
    return kac_log_sum_exp(above, RING) - kac_log_sum_exp(below, RING) + log((double)RING);
}

static kac_mixture *rinoverlapping(void) {
    kac_text t = {0};
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.125");
    for (int k = 1; k < RING; k++) kac_text_add(&t, ", 0.125");
    for (int k = 0; k < RING; k++)
        kac_text_add(&t, "%s[%.17g, %.17g]", k == 0 ? "], \"means\": [" : ", ", 4 * cos(2 * M_PI * k / RING),
                     4 * sin(2 * M_PI * k / RING));
    for (int k = 0; k < RING; k++)
        kac_text_add(&t, "%s[[0.09, 0], [0, 0.09]]", k == 0 ? "], \"covariances\": [" : ", ");
    kac_text_add(&t, "], \"kernel\": \"exact\", \"schedule\": {\"alphas_cumprod\": [0.999, 0.98, 0.9, 0.7, 0.4, 0.15, "
                     "0.05, 0.01]}}");
    kac_mixture *m = parse(t.s, 1200, 8, 0);
    kac_text_free(&t);
    return m;
}

static void test_ratio(void) {
    double want[2] = {0};
    for (int k = 0; k < RING; k++) {
        want[0] += ring_weight(k) * 4 * cos(2 * M_PI * k / RING);
        want[1] += ring_weight(k) * 4 * sin(2 * M_PI * k / RING);
    }
    exact_field field;
    exact_check_claims("a ratio of mixtures: Z = 1", rinoverlapping, exact_field_init(&field, 2, ring_ratio, true), 1,
                       0, 2, coordinate, want, 0.15);
}

/* ---- a table of rewards over intervals of the line ---- */

enum { BINS = 5 };
static const double edges[BINS - 1] = {-1.8, -0.5, 1.2, 2.7}, table[BINS] = {0.5, -1, 1, -0.3, 0.9};
static const double line_pi[3] = {0.5, 0.3, 0.2}, line_mean[3] = {-2, 1, 3}, line_variance[3] = {0.1, 0.4, 0.2};

static int bin_of(double x) {
    int bin = 0;
    while (bin < BINS - 1 && x >= edges[bin]) bin++;
    return bin;
}

static double piecewise(const double *x) {
    return table[bin_of(x[0])];
}

static double in_bin(kac_process *p, int slot, int which) {
    return bin_of(kac_mixture_point(p, slot, KAC_STAGE_FINAL)[0]) == which;
}

static kac_mixture *line_mixture(void) {
    static const char text[] =
        "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-2], [1], [3]], "
        "\"covariances\": [[[0.1]], [[0.4]], [[0.2]]], \"kernel\": \"exact\", \"schedule\": {\"alphas_cumprod\": "
        "[0.995, 0.97, 0.9, 0.75, 0.5, 0.25, 0.1, 0.02]}}";
    return parse(text, 2000, 8, 0);
}

static void test_piecewise(void) {
    const double lambda = 1;
    double want[BINS], z = 0;
    for (int b = 0; b < BINS; b++) {
        want[b] = 0;
        for (int k = 0; k < 3; k++) {
            const double s = sqrt(2 * line_variance[k]);
            const double above = b < BINS - 1 ? erf((edges[b] - line_mean[k]) / s) : 1;
            want[b] += line_pi[k] * 0.5 * (above - (b > 0 ? erf((edges[b - 1] - line_mean[k]) / s) : -1));
        }
        want[b] *= exp(lambda * table[b]);
        z += want[b];
    }
    for (int b = 0; b < BINS; b++) want[b] /= z;
    exact_field field;
    exact_check_claims("a table of rewards", line_mixture, exact_field_init(&field, 1, piecewise, false), lambda,
                       log(z), BINS, in_bin, want, 0.06);
}

/* ---- no noise but the start's: x_0 is a function of x_K, whose integral is taken on a grid ---- */

static kac_mixture *plain_line(int n_groups, int k) {
    static const char text[] =
        "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-2], [1], [3]], "
        "\"covariances\": [[[0.1]], [[0.4]], [[0.2]]], \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": "
        "[0.98, 0.9, 0.75, 0.5, 0.25, 0.1, 0.02]}}";
    return parse(text, n_groups, k, 0);
}

static kac_mixture *still_mixture(void) {
    return plain_line(2000, 8);
}

static double wavy(const double *x) {
    return -0.4 * (x[0] - 1.5) * (x[0] - 1.5) + 0.3 * sin(3 * x[0]);
}

/* E[exp(lambda r)] and E[x exp(lambda r)] under the deterministic chain from N(0, 1). */
static void still_integrals(double lambda, double *z, double *zx) {
    enum { POINTS = 8001 };
    kac_mixture *m = plain_line(1, POINTS);
    kac_process *p = kac_mixture_process(m);
    float *x = kac_alloc(POINTS * sizeof *x);
    int *slots = kac_alloc(POINTS * sizeof *slots);
    for (int i = 0; i < POINTS; i++) {
        slots[i] = i;
        x[i] = -8.0f + 16.0f * (float)i / (POINTS - 1);
    }
    CHECK_OK(p->start(p, slots, POINTS));
    CHECK_OK(p->write(p, slots, POINTS, x));
    for (int i_step = 0; i_step < p->n_steps; i_step++) {
        CHECK_OK(p->predict(p, i_step, slots, POINTS));
        CHECK_OK(p->step(p, i_step, slots, slots, POINTS));
    }
    *z = *zx = 0;
    for (int i = 0; i < POINTS; i++) {
        const double at = (double)x[i], *to = kac_mixture_point(p, i, KAC_STAGE_FINAL);
        const double mass = exp(-0.5 * at * at) / sqrt(2 * M_PI) * 16.0 / (POINTS - 1) * exp(lambda * wavy(to));
        *z += mass, *zx += mass * to[0];
    }
    kac_free(x), kac_free(slots);
    kac_mixture_destroy(m);
}

static void test_still(void) {
    double z, zx;
    still_integrals(1.5, &z, &zx);
    const double want = zx / z;
    exact_field field;
    kac_reward *r = exact_field_init(&field, 1, wavy, false); /* guided steps cannot be weighed here */
    printf("a chain without noise: log Z %.6f\n", log(z));
    exact_check_claims("a chain without noise", still_mixture, r, 1.5, log(z), 1, coordinate, &want, 0.12);
}

int main(void) {
    test_wide();
    test_evidence();
    test_classifier();
    test_ratio();
    test_piecewise();
    test_still();
    return check_done();
}
