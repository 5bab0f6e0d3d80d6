#include "reward/shaping.h"
#include <kac/options.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kac_shaping_kind {
    const char *name, *usage;
    int min_args, max_args;
    double a, b; /* defaults */
    double (*value)(double r, double a, double b, double *slope);
};

static double target(double r, double t, double unused, double *slope) {
    (void)unused;
    *slope = r < t ? 1 : r > t ? -1 : 0;
    return -fabs(r - t);
}

static double hinge(double r, double t, double unused, double *slope) {
    (void)unused;
    *slope = r < t;
    return fmin(r - t, 0);
}

static double clamp(double r, double lo, double hi, double *slope) {
    *slope = r >= lo && r <= hi;
    return fmin(fmax(r, lo), hi);
}

static double sigmoid(double r, double reference, double scale, double *slope) {
    const double x = (r - reference) / scale, e = exp(-fabs(x)), s = x >= 0 ? 1 / (1 + e) : e / (1 + e);
    *slope = e / ((1 + e) * (1 + e)) / scale;
    return s;
}

static double shape_tanh(double r, double centre, double scale, double *slope) {
    const double t = tanh((r - centre) / scale);
    *slope = (1 - t * t) / scale;
    return t;
}

static double shape_log(double r, double a, double b, double *slope) {
    (void)a, (void)b;
    *slope = 1 / r;
    return r > 0 ? log(r) : NAN;
}

static double shape_exp(double r, double a, double b, double *slope) {
    (void)a, (void)b;
    return *slope = exp(r);
}

/* Without spread every reward is as good as the mean. */
static double standardised(double r, double mean, double std, double *slope) {
    *slope = std > 0 ? 1 / std : 0;
    return (r - mean) * *slope;
}

static const kac_shaping_kind kinds[] = {
    {"target", "target=T", 1, 1, 0, 0, target},
    {"hinge", "hinge=T", 1, 1, 0, 0, hinge},
    {"clamp", "clamp=LO/HI", 2, 2, 0, 0, clamp},
    {"sigmoid", "sigmoid=REFERENCE or sigmoid=REFERENCE/SCALE", 1, 2, 0, 1, sigmoid},
    {"tanh", "tanh, tanh=CENTRE or tanh=CENTRE/SCALE", 0, 2, 0, 1, shape_tanh},
    {"log", "log", 0, 0, 0, 0, shape_log},
    {"exp", "exp", 0, 0, 0, 0, shape_exp},
    {"z", "z or z=MEAN/STD", 0, 2, 0, 0, standardised},
};

static const kac_shaping_kind *find_kind(const char *name, size_t n) {
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++)
        if (strlen(kinds[i].name) == n && strncmp(kinds[i].name, name, n) == 0) return &kinds[i];
    return NULL;
}

int kac_shaping_numbers(double v[2], const char *text) {
    for (int n = 0; n < 2; n++) {
        char *end;
        v[n] = strtod(text, &end);
        if (end == text || !isfinite(v[n]) || (*end != '\0' && *end != '/')) return -1;
        if (*end == '\0') return n + 1;
        text = end + 1;
    }
    return -1;
}

static kac_status read_shape(kac_shaping *out, const kac_shaping_kind *kind, const char *numbers) {
    double v[2] = {kind->a, kind->b};
    const int n = numbers == NULL ? 0 : kac_shaping_numbers(v, numbers);
    *out = (kac_shaping){.kind = kind, .a = n > 0 ? v[0] : kind->a, .b = n > 1 ? v[1] : kind->b};
    const bool z = kind->value == standardised;
    out->running = z && n == 0;
    if (n < kind->min_args || n > kind->max_args || (z && n == 1))
        return KAC_FAIL(KAC_E_USAGE, "\"%s%s%.60s\" is no shaping of a reward: write %s", kind->name,
                        numbers == NULL ? "" : "=", numbers == NULL ? "" : numbers, kind->usage);
    if (kind->value == clamp && !(out->a < out->b))
        return KAC_FAIL(KAC_E_USAGE, "clamp=%s: LO must be smaller than HI", numbers);
    if ((kind->value == sigmoid || kind->value == shape_tanh || (z && n == 2)) && !(out->b > 0))
        return KAC_FAIL(KAC_E_USAGE, "%s=%s: the second number must be greater than 0", kind->name, numbers);
    return KAC_OK;
}

bool kac_shaping_parse(kac_shaping *out, kac_status *status, const char **near, const char *text) {
    const size_t n = strcspn(text, "=");
    const kac_shaping_kind *kind = find_kind(text, n);
    *near = NULL, *status = KAC_OK;
    if (kind != NULL) {
        *status = read_shape(out, kind, text[n] == '=' ? text + n + 1 : NULL);
        return true;
    }
    char name[16];
    if (n < 3 || n >= sizeof name || strspn(text, "abcdefghijklmnopqrstuvwxyz-") < n) return false;
    memcpy(name, text, n), name[n] = '\0';
    const char *names[KAC_COUNT_OF(kinds) + 1] = {0};
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++) names[i] = kinds[i].name;
    *near = kac_nearest(name, names);
    return false;
}

kac_status kac_shaping_apply(double *out, double *slope, const kac_shaping *s, double r) {
    *out = s->kind->value(r, s->a, s->b, slope);
    if (isfinite(*out) && isfinite(*slope)) return KAC_OK;
    return KAC_FAIL(KAC_E_NONFINITE, "%s of the reward %.6g is not a finite number%s", s->kind->name, r,
                    s->kind->value == shape_log ? "; it wants positive rewards" : "");
}

const char *kac_shaping_text(const kac_shaping *s, char buffer[64]) {
    if (s->running || s->kind->max_args == 0)
        snprintf(buffer, 64, "%s", s->kind->name);
    else if (s->kind->max_args == 1)
        snprintf(buffer, 64, "%s=%.12g", s->kind->name, s->a);
    else
        snprintf(buffer, 64, "%s=%.12g/%.12g", s->kind->name, s->a, s->b);
    return buffer;
}
