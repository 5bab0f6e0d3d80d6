/* What must hold of every tree, to the bit or to rounding: the printed algorithm written out beside it, invariants, noise, budgets,
 * refusals. */
#include "tree_exact.h"
#include <kac/rng.h>
#include <time.h>

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

/* ---- the algorithm as printed, written out: every value from all children anew, one rollout after the other ---- */

enum { REFERENCE_NODES = 6000 };

/* No two samples have equal rewards, among which rounding would choose. */
static double bowl(const double *x, const void *how) {
    (void)how;
    return -0.2 * (x[0] - 2) * (x[0] - 2) - 0.1 * (x[1] - 1) * (x[1] - 1);
}

typedef struct reference {
    int parent[REFERENCE_NODES], level[REFERENCE_NODES], index[REFERENCE_NODES], n_children[REFERENCE_NODES], n;
    int64_t visits[REFERENCE_NODES];
    double value[REFERENCE_NODES];
    const int *levels;
    int n_levels;
    double lambda, widening, power, exploration;
    bool star, max;
} reference;

static int reference_child(const reference *t, int node, int index) {
    for (int i = node + 1; i < t->n; i++)
        if (t->parent[i] == node && t->index[i] == index) return i;
    return -1;
}

static int reference_choose(const reference *t, int node, double u) {
    double sum = 0, all = 0, top = -INFINITY;
    int best = -1;
    for (int i = node + 1; i < t->n; i++) {
        if (t->parent[i] != node) continue;
        const double score = t->value[i] + t->exploration * sqrt(log((double)t->visits[node]) / (double)t->visits[i]);
        if (t->star && score > top) top = score, best = i;
        all += exp(t->lambda * (t->value[i] - t->value[node]));
    }
    for (int i = node + 1; i < t->n && !t->star; i++) {
        if (t->parent[i] != node) continue;
        sum += exp(t->lambda * (t->value[i] - t->value[node]));
        best = i;
        if (sum >= u * all) break;
    }
    return best;
}

static double reference_value(const reference *t, int node) {
    double top = -INFINITY, sum = 0;
    for (int i = node + 1; i < t->n; i++)
        if (t->parent[i] == node) top = fmax(top, t->value[i]);
    for (int i = node + 1; i < t->n; i++)
        if (t->parent[i] == node) sum += exp(t->lambda * (t->value[i] - top));
    return t->max ? top : top + log(sum / t->n_children[node]) / t->lambda;
}

static uint64_t splitmix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t reference_key(const reference *t, int node, int index) {
    if (node == 0) return (uint64_t)index;
    const uint64_t own = reference_key(t, t->parent[node], t->index[node]);
    return index == 0
               ? own
               : splitmix(splitmix(own + 0x9E3779B97F4A7C15u * (uint64_t)(t->level[node] + 1)) + (uint64_t)index);
}

/* The states of the node's path are drawn again from x_K on. */
static double reference_roll(const reference *t, kac_process *p, kac_reward *r, int node, int index) {
    const int slot = 0;
    int path[16], n = 0;
    double out;
    for (int at = node; at > 0; at = t->parent[at]) path[n++] = at;
    for (int i_step = 0, level = 0; i_step < p->n_steps; i_step++) {
        if (level < t->n_levels && t->levels[level] == i_step) {
            const int depth = level++; /* the noise up to the next level is the key of the state after it */
            const bool known = depth < n;
            const uint64_t key = known ? reference_key(t, t->parent[path[n - 1 - depth]], t->index[path[n - 1 - depth]])
                                       : reference_key(t, node, index);
            if (depth == 0) {
                p->rekey(p, &slot, 1, &key);
                CHECK_OK(p->start(p, &slot, 1));
            }
            const uint64_t next = depth + 1 < n ? reference_key(t, path[n - 1 - depth], t->index[path[n - 2 - depth]])
                                  : depth + 1 == n ? reference_key(t, node, index)
                                                   : key;
            p->rekey(p, &slot, 1, &next);
        }
        CHECK_OK(p->predict(p, i_step, &slot, 1));
        CHECK_OK(p->step(p, i_step, &slot, &slot, 1));
    }
    CHECK_OK(r->score(r, p, &slot, 1, KAC_STAGE_FINAL, &out));
    return out;
}

