/* What must hold to the bit or to rounding for every method: identities, genealogy, counts, stopping and continuing, refusals. */
#include "exact.h"
#include "samplers/swarm.h"
#include <stdlib.h>

enum { GROUPS = 3, K = 8, N = GROUPS * K };

/* ---- a sink that checks every event and can save, restore and stop ---- */

typedef struct sink {
    kac_events events;
    int n_groups, k, n_events, n_resampled, last_step;
    int eves[N * 8];     /* composed from the ancestors, to compare */
    int ancestors_total; /* Σ over steps and particles of slot · (ancestor + 1): a digest of the genealogy */
    int unique[64];      /* distinct eves over all groups, per step */
    unsigned scored;     /* bit i: step i was scored */
    char *saved[64];     /* checkpoint after each step, all blobs one after another */
    size_t saved_bytes[64];
    int stop_after, restore_at;
} sink;

static int count_unique(const int *eves, int k) {
    bool seen[N * 8] = {false};
    int n = 0;
    for (int i = 0; i < k; i++) {
        n += !seen[eves[i]];
        seen[eves[i]] = true;
    }
    return n;
}

static kac_status on_step(kac_events *e, const kac_step_event *v) {
    sink *s = e->self;
    int *eves = s->eves + v->group * s->k, before[N * 8];
    CHECK(v->n_particles == s->k && v->n_groups == s->n_groups);
    if (v->i_step == s->restore_at && s->n_events < s->n_groups)
        for (int i = 0; i < s->k; i++) eves[i] = v->resampled ? -1 : v->eves[i];
    memcpy(before, eves, (size_t)s->k * sizeof *eves);
    for (int i = 0; i < s->k; i++) {
        CHECK(v->ancestors[i] >= 0 && v->ancestors[i] < s->k);
        if (!v->resampled) CHECK(v->ancestors[i] == i);
        if (before[v->ancestors[i]] >= 0) {
            eves[i] = before[v->ancestors[i]];
            CHECK(v->eves[i] == eves[i]);
        } else {
            eves[i] = v->eves[i];
        }
        s->ancestors_total += (v->i_step + 1) * (i + 1) * (v->ancestors[i] + 1);
    }
    CHECK(v->ess >= 1.0 - 1e-9 && v->ess <= s->k * (1 + 1e-9));
    CHECK((v->rewards != NULL) == v->scored);
    s->unique[v->i_step] += count_unique(v->eves, s->k);
    s->n_resampled += v->resampled;
    s->scored |= v->scored ? 1u << v->i_step : 0;
    s->last_step = v->i_step;
    s->n_events++;
    return KAC_OK;
}

static kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n_blobs) {
    sink *s = e->self;
    size_t total = 0, at = 0;
    for (int i = 0; i < n_blobs; i++) total += blobs[i].n_bytes;
    s->saved_bytes[i_step] = total;
    s->saved[i_step] = kac_alloc(total);
    for (int i = 0; i < n_blobs; i++) {
        memcpy(s->saved[i_step] + at, blobs[i].data, blobs[i].n_bytes);
        at += blobs[i].n_bytes;
    }
    return KAC_OK;
}

static kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n_blobs) {
    sink *s = e->self;
    *i_step = s->restore_at;
    for (int i = 0; s->restore_at > 0 && i < n_blobs; i++) {
        size_t at = 0;
        for (int j = 0; j < i; j++) at += blobs[j].n_bytes;
        if (blobs[i].data == NULL) { /* of any size: the last one */
            CHECK(i == n_blobs - 1);
            blobs[i].n_bytes = s->saved_bytes[s->restore_at - 1] - at;
            blobs[i].data = kac_alloc(blobs[i].n_bytes);
        }
        memcpy(blobs[i].data, s->saved[s->restore_at - 1] + at, blobs[i].n_bytes);
    }
    return KAC_OK;
}

static bool cancelled(kac_events *e) {
    const sink *s = e->self;
    return s->stop_after >= 0 && s->last_step == s->stop_after;
}

