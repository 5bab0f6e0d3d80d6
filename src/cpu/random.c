/* Normals: values are functions of their place, so threads take runs of any image. */
#include "cpu/cpu.h"

enum { BLOCK = 4096 }; /* a multiple of the 4 values of one counter */

kac_status kac_cpu_randn(kac_ctx *c, const kac_randn_args *a) {
    const int64_t images = a->out.shape[0], n = images ? kac_tensor_count(a->out) / images : 0;
    const int threads = kac_cpu_threads(c, 100.0 * (double)(images * n));
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (int64_t image = 0; image < images; image++)
        for (int64_t i = 0; i < n; i += BLOCK)
            kac_rng_normal((float *)a->out.data + image * n + i, KAC_MIN(BLOCK, n - i), a->key,
                           (uint32_t)a->slot[image], i);
    return KAC_OK;
}
