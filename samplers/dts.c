/* Diffusion tree sampling and search (Jain, Sareen, Pedramfar, Ravanbakhsh 2025): a tree of states, of which only those at few branch levels
 * are kept. An iteration goes from the root down to a node that may have another child, by exp(λ v) (dts) or by the highest
 * v + c sqrt(log N / N_child) (dts-star; the paper gives no c), draws the child down to x_0, and backs its reward up. Results are drawn from
 * the finished tree without further evaluations.
 *
 * The printed algorithm stays biased at any budget one can pay: a node whose first samples were bad is hardly visited again, one that was
 * lucky is, and regresses. So a share epsilon of the choices is even, and the sample of an iteration is weighed by W = Π 1 / (n q) over the
 * choices on its path, q the probability of the child among n: given the tree so far, W exp(λ r) is then what an even choice would give.
 * Means over seeds, λ = 1; "ring" is the paper's mixture with reward weights exp(1.5 i) (mild: 0.3) at 10000 evaluations of 25 steps, "early"
 * two rare events of which x_K decides one, 15000 evaluations; TV is of the masses of the modes, Z-hat over the true Z:
 *
 *                                             ring: TV, Z-hat    mild: TV, Z-hat    early: TV, Z-hat
 *     printed (epsilon=0 estimate=tree)       0.095   0.60       0.063   0.94       0.36   0.29
 *     epsilon=0.2 estimate=tree               0.081   0.67       0.056   0.95
 *     build=tempered estimate=tree            0.052   0.72       0.053   0.97
 *     build=uniform estimate=tree             0.023   1.01       0.053   1.00
 *     epsilon=0 estimate=paths                0.068   0.93       0.051   0.99
 *     epsilon=0.2 estimate=paths (default)    0.029   1.04       0.044   1.00       0.26   1.12 ± 0.27
 *     epsilon=0.5 estimate=paths              0.026   1.02       0.040   1.01
 *     independent samples with weights        0.020   1.01       0.046   1.00       0.66   0.90 ± 0.28
 *
 * On the ring x_K tells nothing about the reward, and a tree can only lose; where early noise decides it wins. With the paper's widening the
 * first 36 samples are independent ones, the same as those of best-of-n; less widening chooses earlier. tree_law_test.c prints the table. */
#include "base/base.h"
#include "samplers/gaussian.h"
#include "samplers/methods.h"
#include "samplers/tree_search.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

/* clang-format off */
#define TREE_OPTIONS                                                                                                   \
    KAC_OPTION_LAMBDA,                                                                                                 \
    {"rollouts", 0, KAC_OPT_INT, NULL, 1, 1000000, NULL, "R",                                                          \
     "of a prompt that run at once (default: as many as particles, at most 16); 1: serial, as published", false},      \
    {"branch-steps", 0, KAC_OPT_LIST, NULL, 0, 100000, NULL, "LIST",                                                   \
     "steps taken before the states that branch, from 0 (default: 0 and every fifth of the steps)", false},            \
    {"widening", 0, KAC_OPT_REAL, "2", 0.001, 1e6, NULL, "C", "a node of N visits has up to C · N^α children", false}, \
    {"widening-power", 0, KAC_OPT_REAL, "0.8", 0, 1, NULL, "A", "α of --widening", false},                             \
    {"max-nodes", 0, KAC_OPT_INT, NULL, 1, 2000000000, NULL, "N",                                                      \
     "of a prompt's tree, where the search ends (default: what fits into memory)", false}
/* clang-format on */

static const kac_option_spec dts_options[] = {
    TREE_OPTIONS,
    {"build", 0, KAC_OPT_CHOICE, "boltzmann", 0, 0, "boltzmann|tempered|uniform", NULL,
     "how children are chosen: by exp(λ v), by exp(tempering · λ v), evenly", false},
    {"tempering", 0, KAC_OPT_REAL, "0.5", 0, 1, NULL, "B", "of --build tempered", false},
    {"epsilon", 0, KAC_OPT_REAL, "0.2", 0, 1, NULL, "E", "share of choices that are made evenly", false},
    {"estimate", 0, KAC_OPT_CHOICE, "paths", 0, 0, "paths|tree", NULL,
     "samples are weighed by how their paths were chosen, or by the values of the tree (biased unless built evenly)",
     false},
    KAC_OPTION_PRESET("paper", "the algorithm as printed"),
    KAC_OPTIONS_END};