static sink *make_sink(int n_groups, int k) {
    sink *s = kac_alloc(sizeof *s);
    *s = (sink){.n_groups = n_groups, .k = k, .stop_after = -1};
    s->events = (kac_events){.self = s,
                             .on_step = on_step,
                             .on_checkpoint = on_checkpoint,
                             .on_restore = on_restore,
                             .cancelled = cancelled};
    for (int i = 0; i < n_groups * k; i++) s->eves[i] = i % k;
    return s;
}

static void free_sink(sink *s) {
    for (int i = 0; i < 64; i++) kac_free(s->saved[i]);
    kac_free(s);
}

/* ---- one run and its results, to compare bit by bit ---- */

typedef struct result {
    double x[N * 8][2], log_w[N * 8], rewards[N * 8], log_z[GROUPS];
    int eves[N * 8];
    int64_t evaluations;
    kac_status status;
} result;

typedef struct setup {
    const char *kernel;
    double eta;
    int n_groups, k;
    const char *method, *line;
    kac_reward *reward; /* NULL: the quadratic one */
    sink *sink;
} setup;

static result run_setup(setup u) {
    result all = {0};
    kac_particles out = {0};
    if (u.kernel == NULL) u.kernel = "exact";
    if (u.n_groups == 0) u.n_groups = GROUPS;
    if (u.k == 0) u.k = K;
    kac_mixture *m = exact_mixture(u.kernel, u.eta, u.n_groups, u.k, 11);
    kac_reward *r = u.reward != NULL ? u.reward : exact_reward();
    all.status =
        exact_run(&out, kac_mixture_process(m), r, u.sink != NULL ? &u.sink->events : NULL, u.method, u.line, 11);
    for (int i = 0; all.status == KAC_OK && i < u.n_groups * u.k; i++) {
        memcpy(all.x[i], kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL), sizeof all.x[i]);
        all.log_w[i] = out.log_weights[i];
        all.rewards[i] = out.rewards[i];
        all.eves[i] = out.eves[i];
    }
    for (int g = 0; all.status == KAC_OK && g < u.n_groups; g++) all.log_z[g] = out.log_z[g];
    all.evaluations = kac_mixture_evaluations(m);
    kac_particles_free(&out);
    if (u.reward == NULL) kac_quadratic_destroy(r);
    kac_mixture_destroy(m);
    return all;
}

static bool same_bits(const result *a, const result *b) {
    return memcmp(a->x, b->x, sizeof a->x) == 0 && memcmp(a->log_w, b->log_w, sizeof a->log_w) == 0 &&
           memcmp(a->log_z, b->log_z, sizeof a->log_z) == 0 && memcmp(a->eves, b->eves, sizeof a->eves) == 0;
}

/* lambda 0 is the plain sampler to the bit, whatever else is asked. */
static void test_lambda_zero(void) {
    static const char *const lines[] = {"lambda=0",
                                        "lambda=0 ess-threshold=1",
                                        "lambda=0 ess-threshold=1 resampling=multinomial",
                                        "lambda=0 ess-threshold=1 resampling=residual score-every=1 potential=max",
                                        "lambda=0 ess-threshold=1 resampling=ssp potential=sum",
                                        "lambda=0 resampling=stratified potential=reward"};
    const result plain = run_setup((setup){.method = "none", .line = ""});
    for (int i = 0; i < KAC_COUNT_OF(lines); i++) {
        const result steered = run_setup((setup){.method = "fk", .line = lines[i]});
        CHECK_OK(steered.status);
        if (!CHECK(same_bits(&plain, &steered))) printf("  with %s\n", lines[i]);
    }
    CHECK(plain.log_z[0] == 0.0 && plain.log_w[3] == 0.0);
    const result best = run_setup((setup){.method = "best-of-n", .line = "lambda=0"});
    CHECK(same_bits(&plain, &best));
    static const char *const others[][2] = {{"tds", "lambda=0 ess-threshold=1"},
                                            {"das", "lambda=0"},
                                            {"is", "lambda=0 gradient-scale=1"},
                                            {"fk", "lambda=0 gradient-scale=1"},
                                            {"svdd", "lambda=0 candidates=1"}};
    for (int i = 0; i < KAC_COUNT_OF(others); i++) {
        const result steered = run_setup((setup){.method = others[i][0], .line = others[i][1]});
        if (!CHECK(same_bits(&plain, &steered))) printf("  with %s\n", others[i][0]);
    }
    const result unmoved = run_setup((setup){.method = "dps", .line = "lambda=0"}); /* it has no estimate of log Z */
    CHECK(memcmp(plain.x, unmoved.x, sizeof plain.x) == 0 && isnan(unmoved.log_z[0]));
    const result steered = run_setup((setup){.method = "fk", .line = "lambda=2 score-every=1"});
    CHECK(!same_bits(&plain, &steered));
}