static void reference_run(reference *t, kac_process *p, kac_reward *r, int64_t nfe, uint64_t seed) {
    int64_t spent = 0;
    t->n = 1, t->parent[0] = -1, t->level[0] = -1, t->visits[0] = 1;
    for (int64_t m = 0;; m++) {
        int node = 0, leaf;
        int64_t draw = m * 64;
        while (t->level[node] < t->n_levels &&
               t->n_children[node] >= t->widening * pow((double)t->visits[node], t->power)) {
            const double u = kac_rng_uniform((kac_key){seed, KAC_PURPOSE_SEARCH, 0}, 0, draw++);
            node = reference_choose(t, node, u);
        }
        leaf = node;
        if (t->level[node] < t->n_levels) {
            spent += p->n_steps - (node == 0 ? 0 : t->levels[t->level[node]] + 1);
            if (spent > nfe) return;
            const double reward = reference_roll(t, p, r, node, t->n_children[node]);
            while (t->level[leaf] < t->n_levels) {
                t->parent[t->n] = leaf, t->level[t->n] = t->level[leaf] + 1, t->index[t->n] = t->n_children[leaf]++;
                t->visits[t->n] = 1;
                leaf = t->n++;
            }
            t->value[leaf] = reward;
        }
        for (int at = t->parent[leaf]; at >= 0; at = t->parent[at]) {
            t->value[at] = reference_value(t, at);
            t->visits[at]++;
        }
    }
}

static void test_reference(const char *method, const char *line, reference how) {
    static const int levels[] = {0, 2, 4, 6, 8};
    static reference t;
    ring r;
    tree_case c, again;
    char all[160];
    t = how;
    t.lambda = 1, t.levels = levels, t.n_levels = 5;
    ring_init(&r, 1.5);
    tree_case_init(&c, bowl, NULL, 2), tree_case_init(&again, bowl, NULL, 2);
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 4, 5, 0}),
                *other = ring_mixture(&r, 10, (kac_mixture_options){1, 1, 5, 0});
    snprintf(all, sizeof all, "lambda=1 rollouts=1 widening=%g widening-power=%g %s", t.widening, t.power, line);
    if (tree_case_run(&c, kac_mixture_process(m), method, all, 4000, 7, NULL)) {
        reference_run(&t, kac_mixture_process(other), &again.reward, 4000, 7);
        CHECK(c.tree.n_nodes == t.n);
        for (int i = 0; i < t.n && i < c.tree.n_nodes; i++) {
            const int step = t.level[i] < 0 ? -1 : t.level[i] == 5 ? 10 : levels[t.level[i]];
            if (!CHECK(c.tree.parent[i] == t.parent[i]) || !CHECK(c.tree.i_step[i] == step) ||
                !CHECK(c.tree.visits[i] == t.visits[i]) || !CHECK_NEAR(c.tree.value[i], t.value[i], 1e-9))
                break;
        }
        int deepest = 0;
        for (int i = 0; i < t.n; i++)
            if (t.index[i] > 0) deepest = KAC_MAX(deepest, t.level[i]);
        printf("%s %s: %d nodes, branches down to level %d\n", method, all, t.n, deepest);
        CHECK(deepest >= 3 || t.widening >= 2);
        CHECK(reference_child(&t, 0, 0) == 1);
    }
    kac_mixture_destroy(m), kac_mixture_destroy(other);
    tree_case_free(&c), tree_case_free(&again);
}

static void test_references(void) {
    test_reference("dts", "epsilon=0 estimate=tree", (reference){.widening = 2, .power = 0.8});
    test_reference("dts", "epsilon=0 estimate=tree", (reference){.widening = 1, .power = 0.5});
    test_reference("dts-star", "exploration=0.7 final=path",
                   (reference){.widening = 1, .power = 0.5, .exploration = 0.7, .star = true});
    test_reference("dts-star", "exploration=0.2 backup=max",
                   (reference){.widening = 1.5, .power = 0.4, .exploration = 0.2, .star = true, .max = true});
}

/* ---- invariants of the tree ---- */

/* Before its first choice a node has one child less than visits: 36 by α = 0.8, 13 by 0.7; no node ever has more than it may. */
static void test_growth(const char *line, double widening, double power, int burn_in) {
    ring r;
    tree_case c;
    ring_init(&r, 1.5);
    tree_case_init(&c, ring_reward, &r, 2);
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 16, 5, 0});
    if (tree_case_run(&c, kac_mixture_process(m), "dts", line, 5000, 7, NULL)) {
        const int64_t n = c.tree.n_nodes;
        int *children = kac_alloc((size_t)n * sizeof *children);
        for (int64_t i = 1; i < n; i++) children[c.tree.parent[i]]++;
        for (int64_t i = 0; i < n; i++) {
            const int64_t visits = c.tree.visits[i];
            if (c.tree.i_step[i] == 10) continue;
            CHECK(children[i] >= 1 && children[i] <= visits - 1);
            CHECK(children[i] <= burn_in || children[i] - 1 < widening * pow((double)visits, power));
            if (visits <= burn_in + 1) CHECK(children[i] == visits - 1);
        }
        int below = 0; /* the first child of the root gets a second one only after the burn-in */
        for (int64_t i = 1; i < n && below < burn_in; i++) {
            below += c.tree.parent[i] == 0;
            if (c.tree.parent[i] > 0 && c.tree.parent[i] != i - 1) break;
        }
        CHECK(below == burn_in);
        kac_free(children);
    }
    kac_mixture_destroy(m);
    tree_case_free(&c);
}

