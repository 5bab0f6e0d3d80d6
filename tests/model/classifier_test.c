/* ViTForImageClassification against transformers; networks described in JSON against the formula. */
#include "check.h"
#include "io/safetensors.h"
#include "model/cnn.h"
#include "model/vit_classifier.h"
#include "util/golden_run.h"
#include "util/golden_weights.h"
#include "util/temp.h"

static bool run(golden *g, kac_ctx *c) {
    kac_source source;
    kac_vit_classifier m = {0};
    kac_tensor pixels, logits = {0};
    if (!CHECK_OK(kac_source_open_dir(&source, g->dir, "model"))) return false;
    const bool fine =
        CHECK_OK(kac_vit_classifier_load(&m, c, &source)) && CHECK_OK(golden_input(&pixels, g, c, "pixel_values")) &&
        CHECK_OK(kac_vit_classifier_run(&logits, &m, c, pixels)) && CHECK(golden_output(g, "logits", logits));
    kac_vit_classifier_free(&m);
    kac_source_close(&source);
    return fine;
}

/* ---- the JSON network: conv 3×3 (stride 2, padding 1, relu), max pool, conv 2×2 without bias, linear ---- */

enum { SIZE = 13, C1 = 3, C2 = 4, N_OUT = 5 };
static float w1[C1 * 3 * 9], b1[C1], w2[C2 * C1 * 4], w3[N_OUT * C2 * 4], b3[N_OUT], image[2 * SIZE * SIZE * 3];

static const char config[] =
    "{\"input\": {\"size\": 13}, \"layers\": [{\"conv\": \"a\", \"stride\": 2, \"padding\": 1, \"act\": \"relu\"}, "
    "{\"max_pool\": 2}, {\"conv\": \"b\"}, {\"linear\": \"c\"}]}";

/* 13 → 7 → 3 → 2, in double. */
static void expected(double *out, const float *x) {
    static double a[C1][7][7], p[C1][3][3], b[C2][2][2];
    for (int o = 0; o < C1; o++)
        for (int i = 0; i < 49; i++) {
            double sum = b1[o];
            for (int k = 0; k < 27; k++) {
                const int ch = k / 9, y = i / 7 * 2 - 1 + k % 9 / 3, xx = i % 7 * 2 - 1 + k % 3;
                if (y >= 0 && y < SIZE && xx >= 0 && xx < SIZE)
                    sum += (double)w1[o * 27 + k] * x[(y * SIZE + xx) * 3 + ch];
            }
            a[o][i / 7][i % 7] = fmax(sum, 0);
        }
    for (int o = 0; o < C1; o++)
        for (int i = 0; i < 9; i++) {
            const int y = i / 3 * 2, xx = i % 3 * 2;
            p[o][i / 3][i % 3] = fmax(fmax(a[o][y][xx], a[o][y][xx + 1]), fmax(a[o][y + 1][xx], a[o][y + 1][xx + 1]));
        }
    for (int o = 0; o < C2; o++)
        for (int i = 0; i < 4; i++) {
            b[o][i / 2][i % 2] = 0;
            for (int k = 0; k < C1 * 4; k++)
                b[o][i / 2][i % 2] += (double)w2[o * C1 * 4 + k] * p[k / 4][i / 2 + k % 4 / 2][i % 2 + k % 2];
        }
    for (int o = 0; o < N_OUT; o++) {
        out[o] = b3[o];
        for (int k = 0; k < C2 * 4; k++) out[o] += (double)w3[o * C2 * 4 + k] * b[k / 4][k % 4 / 2][k % 2];
    }
}

