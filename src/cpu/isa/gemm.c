/* Matrix products on packed panels. */
#include "cpu/isa/act.h"
#include "cpu/isa/micro.h"
#include "cpu/isa/table.h"
#include "cpu/kernels.h"

#define MICRO(mr, nv, bf16)                                                                                            \
    static void micro_##mr##_##nv##_##bf16(const float *const *rows, int n_taps, int64_t k0, int64_t n_k,              \
                                           const void *b, int64_t tap_stride, float *restrict tile) {                  \
        micro_sum(mr, nv, bf16, rows, n_taps, k0, n_k, b, tap_stride, tile);                                           \
    }
#define MICRO_ALL(mr) MICRO(mr, 1, 0) MICRO(mr, 2, 0) MICRO(mr, 1, 1) MICRO(mr, 2, 1)
#define MICRO_ROW(mr)                                                                                                  \
    {                                                                                                                  \
        {micro_##mr##_1_0, micro_##mr##_2_0}, {                                                                        \
            micro_##mr##_1_1, micro_##mr##_2_1                                                                         \
        }                                                                                                              \
    }
MICRO_ALL(1)
MICRO_ALL(2)
MICRO_ALL(3)
MICRO_ALL(4)
MICRO_ALL(5)
MICRO_ALL(6)
#if MR == 12
MICRO_ALL(7)
MICRO_ALL(8)
MICRO_ALL(9)
MICRO_ALL(10)
MICRO_ALL(11)
MICRO_ALL(12)
#endif

/* [rows − 1][b in bf16][vectors − 1] */
static micro_fn *const micro[MR][2][NV] = {
    MICRO_ROW(1), MICRO_ROW(2), MICRO_ROW(3), MICRO_ROW(4),  MICRO_ROW(5),  MICRO_ROW(6),
#if MR == 12
    MICRO_ROW(7), MICRO_ROW(8), MICRO_ROW(9), MICRO_ROW(10), MICRO_ROW(11), MICRO_ROW(12),
#endif
};

/* Blocks of the sum over k: part of one tap, or several whole taps. */
enum { K_BLOCK = 384, TAPS_AT_ONCE = 16 };
/* A convolution of few channels gathers whole rows of k, at most this many, into a buffer. */
enum { GATHER_IN = 12, GATHER_K = 1024 };

typedef struct k_block {
    int tap, n_taps;
    int64_t k0, n_k;
} k_block;

static k_block k_block_first(const kac_gemm *g) {
    k_block b = {0};
    if (g->n_in > K_BLOCK) {
        const int64_t parts = (g->n_in + K_BLOCK - 1) / K_BLOCK;
        b.n_taps = 1;
        b.n_k = ((g->n_in + parts - 1) / parts + 7) / 8 * 8;
    } else {
        b.n_taps = (int)KAC_MAX(1, KAC_MIN(K_BLOCK / g->n_in, KAC_MIN(g->n_taps, TAPS_AT_ONCE)));
        b.n_k = g->n_in;
    }
    return b;
}

/* false after the last one */
static bool k_block_next(const kac_gemm *g, k_block *b, int64_t step) {
    if (b->n_taps == 1 && b->k0 + b->n_k < g->n_in) {
        b->k0 += b->n_k;
        b->n_k = KAC_MIN(step, g->n_in - b->k0);
        return true;
    }
    b->tap += b->n_taps;
    if (b->tap >= g->n_taps) return false;
    b->k0 = 0;
    b->n_k = KAC_MIN(step, g->n_in);
    b->n_taps = KAC_MIN(b->n_taps, g->n_taps - b->tap);
    return true;
}

static void rows_of_conv(const kac_gemm *g, const float **rows, int64_t m, int mr, int tap, int n_taps) {
    const int64_t pixels = g->ho * g->wo;
    for (int i = 0; i < mr; i++) {
        const int64_t image = (m + i) / pixels, pixel = (m + i) % pixels;
        const int64_t y0 = pixel / g->wo * g->stride - g->pad_top, x0 = pixel % g->wo * g->stride - g->pad_left;
        const float *base = g->a + image * g->h * g->w * g->n_in;
        int ky = tap / g->kw, kx = tap % g->kw;
        for (int t = 0; t < n_taps; t++) {
            const int64_t y = y0 + ky, x = x0 + kx;
            const bool inside = y >= 0 && y < g->h && x >= 0 && x < g->w;
            rows[t * MR + i] = inside ? base + (y * g->w + x) * g->n_in : g->zeros;
            if (++kx == g->kw) kx = 0, ky++;
        }
    }
}