static const kac_option_spec star_options[] = {
    TREE_OPTIONS,
    {"exploration", 0, KAC_OPT_REAL, "0.1", 0, 1e6, NULL, "C",
     "c of the bonus for children that were visited little; in units of the reward, not given by the paper", false},
    {"backup", 0, KAC_OPT_CHOICE, "soft", 0, 0, "soft|max", NULL, "what a node's value is of its children's", false},
    {"final", 0, KAC_OPT_CHOICE, "best", 0, 0, "best|path", NULL,
     "first result: the best sample, or the one that the highest values lead to; others are the next best", false},
    KAC_OPTION_PRESET("paper", "the algorithm as printed"),
    KAC_OPTIONS_END};

#define PUBLISHED "lambda=1 rollouts=1 widening=2 widening-power=0.8 steps=50 eta=1 sampling-method=ddim"
static const kac_preset dts_presets[] = {{"paper", PUBLISHED " build=boltzmann epsilon=0 estimate=tree"}, {NULL, NULL}};
static const kac_preset star_presets[] = {{"paper", PUBLISHED " backup=soft final=path"}, {NULL, NULL}};

typedef struct dts {
    kac_tree_search search;
    bool star;
    bool by_paths;      /* estimate */
    bool by_values;     /* dts-star: final = path */
    double epsilon;     /* dts */
    double exploration; /* dts-star */
    double *log_prob;   /* [most nodes of a group] */
    int64_t *chosen;    /* [n_groups, n_per_group] nodes, then their places */
} dts;

/* ---- the rules ---- */

static int32_t choose_by_share(const kac_tree_search *s, int group, int32_t node, int64_t draw, double *log_w) {
    const dts *d = s->method;
    const double u =
        kac_rng_uniform((kac_key){s->seed, KAC_PURPOSE_SEARCH, 0}, kac_process_group_key(s->process, group), draw);
    return kac_tree_draw(&s->groups[group].tree, node, d->epsilon, u, log_w);
}

static int32_t choose_best(const kac_tree_search *s, int group, int32_t node, int64_t draw, double *log_w) {
    const dts *d = s->method;
    (void)draw, (void)log_w;
    return kac_tree_best(&s->groups[group].tree, node, d->exploration);
}

static void estimate(const kac_tree_search *s, int group, double *log_z, double *ess) {
    const dts *d = s->method;
    const kac_tree_group *g = &s->groups[group];
    *log_z = kac_tree_log_z(&g->tree);
    *ess = d->star ? (double)NAN : exp(-g->tree.nodes[0].log_square);
    if (!d->by_paths) return;
    *log_z = g->log_sum_w - log((double)g->n_iterations);
    *ess = exp(2.0 * g->log_sum_w - g->log_sum_square);
}

/* ---- the final pass ---- */

static void log_law(const dts *d, int group) {
    const kac_tree_group *g = &d->search.groups[group];
    const kac_tree *t = &g->tree;
    if (!d->by_paths) {
        kac_tree_log_law(t, d->log_prob);
        return;
    }
    for (int64_t i = 0; i < t->n; i++)
        d->log_prob[i] = t->nodes[i].log_w + t->lambda * t->nodes[i].value - g->log_sum_w;
}

/* Results that each follow the law, evenly spread over it: one uniform places them all. */
static void draw_results(const dts *d, int group, int64_t *chosen) {
    const kac_tree_search *s = &d->search;
    const kac_tree *t = &s->groups[group].tree;
    const int k = s->process->n_per_group;
    const double u =
        kac_rng_uniform((kac_key){s->seed, KAC_PURPOSE_SEARCH, 1}, kac_process_group_key(s->process, group), 0);
    double all = 0.0, sum = 0.0;
    int64_t last = 0;
    for (int64_t i = 0; i < t->n; i++) all += exp(d->log_prob[i]);
    int n = 0;
    for (int64_t i = 0; i < t->n; i++) {
        const double p = exp(d->log_prob[i]);
        if (p <= 0.0) continue;
        sum += p, last = i;
        while (n < k && (n + u) / k * all < sum) chosen[n++] = i;
    }
    while (n < k) chosen[n++] = last; /* rounding */
}

