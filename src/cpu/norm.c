/* Norms. Group norm sums over runs of positions with fixed borders, relative to the image's first position: no cancellation, and the
 * same bits for any batch and number of threads. */
#include "cpu/cpu.h"
#include "ref/ref.h"

enum { RUN = 64 }; /* positions of one partial sum */

typedef struct group_plan {
    const struct kac_kernels *k;
    int64_t images, positions, channels, runs;
    bool bf16;
    float *pivot, *sums, *center, *scale; /* [N, C], [N, runs, 2C], [N, C], [N, C] */
    size_t bytes;
} group_plan;

static group_plan plan_group(const kac_ctx *c, const kac_group_norm_args *a, char *scratch) {
    group_plan p = {.k = kac_cpu_kernels_of(c), .images = a->x.shape[0], .channels = a->x.shape[a->x.rank - 1]};
    p.positions = p.images ? kac_tensor_count(a->x) / p.images / p.channels : 0;
    p.runs = kac_ceil_div(p.positions, RUN);
    p.bf16 = a->x.dtype == KAC_BF16;
    kac_carver v = {.base = scratch};
    const size_t row = (size_t)(p.images * p.channels) * sizeof(float);
    p.pivot = kac_carve(&v, row);
    p.sums = kac_carve(&v, row * 2 * (size_t)p.runs);
    p.scale = kac_carve(&v, row);
    p.center = kac_carve(&v, row);
    p.bytes = v.used;
    return p;
}

size_t kac_cpu_group_norm_scratch(const kac_ctx *c, const kac_group_norm_args *a) {
    if (a->x.dtype != a->out.dtype) return 0;
    return plan_group(c, a, NULL).bytes;
}

static void sum_run(const group_plan *p, const kac_group_norm_args *a, int64_t n, int64_t run) {
    const int64_t first = run * RUN, rows = KAC_MIN(RUN, p->positions - first);
    const char *x = (const char *)a->x.data + (n * p->positions + first) * p->channels * (p->bf16 ? 2 : 4);
    p->k->channel_sums(p->sums + (n * p->runs + run) * 2 * p->channels, x, p->channels, rows, p->channels,
                       p->pivot + n * p->channels, p->bf16);
}

/* Mean and variance of each group from its channels' sums, then what each channel is centred and scaled by. inverse [N, C], or
 * NULL: the scale without γ. */
static void finish_image(const group_plan *p, const kac_group_norm_args *a, int64_t n, float *inverse) {
    const int64_t width = p->channels / a->groups;
    const float *gamma = a->gamma.data, *pivot = p->pivot + n * p->channels;
    const double count = (double)p->positions;
    for (int64_t group = 0; group < a->groups; group++) {
        double mean = 0, mean2 = 0,
               inner = 0; /* over channels: of their means, of the squares, of their own deviations */
        const double base = pivot[group * width];
        for (int64_t c = group * width; c < (group + 1) * width; c++) {
            double s = 0, q = 0;
            for (int64_t run = 0; run < p->runs; run++) {
                const float *sum = p->sums + (n * p->runs + run) * 2 * p->channels;
                s += sum[c];
                q += sum[p->channels + c];
            }
            const double m = s / count, off = pivot[c] + m - base;
            mean += off;
            mean2 += off * off;
            inner += q - s * m;
        }
        mean /= (double)width;
        const double variance = inner / (count * (double)width) + KAC_MAX(0.0, mean2 / (double)width - mean * mean);
        const double by = 1 / sqrt(variance + a->eps);
        for (int64_t c = group * width; c < (group + 1) * width; c++) {
            p->scale[n * p->channels + c] = (float)(by * (gamma ? gamma[c] : 1));
            p->center[n * p->channels + c] = (float)(mean + base);
            if (inverse != NULL) inverse[n * p->channels + c] = (float)by;
        }
    }
}

static void apply_run(const group_plan *p, const kac_group_norm_args *a, int64_t n, int64_t run) {
    const int64_t first = run * RUN, rows = KAC_MIN(RUN, p->positions - first);
    const int64_t at = (n * p->positions + first) * p->channels * (p->bf16 ? 2 : 4);
    p->k->scale_shift((char *)a->out.data + at, (const char *)a->x.data + at, rows, p->channels,
                      p->center + n * p->channels, p->scale + n * p->channels, a->beta.data, a->act, p->bf16);
}

