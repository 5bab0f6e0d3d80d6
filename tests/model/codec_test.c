/* Autoencoders beyond the golden files: scales of latents, tiles, rows that do not know of each other, plan bytes, refusals. */
#include "base/memory.h"
#include "check.h"
#include "model/codec.h"
#include "util/golden.h"

typedef struct net {
    kac_ctx c;
    kac_codec *codec;
} net;

static bool net_open(net *m, const char *dir, const struct kac_ops *ops, kac_dtype dtype) {
    *m = (net){0};
    return CHECK_OK(kac_ctx_open(&m->c, ops, dtype, 2, NULL)) && CHECK_OK(kac_codec_load(&m->codec, &m->c, dir));
}

static void net_close(net *m) {
    kac_codec_free(m->codec);
    kac_ctx_close(&m->c);
}

static kac_tensor noise(net *m, int64_t n, int64_t h, int64_t w, int64_t channels) {
    static const int slot[] = {0, 1, 2, 3};
    kac_tensor x = {0};
    CHECK_OK(kac_take_make(&x, &m->c.run, KAC_F32, n, h, w, channels));
    CHECK_OK(kac_randn(&m->c, &x, (kac_key){.seed = 9}, slot));
    return x;
}

static double distance(kac_tensor a, kac_tensor b) {
    double d = 0, norm = 0;
    CHECK(kac_tensor_same_shape(a, b));
    for (int64_t i = 0; i < kac_tensor_count(a); i++) {
        const double x = (double)((const float *)a.data)[i], y = (double)((const float *)b.data)[i];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    return sqrt(d / norm);
}

/* decode_latents(l) = decode(l / scaling + shift), and encode_latents is its inverse's mean. */
static void test_scales(void) {
    golden g;
    net m;
    if (!CHECK_OK(golden_open(&g, "vae/no_quant")) || !net_open(&m, g.dir, kac_cpu_ops(), KAC_F32)) return;
    const kac_codec_config *cfg = kac_codec_config_of(m.codec);
    CHECK(cfg->scaling == 0.3611 && cfg->shift == 0.1159 && cfg->factor == 2);
    const kac_tensor latents = noise(&m, 2, 6, 4, cfg->latent_channels);
    kac_tensor z = {0}, by_hand = {0}, whole = {0}, moments = {0}, mean = {0};
    CHECK_OK(kac_take(&z, &m.c.run, KAC_F32, 4, latents.shape));
    for (int64_t i = 0; i < kac_tensor_count(z); i++)
        ((float *)z.data)[i] = (float)((double)((float *)latents.data)[i] / cfg->scaling + cfg->shift);
    CHECK_OK(kac_codec_decode(&by_hand, m.codec, &m.c, z));
    CHECK_OK(kac_codec_decode_latents(&whole, m.codec, &m.c, latents));
    CHECK(distance(whole, by_hand) < 1e-6);
    CHECK_OK(kac_codec_encode(&moments, m.codec, &m.c, whole));
    CHECK_OK(kac_codec_encode_latents(&mean, m.codec, &m.c, whole));
    for (int64_t i = 0; i < kac_tensor_count(mean); i++) {
        const double raw = (double)((float *)moments.data)[i / 16 * 32 + i % 16];
        if (!CHECK_NEAR((double)((float *)mean.data)[i], (raw - cfg->shift) * cfg->scaling, 1e-5)) break;
    }
    net_close(&m);
    golden_close(&g);
}

/* One image by the definition: every tile decoded (or encoded) alone, blended with what lies above and to the left. Tiles are kept
 * whole, which only a test can afford. */
enum { TILE = 8, STEP = 6, MAX_SIDE = 4 };

static void blend(float *b, const float *a, int64_t n, double share) {
    for (int64_t i = 0; i < n; i++) b[i] = (float)((double)a[i] * (1 - share) + (double)b[i] * share);
}

static kac_tensor tile_of(net *m, kac_tensor all, int64_t y, int64_t x, int64_t side, bool encode) {
    const int64_t h = KAC_MIN(side, all.shape[1] - y), w = KAC_MIN(side, all.shape[2] - x);
    kac_tensor part = {0}, out = {0};
    CHECK_OK(kac_take_make(&part, &m->c.run, KAC_F32, 1, h, w, all.shape[3]));
    CHECK_OK(kac_copy(&m->c, &part, kac_tensor_slice(kac_tensor_slice(all, 1, y, h), 2, x, w)));
    CHECK_OK((encode ? kac_codec_encode : kac_codec_decode)(&out, m->codec, &m->c, part));
    return out;
}

static void by_definition(net *m, kac_tensor from, kac_tensor to, bool encode) {
    const int64_t f = kac_codec_config_of(m->codec)->factor, in = encode ? f : 1, out = encode ? 1 : f;
    const int64_t extent = TILE / 4 * out, limit = STEP * out, n_channels = to.shape[3];
    const int rows = (int)((from.shape[1] - 1) / (STEP * in) + 1),
              columns = (int)((from.shape[2] - 1) / (STEP * in) + 1);
    kac_tensor tile[MAX_SIDE][MAX_SIDE];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            const kac_tensor t = tile[i][j] = tile_of(m, from, i * STEP * in, j * STEP * in, TILE * in, encode);
            const int64_t h = t.shape[1], w = t.shape[2], row = w * n_channels;
            float *b = t.data;
            for (int64_t y = 0, n = KAC_MIN(extent, h); i > 0 && y < n; y++)
                blend(b + y * row, (float *)tile[i - 1][j].data + (tile[i - 1][j].shape[1] - n + y) * row, row,
                      (double)y / (double)n);
            for (int64_t y = 0; j > 0 && y < h; y++)
                for (int64_t x = 0, n = KAC_MIN(extent, w); x < n; x++) {
                    const kac_tensor left = tile[i][j - 1];
                    blend(b + y * row + x * n_channels,
                          (float *)left.data + (y * left.shape[2] + left.shape[2] - n + x) * n_channels, n_channels,
                          (double)x / (double)n);
                }
            for (int64_t y = 0; y < KAC_MIN(h, limit); y++)
                memcpy((float *)to.data + ((i * limit + y) * to.shape[2] + j * limit) * n_channels, b + y * row,
                       (size_t)(KAC_MIN(w, limit) * n_channels) * sizeof(float));
        }
}

