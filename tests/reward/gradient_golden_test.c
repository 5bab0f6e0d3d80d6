/* Gradients of rewards by pictures, of preprocessing, and of CLIP's text tower by its weights, against PyTorch in float64
 * (tools/golden_reward_grad.py). */
#include "check.h"
#include "io/safetensors.h"
#include "model/clip_net.h"
#include "reward/image_reward.h"
#include "reward/preprocess_tensor.h"
#include "tensor/tape.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"
#include <stdlib.h>

static const char *const prompts[] = {"a red circle above a blue square", "two large green stars"};
static const struct {
    const char *name, *d, *seed;
    int width, height;
} shown[2] = {{"a", "d.a", "seed.a", 47, 38}, {"b", "d.b", "seed.b", 31, 53}};

/* One golden file, and a context to compute in. */
typedef struct given {
    const char *name;
    kac_weights data;
    kac_ctx c;
} given;

static bool open_given(given *v, const char *name) {
    char path[128];
    snprintf(path, sizeof path, "tests/golden/reward_grad/%s.safetensors", name);
    *v = (given){.name = name};
    return CHECK_OK(kac_weights_open(&v->data, path)) && CHECK_OK(kac_ctx_open(&v->c, kac_cpu_ops(), KAC_F32, 2, NULL));
}

static void close_given(given *v) {
    kac_weights_close(&v->data);
    kac_ctx_close(&v->c);
}

static const float *numbers(const given *v, const char *name) {
    kac_tensor t;
    return CHECK_OK(kac_weights_find(&v->data, name, &t)) ? t.data : NULL;
}

/* Ours [h, w, 3] (or any order when channels is 0) against the file's [3, h, w]: relative L2 within 1e-5, or six times what PyTorch's own
 * float32 run is off. */
static void check_gradient(const given *v, const char *name, const float *ours, int64_t n, bool is_picture) {
    const float *want = numbers(v, name), *off = numbers(v, "reference_f32_error");
    double square = 0, norm = 0;
    if (want == NULL || off == NULL) return;
    for (int64_t i = 0; i < n; i++) {
        const double y = (double)want[is_picture ? i % 3 * (n / 3) + i / 3 : i];
        square += pow((double)ours[i] - y, 2), norm += y * y;
    }
    const double error = sqrt(square / norm), tolerance = KAC_MAX(1e-5, 6 * (double)off[0]);
    printf("  %-14s %-22s %.1e, %.1f %% of the tolerance\n", v->name, name, error, 100 * error / tolerance);
    CHECK(error <= tolerance);
}

static kac_tensor picture_of(given *v, int i) {
    const int w = shown[i].width, h = shown[i].height;
    kac_tensor t = {0};
    uint8_t *rgb = kac_alloc((size_t)(w * h * 3));
    if (CHECK(rgb != NULL) && CHECK_OK(kac_take_make(&t, &v->c.run, KAC_F32, 1, h, w, 3))) {
        golden_picture(rgb, shown[i].name, w, h);
        for (int k = 0; k < w * h * 3; k++) ((float *)t.data)[k] = (float)rgb[k] / 255.0f;
    }
    kac_free(rgb);
    return t;
}

/* ---- rewards ---- */

static void test_reward(const char *name, const char *spec) {
    given v;
    kac_image_reward *r = NULL;
    if (!open_given(&v, name)) return;
    const float *values = numbers(&v, "value");
    if (CHECK_OK(kac_image_reward_open(&r, &v.c, spec)) && CHECK_OK(kac_image_reward_prepare(r, prompts, 2)))
        for (int i = 0; i < 2; i++) {
            kac_tensor x = picture_of(&v, i), d;
            double out;
            CHECK_OK(kac_take(&d, &v.c.run, KAC_F32, 4, x.shape));
            if (!CHECK_OK(kac_image_reward_grad(r, x, &i, &out, d))) continue;
            CHECK_NEAR(out, values[i], 2e-5 * fmax(1, fabs((double)values[i])));
            check_gradient(&v, shown[i].d, d.data, kac_tensor_count(d), true);
        }
    kac_image_reward_close(r);
    close_given(&v);
}