/* The best samples, best first; of fewer than there are results they come again. */
static void pick_best(const dts *d, int group, int64_t *chosen) {
    const kac_tree *t = &d->search.groups[group].tree;
    const double sign = t->lambda < 0.0 ? -1.0 : 1.0;
    const int k = d->search.process->n_per_group;
    int64_t first = -1;
    int n = 0;
    if (d->by_values) {
        int32_t at = 0;
        while (!kac_tree_is_sample(t, at)) at = kac_tree_best(t, at, 0.0);
        chosen[n++] = first = at;
    }
    const int fixed = n;
    for (int64_t i = 1; i < t->n; i++) {
        if (t->nodes[i].level < t->n_levels || i == first) continue;
        const double value = sign * t->nodes[i].value;
        int at = n < k ? n++ : k;
        for (; at > fixed && sign * t->nodes[chosen[at - 1]].value < value; at--)
            if (at < k) chosen[at] = chosen[at - 1];
        if (at < k) chosen[at] = i;
    }
    for (int i = n; i < k; i++) chosen[i] = chosen[i - n];
}

static void law_of_results(const dts *d, int group, const int64_t *chosen) {
    const int k = d->search.process->n_per_group;
    const int64_t n = d->search.groups[group].tree.n;
    for (int64_t i = 0; i < n; i++) d->log_prob[i] = 0.0;
    for (int i = 0; i < k; i++) d->log_prob[chosen[i]] += 1.0 / k;
    for (int64_t i = 0; i < n; i++) d->log_prob[i] = log(d->log_prob[i]);
}

static kac_status report_tree(const dts *d, int group, const int64_t *chosen) {
    const kac_tree_search *s = &d->search;
    const kac_tree *t = &s->groups[group].tree;
    const size_t n = (size_t)t->n;
    if (s->events == NULL || s->events->on_tree == NULL) return KAC_OK;
    int64_t *parents = kac_alloc(n * sizeof *parents), *visits = kac_alloc(n * sizeof *visits);
    int *steps = kac_alloc(n * sizeof *steps);
    double *values = kac_alloc(n * sizeof *values);
    kac_status status = KAC_E_MEMORY;
    if (parents != NULL && visits != NULL && steps != NULL && values != NULL) {
        for (size_t i = 0; i < n; i++) {
            const kac_tree_node *node = &t->nodes[i];
            parents[i] = node->parent, visits[i] = node->visits, values[i] = node->value;
            steps[i] = node->level < 0 ? -1 : node->level == t->n_levels ? s->process->n_steps : s->levels[node->level];
        }
        status = s->events->on_tree(s->events, &(kac_tree_event){.group = group,
                                                                 .n_groups = s->process->n_groups,
                                                                 .n_nodes = t->n,
                                                                 .parent = parents,
                                                                 .i_step = steps,
                                                                 .visits = visits,
                                                                 .value = values,
                                                                 .log_prob = d->log_prob,
                                                                 .chosen = chosen,
                                                                 .n_particles = s->process->n_per_group});
    }
    kac_free(parents), kac_free(visits), kac_free(steps), kac_free(values);
    return status;
}

static int32_t root_child_of(const kac_tree *t, int64_t node) {
    while (t->nodes[node].level > 0) node = t->nodes[node].parent;
    return (int32_t)node;
}

/* The first result of the same x_K. */
static int eve_of(const kac_tree *t, const int64_t *chosen, int i) {
    int eve = 0;
    while (root_child_of(t, chosen[eve]) != root_child_of(t, chosen[i])) eve++;
    return eve;
}

static kac_status finish_group(dts *d, int group, kac_particles *out) {
    kac_tree_search *s = &d->search;
    const kac_tree *t = &s->groups[group].tree;
    const int k = s->process->n_per_group, first = group * k;
    int64_t *chosen = d->chosen + first;
    double ess;
    if (d->star) {
        pick_best(d, group, chosen);
        law_of_results(d, group, chosen);
    } else {
        log_law(d, group);
        draw_results(d, group, chosen);
    }
    KAC_TRY(report_tree(d, group, chosen));
    estimate(s, group, &out->log_z[group], &ess);
    for (int i = 0; i < k; i++) {
        out->rewards[first + i] = t->nodes[chosen[i]].value;
        out->eves[first + i] = eve_of(t, chosen, i);
    }
    for (int i = 0; i < k; i++) chosen[i] = t->nodes[chosen[i]].place;
    return KAC_OK;
}

