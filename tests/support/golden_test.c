/* The golden files themselves: every case opens, the weights' formula gives the reference's bits, and the comparison
 * sees a wrong element, a wrong layout and a wrong shape. */
#include "check.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include <stdlib.h>

static const char *const families[] = {"unet", "unet_plain", "vae", "tiny", "clip_text", "clip"};
static const int n_least[] = {14, 4, 4, 4, 4, 4};

static void test_every_case_opens(void) {
    static char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME];
    for (int f = 0; f < KAC_COUNT_OF(families); f++) {
        const int n = golden_list(names, families[f]);
        CHECK(n >= n_least[f]);
        for (int i = 0; i < n; i++) {
            golden g;
            if (!CHECK_OK(golden_open(&g, names[i]))) continue;
            char dir[GOLDEN_MAX_NAME];
            snprintf(dir, sizeof dir, "%s", g.dir);
            kac_weights weights = {0};
            const char *file = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(g.json.root, "file"));
            char *path = kac_path_join(g.dir, file);
            if (CHECK_OK(kac_weights_open(&weights, path)))
                CHECK(weights.n_entries >=
                      cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(g.json.root, "weights")));
            kac_weights_close(&weights);
            kac_free(path);
            CHECK(golden_class(&g)[0] != '\0');
            golden_close(&g);
            CHECK(!kac_dir_exists(dir));
        }
    }
}

/* Numbers from the formula's other implementation, tools/make_golden.py. */
static void test_formula(void) {
    float w[3];
    golden_weights(w, "conv_in.weight", 3, 0.25, 0.5);
    CHECK(w[0] == 0x1.54ea700000000p-1f);
    CHECK(w[1] == 0x1.b644780000000p-3f);
    CHECK(w[2] == -0x1.f0f1800000000p-6f);
}

/* The stored output of a case laid out as ours: NHWC. Caller frees. */
static float *stored_as_nhwc(const golden *g, int64_t n, int64_t c, int64_t h, int64_t w) {
    kac_tensor stored;
    float *ours = kac_alloc((size_t)(n * c * h * w) * sizeof *ours);
    if (ours == NULL || !CHECK_OK(kac_weights_find(&g->data, "out.sample", &stored))) return ours;
    if (!CHECK(kac_tensor_count(stored) == n * c * h * w)) return ours;
    const float *theirs = stored.data;
    for (int64_t i = 0; i < n * c * h * w; i++) {
        const int64_t x = i % w, y = i / w % h, channel = i / w / h % c, image = i / w / h / c;
        ours[((image * h + y) * w + x) * c + channel] = theirs[i];
    }
    return ours;
}

static void test_comparison(void) {
    golden g;
    if (!CHECK_OK(golden_open_data(&g, "unet/mish_odd"))) return;
    CHECK(!golden_done(&g)); /* nothing was compared */
    float *ours = stored_as_nhwc(&g, 2, 4, 7, 5);
    CHECK(golden_output(&g, "sample", kac_tensor_make(ours, KAC_F32, 2, 7, 5, 4)));
    CHECK(g.reports[0].error == 0);
    CHECK(golden_done(&g));
    CHECK(!golden_output(&g, "sample", kac_tensor_make(ours, KAC_F32, 2, 5, 7, 4)));
    CHECK(!golden_output(&g, "sample", kac_tensor_make(ours, KAC_F32, 2, 4, 7, 5)));
    CHECK(!golden_output(&g, "no such output", kac_tensor_make(ours, KAC_F32, 2, 7, 5, 4)));
    ours[17] += 0.01f;
    CHECK(!golden_output(&g, "sample", kac_tensor_make(ours, KAC_F32, 2, 7, 5, 4)));
    CHECK(!golden_done(&g));
    ours[17] = NAN;
    CHECK(!golden_output(&g, "sample", kac_tensor_make(ours, KAC_F32, 2, 7, 5, 4)));
    kac_free(ours);
    golden_close(&g);
}

static void test_pipeline_folder(void) {
    golden g;
    if (!CHECK_OK(golden_open_pipeline(&g, "pipeline/tiny"))) return;
    static const char *const files[] = {"model_index.json",
                                        "scheduler/scheduler_config.json",
                                        "tokenizer/vocab.json",
                                        "unet/config.json",
                                        "unet/diffusion_pytorch_model.safetensors",
                                        "vae/config.json",
                                        "text_encoder/model.safetensors"};
    for (int i = 0; i < KAC_COUNT_OF(files); i++) {
        char *path = kac_path_join(g.dir, files[i]);
        if (!CHECK(kac_file_exists(path))) printf("%s is missing\n", path);
        kac_free(path);
    }
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(g.json.root, "runs")) >= 4);
    char dir[GOLDEN_MAX_NAME];
    snprintf(dir, sizeof dir, "%s", g.dir);
    golden_close(&g);
    CHECK(!kac_dir_exists(dir));
}

static void test_pictures(void) {
    golden g;
    if (!CHECK_OK(golden_open_data(&g, "image_processor/shapes_64"))) return;
    const cJSON *picture = NULL;
    cJSON_ArrayForEach(picture, cJSON_GetObjectItemCaseSensitive(g.json.root, "pictures")) {
        const int width = (int)cJSON_GetNumberValue(cJSON_GetArrayItem(picture, 0));
        const int height = (int)cJSON_GetNumberValue(cJSON_GetArrayItem(picture, 1));
        const size_t n = (size_t)width * (size_t)height * 3;
        uint8_t *pixels = kac_alloc(n);
        golden_picture(pixels, picture->string, width, height);
        CHECK((double)kac_crc32(pixels, n, 0) == cJSON_GetNumberValue(cJSON_GetArrayItem(picture, 2)));
        kac_free(pixels);
    }
    golden_close(&g);
}

int main(void) {
    test_pipeline_folder();
    test_pictures();
    test_formula();
    test_every_case_opens();
    test_comparison();
    return check_done();
}
