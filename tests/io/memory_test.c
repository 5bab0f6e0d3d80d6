#include "base/memory.h"
#include "check.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "text/tokenizer.h"
#include "util/temp.h"

/* Readers and writers when memory ends at any of their allocations: KAC_E_MEMORY, nothing leaked (the sanitizers' matter), nothing
 * left on disk. (Writing PNG is left out: stb loses its compressed rows then.) */

static kac_status read_safetensors(void) {
    kac_weights s;
    kac_tensor x;
    kac_status status = kac_weights_open(&s, "tests/io/data/safetensors/golden.safetensors");
    if (status == KAC_OK) status = kac_weights_find(&s, "b", &x);
    kac_weights_close(&s);
    return status;
}

static kac_status read_shards(void) {
    kac_weights s;
    const kac_status status = kac_weights_open_dir(&s, temp_path("shards"), "model");
    kac_weights_close(&s);
    return status;
}

static kac_status read_torch(void) {
    kac_weights s;
    kac_tensor x;
    kac_status status = kac_weights_open(&s, "tests/io/data/torch/training.ckpt");
    if (status == KAC_OK) status = kac_weights_find(&s, "deep", &x);
    kac_weights_close(&s);
    if (status == KAC_OK) status = kac_weights_open(&s, "tests/io/data/torch/old.pt");
    kac_weights_close(&s);
    return status;
}

static kac_status write_safetensors(void) {
    static float v[4];
    const kac_st_item items[] = {{"a", kac_tensor_make(v, KAC_F32, 4)}, {"b", kac_tensor_make(v, KAC_F32, 2)}};
    const kac_st_pair metadata[] = {{"format", "pt"}};
    return kac_st_write(temp_path("out/x.safetensors"), items, 2, metadata, 1);
}

static kac_status read_tokenizer(void) {
    kac_tokenizer *t;
    int32_t ids[32];
    KAC_TRY(kac_tokenizer_load(&t, "tests/text/data/shapes"));
    const kac_status status = kac_tokenizer_encode(ids, 32, NULL, t, "a red circle", 12);
    kac_tokenizer_free(t);
    return status;
}

static kac_status read_png(void) {
    kac_image image;
    kac_png_texts texts;
    KAC_TRY(kac_png_texts_read(&texts, "tests/io/data/images/text.png"));
    kac_png_texts_free(&texts);
    KAC_TRY(kac_image_load(&image, "tests/io/data/images/text.png"));
    kac_image_free(&image);
    return KAC_OK;
}

static kac_status read_jpeg(void) {
    kac_image image;
    KAC_TRY(kac_image_load(&image, "tests/io/data/images/smooth.jpg"));
    kac_image_free(&image);
    return KAC_OK;
}

static void starve(kac_status (*work)(void), const char *name) {
    enum { MAX_ALLOCATIONS = 2000 };
    kac_status status = KAC_E_MEMORY;
    int n = 0;
    while (status == KAC_E_MEMORY && n < MAX_ALLOCATIONS) {
        kac_alloc_fail_after(++n);
        status = work();
        kac_alloc_fail_after(0);
        if (status != KAC_OK) CHECK(temp_count(temp_path("out")) == 0);
    }
    if (!CHECK(status == KAC_OK && n > 1))
        printf("  %s, allocation %d: %s: %s\n", name, n, kac_status_text(status), kac_error());
}

int main(void) {
    char *data;
    size_t n;
    CHECK_OK(kac_dir_make(temp_path("out")));
    CHECK_OK(kac_dir_make(temp_path("shards")));
    CHECK_OK(kac_file_read(&data, &n, "tests/io/data/safetensors/test_deserialization.safetensors", 1 << 16));
    temp_write("shards/model-1.safetensors", data, n);
    kac_free(data);
    CHECK_OK(kac_file_read(&data, &n, "tests/io/data/safetensors/golden.safetensors", 1 << 16));
    temp_write("shards/model-2.safetensors", data, n);
    kac_free(data);
    const char *index = "{\"weight_map\":{\"test\":\"model-1.safetensors\",\"b\":\"model-2.safetensors\"}}";
    temp_write("shards/model.safetensors.index.json", index, strlen(index));
    starve(read_safetensors, "read safetensors");
    starve(read_shards, "read shards");
    starve(read_torch, "read torch");
    starve(read_tokenizer, "tokenizer");
    starve(read_png, "read png");
    starve(read_jpeg, "read jpeg");
    starve(write_safetensors, "write safetensors");
    return check_done();
}
