/* CLIP beyond the golden files: skipped layers, rows that do not know of each other, plan bytes, refusals. */
#include "base/memory.h"
#include "check.h"
#include "model/clip.h"
#include "util/golden.h"

enum { N = 3, T = 12 };

typedef struct net {
    kac_ctx c;
    kac_clip *clip;
} net;

static bool net_open(net *m, const char *dir, const struct kac_ops *ops, kac_dtype dtype) {
    *m = (net){0};
    return CHECK_OK(kac_ctx_open(&m->c, ops, dtype, 2, NULL)) && CHECK_OK(kac_clip_load(&m->clip, &m->c, dir));
}

static void net_close(net *m) {
    kac_clip_free(m->clip);
    kac_ctx_close(&m->c);
}

static const int32_t ids[N * T] = {97, 5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 98, 97, 3,  4,  5,  6,  98,
                                   98, 98, 98, 98, 98, 98, 97, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98};

/* The states before the last layer, kept by the tap of the layer before it. */
typedef struct kept {
    const char *name;
    float values[N * T * 64];
    int64_t n;
} kept;

static kac_status keep(void *self, const char *name, kac_tensor t) {
    kept *k = self;
    if (strcmp(name, k->name) != 0) return KAC_OK;
    k->n = kac_tensor_count(t);
    memcpy(k->values, t.data, kac_tensor_bytes(t));
    return KAC_OK;
}

/* hidden_states[-(k + 1)] normalised by the final norm's weights: what the layer before left, by hand. */
static void test_skip(void) {
    golden g;
    net m;
    static kept k = {.name = "text_model.encoder.layers.0"};
    kac_clip_text_out all, skipped;
    if (!CHECK_OK(golden_open(&g, "clip/patch_8")) || !net_open(&m, g.dir, kac_cpu_ops(), KAC_F32)) return;
    const int64_t width = kac_clip_config_of(m.clip)->text.width;
    CHECK_OK(kac_clip_text(&all, m.clip, &m.c, ids, N, T, 0));
    m.c.tap = keep;
    m.c.tap_self = &k;
    CHECK_OK(kac_clip_text(&skipped, m.clip, &m.c, ids, N, T, 1));
    m.c.tap = NULL;
    CHECK(memcmp(all.pooled.data, skipped.pooled.data, kac_tensor_bytes(all.pooled)) == 0);
    CHECK(memcmp(all.hidden.data, skipped.hidden.data, kac_tensor_bytes(all.hidden)) != 0);
    CHECK(k.n == N * T * width);
    kac_weights st = {0};
    kac_tensor gamma, beta;
    CHECK_OK(kac_weights_open_dir(&st, g.dir, "model"));
    CHECK_OK(kac_weights_find(&st, "text_model.final_layer_norm.weight", &gamma));
    CHECK_OK(kac_weights_find(&st, "text_model.final_layer_norm.bias", &beta));
    for (int64_t row = 0; row < N * T; row++) {
        const float *x = k.values + row * width, *y = (const float *)skipped.hidden.data + row * width;
        double mean = 0, var = 0;
        for (int64_t i = 0; i < width; i++) mean += (double)x[i] / (double)width;
        for (int64_t i = 0; i < width; i++) var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)width;
        for (int64_t i = 0; i < width; i++)
            CHECK_NEAR((double)y[i],
                       ((double)x[i] - mean) / sqrt(var + 1e-5) * (double)((float *)gamma.data)[i] +
                           (double)((float *)beta.data)[i],
                       1e-5);
    }
    kac_weights_close(&st);
    CHECK_FAILS(kac_clip_text(&all, m.clip, &m.c, ids, N, T, 2), KAC_E_USAGE, "clip skip 2");
    net_close(&m);
    golden_close(&g);
}

