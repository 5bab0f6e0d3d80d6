/* A search on a run's page: what it had found at each moment, and its tree. */
#include "chart.h"
#include "page.h"
#include "tree_data.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct point {
    double nfe, best, log_z, ess;
} point;

/* Events of one group; evaluations that go back mean that the search was taken up again at an earlier place. */
static int points_of(point *out, const cJSON *events, int group) {
    const cJSON *line;
    int n = 0;
    cJSON_ArrayForEach(line, events) {
        if (strcmp(kac_run_text(line, "event", ""), "search") != 0 || kac_run_number(line, "group") != group) continue;
        const point p = {kac_run_number(line, "nfe"), kac_run_number(line, "best_reward"),
                         kac_run_number(line, "log_z"), kac_run_number(line, "ess")};
        if (!(p.nfe > 0)) continue;
        while (n > 0 && out[n - 1].nfe >= p.nfe) n--;
        out[n++] = p;
    }
    return n;
}

static void add_curve(kac_text *t, const char *title, int color, const double *x, const double *y, int n) {
    const kac_chart_line line = {.x = x, .y = y, .n = n, .color = color, .wide = true, .dots = n < 40};
    kac_chart_add(t, &(kac_chart){.title = title,
                                  .x_label = "evaluations of the denoiser",
                                  .y_min = NAN,
                                  .y_max = NAN,
                                  .lines = &line,
                                  .n_lines = 1,
                                  .x_log = true});
}

static void add_curves(kac_text *t, const point *p, double *columns, int n) {
    double *x = columns, *best = x + n, *log_z = best + n, *ess = log_z + n;
    for (int i = 0; i < n; i++) x[i] = p[i].nfe, best[i] = p[i].best, log_z[i] = p[i].log_z, ess[i] = p[i].ess;
    kac_text_add(t, "<div class=\"charts\">\n");
    add_curve(t, "Best reward so far", 0, x, best, n);
    add_curve(t, "Estimate of log Z", 2, x, log_z, n);
    add_curve(t, "Effective sample size of the samples so far", 5, x, ess, n);
    kac_text_add(t, "</div>\n");
}

/* The file that the last "tree" event of the group names; NULL: none. */
static const char *tree_of(const cJSON *events, int group) {
    const char *file = NULL;
    const cJSON *line;
    cJSON_ArrayForEach(line, events) {
        if (strcmp(kac_run_text(line, "event", ""), "tree") == 0 && kac_run_number(line, "group") == group)
            file = kac_run_inner_path(line, "file");
    }
    return file;
}

static kac_status add_tree(kac_page *p, const char *file) {
    char *path = kac_path_join(p->d->folder, file);
    kac_tree_file tree = {0};
    kac_status s = path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && kac_file_exists(path)) {
        s = kac_tree_file_load(&tree, path);
        if (s == KAC_OK) s = kac_tree_file_draw(p->t, &tree);
        if (s == KAC_E_FORMAT || s == KAC_E_IO) {
            kac_text_add(p->t, "<p class=\"note\">The tree of this search cannot be read.</p>\n");
            s = KAC_OK;
        }
    }
    kac_tree_file_free(&tree);
    kac_free(path);
    return s;
}

kac_status kac_page_search(kac_page *p, int group) {
    const int n_lines = p->d->events == NULL ? 0 : cJSON_GetArraySize(p->d->events);
    const char *tree = tree_of(p->d->events, group);
    point *points = kac_alloc(((size_t)n_lines + 1) * sizeof *points);
    double *columns = kac_alloc(((size_t)n_lines + 1) * 4 * sizeof *columns);
    kac_status s = points == NULL || columns == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) {
        const int n = points_of(points, p->d->events, group);
        if (n > 1) add_curves(p->t, points, columns, n);
        if (tree != NULL) s = add_tree(p, tree);
    }
    kac_free(points), kac_free(columns);
    return s;
}
