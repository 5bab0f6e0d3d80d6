/* Steering against exact answers: instance G with its exact kernel, unbiasedness at small k, a discrete sampler whose law is
 * known by quadrature, and published mistakes, which the same checks must catch. All seeds are fixed; a check allows 5
 * standard errors and 0.002 (averages over one group's weights are biased by O(1/k), and rare components are skewed), and sets
 * an absolute limit that a large standard error cannot hide. */
#include "exact.h"
#include "samplers/gaussian.h"
#include "samplers/resample.h"
#include "samplers/swarm.h"

typedef kac_status runner(kac_particles *out, kac_process *p, kac_reward *r, const void *how, double lambda);

/* A method as "name: its option line"; without a name it is fk. */
static kac_status run_method(kac_particles *out, kac_process *p, kac_reward *r, const void *how, double lambda) {
    const char *line = how, *colon = strchr(line, ':');
    char text[32], method[32] = "fk";
    if (colon != NULL) snprintf(method, sizeof method, "%.*s", (int)(colon - line), line);
    kac_options *o = exact_options(method, colon == NULL ? line : colon + 1);
    snprintf(text, sizeof text, "%g", lambda);
    CHECK_OK(kac_options_set(o, "lambda", text));
    const kac_status status = kac_method_find(method)->run(out, p, r, NULL, o, 77);
    kac_options_destroy(o);
    return status;
}

/* Many particles: weighted averages against the tilted mixture. True when everything agrees. Methods without an estimate of log Z
 * give NAN and are judged by the rest. */
static bool agrees_with_target(runner *run, const void *how, const exact_answer *a, int n_groups, int k,
                               double at_most) {
    kac_mixture *m = exact_mixture("exact", 0, n_groups, k, 5);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    exact_mean reward = {0}, mass[3] = {{0}}, mean[2] = {{0}}, z = {0};
    if (CHECK_OK(run(&out, kac_mixture_process(m), r, how, a->lambda))) {
        double *w = kac_alloc((size_t)k * sizeof *w);
        for (int g = 0; g < n_groups; g++) {
            double sums[6] = {0};
            kac_log_weights_normalise(w, out.log_weights + g * k, k);
            for (int i = 0; i < k; i++) {
                const double *x = kac_mixture_point(kac_mixture_process(m), g * k + i, KAC_STAGE_FINAL);
                double member[3];
                exact_membership(a->lambda, x, member);
                sums[0] += w[i] * out.rewards[g * k + i];
                for (int j = 0; j < 3; j++) sums[1 + j] += w[i] * member[j];
                for (int j = 0; j < 2; j++) sums[4 + j] += w[i] * x[j];
            }
            exact_add(&reward, sums[0]);
            for (int j = 0; j < 3; j++) exact_add(&mass[j], sums[1 + j]);
            for (int j = 0; j < 2; j++) exact_add(&mean[j], sums[4 + j]);
            exact_add(&z, exp(out.log_z[g] - a->log_z));
        }
        kac_free(w);
    }
    printf("%s, lambda %g, %d groups of %d\n", run == run_method ? (const char *)how : "a published variant", a->lambda,
           n_groups, k);
    bool good = exact_agrees(&reward, a->reward, 5, at_most, "E r");
    for (int j = 0; j < 3; j++) good = exact_agrees(&mass[j], a->mass[j], 5, at_most, "component mass") && good;
    for (int j = 0; j < 2; j++) good = exact_agrees(&mean[j], a->mean[j], 5, at_most, "mean") && good;
    if (!isnan(z.mean)) good = exact_agrees(&z, 1.0, 5, at_most, "Z-hat / Z") && good;
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    return good;
}

#define EVERY_STEP "score-every=1 score-start=0 score-end=19 "
#define FEW_STEPS "score-steps=10,15,18 "

