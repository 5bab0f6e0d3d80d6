#include "axis.h"
#include <math.h>
#include <stdio.h>

kac_axis kac_axis_round(double lo, double hi, int n) {
    if (!(hi > lo)) {
        const double pad = lo == 0 ? 1 : fabs(lo) * 0.1;
        lo -= pad, hi += pad;
    }
    const double raw = (hi - lo) / n, power = pow(10, floor(log10(raw))), f = raw / power;
    const double tick = (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10) * power;
    return (kac_axis){floor(lo / tick + 1e-9) * tick, ceil(hi / tick - 1e-9) * tick, tick, false};
}

kac_axis kac_axis_log(double lo, double hi) {
    const double pad = hi > lo ? pow(hi / lo, 0.03) : 1.5;
    return (kac_axis){lo / pad, hi * pad, 0, true};
}

double kac_axis_part(kac_axis a, double v) {
    if (a.log) return v > 0 ? log(v / a.lo) / log(a.hi / a.lo) : 0;
    return (v - a.lo) / (a.hi - a.lo);
}

/* 1, 2, 5 of every decade when that gives few, else every k-th power of ten. */
static int log_ticks(double out[KAC_AXIS_MAX_TICKS], kac_axis a) {
    static const double some[] = {1, 2, 5};
    const int from = (int)floor(log10(a.lo)), to = (int)ceil(log10(a.hi));
    const int n_decades = (int)ceil(log10(a.hi / a.lo));
    int n = 0;
    for (int e = from; e <= to && n_decades <= 3; e++)
        for (int i = 0; i < 3; i++) {
            const double v = some[i] * pow(10, e);
            if (v >= a.lo && v <= a.hi && n < KAC_AXIS_MAX_TICKS) out[n++] = v;
        }
    const int every = KAC_MAX(1, (n_decades + 7) / 8);
    for (int e = from; e <= to && n_decades > 3; e += every)
        if (pow(10, e) >= a.lo && pow(10, e) <= a.hi && n < KAC_AXIS_MAX_TICKS) out[n++] = pow(10, e);
    if (n == 0) out[n++] = sqrt(a.lo * a.hi);
    return n;
}

int kac_axis_ticks(double out[KAC_AXIS_MAX_TICKS], kac_axis a) {
    if (a.log) return log_ticks(out, a);
    const int n = KAC_MIN((int)((a.hi - a.lo) / a.tick + 0.5), KAC_AXIS_MAX_TICKS - 1);
    for (int i = 0; i <= n; i++) {
        const double v = a.lo + i * a.tick;
        out[i] = fabs(v) < a.tick * 1e-6 ? 0 : v;
    }
    return n + 1;
}

void kac_axis_number(char out[24], double v) {
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    int u = 0;
    while (fabs(v) >= (u == 0 ? 9999.5 : 999.95) && u < 6) v /= 1000, u++;
    snprintf(out, 24, u == 0 ? "%.4g%s" : "%.3g%s", v, units[u]);
}
