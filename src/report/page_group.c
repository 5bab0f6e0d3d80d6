#include "chart.h"
#include "html.h"
#include "lineage.h"
#include "page.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FINALS = 64, MAX_ROWS = 32, MAX_COLUMNS = 12, MAX_LINES = 32 };

typedef struct group {
    const kac_run_step *steps;
    int n_steps;
    const kac_run_picture *finals, *previews;
    int n_finals, n_previews;
    int best;  /* index of the best final picture's particle; −1: none */
    int first; /* number of the first particle: final pictures are numbered from it, events from 0 */
    kac_lineage lineage;
} group;

/* An option of the run as a number; NAN when it has none. */
static double option_number(const kac_run_data *d, const char *name) {
    const cJSON *options = kac_run_at(d->run.root, "options");
    const char *text = kac_run_text(options, name, NULL);
    if (text == NULL) return kac_run_number(options, name);
    char *end;
    const double v = strtod(text, &end);
    return end == text ? NAN : v;
}

static void find_group(group *g, const kac_run_data *d, int index) {
    *g = (group){.best = -1};
    for (int i = 0; i < d->n_step_events; i++)
        if (d->steps[i].group == index && g->n_steps++ == 0) g->steps = &d->steps[i];
    for (int i = 0; i < d->n_finals; i++)
        if (d->finals[i].group == index && g->n_finals++ == 0) g->finals = &d->finals[i];
    for (int i = 0; i < d->n_previews; i++)
        if (d->previews[i].group == index && g->n_previews++ == 0) g->previews = &d->previews[i];
    g->first = (int)KAC_MIN(KAC_MAX(option_number(d, "first-particle"), 0), 1 << 30);
    if (g->n_finals > 0 && isfinite(g->finals[0].reward)) g->best = g->finals[0].particle - g->first;
}

static void add_term(kac_text *t, const char *name, double v, bool main) {
    if (!isfinite(v)) return;
    kac_text_add(t, main ? "<dt><b>" : "<dt>");
    kac_html_escape(t, name);
    kac_text_add(t, main ? "</b></dt><dd><b>" : "</dt><dd>");
    kac_html_number(t, v);
    kac_text_add(t, main ? "</b></dd>" : "</dd>");
}

static void add_card(kac_page *p, const group *g, const kac_run_picture *f, int place) {
    kac_text *t = p->t;
    char *alt = kac_format("%d: %s", place + 1, kac_page_prompt(p->d, f->group));
    kac_text_add(t, "<figure class=\"card final%s\">", place == 0 && isfinite(f->reward) ? " first" : "");
    if (kac_page_image(p, f->file, alt == NULL ? "" : alt, &p->finals_left_bytes)) {
        p->info->n_images++;
    } else {
        kac_text_add(t, "<p class=\"note\">");
        kac_html_escape(t, f->file);
        kac_text_add(t, " is missing or too large for the page</p>");
    }
    kac_free(alt);
    if (isfinite(f->weight))
        kac_text_add(t, "<div class=\"bar\"><i style=\"width:%.1f%%\"></i></div>",
                     100 * KAC_MIN(KAC_MAX(f->weight, 0), 1));
    kac_text_add(t, "<dl>");
    add_term(t, "reward", f->reward, true);
    const cJSON *parts = kac_run_at(f->entry, "rewards"), *v;
    if (cJSON_IsObject(parts) && cJSON_GetArraySize(parts) > 1) cJSON_ArrayForEach(v, parts) {
            char *name = cJSON_IsNumber(v) ? kac_format("%.*s", (int)strcspn(v->string, "="), v->string) : NULL;
            if (name != NULL) add_term(t, name, v->valuedouble, false);
            kac_free(name);
        }
    add_term(t, "uncertainty", kac_run_number(f->entry, "uncertainty"), false);
    add_term(t, "weight", f->weight, false);
    const kac_lineage *l = &g->lineage;
    int eve = f->eve;
    const int index = f->particle - g->first;
    if (eve < 0 && index >= 0 && index < l->n) eve = l->eve[(l->n_segments - 1) * l->n + index];
    kac_text_add(t, "<dt>%splace</dt><dd>%d</dd><dt>particle</dt><dd>", "", place + 1);
    if (eve >= 0)
        kac_text_add(t, "<span class=\"chip e%d\" title=\"descends from particle %d\"></span>", eve % KAC_CHART_COLORS,
                     eve);
    kac_text_add(t, "%d</dd></dl></figure>\n", f->particle);
}

