/* Tables of a bench's page: speed-ups, over-optimisation, wins, categories, costs. */
#include "chart.h"
#include "html.h"
#include "page_bench.h"
#include <math.h>

enum { MAX_WIN_METHODS = 16, MAX_SHOWN_CATEGORIES = 24 };

static void open_table(kac_text *t) {
    kac_text_add(t, "<div class=\"scroll\"><table class=\"pairs wide\"><tr><th>method</th>");
}

static void close_table(kac_text *t) {
    kac_text_add(t, "</table></div>\n");
}

/* A part that opens on a click, or is open from the start. */
static void open_part(kac_text *t, const char *name, bool open) {
    kac_text_add(t, "<details%s><summary><h3>", open ? " open" : "");
    kac_html_escape(t, name);
    kac_text_add(t, "</h3></summary>");
}

/* ---- speed-up ---- */

static void add_cost(kac_text *t, double v) {
    char number[24];
    kac_axis_number(number, v);
    kac_text_add(t, "%s", number);
}

static void add_speed_cells(kac_text *t, const kac_bench_speed *s) {
    kac_text_add(t, "<td class=\"n\">");
    if (isfinite(s->cost)) {
        kac_text_add(t, s->at_once ? "≤ " : "");
        add_cost(t, s->cost);
    } else if (isfinite(s->max_cost) && isfinite(s->ratio)) {
        kac_text_add(t, "&gt; ");
        add_cost(t, s->max_cost);
    } else {
        kac_text_add(t, "–");
    }
    kac_text_add(t, "</td><td class=\"n\">");
    if (s->ratio > 0)
        kac_text_add(t, "%s%.3g×", s->at_once ? "≥ " : "", s->ratio);
    else
        kac_text_add(t, "–");
    if (isfinite(s->lo) && s->hi > 0) {
        if (s->lo > 0)
            kac_text_add(t, "<small>%.2g … %.2g</small>", s->lo, s->hi);
        else
            kac_text_add(t, "<small>not reached … %.2g</small>", s->hi);
    }
    kac_text_add(t, "</td>");
}

static kac_status add_speed_table(kac_bench_page *p, int quality, bool open) {
    static const int costs[] = {KAC_BENCH_NFE, KAC_BENCH_SECONDS, KAC_BENCH_FLOPS};
    static const char *const names[] = {"NFE", "seconds", "FLOP"};
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    kac_bench_speed speeds[3][KAC_BENCH_MAX_METHODS];
    kac_bench_target targets[3];
    for (int k = 0; k < 3; k++)
        KAC_TRY(kac_bench_speeds(speeds[k], &targets[k], &p->curves[quality], &p->curves[costs[k]]));
    if (targets[0].method < 0 && targets[1].method < 0) return KAC_OK;
    const kac_bench_target *target = targets[0].method >= 0 ? &targets[0] : &targets[1];
    char *name = kac_bench_quantity_name(d, quality);
    open_part(t, name, open);
    kac_text_add(t, "<p class=\"note\">To reach ");
    kac_html_number(t, target->value);
    kac_text_add(t, ", the best baseline&#39;s (");
    kac_html_escape(t, d->methods[target->method].label);
    kac_text_add(t, ") at its largest budget.</p>");
    open_table(t);
    for (int k = 0; k < 3; k++)
        if (targets[k].method >= 0) kac_text_add(t, "<th class=\"n\">%s</th><th class=\"n\">speed-up</th>", names[k]);
    kac_text_add(t, "</tr>\n");
    for (int m = 0; m < d->n_methods; m++) {
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, m);
        for (int k = 0; k < 3; k++)
            if (targets[k].method >= 0) add_speed_cells(t, &speeds[k][m]);
        kac_text_add(t, "</tr>\n");
    }
    close_table(t);
    kac_text_add(t, "</details>\n");
    kac_free(name);
    return KAC_OK;
}

kac_status kac_page_bench_speed(kac_bench_page *p) {
    int qualities[KAC_BENCH_MAX_QUANTITIES];
    const int n = kac_bench_qualities(qualities, p, true);
    bool any = false;
    for (int m = 0; m < p->d->n_methods; m++) any |= p->d->methods[m].baseline;
    if (n == 0 || !any) return KAC_OK;
    kac_text_add(
        p->t, "<section><h2>Speed-up</h2><p class=\"note\">What a method spends per prompt until its curve, linear "
              "between budgets on the logarithmic axis, reaches what the best baseline has at its largest budget; and "
              "how much less that is. Small: 95 %% over prompts.</p>\n");
    for (int i = 0; i < n; i++) KAC_TRY(add_speed_table(p, qualities[i], i == 0));
    kac_text_add(p->t, "</section>\n");
    return KAC_OK;
}

