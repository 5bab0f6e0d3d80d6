#include "bench_stats.h"
#include <kac/rng.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = KAC_BENCH_DRAWS };
static const uint64_t bootstrap_seed = 20506;

/* ---- draws ---- */

static bool takes(const kac_bench_resamples *r, int prompt) {
    return r->category < 0 || r->d->prompts[prompt].category == r->category;
}

kac_status kac_bench_resamples_init(kac_bench_resamples *r, const kac_bench_data *d, int category) {
    *r = (kac_bench_resamples){.d = d, .category = category, .n_units = d->n_prompts};
    int *members = kac_alloc((size_t)(d->n_prompts + d->n_seeds) * sizeof *members), n = 0;
    if (members == NULL) return KAC_E_MEMORY;
    for (int p = 0; p < d->n_prompts; p++)
        if (takes(r, p)) members[n++] = p;
    if (n == 1) {
        r->of_seeds = true;
        r->n_units = n = d->n_seeds;
        for (int s = 0; s < n; s++) members[s] = s;
    }
    r->times = kac_alloc((size_t)DRAWS * (size_t)r->n_units * sizeof *r->times);
    const kac_key key = {.seed = bootstrap_seed, .purpose = KAC_PURPOSE_RESAMPLE, .step = (uint32_t)(category + 1)};
    for (int b = 0; r->times != NULL && b < DRAWS; b++)
        for (int i = 0; i < n; i++) {
            const int pick = KAC_MIN((int)(kac_rng_uniform(key, (uint32_t)b, i) * n), n - 1);
            uint16_t *times = &r->times[(size_t)b * (size_t)r->n_units + (size_t)members[pick]];
            *times = (uint16_t)KAC_MIN(*times + 1, UINT16_MAX);
        }
    kac_free(members);
    return r->times == NULL ? KAC_E_MEMORY : KAC_OK;
}

void kac_bench_resamples_free(kac_bench_resamples *r) {
    kac_free(r->times);
    *r = (kac_bench_resamples){0};
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q) {
    const double at = q * (n - 1);
    const int i = KAC_MIN((int)at, n - 1), j = KAC_MIN(i + 1, n - 1);
    return sorted[i] + (at - i) * (sorted[j] - sorted[i]);
}

void kac_bench_band(double *lo, double *hi, double *values, int n) {
    int m = 0;
    for (int i = 0; i < n; i++)
        if (isfinite(values[i])) values[m++] = values[i];
    *lo = *hi = NAN;
    if (m == 0) return;
    qsort(values, (size_t)m, sizeof *values, compare);
    *lo = quantile(values, m, 0.025);
    *hi = quantile(values, m, 0.975);
}

/* ---- means ---- */

/* Sums and counts by unit; what a mean and its draws are made of. */
typedef struct units {
    double *sum, *n; /* [n_units] */
    int n_cells, n_used;
} units;

static kac_status units_init(units *u, const kac_bench_resamples *r) {
    *u = (units){.sum = kac_alloc((size_t)r->n_units * 2 * sizeof(double))};
    u->n = u->sum == NULL ? NULL : u->sum + r->n_units;
    return u->sum == NULL ? KAC_E_MEMORY : KAC_OK;
}

static void units_clear(units *u, const kac_bench_resamples *r) {
    memset(u->sum, 0, (size_t)r->n_units * 2 * sizeof(double));
    u->n_cells = u->n_used = 0;
}

static void units_add(units *u, const kac_bench_resamples *r, int prompt, int seed, double value) {
    if (!isfinite(value)) return;
    const int i = r->of_seeds ? seed : prompt;
    u->n_used += u->n[i] == 0;
    u->sum[i] += value;
    u->n[i] += 1;
    u->n_cells++;
}

/* The mean over cells, and that of every draw. */
static kac_bench_mean units_mean(double draws[DRAWS], const units *u, const kac_bench_resamples *r) {
    kac_bench_mean m = {.mean = NAN, .lo = NAN, .hi = NAN, .n = u->n_cells};
    double sum = 0;
    for (int i = 0; i < r->n_units; i++) sum += u->sum[i];
    if (u->n_cells > 0) m.mean = sum / u->n_cells;
    for (int b = 0; b < DRAWS; b++) {
        const uint16_t *times = r->times + (size_t)b * (size_t)r->n_units;
        double s = 0, n = 0;
        for (int i = 0; i < r->n_units; i++) s += times[i] * u->sum[i], n += times[i] * u->n[i];
        draws[b] = n > 0 ? s / n : NAN;
    }
    if (u->n_used < 2) return m;
    double sorted[DRAWS];
    memcpy(sorted, draws, sizeof sorted);
    kac_bench_band(&m.lo, &m.hi, sorted, DRAWS);
    return m;
}

