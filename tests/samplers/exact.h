/* What the exact tests share: the instances whose answers are known, runs of a method over many independent groups, and estimates
 * with their standard errors. */
#ifndef KAC_TESTS_SAMPLERS_EXACT_H
#define KAC_TESTS_SAMPLERS_EXACT_H

#include "base/base.h"
#include "check.h"
#include <kac/mixture.h>
#include <kac/steer.h>

enum { EXACT_STEPS = 20 };

/* Prior of instance G: three components in two dimensions, none of them round. */
#define EXACT_PRIOR                                                                                                    \
    "\"weights\": [0.5, 0.3, 0.2], \"means\": [[-2, 0], [2, 1], [0, -2.5]], "                                          \
    "\"covariances\": [[[0.25, 0], [0, 0.25]], [[0.5, 0.1], [0.1, 0.4]], [[0.3, 0], [0, 0.8]]]"
#define EXACT_REWARD "{\"A\": [[1, 0], [0, 0.5]], \"a\": [1, 1], \"b\": [0.2, -0.1], \"c\": 0.3}"

/* Exact answers for the tilted mixture. */
typedef struct exact_answer {
    double lambda, log_z, mass[3], mean[2], reward;
} exact_answer;

static const exact_answer exact_answers[] = {
    {1.0, -1.1876599046, {0.030679, 0.907880, 0.061441}, {1.545241, 0.744632}, -0.1621983004},
    {4.0, -0.7471617971, {0.000079, 0.995882, 0.004039}, {1.459744, 0.847246}, 0.2552450582}};

/* -log alpha-bar(t) = t/2 + 11.75 t² at t = n/20. */
static inline char *exact_mixture_text(const char *kernel) {
    kac_text t = {0};
    kac_text_add(&t,
                 "{\"_class_name\": \"GaussianMixture\", %s, \"kernel\": \"%s\", \"schedule\": {\"alphas_cumprod\": [",
                 EXACT_PRIOR, kernel);
    for (int n = 1; n <= EXACT_STEPS; n++) {
        const double time = (double)n / EXACT_STEPS;
        kac_text_add(&t, "%s%.17g", n > 1 ? ", " : "", exp(-2.0 * (0.25 * time + 0.5 * time * time * 11.75)));
    }
    kac_text_add(&t, "]}}");
    return t.s;
}

static inline kac_mixture *exact_mixture(const char *kernel, double eta, int n_groups, int n_per_group, uint64_t seed) {
    kac_mixture *m = NULL;
    char *text = exact_mixture_text(kernel);
    const kac_mixture_options o = {.n_groups = n_groups, .n_per_group = n_per_group, .seed = seed, .eta = eta};
    CHECK_OK(kac_mixture_parse(&m, text, strlen(text), "G", &o));
    kac_free(text);
    return m;
}

static inline kac_reward *exact_reward(void) {
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, EXACT_REWARD, strlen(EXACT_REWARD), "R"));
    return r;
}

/* "lambda=1 potential=max": options of a method, set from one line. */
static inline kac_options *exact_options(const char *method, const char *line) {
    kac_options *o = kac_options_create(kac_method_find(method)->options);
    char name[64], value[64];
    int used = 0;
    while (sscanf(line, " %63[^=]=%63s%n", name, value, &used) == 2) {
        CHECK_OK(kac_options_set(o, name, value));
        line += used;
    }
    return o;
}

static inline kac_status exact_run(kac_particles *out, kac_process *p, kac_reward *r, kac_events *e, const char *method,
                                   const char *line, uint64_t seed) {
    kac_options *o = exact_options(method, line);
    const kac_status status = kac_method_find(method)->run(out, p, r, e, o, seed);
    kac_options_destroy(o);
    return status;
}

/* Mean and standard error of values that come one by one. */
typedef struct exact_mean {
    int n;
    double mean, squares;
} exact_mean;

static inline void exact_add(exact_mean *m, double value) {
    const double off = value - m->mean;
    m->n++;
    m->mean += off / m->n;
    m->squares += off * (value - m->mean);
}

static inline double exact_error(const exact_mean *m) {
    return sqrt(m->squares / m->n / (m->n - 1));
}

/* The mean lies within `sigmas` standard errors and 0.002, and no farther than `at_most`, of what it should be. */
static inline bool exact_agrees(const exact_mean *m, double want, double sigmas, double at_most, const char *what) {
    const double off = fabs(m->mean - want), error = exact_error(m);
    const bool good = off <= sigmas * error + 0.002 && off <= at_most;
    printf("  %-28s %.5f ± %.5f, exact %.5f%s\n", what, m->mean, error, want, good ? "" : "   (off)");
    return good;
}

#endif
