/* Gradients of single rewards by pictures: against finite differences of the value, the same for any batches, with the bytes that a plan run
 * foretells; and rewards that have none say so. */
#include "check.h"
#include "io/safetensors.h"
#include "reward/image_reward.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"
#include <stdlib.h>

enum { N = 3 };

static const char *const prompts[] = {"a red circle above a blue square", "a green star below a red square"};
static const int prompt[N] = {1, 0, 0};

/* A reward ready for gradients, its pictures in 0 … 1, and what it says. */
typedef struct scored {
    kac_ctx c;
    kac_image_reward *r;
    kac_tensor images, d;
    double out[N];
} scored;

static void fill_images(kac_tensor images, int w, int h) {
    uint8_t *rgb = kac_alloc((size_t)w * (size_t)h * 3);
    const int64_t n_numbers = (int64_t)w * h * 3;
    for (int i = 0; i < N && rgb != NULL; i++) {
        const char *const names[N] = {"one", "two", "three"};
        golden_picture(rgb, names[i], w, h);
        for (int64_t k = 0; k < n_numbers; k++) ((float *)images.data)[i * n_numbers + k] = (float)rgb[k] / 255.0f;
    }
    kac_free(rgb);
}

static bool open_scored(scored *s, const struct kac_ops *ops, kac_dtype dtype, const char *spec, int w, int h,
                        int batch) {
    *s = (scored){.r = NULL};
    if (!CHECK_OK(kac_ctx_open(&s->c, ops, dtype, 2, NULL))) return false;
    if (!CHECK_OK(kac_image_reward_open(&s->r, &s->c, spec)) || !CHECK_OK(kac_image_reward_prepare(s->r, prompts, 2)) ||
        !CHECK_OK(kac_take_make(&s->images, &s->c.run, KAC_F32, N, h, w, 3)) ||
        !CHECK_OK(kac_take_make(&s->d, &s->c.run, KAC_F32, N, h, w, 3)))
        return false;
    s->r->batch = batch;
    s->c.scratch.peak = s->c.scratch.used;
    if (!s->c.run.counting) fill_images(s->images, w, h);
    return CHECK_OK(kac_image_reward_grad(s->r, s->images, prompt, s->out, s->d));
}

static void close_scored(scored *s) {
    kac_image_reward_close(s->r);
    kac_ctx_close(&s->c);
}

static kac_status value_along(double out[N], scored *s, const float *from, const float *v, double h) {
    float *x = s->images.data;
    for (int64_t i = 0; i < kac_tensor_count(s->images); i++) x[i] = (float)((double)from[i] + h * (double)v[i]);
    return kac_image_reward_grad(s->r, s->images, prompt, out, s->d);
}

/* Central differences along v (for all pictures at once, each its own), extrapolated; against g · v. */
static void check_along(scored *s, const char *what, const float *from, const float *g, const float *v, double h,
                        double tolerance) {
    double far[2][N], near[2][N];
    const int64_t n_numbers = kac_tensor_count(s->images) / N;
    for (int k = 0; k < 2; k++) {
        CHECK_OK(value_along(far[k], s, from, v, k == 0 ? h : -h));
        CHECK_OK(value_along(near[k], s, from, v, k == 0 ? h / 2 : -h / 2));
    }
    for (int i = 0; i < N; i++) {
        double want = 0, length = 0, v_length = 0;
        for (int64_t k = i * n_numbers; k < (i + 1) * n_numbers; k++) {
            want += (double)g[k] * (double)v[k];
            length += (double)g[k] * (double)g[k];
            v_length += (double)v[k] * (double)v[k];
        }
        const double got = (4 * (near[0][i] - near[1][i]) / h - (far[0][i] - far[1][i]) / (2 * h)) / 3;
        const double scale = sqrt(length * v_length);
        printf("  %-14s %-9s picture %d: %10.3e against %10.3e, off by %.1e of the largest\n", s->r->spec.name, what, i,
               want, got, fabs(got - want) / scale);
        const bool flat = strcmp(s->r->spec.name, "clipscore") == 0 && s->out[i] == 0; /* below 0 nothing pulls */
        CHECK(flat ? length == 0 : scale > 0 && fabs(got - want) <= tolerance * scale);
    }
}