static void add_finals(kac_page *p, const group *g) {
    kac_text *t = p->t;
    if (g->n_finals == 0) {
        const char *samples = kac_run_text(p->d->run.root, "samples", NULL);
        kac_text_add(t, "<p class=\"note\">");
        if (samples != NULL) {
            kac_text_add(t, "The states of this run are no pictures; they are in <code>");
            kac_html_escape(t, samples);
            kac_text_add(t, "</code>.");
        } else {
            kac_text_add(t, "No final pictures yet.");
        }
        kac_text_add(t, "</p>\n");
        return;
    }
    kac_text_add(t, "<div class=\"finals\">\n");
    for (int i = 0; i < KAC_MIN(g->n_finals, MAX_FINALS); i++) add_card(p, g, &g->finals[i], i);
    kac_text_add(t, "</div>\n");
    if (g->n_finals > MAX_FINALS)
        kac_text_add(t, "<p class=\"note\">The best %d of %d pictures; the others are in the run folder.</p>\n",
                     MAX_FINALS, g->n_finals);
}

/* The steps that have previews, at most MAX_COLUMNS of them, evenly; the first and the last are among them. */
static int choose_columns(int columns[MAX_COLUMNS], const group *g) {
    int n_all = 0, last = -1;
    for (int i = 0; i < g->n_previews; i++)
        if (g->previews[i].i_step != last) last = g->previews[i].i_step, n_all++;
    int n = 0, k = 0;
    last = -1;
    for (int i = 0; i < g->n_previews; i++) {
        if (g->previews[i].i_step == last) continue;
        last = g->previews[i].i_step;
        const int slots = KAC_MIN(n_all, MAX_COLUMNS);
        if (slots == 1 || k == (int)lround((double)n * (n_all - 1) / (slots - 1))) columns[n++] = last;
        k++;
    }
    return n;
}

static const kac_run_picture *preview_of(const group *g, int i_step, int particle) {
    for (int i = 0; i < g->n_previews; i++)
        if (g->previews[i].i_step == i_step && g->previews[i].particle == particle) return &g->previews[i];
    return NULL;
}

static void add_strips(kac_page *p, const group *g) {
    kac_text *t = p->t;
    const kac_lineage *l = &g->lineage;
    int columns[MAX_COLUMNS], rows = 0;
    const int n = choose_columns(columns, g);
    if (n == 0) return;
    for (int i = 0; i < g->n_previews; i++) rows = KAC_MAX(rows, g->previews[i].particle + 1);
    kac_text_add(t, "<h3>On the way</h3><p class=\"note\">What each particle would become, step by step. The colour is "
                    "its family; faint "
                    "pictures left no descendants.</p>\n<div class=\"scroll\"><table class=\"strip\"><tr><th></th>");
    for (int c = 0; c < n; c++) kac_text_add(t, "<th>%d</th>", columns[c]);
    kac_text_add(t, "</tr>\n");
    for (int i = 0; i < KAC_MIN(rows, MAX_ROWS); i++) {
        kac_text_add(t, "<tr><th>%d</th>", i);
        for (int c = 0; c < n; c++) {
            const kac_run_picture *preview = preview_of(g, columns[c], i);
            const int at = l->n > i ? kac_lineage_segment(l, columns[c]) * l->n + i : -1;
            const int eve = at < 0 ? i : l->eve[at];
            kac_text_add(t, "<td class=\"e%d%s\">", eve % KAC_CHART_COLORS, at >= 0 && !l->alive[at] ? " dead" : "");
            char *alt = kac_format("particle %d at step %d", i, columns[c]);
            if (preview != NULL && kac_page_image(p, preview->file, alt == NULL ? "" : alt, &p->previews_left_bytes))
                p->info->n_previews++;
            kac_free(alt);
            kac_text_add(t, "</td>");
        }
        kac_text_add(t, "</tr>\n");
    }
    kac_text_add(t, "</table></div>\n");
    if (rows > MAX_ROWS) kac_text_add(t, "<p class=\"note\">The first %d of %d particles.</p>\n", MAX_ROWS, rows);
}

typedef double (*value_at)(const kac_run_step *s, int particle);
static double reward_at(const kac_run_step *s, int i) {
    return s->rewards == NULL ? NAN : s->rewards[i];
}
/* Only differences count: against the heaviest of the step. */
static double weight_at(const kac_run_step *s, int i) {
    double top = -INFINITY;
    for (int k = 0; k < s->n; k++)
        if (s->log_weights[k] > top) top = s->log_weights[k];
    return s->log_weights[i] - top;
}

/* One line for each final particle along its ancestors, so that a line is the history of one state. `values`: room for
 * 2 · lines · n_steps doubles. */
