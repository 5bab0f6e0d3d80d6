#include "reward/resize_axis.h"
#include <math.h>

static double support_of(kac_resize_filter f) {
    return f == KAC_RESIZE_BILINEAR ? 1 : f == KAC_RESIZE_BICUBIC ? 2 : f == KAC_RESIZE_LANCZOS ? 3 : 0.5;
}

static double sinc(double x) {
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

/* On (−support, support). */
static double filter_at(kac_resize_filter f, double x) {
    const double a = -0.5; /* Keys 1981; Pillow's choice */
    x = fabs(x);
    switch (f) {
    case KAC_RESIZE_BILINEAR:
        return x < 1 ? 1 - x : 0;
    case KAC_RESIZE_BICUBIC:
        if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
    case KAC_RESIZE_LANCZOS:
        return x < 3 ? sinc(x) * sinc(x / 3) : 0;
    case KAC_RESIZE_NEAREST:
        return 1;
    }
    return 0;
}

static void fill_nearest(kac_axis *a, int from, int to) {
    for (int i = 0; i < to; i++) {
        a->first[i] = KAC_MIN((int)((i + 0.5) * from / to), from - 1), a->n[i] = 1;
        a->weights[(size_t)i * (size_t)a->n_max] = 1;
    }
}

kac_status kac_axis_make(kac_axis *a, kac_arena *scratch, int from, int to, kac_resize_filter f) {
    const double scale = (double)from / to, stretch = KAC_MAX(scale, 1.0), support = support_of(f) * stretch;
    *a = (kac_axis){.n_max = (int)ceil(support) * 2 + 1};
    const size_t n_weights = (size_t)to * (size_t)a->n_max;
    a->first = kac_arena_take(scratch, (size_t)to * sizeof *a->first);
    a->n = kac_arena_take(scratch, (size_t)to * sizeof *a->n);
    a->weights = kac_arena_take(scratch, n_weights * sizeof *a->weights);
    if (a->first == NULL || a->n == NULL || a->weights == NULL) return KAC_E_MEMORY;
    if (scratch->counting) return KAC_OK;
    for (size_t i = 0; i < n_weights; i++) a->weights[i] = 0;
    if (f == KAC_RESIZE_NEAREST) {
        fill_nearest(a, from, to);
        return KAC_OK;
    }
    for (int i = 0; i < to; i++) {
        const double center = (i + 0.5) * scale;
        const int lo = KAC_MAX(0, (int)(center - support + 0.5)), hi = KAC_MIN(from, (int)(center + support + 0.5));
        double sum = 0, *w = a->weights + (size_t)i * (size_t)a->n_max;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = filter_at(f, (j - center + 0.5) / stretch);
        a->first[i] = lo, a->n[i] = hi - lo;
        for (int j = 0; j < hi - lo; j++) w[j] = sum != 0 ? w[j] / sum : w[j];
    }
    return KAC_OK;
}
