#include "fuzz/fuzz.h"
#include "io/image.h"
#include <string.h>

/* With right checksums the reader goes on to what the chunks hold. */
static void repair_checksums(uint8_t *png, size_t n) {
    for (size_t at = 8; n >= 12 && at <= n - 12;) {
        const size_t n_chunk =
            (size_t)png[at] << 24 | (size_t)png[at + 1] << 16 | (size_t)png[at + 2] << 8 | png[at + 3];
        if (n_chunk > n - at - 12) return;
        const uint32_t crc = kac_crc32(png + at + 4, n_chunk + 4, 0);
        for (int i = 0; i < 4; i++) png[at + 8 + n_chunk + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + n_chunk;
    }
}

static void read_texts(const uint8_t *data, size_t n) {
    kac_png_texts texts;
    if (kac_png_texts_parse(&texts, data, n, "fuzz") != KAC_OK) {
        if (texts.n != 0 || texts.items != NULL) abort();
        return;
    }
    for (int i = 0; i < texts.n; i++)
        if (kac_png_texts_get(&texts, texts.items[i].key) == NULL || strlen(texts.items[i].value) > 2 * n) abort();
    kac_png_texts_free(&texts);
}

static volatile uint8_t sink; /* reading is the check */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    read_texts(data, n);
    uint8_t *repaired = malloc(n + 1);
    memcpy(repaired, data, n);
    repair_checksums(repaired, n);
    read_texts(repaired, n);
    free(repaired);
    int width, height;
    kac_image image; /* small ones only: a large picture takes long and shows nothing else */
    if (kac_image_probe(&width, &height, data, n, "fuzz") == KAC_OK && (int64_t)width * height <= 1 << 16 &&
        kac_image_decode(&image, data, n, "fuzz") == KAC_OK) {
        for (int i = 0; i < image.width * image.height * 3; i++) sink ^= image.rgb[i];
        kac_image_free(&image);
    }
    return 0;
}
