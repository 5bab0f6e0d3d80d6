/* Backward of attention, a block of queries at a time: probabilities are computed again, all keys of a block together.
 *
 * A unit is one (row of keys, head) with all images that look at it: its dk and dv have one order of sums, whoever computes it.
 * Source: Dao et al. 2022, algorithm 4, with blocks of queries outside. */
#include "cpu/cpu.h"

enum { QUERIES = 24, WIDE = 48 };

typedef struct flash_grad {
    const kac_attention_args *a;
    const kac_grads *g;
    const struct kac_kernels *k;
    int64_t d, d_pad, n_keys, keys_pad, heads, queries;
    int64_t per_thread; /* floats */
    float *threads;
    size_t bytes;
} flash_grad;

/* What a thread holds, in floats. */
typedef struct buffers {
    float *k_t, *v_t,
        *k_d;       /* panels over keys of k and v, [keys_pad / nr][d][nr]; of k over d, [d_pad / nr][n_keys][nr] */
    float *dk, *dv; /* [n_keys, d_pad] */
    float *p, *dp;  /* [queries, keys_pad] */
    float *t;       /* [n_keys, queries]: p or ds the other way round */
    float *q, *dy;  /* [queries, d] */
    float *panels;  /* of q or dy over d, [d_pad / nr][queries][nr] */
    float *dq;      /* [queries, d_pad] */
    float *max, *sum, *shrink;
} buffers;

static int64_t carve(const flash_grad *f, buffers *b, float *base) {
    int64_t used = 0;
    const int64_t packed = f->keys_pad * f->d, rows = f->n_keys * f->d_pad;
#define PIECE(name, n) b->name = base + used, used += ((n) + 15) / 16 * 16
    PIECE(k_t, packed);
    PIECE(v_t, packed);
    PIECE(k_d, rows);
    PIECE(dk, rows);
    PIECE(dv, rows);
    PIECE(p, f->queries * f->keys_pad);
    PIECE(dp, f->queries * f->keys_pad);
    PIECE(t, f->queries * f->n_keys);
    PIECE(q, f->queries * f->d);
    PIECE(dy, f->queries * f->d);
    PIECE(panels, f->queries * f->d_pad);
    PIECE(dq, f->queries * f->d_pad);
    PIECE(max, f->queries);
    PIECE(sum, f->queries);
    PIECE(shrink, f->queries);
#undef PIECE
    return used;
}

static flash_grad plan_flash(const kac_ctx *c, const kac_attention_args *a, const kac_grads *g) {
    flash_grad f = {.a = a, .g = g, .k = kac_cpu_kernels_of(c), .d = a->q.shape[3], .n_keys = a->k.shape[1]};
    buffers b;
    f.heads = a->q.shape[2];
    f.d_pad = kac_ceil_div(f.d, f.k->nr) * f.k->nr;
    f.keys_pad = kac_ceil_div(f.n_keys, f.k->nr) * f.k->nr;
    f.queries = f.n_keys * f.d > 65536 ? WIDE : QUERIES;
    static float nothing;
    f.per_thread = carve(&f, &b, &nothing);
    f.bytes = (size_t)(c->n_threads * f.per_thread) * sizeof(float);
    return f;
}

size_t kac_cpu_attention_grad_scratch(const kac_ctx *c, const kac_attention_args *a) {
    return plan_flash(c, a, NULL).bytes;
}

static int64_t at_of(const kac_tensor *t, int64_t n, int64_t i, int64_t head) {
    return n * t->stride[0] + i * t->stride[1] + head * t->stride[2];
}

static void load(const flash_grad *f, float *to, const kac_tensor *t, int64_t at) {
    if (t->dtype == KAC_BF16)
        f->k->to_f32(to, (const uint16_t *)t->data + at, f->d);
    else
        memcpy(to, (const float *)t->data + at, (size_t)f->d * sizeof(float));
}

/* Row i of n, d numbers, as columns of panels over d: [panel][n][nr]. */
static void to_panels(const flash_grad *f, float *panels, const float *row, int64_t i, int64_t n) {
    const int64_t nr = f->k->nr;
    for (int64_t j = 0; j < f->d_pad; j += nr) {
        float *to = panels + (j / nr * n + i) * nr;
        const int64_t used = KAC_MIN(nr, f->d - j);
        memcpy(to, row + j, (size_t)used * sizeof(float));
        for (int64_t r = used; r < nr; r++) to[r] = 0;
    }
}

static void pack_unit(const flash_grad *f, const buffers *b, int64_t row, int64_t head) {
    const int64_t nr = f->k->nr;
    for (int64_t s = 0; s < f->keys_pad; s++) {
        const int64_t key = KAC_MIN(s, f->n_keys - 1); /* behind the last key: anything finite */
        float *k_to = b->k_t + s / nr * nr * f->d + s % nr, *v_to = b->v_t + s / nr * nr * f->d + s % nr;
        load(f, b->q, &f->a->k, at_of(&f->a->k, row, key, head));
        for (int64_t i = 0; i < f->d; i++) k_to[i * nr] = b->q[i];
        if (s < f->n_keys) to_panels(f, b->k_d, b->q, s, f->n_keys);
        load(f, b->q, &f->a->v, at_of(&f->a->v, row, key, head));
        for (int64_t i = 0; i < f->d; i++) v_to[i * nr] = b->q[i];
    }
    memset(b->dk, 0, (size_t)(f->n_keys * f->d_pad) * sizeof(float));
    memset(b->dv, 0, (size_t)(f->n_keys * f->d_pad) * sizeof(float));
}