static void copy_pivot(const group_plan *p, const kac_group_norm_args *a, int64_t n) {
    const int64_t at = n * p->positions * p->channels;
    float *to = p->pivot + n * p->channels;
    if (p->bf16)
        p->k->to_f32(to, (const uint16_t *)a->x.data + at, p->channels);
    else
        memcpy(to, (const float *)a->x.data + at, (size_t)p->channels * sizeof(float));
}

static void whole_image(const group_plan *p, const kac_group_norm_args *a, int64_t n) {
    copy_pivot(p, a, n);
    for (int64_t run = 0; run < p->runs; run++) sum_run(p, a, n, run);
    finish_image(p, a, n, NULL);
    for (int64_t run = 0; run < p->runs; run++) apply_run(p, a, n, run);
}

/* Few images: threads share each. */
static void shared_images(const group_plan *p, const kac_group_norm_args *a, int threads) {
#pragma omp parallel num_threads(threads)
    {
#pragma omp for
        for (int64_t n = 0; n < p->images; n++) copy_pivot(p, a, n);
#pragma omp for collapse(2)
        for (int64_t n = 0; n < p->images; n++)
            for (int64_t run = 0; run < p->runs; run++) sum_run(p, a, n, run);
#pragma omp for
        for (int64_t n = 0; n < p->images; n++) finish_image(p, a, n, NULL);
#pragma omp for collapse(2)
        for (int64_t n = 0; n < p->images; n++)
            for (int64_t run = 0; run < p->runs; run++) apply_run(p, a, n, run);
    }
}

kac_status kac_cpu_group_norm(kac_ctx *c, const kac_group_norm_args *a) {
    if (a->x.dtype != a->out.dtype) return kac_ref_group_norm(c, a);
    const size_t mark = kac_arena_mark(&c->scratch);
    char *scratch = kac_arena_take(&c->scratch, kac_cpu_group_norm_scratch(c, a));
    if (scratch == NULL) return KAC_E_MEMORY;
    const group_plan p = plan_group(c, a, scratch);
    const int threads = kac_cpu_threads(c, 8.0 * (double)kac_tensor_count(a->x));
    if (p.images < 2 * threads && threads > 1) {
        shared_images(&p, a, threads);
    } else {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
        for (int64_t n = 0; n < p.images; n++) whole_image(&p, a, n);
    }
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

size_t kac_cpu_group_stats_scratch(const kac_ctx *c, const kac_group_norm_args *a) {
    return plan_group(c, a, NULL).bytes;
}

kac_status kac_cpu_group_stats(kac_ctx *c, const kac_group_norm_args *a, float *center, float *scale, float *inverse) {
    const size_t mark = kac_arena_mark(&c->scratch);
    char *scratch = kac_arena_take(&c->scratch, kac_cpu_group_stats_scratch(c, a));
    if (scratch == NULL) return KAC_E_MEMORY;
    const group_plan p = plan_group(c, a, scratch);
    const int threads = kac_cpu_threads(c, 4.0 * (double)kac_tensor_count(a->x));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for
        for (int64_t n = 0; n < p.images; n++) copy_pivot(&p, a, n);
#pragma omp for collapse(2)
        for (int64_t n = 0; n < p.images; n++)
            for (int64_t run = 0; run < p.runs; run++) sum_run(&p, a, n, run);
#pragma omp for
        for (int64_t n = 0; n < p.images; n++) finish_image(&p, a, n, inverse);
    }
    memcpy(center, p.center, (size_t)(p.images * p.channels) * sizeof(float));
    memcpy(scale, p.scale, (size_t)(p.images * p.channels) * sizeof(float));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

kac_status kac_cpu_layer_norm(kac_ctx *c, const kac_layer_norm_args *a) {
    if (a->x.dtype != a->out.dtype) return kac_ref_layer_norm(c, a);
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n = a->x.shape[a->x.rank - 1], rows = n ? kac_tensor_count(a->x) / n : 0;
    const bool bf16 = a->x.dtype == KAC_BF16;
    const int64_t block = KAC_MAX(1, 8192 / KAC_MAX(1, n)), size = bf16 ? 2 : 4;
    const int threads = kac_cpu_threads(c, 8.0 * (double)(rows * n));
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < rows; r += block)
        k->layer_norm((char *)a->out.data + r * n * size, (const char *)a->x.data + r * n * size,
                      KAC_MIN(block, rows - r), n, a->gamma.data, a->beta.data, (float)a->eps, bf16);
    return KAC_OK;
}