static double shifted_bowl(const double *x, const void *how) {
    return bowl(x, how) + 40.0;
}

/* A constant added to the reward moves log Z and the values, and nothing else. */
static void test_shift(const char *method, const char *line) {
    ring r;
    tree_case a, b;
    kac_particles one = {0}, two = {0};
    ring_init(&r, 0.3);
    tree_case_init(&a, bowl, NULL, 2), tree_case_init(&b, shifted_bowl, NULL, 2);
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){2, 8, 5, 0}),
                *other = ring_mixture(&r, 10, (kac_mixture_options){2, 8, 5, 0});
    if (tree_case_run(&a, kac_mixture_process(m), method, line, 3000, 7, &one) &&
        tree_case_run(&b, kac_mixture_process(other), method, line, 3000, 7, &two)) {
        CHECK(a.tree.n_nodes == b.tree.n_nodes);
        for (int64_t i = 0; i < a.tree.n_nodes; i++) {
            CHECK(a.tree.parent[i] == b.tree.parent[i] && a.tree.visits[i] == b.tree.visits[i]);
            CHECK_NEAR(a.tree.value[i] + 40, b.tree.value[i], 1e-10);
        }
        for (int i = 0; i < 8; i++) CHECK(a.tree.chosen[i] == b.tree.chosen[i]);
        if (!isnan(one.log_z[1])) CHECK_NEAR(one.log_z[1] + 2 * 40, two.log_z[1], 1e-10);
    }
    kac_particles_free(&one), kac_particles_free(&two);
    kac_mixture_destroy(m), kac_mixture_destroy(other);
    tree_case_free(&a), tree_case_free(&b);
}

/* Values as λ → 0 are means, as λ → ∞ maxima of what is below; of uneven trees means of means. */
static void test_limits(void) {
    static const char *const lines[] = {"lambda=1e-6", "lambda=0", "lambda=100000", "lambda=-100000"};
    ring r;
    ring_init(&r, 1.5);
    for (int k = 0; k < 4; k++) {
        tree_case c;
        char line[96];
        tree_case_init(&c, ring_reward, &r, 2);
        kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 16, 5, 0});
        snprintf(line, sizeof line, "%s estimate=tree build=uniform widening=1 widening-power=0.6", lines[k]);
        if (tree_case_run(&c, kac_mixture_process(m), "dts", line, 4000, 7, NULL)) {
            const int64_t n = c.tree.n_nodes;
            double *sums = kac_alloc((size_t)n * sizeof *sums), *counts = kac_alloc((size_t)n * sizeof *counts);
            for (int64_t i = n - 1; i > 0; i--) { /* children after parents */
                const double v = c.tree.i_step[i] == 10 ? c.tree.value[i] : k < 2 ? sums[i] / counts[i] : sums[i];
                const int64_t up = c.tree.parent[i];
                if (k < 2)
                    sums[up] += v;
                else if (counts[up] == 0 || (k == 2 ? v > sums[up] : v < sums[up]))
                    sums[up] = v;
                counts[up]++;
                CHECK_NEAR(c.tree.value[i], v, k == 0 ? 1e-4 : k == 1 ? 1e-12 : 1e-3);
            }
            if (k == 1) CHECK(c.log_z == 0.0);
            kac_free(sums), kac_free(counts);
        }
        kac_mixture_destroy(m);
        tree_case_free(&c);
    }
}

/* ---- noise: a sample is a function of the child indices on its path, however many rollouts run at once ---- */

static uint64_t path_of(const kac_tree_event *t, const int *index, int64_t node) {
    uint64_t hash = 0;
    for (; node > 0; node = t->parent[node]) hash = splitmix(hash + 1 + (uint64_t)index[node]);
    return hash;
}