/* out [n, keys_pad] = rows [n, d] · panels over keys */
static void over_keys(const flash_grad *f, float *out, const float *rows, int n, const float *panels) {
    const kac_panel_product p = {.a = rows,
                                 .lda = f->d,
                                 .b = panels,
                                 .ldb = f->d * f->k->nr,
                                 .out = out,
                                 .ldo = f->keys_pad,
                                 .m = n,
                                 .k = f->d,
                                 .n_panels = (int)(f->keys_pad / f->k->nr),
                                 .n_last = f->k->nr};
    f->k->panel_product(&p);
}

/* out [m, d_pad] (+)= a [m, k] · panels over d of k rows */
static void over_d(const flash_grad *f, float *out, const float *a, int64_t lda, int64_t m, int64_t k,
                   const float *panels, bool add) {
    const kac_panel_product p = {.a = a,
                                 .lda = lda,
                                 .b = panels,
                                 .ldb = k * f->k->nr,
                                 .out = out,
                                 .ldo = f->d_pad,
                                 .m = m,
                                 .k = k,
                                 .n_panels = (int)(f->d_pad / f->k->nr),
                                 .n_last = f->k->nr,
                                 .add = add};
    f->k->panel_product(&p);
}

/* Probabilities of queries t0 … t0 + n. */
static void probabilities(const flash_grad *f, const buffers *b, int64_t t0, int n) {
    over_keys(f, b->p, b->q, n, b->k_t);
    for (int i = 0; i < n; i++) b->max[i] = -INFINITY, b->sum[i] = 0;
    const kac_softmax_block soft = {.s = b->p,
                                    .lds = f->keys_pad,
                                    .rows = n,
                                    .n_keys = (int)f->n_keys,
                                    .n_visible = (int)(t0 + 1),
                                    .causal = f->a->o.causal,
                                    .scale = (float)f->a->o.scale,
                                    .max = b->max,
                                    .sum = b->sum,
                                    .shrink = b->shrink};
    f->k->softmax_block(&soft);
    for (int i = 0; i < n; i++) b->shrink[i] = 1 / b->sum[i];
    f->k->scale_rows(b->p, f->keys_pad, n, f->n_keys, b->shrink);
}

static void block(const flash_grad *f, const buffers *b, int64_t image, int64_t head, int64_t t0, int n) {
    const kac_attention_args *a = f->a;
    const kac_tensor *dq = &f->g->in[KAC_IN_Q], *dy = &f->g->out;
    const bool by_key = f->g->in[KAC_IN_K].data != NULL, by_value = f->g->in[KAC_IN_V].data != NULL;
    for (int i = 0; i < n; i++) {
        load(f, b->q + i * f->d, &a->q, at_of(&a->q, image, t0 + i, head));
        load(f, b->dy + i * f->d, dy, at_of(dy, image, t0 + i, head));
    }
    probabilities(f, b, t0, n);
    if (by_value) {
        f->k->transpose(b->t, n, b->p, f->keys_pad, n, f->n_keys);
        for (int i = 0; i < n; i++) to_panels(f, b->panels, b->dy + i * f->d, i, n);
        over_d(f, b->dv, b->t, n, f->n_keys, n, b->panels, true);
    }
    if (!by_key && dq->data == NULL) return;
    over_keys(f, b->dp, b->dy, n, b->v_t);
    f->k->softmax_grad(b->dp, b->p, f->keys_pad, n, f->n_keys, (float)a->o.scale);
    if (by_key) {
        f->k->transpose(b->t, n, b->dp, f->keys_pad, n, f->n_keys);
        for (int i = 0; i < n; i++) to_panels(f, b->panels, b->q + i * f->d, i, n);
        over_d(f, b->dk, b->t, n, f->n_keys, n, b->panels, true);
    }
    if (dq->data == NULL) return;
    over_d(f, b->dq, b->dp, f->keys_pad, n, f->n_keys, b->k_d, false);
    for (int i = 0; i < n; i++)
        f->k->add((float *)dq->data + at_of(dq, image, t0 + i, head), b->dq + i * f->d_pad, f->d, 1);
}

static void unit(const flash_grad *f, const buffers *b, int64_t row, int64_t head) {
    const kac_tensor *dk = &f->g->in[KAC_IN_K], *dv = &f->g->in[KAC_IN_V];
    pack_unit(f, b, row, head);
    for (int64_t image = 0; image < f->a->q.shape[0]; image++) {
        if ((f->a->o.kv_row != NULL ? f->a->o.kv_row[image] : image) != row) continue;
        for (int64_t t = 0; t < f->a->q.shape[1]; t += f->queries)
            block(f, b, image, head, t, (int)KAC_MIN(f->queries, f->a->q.shape[1] - t));
    }
    for (int64_t s = 0; s < f->n_keys; s++) {
        if (dk->data != NULL) f->k->add((float *)dk->data + at_of(dk, row, s, head), b->dk + s * f->d_pad, f->d, 1);
        if (dv->data != NULL) f->k->add((float *)dv->data + at_of(dv, row, s, head), b->dv + s * f->d_pad, f->d, 1);
    }
}

kac_status kac_cpu_attention_grad(kac_ctx *c, const kac_attention_args *a, const kac_grads *g) {
    const size_t mark = kac_arena_mark(&c->scratch);
    flash_grad f = plan_flash(c, a, g);
    f.threads = kac_arena_take(&c->scratch, f.bytes);
    if (f.threads == NULL) return KAC_E_MEMORY;
    const int64_t units = a->k.shape[0] * f.heads;
    const int threads = kac_cpu_threads(c, 10.0 * (double)kac_tensor_count(a->q) * (double)f.n_keys);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t u = 0; u < units; u++) {
        buffers b;
        carve(&f, &b, f.threads + omp_get_thread_num() * f.per_thread);
        unit(&f, &b, u / f.heads, u % f.heads);
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
