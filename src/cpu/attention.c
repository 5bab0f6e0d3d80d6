/* Attention with a running softmax: scores of a block of queries against a block of keys never leave the first caches.
 *
 * Keys and values of one (row, head) are packed once into panels (kᵀ: [S/nr][d][nr], v: [d/nr][S][nr]) and shared by all images that
 * use the row. Blocks of keys begin at fixed places, so that a query's bits depend on its own row only.
 * Source: Dao et al. 2022 (the order of the sums); Milakov and Gimelshein 2018 (the running maximum). */
#include "cpu/cpu.h"

enum { KEYS = 256, QUERIES = 48, QUERIES_FEW = 24, PACKED_BYTES = 16 << 20 };

typedef struct flash {
    const kac_attention_args *a;
    const struct kac_kernels *k;
    int64_t d, d_pad, n_keys, key_panels, heads;
    int64_t queries, blocks;      /* queries of a task, tasks per image and head */
    int64_t unit, units, at_once; /* floats of a packed (row, head); all of them; those packed together */
    int64_t per_thread;           /* floats */
    float *packed, *threads;
    size_t bytes;
} flash;

static flash plan_flash(const kac_ctx *c, const kac_attention_args *a, char *scratch) {
    flash f = {.a = a, .k = kac_cpu_kernels_of(c), .d = a->q.shape[3], .n_keys = a->k.shape[1], .heads = a->q.shape[2]};
    const int64_t nr = f.k->nr;
    f.d_pad = kac_ceil_div(f.d, nr) * nr;
    f.key_panels = kac_ceil_div(f.n_keys, nr);
    f.unit = f.key_panels * nr * f.d + f.n_keys * f.d_pad;
    f.units = a->k.shape[0] * f.heads;
    f.at_once = KAC_MAX(1, KAC_MIN(f.units, PACKED_BYTES / 4 / KAC_MAX(1, f.unit)));
    f.queries = f.n_keys * f.d > 65536 ? QUERIES : QUERIES_FEW;
    f.blocks = kac_ceil_div(a->q.shape[1], f.queries);
    f.per_thread = f.queries * (KEYS + f.d_pad + f.d + 3);
    kac_carver v = {.base = scratch};
    f.packed = kac_carve(&v, (size_t)(f.at_once * f.unit) * sizeof(float));
    f.threads = kac_carve(&v, (size_t)(c->n_threads * f.per_thread) * sizeof(float));
    f.bytes = v.used;
    return f;
}

size_t kac_cpu_attention_scratch(const kac_ctx *c, const kac_attention_args *a) {
    return plan_flash(c, a, NULL).bytes;
}

static const void *row_of(const kac_tensor *t, int64_t n, int64_t i, int64_t head) {
    const int64_t at = n * t->stride[0] + i * t->stride[1] + head * t->stride[2];
    return (const char *)t->data + at * (t->dtype == KAC_BF16 ? 2 : 4);
}

/* d values of one position as f32; `buffer` holds them when they are bf16. */
static const float *row_f32(const flash *f, const kac_tensor *t, int64_t n, int64_t i, int64_t head, float *buffer) {
    const void *p = row_of(t, n, i, head);
    if (t->dtype == KAC_F32) return p;
    f->k->to_f32(buffer, p, f->d);
    return buffer;
}

static void pack_unit(const flash *f, int64_t unit, float *to, float *buffer) {
    const int64_t row = unit / f->heads, head = unit % f->heads, nr = f->k->nr;
    float *v_to = to + f->key_panels * nr * f->d;
    for (int64_t panel = 0; panel < f->key_panels; panel++)
        for (int64_t j = 0; j < nr; j += 4) { /* four keys at a time: stores of 16 bytes */
            const float *x[4];
            for (int i = 0; i < 4; i++) {
                const int64_t s = KAC_MIN(panel * nr + j + i, f->n_keys - 1); /* behind the last key: anything finite */
                x[i] = row_f32(f, &f->a->k, row, s, head, buffer + i * f->d);
            }
            float *p = to + panel * nr * f->d + j;
            for (int64_t i = 0; i < f->d; i++, p += nr) p[0] = x[0][i], p[1] = x[1][i], p[2] = x[2][i], p[3] = x[3][i];
        }
    for (int64_t s = 0; s < f->n_keys; s++) {
        const float *x = row_f32(f, &f->a->v, row, s, head, buffer);
        for (int64_t i0 = 0; i0 < f->d_pad; i0 += nr) {
            float *p = v_to + (i0 / nr * f->n_keys + s) * nr;
            const int64_t n = KAC_MIN(nr, f->d - i0);
            memcpy(p, x + i0, (size_t)n * sizeof(float));
            for (int64_t j = n; j < nr; j++) p[j] = 0;
        }
    }
}

static int columns_stored(const flash *f, int64_t n) { /* of a last panel with n columns: whole vectors */
    const int v = f->k->v, last = (int)((n - 1) % f->k->nr) + 1;
    return (last + v - 1) / v * v;
}

