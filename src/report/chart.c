#include "chart.h"
#include "html.h"
#include <math.h>

enum { W = 460, H = 210, LEFT = 52, RIGHT = 10, TOP = 12, BOTTOM = 30 };

typedef struct axis {
    double lo, hi, tick;
} axis;

/* A round distance of ticks, about `n` of them. */
static axis round_axis(double lo, double hi, int n) {
    if (!(hi > lo)) {
        const double pad = lo == 0 ? 1 : fabs(lo) * 0.1;
        lo -= pad, hi += pad;
    }
    const double raw = (hi - lo) / n, power = pow(10, floor(log10(raw))), f = raw / power;
    const double tick = (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10) * power;
    return (axis){floor(lo / tick + 1e-9) * tick, ceil(hi / tick - 1e-9) * tick, tick};
}

static double x_of(const kac_chart *c, double x) {
    return LEFT + (W - LEFT - RIGHT) * (c->x_max > 0 ? x / c->x_max : 0);
}

static double y_of(axis a, double y) {
    const double at = TOP + (H - TOP - BOTTOM) * (1 - (y - a.lo) / (a.hi - a.lo));
    return KAC_MIN(KAC_MAX(at, 0), H);
}

static bool range(const kac_chart *c, double *lo, double *hi) {
    *lo = INFINITY, *hi = -INFINITY;
    for (int i = 0; i < c->n_lines; i++)
        for (int k = 0; k < c->lines[i].n; k++) {
            const double y = c->lines[i].y[k];
            if (!isfinite(y)) continue;
            *lo = KAC_MIN(*lo, y);
            *hi = KAC_MAX(*hi, y);
        }
    if (!isfinite(*lo)) return false;
    if (isfinite(c->y_min)) *lo = c->y_min;
    if (isfinite(c->y_max)) *hi = c->y_max;
    return true;
}

static void add_axes(kac_text *t, const kac_chart *c, axis y) {
    const int n_ticks = (int)((y.hi - y.lo) / y.tick + 0.5);
    for (int i = 0; i <= n_ticks; i++) {
        const double v = fabs(y.lo + i * y.tick) < y.tick * 1e-6 ? 0 : y.lo + i * y.tick, at = y_of(y, v);
        kac_text_add(t, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, W - RIGHT, at, at);
        kac_text_add(t, "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text>", LEFT - 6, at + 4,
                     v);
    }
    const axis x = round_axis(0, c->x_max, 6);
    for (double v = 0; v <= c->x_max + 1e-9; v += KAC_MAX(x.tick, 1))
        kac_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>", x_of(c, v),
                     H - BOTTOM + 16, v);
    kac_text_add(t, "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"end\">", W - RIGHT, H - 2);
    kac_html_escape(t, c->x_label);
    kac_text_add(t, "</text>");
}

static void add_line(kac_text *t, const kac_chart *c, const kac_chart_line *l, axis y) {
    if (l->color >= 0)
        kac_text_add(t, "<g class=\"line%s%s e%d\">", l->wide ? " wide" : "", l->dashed ? " dashed" : "",
                     l->color % KAC_CHART_COLORS);
    else
        kac_text_add(t, "<g class=\"line%s%s%s\">", l->wide ? " wide" : "", l->dashed ? " dashed" : "",
                     l->color == -2 ? " faint" : "");
    if (l->title != NULL) {
        kac_text_add(t, "<title>");
        kac_html_escape(t, l->title);
        kac_text_add(t, "</title>");
    }
    kac_text_add(t, "<path d=\"");
    bool pen = false;
    for (int i = 0; i < l->n; i++) {
        const bool finite = isfinite(l->y[i]) && isfinite(l->x[i]);
        if (finite) kac_text_add(t, "%c%.1f %.1f", pen ? 'L' : 'M', x_of(c, l->x[i]), y_of(y, l->y[i]));
        pen = finite;
    }
    kac_text_add(t, "\"/>");
    for (int i = 0; l->dots && i < l->n; i++)
        if (isfinite(l->y[i]) && isfinite(l->x[i]))
            kac_text_add(t, "<circle r=\"2.2\" cx=\"%.1f\" cy=\"%.1f\"/>", x_of(c, l->x[i]), y_of(y, l->y[i]));
    kac_text_add(t, "</g>");
}

void kac_chart_add(kac_text *t, const kac_chart *c) {
    double lo, hi;
    if (!range(c, &lo, &hi)) return;
    const axis y = round_axis(lo, hi, 4);
    kac_text_add(t, "<figure class=\"chart\"><figcaption>");
    kac_html_escape(t, c->title);
    kac_text_add(t, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", W, H);
    kac_html_escape(t, c->title);
    kac_text_add(t, "\">");
    add_axes(t, c, y);
    for (int i = 0; i < c->n_lines; i++) add_line(t, c, &c->lines[i], y);
    kac_text_add(t, "</svg></figure>\n");
}
