#include "html.h"
#include "tree_data.h"
#include <math.h>
#include <stdlib.h>

enum { LEFT = 128, RIGHT = 20, TOP = 26, MIN_WIDTH = 960, LEAF_WIDTH = 8, SHADES = 9, MAX_LEVELS = 200 };

typedef struct level {
    int i_step, n, n_shown;
} level;

/* A node as the drawing takes them: level by level, the most visited first. */
typedef struct place {
    int node, i_step, visits;
    double value;
} place;

typedef struct view {
    const kac_tree_file *t;
    bool *shown, *way;        /* [n]; way: on the way to a result */
    place *order;             /* [n] */
    double *x, *width, *next; /* [n]: middle, room, left end of the next child's room, in leaves */
    level levels[MAX_LEVELS];
    int n_levels, n_shown, max_visits;
    double lo, hi; /* of the values shown */
    double svg_width, leaf, row;
} view;

static int by_level(const void *a, const void *b) {
    const place *i = a, *j = b;
    if (i->i_step != j->i_step) return i->i_step < j->i_step ? -1 : 1;
    if (i->visits != j->visits) return i->visits > j->visits ? -1 : 1;
    if (i->value != j->value) return i->value > j->value ? -1 : 1;
    return i->node < j->node ? -1 : 1;
}

static void free_view(view *v) {
    kac_free(v->shown), kac_free(v->way), kac_free(v->order), kac_free(v->x), kac_free(v->width), kac_free(v->next);
}

static kac_status init_view(view *v, const kac_tree_file *t) {
    const size_t n = (size_t)t->n;
    *v = (view){.t = t, .lo = INFINITY, .hi = -INFINITY, .max_visits = 1};
    v->shown = kac_alloc(n * sizeof *v->shown), v->way = kac_alloc(n * sizeof *v->way);
    v->order = kac_alloc(n * sizeof *v->order);
    v->x = kac_alloc(n * sizeof *v->x), v->width = kac_alloc(n * sizeof *v->width);
    v->next = kac_alloc(n * sizeof *v->next);
    if (v->shown == NULL || v->way == NULL || v->order == NULL || v->x == NULL || v->width == NULL || v->next == NULL)
        return KAC_E_MEMORY;
    for (int i = 0; i < t->n; i++) {
        v->order[i] = (place){i, t->i_step[i], t->visits[i], isfinite(t->value[i]) ? t->value[i] : -INFINITY};
        v->max_visits = KAC_MAX(v->max_visits, t->visits[i]);
    }
    qsort(v->order, n, sizeof *v->order, by_level);
    return KAC_OK;
}

static void show(view *v, int node) {
    for (; node >= 0 && !v->shown[node]; node = v->t->parent[node]) v->shown[node] = true, v->n_shown++;
}

static int count_levels(const view *v) {
    int n = 0;
    for (int i = 0; i < v->t->n; i++) n += i == 0 || v->order[i].i_step != v->order[i - 1].i_step;
    return n;
}

/* Levels in their order, and what is drawn of each: the first of its nodes, all ways to results, and the ways to those. */
static void choose(view *v, int n_levels) {
    const kac_tree_file *t = v->t;
    const int most = n_levels <= 8 ? 40 : n_levels <= 24 ? 20 : 10;
    for (int i = 0, k = 0; i < t->n; i++, k++) {
        if (i == 0 || v->order[i].i_step != v->order[i - 1].i_step) k = 0;
        if (k < most) show(v, v->order[i].node);
    }
    for (int i = 0; i < t->n; i++)
        for (int k = i; t->n_chosen[i] > 0 && k >= 0 && !v->way[k]; k = t->parent[k]) show(v, k), v->way[k] = true;
    for (int i = 0; i < t->n; i++) {
        const int node = v->order[i].node;
        if (i == 0 || v->order[i].i_step != v->order[i - 1].i_step)
            v->levels[v->n_levels++].i_step = v->order[i].i_step;
        level *l = &v->levels[v->n_levels - 1];
        l->n++;
        l->n_shown += v->shown[node];
        if (!v->shown[node] || t->parent[node] < 0 || !isfinite(t->value[node])) continue;
        v->lo = KAC_MIN(v->lo, t->value[node]);
        v->hi = KAC_MAX(v->hi, t->value[node]);
    }
}

