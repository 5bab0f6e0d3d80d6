/* Backward of norms. Sums run over positions in runs with fixed borders, as forward. */
#include "cpu/cpu.h"

enum { RUN = 64, ROWS = 64 };

typedef struct group_grad {
    const kac_group_norm_args *a;
    const kac_grads *g;
    const struct kac_kernels *k;
    int64_t images, positions, channels, runs;
    bool bf16;
    float *center, *scale, *sums, *by_mean, *by_along,
        *inverse; /* [N, C], sums [N, runs, 2C], inverse [N, C]: 1 / deviation */
    void *inner;
    size_t bytes;
} group_grad;

static group_grad plan_group(const kac_ctx *c, const kac_group_norm_args *a, const kac_grads *g, char *scratch) {
    group_grad p = {.a = a, .g = g, .k = kac_cpu_kernels_of(c), .images = a->x.shape[0]};
    p.channels = a->x.shape[a->x.rank - 1];
    p.positions = kac_tensor_count(a->x) / p.images / p.channels;
    p.runs = kac_ceil_div(p.positions, RUN);
    p.bf16 = a->x.dtype == KAC_BF16;
    kac_carver v = {.base = scratch};
    const size_t row = (size_t)(p.images * p.channels) * sizeof(float);
    p.center = kac_carve(&v, row);
    p.scale = kac_carve(&v, row);
    p.by_mean = kac_carve(&v, row);
    p.by_along = kac_carve(&v, row);
    p.inverse = kac_carve(&v, row);
    p.sums = kac_carve(&v, row * 2 * (size_t)p.runs);
    p.bytes = v.used;
    return p;
}

size_t kac_cpu_group_norm_grad_scratch(const kac_ctx *c, const kac_group_norm_args *a) {
    return plan_group(c, a, NULL, NULL).bytes + kac_cpu_group_stats_scratch(c, a);
}

static kac_norm_grad run_of(const group_grad *p, int64_t n, int64_t run) {
    const int64_t first = run * RUN, at = (n * p->positions + first) * p->channels;
    float *dx = p->g->in[KAC_IN_X].data;
    return (kac_norm_grad){.x = (const char *)p->a->x.data + at * (p->bf16 ? 2 : 4),
                           .bf16 = p->bf16,
                           .dy = (const float *)p->g->out.data + at,
                           .center = p->center + n * p->channels,
                           .scale = p->scale + n * p->channels,
                           .shift = p->a->beta.data,
                           .by_mean = p->by_mean + n * p->channels,
                           .by_along = p->by_along + n * p->channels,
                           .dx = dx == NULL ? NULL : dx + at,
                           .rows = KAC_MIN(RUN, p->positions - first),
                           .n = p->channels,
                           .act = p->a->act};
}

/* Adds up the runs of image n; then what each group subtracts from its dz. */
static void finish_image(const group_grad *p, int64_t n) {
    const int64_t width = p->channels / p->a->groups;
    float *total = p->sums + n * p->runs * 2 * p->channels; /* the first run's place */
    const float *gamma = p->a->gamma.data;
    for (int64_t i = 0; i < 2 * p->channels; i++) {
        double sum = 0;
        for (int64_t run = 0; run < p->runs; run++) sum += total[run * 2 * p->channels + i];
        total[i] = (float)sum;
    }
    for (int64_t group = 0; group < p->a->groups; group++) {
        const int64_t first = group * width;
        const double by = p->inverse[n * p->channels + first], count = (double)(p->positions * width);
        double mean = 0, along = 0;
        for (int64_t c = first; c < first + width; c++) {
            mean += (gamma ? gamma[c] : 1) * (double)total[c];
            along += (gamma ? gamma[c] : 1) * (double)total[p->channels + c];
        }
        for (int64_t c = first; c < first + width; c++) {
            p->by_mean[n * p->channels + c] = (float)(by * mean / count);
            p->by_along[n * p->channels + c] = (float)(by * by * by * along / count);
        }
    }
}

/* dγ += Σ dz x̂, dβ += Σ dz, image by image. */
static void by_scale(const group_grad *p) {
    float *dgamma = p->g->in[KAC_IN_SCALE].data, *dbeta = p->g->in[KAC_IN_SHIFT].data;
    for (int64_t n = 0; n < p->images; n++) {
        const float *total = p->sums + n * p->runs * 2 * p->channels;
        for (int64_t c = 0; c < p->channels; c++) {
            if (dgamma != NULL) dgamma[c] += total[p->channels + c] * p->inverse[n * p->channels + c];
            if (dbeta != NULL) dbeta[c] += total[c];
        }
    }
}

