/* dsearch and rbf against their published rules, written out once more: how many beams and candidates there are, who goes on, what is spent;
 * and that neither slots nor other prompts matter. */
#include "exact.h"

enum { MOST = 256, LOG = 20000 };

/* A reward that writes down what it was asked, and the events' best candidate of each step. */
typedef struct recorder {
    kac_reward reward, *inner;
    kac_events events;
    double value[LOG];
    int n_values, n_calls, call_size[LOG];
    double step_reward[EXACT_STEPS + 1];
    int step_distinct[EXACT_STEPS + 1];
} recorder;

static kac_status record(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    recorder *l = r->self;
    KAC_TRY(l->inner->score(l->inner, p, slots, n, stage, out));
    for (int i = 0; i < n && l->n_values < LOG; i++) l->value[l->n_values++] = out[i];
    if (l->n_calls < LOG) l->call_size[l->n_calls++] = n;
    return KAC_OK;
}

static kac_status on_step(kac_events *e, const kac_step_event *v) {
    recorder *l = e->self;
    if (v->group != 0) return KAC_OK;
    l->step_reward[v->i_step] = v->scored ? v->rewards[0] : NAN;
    for (int i = 0; v->scored && i < v->n_particles; i++) {
        bool seen = false;
        for (int j = 0; j < i; j++) seen |= v->rewards[j] == v->rewards[i];
        l->step_distinct[v->i_step] += !seen;
    }
    return KAC_OK;
}

typedef struct outcome {
    double x[MOST][2], log_w[MOST], rewards[MOST];
    int64_t evaluations;
    kac_status status;
} outcome;

static outcome run(const char *how, int n_groups, int k, int64_t nfe, recorder *l) {
    static recorder none;
    outcome o = {0};
    kac_particles out = {0};
    l = l == NULL ? &none : l;
    *l = (recorder){.inner = exact_reward(), .reward = {.name = "recorded", .score = record}};
    l->events = (kac_events){.self = l, .on_step = on_step, .nfe = nfe};
    l->reward.self = l;
    kac_mixture *m = exact_mixture("exact", 0, n_groups, k, 11);
    char method[16];
    snprintf(method, sizeof method, "%.*s", (int)strcspn(how, ":"), how);
    o.status = exact_run(&out, kac_mixture_process(m), &l->reward, &l->events, method, how + strlen(method) + 1, 5);
    for (int i = 0; o.status == KAC_OK && i < n_groups * k; i++) {
        memcpy(o.x[i], kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL), sizeof o.x[i]);
        o.log_w[i] = out.log_weights[i];
        o.rewards[i] = out.rewards[i];
    }
    if (o.status == KAC_OK) CHECK(isnan(out.log_z[0]));
    o.evaluations = kac_mixture_evaluations(m);
    kac_particles_free(&out);
    kac_mixture_destroy(m);
    kac_quadratic_destroy(l->inner);
    return o;
}

/* ---- dsearch ---- */

static int beams_after(const char *drop, int beams, int wide, int i) {
    const int last = EXACT_STEPS - 1; /* S */
    const double at = (double)i / last;
    if (i < 0) return wide;
    if (i == last - 1) return beams;
    if (strcmp(drop, "exponential") == 0) return (int)fmax(beams, (int)(wide * pow((double)beams / wide, at)));
    if (strcmp(drop, "linear") == 0) return (int)(wide - i * (double)(wide - beams) / last);
    if (strcmp(drop, "quadratic") == 0) return (int)(beams + (wide - beams) * pow(1 - at, 2));
    return wide;
}