static int ancestor_lines(kac_chart_line *lines, double *values, const group *g, value_at value) {
    const kac_lineage *l = &g->lineage;
    const int n = KAC_MIN(l->n, MAX_LINES);
    for (int i = 0; i < n; i++) {
        double *x = values + (size_t)i * 2 * (size_t)g->n_steps, *y = x + g->n_steps;
        int n_points = 0, segment = l->n_segments - 1, particle = i;
        for (int s = g->n_steps - 1; s >= 0; s--) { /* from the end: every particle has one ancestor */
            const kac_run_step *step = &g->steps[s];
            if (step->n != l->n) continue;
            while (segment > 0 && l->step[segment] >= step->i_step) particle = l->ancestor[segment-- * l->n + particle];
            const double v = value(step, particle);
            if (!isfinite(v)) continue;
            x[n_points] = step->i_step;
            y[n_points++] = v;
        }
        lines[i] = (kac_chart_line){.x = x,
                                    .y = y,
                                    .n = n_points,
                                    .color = l->eve[(l->n_segments - 1) * l->n + i] % KAC_CHART_COLORS,
                                    .wide = i == g->best,
                                    .dots = n_points < 40};
    }
    return n;
}

static void add_step_charts(kac_page *p, const group *g, double *values, double x_max) {
    const int n = g->n_steps;
    double *x = values, *ess = values + n, *log_z = values + 2 * (size_t)n;
    int n_points = 0, n_resampled = 0;
    for (int s = 0; s < n; s++, n_points++) {
        x[s] = g->steps[s].i_step;
        ess[s] = g->steps[s].ess;
        log_z[s] = g->steps[s].log_z;
        n_resampled += g->steps[s].resampled;
    }
    const double fraction = option_number(p->d, "ess-threshold"),
                 threshold = fraction >= 0 && fraction <= 1 ? fraction * g->lineage.n : NAN, tx[2] = {0, x_max},
                 ty[2] = {threshold, threshold};
    const kac_chart_line ess_lines[] = {
        {.x = tx, .y = ty, .n = 2, .color = -2, .dashed = true, .title = "resampling threshold"},
        {.x = x, .y = ess, .n = n_points, .color = 0, .wide = true}};
    char *title = kac_format("Effective sample size of %d particles, resampled %d time%s", g->lineage.n, n_resampled,
                             n_resampled == 1 ? "" : "s");
    kac_chart_add(p->t, &(kac_chart){.title = title == NULL ? "" : title,
                                     .x_label = "step",
                                     .x_max = x_max,
                                     .y_min = 0,
                                     .y_max = g->lineage.n,
                                     .lines = ess_lines,
                                     .n_lines = 2});
    kac_free(title);
    const kac_chart_line z_line = {.x = x, .y = log_z, .n = n_points, .color = 2, .wide = true};
    kac_chart_add(p->t, &(kac_chart){.title = "Estimate of log Z",
                                     .x_label = "step",
                                     .x_max = x_max,
                                     .y_min = NAN,
                                     .y_max = NAN,
                                     .lines = &z_line,
                                     .n_lines = 1});
}

static kac_status add_charts(kac_page *p, const group *g) {
    if (g->n_steps < 2) return KAC_OK;
    const int n_lines = KAC_MIN(g->lineage.n, MAX_LINES);
    const double x_max = KAC_MAX(p->d->n_steps, g->steps[g->n_steps - 1].i_step);
    double *values = kac_alloc((size_t)g->n_steps * (size_t)KAC_MAX(2 * n_lines, 3) * sizeof *values);
    kac_chart_line lines[MAX_LINES];
    if (values == NULL) return KAC_E_MEMORY;
    const char *const many = g->lineage.n > MAX_LINES ? " (32 of the particles)" : "";
    char *rewards = kac_format("Reward along each final particle's ancestors%s", many);
    char *weights = kac_format("Log-weight against the heaviest, before resampling%s", many);
    kac_text_add(p->t, "<div class=\"charts\">\n");
    int n = ancestor_lines(lines, values, g, reward_at);
    kac_chart_add(p->t, &(kac_chart){.title = rewards == NULL ? "" : rewards,
                                     .x_label = "step",
                                     .x_max = x_max,
                                     .y_min = NAN,
                                     .y_max = NAN,
                                     .lines = lines,
                                     .n_lines = n});
    n = ancestor_lines(lines, values, g, weight_at);
    kac_chart_add(p->t, &(kac_chart){.title = weights == NULL ? "" : weights,
                                     .x_label = "step",
                                     .x_max = x_max,
                                     .y_min = NAN,
                                     .y_max = NAN,
                                     .lines = lines,
                                     .n_lines = n});
    add_step_charts(p, g, values, x_max);
    kac_text_add(p->t, "</div>\n");
    kac_free(rewards);
    kac_free(weights);
    kac_free(values);
    return KAC_OK;
}

kac_status kac_page_group(kac_page *p, int index) {
    group g;
    find_group(&g, p->d, index);
    kac_status s = kac_lineage_init(&g.lineage, g.steps, g.n_steps);
    if (s == KAC_OK) {
        if (g.best < 0 || g.best >= g.lineage.n) g.best = -1;
        add_finals(p, &g);
        add_strips(p, &g);
        kac_lineage_draw(p->t, &g.lineage, g.best);
        s = add_charts(p, &g);
        if (s == KAC_OK) s = kac_page_search(p, index);
    }
    kac_lineage_free(&g.lineage);
    return s;
}
