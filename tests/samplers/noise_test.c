/* Searches over noise on exact mixtures: the law of what random search finds, how zero-order search moves, exact budgets, stopping and
 * continuing, refusals. */
#include "exact.h"
#include <stdlib.h>

enum { MOST = 4096 };

/* ---- a sink with a budget that can save, restore and stop, and a process that counts and remembers ---- */

typedef struct sink {
    kac_events events;
    kac_process process, *inner;
    int64_t n_predicted, n_events, nfe, n_samples, stop_after, rewards_told;
    double best[64]; /* of each group, as told last */
    bool rising;     /* and never less than before */
    kac_blob *saved;
    int n_saved, saved_step;
    bool restore;
    float *noises; /* everything given to process->noise, rows of n_state */
    int n_noises, most_noises;
} sink;

static kac_status on_step(kac_events *e, const kac_step_event *v) {
    (void)e, (void)v;
    return KAC_OK;
}

static kac_status on_search(kac_events *e, const kac_search_event *v) {
    sink *s = e->self;
    if (v->n_samples > v->n_rewards && v->group < 64) s->rising = s->rising && v->best_reward >= s->best[v->group];
    if (v->group < 64) s->best[v->group] = v->best_reward;
    CHECK(e->nfe == 0 || v->nfe <= e->nfe);
    CHECK(v->nfe_budget == e->nfe);
    for (int i = 0; i < v->n_rewards; i++) CHECK(v->rewards[i] <= v->best_reward);
    s->rewards_told += v->n_rewards;
    s->nfe = v->nfe, s->n_samples = v->n_samples;
    s->n_events++;
    return KAC_OK;
}

static void forget(sink *s) {
    for (int i = 0; i < s->n_saved; i++) kac_free(s->saved[i].data), kac_free((void *)s->saved[i].name);
    kac_free(s->saved);
    s->saved = NULL, s->n_saved = 0;
}

static kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n) {
    sink *s = e->self;
    forget(s);
    s->saved = kac_alloc((size_t)n * sizeof *s->saved);
    for (int i = 0; i < n; i++) {
        s->saved[i] = (kac_blob){kac_strdup(blobs[i].name), kac_alloc(blobs[i].n_bytes + 1), blobs[i].n_bytes};
        memcpy(s->saved[i].data, blobs[i].data, blobs[i].n_bytes);
    }
    s->n_saved = n, s->saved_step = i_step;
    return KAC_OK;
}

static kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n) {
    sink *s = e->self;
    *i_step = 0;
    if (!s->restore) return KAC_OK;
    CHECK(n == s->n_saved);
    for (int i = 0; i < n; i++) {
        CHECK_TEXT(blobs[i].name, s->saved[i].name);
        if (blobs[i].data == NULL) {
            blobs[i].data = kac_alloc(s->saved[i].n_bytes);
            blobs[i].n_bytes = s->saved[i].n_bytes;
        }
        CHECK(blobs[i].n_bytes == s->saved[i].n_bytes);
        memcpy(blobs[i].data, s->saved[i].data, s->saved[i].n_bytes);
    }
    *i_step = s->saved_step + 1;
    return KAC_OK;
}

static bool cancelled(kac_events *e) {
    const sink *s = e->self;
    return s->stop_after > 0 && s->n_predicted >= s->stop_after;
}

static sink *sink_of(kac_process *p) {
    return (sink *)((char *)p - offsetof(sink, process));
}

static kac_status count_predict(kac_process *p, int i_step, const int *slots, int n) {
    sink_of(p)->n_predicted += n;
    return sink_of(p)->inner->predict(sink_of(p)->inner, i_step, slots, n);
}

static kac_status count_noise(kac_process *p, const int *slots, int n, const float *z) {
    sink *s = sink_of(p);
    for (int i = 0; i < n && s->n_noises < MOST; i++, s->n_noises++)
        memcpy(s->noises + s->n_noises * p->n_state, z + i * p->n_state, (size_t)p->n_state * sizeof *z);
    return s->inner->noise(s->inner, slots, n, z);
}

static sink *make_sink(kac_process *p, int64_t nfe) {
    sink *s = kac_alloc(sizeof *s);
    *s = (sink){.process = *p, .inner = p, .rising = true};
    s->noises = kac_alloc(MOST * (size_t)p->n_state * sizeof *s->noises);
    s->process.predict = count_predict, s->process.noise = count_noise;
    s->events = (kac_events){.self = s,
                             .on_step = on_step,
                             .on_search = on_search,
                             .on_checkpoint = on_checkpoint,
                             .on_restore = on_restore,
                             .cancelled = cancelled,
                             .nfe = nfe};
    for (int i = 0; i < 64; i++) s->best[i] = -INFINITY;
    return s;
}