/* Few channels: all taps of a row side by side in `buffer`. */
static void rows_gathered(const kac_gemm *g, const float **rows, int64_t m, int mr, float *buffer) {
    const float *taps[TAPS_AT_ONCE * MR];
    for (int tap = 0; tap < g->n_taps; tap += TAPS_AT_ONCE) {
        const int n = KAC_MIN(TAPS_AT_ONCE, g->n_taps - tap);
        rows_of_conv(g, taps, m, mr, tap, n);
        for (int i = 0; i < mr; i++)
            for (int t = 0; t < n; t++)
                for (int64_t c = 0; c < g->n_in; c++)
                    buffer[i * GATHER_K + (tap + t) * g->n_in + c] = taps[t * MR + i][c];
    }
    for (int i = 0; i < mr; i++) rows[i] = buffer + i * GATHER_K;
}

/* Where the bias of each row of a tile lies. */
static void bias_of_rows(const kac_gemm *g, const float **bias, int64_t m, int mr) {
    const int64_t width = g->geglu ? 2 * g->n : g->n;
    for (int i = 0; i < mr; i++) {
        bias[i] = g->bias;
        if (g->bias_row) bias[i] += g->bias_row[(m + i) / g->rows_per_image] * width;
    }
}

/* One vector of results: lanes < V at the end of a row. */
static KAC_INLINE void finish_vector(const kac_gemm *g, vf x, const float *gate, const float *bias, int64_t row,
                                     int64_t j, int lanes, const kac_act act, const int bf16) {
    const bool whole = lanes == V;
    if (bias) x += whole ? v_load(bias + j) : v_load_n(bias + j, lanes);
    if (gate) {
        vf y = v_load(gate);
        if (bias) y += whole ? v_load(bias + g->n + j) : v_load_n(bias + g->n + j, lanes);
        x *= v_act(y, KAC_ACT_GELU);
    } else {
        x = v_act(x, act);
    }
    if (g->residual) {
        const int64_t at = row * g->ldr + j;
        x += whole ? x_load(g->residual, at, bf16) : x_load_n(g->residual, at, lanes, bf16);
    }
    if (whole)
        x_store(g->out, row * g->ldo + j, x, bf16);
    else
        x_store_n(g->out, row * g->ldo + j, x, lanes, bf16);
}

/* Stores columns j0 … j0 + n (n ≤ NR) of mr rows. `gate` (geglu) holds the sums of columns n + j. */
static KAC_INLINE void finish_rows(const kac_gemm *g, const float *tile, const float *gate, int64_t m, int mr,
                                   int64_t j0, int n, const float *const *bias, const kac_act act, const int bf16) {
    for (int i = 0; i < mr; i++, tile += NR) {
        const float *b = g->bias ? bias[i] : NULL, *gates = gate ? gate + i * NR : NULL;
        if (n == NR) {
#pragma GCC unroll 4
            for (int j = 0; j < NR; j += V)
                finish_vector(g, v_load(tile + j), gates ? gates + j : NULL, b, m + i, j0 + j, V, act, bf16);
        } else {
            for (int j = 0; j < n; j += V)
                finish_vector(g, v_load(tile + j), gates ? gates + j : NULL, b, m + i, j0 + j, n - j < V ? n - j : V,
                              act, bf16);
        }
    }
}

static void finish_tile(const kac_gemm *g, const float *tile, const float *gate, int64_t m, int mr, int64_t j0, int n,
                        const float *const *bias) {
    if (g->x_bf16)
        finish_rows(g, tile, gate, m, mr, j0, n, bias, g->act, 1);
    else if (gate)
        finish_rows(g, tile, gate, m, mr, j0, n, bias, KAC_ACT_NONE, 0);
    else if (g->act == KAC_ACT_NONE)
        finish_rows(g, tile, NULL, m, mr, j0, n, bias, KAC_ACT_NONE, 0);
    else
        finish_rows(g, tile, NULL, m, mr, j0, n, bias, g->act, 0);
}

