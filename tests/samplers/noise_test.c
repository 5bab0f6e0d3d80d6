/* Searches over noise on exact mixtures: the law of what random search finds, how zero-order search moves, exact budgets, stopping and
 * continuing, refusals. */
#include "noise_sink.h"

/* ---- random search ---- */

static int falling(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Sample i is particle i: what is kept of n samples is the best of best-of-n's n particles, whatever the number of slots. */
static void test_random_is_best_of_n(const char *kernel, double eta) {
    enum { N = 24 };
    static const int slots[] = {1, 3, 5, 24, 40};
    double all[N];
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    kac_mixture *m = exact_mixture(kernel, eta, 1, N, 11);
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "best-of-n", "lambda=1", 11));
    memcpy(all, out.rewards, sizeof all);
    qsort(all, N, sizeof *all, falling);
    kac_particles_free(&out);
    kac_mixture_destroy(m);
    for (int k = 0; k < KAC_COUNT_OF(slots); k++) {
        m = exact_mixture(kernel, eta, 1, slots[k], 11);
        sink *s = make_sink(kac_mixture_process(m), N * EXACT_STEPS + EXACT_STEPS - 1);
        CHECK_OK(exact_run(&out, &s->process, r, &s->events, "noise-random", "", 11));
        for (int i = 0; i < slots[k]; i++) {
            double again;
            CHECK(out.rewards[i] == all[i % KAC_MIN(N, slots[k])]);
            CHECK(out.eves[i] == i % N && out.log_weights[i] == 0);
            CHECK_OK(r->score(r, kac_mixture_process(m), &i, 1, KAC_STAGE_FINAL, &again));
            CHECK(again == out.rewards[i]);
        }
        CHECK(kac_mixture_evaluations(m) == N * EXACT_STEPS && s->nfe == N * EXACT_STEPS && s->n_samples == N);
        CHECK(isnan(out.log_z[0]));
        kac_particles_free(&out);
        free_sink(s);
        kac_mixture_destroy(m);
    }
    kac_quadratic_destroy(r);
}

/* The best of n has the distribution function F^n: by a Kolmogorov-Smirnov test over independent groups. */
static void test_random_law(void) {
    enum { GROUPS = 300, N = 7, PLAIN = 40000 };
    static double plain[PLAIN], u[GROUPS];
    kac_reward *r = exact_reward();
    kac_particles out = {0};
    kac_mixture *m = exact_mixture("exact", 0, 1, PLAIN, 5);
    CHECK_OK(exact_run(&out, kac_mixture_process(m), r, NULL, "best-of-n", "lambda=0", 5));
    memcpy(plain, out.rewards, sizeof plain);
    qsort(plain, PLAIN, sizeof *plain, falling);
    kac_particles_free(&out);
    kac_mixture_destroy(m);
    m = exact_mixture("exact", 0, GROUPS, 2, 12);
    sink *s = make_sink(kac_mixture_process(m), N * EXACT_STEPS);
    CHECK_OK(exact_run(&out, &s->process, r, &s->events, "noise-random", "", 12));
    for (int g = 0; g < GROUPS; g++) {
        int above = 0;
        while (above < PLAIN && plain[above] > out.rewards[2 * g]) above++;
        u[g] = pow(1 - (double)above / PLAIN, N);
    }
    qsort(u, GROUPS, sizeof *u, falling);
    double most = 0;
    for (int g = 0; g < GROUPS; g++) {
        const double empirical = 1 - (double)g / GROUPS;
        most = fmax(most, fmax(fabs(empirical - u[g]), fabs(empirical - 1.0 / GROUPS - u[g])));
    }
    printf("best of %d: largest distance of distribution functions %.4f (1 %% level %.4f)\n", N, most,
           1.63 / sqrt(GROUPS));
    CHECK(most < 1.63 / sqrt(GROUPS));
    kac_particles_free(&out);
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

/* ---- zero-order search ---- */

static double cosine(const float *a, const float *b, int64_t n) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < n; i++)
        ab += (double)a[i] * (double)b[i], aa += (double)a[i] * (double)a[i], bb += (double)b[i] * (double)b[i];
    return ab / sqrt(aa * bb);
}

