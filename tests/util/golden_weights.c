#include "util/golden_weights.h"
#include "base/base.h"
#include <string.h>

/* lowbias32 (C. Wellons, hash-prospector). */
static uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

static uint32_t bits_of_key(uint32_t key, uint32_t index) {
    return mix(mix(index) ^ key);
}

uint32_t golden_bits(const char *name, uint32_t index) {
    return bits_of_key(kac_crc32(name, strlen(name), 0), index);
}

void golden_weights(float *out, const char *name, int64_t n, double offset, double scale) {
    const uint32_t key = kac_crc32(name, strlen(name), 0);
    for (int64_t i = 0; i < n; i++) {
        const double u = (double)(bits_of_key(key, (uint32_t)i) >> 8) / 8388608.0 - 1.0;
        out[i] = (float)(offset + scale * u); /* the product of two f32 is exact in double: nothing to disagree on */
    }
}

void golden_picture(uint8_t *out, const char *name, int width, int height) {
    const uint32_t key = kac_crc32(name, strlen(name), 0);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const int ramp[3] = {255 * x / KAC_MAX(width - 1, 1), 255 * y / KAC_MAX(height - 1, 1),
                                 255 * (x + y) / KAC_MAX(width + height - 2, 1)};
            const int board = ((x / 8 + y / 8) & 1) * 60 - 30;
            for (int c = 0; c < 3; c++) {
                const uint32_t i = (uint32_t)((y * width + x) * 3 + c);
                const int noise = (int)(bits_of_key(key, i) >> 26) - 32;
                out[i] = (uint8_t)KAC_MIN(KAC_MAX(ramp[c] + board + noise, 0), 255);
            }
        }
}