/* Guided proposals and further methods, all with the same target; and those whose law is not exact, which the same check must tell. */
static void test_methods(void) {
    static const char *const exact[] = {
        EVERY_STEP "gradient-scale=1",
        "fk: score-steps=10,15 gradient-scale=1 gradient-form=score gradient-clip=0.5",
        "tds:",
        "tds: ess-threshold=0.5 gradient-clip=0.5 gradient-end=0.7",
        "tds: gradient-form=direction gradient-scale=0.3",
        "das:",
        "das: tempering=linear tempering-start=0.2 gradient-clip=0.7",
        "das: tempering=none gradient-scale=0",
        "is:",
        "is: gradient-scale=0.7 gradient-clip=0.5",
    };
    for (int i = 0; i < KAC_COUNT_OF(exact); i++)
        CHECK(agrees_with_target(run_method, exact[i], &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, "svdd: candidates=4", &exact_answers[0], 16, 2000, 0.15));
    CHECK(agrees_with_target(run_method, "svdd: candidates=20", &exact_answers[0], 16, 4000, 0.15));
    CHECK(agrees_with_target(run_method, "das: tempering=linear tempering-start=0.75", &exact_answers[1], 16, 4000,
                             0.06));
    CHECK(!agrees_with_target(run_method, "dps:", &exact_answers[0], 16, 2000, 0.06));
    CHECK(!agrees_with_target(run_method, "svdd: candidates=4 carry=false", &exact_answers[0], 16, 2000, 0.06));
    CHECK(!agrees_with_target(run_method, "svdd: candidates=20 choice=best carry=false", &exact_answers[0], 16, 4000,
                              0.06));
}

static void test_target(void) {
    CHECK(agrees_with_target(run_method, EVERY_STEP "potential=difference", &exact_answers[0], 16, 2000, 0.06));
    /* at lambda 4 early scoring costs more variance than it saves */
    CHECK(agrees_with_target(run_method, "score-steps=18,19", &exact_answers[1], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, "score-steps=16,18 ess-threshold=0.1 resampling=ssp", &exact_answers[1], 16,
                             2000, 0.06));
    CHECK(agrees_with_target(run_method, EVERY_STEP "potential=max", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, FEW_STEPS "potential=sum", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, FEW_STEPS "potential=reward", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, FEW_STEPS "ess-threshold=1 resampling=multinomial", &exact_answers[0], 16,
                             2000, 0.06));
    CHECK(agrees_with_target(run_method, FEW_STEPS "ess-threshold=0", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, "resampling=stratified", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, EVERY_STEP "resampling=residual", &exact_answers[0], 16, 2000, 0.06));
    CHECK(agrees_with_target(run_method, EVERY_STEP "resampling=ssp", &exact_answers[0], 16, 2000, 0.06));
}

/* ---- small k: E[Z-hat] = Z and E[Z-hat · r-hat] = Z E r hold for any number of particles ---- */

static void test_unbiased(const char *method, const char *line, int k, int n_groups) {
    const exact_answer *a = &exact_answers[0];
    kac_mixture *m = exact_mixture("exact", 0, n_groups, k, 1234);
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    exact_mean z = {0}, zr = {0};
    if (CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, method, line, 9))) {
        double w[64];
        for (int g = 0; g < n_groups; g++) {
            const double ratio = exp(out.log_z[g] - a->log_z);
            double reward = 0;
            kac_log_weights_normalise(w, out.log_weights + g * k, k);
            for (int i = 0; i < k; i++) reward += w[i] * out.rewards[g * k + i];
            exact_add(&z, ratio);
            exact_add(&zr, ratio * reward);
        }
    }
    printf("%s %s, k = %d, %d groups\n", method, line, k, n_groups);
    CHECK(exact_agrees(&z, 1.0, 5, 0.08, "E Z-hat / Z"));
    CHECK(exact_agrees(&zr, a->reward, 5, 0.08, "E Z-hat r-hat / Z"));
    kac_particles_free(&out);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
}

/* ---- the discrete sampler itself: 1-D DDIM, whose law was found by quadrature on a grid ---- */

static kac_status wavy_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    (void)r;
    for (int i = 0; i < n; i++) {
        const double x = *kac_mixture_point(p, slots[i], stage);
        out[i] = -0.4 * (x - 1.5) * (x - 1.5) + 0.3 * sin(3.0 * x);
    }
    return KAC_OK;
}

static kac_status wavy_grad(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out,
                            float *d_state) {
    KAC_TRY(wavy_score(r, p, slots, n, stage, out));
    for (int i = 0; i < n; i++) {
        const double x = *kac_mixture_point(p, slots[i], stage);
        d_state[i] = (float)(-0.8 * (x - 1.5) + 0.9 * cos(3.0 * x));
    }
    return KAC_OK;
}

typedef struct quadrature {
    double eta, log_z, reward, x, above_two, base_reward;
} quadrature;