/* One block of the sum for one tile of one panel; before the last block it goes to `part` [mr, ldp]. */
static void sum_tile(const kac_gemm *g, const float *const *rows, const k_block *kb, int mr, int panel, int nv,
                     float *part, int64_t ldp, bool first, float *tile) {
    const int64_t at = ((int64_t)panel * g->n_taps + kb->tap) * g->n_in + kb->k0;
    const char *b = (const char *)g->b + at * NR * (g->b_bf16 ? 2 : 4);
    micro[mr - 1][g->b_bf16][nv - 1](rows, kb->n_taps, kb->k0, kb->n_k, b, g->n_in * NR, tile);
    if (first) return;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv * V; j += V)
            v_store(tile + i * NR + j, v_load(tile + i * NR + j) + v_load(part + i * ldp + j));
}

/* Adds the second product to the tile of panel p. Where two parts meet inside a panel, each gives its own columns. */
static void add_low(const kac_gemm *g, int64_t m, int mr, int panel, int nv, float *tile) {
    float sums[MR * NR] __attribute__((aligned(64)));
    const float *rows[MR];
    const int64_t j0 = (int64_t)panel * NR, j1 = j0 + nv * V;
    const char *b = (const char *)g->low_b + j0 * g->low_k * (g->b_bf16 ? 2 : 4);
    for (int64_t part = j0 / g->low_columns; part * g->low_columns < j1; part++) {
        const int64_t at = part * g->low_k;
        if (at >= g->low_ld) break; /* padding of the last panel */
        for (int i = 0; i < mr; i++) rows[i] = g->low + (m + i) * g->low_ld + at;
        micro[mr - 1][g->b_bf16][nv - 1](rows, 1, 0, g->low_k, b, 0, sums);
        const int first = (int)KAC_MAX(0, part * g->low_columns - j0);
        const int end = (int)(KAC_MIN(j1, (part + 1) * g->low_columns) - j0);
        if (first > 0 || end < nv * V) {
            for (int i = 0; i < mr; i++)
                for (int j = first; j < end; j++) tile[i * NR + j] += sums[i * NR + j];
            continue;
        }
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < nv * V; j += V)
                v_store(tile + i * NR + j, v_load(tile + i * NR + j) + v_load(sums + i * NR + j));
    }
}

static void keep_tile(const float *tile, int mr, int nv, float *part, int64_t ldp) {
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv * V; j += V) v_store(part + i * ldp + j, v_load(tile + i * NR + j));
}

typedef struct pass {
    k_block kb;
    bool first, last;
    int p0, p1;
    float *part; /* of this tile's first row */
    int64_t ldp;
} pass;

static void tile_pass(const kac_gemm *g, const pass *s, const float *const *rows, int64_t m, int mr) {
    float tile[MR * NR] __attribute__((aligned(64))), gate[MR * NR] __attribute__((aligned(64)));
    const float *bias[MR];
    if (s->last && g->bias) bias_of_rows(g, bias, m, mr);
    const int gate_panel = (int)(g->n / NR); /* geglu: n is a multiple of NR */
    const int n_panels = s->p1 - s->p0;
    for (int p = s->p0; p < s->p1; p++) {
        const int n = (int)KAC_MIN(NR, g->n - (int64_t)p * NR), nv = n > V ? 2 : 1;
        float *part = s->part + (int64_t)(p - s->p0) * NR, *part2 = part + (int64_t)n_panels * NR;
        sum_tile(g, rows, &s->kb, mr, p, nv, part, s->ldp, s->first, tile);
        if (g->geglu) sum_tile(g, rows, &s->kb, mr, p + gate_panel, nv, part2, s->ldp, s->first, gate);
        if (!s->last) {
            keep_tile(tile, mr, nv, part, s->ldp);
            if (g->geglu) keep_tile(gate, mr, nv, part2, s->ldp);
        } else {
            if (g->low) add_low(g, m, mr, p, nv, tile);
            if (g->low && g->geglu) add_low(g, m, mr, p + gate_panel, nv, gate);
            finish_tile(g, tile, g->geglu ? gate : NULL, m, mr, (int64_t)p * NR, n, bias);
        }
    }
}