static void copy_file(const char *from, const char *dir) {
    char *data, *to = kac_path_join(dir, kac_path_base(from));
    size_t n;
    if (CHECK_OK(kac_file_read(&data, &n, from, 1 << 24))) CHECK_OK(kac_file_write(to, data, n));
    kac_free(data), kac_free(to);
}

/* Of a case of tests/golden/score, with its tokenizer. */
static void test_scored(const char *name, const char *reward, const char *const *files, int n_files) {
    golden g;
    char *model = kac_format("score/%s", name);
    if (CHECK_OK(golden_open(&g, model))) {
        for (int i = 0; i < n_files; i++) copy_file(files[i], g.dir);
        char *spec = kac_format("%s=%s", reward, g.dir);
        test_reward(name, spec);
        kac_free(spec);
        golden_close(&g);
    }
    kac_free(model);
}

static void test_aesthetic(void) {
    enum { WIDTH = 128, INNER = 24 };
    static float w1[INNER * WIDTH], w2[INNER], zeros[INNER];
    golden_weights(w1, "w1", INNER * WIDTH, 0, 0.3), golden_weights(w2, "w2", INNER, 0, 0.3);
    const kac_st_item head[] = {{"layers.0.weight", kac_tensor_make(w1, KAC_F32, INNER, WIDTH)},
                                {"layers.0.bias", kac_tensor_make(zeros, KAC_F32, INNER)},
                                {"layers.2.weight", kac_tensor_make(w2, KAC_F32, 1, INNER)},
                                {"layers.2.bias", kac_tensor_make(zeros, KAC_F32, 1)}};
    CHECK_OK(kac_st_write(temp_path("head.safetensors"), head, 4, NULL, 0));
    char *spec = kac_format("aesthetic=weights/shapes-clip+%s", temp_path("head.safetensors"));
    test_reward("aesthetic", spec);
    kac_free(spec);
}

/* The file has the derivative of bits, the reward that of kB. */
static void test_jpeg_size(void) {
    given v;
    kac_image_reward *r = NULL;
    if (!open_given(&v, "jpeg_size")) return;
    if (CHECK_OK(kac_image_reward_open(&r, &v.c, "incompressibility=weights/jpeg-size")))
        for (int i = 0; i < 2; i++) {
            kac_tensor x = picture_of(&v, i), d;
            double out;
            CHECK_OK(kac_take(&d, &v.c.run, KAC_F32, 4, x.shape));
            if (!CHECK_OK(kac_image_reward_grad(r, x, &i, &out, d))) continue;
            for (int64_t k = 0; k < kac_tensor_count(d); k++) ((float *)d.data)[k] *= 8000;
            check_gradient(&v, shown[i].d, d.data, kac_tensor_count(d), true);
            const double kb = (625 + (double)numbers(&v, "value")[i] / 8) / 1000; /* and how close the network is */
            printf("  %-14s %-22s %.3f kB, the network says %.3f\n", v.name, shown[i].name, out, kb);
            CHECK_NEAR(kb, out, 0.05 * out);
        }
    kac_image_reward_close(r);
    close_given(&v);
}

/* ---- preprocessing ---- */

static kac_status carry_back(given *v, kac_grad_tape *t, const kac_preprocess *p, int i, kac_tensor x, kac_tensor d) {
    kac_tensor out = {0}, seed;
    KAC_TRY(kac_tape_watch(t, x, d));
    kac_tape_start(t);
    const kac_status s = kac_preprocess_tensor(&v->c, &out, p, x);
    kac_tape_stop(t);
    KAC_TRY(s);
    KAC_TRY(kac_take(&seed, &v->c.run, KAC_F32, 4, out.shape));
    const float *from = numbers(v, shown[i].seed);
    const int64_t n = kac_tensor_count(seed);
    for (int64_t k = 0; k < n && from != NULL; k++) ((float *)seed.data)[k] = from[k % 3 * (n / 3) + k / 3];
    KAC_TRY(kac_tape_seed(t, out, seed));
    return kac_tape_replay(t);
}