static kac_status take_room(kac_bench_curves *c, const kac_bench_data *d, int quantity) {
    const size_t n = (size_t)d->n_methods * (size_t)d->n_budgets;
    *c = (kac_bench_curves){.d = d, .quantity = quantity, .at = kac_alloc(n * sizeof *c->at)};
    if (c->at != NULL) c->draws = kac_alloc(n * DRAWS * sizeof *c->draws);
    return c->draws == NULL ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_bench_curves_init(kac_bench_curves *c, const kac_bench_resamples *r, int quantity) {
    const kac_bench_data *d = r->d;
    units u;
    KAC_TRY(take_room(c, d, quantity));
    KAC_TRY(units_init(&u, r));
    for (int m = 0; m < d->n_methods; m++)
        for (int b = 0; b < d->n_budgets; b++) {
            units_clear(&u, r);
            for (int p = 0; p < d->n_prompts; p++)
                for (int s = 0; takes(r, p) && s < d->n_seeds; s++) {
                    const kac_bench_cell *cell = kac_bench_cell_at(d, m, b, p, s);
                    if (cell != NULL) units_add(&u, r, p, s, kac_bench_value(d, cell, quantity));
                }
            const size_t at = (size_t)m * (size_t)d->n_budgets + (size_t)b;
            c->at[at] = units_mean(c->draws + at * DRAWS, &u, r);
        }
    kac_free(u.sum);
    return KAC_OK;
}

void kac_bench_curves_free(kac_bench_curves *c) {
    kac_free(c->at), kac_free(c->draws);
    *c = (kac_bench_curves){0};
}

const kac_bench_mean *kac_bench_curve_at(const kac_bench_curves *c, int method, int budget) {
    return &c->at[method * c->d->n_budgets + budget];
}

bool kac_bench_curves_empty(const kac_bench_curves *c) {
    for (int i = 0; i < c->d->n_methods * c->d->n_budgets; i++)
        if (c->at[i].n > 0) return false;
    return true;
}

/* Adds one category's curves to sums: means and draws where both are finite, NAN stays. */
static void add_category(kac_bench_curves *c, const kac_bench_curves *one) {
    const int n = c->d->n_methods * c->d->n_budgets;
    for (int i = 0; i < n; i++) {
        c->at[i].mean += one->at[i].mean;
        c->at[i].n += one->at[i].n;
    }
    for (size_t i = 0; i < (size_t)n * DRAWS; i++) c->draws[i] += one->draws[i];
}

kac_status kac_bench_overall_init(kac_bench_curves *c, const kac_bench_data *d, int quantity) {
    KAC_TRY(take_room(c, d, quantity));
    for (int k = 0; k < d->n_categories; k++) {
        kac_bench_resamples r;
        kac_bench_curves one = {0};
        kac_status s = kac_bench_resamples_init(&r, d, k);
        if (s == KAC_OK) s = kac_bench_curves_init(&one, &r, quantity);
        if (s == KAC_OK) add_category(c, &one);
        kac_bench_curves_free(&one);
        kac_bench_resamples_free(&r);
        KAC_TRY(s);
    }
    const double n = d->n_categories > 0 ? d->n_categories : NAN;
    for (int i = 0; i < d->n_methods * d->n_budgets; i++) {
        double *draws = c->draws + (size_t)i * DRAWS, sorted[DRAWS];
        for (int b = 0; b < DRAWS; b++) sorted[b] = draws[b] /= n;
        c->at[i].mean /= n;
        c->at[i].lo = c->at[i].hi = NAN;
        if (d->n_prompts > d->n_categories || d->n_seeds > 1) kac_bench_band(&c->at[i].lo, &c->at[i].hi, sorted, DRAWS);
    }
    return KAC_OK;
}

/* ---- speed-up ---- */

double kac_bench_reach(const double *x, const double *y, int n, double target) {
    int last = -1;
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i]) || !(x[i] > 0) || !isfinite(y[i])) continue;
        if (y[i] >= target) {
            if (last < 0) return x[i];
            const double f = (target - y[last]) / (y[i] - y[last]);
            return exp(log(x[last]) + f * (log(x[i]) - log(x[last])));
        }
        last = i;
    }
    return NAN;
}

/* One method's points of one draw (−1: of the means themselves), by rising cost. */
static int points_of(double *x, double *y, const kac_bench_curves *value, const kac_bench_curves *cost, int method,
                     int draw) {
    const int n_budgets = value->d->n_budgets;
    int n = 0;
    for (int b = 0; b < n_budgets; b++) {
        const size_t at = (size_t)method * (size_t)n_budgets + (size_t)b;
        x[n] = draw < 0 ? cost->at[at].mean : cost->draws[at * DRAWS + (size_t)draw];
        y[n] = draw < 0 ? value->at[at].mean : value->draws[at * DRAWS + (size_t)draw];
        n += isfinite(x[n]) && x[n] > 0 && isfinite(y[n]);
    }
    for (int i = 1; i < n; i++) /* a larger budget may cost less when it is one of seconds */
        for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
            const double tx = x[k], ty = y[k];
            x[k] = x[k - 1], y[k] = y[k - 1];
            x[k - 1] = tx, y[k - 1] = ty;
        }
    return n;
}