static double distance(const float *a, const float *b, int64_t n) {
    double sum = 0, aa = 0;
    for (int64_t i = 0; i < n; i++) sum += pow((double)a[i] - (double)b[i], 2), aa += (double)a[i] * (double)a[i];
    return sqrt(sum / aa);
}

/* Every noise of a round lies at the cosine (or distance) from one of the noises before, the best so far; the best reward never falls. */
static void test_zero_order_moves(const char *line, bool on_sphere, double away) {
    enum { N = 4, ROUNDS = 30 };
    kac_mixture *m = wide_mixture("ddim", 1, 6, 1, N);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    sink *s = make_sink(kac_mixture_process(m), ROUNDS * N * 6);
    CHECK_OK(exact_run(&out, &s->process, r, &s->events, "noise-zero-order", line, 3));
    CHECK(s->n_noises == ROUNDS * N && s->rising && s->n_events == ROUNDS);
    int pivot = -1, n_moves = 0;
    for (int round = 1; round < ROUNDS; round++) {
        const float *now = s->noises + round * N * 16;
        int from = -1;
        for (int i = 0; i < round * N; i++) {
            bool all = true;
            for (int j = 0; j < N; j++) {
                const float *a = s->noises + i * 16, *b = now + j * 16;
                all = all && fabs((on_sphere ? cosine(a, b, 16) : distance(a, b, 16)) - away) < 1e-5;
            }
            if (all) from = i;
        }
        CHECK(from >= 0);
        CHECK(from == pivot || from >= (round - 1) * N);
        n_moves += from != pivot;
        pivot = from;
        for (int j = 0; j < N && on_sphere; j++)
            CHECK_NEAR(distance(s->noises + pivot * 16, now + j * 16, 16), sqrt(2 - 2 * away), 1e-5);
        for (int j = 1; j < N; j++) CHECK(cosine(now, now + j * 16, 16) < 0.9999);
    }
    printf("zero-order (%s): %d moves in %d rounds, best %.4f\n", line, n_moves, ROUNDS, out.rewards[0]);
    CHECK(n_moves > 5 && n_moves < ROUNDS - 1);
    kac_particles_free(&out);
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

/* Where every step but the first noise is the same, one neighbour of similarity 1 is the pivot itself: it has its reward. */
static void test_zero_order_keeps_step_noise(void) {
    kac_mixture *m = wide_mixture("ddim", 1, 6, 2, 3);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    sink *s = make_sink(kac_mixture_process(m), 6 * 4 * 5);
    CHECK_OK(exact_run(&out, &s->process, r, &s->events, "noise-zero-order", "similarity=1", 3));
    for (int g = 0; g < 2; g++) CHECK_NEAR(out.rewards[3 * g], out.rewards[3 * g + 1], 1e-4);
    kac_particles_free(&out);
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

/* Patience: a stuck search begins anew, with noises that are no neighbours. */
static void test_zero_order_restarts(void) {
    kac_mixture *m = wide_mixture("ddim", 0, 3, 1, 2);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    sink *s = make_sink(kac_mixture_process(m), 3 * 2 * 40);
    CHECK_OK(
        exact_run(&out, &s->process, r, &s->events, "noise-zero-order", "neighbors=2 similarity=0.9 patience=2", 3));
    int n_fresh = 0;
    for (int i = 2; i < s->n_noises; i += 2) {
        bool near = false;
        for (int j = 0; j < i; j++) near |= fabs(cosine(s->noises + i * 16, s->noises + j * 16, 16) - 0.9) < 1e-5;
        n_fresh += !near;
    }
    printf("zero-order with patience 2: %d fresh beginnings in 39 rounds\n", n_fresh);
    CHECK(n_fresh >= 2 && n_fresh <= 13 && s->rising);
    kac_particles_free(&out);
    free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
}

/* ---- what holds for all ---- */

static const struct {
    const char *name, *line;
    int cost;                /* of one sample */
    bool grows, slots_alike; /* a larger budget never finds less; slots change nothing but how many are handed over */
} searches[] = {{"noise-random", "", 6, true, true},
                {"noise-zero-order", "patience=2 pivots=2 neighbors=3", 6, true, true},
                {"noise-paths", "paths=2 branches=3 level=0.5 forward=0.2 backward=0.4", 6, false, true},
                {"reno", "iterations=4 learning-rate=1", 6, false, false},
                {"demon", "candidates=3", 21, true, true}};

typedef struct result {
    double rewards[64], x[64][16];
    int64_t evaluations, nfe; /* of both groups; gradients count as evaluations */
    kac_status status;
} result;

/* 2 groups of k slots. `from`: whose checkpoint to go on from. */
static result run_one(int i, int k, int64_t nfe, int64_t stop_after, sink *from, sink **kept) {
    result all = {0};
    kac_particles out = {0};
    kac_mixture *m = wide_mixture("ddim", 1, 6, 2, k);
    kac_reward *r = wide_reward();
    sink *s = make_sink(kac_mixture_process(m), nfe);
    s->stop_after = stop_after;
    if (from != NULL && from->n_saved > 0) {
        s->restore = true;
        on_checkpoint(&s->events, from->saved_step, from->saved, from->n_saved);
    }
    all.status = exact_run(&out, &s->process, r, &s->events, searches[i].name, searches[i].line, 3);
    for (int j = 0; j < 2 * k && all.status == KAC_OK; j++) {
        all.rewards[j] = out.rewards[j];
        memcpy(all.x[j], kac_mixture_point(kac_mixture_process(m), j, KAC_STAGE_FINAL), sizeof all.x[j]);
    }
    all.evaluations = kac_mixture_evaluations(m) + s->n_pulled, all.nfe = s->nfe;
    CHECK(s->rising);
    kac_particles_free(&out);
    if (kept != NULL)
        *kept = s;
    else
        free_sink(s);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(r);
    return all;
}

/* The budget is never exceeded, and what is told is what was spent; more of it never gives less. */
static void test_budgets(int i) {
    double before = -INFINITY;
    for (int64_t nfe = searches[i].cost; nfe < 400; nfe += nfe < 40 ? 5 : 61) {
        const result a = run_one(i, 3, nfe, 0, NULL, NULL);
        if (!CHECK_OK(a.status)) printf("  %s with %lld\n", searches[i].name, (long long)nfe);
        CHECK(a.evaluations <= 2 * nfe && a.evaluations == 2 * a.nfe);
        if (searches[i].grows && !CHECK(a.rewards[0] >= before))
            printf("  %s with %lld\n", searches[i].name, (long long)nfe);
        before = a.rewards[0];
    }
    const result none = run_one(i, 3, searches[i].cost - 1, 0, NULL, NULL);
    CHECK(none.status == KAC_E_USAGE && strstr(kac_error(), "and the budget is") != NULL && none.evaluations == 0);
    const result own = run_one(i, 3, 0, 0, NULL, NULL);
    CHECK_OK(own.status);
    CHECK(own.nfe > searches[i].cost && own.evaluations == 2 * own.nfe);
}

static bool same_results(const result *a, const result *b) {
    return memcmp(a->rewards, b->rewards, sizeof a->rewards) == 0 && memcmp(a->x, b->x, sizeof a->x) == 0;
}

/* Slots change nothing but how many are handed over. The first group's noise alone does not depend on their number here. */
static void test_slots(int i) {
    const result few = run_one(i, 2, 300, 0, NULL, NULL), many = run_one(i, 9, 300, 0, NULL, NULL);
    for (int j = 0; j < 2; j++)
        if (!CHECK(few.rewards[j] == many.rewards[j])) printf("  %s\n", searches[i].name);
}

/* Stopped anywhere, a run hands over what it has, and goes on to the same bits. */
static void test_resume(int i) {
    const int64_t budget = 200;
    const result whole = run_one(i, 3, budget, 0, NULL, NULL);
    for (int64_t stop = 1; stop < 400; stop += 37) {
        sink *s = NULL;
        const result part = run_one(i, 3, budget, stop, NULL, &s);
        if (part.status != KAC_OK) {
            CHECK(part.status == KAC_E_CANCELLED && stop < 12 * searches[i].cost && s->n_saved == 0);
        } else {
            CHECK(part.rewards[0] <= whole.rewards[0] &&
                  (s->n_saved > 0 || stop < 12 * searches[i].cost)); /* none in the first round */
        }
        const result rest = run_one(i, 3, budget, 0, s, NULL);
        CHECK_OK(rest.status);
        if (!CHECK(same_results(&whole, &rest))) printf("  %s stopped after %lld\n", searches[i].name, (long long)stop);
        CHECK(rest.nfe == whole.nfe);
        free_sink(s);
    }
}

/* A checkpoint that was tampered with is refused, never followed. */
static void test_damaged(int i) {
    sink *s = NULL;
    const result whole = run_one(i, 3, 200, 0, NULL, &s);
    CHECK_OK(whole.status);
    for (int b = 0; b < s->n_saved; b++) {
        kac_blob *blob = &s->saved[b];
        char *old = kac_alloc(blob->n_bytes + 1);
        memcpy(old, blob->data, blob->n_bytes);
        memset(blob->data, 0xff, blob->n_bytes);
        const result damaged = run_one(i, 3, 200, 0, s, NULL);
        CHECK(damaged.status == KAC_OK || damaged.status == KAC_E_FORMAT || damaged.status == KAC_E_USAGE ||
              damaged.status == KAC_E_NONFINITE);
        memcpy(blob->data, old, blob->n_bytes);
        kac_free(old);
    }
    free_sink(s);
}

static void test_refused(int i) {
    kac_mixture *m = wide_mixture("ddim", 1, 6, 1, 2);
    kac_reward *r = wide_reward();
    kac_particles out = {0};
    char text[96];
    snprintf(text, sizeof text, "%s needs a reward", searches[i].name);
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), NULL, NULL, searches[i].name, "", 1), KAC_E_USAGE, text);
    kac_process bare = *kac_mixture_process(m);
    bare.rekey = NULL, bare.store = NULL, bare.fetch = NULL, bare.read = NULL, bare.write = NULL, bare.noise = NULL;
    CHECK_FAILS(exact_run(&out, &bare, r, NULL, searches[i].name, "", 1), KAC_E_UNSUPPORTED, searches[i].name);
    kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    CHECK(kac_method_find(searches[i].name)->anytime && kac_method_find(searches[i].name)->target == KAC_TARGET_MODE);
}

int main(void) {
    test_random_is_best_of_n("exact", 0);
    test_random_is_best_of_n("ddim", 0);
    test_random_is_best_of_n("ddim", 1);
    test_random_law();
    test_zero_order_moves("similarity=0.95", true, 0.95);
    test_zero_order_moves("similarity=0.7", true, 0.7);
    test_zero_order_moves("metric=euclidean distance=0.4", false, 0.4);
    test_zero_order_keeps_step_noise();
    test_zero_order_restarts();
    for (int i = 0; i < KAC_COUNT_OF(searches); i++) {
        test_budgets(i);
        if (searches[i].slots_alike) test_slots(i);
        test_resume(i);
        test_damaged(i);
        test_refused(i);
    }
    return check_done();
}
