/* Preprocessing of pictures against CLIPImageProcessor (Pillow). */
#include "check.h"
#include "reward/preprocess.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"

/* Largest difference over the stored elements: file is [1, 3, h, w], sampled; ours [h, w, 3]. */
static void compare(const golden *g, const char *name, const float *ours, int w, int h) {
    char key[64];
    snprintf(key, sizeof key, "out.%s", name);
    kac_tensor want;
    if (!CHECK_OK(kac_weights_find(&g->data, key, &want))) return;
    const cJSON *outputs = cJSON_GetObjectItemCaseSensitive(g->json.root, "outputs");
    const cJSON *stride_item =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(outputs, name), "stride");
    const int64_t stride = (int64_t)stride_item->valuedouble, n = kac_tensor_count(want);
    CHECK(n == ((int64_t)w * h * 3 + stride - 1) / stride);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = i * stride, c = at / (w * h), y = at / w % h, x = at % w;
        worst = fmax(worst, fabs((double)ours[(y * w + x) * 3 + c] - ((const float *)want.data)[i]));
    }
    printf("  %s/%s: largest difference %.2e\n", g->name, name, worst);
    CHECK(worst <= 1e-5);
}

static void test_case(const char *name) {
    golden g;
    if (!CHECK_OK(golden_open_data(&g, name))) return;
    char *text = cJSON_Print(cJSON_GetObjectItemCaseSensitive(g.json.root, "config"));
    temp_write("preprocessor_config.json", text, strlen(text));
    cJSON_free(text);
    kac_preprocess p;
    CHECK_OK(kac_preprocess_load(&p, temp_dir(), 1));
    kac_arena scratch;
    CHECK_OK(kac_arena_init(&scratch, "scratch", 64 << 20));
    const cJSON *pictures = cJSON_GetObjectItemCaseSensitive(g.json.root, "pictures");
    CHECK(cJSON_GetArraySize(pictures) > 0);
    for (const cJSON *item = pictures->child; item != NULL; item = item->next) {
        const int w = (int)cJSON_GetArrayItem(item, 0)->valuedouble, h = (int)cJSON_GetArrayItem(item, 1)->valuedouble;
        int ow, oh;
        kac_preprocess_size(&p, w, h, &ow, &oh);
        uint8_t *rgb = kac_alloc((size_t)w * (size_t)h * 3);
        float *out = kac_alloc((size_t)ow * (size_t)oh * 3 * sizeof *out);
        golden_picture(rgb, item->string, w, h);
        CHECK(kac_crc32(rgb, (size_t)w * (size_t)h * 3, 0) == (uint32_t)cJSON_GetArrayItem(item, 2)->valuedouble);
        CHECK_OK(kac_preprocess_apply(out, &p, rgb, w, h, &scratch));
        compare(&g, item->string, out, ow, oh);
        kac_free(rgb), kac_free(out);
    }
    CHECK(kac_arena_mark(&scratch) == 0);
    kac_arena_free(&scratch);
    golden_close(&g);
}

int main(void) {
    char names[GOLDEN_MAX_CASES][GOLDEN_MAX_NAME];
    const int n = golden_list(names, "image_processor");
    CHECK(n >= 3);
    for (int i = 0; i < n; i++) test_case(names[i]);
    return check_done();
}
