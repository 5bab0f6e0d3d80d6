/* The laws that trees draw from, against exact answers, and the bias of the printed algorithm beside what removes it. Seeds are fixed; checks
 * of averages allow 5 standard errors. */
#include "tree_exact.h"
#include <kac/rng.h>

#define LITERAL "lambda=1 rollouts=1 epsilon=0 estimate=tree"
#define ROW "lambda=1 widening=1000000" /* the root grows without bound: independent samples */

typedef struct measured {
    exact_mean distance, z, ess;
} measured;

static void print_measured(const char *line, const measured *m) {
    printf("  %-62s TV %.4f ± %.4f  Z-hat / Z %.3f ± %.3f  ESS %.0f\n", line, m->distance.mean,
           exact_error(&m->distance), m->z.mean, exact_error(&m->z), m->ess.mean);
}

/* ---- the ring ---- */

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
    print_measured(line, &out);
    return out;
}

static void test_ring(double slope) {
    static const char *const unbiased[] = {"lambda=1", "lambda=1 epsilon=0.5", "lambda=1 build=tempered epsilon=0.1",
                                           "lambda=1 build=uniform estimate=tree", ROW};
    printf("ring, weights exp(%g i), 10000 evaluations of 25 steps\n", slope);
    const measured literal = measure_ring(slope, 10000, 12, LITERAL);
    measure_ring(slope, 10000, 12, "lambda=1 epsilon=0.2 estimate=tree");
    measure_ring(slope, 10000, 12, "lambda=1 build=tempered epsilon=0 estimate=tree");
    measure_ring(slope, 10000, 12, "lambda=1 epsilon=0");
    CHECK(literal.z.mean + 5 * exact_error(&literal.z) < 1.0);
    for (int i = 0; i < KAC_COUNT_OF(unbiased); i++) {
        const measured got = measure_ring(slope, 10000, 12, unbiased[i]);
        CHECK(fabs(got.z.mean - 1) <= 5 * exact_error(&got.z) && exact_error(&got.z) < 0.05);
        if (slope > 1) CHECK(got.distance.mean < 0.6 * literal.distance.mean);
    }
}

/* The distance falls as one over the root of the budget; that of the printed algorithm does not. */
static void test_slope(void) {
    printf("ring, budget 64-fold\n");
    const double few = measure_ring(1.5, 1000, 24, "lambda=1 epsilon=0.5").distance.mean,
                 many = measure_ring(1.5, 64000, 6, "lambda=1 epsilon=0.5").distance.mean;
    const double slope = log(many / few) / log(64);
    const double literal =
        log(measure_ring(1.5, 64000, 6, LITERAL).distance.mean / measure_ring(1.5, 1000, 24, LITERAL).distance.mean) /
        log(64);
    printf("  slope %.2f, printed algorithm %.2f\n", slope, literal);
    CHECK(slope < -0.35 && slope > -0.7);
    CHECK(literal > -0.25);
}

/* ---- early and late: what x_K has decided is found once and used often ---- */

static measured measure_early(const early_late *e, int64_t nfe, int n_seeds, const char *line) {
    tree_case c;
    measured out = {0};
    tree_case_init(&c, early_late_reward, e, 2);
    for (int seed = 0; seed < n_seeds; seed++) {
        kac_mixture *m = early_late_mixture(e, 25, (kac_mixture_options){1, 16, (uint64_t)seed, 0});
        if (tree_case_run(&c, kac_mixture_process(m), "dts", line, nfe, (uint64_t)seed, NULL)) {
            exact_add(&out.distance, early_late_distance(&c, e));
            exact_add(&out.z, exp(c.log_z - early_late_log_z(e)));
            exact_add(&out.ess, c.ess);
        }
        kac_mixture_destroy(m);
    }
    tree_case_free(&c);
    print_measured(line, &out);
    return out;
}

