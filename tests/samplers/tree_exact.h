/* What the tests of trees share: problems with known answers, runs of a budget, and the law of the samples that a tree holds. */
#ifndef KAC_TESTS_SAMPLERS_TREE_EXACT_H
#define KAC_TESTS_SAMPLERS_TREE_EXACT_H

#include "exact.h"
#include "samplers/gaussian.h"

/* A reward by the point alone, which remembers what it has scored: the samples of a group's tree in the order of its nodes. */
typedef struct tree_case {
    kac_reward reward;
    kac_events events;
    double (*value)(const double *x, const void *how);
    const void *how;
    int d;
    double *points; /* [n_points, d] of group 0 */
    int n_points, most_points;

    /* law of the samples at the end */
    double *log_prob;    /* [n_points] */
    kac_tree_event tree; /* of group 0; arrays are owned */
    int64_t nfe, n_nodes;
    double ess, log_z, best;
    int n_events;
} tree_case;

static inline kac_status tree_case_score(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage,
                                         double *out) {
    tree_case *c = r->self;
    CHECK(stage == KAC_STAGE_FINAL);
    for (int i = 0; i < n; i++) {
        const double *x = kac_mixture_point(p, slots[i], stage);
        out[i] = c->value(x, c->how);
        if (slots[i] >= p->n_per_group) continue;
        if (c->n_points == c->most_points) {
            c->most_points = c->most_points == 0 ? 1024 : 2 * c->most_points;
            c->points = kac_realloc(c->points, (size_t)c->most_points * (size_t)c->d * sizeof *c->points);
        }
        memcpy(c->points + c->n_points++ * c->d, x, (size_t)c->d * sizeof *x);
    }
    return KAC_OK;
}

static inline kac_status tree_case_on_search(kac_events *e, const kac_search_event *v) {
    tree_case *c = e->self;
    CHECK(v->nfe_budget == 0 || v->nfe <= v->nfe_budget);
    if (v->group == 0) c->nfe = v->nfe, c->n_nodes = v->n_nodes, c->ess = v->ess, c->log_z = v->log_z;
    if (v->group == 0) c->best = v->best_reward, c->n_events++;
    return KAC_OK;
}

static inline void *tree_case_kept(const void *data, size_t n_bytes) {
    void *out = kac_alloc(n_bytes);
    memcpy(out, data, n_bytes);
    return out;
}

static inline void tree_case_clear(tree_case *c) {
    kac_free((void *)c->tree.parent), kac_free((void *)c->tree.i_step), kac_free((void *)c->tree.visits);
    kac_free((void *)c->tree.value), kac_free((void *)c->tree.log_prob), kac_free((void *)c->tree.chosen);
    c->tree = (kac_tree_event){0};
    kac_free(c->log_prob);
    c->log_prob = NULL;
    c->n_points = c->n_events = 0;
}

static inline void tree_case_free(tree_case *c) {
    tree_case_clear(c);
    kac_free(c->points);
}

static inline kac_status tree_case_on_tree(kac_events *e, const kac_tree_event *v) {
    tree_case *c = e->self;
    if (v->group != 0) return KAC_OK;
    const size_t n = (size_t)v->n_nodes;
    c->tree = *v;
    c->tree.parent = tree_case_kept(v->parent, n * sizeof *v->parent);
    c->tree.i_step = tree_case_kept(v->i_step, n * sizeof *v->i_step);
    c->tree.visits = tree_case_kept(v->visits, n * sizeof *v->visits);
    c->tree.value = tree_case_kept(v->value, n * sizeof *v->value);
    c->tree.log_prob = tree_case_kept(v->log_prob, n * sizeof *v->log_prob);
    c->tree.chosen = tree_case_kept(v->chosen, (size_t)v->n_particles * sizeof *v->chosen);
    c->log_prob = kac_alloc((size_t)c->n_points * sizeof(double));
    int at = 0;
    int n_steps = 0;
    for (size_t i = 0; i < n; i++) n_steps = KAC_MAX(n_steps, v->i_step[i]);
    for (size_t i = 0; i < n; i++)
        if (v->i_step[i] == n_steps && CHECK(at < c->n_points)) c->log_prob[at++] = v->log_prob[i];
    CHECK(at == c->n_points);
    return KAC_OK;
}