static void test_preprocess(const char *name, kac_resize_filter filter) {
    given v;
    kac_grad_tape t;
    if (!open_given(&v, name)) return;
    kac_preprocess p = kac_preprocess_clip(40);
    p.filter = filter, p.crop_rule = KAC_CROP_EVEN;
    for (int i = 0; i < 2; i++) {
        kac_tensor x = picture_of(&v, i), d;
        CHECK_OK(kac_take(&d, &v.c.run, KAC_F32, 4, x.shape));
        memset(d.data, 0, kac_tensor_bytes(d));
        CHECK_OK(kac_tape_open(&t, &v.c, 0));
        if (CHECK_OK(carry_back(&v, &t, &p, i, x, d)))
            check_gradient(&v, shown[i].d, d.data, kac_tensor_count(d), true);
        kac_tape_close(&t);
    }
    close_given(&v);
}

/* ---- CLIP's text tower by its weights ---- */

enum { MAX_WATCHED = 8 };

typedef struct watched {
    const char *name[3]; /* in the file; q, k, v are rows of one weight */
    kac_tensor x, grad;
} watched;

static kac_status clip_text_gradients(given *v, kac_clip *m, watched *w, int n, const int32_t *ids, int64_t rows,
                                      int64_t columns) {
    kac_grad_tape t;
    kac_tensor embeds = {0}, seed;
    KAC_TRY(kac_tape_open(&t, &v->c, 0));
    for (int i = 0; i < n; i++) {
        KAC_TRY(kac_take(&w[i].grad, &v->c.run, KAC_F32, w[i].x.rank, w[i].x.shape));
        memset(w[i].grad.data, 0, kac_tensor_bytes(w[i].grad));
        KAC_TRY(kac_tape_watch(&t, w[i].x, w[i].grad));
    }
    kac_tape_start(&t);
    kac_status s = kac_clip_text_embeds(&embeds, m, &v->c, ids, rows, columns, false);
    kac_tape_stop(&t);
    if (s == KAC_OK) s = kac_weights_find(&v->data, "seed", &seed);
    if (s == KAC_OK) s = kac_tape_seed(&t, embeds, seed);
    if (s == KAC_OK) s = kac_tape_replay(&t);
    kac_tape_close(&t);
    return s;
}

static void test_clip_text(void) {
    enum { MAX_IDS = 256 };
    given v;
    golden g;
    kac_clip *m = NULL;
    int32_t ids[MAX_IDS];
    int64_t rows, columns;
    if (!open_given(&v, "clip_text") || !CHECK_OK(golden_open(&g, "clip/patch_14"))) return;
    if (CHECK_OK(kac_clip_load(&m, &v.c, g.dir)) &&
        CHECK_OK(golden_ids(&g, "input_ids", ids, MAX_IDS, &rows, &columns))) {
        watched w[] = {{.name = {"d.token_embedding"}, .x = m->token_table},
                       {.name = {"d.position_embedding"}, .x = m->position_table},
                       {.name = {"d.q", "d.k", "d.v"}, .x = kac_weight_identity(&m->text.layer[0].qkv.w)},
                       {.name = {"d.fc1"}, .x = kac_weight_identity(&m->text.layer[0].fc1.w)},
                       {.name = {"d.text_projection"}, .x = kac_weight_identity(&m->text_projection.w)}};
        if (CHECK_OK(clip_text_gradients(&v, m, w, KAC_COUNT_OF(w), ids, rows, columns)))
            for (int i = 0; i < KAC_COUNT_OF(w); i++) {
                const int n_parts = w[i].name[1] == NULL ? 1 : 3;
                const int64_t n = kac_tensor_count(w[i].grad) / n_parts;
                for (int k = 0; k < n_parts; k++)
                    check_gradient(&v, w[i].name[k], (const float *)w[i].grad.data + k * n, n, false);
            }
    }
    kac_clip_free(m);
    golden_close(&g);
    close_given(&v);
}

int main(void) {
    static const char *const bert[] = {"tests/text/data/wordpiece/vocab.txt"},
                             *const shapes[] = {"tests/text/data/shapes/vocab.json",
                                                "tests/text/data/shapes/merges.txt",
                                                "tests/text/data/shapes/tokenizer_config.json"};
    test_reward("clip", "clip=weights/shapes-clip");
    test_aesthetic();
    test_scored("image_reward", "image-reward", bert, 1);
    test_scored("mps", "mps", shapes, 3);
    test_jpeg_size();
    test_preprocess("bicubic", KAC_RESIZE_BICUBIC);
    test_preprocess("bilinear", KAC_RESIZE_BILINEAR);
    test_clip_text();
    return check_done();
}
