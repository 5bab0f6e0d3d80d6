/* Winograd F(4×4, 3×3) and, for maps of one such tile, F(2×2, 3×3); transforms vectorised over channels.
 *
 * Points 0, ±a, ±b, ∞ with a = √½, b = √2 (a²b² = 1): the rounding error is half of that of the points 0, ±1, ±2.
 *   input   d [6, 6] -> Bᵀ d B      output  m [6, 6] -> Aᵀ m A [4, 4]
 * Source: Lavin and Gray 2016; Barabasz et al. 2020 on the choice of points. */
#include "cpu/isa/act.h"
#include "cpu/isa/micro.h"
#include "cpu/isa/table.h"

#define PA 0.707106781f
#define PB 1.414213562f
#define PA3 0.353553391f
#define PB3 2.828427125f

/* `n` values of a line of the input tile: 6, or 4 for F(2×2) with the points 0, ±1, ∞. */
static KAC_INLINE void input_line(vf *o, const vf *d, const int n) {
    if (n == 4) {
        o[0] = d[0] - d[2];
        o[1] = d[1] + d[2];
        o[2] = d[2] - d[1];
        o[3] = d[3] - d[1];
        return;
    }
    const vf p = d[4] - 2.0f * d[2], q = d[3] - 2.0f * d[1];
    const vf r = d[4] - 0.5f * d[2], s = d[3] - 0.5f * d[1];
    o[0] = d[4] - 2.5f * d[2] + d[0];
    o[1] = p + PA * q;
    o[2] = p - PA * q;
    o[3] = r + PB * s;
    o[4] = r - PB * s;
    o[5] = d[5] - 2.5f * d[3] + d[1];
}

static KAC_INLINE void output_line(vf *y, const vf *m, const int n) {
    if (n == 4) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] + m[3];
        return;
    }
    const vf s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
    y[0] = m[0] + s1 + s2;
    y[1] = PA * d1 + PB * d2;
    y[2] = 0.5f * s1 + 2.0f * s2;
    y[3] = PA3 * d1 + PB3 * d2 + m[5];
}

/* One vector of channels of one tile; lanes < V at the end of a row of channels. */
static KAC_INLINE void tile_in(const char *const *src, int64_t c, int lanes, const int n, const int bf16, float *v,
                               int64_t next) {
    vf t[6][6]; /* [column][row] */
#pragma GCC unroll 6
    for (int x = 0; x < n; x++) {
        vf d[6];
#pragma GCC unroll 6
        for (int y = 0; y < n; y++)
            d[y] = lanes == V ? x_load(src[y * n + x], c, bf16) : x_load_n(src[y * n + x], c, lanes, bf16);
        input_line(t[x], d, n);
    }
#pragma GCC unroll 6
    for (int y = 0; y < n; y++) {
        vf d[6], o[6];
#pragma GCC unroll 6
        for (int x = 0; x < n; x++) d[x] = t[x][y];
        input_line(o, d, n);
#pragma GCC unroll 6
        for (int x = 0; x < n; x++) {
            float *to = v + (y * n + x) * next + c;
            if (lanes == V)
                v_store(to, o[x]);
            else
                v_store_n(to, o[x], lanes);
        }
    }
}

static KAC_INLINE void tiles_in(const kac_wino_map *w, const char *x, const int n, const int bf16, int64_t t0,
                                int64_t t1, const kac_wino_grid *grid) {
    const int64_t size = bf16 ? 2 : 4, per_image = w->th * w->tw;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t image = t / per_image, tile = t % per_image;
        const int64_t y0 = tile / w->tw * (n - 2) - w->pad_top, x0 = tile % w->tw * (n - 2) - w->pad_left;
        const char *src[36];
        for (int i = 0; i < n * n; i++) {
            const int64_t yy = y0 + i / n, xx = x0 + i % n;
            const bool inside = yy >= 0 && yy < w->h && xx >= 0 && xx < w->w;
            src[i] = inside ? x + ((image * w->h + yy) * w->w + xx) * w->n_in * size : (const char *)w->zeros;
        }
        float *v = grid->data + (t - grid->first) * grid->tile;
        int64_t c = 0;
        for (; c + V <= w->n_in; c += V) tile_in(src, c, V, n, bf16, v, grid->position);
        if (c < w->n_in) tile_in(src, c, (int)(w->n_in - c), n, bf16, v, grid->position);
    }
}

/* Tiles t0 … t1 of all images -> grid. */
void kac_isa(kac_wino_in)(const kac_wino_map *w, const void *x, bool bf16, int64_t t0, int64_t t1,
                          const kac_wino_grid *grid) {
    if (w->size == 2)
        tiles_in(w, x, 4, bf16, t0, t1, grid);
    else if (bf16)
        tiles_in(w, x, 6, 1, t0, t1, grid);
    else
        tiles_in(w, x, 6, 0, t0, t1, grid);
}

