/* Letters as lines, for plots: drawn at any size, nothing to install. Printable ASCII and a few signs; others show as a box. */
#ifndef KAC_REPORT_STROKE_FONT_H
#define KAC_REPORT_STROKE_FONT_H

/* Width of a UTF-8 text at a size (that of an em). */
double kac_stroke_width(const char *s, double size);

/* Calls `stroke` for each line of the text, which begins at x on base line y (downwards); a dot is a line of one point. */
void kac_stroke_text(const char *s, double x, double y, double size,
                     void (*stroke)(void *self, const double *x, const double *y, int n), void *self);

#endif
