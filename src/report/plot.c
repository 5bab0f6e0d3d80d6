#include "plot.h"
#include "canvas.h"
#include "stroke_font.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PLOT_W = 430, PLOT_H = 300, LEFT = 56, TOP = 34, BOTTOM = 46, MAX_LEGEND = 220, MAX_POINTS = 1024 };
static const uint32_t ink = 0x1d1c1a, soft = 0x5d5a54, rule = 0xe4e0d8;
static const double png_scale = 3;

/* The colours of the pages, on white. */
static const uint32_t colors[KAC_CHART_COLORS] = {0x2f6f5e, 0xb5532a, 0x3b62b0, 0x9a3c78, 0x7a7313, 0x2487a3,
                                                  0xb03a48, 0x5f7d2c, 0x7653b8, 0x9b6a1e, 0x3f7f46, 0x67627a};

typedef struct layout {
    const kac_chart *c;
    kac_axis x, y;
    double width, height;
} layout;

static double x_of(const layout *l, double v) {
    return LEFT + PLOT_W * kac_axis_part(l->x, v);
}

static double y_of(const layout *l, double v) {
    return TOP + PLOT_H * (1 - kac_axis_part(l->y, v));
}

static uint32_t color_of(const kac_chart_line *l) {
    return l->color >= 0 ? colors[l->color % KAC_CHART_COLORS] : l->color == -2 ? soft : ink;
}

static void draw_axes(kac_canvas *v, const layout *l) {
    double ticks[KAC_AXIS_MAX_TICKS];
    char number[24];
    const double right = LEFT + PLOT_W, bottom = TOP + PLOT_H;
    int n = kac_axis_ticks(ticks, l->y);
    for (int i = 0; i < n; i++) {
        const double y = y_of(l, ticks[i]);
        kac_axis_number(number, ticks[i]);
        v->line(v, (double[]){LEFT, right}, (double[]){y, y}, 2, 0.8, rule, false);
        v->text(v, LEFT - 7, y + 4, 12, 1, soft, number);
    }
    n = kac_axis_ticks(ticks, l->x);
    for (int i = 0; i < n; i++) {
        const double x = x_of(l, ticks[i]);
        if (ticks[i] > l->x.hi * (1 + 1e-9)) continue;
        kac_axis_number(number, ticks[i]);
        v->line(v, (double[]){x, x}, (double[]){bottom, bottom + 4}, 2, 0.8, soft, false);
        v->text(v, x, bottom + 18, 12, 0, soft, number);
    }
    v->line(v, (double[]){LEFT, right}, (double[]){bottom, bottom}, 2, 1, soft, false);
    v->text(v, LEFT + PLOT_W / 2.0, bottom + 38, 13, 0, ink, l->c->x_label);
    v->text(v, LEFT, TOP - 14, 13, -1, ink, l->c->title);
}

static void draw_band(kac_canvas *v, const layout *l, const kac_chart_line *line) {
    double x[MAX_POINTS], top[MAX_POINTS], bottom[MAX_POINTS];
    int n = 0;
    for (int i = 0; i <= line->n; i++) {
        const bool here = i < line->n && n < MAX_POINTS && kac_chart_point(l->c, line, i) && isfinite(line->lo[i]) &&
                          isfinite(line->hi[i]);
        if (!here) {
            if (n >= 2) v->band(v, x, top, bottom, n, color_of(line), 0.14);
            n = 0;
            continue;
        }
        x[n] = x_of(l, line->x[i]), top[n] = y_of(l, line->hi[i]), bottom[n] = y_of(l, line->lo[i]);
        n++;
    }
}

