/* The page of a tuning run: what changed, pictures before and after, curves, the sweep over scales. */
#include "chart.h"
#include "html.h"
#include "page.h"
#include "tune_data.h"
#include <math.h>
#include <string.h>

enum { MAX_ALONG = 24 };

/* ---- what changed ---- */

static void cell(kac_text *t, double v, double se) {
    kac_text_add(t, "<td class=\"n\">");
    kac_html_number(t, v);
    if (isfinite(se) && isfinite(v)) kac_text_add(t, " ± %.2g", 1.96 * se);
    kac_text_add(t, "</td>");
}

static void table_head(kac_text *t, const kac_tune_data *d, const char *first) {
    kac_text_add(t, "<div class=\"scroll\"><table class=\"pairs\"><tr><th>%s</th><th class=\"n\">reward</th>", first);
    for (int k = 0; k < d->n_held_out; k++) {
        kac_text_add(t, "<th class=\"n\">");
        kac_html_escape(t, d->held_out[k]);
        kac_text_add(t, "</th>");
    }
    kac_text_add(t, "<th class=\"n\">diversity</th><th class=\"n\">distance to base</th></tr>\n");
}

static void table_row(kac_text *t, const kac_tune_data *d, const kac_tune_eval_row *e) {
    cell(t, e->reward, e->reward_se);
    for (int k = 0; k < d->n_held_out; k++) cell(t, e->held_out[k], e->held_out_se[k]);
    cell(t, e->diversity, NAN);
    cell(t, e->distance, NAN);
    kac_text_add(t, "</tr>\n");
}

static void add_verdict(kac_text *t, const kac_tune_data *d) {
    const kac_tune_eval_row *first = &d->evals[0], *last = &d->evals[d->n_evals - 1];
    for (int k = 0; k < d->n_held_out; k++) {
        const int at = kac_tune_hacked(d, k);
        if (at < 0) continue;
        kac_text_add(t,
                     "<p class=\"state\"><b>Reward hacking starts after round %.0f</b>: from there on the tuned reward "
                     "goes on rising while ",
                     d->evals[at].round);
        kac_html_escape(t, d->held_out[k]);
        kac_text_add(t, ", which is not tuned for, falls from ");
        kac_html_number(t, d->evals[at].held_out[k]);
        kac_text_add(t, " to ");
        kac_html_number(t, last->held_out[k]);
        kac_text_add(
            t, ". A smaller scale, an earlier checkpoint or <code>--early-stop</code> keeps what was gained.</p>\n");
    }
    if (last->diversity < 0.7 * first->diversity)
        kac_text_add(t,
                     "<p class=\"state\"><b>Diversity has fallen to %.0f %%</b> of the base model's: pictures of one "
                     "prompt look more and more alike.</p>\n",
                     100 * last->diversity / first->diversity);
}

static void add_change(kac_page *p, const kac_tune_data *d) {
    kac_text *t = p->t;
    if (d->n_evals == 0) return;
    kac_text_add(t, "<section><h2>What changed</h2>\n");
    add_verdict(t, d);
    table_head(t, d, "round");
    const double kept = kac_run_number(p->d->run.root, "file_round");
    for (int i = 0; i < d->n_evals; i++) {
        const kac_tune_eval_row *e = &d->evals[i];
        if (d->n_evals > 40 && i != 0 && i != d->n_evals - 1 && e->round != kept) continue;
        kac_text_add(t, "<tr><th%s>%.0f%s</th>", e->round == kept ? " class=\"given\"" : "", e->round,
                     e->round == 0      ? " (base model)"
                     : e->round == kept ? " (kept)"
                                        : "");
        table_row(t, d, e);
    }
    kac_text_add(
        t,
        "</table></div><p class=\"note\">The same noise in every row; ± is a 95 %% interval over prompts. Diversity: "
        "mean CLIP distance between pictures of one prompt; distance: between a picture and the base model's "
        "from the same noise.</p></section>\n");
}

/* ---- pictures ---- */

static bool add_grid(kac_page *p, const kac_tune_eval_row *e, const char *what, double number, int64_t *left_bytes) {
    char *alt = kac_format("%s %g", what, number);
    kac_text_add(p->t, "<figure>");
    const bool shown = e->grid != NULL && kac_page_image(p, e->grid, alt == NULL ? "" : alt, left_bytes);
    kac_text_add(p->t, "<figcaption>%s %g · reward ", what, number);
    kac_html_number(p->t, e->reward);
    kac_text_add(p->t, "%s</figcaption></figure>\n", shown ? "" : " (no picture)");
    kac_free(alt);
    p->info->n_images += shown;
    return shown;
}

