/* The start of a bench's page: what was measured, how far it is, and which method wins. */
#include "page_bench.h"
#include "chart.h"
#include "html.h"
#include "run_data.h"
#include <math.h>
#include <string.h>

kac_status kac_bench_page_open(kac_bench_page *p, kac_text *t, const kac_bench_data *d, kac_bench_report_info *info) {
    *p = (kac_bench_page){.t = t, .d = d, .info = info};
    KAC_TRY(kac_bench_resamples_init(&p->all, d, -1));
    for (int q = 0; q < d->n_quantities; q++) KAC_TRY(kac_bench_curves_init(&p->curves[q], &p->all, q));
    return KAC_OK;
}

void kac_bench_page_close(kac_bench_page *p) {
    for (int q = 0; q < KAC_BENCH_MAX_QUANTITIES; q++) kac_bench_curves_free(&p->curves[q]);
    kac_bench_resamples_free(&p->all);
}

/* ---- names ---- */

/* "clip=folder/shapes-clip" → "clip=shapes-clip": the folders are among the facts. */
static char *judge_name(const char *name) {
    const char *path = strchr(name, '=');
    if (path == NULL || strchr(path, '/') == NULL) return kac_strdup(name);
    return kac_format("%.*s=%s", (int)(path - name), name, kac_path_base(path));
}

char *kac_bench_quantity_name(const kac_bench_data *d, int quantity) {
    static const char *const names[KAC_BENCH_JUDGES] = {"reward",
                                                        "mean reward",
                                                        "pictures",
                                                        "NFE",
                                                        "FLOP",
                                                        "seconds",
                                                        "host seconds",
                                                        "log Z",
                                                        "ESS",
                                                        "ancestors",
                                                        "diversity",
                                                        "states denoised",
                                                        "pictures decoded",
                                                        "rewards",
                                                        "denoiser gradients",
                                                        "reward gradients"};
    if (quantity < KAC_BENCH_JUDGES) return kac_strdup(names[quantity]);
    char *judge = judge_name(d->judges[(quantity - KAC_BENCH_JUDGES) / 2]);
    if (judge == NULL) return NULL;
    char *name = kac_format("%s%s", (quantity - KAC_BENCH_JUDGES) % 2 == 1 ? "mean " : "", judge);
    kac_free(judge);
    return name;
}

int kac_bench_qualities(int out[KAC_BENCH_MAX_QUANTITIES], const kac_bench_page *p, bool with_means) {
    int n = 0;
    for (int mean = 0; mean <= (with_means ? 1 : 0); mean++) {
        if (!kac_bench_curves_empty(&p->curves[KAC_BENCH_REWARD + mean])) out[n++] = KAC_BENCH_REWARD + mean;
        for (int j = 0; j < p->d->n_judges; j++)
            if (!kac_bench_curves_empty(&p->curves[KAC_BENCH_JUDGES + 2 * j + mean]))
                out[n++] = KAC_BENCH_JUDGES + 2 * j + mean;
    }
    return n;
}

int kac_bench_first_judge(const kac_bench_data *d) {
    return d->n_judges > 0 ? KAC_BENCH_JUDGES : KAC_BENCH_REWARD;
}

const char *kac_bench_unit_text(const kac_bench_data *d) {
    return d->unit == KAC_BENCH_IN_SECONDS ? "s" : d->unit == KAC_BENCH_IN_PARTICLES ? "particles" : "NFE";
}

void kac_bench_budget(kac_text *t, const kac_bench_data *d, int budget) {
    if (d->unit == KAC_BENCH_IN_SECONDS)
        kac_html_number(t, d->budgets[budget]);
    else
        kac_html_count(t, d->budgets[budget]);
    kac_text_add(t, " %s", kac_bench_unit_text(d));
}