static void test_early(void) {
    const early_late e = {0.02, {6, 6}};
    printf("two rare events, one decided early: 15000 evaluations of 25 steps\n");
    const measured row = measure_early(&e, 15000, 24, ROW), literal = measure_early(&e, 15000, 24, LITERAL),
                   tree = measure_early(&e, 15000, 24, "lambda=1");
    measure_early(&e, 15000, 24, "lambda=1 epsilon=0.1 widening=4 widening-power=0.5");
    CHECK(tree.distance.mean + 3 * hypot(exact_error(&tree.distance), exact_error(&row.distance)) < row.distance.mean);
    CHECK(tree.distance.mean < literal.distance.mean);
    CHECK(fabs(tree.z.mean - 1) <= 5 * exact_error(&tree.z));
}

/* ---- one dimension: E Z-hat = Z and E Z-hat f-hat = Z E f at a small budget ---- */

typedef struct line_case {
    const char *what;
    kac_mixture *(*mixture)(uint64_t seed);
    double (*value)(const double *x, const void *how);
    double lambda, log_z, mean[2]; /* exact: log Z, target means of x and of x² or r */
    bool reward;                   /* the second is of r */
    int64_t nfe;
    int n_seeds;
} line_case;

static void test_line(const line_case *l, const char *settings) {
    tree_case c;
    exact_mean z = {0}, first = {0}, second = {0};
    char line[128];
    snprintf(line, sizeof line, "lambda=%g %s", l->lambda, settings);
    tree_case_init(&c, l->value, NULL, 1);
    for (int seed = 0; seed < l->n_seeds; seed++) {
        kac_mixture *m = l->mixture((uint64_t)seed);
        if (tree_case_run(&c, kac_mixture_process(m), "dts", line, l->nfe, (uint64_t)seed, NULL)) {
            double sums[2] = {0};
            for (int i = 0; i < c.n_points; i++) {
                const double x = c.points[i], p = exp(c.log_prob[i]);
                sums[0] += p * x;
                sums[1] += p * (l->reward ? l->value(&x, NULL) : x * x);
            }
            const double ratio = exp(c.log_z - l->log_z);
            exact_add(&z, ratio);
            exact_add(&first, ratio * sums[0]);
            exact_add(&second, ratio * sums[1]);
        }
        kac_mixture_destroy(m);
    }
    tree_case_free(&c);
    printf("%s, %s, %d trees of %d evaluations\n", l->what, line, l->n_seeds, (int)l->nfe);
    CHECK(exact_agrees(&z, 1.0, 5, 0.08, "E Z-hat / Z"));
    CHECK(exact_agrees(&first, l->mean[0], 5, 0.08, "E Z-hat x-hat / Z"));
    CHECK(exact_agrees(&second, l->mean[1], 5, 0.12, l->reward ? "E Z-hat r-hat / Z" : "E Z-hat x²-hat / Z"));
}

/* N(0.5, 0.8²) */
static kac_mixture *gaussian(uint64_t seed) {
    static const double mean[1] = {0.5};
    double bar[11] = {1};
    for (int n = 1; n <= 10; n++) bar[n] = exp(-0.05 * n * n);
    return tree_mixture("exact", 1, 1, NULL, mean, 0.8, 10, bar, (kac_mixture_options){1, 8, seed, 0});
}

/* −(x − b)² / 2 τ², b = 1.5, τ = 0.5 */
static double bell(const double *x, const void *how) {
    (void)how;
    return -(*x - 1.5) * (*x - 1.5) / (2 * 0.25);
}

/* Two Gaussians in one dimension, and a reward that is a table. */
static kac_mixture *pair(uint64_t seed) {
    static const double mean[2] = {-1, 2}, w[2] = {0.7, 0.3};
    double bar[11] = {1};
    for (int n = 1; n <= 10; n++) bar[n] = exp(-0.05 * n * n);
    return tree_mixture("exact", 2, 1, w, mean, 0.5, 10, bar, (kac_mixture_options){1, 8, seed, 0});
}

static const double bounds[] = {-1.5, -0.5, 0.5, 1.5, 2.5}, table[] = {0, 1, -2, 0.5, 2, -1};

