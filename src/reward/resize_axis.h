/* The weights with which Pillow and torchvision (antialias) resize one axis: a filter around the pixel's centre, stretched when shrinking,
 * cut at the edges and renormalised. */
#ifndef KAC_RESIZE_AXIS_H
#define KAC_RESIZE_AXIS_H

#include "reward/preprocess.h"

/* Output i is the sum over j < n[i] of weights[i · n_max + j] · input[first[i] + j]. */
typedef struct kac_axis {
    int n_max, *first, *n;
    double *weights; /* zeros behind n[i] */
} kac_axis;

/* In scratch; nothing is written when it is a counting one. */
kac_status kac_axis_make(kac_axis *a, kac_arena *scratch, int from, int to, kac_resize_filter f);

#endif
