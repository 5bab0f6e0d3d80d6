/* Curves of a bench's page, and the tables that they are drawn from. */
#include "chart.h"
#include "html.h"
#include "page_bench.h"
#include <math.h>
#include <stdio.h>

/* Lines of one quantity against one cost, a line for each method. */
typedef struct method_lines {
    double *values; /* x, y, lo, hi of each method: [n_methods, 4, n_budgets] */
    kac_chart_line lines[KAC_BENCH_MAX_METHODS];
    char groups[KAC_BENCH_MAX_METHODS][16]; /* "m0" … */
    int n;
} method_lines;

static kac_status fill_lines(method_lines *l, const kac_bench_page *p, int quantity, int cost) {
    const kac_bench_data *d = p->d;
    const size_t n = (size_t)d->n_budgets;
    l->n = d->n_methods;
    l->values = kac_alloc((size_t)d->n_methods * 4 * n * sizeof(double));
    if (l->values == NULL) return KAC_E_MEMORY;
    for (int m = 0; m < d->n_methods; m++) {
        double *x = l->values + (size_t)m * 4 * n, *y = x + n, *lo = y + n, *hi = lo + n;
        for (int b = 0; b < d->n_budgets; b++) {
            const kac_bench_mean *at = kac_bench_curve_at(&p->curves[quantity], m, b);
            x[b] = kac_bench_curve_at(&p->curves[cost], m, b)->mean;
            y[b] = at->mean, lo[b] = at->lo, hi[b] = at->hi;
        }
        snprintf(l->groups[m], sizeof l->groups[m], "m%d", m);
        l->lines[m] = (kac_chart_line){.x = x,
                                       .y = y,
                                       .lo = lo,
                                       .hi = hi,
                                       .n = d->n_budgets,
                                       .color = m % KAC_CHART_COLORS,
                                       .title = d->methods[m].label,
                                       .group = l->groups[m],
                                       .dots = true,
                                       .wide = true,
                                       .dashed = m >= KAC_CHART_COLORS};
    }
    return KAC_OK;
}

kac_status kac_bench_chart(const kac_bench_page *p, int quantity, int cost,
                           kac_status (*use)(void *self, const kac_chart *c), void *self) {
    static const char *const costs[KAC_BENCH_JUDGES] = {[KAC_BENCH_NFE] = "NFE per prompt",
                                                        [KAC_BENCH_SECONDS] = "seconds per prompt",
                                                        [KAC_BENCH_FLOPS] = "FLOP per prompt"};
    method_lines l;
    char *name = kac_bench_quantity_name(p->d, quantity);
    kac_status s = fill_lines(&l, p, quantity, cost);
    if (s == KAC_OK && name != NULL)
        s = use(self, &(kac_chart){.title = name,
                                   .x_label = costs[cost],
                                   .y_min = NAN,
                                   .y_max = NAN,
                                   .lines = l.lines,
                                   .n_lines = l.n,
                                   .x_log = true});
    kac_free(l.values), kac_free(name);
    return s;
}

static kac_status add_chart(void *self, const kac_chart *c) {
    kac_chart_add(self, c);
    return KAC_OK;
}

/* ---- the legend switches lines on and off without a script: hidden boxes, and rules on what follows an unchecked one ---- */

static void add_legend(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    kac_text_add(t, "<style>");
    for (int m = 0; m < d->n_methods; m++)
        kac_text_add(t,
                     "#m%d:not(:checked)~.curves .m%d{display:none}#m%d:not(:checked)~.legend "
                     "[for=m%d]{opacity:.4}#m%d:focus-visible~.legend [for=m%d]{outline:2px solid var(--accent)}",
                     m, m, m, m, m, m);
    kac_text_add(t, "</style>\n");
    for (int m = 0; m < d->n_methods; m++) {
        kac_text_add(t, "<input type=\"checkbox\" class=\"toggle\" id=\"m%d\" checked aria-label=\"", m);
        kac_html_escape(t, d->methods[m].label);
        kac_text_add(t, "\">");
    }
    kac_text_add(t, "<div class=\"legend\">");
    for (int m = 0; m < d->n_methods; m++) {
        kac_text_add(t, "<label for=\"m%d\"><span class=\"chip e%d\"></span>", m, m % KAC_CHART_COLORS);
        kac_html_escape(t, d->methods[m].label);
        kac_text_add(t, "</label>");
    }
    kac_text_add(
        t, "</div><p class=\"note\">A click on a name hides or shows its lines. Bands: 95 %% over prompts.</p>\n");
}