static void test_beams(void) {
    static const char *const drops[] = {"none", "exponential", "linear", "quadratic", "sigmoid"};
    enum { BEAMS = 3, WIDE = 12, GROUPS = 2 };
    static recorder l;
    for (int d = 0; d < KAC_COUNT_OF(drops); d++) {
        char how[160];
        snprintf(how, sizeof how, "dsearch: beams=3 oversample=4 duplicate=2 widen=1.5 search=all drop=%s", drops[d]);
        const outcome o = run(how, GROUPS, 12, 0, &l);
        int64_t want = WIDE;
        for (int i = 0; i < EXACT_STEPS - 1; i++) {
            const int before = beams_after(drops[d], BEAMS, WIDE, i - 1), after = beams_after(drops[d], BEAMS, WIDE, i);
            want += before * (int)(1.5 * 2 * WIDE / before);
            if (d < 4) CHECK(l.step_distinct[i] == after);
            if (d == 4 && i > 0) CHECK(l.step_distinct[i] <= l.step_distinct[i - 1]);
        }
        CHECK_OK(o.status);
        if (d < 4) CHECK(o.evaluations == want * GROUPS);
        CHECK(l.step_distinct[EXACT_STEPS - 2] == BEAMS);
        for (int i = 0; i < GROUPS * 12; i++) CHECK(o.log_w[i] == 0.0);
    }
    const outcome plain = run("dsearch: beams=4 duplicate=5", 3, 4, 0, NULL);
    CHECK(plain.evaluations == 3 * (4 + (EXACT_STEPS - 1) * 4 * 5));
}

/* Every beam goes on as the best of its candidates, and with one beam that is all that is left. */
static void test_best_child(void) {
    static recorder l;
    const outcome o = run("dsearch: beams=1 duplicate=7", 1, 3, 0, &l);
    CHECK_OK(o.status);
    for (int i = 0; i < EXACT_STEPS - 1; i++) {
        double best = -INFINITY;
        for (int j = 0; j < 7; j++) best = fmax(best, l.value[7 * i + j]);
        CHECK(l.step_reward[i] == best);
    }
    CHECK(l.call_size[0] == 3 && l.call_size[1] == 3 && l.call_size[2] == 1); /* 7 candidates through 3 slots */
}

/* The best beams stay: the first is the best of all that the step has seen. */
static void test_best_beams(void) {
    static recorder l;
    const outcome o = run("dsearch: beams=3 oversample=4 duplicate=2 drop=linear", 1, 12, 0, &l);
    const double *value = l.value;
    CHECK_OK(o.status);
    for (int i = 0; i < EXACT_STEPS - 1; i++) {
        const int beams = beams_after("linear", 3, 12, i - 1), n = beams * (2 * 12 / beams);
        double best = -INFINITY;
        for (int j = 0; j < n; j++) best = fmax(best, value[j]);
        CHECK(l.step_reward[i] == best);
        value += n;
    }
}

/* Slots are only how many go through the network at once; other prompts change nothing. */
static void test_slots(const char *how, int n_results, int few, int many) {
    const outcome a = run(how, 1, few, 400, NULL), b = run(how, 1, many, 400, NULL), c = run(how, 3, many, 400, NULL);
    CHECK_OK(a.status);
    CHECK(a.evaluations == b.evaluations && a.evaluations * 3 == c.evaluations);
    CHECK(memcmp(a.x, b.x, (size_t)n_results * sizeof a.x[0]) == 0);
    CHECK(memcmp(b.x, c.x, (size_t)many * sizeof a.x[0]) == 0);
    CHECK(memcmp(c.x[0], c.x[many], sizeof c.x[0]) != 0);
}

/* A replaced beam is a copy of one that stays; with all but one replaced every step leaves one. */
static void test_replace(void) {
    static recorder l;
    const outcome o = run("dsearch: beams=5 duplicate=2 replace=0.8", 2, 5, 0, &l);
    CHECK_OK(o.status);
    for (int i = 0; i < EXACT_STEPS - 1; i++) CHECK(l.step_distinct[i] == 1);
    const outcome some = run("dsearch: beams=5 duplicate=2 replace=0.2", 2, 5, 0, &l);
    CHECK_OK(some.status);
    for (int i = 0; i < EXACT_STEPS - 1; i++) CHECK(l.step_distinct[i] == 4);
}

/* ---- rbf ---- */

