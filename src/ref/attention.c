#include "ref/ref.h"

#include <omp.h>

/* One query: scores[s] = scale q·k[s], then softmax, then out = Σ p[s] v[s]. */
static void query(const kac_attention_args *a, int64_t n, int64_t t, int64_t head, double *scores, double *sum) {
    const int64_t d = a->q.shape[3], n_keys = a->o.causal ? t + 1 : a->k.shape[1];
    const int64_t row = a->o.kv_row != NULL ? a->o.kv_row[n] : n;
    const int64_t q = n * a->q.stride[0] + t * a->q.stride[1] + head * a->q.stride[2];
    const int64_t k = row * a->k.stride[0] + head * a->k.stride[2], v = row * a->v.stride[0] + head * a->v.stride[2];
    double max = -INFINITY, total = 0;
    for (int64_t s = 0; s < n_keys; s++) {
        scores[s] =
            a->o.scale * kac_ref_dot(a->q.data, a->q.dtype, q, a->k.data, a->k.dtype, k + s * a->k.stride[1], d);
        if (!(scores[s] <= max)) max = scores[s]; /* a NaN is carried on, not dropped */
    }
    memset(sum, 0, (size_t)d * sizeof *sum);
    for (int64_t s = 0; s < n_keys; s++) {
        const double p = exp(scores[s] - max);
        total += p;
        for (int64_t i = 0; i < d; i++) sum[i] += p * kac_ref_load(&a->v, v + s * a->v.stride[1] + i);
    }
    const int64_t at = ((n * a->out.shape[1] + t) * a->out.shape[2] + head) * d;
    for (int64_t i = 0; i < d; i++) kac_ref_store(&a->out, at + i, sum[i] / total);
}

/* Per thread: scores of all keys, and the sum of one query. */
static size_t buffer_count(const kac_attention_args *a) {
    return (size_t)(a->k.shape[1] + a->q.shape[3]);
}

size_t kac_ref_attention_scratch(const kac_ctx *c, const kac_attention_args *a) {
    return buffer_count(a) * (size_t)c->n_threads * sizeof(double);
}

kac_status kac_ref_attention(kac_ctx *c, const kac_attention_args *a) {
    const int64_t n_images = a->q.shape[0], n_queries = a->q.shape[1], heads = a->q.shape[2];
    const size_t mark = kac_arena_mark(&c->scratch);
    double *buffers = kac_arena_take(&c->scratch, kac_ref_attention_scratch(c, a));
    if (buffers == NULL) return KAC_E_MEMORY;
#pragma omp parallel for collapse(3) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t t = 0; t < n_queries; t++) {
                double *buffer = buffers + (size_t)omp_get_thread_num() * buffer_count(a);
                query(a, n, t, head, buffer, buffer + a->k.shape[1]);
            }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
