/* Rewards with networks from files to scores, against the scores of the reference implementations on the same pictures and prompts. */
#include "check.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "reward/image_reward.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"

enum { MAX_PICTURES = 10 };

static const struct {
    const char *name; /* "WxH": by formula; else a cut-out of a file */
    int width, height, left, top;
} shown[MAX_PICTURES] = {{"50x60", 50, 60, 0, 0},
                         {"28x28", 28, 28, 0, 0},
                         {"61x29", 61, 29, 0, 0},
                         {"200x33", 200, 33, 0, 0},
                         {"9x5", 9, 5, 0, 0},
                         {"64x37", 64, 37, 0, 0},
                         {"28x20", 28, 20, 0, 0},
                         {"emoji_u1f600", 72, 72, 0, 0},
                         {"emoji_u1f34e", 57, 71, 3, 0},
                         {"emoji_u1f996", 72, 45, 0, 10}};
#define TEN_WORDS "a a a a a a a a a a "
#define LONG TEN_WORDS TEN_WORDS TEN_WORDS TEN_WORDS TEN_WORDS TEN_WORDS "heart"
static const char *const prompts[4] = {"a red circle above a blue square", "two large green stars",
                                       "Ein Caf\xC3\xA9, na\xC3\xAFve & co.", LONG};
static kac_picture pictures[MAX_PICTURES];

static void load_pictures(void) {
    for (int i = 0; i < MAX_PICTURES; i++) {
        const int w = shown[i].width, h = shown[i].height;
        uint8_t *rgb = kac_alloc((size_t)w * (size_t)h * 3);
        pictures[i] = (kac_picture){rgb, w, h, i % 4};
        if (shown[i].name[0] != 'e') {
            golden_picture(rgb, shown[i].name, w, h);
            continue;
        }
        kac_image image;
        char path[96];
        snprintf(path, sizeof path, "tests/reward/data/%s.png", shown[i].name);
        if (!CHECK_OK(kac_image_load(&image, path))) continue;
        for (int y = 0; y < h; y++)
            memcpy(rgb + (size_t)y * (size_t)w * 3,
                   image.rgb + ((size_t)(y + shown[i].top) * (size_t)image.width + (size_t)shown[i].left) * 3,
                   (size_t)w * 3);
        kac_image_free(&image);
    }
}

static void copy_file(const char *from, const char *dir) {
    char *data, *to = kac_path_join(dir, kac_path_base(from));
    size_t n;
    if (CHECK_OK(kac_file_read(&data, &n, from, 1 << 24))) CHECK_OK(kac_file_write(to, data, n));
    kac_free(data), kac_free(to);
}

/* Opens NAME=PATH on one context, scores all pictures; `each`: one by one. */
static kac_status score(double *out, kac_ctx *c, const char *spec, bool each) {
    kac_image_reward *r = NULL;
    kac_status s = kac_image_reward_open(&r, c, spec);
    if (s == KAC_OK) s = kac_image_reward_prepare(r, prompts, 4);
    for (int i = 0; i < MAX_PICTURES && s == KAC_OK; i += each ? 1 : MAX_PICTURES)
        s = kac_image_reward_score(r, pictures + i, each ? 1 : MAX_PICTURES, out + i);
    kac_image_reward_close(r);
    return s;
}

/* bound: which of a prompt's tokens are looked at is known only once they are computed, so a plan counts all of them. */
static void check_plan(const char *spec, const kac_ctx *real, bool bound) {
    double out[MAX_PICTURES];
    kac_ctx plan;
    if (!CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, real->dtype, real->n_threads, NULL))) return;
    CHECK_OK(score(out, &plan, spec, false));
    CHECK(plan.model.peak == real->model.used);
    CHECK(bound ? plan.run.peak >= real->run.used : plan.run.peak == real->run.used);
    if (!CHECK(bound ? plan.scratch.peak >= real->scratch.peak : plan.scratch.peak == real->scratch.peak))
        printf("  %s: plan %zu, real %zu bytes of scratch\n", spec, plan.scratch.peak, real->scratch.peak);
    kac_ctx_close(&plan);
}