/* The rule, from the rewards in the order in which they were seen. */
static void check_rule(const recorder *l, int n_steps, int64_t budget, int n_init, int at_once) {
    const int64_t share = (budget - n_init) / n_steps;
    int64_t spent = n_init, quota = share;
    double best = -INFINITY;
    for (int i = 0; i < n_init; i++) best = fmax(best, l->value[i]);
    for (int i = 0; i < n_steps - 1; i++) {
        const bool last = i == n_steps - 2;
        int64_t drawn = 0;
        double of_step = -INFINITY;
        bool done = false;
        quota = last ? budget - spent : KAC_MAX(1, KAC_MIN(quota, budget - spent - (n_steps - 2 - i)));
        while (!done && drawn < quota) {
            const int64_t batch = KAC_MIN(at_once, quota - drawn);
            for (int64_t j = 0; j < batch; j++) {
                const double r = l->value[spent + drawn + j];
                if (done) continue;
                of_step = fmax(of_step, r);
                done = r > best && !last;
                best = fmax(best, r);
            }
            drawn += batch;
        }
        spent += drawn;
        CHECK(l->step_reward[i] == of_step);
        quota = quota - drawn + share;
    }
    CHECK(spent == budget);
}

static void test_rule(void) {
    static recorder l;
    static const int at_once[] = {1, 4};
    for (int i = 0; i < 2; i++) {
        char how[64];
        snprintf(how, sizeof how, "rbf: init=9 at-once=%d", at_once[i]);
        const outcome o = run(how, 1, 4, 333, &l);
        CHECK_OK(o.status);
        CHECK(o.evaluations == 333 && l.n_values == 333 + 4);
        check_rule(&l, EXACT_STEPS, 333, 9, at_once[i]);
    }
    const outcome own = run("rbf:", 2, 6, 0, &l); /* particles × steps */
    CHECK(own.evaluations == 2 * 6 * EXACT_STEPS);
    const outcome least = run("rbf:", 1, 2, EXACT_STEPS, &l);
    CHECK(least.evaluations == EXACT_STEPS);
    int n_best = 0;
    for (int i = 0; i < 6; i++) n_best += own.log_w[i] == 0.0;
    for (int i = 0; i < 6; i++) CHECK(own.log_w[i] < 0.0 || own.rewards[i] >= own.rewards[0]);
    CHECK(n_best == 1);
}

static void test_refusals(void) {
    CHECK_FAILS(run("rbf:", 1, 4, EXACT_STEPS - 1, NULL).status, KAC_E_USAGE, "19 evaluations for each prompt");
    CHECK_FAILS(run("rbf: init=60", 1, 3, 0, NULL).status, KAC_E_USAGE, "60 first states and 20 steps need 79");
    CHECK_FAILS(run("dsearch: beams=4 oversample=2", 1, 7, 0, NULL).status, KAC_E_USAGE, "8 at the start");
    CHECK_FAILS(run("dsearch: beams=2 oversample=2 replace=0.1", 1, 7, 0, NULL).status, KAC_E_USAGE, "--oversample");
    static const char *const methods[] = {"dsearch", "rbf"};
    for (int i = 0; i < 2; i++) {
        kac_mixture *m = exact_mixture("exact", 0, 1, 5, 1);
        kac_process p = *kac_mixture_process(m);
        kac_reward *r = exact_reward();
        kac_particles out = {0};
        CHECK_FAILS(exact_run(&out, &p, NULL, NULL, methods[i], "", 1), KAC_E_USAGE, "--reward");
        p.store = NULL;
        CHECK_FAILS(exact_run(&out, &p, r, NULL, methods[i], "", 1), KAC_E_UNSUPPORTED, "puts states by");
        kac_quadratic_destroy(r);
        kac_mixture_destroy(m);
    }
}

int main(void) {
    test_beams();
    test_best_child();
    test_best_beams();
    test_replace();
    test_slots("dsearch: beams=3 duplicate=4", 3, 3, 16);
    test_slots("dsearch: beams=2 oversample=3 drop=linear duplicate=3", 2, 6, 13);
    test_slots("rbf: init=7 at-once=3", 1, 3, 16);
    test_rule();
    test_refusals();
    return check_done();
}