static void add_prompts(kac_page *p) {
    const cJSON *grid = kac_run_at(p->d->run.root, "grid"), *v;
    const double columns = kac_run_number(grid, "columns");
    int i = 0;
    if (!(columns >= 1)) return;
    kac_text_add(p->t, "<details><summary class=\"note\">Prompts, row by row</summary><ol class=\"note\">");
    cJSON_ArrayForEach(v, kac_run_at(grid, "prompts")) {
        kac_text_add(p->t, "<li%s>", i++ % (int)KAC_MIN(columns, 1000) == 0 ? " class=\"given\"" : "");
        kac_html_escape(p->t, cJSON_IsString(v) ? v->valuestring : "");
        kac_text_add(p->t, "</li>");
    }
    kac_text_add(p->t, "</ol></details>\n");
}

static void add_pictures(kac_page *p, const kac_tune_data *d) {
    kac_text *t = p->t;
    if (d->n_evals == 0) return;
    const double kept = kac_run_number(p->d->run.root, "file_round");
    int after = d->n_evals - 1;
    for (int i = 0; i < d->n_evals; i++)
        if (d->evals[i].round == kept) after = i;
    kac_text_add(t, "<section><h2>Before and after</h2><p class=\"note\">The same prompts and the same noise.</p>\n"
                    "<div class=\"grids\">\n");
    add_grid(p, &d->evals[0], "round", d->evals[0].round, &p->finals_left_bytes);
    if (after > 0) add_grid(p, &d->evals[after], "round", d->evals[after].round, &p->finals_left_bytes);
    kac_text_add(t, "</div>\n");
    add_prompts(p);
    if (d->n_evals > 2) {
        kac_text_add(t, "<details><summary><h3>Along the way</h3></summary><div class=\"grids\">\n");
        const int step = (d->n_evals + MAX_ALONG - 1) / MAX_ALONG;
        for (int i = 0; i < d->n_evals; i += step)
            add_grid(p, &d->evals[i], "round", d->evals[i].round, &p->previews_left_bytes);
        kac_text_add(t, "</div></details>\n");
    }
    kac_text_add(t, "</section>\n");
}

/* ---- curves ---- */

/* Columns of the logs, ready for charts. */
typedef struct columns {
    double *memory;
    double *round, *seconds, *reward, *low, *high, *loss, *norm;       /* [n_rounds] */
    double *e_round, *e_seconds, *e_reward, *e_diversity, *e_distance; /* [n_evals] */
    double *e_held[KAC_TUNE_MAX_HELD];
} columns;

static kac_status fill_columns(columns *c, const kac_tune_data *d) {
    const size_t r = (size_t)d->n_rounds, e = (size_t)d->n_evals, held = (size_t)d->n_held_out;
    *c = (columns){.memory = kac_alloc((7 * r + (5 + held) * e + 1) * sizeof(double))};
    if (c->memory == NULL) return KAC_E_MEMORY;
    double *at = c->memory;
    double **of_rounds[] = {&c->round, &c->seconds, &c->reward, &c->low, &c->high, &c->loss, &c->norm};
    double **of_evals[] = {&c->e_round, &c->e_seconds, &c->e_reward, &c->e_diversity, &c->e_distance};
    for (int i = 0; i < KAC_COUNT_OF(of_rounds); i++, at += r) *of_rounds[i] = at;
    for (int i = 0; i < KAC_COUNT_OF(of_evals); i++, at += e) *of_evals[i] = at;
    for (int k = 0; k < d->n_held_out; k++, at += e) c->e_held[k] = at;
    for (size_t i = 0; i < r; i++) {
        const kac_tune_round_row *row = &d->rounds[i];
        c->round[i] = row->round, c->seconds[i] = row->seconds, c->reward[i] = row->reward;
        c->low[i] = row->reward - row->reward_std, c->high[i] = row->reward + row->reward_std;
        c->loss[i] = row->loss, c->norm[i] = row->grad_norm;
    }
    for (size_t i = 0; i < e; i++) {
        const kac_tune_eval_row *row = &d->evals[i];
        c->e_round[i] = row->round, c->e_seconds[i] = row->seconds, c->e_reward[i] = row->reward;
        c->e_diversity[i] = row->diversity, c->e_distance[i] = row->distance;
        for (int k = 0; k < d->n_held_out; k++) c->e_held[k][i] = row->held_out[k];
    }
    return KAC_OK;
}

static void draw(kac_text *t, const char *title, const char *x_label, double x_max, const kac_chart_line *lines,
                 int n) {
    kac_chart_add(t, &(kac_chart){.title = title,
                                  .x_label = x_label,
                                  .x_max = x_max,
                                  .y_min = NAN,
                                  .y_max = NAN,
                                  .lines = lines,
                                  .n_lines = n});
}