static double by_table(const double *x, const void *how) {
    (void)how;
    int i = 0;
    while (i < 5 && *x > bounds[i]) i++;
    return table[i];
}

/* Z and the moments by Simpson's rule over each piece. */
static line_case pair_case(void) {
    double sums[3] = {0};
    for (int i = 0; i < 6; i++) {
        const double low = i == 0 ? -6 : bounds[i - 1], high = i == 5 ? 7 : bounds[i], h = (high - low) / 2000;
        for (int j = 0; j <= 2000; j++) {
            const double x = low + h * j, weight = (j == 0 || j == 2000 ? 1 : j % 2 == 1 ? 4 : 2) * h / 3;
            const double p = (0.7 * exp(-2 * (x + 1) * (x + 1)) + 0.3 * exp(-2 * (x - 2) * (x - 2))) / sqrt(M_PI / 2);
            for (int k = 0; k < 3; k++) sums[k] += weight * p * exp(table[i]) * pow(x, k);
        }
    }
    return (line_case){.what = "a table as reward",
                       .mixture = pair,
                       .value = by_table,
                       .lambda = 1,
                       .log_z = log(sums[0]),
                       .mean = {sums[1] / sums[0], sums[2] / sums[0]},
                       .nfe = 1000,
                       .n_seeds = 400};
}

static double wavy(const double *x, const void *how) {
    (void)how;
    return -0.4 * (*x - 1.5) * (*x - 1.5) + 0.3 * sin(3 * *x);
}

/* The sampler whose law exact_test.c knows by quadrature. */
static kac_mixture *ddim(uint64_t seed) {
    kac_text t = {0};
    kac_text_add(
        &t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-2], [1], [3]], "
            "\"covariances\": [[[0.1]], [[0.4]], [[0.2]]], \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": [");
    for (int n = 0; n < 12; n++)
        kac_text_add(&t, "%s%.17g", n > 0 ? ", " : "", pow(cos((0.02 + (0.995 - 0.02) * n / 11) * M_PI / 2), 2));
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "1-D", &(kac_mixture_options){1, 8, seed, 1}));
    kac_text_free(&t);
    return m;
}

static void test_lines(void) {
    const double s2 = 0.64, tau2 = 0.25, mean = (0.5 / s2 + 1.5 / tau2) / (1 / s2 + 1 / tau2);
    const line_case cases[] = {{.what = "Gaussian",
                                .mixture = gaussian,
                                .value = bell,
                                .lambda = 1,
                                .log_z = -0.5 * log(1 + s2 / tau2) - 1.0 / (2 * (s2 + tau2)),
                                .mean = {mean, mean * mean + 1 / (1 / s2 + 1 / tau2)},
                                .nfe = 1000,
                                .n_seeds = 400},
                               pair_case(),
                               {.what = "DDIM, law by quadrature",
                                .mixture = ddim,
                                .value = wavy,
                                .lambda = 1.5,
                                .log_z = -1.09307392,
                                .mean = {1.36283307, -0.21268466},
                                .reward = true,
                                .nfe = 1200,
                                .n_seeds = 400}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        test_line(&cases[i], "");
        test_line(&cases[i], "rollouts=1 widening=1.5 widening-power=0.6");
        test_line(&cases[i], "build=uniform estimate=tree rollouts=3");
        test_line(&cases[i], "build=tempered branch-steps=0,3,4,7");
    }
}

/* ---- a finite chain ---- */

enum { N_STATES = 16, N_STEPS = 5, CHAIN_SLOTS = 8, CHAIN_PLACES = 20000 };

typedef struct chain {
    kac_process process;
    double first[N_STATES], kernel[N_STEPS][N_STATES][N_STATES], reward[N_STATES], value[N_STEPS + 1][N_STATES];
    int state[CHAIN_SLOTS], kept[CHAIN_PLACES];
    uint64_t key[CHAIN_SLOTS], seed;
} chain;

