/* Winograd F(4×4, 3×3): transform tiles, 36 matrix products, transform back, for a run of tiles of all images at a time. */
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

static void transform_weight(double u[36], const kac_tensor *src, int64_t at) {
    double g[9], t[18];
    for (int i = 0; i < 9; i++) g[i] = kac_element_load(src->data, src->dtype, at + i);
    for (int p = 0; p < 6; p++)
        for (int x = 0; x < 3; x++)
            t[p * 3 + x] = g_matrix[p][0] * g[x] + g_matrix[p][1] * g[3 + x] + g_matrix[p][2] * g[6 + x];
    for (int p = 0; p < 6; p++)
        for (int q = 0; q < 6; q++)
            u[p * 6 + q] = g_matrix[q][0] * t[p * 3] + g_matrix[q][1] * t[p * 3 + 1] + g_matrix[q][2] * t[p * 3 + 2];
}

void kac_cpu_wino_pack(kac_ctx *c, float *u, const kac_weight *w, const kac_tensor *src, int64_t panels) {
    const int nr = kac_cpu_kernels_of(c)->nr;
    const int64_t plane = panels * w->n_in * nr;
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic)
    for (int64_t panel = 0; panel < panels; panel++)
        for (int64_t i = 0; i < w->n_in; i++)
            for (int j = 0; j < nr; j++) {
                const int64_t o = panel * nr + j;
                double t[36] = {0};
                if (o < w->n_out) transform_weight(t, src, (o * w->n_in + i) * 9);
                for (int p = 0; p < 36; p++) u[p * plane + (panel * w->n_in + i) * nr + j] = (float)t[p];
            }
}

bool kac_cpu_wino_fits(const struct kac_kernels *k, const kac_conv2d_args *a) {
    const kac_weight_layout l = kac_cpu_weight_layout(k, a->w, a->w->dtype, 1);
    return l.wino_bytes > 0 && a->w->n_bytes > l.direct_bytes && a->o.stride == 1 && a->out.shape[1] >= 3 &&
           a->out.shape[2] >= 3;
}

static kac_wino_map map_of(const kac_conv2d_args *a) {
    kac_wino_map m = {.h = a->x.shape[1], .w = a->x.shape[2], .ho = a->out.shape[1], .wo = a->out.shape[2]};
    m.th = (m.ho + 3) / 4, m.tw = (m.wo + 3) / 4;
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
    const kac_wino_map m = map_of(a);
    const int64_t tiles = tiles_at_once(c, &m, a->x.shape[0] * m.th * m.tw);
    kac_carver v = {0};
    kac_carve(&v, (size_t)m.n_in * sizeof(float));
    kac_carve(&v, (size_t)(36 * plane(tiles, m.n_in)) * sizeof(float));
    kac_carve(&v, (size_t)(36 * plane(tiles, m.n_out)) * sizeof(float));
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
    for (int64_t i = 0; i < 36 * groups; i++) {
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
    wino_run r = {.k = kac_cpu_kernels_of(c), .map = map_of(a), .x = a->x.data, .x_bf16 = a->x.dtype == KAC_BF16};
    const kac_weight_layout l = kac_cpu_weight_layout(r.k, a->w, a->w->dtype, 1);
    const int64_t tiles = a->x.shape[0] * r.map.th * r.map.tw;
    r.u = (const float *)((const char *)a->w->data + l.direct_bytes);
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
    r.in.data = kac_carve(&v, (size_t)(36 * r.in.position) * sizeof(float));
    r.sums.data = kac_carve(&v, (size_t)(36 * r.sums.position) * sizeof(float));
    const int threads = kac_cpu_threads(c, 72.0 * (double)tiles * (double)r.map.n_in * (double)r.map.n_out);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t t0 = 0; t0 < tiles; t0 += r.at_once) run_tiles(&r, t0, KAC_MIN(tiles, t0 + r.at_once));
}