static void test_one_particle(void) {
    const result plain = run_setup((setup){.method = "none", .line = "", .k = 1});
    const result one = run_setup((setup){.method = "fk", .line = "lambda=3 ess-threshold=1 score-every=1", .k = 1});
    CHECK(memcmp(plain.x, one.x, sizeof plain.x) == 0);
    for (int g = 0; g < GROUPS; g++) CHECK_NEAR(one.log_z[g], 3.0 * one.rewards[g], 1e-9);
}

/* best-of-n and fk that never resamples are both importance sampling of the plain samples. */
static void test_importance(void) {
    const result best = run_setup((setup){.method = "best-of-n", .line = "lambda=1.5"});
    for (int i = 0; i < N; i++) CHECK(best.log_w[i] == 1.5 * best.rewards[i]);
    static const char *const potentials[] = {"difference", "max", "sum", "reward"};
    for (int i = 0; i < 4; i++) {
        char line[96];
        snprintf(line, sizeof line, "lambda=1.5 ess-threshold=0 score-every=1 potential=%s", potentials[i]);
        const result never = run_setup((setup){.method = "fk", .line = line});
        CHECK(memcmp(best.x, never.x, sizeof best.x) == 0);
        for (int j = 0; j < N; j++) CHECK_NEAR(never.log_w[j], best.log_w[j], 1e-9);
    }
}

/* Groups share nothing: the first of three is the same as a run of its own. */
static void test_groups(void) {
    const result three = run_setup((setup){.method = "fk", .line = "lambda=2 score-every=1"});
    const result one = run_setup((setup){.method = "fk", .line = "lambda=2 score-every=1", .n_groups = 1});
    CHECK(memcmp(three.x, one.x, K * sizeof one.x[0]) == 0 && three.log_z[0] == one.log_z[0]);
    CHECK(memcmp(three.log_w, one.log_w, K * sizeof(double)) == 0);
}

/* ---- rewards made for a test ---- */

typedef struct shifted {
    kac_reward reward, *inner;
    double shift, bad_value;
    int bad_call, n_calls, n_scored, most_scored;
} shifted;

static kac_status shifted_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    shifted *s = r->self;
    KAC_TRY(s->inner->score(s->inner, p, slots, n, stage, out));
    for (int i = 0; i < n; i++) out[i] += s->shift;
    if (++s->n_calls == s->bad_call) out[n - 3] = s->bad_value;
    s->n_scored += n;
    return KAC_OK;
}

static shifted make_shifted(double shift) {
    return (shifted){.reward = {.name = "shifted", .score = shifted_score}, .inner = exact_reward(), .shift = shift};
}

static result run_shifted(shifted *s, setup u) {
    s->reward.self = s;
    u.reward = &s->reward;
    return run_setup(u);
}