/* ---- tables of the same numbers ---- */

static bool leads(const kac_bench_curves *c, int method, int budget) {
    const double v = kac_bench_curve_at(c, method, budget)->mean;
    for (int m = 0; m < c->d->n_methods; m++)
        if (kac_bench_curve_at(c, m, budget)->mean > v) return false;
    return isfinite(v);
}

static void add_table(kac_bench_page *p, int quantity, bool open) {
    const kac_bench_data *d = p->d;
    const kac_bench_curves *c = &p->curves[quantity];
    kac_text *t = p->t;
    char *name = kac_bench_quantity_name(d, quantity);
    kac_text_add(t, "<details%s><summary><h3>", open ? " open" : "");
    kac_html_escape(t, name);
    kac_text_add(t,
                 " at each budget</h3></summary><div class=\"scroll\"><table class=\"pairs wide\"><tr><th>method</th>");
    for (int b = 0; b < d->n_budgets; b++) {
        kac_text_add(t, "<th class=\"n\">");
        kac_bench_budget(t, d, b);
        kac_text_add(t, "</th>");
    }
    kac_text_add(t, "</tr>\n");
    for (int m = 0; m < d->n_methods; m++) {
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, m);
        for (int b = 0; b < d->n_budgets; b++) kac_bench_mean_cell(t, kac_bench_curve_at(c, m, b), leads(c, m, b));
        kac_text_add(t, "</tr>\n");
    }
    kac_text_add(t, "</table></div></details>\n");
    kac_free(name);
}

/* ---- the section ---- */

static kac_status add_charts(kac_bench_page *p, const char *title, const int *quantities, int n, int cost) {
    if (n == 0 || kac_bench_curves_empty(&p->curves[cost])) return KAC_OK;
    kac_text_add(p->t, "<h3>%s</h3><div class=\"charts\">\n", title);
    for (int i = 0; i < n; i++) KAC_TRY(kac_bench_chart(p, quantities[i], cost, add_chart, p->t));
    kac_text_add(p->t, "</div>\n");
    return KAC_OK;
}

kac_status kac_page_bench_curves(kac_bench_page *p) {
    static const int inner[] = {KAC_BENCH_ESS, KAC_BENCH_EVES, KAC_BENCH_DIVERSITY, KAC_BENCH_LOG_Z};
    int best[KAC_BENCH_MAX_QUANTITIES], all[KAC_BENCH_MAX_QUANTITIES], some[KAC_COUNT_OF(inner)], n_some = 0;
    const int n_best = kac_bench_qualities(best, p, false), n_all = kac_bench_qualities(all, p, true);
    if (n_best == 0) return KAC_OK;
    kac_text_add(p->t, "<section><h2>At every budget</h2>\n");
    for (int i = 0; i < n_all; i++) add_table(p, all[i], i == 0);
    add_legend(p);
    kac_text_add(p->t, "<div class=\"curves\">\n");
    KAC_TRY(add_charts(p, "Best picture, against evaluations of the denoiser", best, n_best, KAC_BENCH_NFE));
    KAC_TRY(add_charts(p, "Best picture, against seconds", best, n_best, KAC_BENCH_SECONDS));
    KAC_TRY(add_charts(p, "Best picture, against arithmetic", best, n_best, KAC_BENCH_FLOPS));
    KAC_TRY(add_charts(p, "Mean over the pictures handed over", all + n_best, n_all - n_best, KAC_BENCH_NFE));
    for (int i = 0; i < KAC_COUNT_OF(inner); i++)
        if (!kac_bench_curves_empty(&p->curves[inner[i]])) some[n_some++] = inner[i];
    KAC_TRY(add_charts(p, "Inside the methods", some, n_some, KAC_BENCH_NFE));
    kac_text_add(p->t, "</div></section>\n");
    return KAC_OK;
}
