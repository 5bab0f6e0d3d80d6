#include "ref/ref.h"

#include <omp.h>

/* Per thread, in double: of one query the probabilities, dL/dp and dq; of one (row, head) dk and dv. */
typedef struct buffers {
    double *p, *dp, *dq, *dk, *dv;
} buffers;

static size_t buffer_count(const kac_attention_args *a) {
    return (size_t)(2 * a->k.shape[1] + a->q.shape[3] + 2 * a->k.shape[1] * a->q.shape[3]);
}

size_t kac_ref_attention_grad_scratch(const kac_attention_args *a) {
    return buffer_count(a) * (size_t)(a->k.shape[0] * a->k.shape[2]) * sizeof(double);
}

static int64_t at_of(const kac_tensor *t, int64_t n, int64_t i, int64_t head) {
    return n * t->stride[0] + i * t->stride[1] + head * t->stride[2];
}

/* With p = softmax(scale · q kᵀ) and o = p v: dv += p do; dp = v do; ds = p (dp − Σ p dp); dq = scale ds k;
 * dk += scale ds q. */
static void query(const kac_attention_args *a, const kac_grads *g, int64_t n, int64_t row, int64_t t, int64_t head,
                  const buffers *b) {
    const int64_t d = a->q.shape[3], n_keys = a->o.causal ? t + 1 : a->k.shape[1];
    const int64_t q = at_of(&a->q, n, t, head), out = ((n * a->out.shape[1] + t) * a->out.shape[2] + head) * d;
    double max = -INFINITY, total = 0, mean = 0;
    for (int64_t s = 0; s < n_keys; s++) {
        b->p[s] =
            a->o.scale * kac_ref_dot(a->q.data, a->q.dtype, q, a->k.data, a->k.dtype, at_of(&a->k, row, s, head), d);
        if (!(b->p[s] <= max)) max = b->p[s];
    }
    for (int64_t s = 0; s < n_keys; s++) total += b->p[s] = exp(b->p[s] - max);
    for (int64_t s = 0; s < n_keys; s++) {
        b->p[s] /= total;
        b->dp[s] = kac_ref_dot(g->out.data, g->out.dtype, out, a->v.data, a->v.dtype, at_of(&a->v, row, s, head), d);
        mean += b->p[s] * b->dp[s];
    }
    memset(b->dq, 0, (size_t)d * sizeof(double));
    for (int64_t s = 0; s < n_keys; s++) {
        const double ds = a->o.scale * b->p[s] * (b->dp[s] - mean);
        for (int64_t i = 0; i < d; i++) {
            b->dq[i] += ds * kac_ref_load(&a->k, at_of(&a->k, row, s, head) + i);
            b->dk[s * d + i] += ds * kac_ref_load(&a->q, q + i);
            b->dv[s * d + i] += b->p[s] * kac_ref_load(&g->out, out + i);
        }
    }
    const kac_tensor *dq = &g->in[KAC_IN_Q];
    for (int64_t i = 0; i < d; i++) kac_ref_add(dq, at_of(dq, n, t, head) + i, b->dq[i]);
}

/* All images that look at `row`, so that its keys' sums have one order. */
static void unit(const kac_attention_args *a, const kac_grads *g, int64_t row, int64_t head, double *memory) {
    const int64_t d = a->q.shape[3], n_keys = a->k.shape[1];
    const kac_tensor *dk = &g->in[KAC_IN_K], *dv = &g->in[KAC_IN_V];
    buffers b = {.p = memory, .dp = memory + n_keys, .dq = memory + 2 * n_keys};
    b.dk = b.dq + d;
    b.dv = b.dk + n_keys * d;
    memset(b.dk, 0, (size_t)(2 * n_keys * d) * sizeof(double));
    for (int64_t n = 0; n < a->q.shape[0]; n++)
        for (int64_t t = 0; t < a->q.shape[1] && (a->o.kv_row != NULL ? a->o.kv_row[n] : n) == row; t++)
            query(a, g, n, row, t, head, &b);
    for (int64_t s = 0; s < n_keys; s++)
        for (int64_t i = 0; i < d; i++) {
            kac_ref_add(dk, at_of(dk, row, s, head) + i, b.dk[s * d + i]);
            kac_ref_add(dv, at_of(dv, row, s, head) + i, b.dv[s * d + i]);
        }
}

kac_status kac_ref_attention_grad(kac_ctx *c, const kac_attention_args *a, const kac_grads *g) {
    const int64_t n_rows = a->k.shape[0], heads = a->k.shape[2];
    const size_t mark = kac_arena_mark(&c->scratch);
    double *memory = kac_arena_take(&c->scratch, kac_ref_attention_grad_scratch(a));
    if (memory == NULL) return KAC_E_MEMORY;
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t row = 0; row < n_rows; row++)
        for (int64_t head = 0; head < heads; head++)
            unit(a, g, row, head, memory + (size_t)(row * heads + head) * buffer_count(a));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