static void write_network(void) {
    golden_weights(w1, "a", C1 * 27, 0, 0.3), golden_weights(b1, "ab", C1, 0, 0.1),
        golden_weights(w2, "b", C2 * C1 * 4, 0, 0.3);
    golden_weights(w3, "c", N_OUT * C2 * 4, 0, 0.3), golden_weights(b3, "cb", N_OUT, 0, 0.1);
    const kac_st_item items[] = {{"a.weight", kac_tensor_make(w1, KAC_F32, C1, 3, 3, 3)},
                                 {"a.bias", kac_tensor_make(b1, KAC_F32, C1)},
                                 {"b.weight", kac_tensor_make(w2, KAC_F32, C2, C1, 2, 2)},
                                 {"c.weight", kac_tensor_make(w3, KAC_F32, N_OUT, C2 * 4)},
                                 {"c.bias", kac_tensor_make(b3, KAC_F32, N_OUT)}};
    CHECK_OK(kac_dir_make(temp_path("cnn")));
    CHECK_OK(kac_st_write(temp_path("cnn/model.safetensors"), items, KAC_COUNT_OF(items), NULL, 0));
}

static kac_status load(kac_cnn *m, kac_ctx *c, const char *text) {
    kac_source source;
    temp_write("cnn/config.json", text, strlen(text));
    KAC_TRY(kac_source_open_dir(&source, temp_path("cnn"), "model"));
    const kac_status s = kac_cnn_load(m, c, &source);
    kac_source_close(&source);
    return s;
}

static void test_cnn(const struct kac_ops *ops, kac_dtype dtype, double tolerance) {
    kac_ctx c;
    static kac_cnn m;
    kac_tensor out = {0};
    if (!CHECK_OK(kac_ctx_open(&c, ops, dtype, 2, NULL))) return;
    golden_weights(image, "image", 2 * SIZE * SIZE * 3, 0, 1);
    if (CHECK_OK(load(&m, &c, config)) && CHECK(m.n_out == N_OUT && m.channels == 3) &&
        CHECK_OK(kac_cnn_run(&out, &m, &c, kac_tensor_make(image, KAC_F32, 2, SIZE, SIZE, 3))))
        for (int n = 0; n < 2; n++) {
            double want[N_OUT];
            expected(want, image + n * SIZE * SIZE * 3);
            for (int i = 0; i < N_OUT; i++) CHECK_NEAR(((float *)out.data)[n * N_OUT + i], want[i], tolerance);
        }
    kac_ctx_close(&c);
}

static void test_refused(void) {
    kac_ctx c;
    static kac_cnn m;
    if (!CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 1, NULL))) return;
    CHECK_FAILS(load(&m, &c, "{\"layers\": []}"), KAC_E_FORMAT, "\"input\" must be an object");
    CHECK_FAILS(load(&m, &c, "{\"input\": {}, \"layers\": []}"), KAC_E_UNSUPPORTED, "\"size\"");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 13}, \"layers\": []}"), KAC_E_UNSUPPORTED, "must be linear");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 13}, \"layers\": [3]}"), KAC_E_FORMAT, "objects");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 13}, \"layers\": [{\"act\": \"relu\"}]}"), KAC_E_FORMAT,
                "one of conv");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 2}, \"layers\": [{\"conv\": \"a\"}]}"), KAC_E_SHAPE,
                "does not fit");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 13}, \"layers\": [{\"conv\": \"x\"}]}"), KAC_E_SHAPE, "kernel 0");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 12}, \"layers\": [{\"linear\": \"c\"}]}"), KAC_E_SHAPE,
                "c.weight is");
    CHECK_FAILS(load(&m, &c, "{\"input\": {\"size\": 13}, \"layers\": [{\"max_pool\": 3}]}"), KAC_E_UNSUPPORTED,
                "max_pool");
    kac_ctx_close(&c);
}

int main(void) {
    CHECK(golden_run("vit_classifier", run) == 0);
    write_network();
    test_cnn(&kac_ref_ops, KAC_F32, 1e-6);
    test_cnn(kac_cpu_ops(), KAC_F32, 2e-6);
    test_cnn(kac_cpu_ops(), KAC_BF16, 3e-2);
    test_refused();
    return check_done();
}
