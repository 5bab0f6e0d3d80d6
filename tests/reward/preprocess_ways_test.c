/* The preprocessing of each reward against its reference on real pictures and on pictures by formula; the float way's derivative. */
#include "check.h"
#include "io/image.h"
#include "reward/preprocess_tensor.h"
#include "tensor/tape.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"

enum { EDGE = 28, MAX_PIXELS = 640 * 480 };

static kac_ctx ctx;

/* The real pictures of the case are cut-outs. */
static const struct {
    const char *name;
    int left, top;
} cuts[] = {{"emoji_u1f600", 0, 0}, {"emoji_u1f34e", 3, 0}, {"emoji_u1f996", 0, 10}};

static bool load_picture(uint8_t *rgb, const char *name, int w, int h) {
    for (int i = 0; i < KAC_COUNT_OF(cuts); i++) {
        if (strcmp(cuts[i].name, name) != 0) continue;
        kac_image image;
        char path[96];
        snprintf(path, sizeof path, "tests/reward/data/%s.png", name);
        if (!CHECK_OK(kac_image_load(&image, path))) return false;
        for (int y = 0; y < h; y++)
            memcpy(rgb + (size_t)y * (size_t)w * 3,
                   image.rgb + ((size_t)(y + cuts[i].top) * (size_t)image.width + (size_t)cuts[i].left) * 3,
                   (size_t)w * 3);
        kac_image_free(&image);
        return true;
    }
    golden_picture(rgb, name, w, h);
    return true;
}

static kac_preprocess way_of(const golden *g) {
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(g->json.root, "config");
    const char *way = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, "way"));
    kac_preprocess p = kac_preprocess_clip(EDGE);
    p.crop_rule = KAC_CROP_EVEN;
    if (strcmp(way, "file") == 0) {
        char *text = cJSON_Print(config);
        temp_write("preprocessor_config.json", text, strlen(text));
        cJSON_free(text);
        CHECK_OK(kac_preprocess_load(&p, temp_dir(), 1));
    } else if (strcmp(way, "even") != 0) {
        p.in_float = true;
        p.longest = strcmp(way, "hps") == 0;
    }
    return p;
}

static kac_status prepare(kac_tensor *out, const kac_preprocess *p, const uint8_t *rgb, int w, int h) {
    if (!p->in_float) return kac_preprocess_apply(out->data, p, rgb, w, h, &ctx.scratch);
    kac_tensor image;
    KAC_TRY(kac_take_make(&image, &ctx.scratch, KAC_F32, 1, h, w, 3));
    for (int i = 0; i < w * h * 3; i++) ((float *)image.data)[i] = (float)rgb[i] / 255.0f;
    return kac_preprocess_tensor(&ctx, out, p, image);
}

/* The file is [1, 3, EDGE, EDGE], sampled; ours [1, EDGE, EDGE, 3]. */
static double distance(const golden *g, const char *name, const float *ours) {
    char key[64];
    snprintf(key, sizeof key, "out.%s", name);
    kac_tensor want;
    if (!CHECK_OK(kac_weights_find(&g->data, key, &want))) return INFINITY;
    const cJSON *entry =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(g->json.root, "outputs"), name);
    const int64_t stride = (int64_t)cJSON_GetObjectItemCaseSensitive(entry, "stride")->valuedouble;
    double worst = 0;
    for (int64_t i = 0; i < kac_tensor_count(want); i++) {
        const int64_t at = i * stride, c = at / (EDGE * EDGE), pixel = at % (EDGE * EDGE);
        worst = fmax(worst, fabs((double)ours[pixel * 3 + c] - ((const float *)want.data)[i]));
    }
    return worst;
}

static void test_case(const char *name) {
    golden g;
    if (!CHECK_OK(golden_open_data(&g, name))) return;
    static uint8_t rgb[MAX_PIXELS * 3];
    const kac_preprocess p = way_of(&g);
    double worst = 0;
    for (const cJSON *item = cJSON_GetObjectItemCaseSensitive(g.json.root, "pictures")->child; item != NULL;
         item = item->next) {
        const int w = (int)cJSON_GetArrayItem(item, 0)->valuedouble, h = (int)cJSON_GetArrayItem(item, 1)->valuedouble;
        int ow, oh;
        kac_preprocess_size(&p, w, h, &ow, &oh);
        CHECK(ow == EDGE && oh == EDGE);
        const size_t mark = kac_arena_mark(&ctx.scratch);
        kac_tensor out;
        CHECK_OK(kac_take_make(&out, &ctx.scratch, KAC_F32, 1, EDGE, EDGE, 3));
        if (load_picture(rgb, item->string, w, h) && CHECK_OK(prepare(&out, &p, rgb, w, h))) {
            const double d = distance(&g, item->string, out.data);
            if (!CHECK(d <= 1e-5)) printf("  %s %s: %.2e\n", name, item->string, d);
            worst = fmax(worst, d);
        }
        kac_arena_release(&ctx.scratch, mark);
    }
    printf("  %s: largest difference %.2e\n", name, worst);
    golden_close(&g);
}