/* Steps that change the value by about `change` along the gradient. */
static void check_differences(scored *s, double change) {
    const int64_t n = kac_tensor_count(s->images), n_numbers = n / N;
    float *x = kac_alloc((size_t)n * sizeof *x), *g = kac_alloc((size_t)n * sizeof *g),
          *v = kac_alloc((size_t)n * sizeof *v);
    if (!CHECK(x != NULL && g != NULL && v != NULL)) return;
    memcpy(x, s->images.data, (size_t)n * sizeof *x);
    memcpy(g, s->d.data, (size_t)n * sizeof *g);
    for (int i = 0; i < N; i++) { /* along the gradient, of a length that moves each by the same */
        double square = 0;
        for (int64_t k = i * n_numbers; k < (i + 1) * n_numbers; k++) square += (double)g[k] * (double)g[k];
        for (int64_t k = i * n_numbers; k < (i + 1) * n_numbers; k++)
            v[k] = square > 0 ? (float)((double)g[k] / square) : 0;
    }
    check_along(s, "steepest", x, g, v, change, 4e-3);
    kac_rng_normal(v, n, (kac_key){.seed = 5, .purpose = KAC_PURPOSE_TEST}, 0, 0);
    for (int64_t k = 0; k < n; k++) v[k] *= (float)fabs((double)g[k]); /* random signs, where it matters */
    for (int i = 0; i < N; i++) {
        double square = 0;
        for (int64_t k = i * n_numbers; k < (i + 1) * n_numbers; k++) square += (double)g[k] * (double)g[k];
        for (int64_t k = i * n_numbers; k < (i + 1) * n_numbers; k++)
            v[k] = square > 0 ? (float)((double)v[k] / square) : 0;
    }
    check_along(s, "random", x, g, v, change, 4e-3);
    kac_free(x), kac_free(g), kac_free(v);
}

static double cosine(kac_tensor a, kac_tensor b) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < kac_tensor_count(a); i++) {
        const double x = (double)((const float *)a.data)[i], y = (double)((const float *)b.data)[i];
        ab += x * y, aa += x * x, bb += y * y;
    }
    return ab / sqrt(aa * bb);
}

/* The same bits in any batches, the bytes of a plan, nearly the same in bf16. `all` stays open. */
static bool test_ways(scored *first, const char *spec, int w, int h) {
    scored alone, plan, half, all;
    if (!open_scored(first, kac_cpu_ops(), KAC_F32, spec, w, h, 0)) return false;
    all = *first;
    if (open_scored(&plan, &kac_plan_ops, KAC_F32, spec, w, h, 0)) {
        CHECK(plan.c.model.peak == all.c.model.used);
        if (!CHECK(plan.c.scratch.peak == all.c.scratch.peak))
            printf("  %s: plan %zu, real %zu bytes of scratch\n", spec, plan.c.scratch.peak, all.c.scratch.peak);
    }
    close_scored(&plan);
    CHECK(all.c.scratch.used == 0);
    if (open_scored(&alone, kac_cpu_ops(), KAC_F32, spec, w, h, 1)) {
        CHECK(memcmp(alone.out, all.out, sizeof all.out) == 0);
        CHECK(memcmp(alone.d.data, all.d.data, kac_tensor_bytes(all.d)) == 0);
    }
    close_scored(&alone);
    if (open_scored(&half, kac_cpu_ops(), KAC_BF16, spec, w, h, 2)) CHECK(cosine(half.d, all.d) > 0.98);
    close_scored(&half);
    return true;
}

static void test_reward(const char *spec, int w, int h, double change) {
    scored all;
    if (!test_ways(&all, spec, w, h)) return;
    check_differences(&all, change);
    close_scored(&all);
}