/* ---- over-optimisation ---- */

static void add_overdone(kac_bench_page *p, int method, int judge, int from, int best) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    char *name = kac_bench_quantity_name(d, judge);
    kac_text_add(t, "<p class=\"state\"><b>");
    kac_html_escape(t, d->methods[method].label);
    kac_text_add(t, " over-optimises from ");
    kac_bench_budget(t, d, from);
    kac_text_add(t, "</b>: its reward goes on rising (");
    kac_html_number(t, kac_bench_curve_at(&p->curves[KAC_BENCH_REWARD], method, best)->mean);
    kac_text_add(t, " → ");
    kac_html_number(t, kac_bench_curve_at(&p->curves[KAC_BENCH_REWARD], method, from)->mean);
    kac_text_add(t, ") while ");
    kac_html_escape(t, name);
    kac_text_add(t, " is below its best, ");
    kac_html_number(t, kac_bench_curve_at(&p->curves[judge], method, best)->mean);
    kac_text_add(t, " at ");
    kac_bench_budget(t, d, best);
    kac_text_add(t, ", by more than that one&#39;s band: ");
    kac_html_number(t, kac_bench_curve_at(&p->curves[judge], method, from)->mean);
    kac_text_add(t, ".</p>\n");
    kac_free(name);
}

kac_status kac_page_bench_overdone(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    int n = 0, best;
    if (d->n_judges == 0 || kac_bench_curves_empty(&p->curves[KAC_BENCH_REWARD])) return KAC_OK;
    kac_text_add(p->t, "<section><h2>Where reward and judge part</h2>\n");
    for (int j = 0; j < d->n_judges; j++)
        for (int m = 0; m < d->n_methods; m++) {
            const int judge = KAC_BENCH_JUDGES + 2 * j;
            const int from = kac_bench_overdone(&best, &p->curves[KAC_BENCH_REWARD], &p->curves[judge], m);
            if (from >= 0) add_overdone(p, m, judge, from, best), n++;
        }
    if (n == 0)
        kac_text_add(p->t,
                     "<p class=\"note\">Nowhere: no judge falls below its best value by more than the band while the "
                     "reward rises, for any method at these budgets.</p>\n");
    kac_text_add(p->t, "</section>\n");
    return KAC_OK;
}

/* ---- wins ---- */

static void add_win(kac_text *t, const kac_bench_mean *w) {
    const bool clear = isfinite(w->lo) && (w->lo > 0.5 || w->hi < 0.5);
    kac_text_add(t, "<td class=\"n%s\"", clear && w->mean > 0.5 ? " best" : "");
    if (isfinite(w->lo)) kac_text_add(t, " title=\"%.0f … %.0f %% of %d pairs\"", 100 * w->lo, 100 * w->hi, w->n);
    if (isfinite(w->mean))
        kac_text_add(t, ">%.0f</td>", 100 * w->mean);
    else
        kac_text_add(t, ">–</td>");
}

static void add_win_table(kac_bench_page *p, int quality, int budget, bool open) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    const int n = KAC_MIN(d->n_methods, MAX_WIN_METHODS);
    kac_bench_mean wins[MAX_WIN_METHODS][MAX_WIN_METHODS];
    char *name = kac_bench_quantity_name(d, quality);
    kac_text title = {0};
    kac_text_add(&title, "%s at ", name == NULL ? "" : name);
    kac_bench_budget(&title, d, budget);
    open_part(t, title.s, open);
    open_table(t);
    for (int b = 0; b < n; b++) {
        kac_text_add(t, "<th class=\"n\">");
        kac_html_escape(t, d->methods[b].label);
        kac_text_add(t, "</th>");
    }
    kac_text_add(t, "</tr>\n");
    for (int a = 0; a < n; a++) {
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, a);
        for (int b = 0; b < n; b++) {
            kac_bench_mean *w = &wins[a][b];
            if (b > a) *w = kac_bench_wins(&p->all, quality, a, b, budget);
            if (b < a) *w = (kac_bench_mean){1 - wins[b][a].mean, 1 - wins[b][a].hi, 1 - wins[b][a].lo, wins[b][a].n};
            if (a == b)
                kac_text_add(t, "<td></td>");
            else
                add_win(t, w);
        }
        kac_text_add(t, "</tr>\n");
    }
    close_table(t);
    kac_text_add(t, "</details>\n");
    kac_text_free(&title), kac_free(name);
}