/* Guided steps weigh only where they draw noise; candidates must fit. */
static void test_refused_guidance(void) {
    static const char *const methods[] = {"tds", "das"};
    for (int i = 0; i < KAC_COUNT_OF(methods); i++) {
        result r = run_setup((setup){.kernel = "ddim", .eta = 0, .method = methods[i], .line = ""});
        CHECK_FAILS(r.status, KAC_E_UNSUPPORTED, "draw noise");
        r = run_setup((setup){.kernel = "ddim", .eta = 0, .method = methods[i], .line = "lambda=1 gradient-scale=0"});
        CHECK_OK(r.status);
    }
    static const char *const chains[] = {"svdd", "code"};
    for (int i = 0; i < KAC_COUNT_OF(chains); i++) {
        const result r = run_setup((setup){.method = chains[i], .line = "candidates=3"});
        CHECK_FAILS(r.status, KAC_E_USAGE, "3 does not divide the 8 particles");
    }
}

/* Chains keep to themselves, one block is best-of-n's; the winner of each chain has all its weight. */
static void test_code(void) {
    const result steps = run_setup((setup){.method = "code", .line = "block=1 candidates=4"});
    for (int i = 0; i < N; i++) CHECK(steps.eves[i] == steps.eves[i / 4 * 4] && steps.eves[i] / 4 == i % K / 4);
    const result plain = run_setup((setup){.method = "none", .line = ""});
    const result one = run_setup((setup){.method = "code", .line = "block=20 candidates=4"});
    CHECK(memcmp(plain.x, one.x, sizeof plain.x) == 0 && memcmp(plain.x, steps.x, sizeof plain.x) != 0);
    for (int first = 0; first < N; first += 4) {
        int best = first;
        for (int i = first; i < first + 4; i++) best = one.rewards[i] > one.rewards[best] ? i : best;
        for (int i = first; i < first + 4; i++) CHECK(exp(one.log_w[i]) == (i == best ? 1.0 : 0.0));
    }
    CHECK(isnan(one.log_z[0]));
    /* drawn: the shares of exp(lambda r) within each chain, and all chains alike */
    const result drawn = run_setup((setup){.method = "code", .line = "block=20 candidates=4 choice=draw lambda=2"});
    for (int first = 0; first < N; first += 4) {
        double sum = 0;
        for (int i = first; i < first + 4; i++) {
            sum += exp(drawn.log_w[i]);
            CHECK_NEAR(drawn.log_w[i] - drawn.log_w[first], 2 * (drawn.rewards[i] - drawn.rewards[first]), 1e-9);
        }
        CHECK_NEAR(sum, 4.0, 1e-9);
    }
    CHECK(steps.evaluations == N * EXACT_STEPS);
}

/* A preset sets what was not given, and only options that are there. */
static void test_presets(void) {
    kac_options *o = exact_options("fk", "preset=paper lambda=3");
    CHECK_OK(kac_method_preset(kac_method_find("fk"), o));
    CHECK(kac_options_real(o, "lambda") == 3 && kac_options_int(o, "score-every") == 20);
    CHECK_TEXT(kac_options_text(o, "potential"), "max");
    kac_options_destroy(o);
    for (const kac_method *const *m = kac_method_list(); *m != NULL; m++) {
        for (const kac_preset *p = (*m)->presets; p != NULL && p->name != NULL; p++) { /* every one can be set */
            o = kac_options_create((*m)->options);
            CHECK_OK(kac_options_set(o, "preset", p->name));
            CHECK_OK(kac_method_preset(*m, o));
            char first[64];
            CHECK(sscanf(p->settings, "%63[^=]", first) == 1 && kac_options_given(o, first));
            kac_options_destroy(o);
        }
        o = kac_options_create((*m)->options);
        CHECK_OK(kac_method_preset(*m, o));
        if (kac_options_has(o, "preset")) CHECK_FAILS(kac_options_set(o, "preset", "none"), KAC_E_USAGE, "preset");
        kac_options_destroy(o);
    }
}

