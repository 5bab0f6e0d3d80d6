/* How estimates vary: the variance that one run can tell from its own genealogy (Chan and Lai 2013: particles of one ancestor at the start
 * count as one) against the variance over repeats, and the distance from the target law against the budget, whose slope is −½. */
#include "exact.h"
#include "samplers/swarm.h"

/* ---- Chan and Lai ---- */

static double coordinate(const kac_process *p, int slot) {
    return kac_mixture_point(p, slot, KAC_STAGE_FINAL)[0];
}

/* Σ_eves (Σ_{particles of it} W (f − mean))², and the mean, of one group. */
static double chan_lai(const kac_particles *out, const kac_process *p, int group, double *mean) {
    const int k = out->n_per_group, first = group * k;
    double *w = kac_alloc((size_t)k * sizeof *w), *by_eve = kac_alloc((size_t)k * sizeof *by_eve), sum = 0;
    kac_log_weights_normalise(w, out->log_weights + first, k);
    *mean = 0;
    for (int i = 0; i < k; i++) *mean += w[i] * coordinate(p, first + i);
    memset(by_eve, 0, (size_t)k * sizeof *by_eve);
    for (int i = 0; i < k; i++) by_eve[out->eves[first + i]] += w[i] * (coordinate(p, first + i) - *mean);
    for (int i = 0; i < k; i++) sum += by_eve[i] * by_eve[i];
    kac_free(w), kac_free(by_eve);
    return sum;
}

/* Ratio of the variance that single runs tell, on average, to that over the runs. */
static double variance_ratio(const char *how) {
    enum { GROUPS = 250, K = 400 };
    kac_mixture *m = exact_mixture("exact", 0, GROUPS, K, 5);
    kac_process *p = kac_mixture_process(m);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    exact_mean told = {0}, mean = {0};
    if (CHECK_OK(exact_run_claim(&out, p, r, NULL, how, 0.5, 3)))
        for (int g = 0; g < GROUPS; g++) {
            double of_group;
            exact_add(&told, chan_lai(&out, p, g, &of_group));
            exact_add(&mean, of_group);
        }
    const double ratio = told.mean / (mean.squares / (mean.n - 1));
    printf("%-48s told %.5f, over runs %.5f: × %.3f\n", how, told.mean, mean.squares / (mean.n - 1), ratio);
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    return ratio;
}

static void test_chan_lai(void) {
    /* of 250 runs the variance is known to 9 % */
    const double plain = variance_ratio("best-of-n:"),
                 some = variance_ratio("fk: score-steps=12,16 resampling=multinomial"),
                 often = variance_ratio("fk: score-every=1 ess-threshold=1 resampling=multinomial");
    CHECK(plain > 0.7 && plain < 1.3);
    CHECK(some > 0.65 && some < 1.35);
    CHECK(often > 0.4 && often < 1.5); /* few ancestors are left: told low */
}

/* ---- the slope ---- */

enum { BINS = 6 };
static const double edges[BINS - 1] = {-2, -1.2, 0.6, 1.6, 2.8};

static int bin_of(double x) {
    int bin = 0;
    while (bin < BINS - 1 && x >= edges[bin]) bin++;
    return bin;
}

static double wavy(const double *x) {
    return sin(2 * x[0]) + 0.3 * x[0];
}

/* Masses of the bins under the mixture tilted by exp(wavy), by the midpoint rule. */
static void tilted_masses(double *mass) {
    static const double w[3] = {0.5, 0.3, 0.2}, mean[3] = {-2, 1, 3}, variance[3] = {0.1, 0.4, 0.2};
    double z = 0;
    for (int b = 0; b < BINS; b++) mass[b] = 0;
    for (int i = 0; i < 160000; i++) {
        const double x = -8 + (i + 0.5) * 1e-4;
        double p = 0;
        for (int k = 0; k < 3; k++)
            p += w[k] * exp(-0.5 * (x - mean[k]) * (x - mean[k]) / variance[k]) / sqrt(2 * M_PI * variance[k]);
        p *= exp(wavy(&x)) * 1e-4;
        mass[bin_of(x)] += p;
        z += p;
    }
    for (int b = 0; b < BINS; b++) mass[b] /= z;
}

/* Mean total variation distance between the weighted histogram of k particles and the target. */
static double distance(const char *how, int k, const double *mass) {
    static const char text[] =
        "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-2], [1], [3]], "
        "\"covariances\": [[[0.1]], [[0.4]], [[0.2]]], \"kernel\": \"exact\", \"schedule\": {\"alphas_cumprod\": "
        "[0.9, 0.5, 0.15, 0.02]}}";
    const int n_groups = KAC_MAX(131072 / k, 100);
    kac_mixture *m = NULL;
    kac_particles out = {0};
    exact_field field;
    exact_mean tv = {0};
    double *w = kac_alloc((size_t)k * sizeof *w);
    CHECK_OK(kac_mixture_parse(&m, text, strlen(text), "line", &(kac_mixture_options){n_groups, k, 9, 0}));
    kac_process *p = kac_mixture_process(m);
    if (CHECK_OK(exact_run_claim(&out, p, exact_field_init(&field, 1, wavy, true), NULL, how, 1, 3)))
        for (int g = 0; g < n_groups; g++) {
            double have[BINS] = {0}, sum = 0;
            kac_log_weights_normalise(w, out.log_weights + g * k, k);
            for (int i = 0; i < k; i++) have[bin_of(coordinate(p, g * k + i))] += w[i];
            for (int b = 0; b < BINS; b++) sum += 0.5 * fabs(have[b] - mass[b]);
            exact_add(&tv, sum);
        }
    kac_free(w);
    kac_particles_free(&out);
    kac_mixture_destroy(m);
    return tv.mean;
}

static void test_slope(const char *how) {
    static const int counts[] = {32, 128, 512, 2048};
    double mass[BINS], x[4], y[4], sx = 0, sy = 0, sxx = 0, sxy = 0;
    tilted_masses(mass);
    printf("%-48s", how);
    for (int i = 0; i < 4; i++) {
        x[i] = log(counts[i]), y[i] = log(distance(how, counts[i], mass));
        printf("  %d: %.4f", counts[i], exp(y[i]));
        sx += x[i], sy += y[i], sxx += x[i] * x[i], sxy += x[i] * y[i];
    }
    const double slope = (4 * sxy - sx * sy) / (4 * sxx - sx * sx);
    printf("   slope %.3f\n", slope);
    CHECK(slope > -0.56 && slope < -0.43);
}

int main(void) {
    test_chan_lai();
    test_slope("best-of-n:");
    test_slope("is: gradient-scale=0.5 gradient-clip=0.3");
    test_slope("fk: score-every=1 ess-threshold=1");
    test_slope("fk: score-steps=2,3 potential=max");
    test_slope("tds: gradient-clip=0.5");
    test_slope("das: gradient-clip=0.5");
    test_slope("svdd: candidates=2");
    return check_done();
}
