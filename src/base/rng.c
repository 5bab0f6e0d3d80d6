#include "philox.h"
#include <kac/rng.h>

kac_key kac_key_of_particle(kac_key key, uint64_t particle) {
    key.seed += (particle >> 32) * 0x9E3779B97F4A7C15u;
    return key;
}

void kac_rng_normal(float *out, int64_t n, kac_key key, uint32_t slot, int64_t first) {
    int64_t i = 0;
    while (i < n) {
        const int64_t element = first + i;
        float z[4];
        kac_philox_normal4(z, key, slot, (uint32_t)(element / 4));
        for (int64_t j = element % 4; j < 4 && i < n; j++) out[i++] = z[j];
    }
}

double kac_rng_uniform(kac_key key, uint32_t slot, int64_t index) {
    const kac_philox_block b = kac_philox(key, slot, (uint32_t)(index / 4));
    return ((double)b.v[index % 4] + 0.5) * 0x1p-32;
}