/* r + c moves log Z by lambda c and nothing else. */
static void test_shift(void) {
    static const char *const lines[] = {"lambda=1 score-every=1", "lambda=1 score-every=2 potential=max resampling=ssp",
                                        "lambda=1 score-steps=10,16 potential=sum",
                                        "lambda=1 score-steps=12,17 potential=reward"};
    for (int i = 0; i < KAC_COUNT_OF(lines); i++) {
        shifted none = make_shifted(0), ten = make_shifted(10);
        const result a = run_shifted(&none, (setup){.method = "fk", .line = lines[i]});
        const result b = run_shifted(&ten, (setup){.method = "fk", .line = lines[i]});
        if (!CHECK(memcmp(a.x, b.x, sizeof a.x) == 0)) printf("  with %s\n", lines[i]);
        for (int g = 0; g < GROUPS; g++) CHECK_NEAR(b.log_z[g], a.log_z[g] + 10.0, 1e-9);
        for (int j = 1; j < K; j++) CHECK_NEAR(b.log_w[j] - b.log_w[0], a.log_w[j] - a.log_w[0], 1e-9);
        kac_quadratic_destroy(none.inner);
        kac_quadratic_destroy(ten.inner);
    }
}

/* The arithmetic of log-weights, far from 0 too. */
static void test_weights(void) {
    for (int i = 0; i < 3; i++) {
        const double far = -900.0 + 900.0 * i, equal[4] = {far, far, far, far}, two[2] = {far, far + log(3.0)};
        double w[2];
        kac_log_weights_normalise(w, two, 2);
        CHECK_NEAR(kac_log_weights_ess(equal, 4), 4, 1e-12);
        CHECK_NEAR(kac_log_weights_ess(two, 2), 1.6, 1e-12);
        CHECK_NEAR(kac_log_weights_log_mean(equal, 4), far, 1e-12);
        CHECK_NEAR(kac_log_weights_log_mean(two, 2), far + log(2.0), 1e-12);
        CHECK_NEAR(w[1], 0.75, 1e-12);
    }
}

/* The same for every method that claims the law. */
static void test_shift_of_claims(void) {
    for (int i = 0; i < KAC_COUNT_OF(exact_claims); i++) {
        char method[32], line[128];
        const char *colon = strchr(exact_claims[i].how, ':');
        if (exact_claims[i].guided) continue;
        snprintf(method, sizeof method, "%.*s", (int)(colon - exact_claims[i].how), exact_claims[i].how);
        snprintf(line, sizeof line, "lambda=0.7%s", colon + 1);
        shifted none = make_shifted(0), far = make_shifted(40);
        const result a = run_shifted(&none, (setup){.method = method, .line = line});
        const result b = run_shifted(&far, (setup){.method = method, .line = line});
        if (!CHECK(memcmp(a.x, b.x, sizeof a.x) == 0)) printf("  with %s\n", exact_claims[i].how);
        for (int g = 0; g < GROUPS; g++) CHECK_NEAR(b.log_z[g], a.log_z[g] + 28, 1e-9);
        for (int j = 1; j < K; j++) CHECK_NEAR(b.log_w[j] - b.log_w[0], a.log_w[j] - a.log_w[0], 1e-9);
        kac_quadratic_destroy(none.inner);
        kac_quadratic_destroy(far.inner);
        /* at lambda 0 nothing is known of the reward */
        snprintf(line, sizeof line, "lambda=0%s", colon + 1);
        const result zero = run_setup((setup){.method = method, .line = line});
        for (int g = 0; g < GROUPS; g++) CHECK(zero.log_z[g] == 0.0);
        for (int j = 0; j < N; j++) CHECK(zero.log_w[j] == 0.0);
    }
}