static void test_noise(void) {
    static const char *const lines[] = {"lambda=1 widening=1 widening-power=0.5 rollouts=1",
                                        "lambda=1 widening=1 widening-power=0.5 rollouts=16",
                                        "lambda=1 widening=1 widening-power=0.5 rollouts=5 epsilon=0.7"};
    enum { N = 3 };
    ring r;
    tree_case c[N];
    int *index[N];
    ring_init(&r, 1.5);
    for (int k = 0; k < N; k++) {
        tree_case_init(&c[k], ring_reward, &r, 2);
        kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 16, 5, 0});
        tree_case_run(&c[k], kac_mixture_process(m), "dts", lines[k], 3000, (uint64_t)k, NULL);
        kac_mixture_destroy(m);
        index[k] = kac_alloc(2 * (size_t)c[k].tree.n_nodes * sizeof(int));
        int *children = index[k] + c[k].tree.n_nodes;
        for (int64_t i = 1; i < c[k].tree.n_nodes; i++) index[k][i] = children[c[k].tree.parent[i]]++;
    }
    for (int k = 1; k < N; k++) {
        int n_shared = 0, n_branched = 0;
        for (int64_t i = 1; i < c[0].tree.n_nodes; i++) {
            if (c[0].tree.i_step[i] < 10) continue;
            const uint64_t path = path_of(&c[0].tree, index[0], i);
            for (int64_t j = 1; j < c[k].tree.n_nodes; j++) {
                if (c[k].tree.i_step[j] < 10 || path_of(&c[k].tree, index[k], j) != path) continue;
                CHECK(c[0].tree.value[i] == c[k].tree.value[j]);
                n_shared++;
                n_branched += index[0][i] > 0 || index[0][c[0].tree.parent[i]] > 0;
            }
        }
        printf("%s: %d samples in common, %d of them late branches\n", lines[k], n_shared, n_branched);
        CHECK(n_shared > 40 && n_branched > 5);
    }
    for (int i = 0; i < c[0].n_points; i++) /* and no two are the same */
        for (int j = 0; j < i; j++) CHECK(memcmp(&c[0].points[2 * i], &c[0].points[2 * j], 2 * sizeof(double)) != 0);
    for (int k = 0; k < N; k++) kac_free(index[k]), tree_case_free(&c[k]);
}

/* ---- budgets ---- */

static void test_budgets(void) {
    ring r;
    tree_case c;
    ring_init(&r, 0.3);
    tree_case_init(&c, ring_reward, &r, 2);
    for (int64_t nfe = 10; nfe < 400; nfe += 13) {
        kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){2, 4, 5, 0});
        if (tree_case_run(&c, kac_mixture_process(m), "dts", "lambda=1 widening=1 widening-power=0.5", nfe, 1, NULL)) {
            CHECK(c.nfe <= nfe && c.nfe > nfe - 10);
            CHECK(kac_mixture_evaluations(m) <= 2 * nfe && kac_mixture_evaluations(m) > 2 * (nfe - 10));
        }
        kac_mixture_destroy(m);
    }
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 4, 5, 0});
    kac_process *p = kac_mixture_process(m);
    if (tree_case_run(&c, p, "dts", "lambda=1", 0, 1, NULL)) CHECK(c.nfe > 8 * 4 * 10 - 10 && c.nfe <= 8 * 4 * 10);
    if (tree_case_run(&c, p, "dts", "lambda=1 max-nodes=100", 100000, 1, NULL))
        CHECK(c.n_nodes <= 100 && c.n_nodes > 93);
    /* a tree that may not grow ends */
    if (tree_case_run(&c, p, "dts", "lambda=1 rollouts=1 epsilon=0.5 widening-power=0", 100000, 1, NULL))
        CHECK(c.n_points == 64);
    c.events.seconds = 0.2;
    const double start = kac_now_ms();
    if (tree_case_run(&c, p, "dts", "lambda=1", 0, 1, NULL)) CHECK(c.n_points > 4 && kac_now_ms() - start < 5000);
    kac_mixture_destroy(m);
    tree_case_free(&c);
}

/* ---- what is reported: the law sums to one, also where samples are visited again, and the effective sample size is that law's ---- */

static void test_report(const char *line, bool ends_with_sample) {
    tree_case c;
    double all = 0, squares = 0;
    ring r;
    ring_init(&r, 1);
    tree_case_init(&c, bowl, NULL, 2);
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){1, 4, 5, 0});
    if (tree_case_run(&c, kac_mixture_process(m), "dts", line, 3000, 1, NULL)) {
        for (int i = 0; i < c.n_points; i++) {
            const double p = exp(c.log_prob[i]);
            CHECK(p >= 0 && p <= 1);
            all += p, squares += p * p;
        }
        CHECK_NEAR(all, 1.0, 1e-9);
        if (ends_with_sample) CHECK_NEAR(c.ess, 1 / squares, 1e-6 / squares);
        for (int i = 0; i < 4; i++) CHECK(c.tree.log_prob[c.tree.chosen[i]] > -INFINITY);
    }
    kac_mixture_destroy(m);
    tree_case_free(&c);
}