/* Rows m0 … m1 of panels p0 … p1. partial: [m1 − m0, panels · NR (geglu: twice)] when the sum has several blocks. */
void kac_isa(kac_gemm_rows)(const kac_gemm *g_in, int64_t m0, int64_t m1, int p0, int p1, float *partial) {
    kac_gemm g = *g_in;
    float gathered[MR * GATHER_K] __attribute__((aligned(64)));
    const bool gather = g.conv && g.n_in <= GATHER_IN && g.n_taps * g.n_in <= GATHER_K;
    if (gather) {
        g.n_in *= g.n_taps;
        g.n_taps = 1;
    }
    const int64_t n_rows = m1 - m0, tiles = (n_rows + MR - 1) / MR;
    pass s = {.kb = k_block_first(&g), .first = true, .p0 = p0, .p1 = p1};
    s.ldp = (int64_t)(p1 - p0) * NR * (g.geglu ? 2 : 1);
    const int64_t step = s.kb.n_k;
    s.kb.n_k = KAC_MIN(step, g.n_in);
    for (bool more = true; more; s.first = false) {
        k_block next = s.kb;
        more = k_block_next(&g, &next, step);
        s.last = !more;
        for (int64_t i = 0; i < tiles; i++) { /* tiles of nearly equal height */
            const int64_t m = m0 + n_rows * i / tiles;
            const int mr = (int)(m0 + n_rows * (i + 1) / tiles - m);
            const float *rows[TAPS_AT_ONCE * MR];
            if (gather)
                rows_gathered(g_in, rows, m, mr, gathered);
            else if (g.conv)
                rows_of_conv(&g, rows, m, mr, s.kb.tap, s.kb.n_taps);
            else
                for (int r = 0; r < mr; r++) rows[r] = g.a + (m + r) * g.lda;
            s.part = partial ? partial + (m - m0) * s.ldp : NULL;
            tile_pass(&g, &s, rows, m, mr);
        }
        s.kb = next;
    }
}

/* A tile of sums to its place, whole vectors or not; added when it is not the first. */
static void place_tile(const float *tile, float *out, int64_t ldo, int mr, int n, bool add) {
    if (n == NR && !add) {
        for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
            for (int j = 0; j < NR; j += V) v_store(out + r * ldo + j, v_load(tile + r * NR + j));
        return;
    }
    for (int r = 0; r < mr; r++, out += ldo, tile += NR)
        for (int j = 0; j < n; j += V) {
            const vf x = v_load(tile + j);
            const int lanes = n - j < V ? n - j : V;
            if (lanes == V)
                v_store(out + j, add ? v_load(out + j) + x : x);
            else
                v_store_n(out + j, add ? v_load_n(out + j, lanes) + x : x, lanes);
        }
}

/* Full sum over k in blocks of K_BLOCK, no epilogue. */
void kac_isa(kac_panel_product_run)(const kac_panel_product *p) {
    float tile[MR * NR] __attribute__((aligned(64)));
    const int64_t tiles = (p->m + MR - 1) / MR, parts = (p->k + K_BLOCK - 1) / K_BLOCK;
    const int64_t step = ((p->k + parts - 1) / parts + 7) / 8 * 8;
    for (int64_t k0 = 0; k0 < p->k; k0 += step)
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t m = p->m * i / tiles, n_k = KAC_MIN(step, p->k - k0);
            const int mr = (int)(p->m * (i + 1) / tiles - m);
            const float *rows[MR];
            for (int r = 0; r < mr; r++) rows[r] = p->a + (m + r) * p->lda;
            for (int q = 0; q < p->n_panels; q++) {
                const int n = q == p->n_panels - 1 ? p->n_last : NR;
                micro[mr - 1][0][n > V ? 1 : 0](rows, 1, k0, n_k, p->b + q * p->ldb + k0 * NR, 0, tile);
                place_tile(tile, p->out + m * p->ldo + (int64_t)q * NR, p->ldo, mr, n, p->add || k0 > 0);
            }
        }
}
