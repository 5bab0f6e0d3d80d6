#include "stroke_font.h"
#include "base/base.h"
#include <string.h>

/* A glyph is a list of strokes, apart by spaces. A stroke is a list of points: a digit is x, a letter y, 'd' the base line, 'k' the height
 * of an x, 'n' that of capitals, 'a' the depth of a p. '~' before it: the points bend a curve between the first and the last; '@': a closed
 * one (quadratic splines through the middles between points). */
typedef struct glyph {
    uint32_t code;
    const char *strokes;
} glyph;

static const glyph glyphs[] = {
    {'0', "@0d0n6n6d"},
    {'1', "1l3n3d"},
    {'2', "~0l0n6n6i0d 0d6d"},
    {'3', "~0m0n6n6i2i ~2i7i6d0d0f"},
    {'4', "5d5n0g7g"},
    {'5', "6n1n0i ~0i3k7j6d1d0e"},
    {'6', "@0d0j6j6d ~5n0n0g"},
    {'7', "0n6n2d"},
    {'8', "@1i1n5n5i @0d0i6i6d"},
    {'9', "@0h0n6n6h ~6k6d1d"},
    {'.', "1d"},
    {',', "1d0b"},
    {'-', "0h4h"},
    {'+', "0h6h 3e3k"},
    {':', "1d 1j"},
    {';', "1d0b 1j"},
    {'/', "0c5n"},
    {'\\', "0n5c"},
    {'|', "1b1o"},
    {'=', "0g6g 0j6j"},
    {'_', "0b6b"},
    {'(', "~2o0k0f2b"},
    {')', "~0o2k2f0b"},
    {'[', "2o0o0b2b"},
    {']', "0o2o2b0b"},
    {'{', "~3o1o2h0h ~0h2h1b3b"},
    {'}', "~0o2o1h3h ~3h1h2b0b"},
    {'%', "@0j0n3n3j @5d5h8h8d 7n1d"},
    {'*', "2n2i 0m4j 0j4m"},
    {'#', "1d2n 4d5n 0g6g 0j6j"},
    {'"', "0n0k 2n2k"},
    {'\'', "0n0k"},
    {'`', "0n1l"},
    {'!', "0n0g 0d"},
    {'?', "~0l0n5n5j2j2g 2d"},
    {'&', "~7d1l2n5n5l0h0d4d6h"},
    {'@', "@0c0m8m8c @3f3j6j6f"},
    {'$', "~6l6n0n0i6i6d0d0f 3b3o"},
    {'<', "5k0h5e"},
    {'>', "0k5h0e"},
    {'^', "0k2n4k"},
    {'~', "~0g1j3g5g6i"},
    {'A', "0d3n6d 1g5g"},
    {'B', "0d0n ~0n6n6i0i ~0i7i7d0d"},
    {'C', "~6l6n0n0d6d6f"},
    {'D', "0d0n ~0n7n7d0d"},
    {'E', "5n0n0d5d 0i4i"},
    {'F', "5n0n0d 0i4i"},
    {'G', "~6l6n0n0d6d6h 6h3h"},
    {'H', "0d0n 6d6n 0i6i"},
    {'I', "0d0n"},
    {'J', "4n4g ~4g4d0d0f"},
    {'K', "0d0n 6n0g 2i6d"},
    {'L', "0n0d5d"},
    {'M', "0d0n4f8n8d"},
    {'N', "0d0n6d6n"},
    {'O', "@0d0n7n7d"},
    {'P', "0d0n ~0n7n7h0h"},
    {'Q', "@0d0n7n7d 4g7c"},
    {'R', "0d0n ~0n7n7h0h 3h6d"},
    {'S', "~6l6n0n0i6i6d0d0f"},
    {'T', "0n6n 3n3d"},
    {'U', "0n0h ~0h0d6d6h 6h6n"},
    {'V', "0n3d6n"},
    {'W', "0n2d4k6d8n"},
    {'X', "0n6d 0d6n"},
    {'Y', "0n3i6n 3i3d"},
    {'Z', "0n6n0d6d"},
    {'a', "@0d0k5k5d 5k5d"},
    {'b', "0n0d @0d0k5k5d"},
    {'c', "~5j5k0k0d5d5e"},
    {'d', "5n5d @0d0k5k5d"},
    {'e', "0h5h ~5h5k0k0d5d5e"},
    {'f', "~4n1n1k 1k1d 0k3k"},
    {'g', "@0d0k5k5d 5k5d ~5d5a0a0b"},
    {'h', "0n0d ~0h0k5k5g 5g5d"},
    {'i', "0k0d 0n"},
    {'j', "1k1d ~1d1a0a 1n"},
    {'k', "0n0d 4k0g 1h4d"},
    {'l', "0n0d"},
    {'m', "0k0d ~0h0k4k4g 4g4d ~4h4k8k8g 8g8d"},
    {'n', "0k0d ~0h0k5k5g 5g5d"},
    {'o', "@0d0k5k5d"},
    {'p', "0k0a @0d0k5k5d"},
    {'q', "5k5a @0d0k5k5d"},
    {'r', "0k0d ~0g0k3k"},
    {'s', "~4j4k0k0h4h4d0d0e"},
    {'t', "1n1f ~1f1d3d 0k3k"},
    {'u', "0k0g ~0g0d5d5g 5k5d"},
    {'v', "0k2d4k"},
    {'w', "0k2d4k6d8k"},
    {'x', "0k4d 0d4k"},
    {'y', "0k2d 4k1a0a"},
    {'z', "0k4k0d4d"},
    {0x00d7, "0e5j 0j5e"},          /* × */
    {0x00b7, "1h"},                 /* · */
    {0x00b1, "0i6i 3f3l 0d6d"},     /* ± */
    {0x2013, "0h5h"},               /* – */
    {0x2026, "0d 3d 6d"},           /* … */
    {0x2192, "0h7h 5j7h5f"},        /* → */
    {0x03bb, "0n6d 3i0d"},          /* λ */
    {0x03b7, "0k0d ~0h0k5k5g 5g5a"} /* η */
};