static void test_not_finite(void) {
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        shifted s = make_shifted(0);
        s.bad_call = 2;
        s.bad_value = bad[i];
        const result r = run_shifted(&s, (setup){.method = "fk", .line = "score-steps=4,9"});
        CHECK_FAILS(r.status, KAC_E_NONFINITE, "particle 5 of group 2");
        CHECK_FAILS(r.status, KAC_E_NONFINITE, "at step 9 of 20");
        kac_quadratic_destroy(s.inner);
    }
    shifted s = make_shifted(1e308);
    const result r = run_shifted(&s, (setup){.method = "fk", .line = "lambda=1000"});
    CHECK_FAILS(r.status, KAC_E_NONFINITE, "lambda times reward");
    kac_quadratic_destroy(s.inner);
}

/* ---- the potentials themselves: log-weights at every step against their formula, without resampling ---- */

typedef struct watcher {
    kac_events events;
    char potential; /* d, m, s, r */
    double lambda, memory[N], product[N];
} watcher;

static kac_status watch_step(kac_events *e, const kac_step_event *v) {
    watcher *w = e->self;
    for (int i = 0; v->scored && i < v->n_particles; i++) {
        double *memory = &w->memory[v->group * K + i], *product = &w->product[v->group * K + i];
        const double r = v->rewards[i];
        if (v->i_step == v->n_steps)
            *product = w->lambda * r;
        else if (w->potential == 'd')
            *product += w->lambda * (r - *memory);
        else if (w->potential == 'r')
            *product += w->lambda * r;
        *memory = w->potential == 'm' ? fmax(*memory, r) : w->potential == 's' ? *memory + r : r;
        if (v->i_step < v->n_steps && (w->potential == 'm' || w->potential == 's')) *product += w->lambda * *memory;
        CHECK_NEAR(v->log_weights[i], *product, 1e-9);
    }
    return KAC_OK;
}

static void test_potentials(void) {
    static const char *const potentials[] = {"difference", "max", "sum", "reward"};
    for (int i = 0; i < 4; i++) {
        watcher w = {.potential = potentials[i][0], .lambda = 0.7};
        w.events = (kac_events){.self = &w, .on_step = watch_step};
        for (int j = 0; j < N; j++) w.memory[j] = w.potential == 'm' ? -INFINITY : 0.0;
        char line[96];
        snprintf(line, sizeof line, "lambda=0.7 ess-threshold=0 score-steps=3,9,14 potential=%s", potentials[i]);
        kac_mixture *m = exact_mixture("exact", 0, GROUPS, K, 11);
        kac_reward *r = exact_reward();
        kac_particles out = {0};
        CHECK_OK(exact_run(&out, kac_mixture_process(m), r, &w.events, "fk", line, 11));
        kac_particles_free(&out);
        kac_quadratic_destroy(r);
        kac_mixture_destroy(m);
    }
}

/* ---- when and how often ---- */

static unsigned scored_steps_of(const char *method, const char *line) {
    sink *s = make_sink(GROUPS, K);
    const result r = run_setup((setup){.method = method, .line = line, .sink = s});
    const unsigned scored = r.status == KAC_OK ? s->scored : 0;
    free_sink(s);
    return scored;
}

static unsigned scored_steps(const char *line) {
    return scored_steps_of("fk", line);
}

static void test_score_steps(void) {
    const unsigned last = 1u << EXACT_STEPS;
    CHECK(scored_steps_of("code", "block=7") == (last | 1u << 7 | 1u << 14));
    CHECK(scored_steps_of("code", "block=20") == last);
    CHECK(scored_steps("") == (last | 1u << 4 | 1u << 8 | 1u << 12 | 1u << 16));
    CHECK(scored_steps("score-every=7") == (last | 1u << 7 | 1u << 14));
    CHECK(scored_steps("score-every=7 score-start=3 score-end=10") == (last | 1u << 3 | 1u << 10));
    CHECK(scored_steps("score-steps=0,19,5") == (last | 1u << 0 | 1u << 19 | 1u << 5));
    CHECK(scored_steps("score-every=1 score-start=0 score-end=19") == (2 * last - 1));
    CHECK(scored_steps("score-every=100") == last);
    result r = run_setup((setup){.method = "fk", .line = "score-steps=20"});
    CHECK_FAILS(r.status, KAC_E_USAGE, "0 to 19");
    r = run_setup((setup){.method = "fk", .line = "score-start=20"});
    CHECK_FAILS(r.status, KAC_E_USAGE, "0 to 19");
    r = run_setup((setup){.method = "fk", .line = "score-steps=2 score-every=3"});
    CHECK_FAILS(r.status, KAC_E_USAGE, "score-steps");
}