int kac_bench_last_budget(const kac_bench_page *p) {
    for (int b = p->d->n_budgets - 1; b > 0; b--)
        for (int m = 0; m < p->d->n_methods; m++)
            if (kac_bench_curve_at(&p->curves[KAC_BENCH_REWARD], m, b)->n > 0) return b;
    return 0;
}

void kac_bench_mean_cell(kac_text *t, const kac_bench_mean *m, bool best) {
    kac_text_add(t, "<td class=\"n%s\"", best ? " best" : "");
    if (isfinite(m->lo)) kac_text_add(t, " title=\"%.4g … %.4g\"", m->lo, m->hi);
    kac_text_add(t, ">");
    kac_html_number(t, m->mean);
    if (isfinite(m->lo)) kac_text_add(t, "<small>± %.2g</small>", (m->hi - m->lo) / 2);
    kac_text_add(t, "</td>");
}

void kac_bench_method_head(kac_text *t, const kac_bench_data *d, int method) {
    kac_text_add(t, "<th><span class=\"chip e%d\"></span>", method % KAC_CHART_COLORS);
    kac_html_escape(t, d->methods[method].label);
    kac_text_add(t, "</th>");
}

/* ---- head ---- */

static void add_state(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    const int n_all = p->info->n_cells;
    if (d->n_done < n_all) {
        kac_text_add(t, "<p class=\"state\">%d of %d cells are finished", d->n_done, n_all);
        if (d->n_failed > 0) kac_text_add(t, ", %d failed", d->n_failed);
        kac_text_add(t, ". Until all are, means of two methods may be over different prompts; the same "
                        "<code>kac bench</code> again goes on.</p>\n");
    }
    if (d->n_strange_lines > 0)
        kac_text_add(
            t, "<p class=\"state\">%d lines of results.jsonl belong to no cell of bench.json and are left out.</p>\n",
            d->n_strange_lines);
    if (d->n_bad_lines > 1)
        kac_text_add(t, "<p class=\"state\">%d lines of results.jsonl could not be read.</p>\n", d->n_bad_lines);
}

static void add_fact(kac_text *t, int n, const char *one, const char *many) {
    kac_text_add(t, "<li><b>%d</b> %s</li>", n, n == 1 ? one : many);
}

void kac_page_bench_head(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    const cJSON *root = d->file.root;
    const char *title = kac_run_text(root, "title", kac_run_text(kac_run_at(root, "description"), "title", NULL));
    kac_html_open(t, title != NULL && title[0] != '\0' ? title : "Quality against compute",
                  "'self' file: data:", kac_bench_style);
    kac_text_add(t, "<ul class=\"facts\">");
    add_fact(t, d->n_methods, "method", "methods");
    kac_text_add(t, "<li>budgets <b>");
    kac_bench_budget(t, d, 0);
    if (d->n_budgets > 1) {
        kac_text_add(t, " … ");
        kac_bench_budget(t, d, d->n_budgets - 1);
    }
    kac_text_add(t, "</b> per prompt</li>");
    add_fact(t, d->n_prompts, "prompt", "prompts");
    add_fact(t, d->n_seeds, "seed", "seeds");
    kac_text_add(t, "<li><b>");
    kac_html_count(t, d->n_done);
    kac_text_add(t, "</b> cells</li></ul>\n");
    add_state(p);
    kac_text_add(t, "</header>\n<main>\n");
}

/* ---- which wins ---- */

/* The method with the highest mean at a budget; −1: none. */
static int best_of(const kac_bench_curves *c, int budget) {
    int best = -1;
    for (int m = 0; m < c->d->n_methods; m++) {
        const double v = kac_bench_curve_at(c, m, budget)->mean;
        if (isfinite(v) && (best < 0 || v > kac_bench_curve_at(c, best, budget)->mean)) best = m;
    }
    return best;
}