static const char missing[] = "0d0n5n5d0d";
static const double unit = 0.0715, gap = 2.3, space = 3.4; /* in ems; in units */

/* The next character; a byte that is none counts as one. */
static uint32_t next_code(const char **s) {
    const unsigned char *p = (const unsigned char *)*s;
    const int more = p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    uint32_t code = more == 0 ? p[0] : p[0] & (0x3fu >> more);
    int n = 1;
    while (n <= more && (p[n] & 0xc0) == 0x80) code = code << 6 | (p[n++] & 0x3fu);
    *s += n;
    return code;
}

static const char *strokes_of(uint32_t code) {
    for (int i = 0; i < KAC_COUNT_OF(glyphs); i++)
        if (glyphs[i].code == code) return glyphs[i].strokes;
    return missing;
}

static double advance(const char *strokes) {
    int most = 0;
    for (const char *p = strokes; *p != '\0'; p++)
        if (*p >= '0' && *p <= '9') most = KAC_MAX(most, *p - '0');
    return most + gap;
}

double kac_stroke_width(const char *s, double size) {
    double w = 0;
    while (*s != '\0') {
        const uint32_t code = next_code(&s);
        w += code == ' ' ? space : advance(strokes_of(code));
    }
    return (w > 0 ? w - gap : 0) * unit * size;
}

enum { MAX_POINTS = 16, PER_BEND = 8, MAX_CURVE = MAX_POINTS * PER_BEND + 2 };

/* A spline's points: from a to c, bent by b. */
static int bend(double *x, double *y, int n, const double a[2], const double b[2], const double c[2]) {
    for (int i = 1; i <= PER_BEND; i++, n++) {
        const double t = (double)i / PER_BEND, u = 1 - t;
        x[n] = u * u * a[0] + 2 * u * t * b[0] + t * t * c[0];
        y[n] = u * u * a[1] + 2 * u * t * b[1] + t * t * c[1];
    }
    return n;
}

static void middle(double out[2], const double a[2], const double b[2]) {
    out[0] = (a[0] + b[0]) / 2, out[1] = (a[1] + b[1]) / 2;
}

static int curve(double *x, double *y, double (*p)[2], int n, bool closed) {
    double from[2], to[2];
    int m = 1;
    if (closed)
        middle(from, p[n - 1], p[0]);
    else
        memcpy(from, p[0], sizeof from);
    x[0] = from[0], y[0] = from[1];
    for (int i = closed ? 0 : 1; i < (closed ? n : n - 1); i++) {
        if (!closed && i == n - 2)
            memcpy(to, p[n - 1], sizeof to);
        else
            middle(to, p[i], p[(i + 1) % n]);
        m = bend(x, y, m, from, p[i], to);
        memcpy(from, to, sizeof from);
    }
    return m;
}

void kac_stroke_text(const char *s, double x, double y, double size,
                     void (*stroke)(void *self, const double *x, const double *y, int n), void *self) {
    const double u = unit * size;
    while (*s != '\0') {
        const uint32_t code = next_code(&s);
        if (code == ' ') {
            x += space * u;
            continue;
        }
        const char *strokes = strokes_of(code);
        for (const char *p = strokes; *p != '\0';) {
            const char kind = *p == '~' || *p == '@' ? *p++ : ' ';
            double points[MAX_POINTS][2], xs[MAX_CURVE], ys[MAX_CURVE];
            int n = 0;
            for (; *p != '\0' && *p != ' ' && n < MAX_POINTS; p += 2, n++) {
                points[n][0] = x + (p[0] - '0') * u;
                points[n][1] = y - (p[1] - 'd') * u;
            }
            while (*p == ' ') p++;
            if (kind != ' ') {
                n = curve(xs, ys, points, n, kind == '@');
            } else {
                for (int i = 0; i < n; i++) xs[i] = points[i][0], ys[i] = points[i][1];
            }
            stroke(self, xs, ys, n);
        }
        x += advance(strokes) * u;
    }
}
