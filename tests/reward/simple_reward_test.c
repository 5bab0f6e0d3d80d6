/* Rewards without a network: colours, file size, parts of what a caption says. */
#include "check.h"
#include "reward/image_reward.h"
#include "reward/judge.h"
#include "util/golden_weights.h"

static kac_ctx ctx;

/* The reward `spec` of one picture. NAN when something failed. */
static double reward_of(const char *spec, const kac_picture *picture, const char *prompt) {
    kac_image_reward *r = NULL;
    double value = NAN;
    if (!CHECK_OK(kac_image_reward_open(&r, &ctx, spec))) return NAN;
    CHECK_OK(kac_image_reward_prepare(r, &prompt, 1));
    CHECK_OK(kac_image_reward_score(r, picture, 1, &value));
    kac_image_reward_close(r);
    return value;
}

static void test_colors(void) {
    enum { W = 5, H = 3 };
    uint8_t rgb[W * H * 3];
    for (int i = 0; i < W * H; i++) rgb[i * 3] = 255, rgb[i * 3 + 1] = 51, rgb[i * 3 + 2] = 0;
    const kac_picture flat = {rgb, W, H, 0};
    CHECK_NEAR(reward_of("brightness=0.4", &flat, ""), -fabs(0.299 + 0.587 * 0.2 - 0.4), 1e-12);
    CHECK_NEAR(reward_of("brightness=1", &flat, ""), 0.299 + 0.587 * 0.2 - 1, 1e-12);
    CHECK_NEAR(reward_of("color=#ff3300", &flat, ""), 0, 1e-12);
    CHECK_NEAR(reward_of("color=#003300:3", &flat, ""), -1.0 / 3, 1e-12);
    CHECK_NEAR(reward_of("color=0000FF", &flat, ""), -(1 + 0.04 + 1) / 3, 1e-12);
    rgb[0] = 0; /* one red value of 15 */
    CHECK_NEAR(reward_of("color=#ff3300", &flat, ""), -1.0 / 45, 1e-12);
    kac_image_reward *r;
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "brightness=1.2"), KAC_E_USAGE, "0 (black) to 1");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "brightness=x"), KAC_E_USAGE, "0 (black) to 1");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "brightness"), KAC_E_USAGE, "brightness=0…1");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "color=#12345"), KAC_E_USAGE, "#RRGGBB");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "color=red"), KAC_E_USAGE, "#RRGGBB");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "colour=#123456"), KAC_E_USAGE, "did you mean \"color\"");
}

static void test_sizes(void) {
    static uint8_t rgb[48 * 40 * 3];
    golden_picture(rgb, "size", 48, 40);
    const kac_picture p = {rgb, 48, 40, 0};
    const double kb = reward_of("jpeg", &p, "");
    CHECK(kb > 1 && kb < 48 * 40 * 3 / 1000.0);
    CHECK(reward_of("incompressibility", &p, "") == kb);
    CHECK(reward_of("compressibility", &p, "") == -kb);
}

/* The shipped network is added where it is installed; another folder is named for what it is. */
static void test_jpeg_folder(void) {
    kac_image_reward *r = NULL;
    char *with = kac_image_reward_expand("compressibility:2", "weights"),
         *without = kac_image_reward_expand("compressibility:2", "tests"),
         *own = kac_image_reward_expand("jpeg=other,log", "weights");
    CHECK_TEXT(with, "compressibility=weights/jpeg-size:2");
    CHECK_TEXT(without, "compressibility:2");
    CHECK_TEXT(own, "jpeg=other,log");
    if (CHECK_OK(kac_image_reward_open(&r, &ctx, with))) {
        CHECK_TEXT(r->name, "compressibility");
        CHECK(r->weight == 2 && r->grad != NULL);
        kac_image_reward_close(r);
    }
    CHECK_FAILS(
        kac_image_reward_open(&r, &ctx, "compressibility=weights/shapes-clip"), KAC_E_FORMAT,
        "weights/shapes-clip is a CLIP (rewards clip, clip-logit, clipscore, pickscore; with a head aesthetic); "
        "wanted is the network of weights/jpeg-size");
    CHECK_FAILS(kac_image_reward_open(&r, &ctx, "clip=weights/jpeg-size"), KAC_E_FORMAT, "is sizes of JPEGs");
    kac_free(with), kac_free(without), kac_free(own);
}

