/* An axis of a chart: where values lie on it, and its ticks. */
#ifndef KAC_REPORT_AXIS_H
#define KAC_REPORT_AXIS_H

#include "base/base.h"

enum { KAC_AXIS_MAX_TICKS = 24 };

typedef struct kac_axis {
    double lo, hi, tick;
    bool log; /* lo > 0 */
} kac_axis;

/* Round ends and a round distance of ticks, about n of them. */
kac_axis kac_axis_round(double lo, double hi, int n);
/* Logarithmic from lo to hi, both above 0, a little wider on both sides. */
kac_axis kac_axis_log(double lo, double hi);
/* 0 at lo, 1 at hi; not clamped. */
double kac_axis_part(kac_axis a, double v);
/* Values to write on the axis; the count. */
int kac_axis_ticks(double out[KAC_AXIS_MAX_TICKS], kac_axis a);
/* "0.25", "3.2k", "1.6M", "2T" */
void kac_axis_number(char out[24], double v);

#endif
