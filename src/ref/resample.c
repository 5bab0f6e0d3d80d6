#include "ref/ref.h"

kac_status kac_ref_upsample_nearest(kac_ctx *c, const kac_upsample_nearest_args *a) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], channels = a->x.shape[3];
    const int64_t n_images = a->out.shape[0], h = a->out.shape[1], w = a->out.shape[2];
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                const int64_t from = ((n * height + y * height / h) * width + x * width / w) * channels;
                for (int64_t i = 0; i < channels; i++)
                    kac_ref_store(&a->out, ((n * h + y) * w + x) * channels + i, kac_ref_load(&a->x, from + i));
            }
    return KAC_OK;
}

kac_status kac_ref_avg_pool2(kac_ctx *c, const kac_avg_pool2_args *a) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], channels = a->x.shape[3];
    const int64_t n_images = a->out.shape[0], h = a->out.shape[1], w = a->out.shape[2];
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++)
                for (int64_t i = 0; i < channels; i++) {
                    double sum = 0;
                    for (int64_t dy = 0; dy < 2; dy++)
                        for (int64_t dx = 0; dx < 2; dx++)
                            sum += kac_ref_load(&a->x, ((n * height + 2 * y + dy) * width + 2 * x + dx) * channels + i);
                    kac_ref_store(&a->out, ((n * h + y) * w + x) * channels + i, sum / 4);
                }
    return KAC_OK;
}

/* ---- separable resampling ---- */

static double sinc(double x) {
    const double pi = 3.14159265358979323846;
    return x == 0 ? 1 : sin(pi * x) / (pi * x);
}

static double support_of(kac_filter filter) {
    switch (filter) {
    case KAC_FILTER_NEAREST:
        return 0.5;
    case KAC_FILTER_BILINEAR:
        return 1;
    case KAC_FILTER_BICUBIC:
        return 2;
    case KAC_FILTER_LANCZOS:
        return 3;
    }
    KAC_ASSERT(!"filter");
}

static double filter_at(kac_filter filter, double x) {
    x = fabs(x);
    if (x >= support_of(filter)) return 0;
    switch (filter) {
    case KAC_FILTER_NEAREST:
        break; /* never weighted: a line has one source */
    case KAC_FILTER_BILINEAR:
        return 1 - x;
    case KAC_FILTER_BICUBIC: /* Keys 1981 with a = −0.5 */
        return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2;
    case KAC_FILTER_LANCZOS:
        return sinc(x) * sinc(x / 3);
    }
    KAC_ASSERT(!"filter");
}

/* Output i of an axis is Σ_j weight[i · n_taps + j] · input[first[i] + j], j < n_used[i]. One block of scratch holds
 * the three. */
typedef struct axis_table {
    int64_t n_in, n_out, n_taps;
    int64_t *first, *n_used;
    double *weight;
} axis_table;

static double stretched_support(int64_t n_in, int64_t n_out, kac_filter filter) {
    return support_of(filter) * fmax((double)n_in / (double)n_out, 1);
}

static int64_t taps_of(int64_t n_in, int64_t n_out, kac_filter filter) {
    return 2 * (int64_t)ceil(stretched_support(n_in, n_out, filter)) + 1;
}

static size_t axis_bytes(int64_t n_in, int64_t n_out, kac_filter filter) {
    return (size_t)n_out * (2 * sizeof(int64_t) + (size_t)taps_of(n_in, n_out, filter) * sizeof(double));
}

static void axis_table_make(axis_table *t, void *memory, int64_t n_in, int64_t n_out, kac_filter filter) {
    const double scale = (double)n_in / (double)n_out, stretch = fmax(scale, 1);
    const double support = stretched_support(n_in, n_out, filter);
    *t = (axis_table){.n_in = n_in, .n_out = n_out, .n_taps = taps_of(n_in, n_out, filter)};
    t->first = memory;
    t->n_used = t->first + n_out;
    t->weight = (double *)(t->n_used + n_out);
    for (int64_t i = 0; i < n_out; i++) {
        const double centre = ((double)i + 0.5) * scale;
        double *weight = t->weight + i * t->n_taps;
        if (filter == KAC_FILTER_NEAREST) {
            t->first[i] = KAC_MIN((int64_t)centre, n_in - 1);
            t->n_used[i] = 1;
            weight[0] = 1;
            continue;
        }
        t->first[i] = KAC_MAX((int64_t)(centre - support + 0.5), 0);
        t->n_used[i] = KAC_MIN((int64_t)(centre + support + 0.5), n_in) - t->first[i];
        double sum = 0;
        for (int64_t j = 0; j < t->n_used[i]; j++)
            sum += weight[j] = filter_at(filter, ((double)(t->first[i] + j) - centre + 0.5) / stretch);
        for (int64_t j = 0; j < t->n_used[i]; j++) weight[j] /= sum;
    }
}

