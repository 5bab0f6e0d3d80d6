#include "canvas.h"
#include "io/image.h"
#include "stroke_font.h"
#include <math.h>
#include <string.h>

/* A part of the picture that a shape covers. */
typedef struct box {
    int x0, y0, x1, y1;
} box;

static double clamp01(double v) {
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* What is drawn goes into the mask first, as the largest share of a pixel that any part covers, so that a line that crosses itself or
 * turns is of one darkness; then its colour is laid on once. */
static void lay_on(kac_canvas_picture *c, box b, uint32_t color, double opacity) {
    const float rgb[3] = {(float)(color >> 16 & 255) / 255, (float)(color >> 8 & 255) / 255,
                          (float)(color & 255) / 255};
    for (int y = b.y0; y < b.y1; y++)
        for (int x = b.x0; x < b.x1; x++) {
            const size_t i = (size_t)y * (size_t)c->width + (size_t)x;
            const float a = c->mask[i] * (float)opacity;
            c->mask[i] = 0;
            for (int k = 0; k < 3 && a > 0; k++) c->rgb[3 * i + (size_t)k] += a * (rgb[k] - c->rgb[3 * i + (size_t)k]);
        }
}

static box box_of(const kac_canvas_picture *c, double x0, double y0, double x1, double y1, double around) {
    return (box){(int)KAC_MIN(KAC_MAX(floor(x0 - around), 0), c->width),
                 (int)KAC_MIN(KAC_MAX(floor(y0 - around), 0), c->height),
                 (int)KAC_MIN(KAC_MAX(ceil(x1 + around) + 1, 0), c->width),
                 (int)KAC_MIN(KAC_MAX(ceil(y1 + around) + 1, 0), c->height)};
}

static box both(box a, box b) {
    if (a.x0 >= a.x1 || a.y0 >= a.y1) return b;
    return (box){KAC_MIN(a.x0, b.x0), KAC_MIN(a.y0, b.y0), KAC_MAX(a.x1, b.x1), KAC_MAX(a.y1, b.y1)};
}

/* Pixels near a piece of line with round ends; in pixels. */
static box cover_piece(kac_canvas_picture *c, double x0, double y0, double x1, double y1, double half) {
    const box b = box_of(c, KAC_MIN(x0, x1), KAC_MIN(y0, y1), KAC_MAX(x0, x1), KAC_MAX(y0, y1), half + 1);
    const double dx = x1 - x0, dy = y1 - y0, length2 = dx * dx + dy * dy;
    for (int y = b.y0; y < b.y1; y++)
        for (int x = b.x0; x < b.x1; x++) {
            const double px = x + 0.5 - x0, py = y + 0.5 - y0;
            const double t = length2 > 0 ? clamp01((px * dx + py * dy) / length2) : 0;
            const double far = hypot(px - t * dx, py - t * dy);
            float *m = &c->mask[(size_t)y * (size_t)c->width + (size_t)x];
            *m = fmaxf(*m, (float)clamp01(half + 0.5 - far));
        }
    return b;
}

/* Dashes of 6 and gaps of 4 points along the line. */
static box cover_dashes(kac_canvas_picture *c, const double *x, const double *y, int n, double half) {
    const double on = 6 * c->scale, period = 10 * c->scale;
    double at = 0; /* along the line */
    box all = {0};
    for (int i = 0; i + 1 < n; i++) {
        const double dx = x[i + 1] - x[i], dy = y[i + 1] - y[i], length = hypot(dx, dy);
        double from = 0;
        while (from < length) {
            const double phase = fmod(at + from, period);
            const double to = KAC_MIN(length, from + KAC_MAX((phase < on ? on : period) - phase, 1e-3));
            if (phase < on)
                all = both(all, cover_piece(c, x[i] + dx * from / length, y[i] + dy * from / length,
                                            x[i] + dx * to / length, y[i] + dy * to / length, half));
            from = to;
        }
        at += length;
    }
    return all;
}

enum { MAX_POINTS = 1024 };

static void line(kac_canvas *canvas, const double *x, const double *y, int n, double width, uint32_t color,
                 bool dashed) {
    kac_canvas_picture *c = (kac_canvas_picture *)canvas;
    double px[MAX_POINTS], py[MAX_POINTS];
    const double half = width * c->scale / 2;
    n = KAC_MIN(n, MAX_POINTS);
    for (int i = 0; i < n; i++) px[i] = x[i] * c->scale, py[i] = y[i] * c->scale;
    box all = {0};
    if (dashed)
        all = cover_dashes(c, px, py, n, half);
    else
        for (int i = 0; i + 1 < n; i++) all = both(all, cover_piece(c, px[i], py[i], px[i + 1], py[i + 1], half));
    lay_on(c, all, color, 1);
}

/* y of the line through the points at one x. */
static double height_at(const double *x, const double *y, int n, double at) {
    int i = 0;
    while (i + 2 < n && x[i + 1] < at) i++;
    const double f = x[i + 1] > x[i] ? clamp01((at - x[i]) / (x[i + 1] - x[i])) : 0;
    return y[i] + f * (y[i + 1] - y[i]);
}

static void band(kac_canvas *canvas, const double *x, const double *top, const double *bottom, int n, uint32_t color,
                 double opacity) {
    enum { PARTS = 4 };
    kac_canvas_picture *c = (kac_canvas_picture *)canvas;
    if (n < 2) return;
    const box b = box_of(c, x[0] * c->scale, 0, x[n - 1] * c->scale, c->height, 0);
    for (int px = b.x0; px < b.x1; px++)
        for (int part = 0; part < PARTS; part++) {
            const double at = (px + (part + 0.5) / PARTS) / c->scale;
            if (at < x[0] || at > x[n - 1]) continue;
            const double y0 = height_at(x, top, n, at) * c->scale, y1 = height_at(x, bottom, n, at) * c->scale;
            for (int py = (int)KAC_MAX(floor(y0), b.y0); py < KAC_MIN(y1, b.y1); py++) {
                const double share = KAC_MIN(y1, py + 1) - KAC_MAX(y0, py);
                c->mask[(size_t)py * (size_t)c->width + (size_t)px] += (float)(clamp01(share) / PARTS);
            }
        }
    lay_on(c, b, color, opacity);
}

static void dot(kac_canvas *canvas, double x, double y, double radius, uint32_t color) {
    kac_canvas_picture *c = (kac_canvas_picture *)canvas;
    const double s = c->scale;
    lay_on(c, cover_piece(c, x * s, y * s, x * s, y * s, radius * s), color, 1);
}

typedef struct pen {
    kac_canvas_picture *c;
    double half;
    box all;
} pen;

static void stroke(void *self, const double *x, const double *y, int n) {
    pen *p = self;
    if (n == 1) p->all = both(p->all, cover_piece(p->c, x[0], y[0], x[0], y[0], p->half * 1.35));
    for (int i = 0; i + 1 < n; i++) p->all = both(p->all, cover_piece(p->c, x[i], y[i], x[i + 1], y[i + 1], p->half));
}

static void text(kac_canvas *canvas, double x, double y, double size, int anchor, uint32_t color, const char *s) {
    kac_canvas_picture *c = (kac_canvas_picture *)canvas;
    const double width = kac_stroke_width(s, size);
    pen p = {.c = c, .half = KAC_MAX(size * 0.042 * c->scale, 0.5)};
    x -= anchor < 0 ? 0 : anchor == 0 ? width / 2 : width;
    kac_stroke_text(s, x * c->scale, y * c->scale, size * c->scale, stroke, &p);
    lay_on(c, p.all, color, 1);
}

kac_status kac_canvas_picture_init(kac_canvas_picture *c, double width, double height, double scale) {
    *c = (kac_canvas_picture){.base = {line, band, dot, text},
                              .width = (int)ceil(width * scale),
                              .height = (int)ceil(height * scale),
                              .scale = scale};
    const size_t n = (size_t)c->width * (size_t)c->height;
    c->rgb = kac_alloc(3 * n * sizeof *c->rgb);
    c->mask = kac_alloc(n * sizeof *c->mask);
    if (c->rgb == NULL || c->mask == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < 3 * n; i++) c->rgb[i] = 1;
    return KAC_OK;
}

kac_status kac_canvas_picture_save(const kac_canvas_picture *c, const char *path) {
    const size_t n = 3 * (size_t)c->width * (size_t)c->height;
    uint8_t *bytes = kac_alloc(n);
    if (bytes == NULL) return KAC_E_MEMORY;
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(clamp01(c->rgb[i]) * 255 + 0.5);
    const kac_status s = kac_png_save(path, bytes, c->width, c->height, NULL, 0);
    kac_free(bytes);
    return s;
}

void kac_canvas_picture_free(kac_canvas_picture *c) {
    kac_free(c->rgb), kac_free(c->mask);
    *c = (kac_canvas_picture){0};
}
