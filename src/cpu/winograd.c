/* Winograd F(4×4, 3×3) and F(2×2, 3×3): transform tiles, 36 or 16 matrix products, transform back, for a run of tiles of
 * all images at a time. */
#include "cpu/cpu.h"

/* G g Gᵀ for the points of isa/winograd.c; the rest of the normalisation of the transforms lies here, in double. */
static const double g_matrix[6][3] = {
    {1, 0, 0},
    {-1 / 1.5, -0.70710678118654752 / 1.5, -0.5 / 1.5},
    {-1 / 1.5, 0.70710678118654752 / 1.5, -0.5 / 1.5},
    {1 / 6.0, 1.41421356237309505 / 6, 2 / 6.0},
    {1 / 6.0, -1.41421356237309505 / 6, 2 / 6.0},
    {0, 0, 1},
};

static const double g_small[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

/* u [n, n] = G g Gᵀ */
static void transform_weight(double *u, const kac_tensor *src, int64_t at, const double (*gm)[3], int n) {
    double g[9], t[18];
    for (int i = 0; i < 9; i++) g[i] = kac_element_load(src->data, src->dtype, at + i);
    for (int p = 0; p < n; p++)
        for (int x = 0; x < 3; x++) t[p * 3 + x] = gm[p][0] * g[x] + gm[p][1] * g[3 + x] + gm[p][2] * g[6 + x];
    for (int p = 0; p < n; p++)
        for (int q = 0; q < n; q++)
            u[p * n + q] = gm[q][0] * t[p * 3] + gm[q][1] * t[p * 3 + 1] + gm[q][2] * t[p * 3 + 2];
}

void kac_cpu_wino_pack(kac_ctx *c, float *u, const kac_weight *w, const kac_tensor *src, int64_t panels, int size) {
    const int nr = kac_cpu_kernels_of(c)->nr, n = size + 2;
    const int64_t one = panels * w->n_in * nr;
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < w->n_in; i++)
            for (int j = 0; j < nr; j++) {
                const int64_t o = panel * nr + j;
                double t[36] = {0};
                if (o < w->n_out) transform_weight(t, src, (o * w->n_in + i) * 9, size == 2 ? g_small : g_matrix, n);
                for (int p = 0; p < n * n; p++) u[p * one + (panel * w->n_in + i) * nr + j] = (float)t[p];
            }
}

bool kac_cpu_wino_fits(const struct kac_kernels *k, const kac_conv2d_args *a) {
    const kac_weight_layout l = kac_cpu_weight_layout(k, a->w, a->w->dtype, 1);
    return l.wino_bytes > 0 && a->w->n_bytes > l.direct_bytes && a->o.stride == 1 && a->out.shape[1] >= 3 &&
           a->out.shape[2] >= 3;
}

/* The size of the tiles follows from the layer and its map alone: the row rule. */
static kac_wino_map map_of(const kac_weight_layout *l, const kac_conv2d_args *a) {
    kac_wino_map m = {.h = a->x.shape[1], .w = a->x.shape[2], .ho = a->out.shape[1], .wo = a->out.shape[2]};
    m.size = m.ho <= 4 && m.wo <= 4 && l->small_bytes ? 2 : 4;
    m.th = kac_ceil_div(m.ho, m.size), m.tw = kac_ceil_div(m.wo, m.size);
    m.pad_top = a->o.pad[0], m.pad_left = a->o.pad[1];
    m.n_in = a->w->n_in, m.n_out = a->w->n_out;
    return m;
}

/* Floats of one position's plane: an odd number of cache lines, or all 36 planes would meet in a few sets of the cache (measured: half
 * the speed of the transforms). */
static int64_t plane(int64_t tiles, int64_t channels) {
    return (kac_ceil_div(tiles * channels, 16) | 1) * 16;
}

/* Tiles of one run: enough rows that the weights are read rarely, few enough that the transforms stay in the caches. */
static int64_t tiles_at_once(const kac_ctx *c, const kac_wino_map *m, int64_t tiles) {
    const int64_t in_cache = 1500000 * (int64_t)c->n_threads / (36 * 4 * (m->n_in + m->n_out));
    return KAC_MIN(tiles, KAC_MAX(96, in_cache));
}