static void test_tiles_of(net *m, int64_t h, int64_t w, bool encode) {
    const int64_t f = encode ? kac_codec_config_of(m->codec)->factor : 1;
    const kac_tensor from = noise(m, 1, h * f, w * f, encode ? 3 : 4);
    kac_tensor tiled = {0}, want = {0}, whole = {0};
    CHECK_OK((encode ? kac_codec_encode_tiled : kac_codec_decode_tiled)(&tiled, m->codec, &m->c, from, TILE));
    CHECK_OK(kac_take(&want, &m->c.run, KAC_F32, 4, tiled.shape));
    by_definition(m, from, want, encode);
    CHECK(distance(tiled, want) < 1e-6);
    CHECK_OK((encode ? kac_codec_encode : kac_codec_decode)(&whole, m->codec, &m->c, from));
    CHECK(distance(tiled, whole) > 1e-3); /* tiles normalise by themselves */
}

static void test_tiles(void) {
    static const int64_t sizes[][2] = {{20, 11}, {9, 8}, {8, 23}, {7, 13}};
    golden g;
    net m;
    if (!CHECK_OK(golden_open(&g, "vae/no_attention")) || !net_open(&m, g.dir, kac_cpu_ops(), KAC_F32)) return;
    for (int i = 0; i < 2 * KAC_COUNT_OF(sizes); i++) test_tiles_of(&m, sizes[i / 2][0], sizes[i / 2][1], i % 2);
    const kac_tensor small = noise(&m, 2, 8, 5, 4);
    kac_tensor tiled = {0}, whole = {0};
    CHECK_OK(kac_codec_decode_tiled(&tiled, m.codec, &m.c, small, TILE));
    CHECK_OK(kac_codec_decode(&whole, m.codec, &m.c, small));
    CHECK(memcmp(tiled.data, whole.data, kac_tensor_bytes(whole)) == 0);
    net_close(&m);
    golden_close(&g);
}

