/* Heads of several linear layers without activations between them (LAION's aesthetic predictors, ImageReward's head): one vector and one
 * number. */
#ifndef KAC_AFFINE_HEAD_H
#define KAC_AFFINE_HEAD_H

#include "io/weights.h"

typedef struct kac_affine_head {
    double *w; /* [n], owned */
    double bias;
    int64_t n;
} kac_affine_head;

/* Collapses "<prefix>N.weight", "<prefix>N.bias" in order of N (the numbers between are dropouts), or "<prefix>weight", "<prefix>bias" of one
 * layer, in double: w = Wₖ … W₂ W₁. The last layer has one output. KAC_E_FORMAT naming what is missing or does not fit. */
kac_status kac_affine_head_load(kac_affine_head *h, const kac_weights *w, const char *prefix);
void kac_affine_head_free(kac_affine_head *h); /* an empty one is allowed */

/* w · x + bias, x [n]. */
double kac_affine_head_value(const kac_affine_head *h, const float *x);

#endif