/* The value is the true size, and along the gradient it really changes. */
static void test_jpeg(int w, int h) {
    scored s;
    uint8_t *rgb = kac_alloc((size_t)(w * h * 3));
    if (!test_ways(&s, "compressibility=weights/jpeg-size", w, h) || !CHECK(rgb != NULL)) return;
    CHECK_TEXT(s.r->name, "compressibility");
    const int64_t n_numbers = (int64_t)w * h * 3;
    double before[N], after[2][N];
    float *x = s.images.data, *start = kac_alloc(kac_tensor_bytes(s.images));
    memcpy(start, x, kac_tensor_bytes(s.images));
    memcpy(before, s.out, sizeof before);
    for (int i = 0; i < N; i++) {
        double value;
        for (int64_t k = 0; k < n_numbers; k++) rgb[k] = (uint8_t)lrintf(255 * x[i * n_numbers + k]);
        CHECK_OK(kac_image_reward_score(s.r, &(kac_picture){rgb, w, h, 0}, 1, &value));
        CHECK(value == before[i] && value < -0.6);
    }
    for (int way = 0; way < 2; way++) { /* up: smaller files */
        memcpy(x, start, kac_tensor_bytes(s.images));
        for (int step = 0; step < 20; step++) {
            CHECK_OK(kac_image_reward_grad(s.r, s.images, prompt, s.out, s.d));
            for (int64_t k = 0; k < N * n_numbers; k++) {
                const float g = ((const float *)s.d.data)[k],
                            by = 0.02f * (1 - (float)step / 20) * g / (fabsf(g) + 1e-4f);
                x[k] = fminf(fmaxf(x[k] + (way == 0 ? by : -by), 0), 1);
            }
        }
        CHECK_OK(kac_image_reward_grad(s.r, s.images, prompt, after[way], s.d));
    }
    for (int i = 0; i < N; i++) {
        printf("  compressibility picture %d: %.3f, up %.3f, down %.3f\n", i, before[i], after[0][i], after[1][i]);
        CHECK(after[0][i] > 0.9 * before[i] && after[1][i] < 1.1 * before[i]);
    }
    kac_free(start), kac_free(rgb);
    close_scored(&s);
}

static void copy_file(const char *from, const char *dir) {
    char *data, *to = kac_path_join(dir, kac_path_base(from));
    size_t n;
    if (CHECK_OK(kac_file_read(&data, &n, from, 1 << 24))) CHECK_OK(kac_file_write(to, data, n));
    kac_free(data), kac_free(to);
}

static void test_golden(const char *name, const char *reward, const char *const *files, int n_files, double change) {
    golden g;
    if (!CHECK_OK(golden_open(&g, name))) return;
    for (int i = 0; i < n_files; i++) copy_file(files[i], g.dir);
    char *spec = kac_format("%s=%s", reward, g.dir);
    test_reward(spec, 47, 38, change);
    kac_free(spec);
    golden_close(&g);
}

/* A head on the shipped CLIP. */
static void test_aesthetic(void) {
    static float w1[24 * 256], b1[24], w2[24], b2[1];
    int64_t width = 0;
    kac_ctx c;
    kac_image_reward *r = NULL;
    CHECK_OK(kac_ctx_open(&c, &kac_plan_ops, KAC_F32, 1, NULL));
    for (width = 256; width > 0; width /= 2) { /* whatever the shipped CLIP's width is */
        golden_weights(w1, "w1", 24 * width, 0, 0.3), golden_weights(w2, "w2", 24, 0, 0.3);
        const kac_st_item head[] = {{"layers.0.weight", kac_tensor_make(w1, KAC_F32, 24, width)},
                                    {"layers.0.bias", kac_tensor_make(b1, KAC_F32, 24)},
                                    {"layers.2.weight", kac_tensor_make(w2, KAC_F32, 1, 24)},
                                    {"layers.2.bias", kac_tensor_make(b2, KAC_F32, 1)}};
        CHECK_OK(kac_st_write(temp_path("head.safetensors"), head, 4, NULL, 0));
        char *spec = kac_format("aesthetic=weights/shapes-clip+%s", temp_path("head.safetensors"));
        const kac_status s = kac_image_reward_open(&r, &c, spec);
        kac_image_reward_close(r);
        r = NULL;
        if (s == KAC_OK) test_reward(spec, 61, 45, 2e-2);
        kac_free(spec);
        if (s == KAC_OK) break;
    }
    CHECK(width > 0);
    kac_ctx_close(&c);
}

