#include "chart.h"
#include "html.h"
#include <math.h>

enum { W = 460, H = 210, LEFT = 52, RIGHT = 10, TOP = 12, BOTTOM = 30 };

static double x_of(kac_axis a, double x) {
    return LEFT + (W - LEFT - RIGHT) * kac_axis_part(a, x);
}

static double y_of(kac_axis a, double y) {
    const double at = TOP + (H - TOP - BOTTOM) * (1 - kac_axis_part(a, y));
    return KAC_MIN(KAC_MAX(at, 0), H);
}

bool kac_chart_point(const kac_chart *c, const kac_chart_line *l, int i) {
    return isfinite(l->x[i]) && isfinite(l->y[i]) && (!c->x_log || l->x[i] > 0);
}

static bool has_band(const kac_chart *c, const kac_chart_line *l, int i) {
    return l->lo != NULL && kac_chart_point(c, l, i) && isfinite(l->lo[i]) && isfinite(l->hi[i]);
}

static void widen(double *lo, double *hi, double v) {
    *lo = KAC_MIN(*lo, v);
    *hi = KAC_MAX(*hi, v);
}

bool kac_chart_axes(kac_axis *x, kac_axis *y, const kac_chart *c) {
    double lo = INFINITY, hi = -INFINITY, x_lo = INFINITY, x_hi = -INFINITY;
    for (int i = 0; i < c->n_lines; i++)
        for (int k = 0; k < c->lines[i].n; k++) {
            const kac_chart_line *l = &c->lines[i];
            if (!kac_chart_point(c, l, k)) continue;
            widen(&lo, &hi, l->y[k]);
            widen(&x_lo, &x_hi, l->x[k]);
            if (has_band(c, l, k)) widen(&lo, &hi, l->lo[k]), widen(&lo, &hi, l->hi[k]);
        }
    if (!isfinite(lo)) return false;
    if (isfinite(c->y_min)) lo = c->y_min;
    if (isfinite(c->y_max)) hi = c->y_max;
    *y = kac_axis_round(lo, hi, 4);
    *x = c->x_log ? kac_axis_log(x_lo, x_hi) : kac_axis_round(0, c->x_max, 6);
    if (!c->x_log) *x = (kac_axis){0, c->x_max > 0 ? c->x_max : 1, KAC_MAX(x->tick, 1), false};
    return true;
}

static void add_axes(kac_text *t, const kac_chart *c, kac_axis x, kac_axis y) {
    double ticks[KAC_AXIS_MAX_TICKS];
    char number[24];
    int n = kac_axis_ticks(ticks, y);
    for (int i = 0; i < n; i++) {
        const double at = y_of(y, ticks[i]);
        kac_axis_number(number, ticks[i]);
        kac_text_add(t, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, W - RIGHT, at, at);
        kac_text_add(t, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", LEFT - 6, at + 4,
                     number);
    }
    n = kac_axis_ticks(ticks, x);
    for (int i = 0; i < n; i++) {
        if (ticks[i] > x.hi * (1 + 1e-9)) continue;
        kac_axis_number(number, ticks[i]);
        kac_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>", x_of(x, ticks[i]),
                     H - BOTTOM + 16, number);
    }
    kac_text_add(t, "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"end\">", W - RIGHT, H - 2);
    kac_html_escape(t, c->x_label);
    kac_text_add(t, "</text>");
}

/* Stretches of points that have a band: there along the upper end, back along the lower one. */
static void add_band(kac_text *t, const kac_chart *c, const kac_chart_line *l, kac_axis x, kac_axis y) {
    for (int i = 0, end; i < l->n; i = end) {
        for (end = i; end < l->n && has_band(c, l, end);) end++;
        if (end - i >= 2) {
            kac_text_add(t, "<path class=\"band\" d=\"");
            for (int k = i; k < end; k++)
                kac_text_add(t, "%c%.1f %.1f", k == i ? 'M' : 'L', x_of(x, l->x[k]), y_of(y, l->hi[k]));
            for (int k = end - 1; k >= i; k--) kac_text_add(t, "L%.1f %.1f", x_of(x, l->x[k]), y_of(y, l->lo[k]));
            kac_text_add(t, "Z\"/>");
        }
        end = KAC_MAX(end, i + 1);
    }
}

static void open_group(kac_text *t, const kac_chart_line *l) {
    kac_text_add(t, "<g class=\"line%s%s", l->wide ? " wide" : "", l->dashed ? " dashed" : "");
    if (l->color >= 0) kac_text_add(t, " e%d", l->color % KAC_CHART_COLORS);
    if (l->color == -2) kac_text_add(t, " faint");
    if (l->group != NULL) kac_text_add(t, " %s", l->group);
    kac_text_add(t, "\">");
    if (l->title != NULL) {
        kac_text_add(t, "<title>");
        kac_html_escape(t, l->title);
        kac_text_add(t, "</title>");
    }
}

static void add_line(kac_text *t, const kac_chart *c, const kac_chart_line *l, kac_axis x, kac_axis y) {
    open_group(t, l);
    kac_text_add(t, "<path d=\"");
    bool pen = false;
    for (int i = 0; i < l->n; i++) {
        const bool here = kac_chart_point(c, l, i);
        if (here) kac_text_add(t, "%c%.1f %.1f", pen ? 'L' : 'M', x_of(x, l->x[i]), y_of(y, l->y[i]));
        pen = here;
    }
    kac_text_add(t, "\"/>");
    for (int i = 0; l->dots && i < l->n; i++)
        if (kac_chart_point(c, l, i))
            kac_text_add(t, "<circle r=\"2.2\" cx=\"%.1f\" cy=\"%.1f\"/>", x_of(x, l->x[i]), y_of(y, l->y[i]));
    kac_text_add(t, "</g>");
}

void kac_chart_add(kac_text *t, const kac_chart *c) {
    kac_axis x, y;
    if (!kac_chart_axes(&x, &y, c)) return;
    kac_text_add(t, "<figure class=\"chart\"><figcaption>");
    kac_html_escape(t, c->title);
    kac_text_add(t, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", W, H);
    kac_html_escape(t, c->title);
    kac_text_add(t, "\">");
    add_axes(t, c, x, y);
    for (int i = 0; i < c->n_lines; i++) { /* all bands lie under all lines */
        if (c->lines[i].lo == NULL) continue;
        open_group(t, &c->lines[i]);
        add_band(t, c, &c->lines[i], x, y);
        kac_text_add(t, "</g>");
    }
    for (int i = 0; i < c->n_lines; i++) add_line(t, c, &c->lines[i], x, y);
    kac_text_add(t, "</svg></figure>\n");
}