kac_status kac_page_bench_wins(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    int qualities[KAC_BENCH_MAX_QUANTITIES];
    const int n = kac_bench_qualities(qualities, p, false), last = kac_bench_last_budget(p);
    if (n == 0 || d->n_methods < 2) return KAC_OK;
    kac_text_add(
        p->t,
        "<section><h2>Win rates</h2><p class=\"note\">How often, in %%, the row&#39;s method is above the column&#39;s "
        "on the same prompt and seed at the same budget; a tie counts half. Coloured: the 95 %% interval is above "
        "50.%s</p>\n",
        d->n_methods > MAX_WIN_METHODS ? " The first 16 methods." : "");
    for (int i = 0; i < n; i++) add_win_table(p, qualities[i], last, i == n - 1 || i == 1);
    kac_text_add(p->t, "<details><summary><h3>At smaller budgets</h3></summary>\n");
    for (int b = last - 1; b >= KAC_MAX(0, last - 8); b--)
        for (int i = 0; i < KAC_MIN(n, 3); i++) add_win_table(p, qualities[i], b, false);
    kac_text_add(p->t, "</details></section>\n");
    return KAC_OK;
}

/* ---- categories ---- */

static void add_category_table(kac_bench_page *p, const kac_bench_mean *means, const kac_bench_curves *overall,
                               int budget, int n) {
    const kac_bench_data *d = p->d;
    const int stride = d->n_methods * d->n_budgets;
    kac_text *t = p->t;
    open_table(t);
    kac_text_add(t, "<th class=\"n\">overall</th>");
    for (int k = 0; k < n; k++) {
        kac_text_add(t, "<th class=\"n\">");
        kac_html_escape(t, d->categories[k]);
        kac_text_add(t, "</th>");
    }
    kac_text_add(t, "</tr>\n");
    for (int m = 0; m < d->n_methods; m++) {
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, m);
        for (int k = -1; k < n; k++) {
            bool best = true;
            const kac_bench_mean *column = k < 0 ? overall->at : means + k * stride;
            const kac_bench_mean *at = &column[m * d->n_budgets + budget];
            for (int o = 0; o < d->n_methods; o++) best &= !(column[o * d->n_budgets + budget].mean > at->mean);
            kac_bench_mean_cell(t, at, best && isfinite(at->mean));
        }
        kac_text_add(t, "</tr>\n");
    }
    close_table(t);
}

static kac_status category_means(kac_bench_mean *out, const kac_bench_data *d, int quality, int n) {
    const size_t stride = (size_t)d->n_methods * (size_t)d->n_budgets;
    for (int k = 0; k < n; k++) {
        kac_bench_resamples r;
        kac_bench_curves c = {0};
        kac_status s = kac_bench_resamples_init(&r, d, k);
        if (s == KAC_OK) s = kac_bench_curves_init(&c, &r, quality);
        for (size_t i = 0; s == KAC_OK && i < stride; i++) out[(size_t)k * stride + i] = c.at[i];
        kac_bench_curves_free(&c);
        kac_bench_resamples_free(&r);
        KAC_TRY(s);
    }
    return KAC_OK;
}

static kac_status add_categories_of(kac_bench_page *p, int quality, bool open) {
    const kac_bench_data *d = p->d;
    const int n = KAC_MIN(d->n_categories, MAX_SHOWN_CATEGORIES), last = kac_bench_last_budget(p);
    kac_bench_curves overall = {0};
    kac_bench_mean *means = kac_alloc((size_t)n * (size_t)(d->n_methods * d->n_budgets) * sizeof *means);
    char *name = kac_bench_quantity_name(d, quality);
    kac_status s = means == NULL || name == NULL ? KAC_E_MEMORY : category_means(means, d, quality, n);
    if (s == KAC_OK) s = kac_bench_overall_init(&overall, d, quality);
    if (s == KAC_OK) {
        open_part(p->t, name, open);
        for (int b = last; b >= 0; b--) {
            kac_text title = {0};
            kac_bench_budget(&title, d, b);
            open_part(p->t, title.s, b == last);
            add_category_table(p, means, &overall, b, n);
            kac_text_add(p->t, "</details>\n");
            kac_text_free(&title);
        }
        kac_text_add(p->t, "</details>\n");
    }
    kac_bench_curves_free(&overall);
    kac_free(means), kac_free(name);
    return s;
}