static void free_sink(sink *s) {
    forget(s);
    kac_free(s->noises);
    kac_free(s);
}

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

/* Sixteen dimensions, so that a neighbour has room to lie in. */
static kac_mixture *wide_mixture(const char *kernel, double eta, int n_steps, int n_groups, int k) {
    kac_text t = {0};
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.6, 0.4], \"means\": [");
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 16; i++) kac_text_add(&t, "%s%g", i == 0 ? (c ? "], [" : "[") : ", ", c ? 0.5 : -0.2 * i);
    kac_text_add(&t, "]], \"covariances\": [");
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 16; j++)
                kac_text_add(&t, "%s%s%g",
                             j > 0   ? ", "
                             : i > 0 ? "], ["
                             : c > 0 ? "]], [["
                                     : "[[",
                             "", i == j ? 1 + 0.1 * c : 0.3 * (abs(i - j) == 1));
    kac_text_add(&t, "]]], \"kernel\": \"%s\", \"schedule\": {\"alphas_cumprod\": [", kernel);
    for (int n = 1; n <= n_steps; n++)
        kac_text_add(&t, "%s%.17g", n > 1 ? ", " : "", exp(-0.1 * n / n_steps - 6.0 * n * n / n_steps / n_steps));
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "wide", &(kac_mixture_options){n_groups, k, 41, eta}));
    kac_text_free(&t);
    return m;
}

static kac_reward *wide_reward(void) {
    kac_text t = {0};
    kac_text_add(&t, "{\"A\": [");
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) kac_text_add(&t, "%s%d", j > 0 ? ", " : i > 0 ? "], [" : "[", i == j);
    kac_text_add(&t, "]], \"a\": [");
    for (int i = 0; i < 16; i++) kac_text_add(&t, "%s%g", i > 0 ? ", " : "", 0.3 * (i % 3));
    kac_text_add(&t, "]}");
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, t.s, t.n, "wide"));
    kac_text_free(&t);
    return r;
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
} searches[] = {{"noise-random", ""}, {"noise-zero-order", "patience=2 pivots=2 neighbors=3"}};

typedef struct result {
    double rewards[64], x[64][16];
    int64_t evaluations, nfe;
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
    all.evaluations = kac_mixture_evaluations(m), all.nfe = s->nfe;
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
    for (int64_t nfe = 6; nfe < 400; nfe += nfe < 40 ? 5 : 61) {
        const result a = run_one(i, 3, nfe, 0, NULL, NULL);
        if (!CHECK_OK(a.status)) printf("  %s with %lld\n", searches[i].name, (long long)nfe);
        CHECK(a.evaluations <= 2 * nfe && a.evaluations == 2 * a.nfe);
        if (!CHECK(a.rewards[0] >= before)) printf("  %s with %lld\n", searches[i].name, (long long)nfe);
        before = a.rewards[0];
    }
    const result none = run_one(i, 3, 5, 0, NULL, NULL);
    CHECK(none.status == KAC_E_USAGE && strstr(kac_error(), "budget is 5") != NULL && none.evaluations == 0);
    const result own = run_one(i, 3, 0, 0, NULL, NULL);
    CHECK_OK(own.status);
    CHECK(own.nfe > 6 && own.evaluations == 2 * own.nfe);
}

static bool same_results(const result *a, const result *b) {
    return memcmp(a->rewards, b->rewards, sizeof a->rewards) == 0 && memcmp(a->x, b->x, sizeof a->x) == 0;
}

/* Slots change nothing but how many are handed over. */
static void test_slots(int i) {
    const result few = run_one(i, 2, 300, 0, NULL, NULL), many = run_one(i, 9, 300, 0, NULL, NULL);
    for (int g = 0; g < 2; g++)
        for (int j = 0; j < 2; j++)
            if (!CHECK(few.rewards[2 * g + j] == many.rewards[9 * g + j])) printf("  %s\n", searches[i].name);
}

/* Stopped anywhere, a run hands over what it has, and goes on to the same bits. */
static void test_resume(int i) {
    const int64_t budget = 200;
    const result whole = run_one(i, 3, budget, 0, NULL, NULL);
    for (int64_t stop = 1; stop < 400; stop += 37) {
        sink *s = NULL;
        const result part = run_one(i, 3, budget, stop, NULL, &s);
        if (part.status != KAC_OK) {
            CHECK(part.status == KAC_E_CANCELLED && stop < 60 && s->n_saved == 0);
        } else {
            CHECK(part.rewards[0] <= whole.rewards[0] && (s->n_saved > 0 || stop < 72)); /* none in the first round */
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
        test_slots(i);
        test_resume(i);
        test_damaged(i);
        test_refused(i);
    }
    return check_done();
}