/* Room of every shown node is that of its shown children, at least one leaf; children stand in their order. A parent comes before its
 * children, so one pass back sums and one pass forth places. */
static void place_nodes(view *v) {
    const kac_tree_file *t = v->t;
    double all = 0;
    for (int i = t->n - 1; i >= 0; i--) {
        if (!v->shown[i]) continue;
        v->width[i] = KAC_MAX(v->width[i], 1);
        if (t->parent[i] >= 0) v->width[t->parent[i]] += v->width[i];
    }
    for (int i = 0; i < t->n; i++) {
        if (!v->shown[i]) continue;
        double *left = t->parent[i] < 0 ? &all : &v->next[t->parent[i]];
        v->next[i] = *left;
        v->x[i] = *left + v->width[i] / 2;
        *left += v->width[i];
    }
    v->leaf = KAC_MAX(LEAF_WIDTH, (MIN_WIDTH - LEFT - RIGHT) / KAC_MAX(all, 1));
    v->svg_width = LEFT + RIGHT + v->leaf * all;
    v->row = v->n_levels <= 8 ? 80 : v->n_levels <= 24 ? 44 : 24;
}

/* ---- drawing ---- */

static double x_of(const view *v, int node) {
    return LEFT + v->leaf * v->x[node];
}

static double y_of(const view *v, int i_level) {
    return TOP + v->row * i_level;
}

static double radius(const view *v, int node) {
    const double most = KAC_MIN(v->row * 0.28, 20);
    return 3 + (most - 3) * sqrt((double)v->t->visits[node] / v->max_visits);
}

static void add_edge(kac_text *text, const view *v, int node, int i_level, int parent_level) {
    const int parent = v->t->parent[node];
    const double x0 = x_of(v, parent), y0 = y_of(v, parent_level), x1 = x_of(v, node), y1 = y_of(v, i_level),
                 mid = (y0 + y1) / 2;
    kac_text_add(text, "<path%s stroke-width=\"%.1f\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f\"/>",
                 v->way[node] ? " class=\"way\"" : "", 0.7 + 5 * sqrt((double)v->t->visits[node] / v->max_visits), x0,
                 y0, x0, mid, x1, mid, x1, y1);
}

static void add_node(kac_text *text, const view *v, int node, int i_level) {
    const kac_tree_file *t = v->t;
    int shade = -1;
    if (isfinite(t->value[node]) && t->parent[node] >= 0)
        shade = v->hi > v->lo ? (int)((t->value[node] - v->lo) / (v->hi - v->lo) * (SHADES - 1) + 0.5) : SHADES / 2;
    if (shade >= 0)
        kac_text_add(text, "<circle class=\"t%d%s\"", shade, t->n_chosen[node] > 0 ? " chosen" : "");
    else
        kac_text_add(text, "<circle class=\"tn%s\"", t->n_chosen[node] > 0 ? " chosen" : "");
    kac_text_add(text, " r=\"%.1f\" cx=\"%.1f\" cy=\"%.1f\"><title>", radius(v, node), x_of(v, node), y_of(v, i_level));
    if (t->i_step[node] < 0)
        kac_text_add(text, "root");
    else
        kac_text_add(text, "node %d, %d steps taken", node, t->i_step[node]);
    kac_text_add(text, "; visits %d; value ", t->visits[node]);
    kac_html_number(text, t->value[node]);
    if (t->n_children[node] > 0) kac_text_add(text, "; children %d", t->n_children[node]);
    if (isfinite(t->log_prob[node])) kac_text_add(text, "; probability %.3g", exp(t->log_prob[node]));
    if (t->n_chosen[node] > 0)
        kac_text_add(text, t->n_chosen[node] == 1 ? "; a result" : "; a result, %d times", t->n_chosen[node]);
    kac_text_add(text, "</title></circle>");
}

