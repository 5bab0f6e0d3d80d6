/* Activations, per-channel scale and shift, linear combinations. */
#include "cpu/cpu.h"
#include "ref/ref.h"

enum { BLOCK = 16384 }; /* elements of a task */

kac_status kac_cpu_activate(kac_ctx *c, const kac_activate_args *a) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    if (a->x.dtype != a->out.dtype) return kac_ref_activate(c, a);
    const int64_t n = kac_tensor_count(a->x), size = a->x.dtype == KAC_BF16 ? 2 : 4;
    const int threads = kac_cpu_threads(c, 8.0 * (double)n);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += BLOCK)
        k->activate((char *)a->out.data + i * size, (const char *)a->x.data + i * size, KAC_MIN(BLOCK, n - i), a->act,
                    size == 2);
    return KAC_OK;
}

kac_status kac_cpu_affine(kac_ctx *c, const kac_affine_args *a) {
    if (a->x.dtype != a->out.dtype || a->scale.data == NULL || a->shift.data == NULL) return kac_ref_affine(c, a);
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n = a->x.shape[a->x.rank - 1], rows = n ? kac_tensor_count(a->x) / n : 0;
    const int64_t size = a->x.dtype == KAC_BF16 ? 2 : 4, block = KAC_MAX(1, BLOCK / KAC_MAX(1, n));
    const int threads = kac_cpu_threads(c, 2.0 * (double)(rows * n));
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < rows; r += block)
        k->scale_shift((char *)a->out.data + r * n * size, (const char *)a->x.data + r * n * size,
                       KAC_MIN(block, rows - r), n, NULL, a->scale.data, a->shift.data, KAC_ACT_NONE, size == 2);
    return KAC_OK;
}

static void lincomb_run(const struct kac_kernels *k, const kac_lincomb_args *a, int64_t image, int64_t first,
                        int64_t n) {
    const void *x[KAC_MAX_TERMS];
    bool bf16[KAC_MAX_TERMS];
    float coef[KAC_MAX_TERMS];
    for (int t = 0; t < a->n_terms; t++) {
        bf16[t] = a->x[t].dtype == KAC_BF16;
        x[t] = (const char *)a->x[t].data + (image * a->x[t].stride[0] + first) * (bf16[t] ? 2 : 4);
        coef[t] = (float)a->coef[t * a->n_coef + (a->n_coef == 1 ? 0 : image)];
    }
    const bool out_bf16 = a->out.dtype == KAC_BF16;
    char *out = (char *)a->out.data + (image * a->out.stride[0] + first) * (out_bf16 ? 2 : 4);
    k->lincomb(out, a->n_terms, x, bf16, coef, n, out_bf16);
}

kac_status kac_cpu_lincomb(kac_ctx *c, const kac_lincomb_args *a) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t images = a->out.shape[0], n = images ? kac_tensor_count(a->out) / images : 0;
    if (k->lincomb == NULL || a->out.rank == 0) return kac_ref_lincomb(c, a); /* no fused multiply-add in this set */
    const int threads = kac_cpu_threads(c, 4.0 * (double)(images * n));
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (int64_t image = 0; image < images; image++)
        for (int64_t i = 0; i < n; i += BLOCK) lincomb_run(k, a, image, i, KAC_MIN(BLOCK, n - i));
    return KAC_OK;
}
