#include "ref/ref.h"

kac_status kac_ref_randn(kac_ctx *c, const kac_randn_args *a) {
    const int64_t n_images = a->out.shape[0], count = kac_tensor_count(a->out) / n_images;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        kac_rng_normal((float *)a->out.data + n * a->out.stride[0], count, a->key, (uint32_t)a->slot[n], 0);
    return KAC_OK;
}