static int level_of(const view *v, int i_step) {
    int lo = 0, hi = v->n_levels - 1;
    while (lo < hi) {
        const int mid = (lo + hi) / 2;
        if (v->levels[mid].i_step < i_step)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void add_levels(kac_text *text, const view *v) {
    for (int k = 0; k < v->n_levels; k++) {
        const level *l = &v->levels[k];
        kac_text_add(text, "<line class=\"grid\" x1=\"%d\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT - 8,
                     v->svg_width, y_of(v, k), y_of(v, k));
        kac_text_add(text, "<text class=\"tick\" x=\"0\" y=\"%.1f\">", y_of(v, k) + 4);
        if (l->i_step < 0)
            kac_text_add(text, "root");
        else
            kac_text_add(text, "step %d: ", l->i_step);
        if (l->n_shown < l->n)
            kac_text_add(text, "%d of %d", l->n_shown, l->n);
        else if (l->i_step >= 0)
            kac_text_add(text, "%d", l->n);
        kac_text_add(text, "</text>");
    }
}

static void add_caption(kac_text *text, const view *v) {
    kac_text_add(text,
                 "<figcaption>Tree of the search: a circle is a state, as large as it was often visited. Value <span "
                 "class=\"shades\">");
    kac_html_number(text, v->lo);
    kac_text_add(text, "&nbsp;<svg viewBox=\"0 0 %d 10\" aria-hidden=\"true\">", SHADES * 10);
    for (int i = 0; i < SHADES; i++)
        kac_text_add(text, "<rect class=\"t%d\" x=\"%d\" width=\"10\" height=\"10\"/>", i, i * 10);
    kac_text_add(text, "</svg>&nbsp;");
    kac_html_number(text, v->hi);
    kac_text_add(text, "</span>");
    if (v->t->n_results > 0) kac_text_add(text, "The ways to the results are coloured, the results ringed.");
    if (v->n_shown < v->t->n) {
        kac_text_add(text, " Drawn: ");
        kac_html_count(text, v->n_shown);
        kac_text_add(text, " of ");
        kac_html_count(text, v->t->n);
        kac_text_add(text, " states, the most visited of each level%s; the other ",
                     v->t->n_results > 0 ? " and the results" : "");
        kac_html_count(text, v->t->n - v->n_shown);
        kac_text_add(text, " are hidden.");
    }
    kac_text_add(text, "</figcaption>");
}

static void draw(kac_text *text, const view *v) {
    const double height = y_of(v, v->n_levels - 1) + 26;
    kac_text_add(text, "<figure class=\"tree search\">");
    add_caption(text, v);
    kac_text_add(text,
                 "<div class=\"scroll\"><svg viewBox=\"0 0 %.0f %.0f\" style=\"width:max(100%%,%.0fpx)\" role=\"img\" "
                 "aria-label=\"Tree of the search\">",
                 v->svg_width, height, v->svg_width > MIN_WIDTH ? v->svg_width : MIN_WIDTH * 0.8);
    add_levels(text, v);
    for (int pass = 0; pass < 3; pass++) /* lines, the ways to results over them, states */
        for (int i = 0; i < v->t->n; i++) {
            const int parent = v->t->parent[i];
            if (!v->shown[i]) continue;
            const int at = level_of(v, v->t->i_step[i]);
            if (pass == 2)
                add_node(text, v, i, at);
            else if (parent >= 0 && v->way[i] == (pass == 1))
                add_edge(text, v, i, at, level_of(v, v->t->i_step[parent]));
        }
    kac_text_add(text, "</svg></div></figure>\n");
}

kac_status kac_tree_file_draw(kac_text *text, const kac_tree_file *t) {
    view v;
    kac_status s = init_view(&v, t);
    const int n_levels = s == KAC_OK ? count_levels(&v) : 0;
    if (n_levels > MAX_LEVELS) {
        kac_text_add(text, "<p class=\"note\">A tree of %d levels is too deep to draw.</p>\n", n_levels);
    } else if (s == KAC_OK) {
        choose(&v, n_levels);
        place_nodes(&v);
        draw(text, &v);
    }
    free_view(&v);
    return s;
}