/* ---- refusals ---- */

static double not_a_number(const double *x, const void *how) {
    (void)how;
    return x[0] > 4.5 ? (double)NAN : x[0];
}

static void refuse(kac_process *p, kac_reward *reward, int64_t nfe, const char *method, const char *line,
                   kac_status status, const char *text) {
    kac_particles out = {0};
    kac_events events = {.nfe = nfe};
    CHECK_FAILS(exact_run(&out, p, reward, &events, method, line, 1), status, text);
    CHECK(out.rewards == NULL);
}

static void test_refusals(void) {
    ring r;
    tree_case c, bad;
    ring_init(&r, 0.3);
    tree_case_init(&c, ring_reward, &r, 2), tree_case_init(&bad, not_a_number, NULL, 2);
    kac_mixture *m = ring_mixture(&r, 10, (kac_mixture_options){2, 4, 5, 0});
    kac_process *p = kac_mixture_process(m), without = *p, still = *p;
    without.store = NULL, still.stochastic = false;
    refuse(p, NULL, 0, "dts", "", KAC_E_USAGE, "dts needs a reward");
    refuse(&without, &c.reward, 0, "dts-star", "", KAC_E_UNSUPPORTED, "dts-star");
    refuse(&still, &c.reward, 0, "dts", "", KAC_E_UNSUPPORTED, "draw noise");
    refuse(p, &c.reward, 9, "dts", "", KAC_E_USAGE, "budget of 9 evaluations is less than the 10");
    refuse(p, &c.reward, 0, "dts", "rollouts=5", KAC_E_USAGE, "--rollouts 5");
    refuse(p, &c.reward, 0, "dts", "branch-steps=1,2", KAC_E_USAGE, "entry 1 is 1");
    refuse(p, &c.reward, 0, "dts", "branch-steps=0,4,4", KAC_E_USAGE, "entry 3 is 4");
    refuse(p, &c.reward, 0, "dts", "branch-steps=0,10", KAC_E_USAGE, "at most 9");
    refuse(p, &c.reward, 0, "dts", "max-nodes=5", KAC_E_USAGE, "--max-nodes 5");
    refuse(p, &c.reward, 0, "dts", "max-nodes=2000000000", KAC_E_USAGE, "there is room for");
    refuse(p, &bad.reward, 4000, "dts", "", KAC_E_NONFINITE, "the reward test of sample");
    kac_mixture_destroy(m);
    tree_case_free(&c), tree_case_free(&bad);
}

/* ---- speed: a hundred thousand nodes ---- */

static void test_speed(void) {
    ring r;
    tree_case c;
    ring_init(&r, 0.3);
    tree_case_init(&c, ring_reward, &r, 2);
    for (int k = 0; k < 2; k++) {
        kac_mixture *m = ring_mixture(&r, 20, (kac_mixture_options){1, 16, 5, 0});
        const clock_t start = clock();
        if (tree_case_run(&c, kac_mixture_process(m), k == 0 ? "dts" : "dts-star", "lambda=1", 120000, 1, NULL))
            printf("%s: %lld nodes, %d samples in %.2f s\n", k == 0 ? "dts" : "dts-star", (long long)c.tree.n_nodes,
                   c.n_points, (double)(clock() - start) / CLOCKS_PER_SEC);
        CHECK(c.tree.n_nodes > 80000);
        kac_mixture_destroy(m);
    }
    tree_case_free(&c);
}

int main(void) {
    test_rows();
    test_references();
    test_growth("lambda=1 rollouts=1 epsilon=0 estimate=tree", 2, 0.8, 36);
    test_growth("lambda=1 rollouts=1 widening-power=0.7", 2, 0.7, 13);
    test_shift("dts", "lambda=2");
    test_shift("dts", "lambda=2 estimate=tree rollouts=1 build=tempered");
    test_shift("dts-star", "lambda=2 widening=1");
    test_shift("dts-star", "lambda=2 backup=max widening=1");
    test_limits();
    test_noise();
    test_budgets();
    test_report("lambda=1 widening=1 widening-power=0.6", true);
    test_report("lambda=1 widening=1 widening-power=0.3 rollouts=1", false);
    test_report("lambda=1 widening=1 widening-power=0.6 estimate=tree build=tempered", true);
    test_report("lambda=1 rollouts=1 epsilon=0.5 widening-power=0", false);
    test_refusals();
    test_speed();
    return check_done();
}