static void draw_line(kac_canvas *v, const layout *l, const kac_chart_line *line) {
    double x[MAX_POINTS], y[MAX_POINTS];
    int n = 0;
    for (int i = 0; i <= line->n; i++) {
        const bool here = i < line->n && n < MAX_POINTS && kac_chart_point(l->c, line, i);
        if (!here) {
            if (n >= 2) v->line(v, x, y, n, 1.8, color_of(line), line->dashed);
            n = 0;
            continue;
        }
        x[n] = x_of(l, line->x[i]), y[n] = y_of(l, line->y[i]);
        v->dot(v, x[n], y[n], 2.4, color_of(line));
        n++;
    }
}

/* As much of a name as the legend has room for; cut between characters. */
static void short_name(char out[128], const char *name) {
    snprintf(out, 120, "%s", name == NULL ? "" : name);
    size_t n = strlen(out);
    while (n > 0 && kac_stroke_width(out, 12) > MAX_LEGEND - 40) {
        do n--;
        while (n > 0 && ((unsigned char)out[n] & 0xc0) == 0x80);
        memcpy(out + n, "\u2026", strlen("\u2026") + 1);
    }
}

static double legend_step(const kac_chart *c) {
    return KAC_MIN(19.0, (double)PLOT_H / KAC_MAX(c->n_lines, 1));
}

static void draw_legend(kac_canvas *v, const layout *l) {
    const double x = LEFT + PLOT_W + 16, step = legend_step(l->c);
    char name[128];
    for (int i = 0; i < l->c->n_lines; i++) {
        const kac_chart_line *line = &l->c->lines[i];
        const double y = TOP + 8 + step * i;
        short_name(name, line->title);
        v->line(v, (double[]){x, x + 18}, (double[]){y, y}, 2, 1.8, color_of(line), line->dashed);
        v->dot(v, x + 9, y, 2.4, color_of(line));
        v->text(v, x + 25, y + 4, KAC_MIN(12, step * 0.9), -1, ink, name);
    }
}

static void draw(kac_canvas *v, const layout *l) {
    draw_axes(v, l);
    for (int i = 0; i < l->c->n_lines; i++)
        if (l->c->lines[i].lo != NULL) draw_band(v, l, &l->c->lines[i]);
    for (int i = 0; i < l->c->n_lines; i++) draw_line(v, l, &l->c->lines[i]);
    draw_legend(v, l);
}

static double width_of(const kac_chart *c) {
    double most = 0;
    char name[128];
    for (int i = 0; i < c->n_lines; i++) {
        short_name(name, c->lines[i].title);
        most = KAC_MAX(most, kac_stroke_width(name, 12));
    }
    return ceil(LEFT + PLOT_W + 16 + 25 + most * 1.08 + 12); /* real fonts are a little wider */
}

static kac_status write_svg(const char *path, const layout *l) {
    kac_text t = {0};
    kac_canvas_svg svg;
    kac_canvas_svg_begin(&svg, &t, l->width, l->height);
    draw(&svg.base, l);
    kac_canvas_svg_end(&svg);
    char *file = kac_format("%s.svg", path);
    const kac_status s = file == NULL || t.failed ? KAC_E_MEMORY : kac_file_write(file, t.s, t.n);
    kac_free(file), kac_text_free(&t);
    return s;
}

static kac_status write_png(const char *path, const layout *l) {
    kac_canvas_picture picture;
    kac_status s = kac_canvas_picture_init(&picture, l->width, l->height, png_scale);
    char *file = kac_format("%s.png", path);
    if (file == NULL) s = KAC_E_MEMORY;
    if (s == KAC_OK) {
        draw(&picture.base, l);
        s = kac_canvas_picture_save(&picture, file);
    }
    kac_canvas_picture_free(&picture);
    kac_free(file);
    return s;
}

kac_status kac_plot_write(const char *path, const kac_chart *c, bool *drawn) {
    layout l = {.c = c, .width = width_of(c), .height = TOP + PLOT_H + BOTTOM};
    *drawn = kac_chart_axes(&l.x, &l.y, c);
    if (!*drawn) return KAC_OK;
    KAC_TRY(write_svg(path, &l));
    return write_png(path, &l);
}