static int draw_state(const chain *c, const double *p, uint32_t purpose, int i_step, uint64_t particle) {
    const kac_key key = kac_key_of_particle((kac_key){c->seed, purpose, (uint32_t)i_step}, particle);
    const double u = kac_rng_uniform(key, (uint32_t)particle, 0);
    int k = 0;
    for (double sum = p[0]; k + 1 < N_STATES && sum <= u;) sum += p[++k];
    return k;
}

static kac_status chain_start(kac_process *p, const int *slots, int n) {
    chain *c = p->self;
    for (int i = 0; i < n; i++) c->state[slots[i]] = draw_state(c, c->first, KAC_PURPOSE_INIT, 0, c->key[slots[i]]);
    return KAC_OK;
}

static kac_status chain_predict(kac_process *p, int i_step, const int *slots, int n) {
    (void)p, (void)i_step, (void)slots, (void)n;
    return KAC_OK;
}

static kac_status chain_step(kac_process *p, int i_step, const int *from, const int *to, int n) {
    chain *c = p->self;
    for (int i = 0; i < n; i++)
        c->state[to[i]] = draw_state(c, c->kernel[i_step][c->state[from[i]]], KAC_PURPOSE_STEP, i_step, c->key[to[i]]);
    return KAC_OK;
}

static void chain_rekey(kac_process *p, const int *slots, int n, const uint64_t *keys) {
    for (int i = 0; i < n; i++) ((chain *)p->self)->key[slots[i]] = keys[i];
}

static kac_status chain_store(kac_process *p, const int *slots, int n, const int64_t *places) {
    chain *c = p->self;
    for (int i = 0; i < n && CHECK(places[i] < CHAIN_PLACES); i++) c->kept[places[i]] = c->state[slots[i]];
    return KAC_OK;
}

static kac_status chain_fetch(kac_process *p, const int64_t *places, const int *slots, int n) {
    chain *c = p->self;
    for (int i = 0; i < n; i++) c->state[slots[i]] = c->kept[places[i]];
    return KAC_OK;
}

static kac_status chain_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    const chain *c = p->self;
    (void)stage;
    for (int i = 0; i < n; i++) out[i] = c->reward[c->state[slots[i]]];
    ((tree_case *)r->self)->n_points += n;
    return KAC_OK;
}

/* Rows that prefer a few states; V by products with the kernels. Returns log Z. */
static double make_chain(chain *c, double lambda) {
    *c = (chain){.process = {.self = c,
                             .n_steps = N_STEPS,
                             .n_groups = 1,
                             .n_per_group = CHAIN_SLOTS,
                             .stochastic = true,
                             .n_state = 1,
                             .start = chain_start,
                             .predict = chain_predict,
                             .step = chain_step,
                             .rekey = chain_rekey,
                             .store = chain_store,
                             .fetch = chain_fetch}};
    int64_t at = 0;
    for (int row = -1; row < N_STEPS * N_STATES; row++) {
        double *p = row < 0 ? c->first : c->kernel[row / N_STATES][row % N_STATES], all = 0;
        for (int i = 0; i < N_STATES; i++)
            all += p[i] = pow(kac_rng_uniform((kac_key){8, KAC_PURPOSE_TEST, 0}, 0, at++), 4);
        for (int i = 0; i < N_STATES; i++) p[i] /= all;
    }
    for (int i = 0; i < N_STATES; i++) c->reward[i] = 3 * kac_rng_uniform((kac_key){8, KAC_PURPOSE_TEST, 1}, 0, i);
    double z = 0;
    for (int i = 0; i < N_STATES; i++) c->value[N_STEPS][i] = exp(lambda * c->reward[i]);
    for (int k = N_STEPS - 1; k >= 0; k--)
        for (int i = 0; i < N_STATES; i++)
            for (int j = 0; j < N_STATES; j++) c->value[k][i] += c->kernel[k][i][j] * c->value[k + 1][j];
    for (int i = 0; i < N_STATES; i++) z += c->first[i] * c->value[0][i];
    return log(z);
}