static void add_reward_chart(kac_text *t, const kac_tune_data *d, const columns *c, bool by_seconds, double x_max) {
    const double *x = by_seconds ? c->seconds : c->round, *ex = by_seconds ? c->e_seconds : c->e_round;
    const kac_chart_line lines[] = {
        {.x = x, .y = c->low, .n = d->n_rounds, .color = -2, .dashed = true, .title = "one deviation below"},
        {.x = x, .y = c->high, .n = d->n_rounds, .color = -2, .dashed = true, .title = "one deviation above"},
        {.x = x, .y = c->reward, .n = d->n_rounds, .color = 2, .title = "prompts tuned on"},
        {.x = ex,
         .y = c->e_reward,
         .n = d->n_evals,
         .color = 0,
         .wide = true,
         .dots = true,
         .title = "prompts watched"}};
    draw(t, by_seconds ? "Reward over time" : "Reward: bold on the prompts watched, thin on those tuned on",
         by_seconds ? "seconds" : "round", x_max, lines, KAC_COUNT_OF(lines));
}

/* One held-out reward, and where hacking starts. */
static void add_held_chart(kac_text *t, const kac_tune_data *d, const columns *c, int k, double x_max) {
    const int at = kac_tune_hacked(d, k);
    double lo = INFINITY, hi = -INFINITY;
    for (int i = 0; i < d->n_evals; i++)
        if (isfinite(c->e_held[k][i])) lo = fmin(lo, c->e_held[k][i]), hi = fmax(hi, c->e_held[k][i]);
    const double mark = at < 0 ? NAN : d->evals[at].round, mx[2] = {mark, mark}, my[2] = {lo, hi};
    const kac_chart_line lines[] = {
        {.x = mx, .y = my, .n = at < 0 ? 0 : 2, .color = 1, .dashed = true, .title = "reward hacking starts here"},
        {.x = c->e_round, .y = c->e_held[k], .n = d->n_evals, .color = 3, .wide = true, .dots = true}};
    char *title = at < 0 ? kac_format("Held out: %s", d->held_out[k])
                         : kac_format("Held out: %s; reward hacking starts at the dashed line", d->held_out[k]);
    draw(t, title == NULL ? "" : title, "round", x_max, lines, 2);
    kac_free(title);
}

static kac_status add_curves(kac_page *p, const kac_tune_data *d) {
    kac_text *t = p->t;
    columns c;
    if (d->n_rounds == 0) return KAC_OK;
    KAC_TRY(fill_columns(&c, d));
    const double x_max = KAC_MAX(1, d->rounds[d->n_rounds - 1].round);
    double s_max = d->rounds[d->n_rounds - 1].seconds;
    if (d->n_evals > 0) s_max = fmax(s_max, d->evals[d->n_evals - 1].seconds);
    kac_text_add(t, "<section><h2>Curves</h2><div class=\"charts\">\n");
    add_reward_chart(t, d, &c, false, x_max);
    for (int k = 0; k < d->n_held_out; k++) add_held_chart(t, d, &c, k, x_max);
    draw(t, "Diversity: CLIP distance within a prompt", "round", x_max,
         &(kac_chart_line){.x = c.e_round, .y = c.e_diversity, .n = d->n_evals, .color = 5, .wide = true, .dots = true},
         1);
    draw(t, "CLIP distance to the base model's pictures", "round", x_max,
         &(kac_chart_line){.x = c.e_round, .y = c.e_distance, .n = d->n_evals, .color = 8, .wide = true, .dots = true},
         1);
    if (s_max >= 1) add_reward_chart(t, d, &c, true, s_max);
    draw(t, "Loss", "round", x_max, &(kac_chart_line){.x = c.round, .y = c.loss, .n = d->n_rounds, .color = 2}, 1);
    draw(t, "Norm of the gradient", "round", x_max,
         &(kac_chart_line){.x = c.round, .y = c.norm, .n = d->n_rounds, .color = 2}, 1);
    kac_text_add(t, "</div></section>\n");
    kac_free(c.memory);
    return KAC_OK;
}

/* ---- the sweep ---- */

static void add_sweep(kac_page *p, const kac_tune_data *d) {
    kac_text *t = p->t;
    if (d->n_sweep == 0) return;
    kac_text_add(t,
                 "<section><h2>Scales of the result</h2><p class=\"note\">What <code>--lora FILE:SCALE</code> gives: "
                 "between the base model and what was tuned.</p>\n");
    table_head(t, d, "scale");
    for (int i = 0; i < d->n_sweep; i++) {
        kac_text_add(t, "<tr><th>%g</th>", d->sweep[i].scale);
        table_row(t, d, &d->sweep[i]);
    }
    kac_text_add(t, "</table></div><details><summary class=\"note\">Pictures</summary><div class=\"grids\">\n");
    for (int i = 0; i < d->n_sweep; i++) add_grid(p, &d->sweep[i], "scale", d->sweep[i].scale, &p->previews_left_bytes);
    kac_text_add(t, "</div></details></section>\n");
}

kac_status kac_page_tune(kac_page *p) {
    kac_tune_data d;
    kac_status s = kac_tune_data_load(&d, p->d);
    if (s == KAC_OK) {
        p->info->n_steps = d.n_rounds;
        add_change(p, &d);
        add_pictures(p, &d);
        s = add_curves(p, &d);
        add_sweep(p, &d);
    }
    kac_tune_data_free(&d);
    return s;
}