static kac_bench_target target_of(const kac_bench_curves *value, const kac_bench_curves *cost, int draw) {
    const kac_bench_data *d = value->d;
    double x[KAC_BENCH_MAX_BUDGETS], y[KAC_BENCH_MAX_BUDGETS];
    kac_bench_target t = {.method = -1, .value = NAN, .cost = NAN};
    for (int m = 0; m < d->n_methods; m++) {
        const int n = d->methods[m].baseline ? points_of(x, y, value, cost, m, draw) : 0;
        if (n == 0 || y[n - 1] < t.value) continue; /* of two alike the later: best-of-n, not none */
        t = (kac_bench_target){.method = m, .value = y[n - 1], .cost = x[n - 1]};
    }
    return t;
}

static void speed_band(kac_bench_speed *s, const kac_bench_curves *value, const kac_bench_curves *cost, int method,
                       const kac_bench_target *targets) {
    double x[KAC_BENCH_MAX_BUDGETS], y[KAC_BENCH_MAX_BUDGETS], ratios[DRAWS];
    for (int b = 0; b < DRAWS; b++) {
        const int n = points_of(x, y, value, cost, method, b);
        const double at = kac_bench_reach(x, y, n, targets[b].value);
        ratios[b] = n == 0 || targets[b].method < 0 ? NAN : isfinite(at) ? targets[b].cost / at : 0;
    }
    kac_bench_band(&s->lo, &s->hi, ratios, DRAWS);
}

kac_status kac_bench_speeds(kac_bench_speed *out, kac_bench_target *target, const kac_bench_curves *value,
                            const kac_bench_curves *cost) {
    const kac_bench_data *d = value->d;
    double x[KAC_BENCH_MAX_BUDGETS], y[KAC_BENCH_MAX_BUDGETS];
    kac_bench_target targets[DRAWS];
    *target = target_of(value, cost, -1);
    for (int b = 0; b < DRAWS; b++) targets[b] = target_of(value, cost, b);
    for (int m = 0; m < d->n_methods; m++) {
        const int n = points_of(x, y, value, cost, m, -1);
        out[m] = (kac_bench_speed){.cost = NAN, .ratio = NAN, .lo = NAN, .hi = NAN, .max_cost = n > 0 ? x[n - 1] : NAN};
        if (n == 0 || target->method < 0) continue;
        out[m].cost = kac_bench_reach(x, y, n, target->value);
        out[m].ratio = isfinite(out[m].cost) ? target->cost / out[m].cost : 0;
        out[m].at_once = y[0] >= target->value;
        if (isfinite(kac_bench_curve_at(value, target->method, 0)->lo) || d->n_prompts > 1 || d->n_seeds > 1)
            speed_band(&out[m], value, cost, m, targets);
    }
    return KAC_OK;
}

/* ---- comparisons ---- */

kac_bench_mean kac_bench_wins(const kac_bench_resamples *r, int quantity, int a, int b, int budget) {
    const kac_bench_data *d = r->d;
    units u;
    double draws[DRAWS];
    if (units_init(&u, r) != KAC_OK) return (kac_bench_mean){.mean = NAN, .lo = NAN, .hi = NAN};
    for (int p = 0; p < d->n_prompts; p++)
        for (int s = 0; takes(r, p) && s < d->n_seeds; s++) {
            const kac_bench_cell *x = kac_bench_cell_at(d, a, budget, p, s), *y = kac_bench_cell_at(d, b, budget, p, s);
            if (x == NULL || y == NULL) continue;
            const double difference = kac_bench_value(d, x, quantity) - kac_bench_value(d, y, quantity);
            if (isfinite(difference)) units_add(&u, r, p, s, difference > 0 ? 1 : difference < 0 ? 0 : 0.5);
        }
    const kac_bench_mean m = units_mean(draws, &u, r);
    kac_free(u.sum);
    return m;
}

int kac_bench_overdone(int *best, const kac_bench_curves *reward, const kac_bench_curves *judge, int method) {
    const int n = reward->d->n_budgets;
    *best = -1;
    for (int b = 0; b < n; b++) {
        const kac_bench_mean *j = kac_bench_curve_at(judge, method, b);
        if (isfinite(j->mean) && (*best < 0 || j->mean > kac_bench_curve_at(judge, method, *best)->mean)) *best = b;
    }
    if (*best < 0) return -1;
    const kac_bench_mean *top = kac_bench_curve_at(judge, method, *best);
    const double floor_ = isfinite(top->lo) ? top->lo : top->mean,
                 was = kac_bench_curve_at(reward, method, *best)->mean;
    int from = -1;
    for (int b = *best + 1; b < n; b++) {
        const double j = kac_bench_curve_at(judge, method, b)->mean, now = kac_bench_curve_at(reward, method, b)->mean;
        if (!isfinite(j) || !isfinite(now)) continue;
        if (!(j < floor_ && now > was))
            from = -1;
        else if (from < 0)
            from = b;
    }
    return from;
}