/* Columns first, then rows, as Pillow does; the image in between stays in double. */
static void resample_image(const kac_resample_args *a, int64_t n, const axis_table *columns, const axis_table *rows,
                           double *between, int n_threads) {
    const int64_t height = rows->n_in, width = columns->n_in, h = rows->n_out, w = columns->n_out,
                  channels = a->x.shape[3];
#pragma omp parallel for num_threads(n_threads)
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t i = 0; i < channels; i++) {
                double sum = 0;
                for (int64_t j = 0; j < columns->n_used[x]; j++)
                    sum += columns->weight[x * columns->n_taps + j] *
                           kac_ref_load(&a->x, ((n * height + y) * width + columns->first[x] + j) * channels + i);
                between[(y * w + x) * channels + i] = sum;
            }
#pragma omp parallel for num_threads(n_threads)
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t i = 0; i < channels; i++) {
                double sum = 0;
                for (int64_t j = 0; j < rows->n_used[y]; j++)
                    sum += rows->weight[y * rows->n_taps + j] * between[((rows->first[y] + j) * w + x) * channels + i];
                kac_ref_store(&a->out, ((n * h + y) * w + x) * channels + i, sum);
            }
}

size_t kac_ref_resample_scratch(const kac_resample_args *a) {
    return axis_bytes(a->x.shape[2], a->out.shape[2], a->filter) +
           axis_bytes(a->x.shape[1], a->out.shape[1], a->filter) +
           (size_t)(a->x.shape[1] * a->out.shape[2] * a->x.shape[3]) * sizeof(double);
}

/* Both tables; what lies behind them is for the image in between. */
static double *tables_make(axis_table *columns, axis_table *rows, char *memory, const kac_resample_args *a) {
    axis_table_make(columns, memory, a->x.shape[2], a->out.shape[2], a->filter);
    memory += axis_bytes(columns->n_in, columns->n_out, a->filter);
    axis_table_make(rows, memory, a->x.shape[1], a->out.shape[1], a->filter);
    memory += axis_bytes(rows->n_in, rows->n_out, a->filter);
    return (double *)(void *)memory;
}

kac_status kac_ref_resample(kac_ctx *c, const kac_resample_args *a) {
    const size_t mark = kac_arena_mark(&c->scratch);
    char *memory = kac_arena_take(&c->scratch, kac_ref_resample_scratch(a));
    if (memory == NULL) return KAC_E_MEMORY;
    axis_table columns, rows;
    double *between = tables_make(&columns, &rows, memory, a);
    for (int64_t n = 0; n < a->out.shape[0]; n++) resample_image(a, n, &columns, &rows, between, c->n_threads);
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

/* The transpose of both passes, in the other order: rows into the image in between, then columns. */
static void resample_image_grad(const kac_resample_args *a, const kac_grads *g, int64_t n, const axis_table *columns,
                                const axis_table *rows, double *between, int n_threads) {
    const int64_t height = rows->n_in, width = columns->n_in, h = rows->n_out, w = columns->n_out,
                  channels = a->x.shape[3];
    memset(between, 0, (size_t)(height * w * channels) * sizeof(double));
#pragma omp parallel for num_threads(n_threads)
    for (int64_t x = 0; x < w; x++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t j = 0; j < rows->n_used[y]; j++)
                for (int64_t i = 0; i < channels; i++)
                    between[((rows->first[y] + j) * w + x) * channels + i] +=
                        rows->weight[y * rows->n_taps + j] * kac_ref_load(&g->out, ((n * h + y) * w + x) * channels + i);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t y = 0; y < height; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t j = 0; j < columns->n_used[x]; j++)
                for (int64_t i = 0; i < channels; i++)
                    kac_ref_add(&g->in[KAC_IN_X], ((n * height + y) * width + columns->first[x] + j) * channels + i,
                                columns->weight[x * columns->n_taps + j] * between[(y * w + x) * channels + i]);
}

kac_status kac_ref_resample_grad(kac_ctx *c, const kac_resample_args *a, const kac_grads *g) {
    const size_t mark = kac_arena_mark(&c->scratch);
    char *memory = kac_arena_take(&c->scratch, kac_ref_resample_scratch(a));
    if (memory == NULL) return KAC_E_MEMORY;
    axis_table columns, rows;
    double *between = tables_make(&columns, &rows, memory, a);
    for (int64_t n = 0; n < a->out.shape[0]; n++)
        resample_image_grad(a, g, n, &columns, &rows, between, c->n_threads);
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}
