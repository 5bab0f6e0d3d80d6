/* What the exact tests share: the instances whose answers are known, runs of a method over many independent groups, and estimates
 * with their standard errors. */
#ifndef KAC_TESTS_SAMPLERS_EXACT_H
#define KAC_TESTS_SAMPLERS_EXACT_H

#include "base/base.h"
#include "check.h"
#include "samplers/gaussian.h"
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

/* Which component of instance G, tilted by exp(lambda r), a point belongs to, as probabilities. */
static inline void exact_membership(double lambda, const double *x, double *out) {
    static const double pi[3] = {0.5, 0.3, 0.2}, mean[3][2] = {{-2, 0}, {2, 1}, {0, -2.5}};
    static const double cov[3][3] = {{0.25, 0, 0.25}, {0.5, 0.1, 0.4}, {0.3, 0, 0.8}}; /* xx, xy, yy */
    static const double A[2] = {1, 0.5}, b[2] = {0.2, -0.1}, centre[2] = {1, 1}, c = 0.3;
    double log_p[3];
    for (int k = 0; k < 3; k++) { /* prior component times exp(lambda r): the tilted component up to one constant */
        const double det = cov[k][0] * cov[k][2] - cov[k][1] * cov[k][1], u = x[0] - mean[k][0], v = x[1] - mean[k][1];
        const double square = (cov[k][2] * u * u - 2 * cov[k][1] * u * v + cov[k][0] * v * v) / det;
        log_p[k] = log(pi[k]) - 0.5 * log(det) - 0.5 * square;
        log_p[k] += lambda * (c + b[0] * x[0] + b[1] * x[1] -
                                 0.5 * (A[0] * pow(x[0] - centre[0], 2) + A[1] * pow(x[1] - centre[1], 2)));
    }
    const double all = kac_log_sum_exp(log_p, 3);
    for (int k = 0; k < 3; k++) out[k] = exp(log_p[k] - all);
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

/* ---- every method that claims base × exp(lambda r), on any problem whose answer is known ---- */

typedef struct exact_claim {
    const char *how; /* "method: its options" */
    bool guided;     /* follows a gradient */
    bool main;       /* one of few that stand for all, where a run costs more */
} exact_claim;

static const exact_claim exact_claims[] = {
    {"best-of-n:", false, true},
    {"is: gradient-scale=0", false, false},
    {"fk: potential=difference", false, true},
    {"fk: potential=max", false, true},
    {"fk: potential=sum", false, false},
    {"fk: potential=reward", false, false},
    {"fk: ess-threshold=0 resampling=multinomial", false, false},
    {"fk: ess-threshold=1 resampling=ssp", false, true},
    {"fk: ess-threshold=1 potential=max resampling=residual", false, false},
    {"tds: gradient-scale=0", false, false},
    {"das: gradient-scale=0", false, false},
    {"svdd: candidates=4", false, true},
    {"svdd: candidates=2", false, false},
    {"is: gradient-scale=0.5 gradient-clip=0.3", true, true},
    {"fk: gradient-scale=1 gradient-clip=0.5", true, true},
    {"tds: gradient-clip=0.5", true, true},
    {"das: gradient-clip=0.5", true, true},
};

/* Runs "method: its options" with lambda. */
static inline kac_status exact_run_claim(kac_particles *out, kac_process *p, kac_reward *r, kac_events *e,
                                         const char *how, double lambda, uint64_t seed) {
    char method[32], line[256];
    const char *colon = strchr(how, ':');
    snprintf(method, sizeof method, "%.*s", (int)(colon - how), how);
    snprintf(line, sizeof line, "lambda=%.17g%s", lambda, colon + 1);
    return exact_run(out, p, r, e, method, line, seed);
}

/* A function of a final state, number `which`. */
typedef double exact_function(kac_process *p, int slot, int which);

enum { EXACT_FUNCTIONS = 128 };

/* Σ_groups Z-hat / Z and Z-hat f-hat / Z of one run; with these E = 1 and E = E_target f for any number of particles. */
typedef struct exact_moments {
    exact_mean z, f[EXACT_FUNCTIONS];
} exact_moments;

static inline void exact_measure(exact_moments *m, kac_process *p, kac_reward *r, const char *how, double lambda,
                                 double log_z, int n_functions, exact_function *f) {
    kac_particles out = {0};
    *m = (exact_moments){0};
    if (!CHECK_OK(exact_run_claim(&out, p, r, NULL, how, lambda, 17))) return;
    const int k = p->n_per_group;
    for (int g = 0; g < p->n_groups; g++) {
        const double *log_w = out.log_weights + g * k, ratio = exp(out.log_z[g] - log_z);
        double top = -INFINITY, sum = 0, sums[EXACT_FUNCTIONS] = {0};
        for (int i = 0; i < k; i++) top = fmax(top, log_w[i]);
        for (int i = 0; i < k; i++) {
            const double w = exp(log_w[i] - top);
            sum += w;
            for (int j = 0; j < n_functions; j++) sums[j] += w * f(p, g * k + i, j);
        }
        exact_add(&m->z, ratio);
        for (int j = 0; j < n_functions; j++) exact_add(&m->f[j], ratio * sums[j] / sum);
    }
    kac_particles_free(&out);
}

/* The main claims on one problem. A new process for each, so that each has the same noise. */
static inline void exact_check_claims(const char *problem, kac_mixture *(*make)(void), kac_reward *r, double lambda,
                                      double log_z, int n_functions, exact_function *f, const double *want,
                                      double at_most) {
    printf("%s\n", problem);
    for (int i = 0; i < KAC_COUNT_OF(exact_claims); i++) {
        if (!exact_claims[i].main || (exact_claims[i].guided && r->grad == NULL)) continue;
        kac_mixture *m = make();
        static exact_moments have;
        printf(" %s\n", exact_claims[i].how);
        exact_measure(&have, kac_mixture_process(m), r, exact_claims[i].how, lambda, log_z, n_functions, f);
        CHECK(exact_agrees(&have.z, 1.0, 5, at_most, "E Z-hat / Z"));
        for (int j = 0; j < n_functions; j++)
            CHECK(exact_agrees(&have.f[j], want[j], 5, at_most, "E Z-hat f-hat / Z"));
        kac_mixture_destroy(m);
    }
}

/* ---- a reward that is a function of a mixture's point, with its gradient by differences ---- */

typedef struct exact_field {
    kac_reward reward;
    int d;
    double (*f)(const double *x);
} exact_field;

static inline kac_status exact_field_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage,
                                           double *out) {
    const exact_field *field = r->self;
    for (int i = 0; i < n; i++) out[i] = field->f(kac_mixture_point(p, slots[i], stage));
    return KAC_OK;
}

static inline kac_status exact_field_grad(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage,
                                          double *out, float *d_state) {
    const exact_field *field = r->self;
    for (int i = 0; i < n; i++) {
        double x[8];
        memcpy(x, kac_mixture_point(p, slots[i], stage), (size_t)field->d * sizeof *x);
        out[i] = field->f(x);
        for (int j = 0; j < field->d; j++) {
            const double at = x[j];
            x[j] = at + 1e-4;
            const double up = field->f(x);
            x[j] = at - 1e-4;
            d_state[i * field->d + j] = (float)((up - field->f(x)) / 2e-4);
            x[j] = at;
        }
    }
    return KAC_OK;
}

/* `field` must stay where it is. */
static inline kac_reward *exact_field_init(exact_field *field, int d, double (*f)(const double *x), bool has_gradient) {
    *field = (exact_field){.d = d, .f = f};
    field->reward = (kac_reward){.self = field, .name = "field", .score = exact_field_score};
    if (has_gradient) field->reward.grad = exact_field_grad;
    return &field->reward;
}

#endif
