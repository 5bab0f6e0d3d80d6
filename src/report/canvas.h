/* What a plot is drawn on: an SVG text, or a picture. Lengths in points of the drawing, y downwards; colours 0xRRGGBB. */
#ifndef KAC_REPORT_CANVAS_H
#define KAC_REPORT_CANVAS_H

#include "base/base.h"

typedef struct kac_canvas kac_canvas;
struct kac_canvas {
    void (*line)(kac_canvas *c, const double *x, const double *y, int n, double width, uint32_t color, bool dashed);
    /* The area between two lines over the same x, which rises. */
    void (*band)(kac_canvas *c, const double *x, const double *top, const double *bottom, int n, uint32_t color,
                 double opacity);
    void (*dot)(kac_canvas *c, double x, double y, double radius, uint32_t color);
    /* `anchor`: −1 begins at x, 0 is centred there, 1 ends there; y: the base line. */
    void (*text)(kac_canvas *c, double x, double y, double size, int anchor, uint32_t color, const char *s);
};

typedef struct kac_canvas_svg {
    kac_canvas base;
    kac_text *t;
} kac_canvas_svg;

/* Begins an SVG document on white; _end closes it. */
void kac_canvas_svg_begin(kac_canvas_svg *c, kac_text *t, double width, double height);
void kac_canvas_svg_end(kac_canvas_svg *c);

typedef struct kac_canvas_picture {
    kac_canvas base;
    float *rgb, *mask; /* [height, width, 3] and [height, width] */
    int width, height; /* pixels */
    double scale;      /* of a point */
} kac_canvas_picture;

/* White; scale: pixels of a point. KAC_E_MEMORY. */
kac_status kac_canvas_picture_init(kac_canvas_picture *c, double width, double height, double scale);
kac_status kac_canvas_picture_save(const kac_canvas_picture *c, const char *path);
void kac_canvas_picture_free(kac_canvas_picture *c);

#endif
