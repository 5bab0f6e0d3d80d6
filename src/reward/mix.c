#include "reward/mix.h"
#include "reward/mix_groups.h"
#include <kac/options.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct mix_rule mix_rule;

/* Welford's sums of what a running z has seen. */
typedef struct running {
    double n, mean, m2;
} running;

struct kac_mix {
    const mix_rule *rule;
    double a, b; /* the rule's numbers */
    const kac_reward_spec *specs[KAC_MAX_REWARDS];
    int n;
    bool is_running;
    double weights[KAC_MAX_REWARDS];
    running state[KAC_MAX_REWARDS][KAC_MAX_SHAPINGS];
    kac_mix_groups groups;
};

/* ---- the rules ---- */

/* value: of v (`powers`: of u > 0, with the weights as exponents), with its derivatives into dv. */
struct mix_rule {
    const char *name, *usage;
    int min_args, max_args;
    double a, b; /* defaults */
    bool ensemble, powers, groups;
    double (*value)(const kac_mix *m, const double *v, double *dv);
};

static double mean_of(const double *v, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += v[i];
    return sum / n;
}

static double var_of(const double *v, int n) {
    const double mean = mean_of(v, n);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (v[i] - mean) * (v[i] - mean);
    return sum / n;
}

static double rule_sum(const kac_mix *m, const double *v, double *dv) {
    double sum = 0;
    for (int i = 0; i < m->n; i++) sum += v[i], dv[i] = 1;
    return sum;
}

static double rule_mean(const kac_mix *m, const double *v, double *dv) {
    for (int i = 0; i < m->n; i++) dv[i] = 1.0 / m->n;
    return mean_of(v, m->n);
}

static double rule_min(const kac_mix *m, const double *v, double *dv) {
    int k = 0;
    for (int i = 0; i < m->n; i++) k = v[i] < v[k] ? i : k, dv[i] = 0;
    dv[k] = 1;
    return v[k];
}

static double rule_max(const kac_mix *m, const double *v, double *dv) {
    int k = 0;
    for (int i = 0; i < m->n; i++) k = v[i] > v[k] ? i : k, dv[i] = 0;
    dv[k] = 1;
    return v[k];
}

static double rule_softmin(const kac_mix *m, const double *v, double *dv) {
    const double least = rule_min(m, v, dv);
    double sum = 0;
    for (int i = 0; i < m->n; i++) sum += dv[i] = exp((least - v[i]) / m->a);
    for (int i = 0; i < m->n; i++) dv[i] /= sum;
    return least - m->a * log(sum / m->n);
}

static double rule_mean_std(const kac_mix *m, const double *v, double *dv) {
    const double mean = mean_of(v, m->n), std = sqrt(var_of(v, m->n));
    for (int i = 0; i < m->n; i++) dv[i] = (1 - (std > 0 ? m->a * (v[i] - mean) / std : 0)) / m->n;
    return mean - m->a * std;
}

static double rule_mean_var(const kac_mix *m, const double *v, double *dv) {
    const double mean = mean_of(v, m->n);
    for (int i = 0; i < m->n; i++) dv[i] = (1 - 2 * m->a * (v[i] - mean)) / m->n;
    return mean - m->a * var_of(v, m->n);
}

static double rule_robust(const kac_mix *m, const double *v, double *dv) {
    const double least = rule_min(m, v, dv);
    for (int i = 0; i < m->n; i++) dv[i] = m->a / m->n + (1 - m->a) * dv[i];
    return m->a * mean_of(v, m->n) + (1 - m->a) * least;
}

static double rule_shrink(const kac_mix *m, const double *v, double *dv) {
    const double mean = mean_of(v, m->n), trust = 1 / (1 + m->a * var_of(v, m->n));
    for (int i = 0; i < m->n; i++) dv[i] = (trust - 2 * m->a * trust * trust * (mean - m->b) * (v[i] - mean)) / m->n;
    return m->b + (mean - m->b) * trust;
}

static double rule_product(const kac_mix *m, const double *u, double *du) {
    double sum = 0;
    for (int i = 0; i < m->n; i++) sum += m->weights[i] * log(u[i]), du[i] = m->weights[i] / u[i];
    return sum;
}

static double rule_geometric(const kac_mix *m, const double *u, double *du) {
    double all = 0;
    for (int i = 0; i < m->n; i++) all += m->weights[i];
    const double value = exp(rule_product(m, u, du) / all);
    for (int i = 0; i < m->n; i++) du[i] *= value / all;
    return value;
}

static double rule_worst_group(const kac_mix *m, const double *v, double *dv) {
    const kac_mix_groups *g = &m->groups;
    double totals[KAC_MAX_GROUPS];
    kac_mix_groups_totals(totals, g, v, m->n);
    int worst = 0;
    for (int k = 0; k < g->n; k++) worst = totals[k] < totals[worst] ? k : worst;
    for (int i = 0; i < m->n; i++) dv[i] = g->weights[worst][i];
    return totals[worst];
}