/* conv, max pool, average pool, linear; of grey pictures or coloured ones. */
static void test_classifier(int channels, const char *labels) {
    static float w1[6 * 3 * 9], b1[6], w2[5 * 6 * 9], b2[5], w3[4 * 5 * 9], b3[4];
    char config[512];
    golden_weights(w1, "a", 6 * channels * 9, 0, 0.4), golden_weights(w2, "b", 5 * 6 * 9, 0, 0.3);
    golden_weights(w3, "c", 4 * 5 * 9, 0, 0.5);
    const kac_st_item items[] = {
        {"a.weight", kac_tensor_make(w1, KAC_F32, 6, channels, 3, 3)}, {"a.bias", kac_tensor_make(b1, KAC_F32, 6)},
        {"b.weight", kac_tensor_make(w2, KAC_F32, 5, 6, 3, 3)},        {"b.bias", kac_tensor_make(b2, KAC_F32, 5)},
        {"c.weight", kac_tensor_make(w3, KAC_F32, 4, 5 * 9)},          {"c.bias", kac_tensor_make(b3, KAC_F32, 4)}};
    CHECK_OK(kac_dir_make(temp_path("cnn")));
    CHECK_OK(kac_st_write(temp_path("cnn/model.safetensors"), items, KAC_COUNT_OF(items), NULL, 0));
    snprintf(config, sizeof config,
             "{\"input\": {\"size\": 12, \"channels\": %d, \"mean\": [0.5], \"std\": [0.25], \"filter\": \"bicubic\"}, "
             "\"layers\": [{\"conv\": \"a\", \"padding\": 1, \"act\": \"silu\"}, {\"avg_pool\": 2}, "
             "{\"conv\": \"b\", \"padding\": 1, \"act\": \"gelu\"}, {\"max_pool\": 2}, {\"linear\": \"c\"}]}",
             channels);
    temp_write("cnn/config.json", config, strlen(config));
    char *spec = kac_format("classifier=\"%s:%s\"", temp_path("cnn"), labels);
    test_reward(spec, 29, 17, 2e-3);
    kac_free(spec);
}

static void test_refused(void) {
    kac_ctx c;
    if (!CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 1, NULL))) return;
    static const struct {
        const char *spec, *text;
    } cases[] = {{"shapes-judge", "reward shapes-judge has no gradient: it finds and counts shapes"},
                 {"shapes-share", "these have one: clip, clip-logit, clipscore, pickscore, hpsv2, aesthetic"},
                 {"shapes-count", "classifier"},
                 {"compressibility", "opened without the folder of its network"},
                 {"shapes-relation:2", "brightness, color"}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        kac_image_reward *r = NULL;
        kac_tensor images, d;
        double out[N];
        CHECK_OK(kac_take_make(&images, &c.run, KAC_F32, N, 8, 8, 3));
        CHECK_OK(kac_take_make(&d, &c.run, KAC_F32, N, 8, 8, 3));
        CHECK_OK(kac_image_reward_open(&r, &c, cases[i].spec));
        CHECK_OK(kac_image_reward_prepare(r, prompts, 2));
        CHECK_FAILS(kac_image_reward_grad(r, images, prompt, out, d), KAC_E_UNSUPPORTED, cases[i].text);
        kac_image_reward_close(r);
    }
    kac_ctx_close(&c);
}

int main(void) {
    static const char *const bert[] = {"tests/text/data/wordpiece/vocab.txt"},
                             *const shapes[] = {"tests/text/data/shapes/vocab.json",
                                                "tests/text/data/shapes/merges.txt",
                                                "tests/text/data/shapes/tokenizer_config.json"};
    test_reward("color=#204060", 19, 7, 1e-3);
    test_reward("brightness=0.9", 7, 19, 1e-2);
    test_reward("clip=weights/shapes-clip", 64, 64, 2e-2);
    test_reward("clip=weights/shapes-clip", 50, 81, 2e-2);
    test_reward("clip-logit=weights/shapes-clip", 64, 64, 0.5);
    test_reward("clipscore=weights/shapes-clip", 64, 64, 5e-2);
    test_aesthetic();
    test_golden("score/image_reward", "image-reward", bert, 1, 2e-2);
    test_golden("score/hpsv2", "hpsv2", shapes, 3, 1e-2);
    test_golden("score/mps", "mps", shapes, 3, 0.1);
    test_classifier(3, "2");
    test_classifier(1, "0+1+3");
    test_jpeg(48, 32);
    test_jpeg(45, 29);
    test_refused();
    return check_done();
}
