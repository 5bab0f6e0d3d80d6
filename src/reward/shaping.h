/* Shapings of a single reward: r → f(r), a few lines each in one table, with their derivatives.
 *
 *     target=T          −|r − T|                 closest to T is best
 *     hinge=T           −max(T − r, 0)           enough is enough
 *     clamp=LO/HI       min(max(r, LO), HI)
 *     sigmoid=REF/S     1 / (1 + exp(−(r − REF) / S))   centred by a reference reward; /S may be left out (1)
 *     tanh=C/S          tanh((r − C) / S);       /S, or both, may be left out (0, 1)
 *     log               ln r                     of a positive reward
 *     exp               e^r
 *     z=MEAN/STD        (r − MEAN) / STD; alone: by the mean and deviation of all that was scored so far */
#ifndef KAC_SHAPING_H
#define KAC_SHAPING_H

#include "base/base.h"

typedef struct kac_shaping_kind kac_shaping_kind;

typedef struct kac_shaping {
    const kac_shaping_kind *kind;
    double a, b;  /* its numbers, or their defaults */
    bool running; /* z without numbers: a and b follow what was scored */
} kac_shaping;

/* True when `text` is NAME or NAME=…: then *status says whether its numbers are right. False: no shaping of that name, and *near is the
 * nearest one (NULL: none is near). */
bool kac_shaping_parse(kac_shaping *out, kac_status *status, const char **near, const char *text);

/* f(r), and f'(r) into *slope. KAC_E_NONFINITE: r is outside the domain. Running means count as constants. */
kac_status kac_shaping_apply(double *out, double *slope, const kac_shaping *s, double r);

/* "target=0.3" into a buffer; returns it. */
const char *kac_shaping_text(const kac_shaping *s, char buffer[64]);

/* NUM or NUM/NUM into v; how many, −1 when it is neither. */
int kac_shaping_numbers(double v[2], const char *text);

#endif