static double rule_mean_group(const kac_mix *m, const double *v, double *dv) {
    const kac_mix_groups *g = &m->groups;
    double totals[KAC_MAX_GROUPS], value = 0;
    kac_mix_groups_totals(totals, g, v, m->n);
    for (int k = 0; k < g->n; k++) value += g->shares[k] * totals[k];
    for (int i = 0; i < m->n; i++) {
        dv[i] = 0;
        for (int k = 0; k < g->n; k++) dv[i] += g->shares[k] * g->weights[k][i];
    }
    return value;
}

static const mix_rule rules[] = {
    {"sum", "sum", 0, 0, 0, 0, false, false, false, rule_sum},
    {"mean", "mean", 0, 0, 0, 0, true, false, false, rule_mean},
    {"min", "min", 0, 0, 0, 0, true, false, false, rule_min},
    {"max", "max", 0, 0, 0, 0, true, false, false, rule_max},
    {"softmin", "softmin=T with T > 0", 1, 1, 1, 0, true, false, false, rule_softmin},
    {"mean-std", "mean-std or mean-std=K", 0, 1, 1, 0, true, false, false, rule_mean_std},
    {"mean-var", "mean-var or mean-var=K", 0, 1, 1, 0, true, false, false, rule_mean_var},
    {"robust", "robust=L with L from 0 to 1", 1, 1, 0, 0, true, false, false, rule_robust},
    {"shrink", "shrink=K or shrink=K/REFERENCE with K > 0", 1, 2, 1, 0, true, false, false, rule_shrink},
    {"product", "product", 0, 0, 0, 0, false, true, false, rule_product},
    {"geometric", "geometric", 0, 0, 0, 0, false, true, false, rule_geometric},
    {"worst-group", "worst-group=FILE", 0, 0, 0, 0, false, false, true, rule_worst_group},
    {"mean-group", "mean-group=FILE", 0, 0, 0, 0, false, false, true, rule_mean_group},
};

/* ---- opening ---- */

static kac_status find_rule(const mix_rule **out, const char *name, size_t n) {
    const char *names[KAC_COUNT_OF(rules) + 1] = {0};
    kac_text all = {0};
    for (int i = 0; i < KAC_COUNT_OF(rules); i++) {
        names[i] = rules[i].name;
        kac_text_add(&all, "%s%s", i == 0 ? "" : ", ", names[i]);
        if (strlen(names[i]) != n || strncmp(names[i], name, n) != 0) continue;
        *out = &rules[i];
        kac_text_free(&all);
        return KAC_OK;
    }
    char word[24] = "";
    memcpy(word, name, KAC_MIN(n, sizeof word - 1));
    const char *near = kac_nearest(word, names);
    const kac_status s = KAC_FAIL(KAC_E_USAGE, "--combine cannot be \"%s\"%s%s%s choose one of %s", word,
                                  near == NULL ? ";" : "; did you mean \"", near == NULL ? "" : near,
                                  near == NULL ? "" : "\"?", all.s == NULL ? "" : all.s);
    kac_text_free(&all);
    return s;
}

static kac_status read_arguments(kac_mix *m, const char *text) {
    const mix_rule *r = m->rule;
    double v[2] = {r->a, r->b};
    const int n = text == NULL ? 0 : kac_shaping_numbers(v, text);
    m->a = n > 0 ? v[0] : r->a, m->b = n > 1 ? v[1] : r->b;
    const bool ok = n >= r->min_args && n <= r->max_args && (r->value != rule_softmin || m->a > 0) &&
                    (r->value != rule_shrink || m->a > 0) && (r->value != rule_robust || (m->a >= 0 && m->a <= 1));
    if (ok) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "--combine %s%s%.60s: write %s", r->name, text == NULL ? "" : "=",
                    text == NULL ? "" : text, r->usage);
}

static kac_status read_rule(kac_mix *m, const char *combine) {
    const size_t n = strcspn(combine, "=");
    const char *arguments = combine[n] == '=' ? combine + n + 1 : NULL;
    KAC_TRY(find_rule(&m->rule, combine, n));
    if (!m->rule->groups) return read_arguments(m, arguments);
    if (arguments == NULL || *arguments == '\0')
        return KAC_FAIL(KAC_E_USAGE, "--combine %s wants a file: write %s", m->rule->name, m->rule->usage);
    return kac_mix_groups_load(&m->groups, arguments, m->specs, m->n);
}

static kac_status check_weights(const kac_mix *m) {
    for (int i = 0; i < m->n && m->rule->powers; i++)
        if (m->weights[i] < 0)
            return KAC_FAIL(KAC_E_USAGE,
                            "--combine %s: the weight of %s is %g; weights are exponents here and must be "
                            "positive",
                            m->rule->name, m->specs[i]->label, m->weights[i]);
    return KAC_OK;
}