size_t kac_cpu_wino_scratch(const kac_ctx *c, const kac_conv2d_args *a) {
    const kac_weight_layout l = kac_cpu_weight_layout(kac_cpu_kernels_of(c), a->w, a->w->dtype, 1);
    const kac_wino_map m = map_of(&l, a);
    const int64_t positions = (m.size + 2) * (m.size + 2), tiles = tiles_at_once(c, &m, a->x.shape[0] * m.th * m.tw);
    kac_carver v = {0};
    kac_carve(&v, (size_t)m.n_in * sizeof(float));
    kac_carve(&v, (size_t)(positions * plane(tiles, m.n_in)) * sizeof(float));
    kac_carve(&v, (size_t)(positions * plane(tiles, m.n_out)) * sizeof(float));
    return v.used;
}

typedef struct wino_run {
    const struct kac_kernels *k;
    kac_wino_map map;
    kac_wino_out out;
    const void *x;
    bool x_bf16;
    const float *u;
    kac_wino_grid in, sums;
    int64_t panels, at_once;
} wino_run;

/* One run of tiles, by all threads of the surrounding parallel region. */
static void run_tiles(const wino_run *r, int64_t t0, int64_t t1) {
    const kac_wino_map *map = &r->map;
    const int64_t n = t1 - t0;
    kac_wino_grid in = r->in, sums = r->sums;
    in.first = sums.first = t0;
    const int64_t step = KAC_MAX(1, KAC_MIN(8, n / (2 * omp_get_num_threads())));
#pragma omp for schedule(dynamic)
    for (int64_t t = t0; t < t1; t += step) r->k->wino_in(map, r->x, r->x_bf16, t, KAC_MIN(t1, t + step), &in);
    const int64_t group = KAC_MAX(1, KAC_MIN(r->panels, 128 / r->k->nr)), groups = kac_ceil_div(r->panels, group);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < (map->size + 2) * (map->size + 2) * groups; i++) {
        const int64_t position = i / groups, p0 = i % groups * group, p1 = KAC_MIN(r->panels, p0 + group);
        const int last = (int)KAC_MIN(r->k->nr, map->n_out - (p1 - 1) * r->k->nr);
        const kac_panel_product product = {.a = in.data + position * in.position,
                                           .lda = map->n_in,
                                           .b = r->u + (position * r->panels + p0) * map->n_in * r->k->nr,
                                           .ldb = map->n_in * r->k->nr,
                                           .out = sums.data + position * sums.position + p0 * r->k->nr,
                                           .ldo = map->n_out,
                                           .m = n,
                                           .k = map->n_in,
                                           .n_panels = (int)(p1 - p0),
                                           .n_last = last};
        r->k->panel_product(&product);
    }
#pragma omp for schedule(dynamic)
    for (int64_t t = t0; t < t1; t += step) r->k->wino_out(map, &r->out, t, KAC_MIN(t1, t + step), &sums);
}

void kac_cpu_wino_run(kac_ctx *c, const kac_conv2d_args *a, const float *bias, const int *bias_row, void *scratch) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const kac_weight_layout l = kac_cpu_weight_layout(k, a->w, a->w->dtype, 1);
    wino_run r = {.k = k, .map = map_of(&l, a), .x = a->x.data, .x_bf16 = a->x.dtype == KAC_BF16};
    const int64_t tiles = a->x.shape[0] * r.map.th * r.map.tw, positions = (r.map.size + 2) * (r.map.size + 2);
    r.u = (const float *)((const char *)a->w->data + l.direct_bytes + (r.map.size == 2 ? l.wino_bytes : 0));
    r.panels = l.panels;
    r.at_once = tiles_at_once(c, &r.map, tiles);
    r.out = (kac_wino_out){.bias = bias,
                           .bias_row = bias_row,
                           .act = a->o.act,
                           .residual = a->o.residual.data,
                           .out = a->out.data,
                           .x_bf16 = a->out.dtype == KAC_BF16};
    kac_carver v = {.base = scratch};
    float *zeros = kac_carve(&v, (size_t)r.map.n_in * sizeof(float));
    memset(zeros, 0, (size_t)r.map.n_in * sizeof(float));
    r.map.zeros = zeros;
    r.in = (kac_wino_grid){.position = plane(r.at_once, r.map.n_in), .tile = r.map.n_in};
    r.sums = (kac_wino_grid){.position = plane(r.at_once, r.map.n_out), .tile = r.map.n_out};
    r.in.data = kac_carve(&v, (size_t)(positions * r.in.position) * sizeof(float));
    r.sums.data = kac_carve(&v, (size_t)(positions * r.sums.position) * sizeof(float));
    const int threads =
        kac_cpu_threads(c, 2.0 * (double)(positions * tiles) * (double)r.map.n_in * (double)r.map.n_out);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t t0 = 0; t0 < tiles; t0 += r.at_once) run_tiles(&r, t0, KAC_MIN(tiles, t0 + r.at_once));
}