static inline void tree_case_init(tree_case *c, double (*value)(const double *, const void *), const void *how, int d) {
    *c = (tree_case){.value = value, .how = how, .d = d};
    c->reward = (kac_reward){.self = c, .name = "test", .score = tree_case_score};
    c->events = (kac_events){.self = c, .on_search = tree_case_on_search, .on_tree = tree_case_on_tree};
}

/* One run of a method with a budget; what it leaves is in the case until the next. */
static inline bool tree_case_run(tree_case *c, kac_process *p, const char *method, const char *line, int64_t nfe,
                                 uint64_t seed, kac_particles *out) {
    kac_particles own = {0};
    tree_case_clear(c);
    c->events.nfe = nfe;
    const bool good = CHECK_OK(exact_run(out != NULL ? out : &own, p, &c->reward, &c->events, method, line, seed));
    if (out == NULL && good) c->log_z = own.log_z[0];
    kac_particles_free(&own);
    return good;
}

/* Mixture of round Gaussians of deviation s, w and mean [k, d], noise levels alpha-bar by `bar` of step n = 1 … K. */
static inline kac_mixture *tree_mixture(const char *kernel, int k, int d, const double *w, const double *mean, double s,
                                        int n_steps, const double *bar, kac_mixture_options o) {
    kac_text t = {0};
    kac_mixture *m = NULL;
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"kernel\": \"%s\", \"weights\": [", kernel);
    for (int i = 0; i < k; i++) kac_text_add(&t, "%s%.17g", i > 0 ? ", " : "", w == NULL ? 1.0 / k : w[i]);
    kac_text_add(&t, "], \"means\": [");
    for (int i = 0; i < k * d; i++)
        kac_text_add(&t, "%s%s%.17g%s", i > 0 ? ", " : "", i % d == 0 ? "[" : "", mean[i], i % d == d - 1 ? "]" : "");
    kac_text_add(&t, "], \"covariances\": [");
    for (int i = 0; i < k; i++) {
        kac_text_add(&t, "%s[", i > 0 ? ", " : "");
        for (int a = 0; a < d * d; a++)
            kac_text_add(&t, "%s%s%.17g%s", a > 0 ? ", " : "", a % d == 0 ? "[" : "", a % (d + 1) == 0 ? s * s : 0.0,
                         a % d == d - 1 ? "]" : "");
        kac_text_add(&t, "]");
    }
    kac_text_add(&t, "], \"schedule\": {\"alphas_cumprod\": [");
    for (int i = 1; i <= n_steps; i++) kac_text_add(&t, "%s%.17g", i > 1 ? ", " : "", bar[i]);
    kac_text_add(&t, "]}}");
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "test", &o));
    kac_text_free(&t);
    return m;
}

/* ---- the ring: eight Gaussians of the paper, with the ratio of two mixtures as reward: Z = 1, the target another weighting ---- */

typedef struct ring {
    double mean[16], w[8]; /* w: of the target */
} ring;

static inline void ring_init(ring *r, double slope) {
    double all = 0;
    for (int i = 0; i < 8; i++) {
        r->mean[2 * i] = 4 * cos(2 * M_PI * i / 8), r->mean[2 * i + 1] = 4 * sin(2 * M_PI * i / 8);
        all += r->w[i] = exp(slope * i);
    }
    for (int i = 0; i < 8; i++) r->w[i] /= all;
}

static inline void ring_members(const ring *r, const double *x, double *out) {
    double all = 0;
    for (int i = 0; i < 8; i++) {
        const double u = x[0] - r->mean[2 * i], v = x[1] - r->mean[2 * i + 1];
        out[i] = -(u * u + v * v) / (2 * 0.3 * 0.3);
    }
    const double top = kac_log_sum_exp(out, 8);
    for (int i = 0; i < 8; i++) all += out[i] = exp(out[i] - top);
    for (int i = 0; i < 8; i++) out[i] /= all;
}

