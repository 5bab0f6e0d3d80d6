/* Pictures of a bench's page, prompt by prompt: methods beneath each other, budgets beside each other; and trees to open. */
#include "html.h"
#include "lineage.h"
#include "page_bench.h"
#include "run_data.h"
#include "tree_data.h"
#include <math.h>
#include <string.h>

enum { PAGE_BYTES = 1750 << 10, MAX_VIEWS = 200 };

/* ---- trees and family trees, each a page of its own ---- */

/* The particle with the best reward of the last step that was scored; −1: none. */
static int best_particle(const kac_run_data *events) {
    int best = -1;
    const kac_run_step *last = events->n_step_events > 0 ? &events->steps[events->n_step_events - 1] : NULL;
    for (int i = 0; last != NULL && last->rewards != NULL && i < last->n; i++)
        if (isfinite(last->rewards[i]) && (best < 0 || last->rewards[i] > last->rewards[best])) best = i;
    return best;
}

/* Draws a cell's tree, or its family tree; *drawn false: the file is missing or makes no sense. */
static kac_status draw_view(kac_text *t, const kac_bench_page *p, const kac_bench_cell *cell, bool *drawn) {
    char *path = kac_path_join(p->d->folder, cell->tree != NULL ? cell->tree : cell->family);
    kac_status s = path == NULL ? KAC_E_MEMORY : KAC_OK;
    *drawn = false;
    if (s == KAC_OK && kac_file_exists(path) && cell->tree != NULL) {
        kac_tree_file tree;
        s = kac_tree_file_load(&tree, path);
        if (s == KAC_OK) s = kac_tree_file_draw(t, &tree);
        *drawn = s == KAC_OK;
        kac_tree_file_free(&tree);
    } else if (s == KAC_OK && kac_file_exists(path)) {
        kac_run_data events;
        kac_lineage l = {0};
        s = kac_run_data_load_events(&events, path);
        if (s == KAC_OK) s = kac_lineage_init(&l, events.steps, events.n_step_events);
        if (s == KAC_OK) kac_lineage_draw(t, &l, best_particle(&events));
        *drawn = s == KAC_OK && l.n >= 2;
        kac_lineage_free(&l);
        kac_run_data_free(&events);
    }
    kac_free(path);
    return s == KAC_E_FORMAT || s == KAC_E_IO ? KAC_OK : s;
}

/* "dts at 800 NFE, seed 1: a red circle" */
static void add_view_title(kac_text *t, const kac_bench_data *d, const kac_bench_cell *cell) {
    kac_text_add(t, "%s at %g %s, seed %g: %s", d->methods[cell->method].label, d->budgets[cell->budget],
                 kac_bench_unit_text(d), d->seeds[cell->seed], d->prompts[cell->prompt].text);
}

static kac_status write_view(kac_bench_page *p, const kac_bench_cell *cell, const char *name, bool *written) {
    kac_text t = {0}, title = {0};
    add_view_title(&title, p->d, cell);
    kac_html_open(&t, title.s == NULL ? "" : title.s, "data:", "main,header{max-width:1500px}");
    kac_text_add(&t, "</header><main><section>\n");
    kac_status s = draw_view(&t, p, cell, written);
    kac_text_add(&t, "<p><a href=\"../index.html\">The whole bench</a></p></section></main></body></html>\n");
    if (s == KAC_OK && *written && !t.failed) {
        char *folder = kac_path_join(p->d->folder, "views"), *path = kac_path_join(p->d->folder, name);
        s = folder == NULL || path == NULL ? KAC_E_MEMORY : kac_dir_make(folder);
        if (s == KAC_OK) s = kac_file_write(path, t.s, t.n);
        kac_free(folder), kac_free(path);
    }
    kac_text_free(&t), kac_text_free(&title);
    return s;
}