static void test_counts(void) {
    /* a noisy chain: every state is new, every state is evaluated once and scored where asked */
    shifted s = make_shifted(0);
    result r = run_shifted(&s, (setup){.method = "fk", .line = "lambda=2 score-steps=5,12"});
    CHECK(r.evaluations == N * EXACT_STEPS && s.n_calls == 3 && s.n_scored == 3 * N);
    kac_quadratic_destroy(s.inner);
    /* a deterministic one: copies stay copies, and are neither evaluated nor scored again */
    sink *k = make_sink(GROUPS, 32);
    s = make_shifted(0);
    r = run_shifted(
        &s,
        (setup){
            .kernel = "ddim", .eta = 0, .k = 32, .method = "fk", .line = "lambda=2 score-steps=5,12,13", .sink = k});
    CHECK_OK(r.status);
    CHECK(k->unique[EXACT_STEPS] < k->unique[0]);
    int64_t evaluations = 0, scored = k->unique[12] + k->unique[11] + k->unique[4] + k->unique[EXACT_STEPS];
    for (int i = 0; i < EXACT_STEPS; i++) {
        if (i > 0) CHECK(k->unique[i] <= k->unique[i - 1]);
        evaluations += i == 0 ? k->unique[0] : k->unique[i - 1]; /* states before this step's resampling */
    }
    CHECK(r.evaluations == evaluations && s.n_scored == scored);
    for (int i = 0; i < GROUPS * 32; i++)
        for (int j = i / 32 * 32; j < i; j++)
            CHECK((memcmp(r.x[i], r.x[j], sizeof r.x[i]) == 0) == (r.eves[i] == r.eves[j]));
    kac_quadratic_destroy(s.inner);
    free_sink(k);
}

/* ---- stop anywhere, go on to the same bits ---- */

static void test_checkpoints(const char *method, const char *line, const char *kernel, double eta) {
    sink *whole = make_sink(GROUPS, K);
    const result want = run_setup((setup){.kernel = kernel, .eta = eta, .method = method, .line = line, .sink = whole});
    CHECK(whole->n_events == GROUPS * (EXACT_STEPS + 1));
    for (int at = 1; at <= EXACT_STEPS; at++) {
        sink *rest = make_sink(GROUPS, K);
        memcpy(rest->saved, whole->saved, sizeof rest->saved);
        memcpy(rest->saved_bytes, whole->saved_bytes, sizeof rest->saved_bytes);
        rest->restore_at = at;
        rest->events.on_checkpoint = NULL;
        const result got =
            run_setup((setup){.kernel = kernel, .eta = eta, .method = method, .line = line, .sink = rest});
        CHECK_OK(got.status);
        if (!CHECK(same_bits(&want, &got))) printf("  %s %s from step %d\n", method, line, at);
        CHECK(rest->n_events == GROUPS * (EXACT_STEPS + 1 - at));
        memset(rest->saved, 0, sizeof rest->saved);
        free_sink(rest);
    }
    sink *stopped = make_sink(GROUPS, K);
    stopped->stop_after = 6;
    const result part =
        run_setup((setup){.kernel = kernel, .eta = eta, .method = method, .line = line, .sink = stopped});
    CHECK_FAILS(part.status, KAC_E_CANCELLED, "after step 7 of 20");
    CHECK(stopped->saved[6] != NULL && stopped->saved[7] == NULL);
    CHECK(memcmp(stopped->saved[6], whole->saved[6], whole->saved_bytes[6]) == 0);
    free_sink(stopped);
    free_sink(whole);
}