static inline double ring_reward(const double *x, const void *how) {
    const ring *r = how;
    double member[8], sum = 0;
    ring_members(r, x, member);
    for (int i = 0; i < 8; i++) sum += member[i] * r->w[i] * 8;
    return log(sum);
}

/* β from .001 to .07 in 100 steps, of which `every`-th are taken. */
static inline kac_mixture *ring_mixture(const ring *r, int every, kac_mixture_options o) {
    double bar[101] = {1}, taken[101] = {1};
    for (int t = 1; t <= 100; t++) bar[t] = bar[t - 1] * (1 - (0.001 + 0.069 * (t - 1) / 99));
    for (int n = 1; n * every <= 100; n++) taken[n] = bar[n * every];
    return tree_mixture("exact", 8, 2, NULL, r->mean, 0.3, 100 / every, taken, o);
}

/* Half the sum of differences between the masses of the modes under the samples' law and the target's. */
static inline double ring_distance(const tree_case *c, const ring *r) {
    double mass[8] = {0}, all = 0, off = 0;
    for (int i = 0; i < c->n_points; i++) {
        double member[8];
        const double p = exp(c->log_prob[i]);
        ring_members(r, c->points + 2 * i, member);
        for (int j = 0; j < 8; j++) mass[j] += p * member[j];
        all += p;
    }
    CHECK_NEAR(all, 1.0, 1e-9);
    for (int j = 0; j < 8; j++) off += 0.5 * fabs(mass[j] - r->w[j]);
    return off;
}

/* ---- early and late: a coordinate that x_K decides and one that is decided in the last steps, both rarely right ---- */

typedef struct early_late {
    double p;       /* of either being right */
    double gain[2]; /* reward of each being right */
} early_late;

static const double early_at = 30.0, late_at = 1.0;

static inline int early_late_mode(const double *x) {
    return (x[0] > early_at / 2) + 2 * (x[1] > late_at / 2);
}

static inline double early_late_reward(const double *x, const void *how) {
    const early_late *e = how;
    const int mode = early_late_mode(x);
    return (mode & 1) * e->gain[0] + (mode >> 1) * e->gain[1];
}

static inline double early_late_log_z(const early_late *e) {
    return log(1 - e->p + e->p * exp(e->gain[0])) + log(1 - e->p + e->p * exp(e->gain[1]));
}

static inline kac_mixture *early_late_mixture(const early_late *e, int n_steps, kac_mixture_options o) {
    const double p = e->p, q = 1 - p, w[4] = {q * q, p * q, p * q, p * p};
    const double mean[8] = {0, 0, early_at, 0, 0, late_at, early_at, late_at};
    double bar[257] = {1};
    for (int n = 1; n <= n_steps; n++) { /* sigma / alpha from .02 to 3, evenly in the logarithm */
        const double sigma = 0.02 * pow(3.0 / 0.02, (double)n / n_steps);
        bar[n] = 1 / (1 + sigma * sigma);
    }
    return tree_mixture("exact", 4, 2, w, mean, 0.08, n_steps, bar, o);
}

static inline double early_late_distance(const tree_case *c, const early_late *e) {
    double mass[4] = {0}, off = 0;
    for (int i = 0; i < c->n_points; i++) mass[early_late_mode(c->points + 2 * i)] += exp(c->log_prob[i]);
    for (int j = 0; j < 4; j++) {
        double want = exp(-early_late_log_z(e));
        want *= (j & 1) ? e->p * exp(e->gain[0]) : 1 - e->p;
        want *= (j >> 1) ? e->p * exp(e->gain[1]) : 1 - e->p;
        off += 0.5 * fabs(mass[j] - want);
    }
    return off;
}

#endif