static kac_scene scene_of(int n, const kac_scene_object *objects) {
    kac_scene s = {.n = n, .background = KAC_BG_WHITE};
    for (int i = 0; i < n; i++) s.objects[i] = objects[i];
    return s;
}

static double share(const kac_scene *s, const char *caption) {
    kac_scene_spec want;
    return CHECK(kac_scene_parse(&want, caption)) ? kac_scene_share(s, &want) : NAN;
}

static void test_shares(void) {
    const int red = 0, blue = 2;
    const kac_scene s =
        scene_of(2, (kac_scene_object[]){{KAC_CIRCLE, red, 32, 16, 10, 0}, {KAC_SQUARE, blue, 30, 48, 16, 0}});
    CHECK_NEAR(share(&s, "a red circle above a blue square"), 1, 1e-12);
    CHECK_NEAR(share(&s, "a red circle below a blue square"), 5.0 / 6,
               1e-12); /* number, 2 shapes, 2 colours, relation */
    CHECK_NEAR(share(&s, "a red circle above a green square"), 5.0 / 6, 1e-12);
    CHECK_NEAR(share(&s, "a red circle above a green square on a black background"), 5.0 / 7, 1e-12);
    CHECK_NEAR(share(&s, "a large blue square"), 3.0 / 4, 1e-12); /* one object too many */
    CHECK_NEAR(share(&s, "a small blue square"), 2.0 / 4, 1e-12);
    CHECK_NEAR(share(&s, "two red circles"), 3.0 / 5, 1e-12); /* of the square only that it is there */
    CHECK_NEAR(share(&(kac_scene){0}, "a red circle above a blue square"), 0, 1e-12);
    kac_scene_spec want;
    CHECK(kac_scene_parse(&want, "four stars"));
    CHECK_NEAR(kac_scene_count_share(&s, &want), 1.0 / 3, 1e-12);
    CHECK(kac_scene_parse(&want, "a circle left of a square"));
    CHECK_NEAR(kac_scene_count_share(&s, &want), 1, 1e-12);
    CHECK_NEAR(kac_scene_relation_share(&s, &want), 0.5, 1e-12);
    CHECK(kac_scene_parse(&want, "a square under a circle"));
    CHECK_NEAR(kac_scene_relation_share(&s, &want), 1, 1e-12);
    CHECK(kac_scene_parse(&want, "a star under a circle"));
    CHECK_NEAR(kac_scene_relation_share(&s, &want), 0, 1e-12);
}

static void test_judged(void) {
    static uint8_t rgb[64 * 64 * 3];
    memset(rgb, 248, sizeof rgb);
    for (int y = 20; y < 44; y++)
        for (int x = 20; x < 44; x++)
            for (int c = 0; c < 3; c++) rgb[(y * 64 + x) * 3 + c] = kac_color_rgb[2][c];
    const kac_picture p = {rgb, 64, 64, 0};
    CHECK(reward_of("shapes-judge", &p, "a blue square") == 1);
    CHECK(reward_of("shapes-share", &p, "a blue square") == 1);
    CHECK_NEAR(reward_of("shapes-share", &p, "a red square"), 2.0 / 3, 1e-12);
    CHECK(reward_of("shapes-count", &p, "two blue squares") == 0.5);
    CHECK(reward_of("shapes-relation", &p, "a blue square above a star") == 0);
    kac_image_reward *r = NULL;
    const char *prompt = "a blue square";
    if (CHECK_OK(kac_image_reward_open(&r, &ctx, "shapes-relation")))
        CHECK_FAILS(kac_image_reward_prepare(r, &prompt, 1), KAC_E_USAGE, "above, below, left, right");
    kac_image_reward_close(r);
}

int main(void) {
    if (!CHECK_OK(kac_ctx_open(&ctx, &kac_ref_ops, KAC_F32, 1, NULL))) return check_done();
    test_colors();
    test_sizes();
    test_jpeg_folder();
    test_shares();
    test_judged();
    kac_ctx_close(&ctx);
    return check_done();
}
