/* Line charts as SVG. */
#ifndef KAC_REPORT_CHART_H
#define KAC_REPORT_CHART_H

#include "base/base.h"

/* Points of one line; a point whose y is not finite breaks it. */
typedef struct kac_chart_line {
    const double *x, *y;
    int n;
    int color;         /* 0 … 11: a family's colour; −1: the text's; −2: faint */
    const char *title; /* shown on pointing; NULL: none */
    bool dots, wide, dashed;
} kac_chart_line;

typedef struct kac_chart {
    const char *title, *x_label;
    double x_max;        /* from 0 */
    double y_min, y_max; /* NAN: from the lines */
    const kac_chart_line *lines;
    int n_lines;
} kac_chart;

/* A <figure>; nothing when no line has a finite point. */
void kac_chart_add(kac_text *t, const kac_chart *c);

/* The colour's class, "e0" … "e11". */
enum { KAC_CHART_COLORS = 12 };

#endif