typedef struct tile_place {
    int64_t at;  /* element of out of the tile's first pixel, channel 0 */
    int64_t row; /* elements from one row of pixels to the next */
    int ny, nx;
    const float *bias;
} tile_place;

static KAC_INLINE void tile_out(const kac_wino_map *w, const kac_wino_out *o, const tile_place *place, int64_t c,
                                int lanes, const int n, const kac_act act, const int bf16, const float *m,
                                int64_t next) {
    vf t[6][4]; /* [column][row of 4] */
#pragma GCC unroll 6
    for (int x = 0; x < n; x++) {
        vf d[6];
#pragma GCC unroll 6
        for (int y = 0; y < n; y++)
            d[y] = lanes == V ? v_load(m + (y * n + x) * next + c) : v_load_n(m + (y * n + x) * next + c, lanes);
        output_line(t[x], d, n);
    }
    vf bias = {0};
    if (place->bias) bias = lanes == V ? v_load(place->bias + c) : v_load_n(place->bias + c, lanes);
#pragma GCC unroll 4
    for (int y = 0; y < n - 2; y++) {
        vf d[6], r[4];
        if (y >= place->ny) break;
#pragma GCC unroll 6
        for (int x = 0; x < n; x++) d[x] = t[x][y];
        output_line(r, d, n);
#pragma GCC unroll 4
        for (int x = 0; x < n - 2; x++) {
            const int64_t at = place->at + y * place->row + x * w->n_out + c;
            if (x >= place->nx) break;
            vf z = v_act(r[x] + bias, act);
            if (lanes == V) {
                if (o->residual) z += x_load(o->residual, at, bf16);
                x_store(o->out, at, z, bf16);
            } else {
                if (o->residual) z += x_load_n(o->residual, at, lanes, bf16);
                x_store_n(o->out, at, z, lanes, bf16);
            }
        }
    }
}

static KAC_INLINE void tiles_out(const kac_wino_map *w, const kac_wino_out *o, const int n, const kac_act act,
                                 const int bf16, int64_t t0, int64_t t1, const kac_wino_grid *grid) {
    const int64_t per_image = w->th * w->tw;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t image = t / per_image, tile = t % per_image, y = tile / w->tw * (n - 2),
                      x = tile % w->tw * (n - 2);
        const tile_place place = {.at = ((image * w->ho + y) * w->wo + x) * w->n_out,
                                  .row = w->wo * w->n_out,
                                  .ny = (int)KAC_MIN(n - 2, w->ho - y),
                                  .nx = (int)KAC_MIN(n - 2, w->wo - x),
                                  .bias = o->bias ? o->bias + (o->bias_row ? o->bias_row[image] : 0) * w->n_out : NULL};
        const float *m = grid->data + (t - grid->first) * grid->tile;
        int64_t c = 0;
        for (; c + V <= w->n_out; c += V) tile_out(w, o, &place, c, V, n, act, bf16, m, grid->position);
        if (c < w->n_out) tile_out(w, o, &place, c, (int)(w->n_out - c), n, act, bf16, m, grid->position);
    }
}

/* grid -> pixels of out, with bias, activation and residual. */
void kac_isa(kac_wino_out_run)(const kac_wino_map *w, const kac_wino_out *o, int64_t t0, int64_t t1,
                               const kac_wino_grid *grid) {
    if (w->size == 2)
        tiles_out(w, o, 4, o->act, o->x_bf16, t0, t1, grid);
    else if (o->x_bf16)
        tiles_out(w, o, 6, o->act, 1, t0, t1, grid);
    else if (o->act == KAC_ACT_NONE)
        tiles_out(w, o, 6, KAC_ACT_NONE, 0, t0, t1, grid);
    else
        tiles_out(w, o, 6, o->act, 0, t0, t1, grid);
}

/* One column of G: three taps to six points, the rest of the normalisation included. */
static KAC_INLINE void filter_line(vf *o, const vf a, const vf b, const vf c) {
    const vf s = (a + 0.5f * c) * (-1 / 1.5f), d = b * (PA / 1.5f);
    const vf p = (a + 2.0f * c) * (1 / 6.0f), q = b * (PB / 6.0f);
    o[0] = a;
    o[1] = s - d;
    o[2] = s + d;
    o[3] = p + q;
    o[4] = p - q;
    o[5] = c;
}

/* nr filters side by side: what the weights of a convolution need when they are turned round for its gradient. */
void kac_isa(kac_wino_filters_run)(float *u, int64_t plane, const float *g, int64_t tap) {
    for (int j = 0; j < NR; j += V) {
        vf t[3][6], o[6];
        for (int x = 0; x < 3; x++)
            filter_line(t[x], v_load(g + x * tap + j), v_load(g + (3 + x) * tap + j), v_load(g + (6 + x) * tap + j));
        for (int p = 0; p < 6; p++) {
            filter_line(o, t[0][p], t[1][p], t[2][p]);
            for (int q = 0; q < 6; q++) v_store(u + (p * 6 + q) * plane + j, o[q]);
        }
    }
}
