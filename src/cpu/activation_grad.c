/* Backward of activations, per-channel scale and shift, linear combinations. */
#include "cpu/cpu.h"
#include "ref/ref.h"

enum { BLOCK = 16384 }; /* elements of a task */

void kac_cpu_add(kac_ctx *c, float *to, const float *from, int64_t n, float by) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    if (to == NULL) return;
    const int threads = kac_cpu_threads(c, 4.0 * (double)n);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += BLOCK) k->add(to + i, from + i, KAC_MIN(BLOCK, n - i), by);
}

kac_status kac_cpu_activate_grad(kac_ctx *c, const kac_activate_args *a, const kac_grads *g) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n = kac_tensor_count(a->x), size = a->x.dtype == KAC_BF16 ? 2 : 4;
    const float *dy = g->out.data;
    float *dx = g->in[KAC_IN_X].data;
    const int threads = kac_cpu_threads(c, 12.0 * (double)n);
    if (dx == NULL) return KAC_OK;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += BLOCK)
        k->act_grad(dx + i, (const char *)a->x.data + i * size, dy + i, KAC_MIN(BLOCK, n - i), a->act, size == 2, true);
    return KAC_OK;
}

kac_status kac_cpu_lincomb_grad(kac_ctx *c, const kac_lincomb_args *a, const kac_grads *g) {
    const int64_t n_images = a->out.shape[0], count = kac_tensor_count(a->out) / n_images;
    for (int t = 0; t < a->n_terms; t++) {
        const kac_tensor *dx = &g->in[t];
        for (int64_t n = 0; n < n_images && dx->data != NULL; n++)
            kac_cpu_add(c, (float *)dx->data + n * dx->stride[0], (const float *)g->out.data + n * count, count,
                        (float)a->coef[t * a->n_coef + (a->n_coef == 1 ? 0 : n)]);
    }
    return KAC_OK;
}
