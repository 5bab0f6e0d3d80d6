/* Trees against exact answers: what must hold to the bit, and the laws of the samples that they hold. Seeds are fixed; checks of averages
 * allow 5 standard errors. */
#include "tree_exact.h"
#include <stdlib.h>

/* ---- a tree whose root may grow without bound, and one before its first choice, is a row of independent samples ---- */

static void test_row(const char *method, const char *line, int64_t n_samples) {
    enum { K = 30 };
    ring r;
    tree_case c;
    kac_particles tree = {0}, row = {0};
    ring_init(&r, 0.3);
    tree_case_init(&c, ring_reward, &r, 2);
    const kac_mixture_options o = {3, K, 11, 0};
    kac_mixture *m = ring_mixture(&r, 10, o), *plain = ring_mixture(&r, 10, o);
    kac_reward again = c.reward;
    if (tree_case_run(&c, kac_mixture_process(m), method, line, 10 * n_samples + 9, 3, &tree) &&
        CHECK_OK(exact_run(&row, kac_mixture_process(plain), &again, NULL, "best-of-n", "lambda=2", 3))) {
        CHECK(kac_mixture_evaluations(m) == 3 * 10 * n_samples);
        for (int g = 0; g < 3 && n_samples == K; g++) {
            double best = -INFINITY;
            if (strcmp(method, "dts") == 0) CHECK_NEAR(tree.log_z[g], row.log_z[g], 1e-12);
            for (int i = g * K; i < (g + 1) * K; i++) best = fmax(best, row.rewards[i]);
            if (strcmp(method, "dts-star") == 0) CHECK(tree.rewards[g * K] == best);
            for (int i = g * K; i < (g + 1) * K; i++) {
                bool found = false; /* every result is one of the plain samples, to the bit */
                const double *x = kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL);
                for (int j = g * K; j < (g + 1) * K; j++)
                    found |= memcmp(x, kac_mixture_point(kac_mixture_process(plain), j, KAC_STAGE_FINAL),
                                    2 * sizeof *x) == 0 &&
                             tree.rewards[i] == row.rewards[j];
                CHECK(found);
            }
        }
    }
    kac_particles_free(&tree), kac_particles_free(&row);
    kac_mixture_destroy(m), kac_mixture_destroy(plain);
    tree_case_free(&c);
}

static void test_rows(void) {
    test_row("dts", "lambda=2", 30);
    test_row("dts", "lambda=2 rollouts=1 epsilon=0 estimate=tree", 30);
    test_row("dts", "lambda=2 rollouts=7 build=uniform estimate=tree branch-steps=0,9", 30);
    test_row("dts", "lambda=2 rollouts=30 widening=1000", 200);
    test_row("dts-star", "lambda=2", 30);
    test_row("dts-star", "lambda=2 rollouts=1 final=path exploration=3", 30);
    test_row("dts-star", "lambda=2 rollouts=30 backup=max", 30);
}

/* ---- the ring: bias of the printed algorithm and what remains of it under other settings ---- */

typedef struct measured {
    exact_mean distance, z, ess;
} measured;

static measured measure_ring(double slope, int64_t nfe, int n_seeds, const char *line) {
    ring r;
    tree_case c;
    measured out = {0};
    ring_init(&r, slope);
    tree_case_init(&c, ring_reward, &r, 2);
    for (int seed = 0; seed < n_seeds; seed++) {
        kac_mixture *m = ring_mixture(&r, 4, (kac_mixture_options){1, 16, (uint64_t)seed, 0});
        if (tree_case_run(&c, kac_mixture_process(m), "dts", line, nfe, (uint64_t)seed, NULL)) {
            exact_add(&out.distance, ring_distance(&c, &r));
            exact_add(&out.z, exp(c.log_z));
            exact_add(&out.ess, c.ess);
            CHECK(kac_mixture_evaluations(m) == c.nfe);
        }
        kac_mixture_destroy(m);
    }
    tree_case_free(&c);
    printf("  %-58s TV %.4f ± %.4f  Z %.3f ± %.3f  ESS %.0f\n", line, out.distance.mean, exact_error(&out.distance),
           out.z.mean, exact_error(&out.z), out.ess.mean);
    return out;
}

static void test_ring(double slope) {
    static const char *const unbiased[] = {"lambda=1", "lambda=1 epsilon=0.5", "lambda=1 build=tempered epsilon=0.1",
                                           "lambda=1 build=uniform estimate=tree", "lambda=1 widening=1000000"};
    printf("ring, reward weights exp(%g i), 10000 evaluations at 25 steps\n", slope);
    const measured literal = measure_ring(slope, 10000, 12, "lambda=1 rollouts=1 epsilon=0 estimate=tree");
    measure_ring(slope, 10000, 12, "lambda=1 build=tempered epsilon=0 estimate=tree");
    CHECK(literal.z.mean + 5 * exact_error(&literal.z) < 1.0);
    for (int i = 0; i < KAC_COUNT_OF(unbiased); i++) {
        const measured got = measure_ring(slope, 10000, 12, unbiased[i]);
        CHECK(fabs(got.z.mean - 1) <= 5 * exact_error(&got.z) && exact_error(&got.z) < 0.05);
        if (slope > 1) CHECK(got.distance.mean < 0.6 * literal.distance.mean);
    }
}

int main(void) {
    test_rows();
    test_ring(1.5);
    test_ring(0.3);
    return check_done();
}