kac_status kac_page_bench_categories(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    int qualities[KAC_BENCH_MAX_QUANTITIES];
    const int n = kac_bench_qualities(qualities, p, true);
    if (n == 0 || d->n_categories < 2) return KAC_OK;
    kac_text_add(
        p->t,
        "<section><h2>By kind of prompt</h2><p class=\"note\">Overall: the mean of the kinds&#39; means, each kind "
        "counting the same, as GenEval counts; with a detector that says 0 or 1 as reward or judge, its mean over "
        "pictures is the GenEval score.%s</p>\n",
        d->n_categories > MAX_SHOWN_CATEGORIES ? " The first 24 kinds; overall counts all." : "");
    const int first = d->n_judges > 0 ? 1 : 0;
    for (int i = 0; i < n; i++) KAC_TRY(add_categories_of(p, qualities[i], i == first));
    kac_text_add(p->t, "</section>\n");
    return KAC_OK;
}

/* ---- costs ---- */

static double mean_of(const kac_bench_page *p, int quantity, int method, int budget) {
    return kac_bench_curve_at(&p->curves[quantity], method, budget)->mean;
}

static void add_cost_cell(kac_text *t, double v, const char *unit) {
    kac_text_add(t, "<td class=\"n\">");
    if (!isfinite(v))
        kac_text_add(t, "–");
    else if (v >= 1e4)
        add_cost(t, v);
    else
        kac_text_add(t, v >= 100 ? "%.0f" : v >= 1 ? "%.3g" : "%.2g", v);
    kac_text_add(t, "%s</td>", isfinite(v) ? unit : "");
}

/* Any method has it, at any budget, and not only zeros. */
static bool says_something(const kac_bench_page *p, int quantity) {
    for (int i = 0; i < p->d->n_methods * p->d->n_budgets; i++)
        if (p->curves[quantity].at[i].n > 0 && p->curves[quantity].at[i].mean != 0) return true;
    return false;
}

static void add_cost_table(kac_bench_page *p, int budget) {
    static const int counts[] = {KAC_BENCH_COUNT_DENOISER,
                                 KAC_BENCH_COUNT_DECODER,
                                 KAC_BENCH_COUNT_REWARD,
                                 KAC_BENCH_COUNT_DENOISER_GRAD,
                                 KAC_BENCH_COUNT_REWARD_GRAD,
                                 KAC_BENCH_FLOPS,
                                 KAC_BENCH_ESS,
                                 KAC_BENCH_EVES,
                                 KAC_BENCH_DIVERSITY,
                                 KAC_BENCH_LOG_Z,
                                 KAC_BENCH_N};
    static const char *const names[] = {"denoised",         "decoded", "rewards", "denoiser gradients",
                                        "reward gradients", "FLOP",    "ESS",     "ancestors",
                                        "diversity",        "log Z",   "pictures"};
    kac_text *t = p->t;
    open_table(t);
    kac_text_add(t, "<th class=\"n\">NFE</th><th class=\"n\">seconds</th><th class=\"n\">ms per NFE</th><th "
                    "class=\"n\">host</th>");
    for (int i = 0; i < KAC_COUNT_OF(counts); i++)
        if (says_something(p, counts[i])) kac_text_add(t, "<th class=\"n\">%s</th>", names[i]);
    kac_text_add(t, "</tr>\n");
    for (int m = 0; m < p->d->n_methods; m++) {
        const double nfe = mean_of(p, KAC_BENCH_NFE, m, budget), seconds = mean_of(p, KAC_BENCH_SECONDS, m, budget);
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, p->d, m);
        add_cost_cell(t, nfe, "");
        add_cost_cell(t, seconds, "");
        add_cost_cell(t, nfe > 0 ? 1000 * seconds / nfe : NAN, "");
        add_cost_cell(t, seconds > 0 ? 100 * mean_of(p, KAC_BENCH_HOST_SECONDS, m, budget) / seconds : NAN, " %");
        for (int i = 0; i < KAC_COUNT_OF(counts); i++)
            if (says_something(p, counts[i])) add_cost_cell(t, mean_of(p, counts[i], m, budget), "");
        kac_text_add(t, "</tr>\n");
    }
    close_table(t);
}

kac_status kac_page_bench_costs(kac_bench_page *p) {
    const int last = kac_bench_last_budget(p);
    if (kac_bench_curves_empty(&p->curves[KAC_BENCH_REWARD])) return KAC_OK;
    kac_text_add(p->t,
                 "<section><h2>What it took</h2><p class=\"note\">Means per prompt. Host: share of the time outside "
                 "denoiser, decoder and rewards. ESS: effective sample size; ancestors: starting points that have "
                 "descendants at the end; diversity: distance between the pictures of one prompt.</p>\n");
    for (int b = last; b >= 0; b--) {
        kac_text title = {0};
        kac_bench_budget(&title, p->d, b);
        open_part(p->t, title.s, b == last);
        add_cost_table(p, b);
        kac_text_add(p->t, "</details>\n");
        kac_text_free(&title);
    }
    kac_text_add(p->t, "</section>\n");
    return KAC_OK;
}