static kac_tensor picture(net *m, const kac_clip_config *cfg) {
    kac_tensor x = {0};
    CHECK_OK(kac_take_make(&x, &m->c.run, KAC_F32, N, cfg->image_size, cfg->image_size, 3));
    CHECK_OK(kac_randn(&m->c, &x, (kac_key){.seed = 4}, (const int[]){0, 1, 2}));
    return x;
}

static void test_split_and_plan(kac_dtype dtype) {
    golden g;
    net real, plan;
    if (!CHECK_OK(golden_open(&g, "clip/patch_14")) || !net_open(&real, g.dir, kac_cpu_ops(), dtype)) return;
    if (!net_open(&plan, g.dir, &kac_plan_ops, dtype)) return;
    CHECK(real.c.model.used == plan.c.model.used && plan.c.model.used > 0);
    const kac_clip_config *cfg = kac_clip_config_of(real.clip);
    kac_tensor x = picture(&real, cfg), image = {0}, text = {0}, one = {0}, planned = {0}, planned_text = {0};
    real.c.scratch.peak = plan.c.scratch.peak = 0;
    CHECK_OK(kac_clip_image_embeds(&image, real.clip, &real.c, x, true));
    CHECK_OK(kac_clip_text_embeds(&text, real.clip, &real.c, ids, N, T, true));
    CHECK_OK(kac_clip_image_embeds(&planned, plan.clip, &plan.c, picture(&plan, cfg), true));
    CHECK_OK(kac_clip_text_embeds(&planned_text, plan.clip, &plan.c, ids, N, T, true));
    CHECK(real.c.scratch.used == plan.c.scratch.used);
    CHECK(real.c.scratch.peak == plan.c.scratch.peak);
    const size_t row_bytes = (size_t)cfg->projection * sizeof(float);
    for (int i = 0; i < N; i++) {
        kac_alloc_fail_after(1);
        one = (kac_tensor){0};
        CHECK_OK(kac_clip_image_embeds(&one, real.clip, &real.c, kac_tensor_slice(x, 0, i, 1), true));
        CHECK(memcmp(one.data, (char *)image.data + (size_t)i * row_bytes, row_bytes) == 0);
        one = (kac_tensor){0};
        CHECK_OK(kac_clip_text_embeds(&one, real.clip, &real.c, ids + i * T, 1, T, true));
        CHECK(memcmp(one.data, (char *)text.data + (size_t)i * row_bytes, row_bytes) == 0);
        kac_alloc_fail_after(0);
    }
    net_close(&plan);
    net_close(&real);
    golden_close(&g);
}

static void test_refusals(void) {
    golden g;
    net m;
    kac_clip_text_out out;
    kac_tensor embeds = {0};
    if (!CHECK_OK(golden_open(&g, "clip_text/sd2")) || !net_open(&m, g.dir, kac_cpu_ops(), KAC_F32)) return;
    static const int32_t outside[2] = {97, 99}, negative[2] = {-1, 98};
    CHECK_FAILS(kac_clip_text(&out, m.clip, &m.c, outside, 1, 2, 0), KAC_E_SHAPE, "token 99");
    CHECK_FAILS(kac_clip_text(&out, m.clip, &m.c, negative, 1, 2, 0), KAC_E_SHAPE, "token -1");
    CHECK_FAILS(kac_clip_text(&out, m.clip, &m.c, ids, 1, 78, 0), KAC_E_SHAPE, "78 tokens");
    CHECK_FAILS(kac_clip_text_embeds(&embeds, m.clip, &m.c, ids, 1, T, true), KAC_E_UNSUPPORTED, "no projection");
    CHECK_FAILS(kac_clip_image_embeds(&embeds, m.clip, &m.c, (kac_tensor){0}, true), KAC_E_UNSUPPORTED, "no vision");
    CHECK(m.c.scratch.used == 0);
    net_close(&m);
    golden_close(&g);
}

int main(void) {
    test_skip();
    test_split_and_plan(KAC_F32);
    test_split_and_plan(KAC_BF16);
    test_refusals();
    return check_done();
}