kac_status kac_cpu_group_norm_grad(kac_ctx *c, const kac_group_norm_args *a, const kac_grads *g) {
    const size_t mark = kac_arena_mark(&c->scratch);
    char *scratch = kac_arena_take(&c->scratch, plan_group(c, a, g, NULL).bytes);
    if (scratch == NULL) return KAC_E_MEMORY;
    const group_grad p = plan_group(c, a, g, scratch);
    const kac_status s = kac_cpu_group_stats(c, a, p.center, p.scale, p.inverse);
    const int threads = kac_cpu_threads(c, 24.0 * (double)kac_tensor_count(a->x));
#pragma omp parallel num_threads(threads) if (s == KAC_OK && threads > 1)
    {
#pragma omp for collapse(2)
        for (int64_t n = 0; n < p.images; n++)
            for (int64_t run = 0; run < p.runs; run++) {
                const kac_norm_grad r = run_of(&p, n, run);
                if (s == KAC_OK) p.k->norm_grad_sums(&r, p.sums + (n * p.runs + run) * 2 * p.channels);
            }
#pragma omp for
        for (int64_t n = 0; n < p.images; n++)
            if (s == KAC_OK) finish_image(&p, n);
#pragma omp for collapse(2)
        for (int64_t n = 0; n < p.images; n++)
            for (int64_t run = 0; run < p.runs; run++) {
                const kac_norm_grad r = run_of(&p, n, run);
                if (s == KAC_OK && r.dx != NULL) p.k->norm_grad_apply(&r);
            }
    }
    if (s == KAC_OK) by_scale(&p);
    kac_arena_release(&c->scratch, mark);
    return s;
}

size_t kac_cpu_layer_norm_grad_scratch(const kac_ctx *c, const kac_layer_norm_args *a, const kac_grads *g) {
    const int64_t n = a->x.shape[a->x.rank - 1], blocks = kac_ceil_div(kac_tensor_count(a->x) / n, ROWS);
    const bool sums = g->in[KAC_IN_SCALE].data != NULL || g->in[KAC_IN_SHIFT].data != NULL;
    return (size_t)(n * c->n_threads + (sums ? blocks * 2 * n : 0)) * sizeof(float);
}

kac_status kac_cpu_layer_norm_grad(kac_ctx *c, const kac_layer_norm_args *a, const kac_grads *g) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n = a->x.shape[a->x.rank - 1], rows = kac_tensor_count(a->x) / n, blocks = kac_ceil_div(rows, ROWS);
    const bool bf16 = a->x.dtype == KAC_BF16;
    float *dx = g->in[KAC_IN_X].data, *dgamma = g->in[KAC_IN_SCALE].data, *dbeta = g->in[KAC_IN_SHIFT].data;
    const size_t mark = kac_arena_mark(&c->scratch);
    float *hat = kac_arena_take(&c->scratch, kac_cpu_layer_norm_grad_scratch(c, a, g));
    if (hat == NULL) return KAC_E_MEMORY;
    float *sums = dgamma != NULL || dbeta != NULL ? hat + n * c->n_threads : NULL;
    if (sums != NULL) memset(sums, 0, (size_t)(blocks * 2 * n) * sizeof(float));
    const int threads = kac_cpu_threads(c, 16.0 * (double)(rows * n));
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < blocks; b++) {
        const int64_t at = b * ROWS * n;
        k->layer_norm_grad(dx == NULL ? NULL : dx + at, (const char *)a->x.data + at * (bf16 ? 2 : 4),
                           (const float *)g->out.data + at, KAC_MIN(ROWS, rows - b * ROWS), n, a->gamma.data,
                           (float)a->eps, bf16, hat + omp_get_thread_num() * n, sums == NULL ? NULL : sums + b * 2 * n);
    }
    for (int64_t i = 0; i < n && sums != NULL; i++) {
        double by_gamma = 0, by_beta = 0;
        for (int64_t b = 0; b < blocks; b++) by_gamma += sums[b * 2 * n + i], by_beta += sums[b * 2 * n + n + i];
        if (dgamma != NULL) dgamma[i] += (float)by_gamma;
        if (dbeta != NULL) dbeta[i] += (float)by_beta;
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