/* Queries t0 … t0 + n of one image and head. */
static void attend(const flash *f, int64_t image, int64_t head, int64_t t0, int n, const float *keys, float *buffer) {
    const int64_t nr = f->k->nr;
    const kac_tensor *q = &f->a->q, *o = &f->a->out;
    float *s = buffer, *out = s + f->queries * KEYS, *q_copy = out + f->queries * f->d_pad;
    float *max = q_copy + f->queries * f->d, *sum = max + f->queries, *shrink = sum + f->queries;
    const float *values = keys + f->key_panels * nr * f->d, *qs = row_of(q, image, t0, head);
    int64_t ldq = q->stride[1];
    if (q->dtype == KAC_BF16) {
        for (int i = 0; i < n; i++) f->k->to_f32(q_copy + i * f->d, row_of(q, image, t0 + i, head), f->d);
        qs = q_copy, ldq = f->d;
    }
    for (int i = 0; i < n; i++) max[i] = -INFINITY, sum[i] = 0;
    memset(out, 0, (size_t)(n * f->d_pad) * sizeof(float));
    const int64_t end = f->a->o.causal ? KAC_MIN(f->n_keys, t0 + n) : f->n_keys;
    for (int64_t s0 = 0; s0 < end; s0 += KEYS) {
        const int64_t n_keys = KAC_MIN(KEYS, f->n_keys - s0);
        const kac_panel_product scores = {.a = qs,
                                          .lda = ldq,
                                          .b = keys + s0 * f->d,
                                          .ldb = f->d * nr,
                                          .out = s,
                                          .ldo = KEYS,
                                          .m = n,
                                          .k = f->d,
                                          .n_panels = (int)kac_ceil_div(n_keys, nr),
                                          .n_last = columns_stored(f, n_keys)};
        f->k->panel_product(&scores);
        const kac_softmax_block soft = {.s = s,
                                        .lds = KEYS,
                                        .rows = n,
                                        .n_keys = (int)n_keys,
                                        .n_visible = (int)(t0 - s0 + 1),
                                        .causal = f->a->o.causal,
                                        .scale = (float)f->a->o.scale,
                                        .max = max,
                                        .sum = sum,
                                        .shrink = shrink};
        f->k->softmax_block(&soft);
        if (s0 > 0) f->k->scale_rows(out, f->d_pad, n, f->d, shrink);
        const kac_panel_product mix = {.a = s,
                                       .lda = KEYS,
                                       .b = values + s0 * nr,
                                       .ldb = f->n_keys * nr,
                                       .out = out,
                                       .ldo = f->d_pad,
                                       .m = n,
                                       .k = n_keys,
                                       .n_panels = (int)(f->d_pad / nr),
                                       .n_last = columns_stored(f, f->d),
                                       .add = true};
        f->k->panel_product(&mix);
    }
    for (int i = 0; i < n; i++) shrink[i] = 1 / sum[i];
    f->k->scale_rows(out, f->d_pad, n, f->d, shrink);
    for (int i = 0; i < n; i++) {
        void *to = (void *)row_of(o, image, t0 + i, head);
        if (o->dtype == KAC_BF16)
            f->k->to_bf16(to, out + i * f->d_pad, f->d);
        else
            memcpy(to, out + i * f->d_pad, (size_t)f->d * sizeof(float));
    }
}

/* Packs units u0 … u1, then runs all queries that use them; by all threads of the surrounding region. */
static void run_units(const flash *f, int64_t u0, int64_t u1) {
    const int64_t n_images = f->a->q.shape[0], n_queries = f->a->q.shape[1];
    float *buffer = f->threads + omp_get_thread_num() * f->per_thread;
#pragma omp for schedule(dynamic)
    for (int64_t u = u0; u < u1; u++) pack_unit(f, u, f->packed + (u - u0) * f->unit, buffer);
    const int64_t tasks = n_images * f->heads * f->blocks;
#pragma omp for schedule(dynamic)
    for (int64_t t = 0; t < tasks; t++) {
        const int64_t image = t / (f->heads * f->blocks), head = t / f->blocks % f->heads,
                      t0 = t % f->blocks * f->queries;
        const int64_t row = f->a->o.kv_row ? f->a->o.kv_row[image] : image, unit = row * f->heads + head;
        if (unit < u0 || unit >= u1) continue;
        attend(f, image, head, t0, (int)KAC_MIN(f->queries, n_queries - t0), f->packed + (unit - u0) * f->unit, buffer);
    }
}

kac_status kac_cpu_attention(kac_ctx *c, const kac_attention_args *a) {
    const size_t mark = kac_arena_mark(&c->scratch);
    char *scratch = kac_arena_take(&c->scratch, kac_cpu_attention_scratch(c, a));
    if (scratch == NULL) return KAC_E_MEMORY;
    const flash f = plan_flash(c, a, scratch);
    const int threads = kac_cpu_threads(c, 4.0 * (double)kac_tensor_count(a->q) * (double)f.n_keys);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (int64_t u = 0; u < f.units; u += f.at_once) run_units(&f, u, KAC_MIN(f.units, u + f.at_once));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