/* " · tree" as a link, when the cell has one and there are not too many yet. */
static kac_status add_view(kac_bench_page *p, const kac_bench_cell *cell) {
    if (cell->tree == NULL && cell->family == NULL) return KAC_OK;
    if (p->info->n_views >= MAX_VIEWS) return KAC_OK;
    bool written = true;
    char *name = kac_format("views/%d_%d_%d_%d.html", cell->method, cell->budget, cell->prompt, cell->seed);
    kac_status s = name == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && p->write) s = write_view(p, cell, name, &written);
    if (s == KAC_OK && written) {
        kac_text_add(p->t, "<a href=\"%s\">%s</a>", name, cell->tree != NULL ? "tree" : "families");
        p->info->n_views++;
    }
    kac_free(name);
    return s;
}

/* ---- walls ---- */

/* What a wall shows at one method, budget and prompt: the first seed that has a picture, a tree or a family tree. */
static const kac_bench_cell *shown_cell(const kac_bench_data *d, int method, int budget, int prompt) {
    for (int s = 0; s < d->n_seeds; s++) {
        const kac_bench_cell *cell = kac_bench_cell_at(d, method, budget, prompt, s);
        if (cell != NULL && (cell->picture != NULL || cell->tree != NULL || cell->family != NULL)) return cell;
    }
    return NULL;
}

static bool has_pictures(const kac_bench_data *d, int prompt) {
    for (int m = 0; m < d->n_methods; m++)
        for (int b = 0; b < d->n_budgets; b++)
            if (shown_cell(d, m, b, prompt) != NULL) return true;
    return false;
}

static void add_numbers(kac_bench_page *p, const kac_bench_cell *cell) {
    const kac_bench_data *d = p->d;
    kac_text_add(p->t, "<span>%.3g", kac_bench_value(d, cell, KAC_BENCH_REWARD));
    for (int j = 0; j < d->n_judges; j++) {
        const double v = kac_bench_value(d, cell, KAC_BENCH_JUDGES + 2 * j);
        if (isfinite(v)) kac_text_add(p->t, " · %.3g", v);
    }
    kac_text_add(p->t, "</span>");
}

static kac_status add_cell(kac_bench_page *p, const kac_bench_cell *cell) {
    kac_text *t = p->t;
    kac_text_add(t, "<td>");
    if (cell != NULL) {
        if (cell->picture != NULL) {
            kac_text_add(t, "<a href=\"");
            kac_html_path(t, cell->picture);
            kac_text_add(t, "\"><img loading=\"lazy\" alt=\"\" src=\"");
            kac_html_path(t, cell->picture);
            kac_text_add(t, "\"></a>");
            p->info->n_images++;
        }
        add_numbers(p, cell);
        KAC_TRY(add_view(p, cell));
    }
    kac_text_add(t, "</td>");
    return KAC_OK;
}

static kac_status add_wall(kac_bench_page *p, int prompt, bool open) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    const kac_bench_prompt *pr = &d->prompts[prompt];
    kac_text_add(t, "<details%s><summary>", open ? " open" : "");
    kac_html_escape(t, pr->text[0] == '\0' ? "(empty prompt)" : pr->text);
    if (pr->category >= 0) {
        kac_text_add(t, " <span class=\"note\">");
        kac_html_escape(t, d->categories[pr->category]);
        kac_text_add(t, "</span>");
    }
    kac_text_add(t, "</summary><div class=\"scroll\"><table class=\"wall\"><tr><th></th>");
    for (int b = 0; b < d->n_budgets; b++) {
        kac_text_add(t, "<th>");
        kac_bench_budget(t, d, b);
        kac_text_add(t, "</th>");
    }
    kac_text_add(t, "</tr>\n");
    for (int m = 0; m < d->n_methods; m++) {
        bool any = false;
        for (int b = 0; b < d->n_budgets; b++) any |= shown_cell(d, m, b, prompt) != NULL;
        if (!any) continue;
        kac_text_add(t, "<tr>");
        kac_bench_method_head(t, d, m);
        for (int b = 0; b < d->n_budgets; b++) KAC_TRY(add_cell(p, shown_cell(d, m, b, prompt)));
        kac_text_add(t, "</tr>\n");
    }
    kac_text_add(t, "</table></div></details>\n");
    p->info->n_prompts_shown++;
    return KAC_OK;
}