static kac_mixture *ddim_mixture(double eta, int n_groups, int k) {
    kac_text t = {0};
    kac_text_add(
        &t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.3, 0.2], \"means\": [[-2], [1], [3]], "
            "\"covariances\": [[[0.1]], [[0.4]], [[0.2]]], \"kernel\": \"ddim\", \"schedule\": {\"alphas_cumprod\": [");
    for (int n = 0; n < 12; n++) {
        const double c = cos((0.02 + (0.995 - 0.02) * n / 11) * M_PI / 2);
        kac_text_add(&t, "%s%.17g", n > 0 ? ", " : "", c * c);
    }
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "1-D", &(kac_mixture_options){n_groups, k, 31, eta}));
    kac_text_free(&t);
    return m;
}

static void test_quadrature(const quadrature *q, const char *method, const char *line) {
    enum { GROUPS = 6000, K = 16 };
    kac_mixture *m = ddim_mixture(q->eta, GROUPS, K);
    kac_process *p = kac_mixture_process(m);
    kac_reward reward = {.name = "wavy", .score = wavy_score, .grad = wavy_grad};
    kac_particles out = {0};
    exact_mean z = {0}, zr = {0}, zx = {0}, above = {0}, base = {0};
    if (CHECK_OK(exact_run(&out, p, &reward, NULL, method, line, 3))) {
        for (int g = 0; g < GROUPS; g++) {
            double w[K], sums[3] = {0};
            const double ratio = exp(out.log_z[g] - q->log_z);
            kac_log_weights_normalise(w, out.log_weights + g * K, K);
            for (int i = 0; i < K; i++) {
                const double x = *kac_mixture_point(p, g * K + i, KAC_STAGE_FINAL);
                sums[0] += w[i] * out.rewards[g * K + i];
                sums[1] += w[i] * x;
                sums[2] += w[i] * (x > 2.0);
            }
            exact_add(&z, ratio);
            exact_add(&zr, ratio * sums[0]);
            exact_add(&zx, ratio * sums[1]);
            exact_add(&above, ratio * sums[2]);
        }
    }
    kac_particles_free(&out);
    if (CHECK_OK(exact_run(&out, p, &reward, NULL, "none", "", 3)))
        for (int i = 0; i < GROUPS * K; i++) exact_add(&base, out.rewards[i]);
    kac_particles_free(&out);
    printf("1-D DDIM, eta %g, %d groups of %d, %s %s\n", q->eta, GROUPS, K, method, line);
    CHECK(exact_agrees(&z, 1.0, 5, 0.06, "E Z-hat / Z"));
    CHECK(exact_agrees(&zr, q->reward, 5, 0.03, "E Z-hat r-hat / Z"));
    CHECK(exact_agrees(&zx, q->x, 5, 0.06, "E Z-hat x-hat / Z"));
    CHECK(exact_agrees(&above, q->above_two, 5, 0.03, "P(x > 2)"));
    CHECK(exact_agrees(&base, q->base_reward, 5, 0.05, "E r without steering"));
    kac_mixture_destroy(m);
}

/* ---- published mistakes: each must fail the check that the method passes ---- */

typedef struct mistake {
    const char *what;
    bool difference;   /* else max */
    bool forgets;      /* weights are dropped when nothing is resampled */
    bool wrong_last;   /* the last potential uses the accumulated reward instead of r(x_0) */
    bool from_zero;    /* max starts at 0 */
    bool stale_memory; /* the previous reward is not moved with its particle */
    bool keeps_pace;   /* exact otherwise: the control */
} mistake;