static kac_status finish(dts *d, kac_particles *out) {
    kac_tree_search *s = &d->search;
    const size_t n_groups = (size_t)s->process->n_groups, n = n_groups * (size_t)s->process->n_per_group;
    int64_t most = 0;
    for (size_t g = 0; g < n_groups; g++) most = KAC_MAX(most, s->groups[g].tree.n);
    out->n_groups = s->process->n_groups, out->n_per_group = s->process->n_per_group;
    out->log_weights = kac_alloc(n * sizeof(double));
    out->rewards = kac_alloc(n * sizeof(double));
    out->log_z = kac_alloc(n_groups * sizeof(double));
    out->eves = kac_alloc(n * sizeof(int));
    d->chosen = kac_alloc(n * sizeof *d->chosen);
    d->log_prob = kac_alloc((size_t)most * sizeof *d->log_prob);
    if (out->log_weights == NULL || out->rewards == NULL || out->log_z == NULL || out->eves == NULL ||
        d->chosen == NULL || d->log_prob == NULL)
        return KAC_E_MEMORY;
    for (size_t g = 0; g < n_groups; g++) KAC_TRY(finish_group(d, (int)g, out));
    int *slots = kac_alloc(n * sizeof *slots);
    if (slots == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < n; i++) slots[i] = (int)i;
    const kac_status status = s->process->fetch(s->process, d->chosen, slots, (int)n);
    kac_free(slots);
    return status;
}

/* ---- options ---- */

/* 0 and every fifth of the steps, but not before the last one, which often draws no noise. */
static void default_levels(kac_tree_search *s) {
    const int n_steps = s->process->n_steps;
    s->n_levels = 1;
    for (int i = 1; i < 5; i++) {
        const int level = n_steps * i / 5;
        if (level > s->levels[s->n_levels - 1] && level < n_steps - 1) s->levels[s->n_levels++] = level;
    }
}

static kac_status read_levels(kac_tree_search *s, const kac_options *o) {
    const int n = kac_options_count(o, "branch-steps"), n_steps = s->process->n_steps;
    if (n == 0) {
        default_levels(s);
    } else if (n > KAC_TREE_LEVELS) {
        return KAC_FAIL(KAC_E_USAGE, "--branch-steps: %d levels, at most %d are possible", n, KAC_TREE_LEVELS);
    }
    for (int i = 0; i < n; i++) {
        const int64_t step = kac_options_int_at(o, "branch-steps", i);
        if (step >= n_steps || (i == 0 ? step != 0 : step <= s->levels[i - 1]))
            return KAC_FAIL(KAC_E_USAGE,
                            "--branch-steps must rise from 0 to at most %d, the last step; entry %d is %lld",
                            n_steps - 1, i + 1, (long long)step);
        s->levels[s->n_levels++] = (int)step;
    }
    return KAC_OK;
}

/* Bytes of a node with its state and prediction, about. */
static double node_bytes(const kac_process *p) {
    return 2.0 * sizeof(float) * (double)p->n_state + sizeof(kac_tree_node) + 128.0;
}

static kac_status read_bounds(kac_tree_search *s, const kac_options *o) {
    const kac_process *p = s->process;
    const kac_events *e = s->events;
    const double room = 0.7 * (double)kac_memory_available_bytes() / node_bytes(p) / p->n_groups;
    s->most_nodes = (int64_t)fmin(room, 2e9);
    if (kac_options_given(o, "max-nodes")) {
        const int64_t asked = kac_options_int(o, "max-nodes");
        if (asked > s->most_nodes)
            return KAC_FAIL(KAC_E_USAGE, "--max-nodes %lld for %d prompts would take %.3g GB; there is room for %lld",
                            (long long)asked, p->n_groups, (double)asked * node_bytes(p) * p->n_groups / 1e9,
                            (long long)s->most_nodes);
        s->most_nodes = asked;
    }
    if (s->most_nodes < s->n_levels + 2)
        return KAC_FAIL(KAC_E_USAGE, "--max-nodes %lld is less than the %d nodes of one sample",
                        (long long)s->most_nodes, s->n_levels + 2);
    if (e != NULL) s->nfe_budget = e->nfe, s->seconds_budget = e->seconds;
    if (s->nfe_budget <= 0 && s->seconds_budget <= 0.0) s->nfe_budget = 8 * (int64_t)p->n_per_group * p->n_steps;
    return KAC_OK;
}