static void add_wall_caption(kac_bench_page *p, int n_with) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    kac_text_add(t, "<p class=\"note\">The picture with the best reward at each budget; below it its reward");
    for (int j = 0; j < d->n_judges; j++) {
        char *name = kac_bench_quantity_name(d, KAC_BENCH_JUDGES + 2 * j);
        kac_text_add(t, " · ");
        kac_html_escape(t, name);
        kac_free(name);
    }
    kac_text_add(t, ".%s", d->n_seeds > 1 ? " One seed of each." : "");
    if (n_with < d->n_prompts) kac_text_add(t, " %d of %d prompts have kept pictures or trees.", n_with, d->n_prompts);
    kac_text_add(t, "</p>\n");
}

kac_status kac_page_bench_walls(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    int *with = kac_alloc((size_t)d->n_prompts * sizeof *with), n_with = 0;
    if (with == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < d->n_prompts; i++)
        if (has_pictures(d, i)) with[n_with++] = i;
    kac_status s = KAC_OK;
    if (n_with > 0) {
        kac_text_add(t, "<section><h2>Pictures</h2>");
        add_wall_caption(p, n_with);
        const size_t before = t->n;
        s = add_wall(p, with[0], true);
        /* as many as the page has room for, evenly over all of them */
        const size_t each = t->n - before, room = t->n < PAGE_BYTES ? PAGE_BYTES - t->n : 0;
        const int n = (int)KAC_MIN((size_t)n_with, 1 + room / KAC_MAX(each, 1));
        for (int i = 1; s == KAC_OK && i < n; i++) s = add_wall(p, with[(int)((int64_t)i * n_with / n)], false);
        if (n < n_with)
            kac_text_add(t,
                         "<p class=\"note\">%d of the %d prompts with pictures; all are in <a "
                         "href=\"results.csv\">results.csv</a> and the folder.</p>\n",
                         n, n_with);
        kac_text_add(t, "</section>\n");
    }
    kac_free(with);
    return s;
}

/* ---- one tree of each method ---- */

/* The cell with a tree or family tree at the largest budget, of the first prompt that has one; NULL: none. */
static const kac_bench_cell *cell_with_view(const kac_bench_data *d, int method) {
    for (int b = d->n_budgets - 1; b >= 0; b--)
        for (int i = 0; i < d->n_prompts; i++)
            for (int s = 0; s < d->n_seeds; s++) {
                const kac_bench_cell *cell = kac_bench_cell_at(d, method, b, i, s);
                if (cell != NULL && (cell->tree != NULL || cell->family != NULL)) return cell;
            }
    return NULL;
}

kac_status kac_page_bench_trees(kac_bench_page *p) {
    const kac_bench_data *d = p->d;
    kac_text *t = p->t;
    int n = 0;
    kac_status s = KAC_OK;
    for (int m = 0; s == KAC_OK && m < d->n_methods; m++) {
        const kac_bench_cell *cell = cell_with_view(d, m);
        bool drawn;
        kac_text view = {0}, title = {0};
        if (cell == NULL) continue;
        s = draw_view(&view, p, cell, &drawn);
        add_view_title(&title, d, cell);
        if (s == KAC_OK && drawn && !view.failed && t->n + view.n < PAGE_BYTES) {
            if (n++ == 0) kac_text_add(t, "<section><h2>Inside a search</h2>\n");
            kac_text_add(t, "<details%s><summary>", n == 1 ? " open" : "");
            kac_html_escape(t, title.s);
            kac_text_add(t, "</summary>");
            kac_text_add_bytes(t, view.s, view.n);
            kac_text_add(t, "</details>\n");
        }
        kac_text_free(&view), kac_text_free(&title);
    }
    if (n > 0) kac_text_add(t, "</section>\n");
    return s;
}
