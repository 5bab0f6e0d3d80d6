/* Line charts as SVG. */
#ifndef KAC_REPORT_CHART_H
#define KAC_REPORT_CHART_H

#include "axis.h"

/* Points of one line; a point whose y is not finite breaks it, and on a logarithmic axis one whose x is not above 0. */
typedef struct kac_chart_line {
    const double *x, *y;
    const double *lo, *hi; /* a band around it, where both are finite; NULL: none */
    int n;
    int color;         /* 0 … 11: a family's colour; −1: the text's; −2: faint */
    const char *title; /* shown on pointing; NULL: none */
    const char *group; /* one more class of it, for style sheets; NULL: none */
    bool dots, wide, dashed;
} kac_chart_line;

typedef struct kac_chart {
    const char *title, *x_label;
    double x_max;        /* from 0; not used when x_log */
    double y_min, y_max; /* NAN: from the lines and bands */
    const kac_chart_line *lines;
    int n_lines;
    bool x_log; /* from the smallest to the largest x */
} kac_chart;

/* A <figure>; nothing when no line has a finite point. */
void kac_chart_add(kac_text *t, const kac_chart *c);

/* The axes that hold a chart's lines; false: no line has a finite point. */
bool kac_chart_axes(kac_axis *x, kac_axis *y, const kac_chart *c);
/* Point i can be drawn. */
bool kac_chart_point(const kac_chart *c, const kac_chart_line *l, int i);

/* The colour's class, "e0" … "e11". */
enum { KAC_CHART_COLORS = 12 };

#endif