kac_status kac_mix_open(kac_mix **out, const kac_reward_spec *const *specs, int n, const char *combine) {
    if (n > KAC_MAX_REWARDS) return KAC_FAIL(KAC_E_USAGE, "at most %d rewards can be combined", (int)KAC_MAX_REWARDS);
    kac_mix *m = kac_alloc(sizeof *m);
    if (m == NULL) return KAC_E_MEMORY;
    m->n = n;
    for (int i = 0; i < n; i++) {
        m->specs[i] = specs[i];
        m->weights[i] = specs[i]->weight;
        for (int k = 0; k < specs[i]->n_shapings; k++) m->is_running |= specs[i]->shapings[k].running;
    }
    kac_status s = read_rule(m, combine == NULL ? "sum" : combine);
    if (s == KAC_OK) s = check_weights(m);
    if (s != KAC_OK) {
        kac_mix_close(m);
        return s;
    }
    *out = m;
    return KAC_OK;
}

void kac_mix_close(kac_mix *m) {
    kac_free(m);
}

int kac_mix_count(const kac_mix *m) {
    return m->n;
}

bool kac_mix_has_uncertainty(const kac_mix *m) {
    return m->rule->ensemble || m->rule->groups;
}

void *kac_mix_state(kac_mix *m, size_t *n_bytes) {
    *n_bytes = m->is_running ? sizeof m->state : 0;
    return m->is_running ? m->state : NULL;
}

/* ---- values ---- */

/* Shaping k of reward i, at the present running mean. */
static kac_status apply(const kac_mix *m, int i, int k, double *r, double *slope) {
    kac_shaping shaping = m->specs[i]->shapings[k];
    const running *s = &m->state[i][k];
    if (shaping.running) shaping.a = s->mean, shaping.b = s->n > 0 ? sqrt(s->m2 / s->n) : 0;
    const kac_status status = kac_shaping_apply(r, slope, &shaping, *r);
    return status == KAC_OK ? status : kac_fail_prefix(status, "%s", m->specs[i]->label);
}

static kac_status check_finite(const kac_mix *m, const double *values) {
    for (int i = 0; i < m->n; i++)
        if (!isfinite(values[i]))
            return KAC_FAIL(KAC_E_NONFINITE, "the reward %s is not a finite number", m->specs[i]->label);
    return KAC_OK;
}

kac_status kac_mix_observe(kac_mix *m, const double *values, int n_pictures) {
    for (int p = 0; p < n_pictures; p++) KAC_TRY(check_finite(m, values + p * m->n));
    for (int i = 0; i < m->n && m->is_running; i++)
        for (int k = 0; k < m->specs[i]->n_shapings; k++) {
            running *s = &m->state[i][k];
            for (int p = 0; p < n_pictures && m->specs[i]->shapings[k].running; p++) {
                double r = values[p * m->n + i], slope;
                for (int before = 0; before < k; before++) KAC_TRY(apply(m, i, before, &r, &slope));
                const double off = r - s->mean;
                s->n++, s->mean += off / s->n, s->m2 += off * (r - s->mean);
            }
        }
    return KAC_OK;
}

/* total, the weighted or shaped parts v, and d total / d r. */
static kac_status evaluate(const kac_mix *m, double *total, double *v, double *grad, const double *values) {
    double slopes[KAC_MAX_REWARDS];
    KAC_TRY(check_finite(m, values));
    for (int i = 0; i < m->n; i++) {
        double r = values[i], slope;
        slopes[i] = 1;
        for (int k = 0; k < m->specs[i]->n_shapings; k++) {
            KAC_TRY(apply(m, i, k, &r, &slope));
            slopes[i] *= slope;
        }
        if (m->rule->powers && !(r > 0))
            return KAC_FAIL(KAC_E_NONFINITE,
                            "%s is %.6g; --combine %s wants positive rewards (shape it: ,exp or ,sigmoid=…)",
                            m->specs[i]->label, r, m->rule->name);
        v[i] = m->rule->powers ? r : m->weights[i] * r;
        if (!m->rule->powers) slopes[i] *= m->weights[i];
    }
    *total = m->rule->value(m, v, grad);
    for (int i = 0; i < m->n; i++) grad[i] *= slopes[i];
    if (isfinite(*total)) return KAC_OK;
    return KAC_FAIL(KAC_E_NONFINITE, "the combined reward is not a finite number (--combine %s)", m->rule->name);
}

kac_status kac_mix_total(const kac_mix *m, double *total, double *uncertainty, const double *values) {
    double v[KAC_MAX_REWARDS], grad[KAC_MAX_REWARDS], groups[KAC_MAX_GROUPS];
    KAC_TRY(evaluate(m, total, v, grad, values));
    if (uncertainty == NULL) return KAC_OK;
    if (m->rule->groups) kac_mix_groups_totals(groups, &m->groups, v, m->n);
    *uncertainty = m->rule->groups     ? sqrt(var_of(groups, m->groups.n))
                   : m->rule->ensemble ? sqrt(var_of(v, m->n))
                                       : NAN;
    return KAC_OK;
}

kac_status kac_mix_grad(const kac_mix *m, double *grad, const double *values) {
    double v[KAC_MAX_REWARDS], total;
    return evaluate(m, &total, v, grad, values);
}