/* The loop of fk with a mistake in it: weights, potential and moves are written out so that the mistake is one line. */
static kac_status run_mistake(kac_particles *out, kac_process *p, kac_reward *r, const void *how, double lambda) {
    const mistake *e = how;
    const int k = p->n_per_group;
    kac_swarm s;
    KAC_TRY(kac_swarm_init(&s, p, r, NULL, 77));
    int i_step;
    for (int i = 0; i < s.n; i++) s.memory[i] = e->difference || e->from_zero ? 0.0 : -INFINITY;
    double *kept = kac_alloc((size_t)s.n * sizeof *kept);
    kac_status status = kac_swarm_start(&s, &i_step);
    for (; status == KAC_OK && i_step <= p->n_steps; i_step++) {
        const bool final = i_step == p->n_steps;
        if (!final) status = kac_swarm_predict(&s, i_step);
        if (status == KAC_OK) status = kac_swarm_score(&s, i_step, final ? KAC_STAGE_FINAL : KAC_STAGE_PREDICTED);
        for (int i = 0; i < s.n; i++) {
            const double reward = s.rewards[i], before = s.memory[i];
            s.memory[i] = e->difference ? reward : fmax(before, reward);
            double log_g = e->difference ? lambda * (reward - before) : lambda * s.memory[i];
            if (final && !e->difference) log_g = lambda * (e->wrong_last ? s.memory[i] : reward) - s.log_product[i];
            s.log_w[i] += log_g;
            s.log_product[i] += log_g;
        }
        memcpy(kept, s.memory, (size_t)s.n * sizeof *kept);
        if (status == KAC_OK) status = kac_swarm_resample(&s, i_step, final ? 0.0 : 0.5, KAC_RESAMPLE_SYSTEMATIC);
        if (e->stale_memory) memcpy(s.memory, kept, (size_t)s.n * sizeof *kept);
        for (int g = 0; e->forgets && !final && g < s.n_groups; g++)
            for (int i = g * k; i < (g + 1) * k && !s.resampled[g]; i++) {
                if (!e->difference) s.log_product[i] -= s.log_w[i]; /* as published: not in the product either */
                s.log_w[i] = 0.0;
            }
        if (status == KAC_OK && !final) status = kac_swarm_step(&s, i_step);
    }
    for (int g = 0; !e->keeps_pace && g < s.n_groups; g++) s.running_log_z[g] = NAN;
    if (status == KAC_OK) kac_swarm_finish(&s, out);
    kac_swarm_free(&s);
    kac_free(kept);
    return status;
}

static void test_mistakes(void) {
    static const mistake control[] = {{.what = "none (difference)", .difference = true, .keeps_pace = true},
                                      {.what = "none (max)", .keeps_pace = true}};
    static const mistake wrong[] = {
        {.what = "weights forgotten between resamplings", .difference = true, .forgets = true},
        {.what = "max from 0: negative rewards select nothing", .from_zero = true, .wrong_last = true},
        {.what = "max from 0, weights forgotten", .from_zero = true, .wrong_last = true, .forgets = true},
        {.what = "last potential of max from the maximum", .wrong_last = true},
        {.what = "previous reward left behind", .difference = true, .stale_memory = true}};
    for (int i = 0; i < KAC_COUNT_OF(control); i++)
        CHECK(agrees_with_target(run_mistake, &control[i], &exact_answers[0], 16, 2000, 0.06));
    for (int i = 0; i < KAC_COUNT_OF(wrong); i++) {
        printf("mistake: %s\n", wrong[i].what);
        CHECK(!agrees_with_target(run_mistake, &wrong[i], &exact_answers[0], 16, 2000, 0.06));
    }
}

int main(void) {
    test_target();
    test_unbiased("fk", "lambda=1 " EVERY_STEP, 2, 20000);
    test_unbiased("fk", "lambda=1 " EVERY_STEP, 4, 16000);
    test_unbiased("fk", "lambda=1 " EVERY_STEP, 8, 10000);
    test_unbiased("fk", "lambda=1 potential=max resampling=ssp ess-threshold=1", 4, 10000);
    test_unbiased("best-of-n", "lambda=1", 4, 20000);
    test_unbiased("tds", "lambda=1 gradient-clip=0.5", 4, 10000);
    test_unbiased("das", "lambda=1", 4, 10000);
    test_unbiased("svdd", "lambda=1", 4, 10000);
    test_unbiased("svdd", "lambda=1 candidates=2", 4, 10000);
    static const quadrature full = {1.0, -1.09307392, -.21268466, 1.36283307, .2463, -2.51795009},
                            half = {0.5, -1.10292300, -.21985246, 1.36960519, .2539, -2.49917268};
    test_quadrature(&full, "fk", "lambda=1.5 score-every=1 score-start=0 score-end=11");
    test_quadrature(&half, "fk", "lambda=1.5 score-every=1 score-start=0 score-end=11");
    test_quadrature(&full, "tds", "lambda=1.5 gradient-clip=0.5");
    test_quadrature(&half, "tds", "lambda=1.5 gradient-clip=0.5");
    test_quadrature(&full, "das", "lambda=1.5 gradient-clip=0.5");
    test_quadrature(&half, "das", "lambda=1.5 tempering=linear gradient-clip=0.3");
    test_quadrature(&full, "svdd", "lambda=1.5 candidates=2");
    test_quadrature(&half, "svdd", "lambda=1.5 candidates=4");
    test_quadrature(&full, "best-of-n", "lambda=1.5");
    test_quadrature(&half, "is", "lambda=1.5 gradient-scale=0.5 gradient-clip=0.3");
    test_methods();
    test_mistakes();
    return check_done();
}