static void add_headline_row(kac_bench_page *p, int method, int budget, const int *qualities, int n,
                             const kac_bench_speed *speed, const kac_bench_target *target) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    kac_text_add(t, "<tr>");
    kac_bench_method_head(t, d, method);
    kac_text_add(t, "<td class=\"aim\">");
    kac_html_escape(t, d->methods[method].target);
    kac_text_add(t, "</td>");
    for (int i = 0; i < n; i++)
        kac_bench_mean_cell(t, kac_bench_curve_at(&p->curves[qualities[i]], method, budget),
                            best_of(&p->curves[qualities[i]], budget) == method);
    kac_text_add(t, "<td class=\"n\">");
    if (!(speed->ratio > 0))
        kac_text_add(t, isfinite(speed->ratio) ? "not reached" : "–");
    else
        kac_text_add(t, "%s%.3g×", speed->at_once ? "≥ " : "", speed->ratio);
    if (isfinite(speed->lo) && speed->hi > 0) kac_text_add(t, "<small>%.2g … %.2g</small>", speed->lo, speed->hi);
    kac_text_add(t, "</td>");
    kac_bench_mean wins = {.mean = NAN, .lo = NAN, .hi = NAN};
    if (target->method >= 0 && target->method != method)
        wins = kac_bench_wins(&p->all, kac_bench_first_judge(d), method, target->method, budget);
    kac_text_add(t, "<td class=\"n\">");
    if (isfinite(wins.mean))
        kac_text_add(t, "%.0f %%", 100 * wins.mean);
    else
        kac_text_add(t, "–");
    if (isfinite(wins.lo)) kac_text_add(t, "<small>%.0f … %.0f</small>", 100 * wins.lo, 100 * wins.hi);
    kac_text_add(t, "</td></tr>\n");
}

kac_status kac_page_bench_headline(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    int qualities[KAC_BENCH_MAX_QUANTITIES];
    kac_bench_speed speeds[KAC_BENCH_MAX_METHODS];
    kac_bench_target target;
    const int n = kac_bench_qualities(qualities, p, false), budget = kac_bench_last_budget(p);
    if (n == 0) {
        kac_text_add(t, "<section><p class=\"note\">No cell is finished yet.</p></section>\n");
        return KAC_OK;
    }
    KAC_TRY(kac_bench_speeds(speeds, &target, &p->curves[KAC_BENCH_REWARD], &p->curves[KAC_BENCH_NFE]));
    kac_text_add(t, "<section><h2>Which wins at ");
    kac_bench_budget(t, d, budget);
    kac_text_add(t, "</h2>\n<div class=\"scroll\"><table class=\"pairs wide\"><tr><th>method</th><th>aims at</th>");
    for (int i = 0; i < n; i++) {
        char *name = kac_bench_quantity_name(d, qualities[i]);
        kac_text_add(t, "<th class=\"n\">");
        kac_html_escape(t, name);
        kac_text_add(t, "</th>");
        kac_free(name);
    }
    kac_text_add(t, "<th class=\"n\">speed-up</th><th class=\"n\">wins</th></tr>\n");
    for (int m = 0; m < d->n_methods; m++) add_headline_row(p, m, budget, qualities, n, &speeds[m], &target);
    kac_text_add(
        t, "</table></div>\n<p class=\"note\">Of the picture with the best reward; ± and small numbers: 95 %% over "
           "prompts.");
    if (target.method >= 0) {
        char *judge = kac_bench_quantity_name(d, kac_bench_first_judge(d));
        kac_text_add(t, " Speed-up: how much less a method spends (NFE) to reach the reward ");
        kac_html_number(t, target.value);
        kac_text_add(t, " that the best baseline, ");
        kac_html_escape(t, d->methods[target.method].label);
        kac_text_add(t, ", has at its largest budget. Wins: share of prompts and seeds where ");
        kac_html_escape(t, judge);
        kac_text_add(t, " is above that baseline's.");
        kac_free(judge);
    }
    kac_text_add(t, "</p></section>\n");
    return KAC_OK;
}