static void test_damaged_checkpoint(void) {
    sink *s = make_sink(GROUPS, K);
    s->restore_at = EXACT_STEPS + 1;
    s->saved[EXACT_STEPS] = kac_alloc(1 << 20);
    s->saved_bytes[EXACT_STEPS] = 1 << 20;
    const result r = run_setup((setup){.method = "fk", .line = "", .sink = s});
    CHECK_FAILS(r.status, KAC_E_FORMAT, "checkpoint");
    free_sink(s);
}

static void test_genealogy(void) {
    sink *s = make_sink(GROUPS, K);
    const result r = run_setup(
        (setup){.method = "fk", .line = "lambda=2 score-every=1 ess-threshold=1 resampling=multinomial", .sink = s});
    CHECK_OK(r.status);
    CHECK(s->n_resampled == GROUPS * (EXACT_STEPS - 2)); /* steps 1 … 18 */
    for (int i = 0; i < N; i++) CHECK(s->eves[i] == r.eves[i]);
    for (int i = 1; i <= EXACT_STEPS; i++) CHECK(s->unique[i] <= s->unique[i - 1]);
    CHECK(s->unique[EXACT_STEPS] < N);
    free_sink(s);
}

static void test_methods(void) {
    CHECK(kac_method_find("fk") != NULL && kac_method_find("nothing") == NULL);
    int n = 0;
    for (const kac_method *const *m = kac_method_list(); *m != NULL; m++, n++) CHECK(kac_method_find((*m)->name) == *m);
    CHECK(n >= 3);
    kac_mixture *m = exact_mixture("exact", 0, 1, 4, 1);
    kac_particles out = {0};
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), NULL, NULL, "fk", "", 1), KAC_E_USAGE, "--reward");
    CHECK_FAILS(exact_run(&out, kac_mixture_process(m), NULL, NULL, "best-of-n", "", 1), KAC_E_USAGE, "--reward");
    if (CHECK_OK(exact_run(&out, kac_mixture_process(m), NULL, NULL, "none", "", 1))) CHECK(isnan(out.rewards[0]));
    kac_particles_free(&out);
    kac_mixture_destroy(m);
}

int main(void) {
    test_lambda_zero();
    test_one_particle();
    test_importance();
    test_groups();
    test_shift();
    test_shift_of_claims();
    test_weights();
    test_presets();
    test_code();
    test_refused_guidance();
    test_not_finite();
    test_potentials();
    test_score_steps();
    test_counts();
    test_checkpoints("fk", "lambda=2 score-every=1", "exact", 0);
    test_checkpoints("fk", "lambda=2 score-every=2 potential=max ess-threshold=0.9 resampling=ssp", "ddim", 0.7);
    test_checkpoints("fk", "lambda=2 score-every=3 potential=sum", "ddim", 0);
    test_checkpoints("none", "", "exact", 0);
    test_checkpoints("best-of-n", "lambda=1", "ddim", 1);
    test_checkpoints("dps", "lambda=2", "ddim", 0);
    test_checkpoints("tds", "lambda=2 ess-threshold=0.7", "exact", 0);
    test_checkpoints("das", "lambda=2", "ddim", 0.7);
    test_checkpoints("is", "lambda=2 gradient-scale=1", "ddim", 1);
    test_checkpoints("svdd", "lambda=2 candidates=4", "exact", 0);
    test_checkpoints("code", "block=3 candidates=4", "exact", 0);
    test_checkpoints("dsearch", "beams=2 oversample=3 drop=linear widen=1.7 search=uniform", "exact", 0);
    test_checkpoints("dsearch", "beams=5 duplicate=3 replace=0.4", "ddim", 0.7);
    test_checkpoints("rbf", "init=6 at-once=1", "exact", 0);
    test_checkpoints("rbf", "at-once=3", "ddim", 1);
    test_damaged_checkpoint();
    test_genealogy();
    test_methods();
    return check_done();
}