/* d ⟨f(x), y⟩ / d x by a tape. */
static kac_status carry_back(float *d, const kac_preprocess *p, kac_tensor image, const float *y) {
    const size_t mark = kac_arena_mark(&ctx.scratch);
    kac_grad_tape t;
    kac_tensor out = {0}, grad = image, seed;
    grad.data = d;
    memset(d, 0, kac_tensor_bytes(grad));
    KAC_TRY(kac_tape_open(&t, &ctx, 0));
    KAC_TRY(kac_tape_watch(&t, image, grad));
    kac_tape_start(&t);
    KAC_TRY(kac_preprocess_tensor(&ctx, &out, p, image));
    kac_tape_stop(&t);
    seed = out, seed.data = (void *)(uintptr_t)y;
    KAC_TRY(kac_tape_seed(&t, out, seed));
    KAC_TRY(kac_tape_replay(&t));
    kac_tape_close(&t);
    kac_arena_release(&ctx.scratch, mark);
    return KAC_OK;
}

/* The derivative of ⟨f(x), y⟩ against central differences, pixel by pixel. */
static void check_gradient(const kac_preprocess *p, int w, int h) {
    static float x[64 * 64 * 3], y[64 * 64 * 3], back[64 * 64 * 3];
    int ow, oh;
    kac_preprocess_size(p, w, h, &ow, &oh);
    golden_weights(x, "x", (int64_t)w * h * 3, 0.5, 0.5);
    golden_weights(y, "y", (int64_t)ow * oh * 3, 0, 1);
    kac_tensor image = kac_tensor_make(x, KAC_F32, 1, h, w, 3);
    if (!CHECK_OK(carry_back(back, p, image, y))) return;
    for (int k = 0; k < 12; k++) {
        const int at = (k * 997) % (w * h * 3);
        const float keep = x[at];
        double value[2];
        for (int side = 0; side < 2; side++) {
            const size_t mark = kac_arena_mark(&ctx.scratch);
            kac_tensor out = {0};
            x[at] = keep + (side == 0 ? -0.5f : 0.5f);
            CHECK_OK(kac_preprocess_tensor(&ctx, &out, p, image));
            value[side] = 0;
            for (int i = 0; i < ow * oh * 3; i++) value[side] += (double)((const float *)out.data)[i] * y[i];
            kac_arena_release(&ctx.scratch, mark);
        }
        x[at] = keep;
        CHECK_NEAR(value[1] - value[0], back[at], 2e-5);
    }
}

static void test_gradient(void) {
    kac_preprocess p = kac_preprocess_clip(12);
    check_gradient(&p, 40, 31); /* shrinks, crops */
    check_gradient(&p, 5, 9);   /* grows */
    check_gradient(&p, 12, 12); /* neither */
    p.crop_width = 17, p.crop_height = 20;
    check_gradient(&p, 30, 31); /* pads */
    p = kac_preprocess_clip(14), p.longest = true, p.crop_rule = KAC_CROP_EVEN;
    check_gradient(&p, 41, 20);
    p.filter = KAC_RESIZE_BILINEAR, p.normalize = false;
    check_gradient(&p, 20, 33);
    p = kac_preprocess_clip(10), p.shortest_edge = 0, p.resize_width = 9, p.resize_height = 11, p.crop = false;
    check_gradient(&p, 23, 14);
}

static void test_refusals(void) {
    kac_preprocess p = kac_preprocess_clip(224);
    p.longest = true;
    int w, h;
    kac_preprocess_resized(&p, 100000, 2, &w, &h);
    CHECK(w == 224 && h == 0);
    CHECK_FAILS(kac_preprocess_check(&p, 100000, 2), KAC_E_SHAPE, "too narrow");
    p.longest = false;
    CHECK_OK(kac_preprocess_check(&p, 100, 1));
}

/* A plan run takes the same scratch. */
static void test_plan(void) {
    static uint8_t rgb[90 * 70 * 3];
    static float out[EDGE * EDGE * 3];
    const kac_preprocess p = kac_preprocess_clip(EDGE);
    kac_arena counting, real;
    kac_arena_init_counting(&counting, "plan");
    CHECK_OK(kac_arena_init(&real, "real", 64 << 20));
    CHECK_OK(kac_preprocess_apply(NULL, &p, NULL, 90, 70, &counting));
    CHECK_OK(kac_preprocess_apply(out, &p, rgb, 90, 70, &real));
    CHECK(counting.peak == real.peak && real.peak > 0);
    kac_arena_free(&counting);
    kac_arena_free(&real);
}

int main(void) {
    char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME];
    if (!CHECK_OK(kac_ctx_open(&ctx, kac_cpu_ops(), KAC_F32, 1, NULL))) return check_done();
    const int n = golden_list(names, "reward_preprocess");
    CHECK(n == 5);
    for (int i = 0; i < n; i++) test_case(names[i]);
    test_gradient();
    test_refusals();
    test_plan();
    kac_ctx_close(&ctx);
    return check_done();
}