static kac_status read_options(dts *d, const kac_options *o) {
    kac_tree_search *s = &d->search;
    const int k = s->process->n_per_group;
    s->lambda = kac_options_real(o, "lambda");
    s->widening = kac_options_real(o, "widening");
    s->power = kac_options_real(o, "widening-power");
    s->n_rollouts = kac_options_given(o, "rollouts") ? (int)kac_options_int(o, "rollouts") : KAC_MIN(k, 16);
    if (s->n_rollouts > k)
        return KAC_FAIL(KAC_E_USAGE, "--rollouts %d is more than the %d particles of a prompt, in which they run",
                        s->n_rollouts, k);
    KAC_TRY(read_levels(s, o));
    return read_bounds(s, o);
}

static kac_status read_rule(dts *d, const kac_options *o, kac_tree_backup *backup, double *tempering) {
    *backup = KAC_TREE_SOFT, *tempering = 1.0;
    if (d->star) {
        d->exploration = kac_options_real(o, "exploration");
        d->by_values = strcmp(kac_options_text(o, "final"), "path") == 0;
        if (strcmp(kac_options_text(o, "backup"), "max") == 0) *backup = KAC_TREE_MAX;
        return KAC_OK;
    }
    const char *build = kac_options_text(o, "build");
    d->by_paths = strcmp(kac_options_text(o, "estimate"), "paths") == 0;
    d->epsilon = strcmp(build, "uniform") == 0 ? 1.0 : kac_options_real(o, "epsilon");
    if (strcmp(build, "tempered") == 0) *tempering = kac_options_real(o, "tempering");
    return KAC_OK;
}

/* ---- the methods ---- */

static kac_status check_process(const char *name, const kac_process *p, const kac_reward *reward) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "%s needs a reward to search by; add --reward", name);
    if (p->rekey == NULL || p->store == NULL || p->fetch == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s needs states that can be put by, which this process does not offer",
                        name);
    if (!p->stochastic)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s needs steps that draw noise, or states would branch into copies; choose a "
                        "stochastic --sampling-method or --eta 1",
                        name);
    return KAC_OK;
}

static kac_status run(kac_particles *out, const char *name, bool star, kac_process *process, kac_reward *reward,
                      kac_events *events, const kac_options *o, uint64_t seed) {
    dts d = {.search = {.name = name,
                        .process = process,
                        .reward = reward,
                        .events = events,
                        .seed = seed,
                        .choose = star ? choose_best : choose_by_share,
                        .estimate = estimate},
             .star = star};
    kac_tree_backup backup;
    double tempering;
    d.search.method = &d;
    *out = (kac_particles){0};
    KAC_TRY(check_process(name, process, reward));
    KAC_TRY(read_rule(&d, o, &backup, &tempering));
    KAC_TRY(read_options(&d, o));
    kac_status status = kac_tree_search_init(&d.search, backup, tempering);
    if (status == KAC_OK) status = kac_tree_search_run(&d.search);
    if (status == KAC_OK) status = finish(&d, out);
    if (status != KAC_OK) kac_particles_free(out);
    kac_tree_search_free(&d.search);
    kac_free(d.chosen);
    kac_free(d.log_prob);
    return status;
}

static kac_status run_dts(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                          const kac_options *o, uint64_t seed) {
    return run(out, "dts", false, process, reward, events, o, seed);
}

static kac_status run_star(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                           const kac_options *o, uint64_t seed) {
    return run(out, "dts-star", true, process, reward, events, o, seed);
}

const kac_method kac_method_dts = {.name = "dts",
                                   .summary = "diffusion tree sampling: a tree of states, grown where rewards are high",
                                   .options = dts_options,
                                   .target = KAC_TARGET_TILTED,
                                   .anytime = true,
                                   .run = run_dts,
                                   .needs_density = true,
                                   .presets = dts_presets};

const kac_method kac_method_dts_star = {.name = "dts-star",
                                        .summary =
                                            "diffusion tree search: a tree of states, grown towards the highest reward",
                                        .options = star_options,
                                        .target = KAC_TARGET_MODE,
                                        .anytime = true,
                                        .run = run_star,
                                        .needs_density = true,
                                        .presets = star_presets};