/* The tilted law of x_0. */
static void chain_target(const chain *c, double lambda, double *out) {
    double now[N_STATES], all = 0;
    memcpy(now, c->first, sizeof now);
    for (int k = 0; k < N_STEPS; k++) {
        double next[N_STATES] = {0};
        for (int i = 0; i < N_STATES; i++)
            for (int j = 0; j < N_STATES; j++) next[j] += now[i] * c->kernel[k][i][j];
        memcpy(now, next, sizeof now);
    }
    for (int i = 0; i < N_STATES; i++) all += out[i] = now[i] * exp(lambda * c->reward[i]);
    for (int i = 0; i < N_STATES; i++) out[i] /= all;
}

/* exp(λ v) of the nodes, whose values are their states', over exp(λ V); and the law of the samples. */
static void add_nodes(const chain *c, const tree_case *e, double lambda, double *mass, exact_mean *values) {
    double sums[N_STEPS + 1] = {0}, n[N_STEPS + 1] = {0};
    for (int64_t i = 1; i < e->tree.n_nodes; i++) {
        const int state = c->kept[i - 1], step = e->tree.i_step[i];
        sums[step] += exp(lambda * e->tree.value[i]) / c->value[step][state];
        n[step]++;
        if (step == N_STEPS) mass[state] += exp(e->tree.log_prob[i]);
    }
    for (int k = 0; k <= N_STEPS; k++) exact_add(&values[k], sums[k] / n[k]);
}

/* even: no node's growth depends on its values, so that each is unbiased given its state. */
static void test_chain(const char *settings, int64_t nfe, bool unbiased, bool even) {
    enum { N_SEEDS = 60 };
    static chain c;
    const double lambda = 2, log_z = make_chain(&c, lambda);
    double want[N_STATES], mass[N_STATES] = {0}, off = 0;
    char line[128];
    exact_mean z = {0}, values[N_STEPS + 1] = {{0}};
    chain_target(&c, lambda, want);
    snprintf(line, sizeof line, "lambda=%g branch-steps=0,1,2,3,4 %s", lambda, settings);
    tree_case e;
    tree_case_init(&e, NULL, NULL, 1);
    e.reward.score = chain_score;
    for (int seed = 0; seed < N_SEEDS; seed++) {
        kac_particles out = {0};
        c.seed = (uint64_t)seed;
        if (tree_case_run(&e, &c.process, "dts", line, nfe, (uint64_t)seed, &out)) {
            exact_add(&z, exp(out.log_z[0] - log_z));
            add_nodes(&c, &e, lambda, mass, values);
            for (int i = 0; i < CHAIN_SLOTS; i++) CHECK(out.rewards[i] == c.reward[c.state[i]]);
        }
        kac_particles_free(&out);
    }
    tree_case_free(&e);
    for (int i = 0; i < N_STATES; i++) off += 0.5 * fabs(mass[i] / N_SEEDS - want[i]);
    printf("finite chain, %s, %d evaluations: TV of the mean law %.4f\n", line, (int)nfe, off);
    CHECK(exact_agrees(&z, 1.0, 5, 0.05, "E Z-hat / Z") == unbiased);
    CHECK((off < 0.04) == unbiased);
    for (int k = 0; k < N_STEPS && even; k++) CHECK(exact_agrees(&values[k], 1.0, 5, 0.05, "values of a level"));
    for (int k = 0; k < N_STEPS && !even; k++) printf("  values of level %d: %.3f\n", k, values[k].mean);
    CHECK_NEAR(values[N_STEPS].mean, 1.0, 1e-12);
}

static void test_chains(void) {
    test_chain("", 5000, true, false);
    test_chain("build=uniform estimate=tree", 5000, true, true);
    test_chain("build=uniform estimate=tree rollouts=1 widening=1 widening-power=0.5", 2000, true, true);
    test_chain("rollouts=1 widening=1 widening-power=0.6", 3000, true, false);
    test_chain("rollouts=1 epsilon=0 estimate=tree", 2000, false, false);
}

int main(void) {
    test_chains();
    test_lines();
    test_ring(1.5);
    test_ring(0.3);
    test_early();
    test_slope();
    return check_done();
}
