#include "canvas.h"
#include "html.h"

static kac_text *text_of(kac_canvas *c) {
    return ((kac_canvas_svg *)c)->t;
}

static void line(kac_canvas *c, const double *x, const double *y, int n, double width, uint32_t color, bool dashed) {
    kac_text *t = text_of(c);
    kac_text_add(t,
                 "<polyline fill=\"none\" stroke=\"#%06x\" stroke-width=\"%.2g\" stroke-linejoin=\"round\"%s points=\"",
                 color, width, dashed ? " stroke-dasharray=\"6 4\"" : "");
    for (int i = 0; i < n; i++) kac_text_add(t, "%s%.2f,%.2f", i == 0 ? "" : " ", x[i], y[i]);
    kac_text_add(t, "\"/>\n");
}

static void band(kac_canvas *c, const double *x, const double *top, const double *bottom, int n, uint32_t color,
                 double opacity) {
    kac_text *t = text_of(c);
    kac_text_add(t, "<polygon fill=\"#%06x\" fill-opacity=\"%.2g\" points=\"", color, opacity);
    for (int i = 0; i < n; i++) kac_text_add(t, "%s%.2f,%.2f", i == 0 ? "" : " ", x[i], top[i]);
    for (int i = n - 1; i >= 0; i--) kac_text_add(t, " %.2f,%.2f", x[i], bottom[i]);
    kac_text_add(t, "\"/>\n");
}

static void dot(kac_canvas *c, double x, double y, double radius, uint32_t color) {
    kac_text_add(text_of(c), "<circle fill=\"#%06x\" cx=\"%.2f\" cy=\"%.2f\" r=\"%.2g\"/>\n", color, x, y, radius);
}

static void text(kac_canvas *c, double x, double y, double size, int anchor, uint32_t color, const char *s) {
    kac_text *t = text_of(c);
    kac_text_add(t, "<text fill=\"#%06x\" x=\"%.2f\" y=\"%.2f\" font-size=\"%.3g\" text-anchor=\"%s\">", color, x, y,
                 size,
                 anchor < 0    ? "start"
                 : anchor == 0 ? "middle"
                               : "end");
    kac_html_escape(t, s);
    kac_text_add(t, "</text>\n");
}

void kac_canvas_svg_begin(kac_canvas_svg *c, kac_text *t, double width, double height) {
    *c = (kac_canvas_svg){.base = {line, band, dot, text}, .t = t};
    kac_text_add(t,
                 "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\" "
                 "font-family=\"Helvetica,Arial,'Liberation Sans','DejaVu Sans',sans-serif\">\n<rect width=\"100%%\" "
                 "height=\"100%%\" fill=\"#ffffff\"/>\n",
                 width, height, width, height);
}

void kac_canvas_svg_end(kac_canvas_svg *c) {
    kac_text_add(c->t, "</svg>\n");
}