static void test_split_and_plan(const char *name, kac_dtype dtype) {
    golden g;
    net real, plan;
    if (!CHECK_OK(golden_open(&g, name)) || !net_open(&real, g.dir, kac_cpu_ops(), dtype)) return;
    if (!net_open(&plan, g.dir, &kac_plan_ops, dtype)) return;
    CHECK(real.c.model.used == plan.c.model.used && plan.c.model.used > 0);
    const int64_t channels = kac_codec_config_of(real.codec)->latent_channels;
    kac_tensor z = noise(&real, 3, 4, 4, channels), whole = {0}, one = {0}, planned = {0}, back = {0},
               back_planned = {0};
    real.c.scratch.peak = 0;
    CHECK_OK(kac_codec_decode(&whole, real.codec, &real.c, z));
    CHECK_OK(kac_codec_encode(&back, real.codec, &real.c, whole));
    CHECK_OK(kac_codec_decode(&planned, plan.codec, &plan.c, noise(&plan, 3, 4, 4, channels)));
    CHECK_OK(kac_codec_encode(&back_planned, plan.codec, &plan.c, planned));
    CHECK(real.c.scratch.used == plan.c.scratch.used);
    CHECK(real.c.scratch.peak == plan.c.scratch.peak);
    const size_t row_bytes = kac_tensor_bytes(whole) / 3;
    for (int i = 0; i < 3; i++) {
        one = (kac_tensor){0};
        kac_alloc_fail_after(1);
        CHECK_OK(kac_codec_decode(&one, real.codec, &real.c, kac_tensor_slice(z, 0, i, 1)));
        kac_alloc_fail_after(0);
        CHECK(memcmp(one.data, (char *)whole.data + (size_t)i * row_bytes, row_bytes) == 0);
    }
    net_close(&plan);
    net_close(&real);
    golden_close(&g);
}

/* A picture of 4096 x 4160 pixels: planned only. */
static void test_large(void) {
    golden g;
    net m;
    if (!CHECK_OK(golden_open(&g, "vae/sd1")) || !net_open(&m, g.dir, &kac_plan_ops, KAC_F32)) return;
    kac_tensor whole = {0}, tiled = {0};
    CHECK_OK(kac_codec_decode_latents(&whole, m.codec, &m.c, noise(&m, 1, 512, 512, 4)));
    const size_t whole_peak = m.c.scratch.peak;
    m.c.scratch.used = m.c.scratch.peak = 0;
    CHECK_OK(kac_codec_decode_latents(&tiled, m.codec, &m.c, noise(&m, 1, 512, 520, 4)));
    CHECK(tiled.shape[1] == 4096 && tiled.shape[2] == 4160);
    CHECK(whole_peak > (size_t)2 << 30 && m.c.scratch.peak < whole_peak / 3);
    kac_tensor code = {0};
    m.c.scratch.used = m.c.scratch.peak = 0;
    CHECK_OK(kac_codec_encode(&code, m.codec, &m.c, noise(&m, 1, 8192, 8200, 3)));
    CHECK(code.shape[1] == 1024 && code.shape[2] == 1025 && m.c.scratch.peak < whole_peak / 2);
    net_close(&m);
    golden_close(&g);
}

static void test_refusals(void) {
    golden g;
    net m;
    if (!CHECK_OK(golden_open(&g, "vae/shapes_64")) || !net_open(&m, g.dir, kac_cpu_ops(), KAC_F32)) return;
    kac_tensor out = {0};
    CHECK_FAILS(kac_codec_decode(&out, m.codec, &m.c, noise(&m, 1, 4, 4, 3)), KAC_E_SHAPE, "4 channels");
    CHECK_FAILS(kac_codec_encode(&out, m.codec, &m.c, noise(&m, 1, 30, 32, 3)), KAC_E_SHAPE, "multiples of 4");
    CHECK_FAILS(kac_codec_encode(&out, m.codec, &m.c, noise(&m, 1, 32, 32, 1)), KAC_E_SHAPE, "3 channels");
    CHECK_FAILS(kac_codec_decode_tiled(&out, m.codec, &m.c, noise(&m, 1, 4, 4, 4), 100000), KAC_E_UNSUPPORTED,
                "tiles of 100000");
    CHECK(m.c.scratch.used == 0);
    net_close(&m);
    golden_close(&g);
}

int main(void) {
    test_scales();
    test_tiles();
    test_large();
    test_split_and_plan("vae/sd1", KAC_F32);
    test_split_and_plan("vae/shapes_64", KAC_BF16);
    test_split_and_plan("tiny/taesd", KAC_F32);
    test_refusals();
    return check_done();
}
