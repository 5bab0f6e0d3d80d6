#include "ref/ref.h"

/* The one op in f32: solver states must have the same bits on every backend, so the roundings are part of the contract.
 * The first term is a product, every further one a fused multiply-add. */
kac_status kac_ref_lincomb(kac_ctx *c, const kac_lincomb_args *a) {
    const int64_t n_images = a->out.shape[0], count = kac_tensor_count(a->out) / n_images;
    const kac_tensor *out = &a->out;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t i = 0; i < count; i++) {
            float sum = 0;
            for (int t = 0; t < a->n_terms; t++) {
                const kac_tensor *x = &a->x[t];
                const float coef = (float)a->coef[t * a->n_coef + (a->n_coef == 1 ? 0 : n)];
                const float value = (float)kac_ref_load(x, n * x->stride[0] + i);
                sum = t == 0 ? coef * value : fmaf(coef, value, sum);
            }
            kac_ref_store(out, n * out->stride[0] + i, sum);
        }
    return KAC_OK;
}