static void test_case(const char *name, const char *reward, const char *const *files, int n_files, int skip,
                      double bf16) {
    golden g;
    if (!CHECK_OK(golden_open(&g, name))) return;
    for (int i = 0; i < n_files; i++) copy_file(files[i], g.dir);
    char *spec = kac_format("%s=%s", reward, g.dir);
    kac_tensor want;
    CHECK_OK(kac_weights_find(&g.data, "out.scores", &want));
    const struct {
        kac_dtype dtype;
        double tolerance;
    } settings[] = {{KAC_F32, 2e-5}, {KAC_BF16, bf16}};
    for (int k = 0; k < KAC_COUNT_OF(settings); k++) {
        kac_ctx c;
        double got[MAX_PICTURES], alone[MAX_PICTURES], worst = 0;
        if (!CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), settings[k].dtype, 2, NULL))) break;
        if (CHECK_OK(score(got, &c, spec, false))) {
            for (int i = 0; i < MAX_PICTURES; i++)
                if (i != skip) worst = fmax(worst, fabs(got[i] - (double)((const float *)want.data)[i]));
            printf("  %s %s: largest difference of a score %.1e\n", name, kac_dtype_name(settings[k].dtype), worst);
            CHECK(worst <= settings[k].tolerance);
            check_plan(spec, &c, strcmp(reward, "mps") == 0);
            if (CHECK_OK(score(alone, &c, spec, true))) CHECK(memcmp(alone, got, sizeof got) == 0);
        }
        kac_ctx_close(&c);
    }
    kac_free(spec);
    golden_close(&g);
}

static void test_refused(void) {
    kac_ctx c;
    kac_image_reward *r;
    if (!CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 1, NULL))) return;
    float w[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    CHECK_OK(kac_dir_make(temp_path("head")));
    const kac_st_item head[] = {{"weight", kac_tensor_make(w, KAC_F32, 1, 7)},
                                {"bias", kac_tensor_make(w, KAC_F32, 1)}};
    CHECK_OK(kac_st_write(temp_path("head/head.safetensors"), head, 2, NULL, 0));
    CHECK_OK(kac_dir_make(temp_path("other")));
    const kac_st_item other[] = {{"conv_in.weight", kac_tensor_make(w, KAC_F32, 2, 1, 2, 2)}};
    CHECK_OK(kac_st_write(temp_path("other/x.safetensors"), other, 1, NULL, 0));
    CHECK_OK(kac_dir_make(temp_path("empty")));
    const struct {
        const char *name, *folder;
        kac_status status;
        const char *text;
    } cases[] = {{"clip", "head", KAC_E_FORMAT, "head of a predictor"},
                 {"clip", "other", KAC_E_FORMAT, "no reward model: it holds 1 tensors such as conv_in.weight"},
                 {"clip", "empty", KAC_E_FORMAT, "holds no weights"},
                 {"clip", "nowhere", KAC_E_IO, NULL},
                 {"hpsv2", "other", KAC_E_FORMAT, "wanted is a CLIP"},
                 {"image-reward", "head", KAC_E_FORMAT, "blip.visual_encoder"},
                 {"aesthetic", "other", KAC_E_USAGE, "DIR+HEAD"},
                 {"classifier", "other", KAC_E_USAGE, "names no label"}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        char *spec = kac_format("%s=%s", cases[i].name, temp_path(cases[i].folder));
        CHECK_FAILS(kac_image_reward_open(&r, &c, spec), cases[i].status, cases[i].text);
        kac_free(spec);
    }
    kac_ctx_close(&c);
}

int main(void) {
    static const char *const bert[] = {"tests/text/data/wordpiece/vocab.txt"},
                             *const shapes[] = {"tests/text/data/shapes/vocab.json",
                                                "tests/text/data/shapes/merges.txt",
                                                "tests/text/data/shapes/tokenizer_config.json"};
    load_pictures();
    test_case("score/image_reward", "image-reward", bert, 1, -1, 4e-2);
    test_case("score/hpsv2", "hpsv2", shapes, 3, 6, 4e-2); /* the reference leaves 28x20 unpadded and then fails */
    test_case("score/mps", "mps", shapes, 3, -1, 1e-1);
    test_refused();
    for (int i = 0; i < MAX_PICTURES; i++) kac_free((void *)(uintptr_t)pictures[i].rgb);
    return check_done();
}
