/* Matrix products: tasks of rows × panels over threads, and the linear slot. */
#include "cpu/cpu.h"

/* Columns of W that stay in the second-level cache while rows pass by, and rows of a task. */
enum { COLUMNS_SHORT = 256, COLUMNS_LONG = 128, ROWS = 96 };
/* What the kernels sum in one block at most (K_BLOCK and TAPS_AT_ONCE of isa/gemm.c). */
enum { K_SHORT = 384, TAPS_SHORT = 16 };

static bool several_blocks(const kac_gemm *g) {
    return (int64_t)g->n_taps * g->n_in > K_SHORT || g->n_taps > TAPS_SHORT;
}

size_t kac_cpu_gemm_partials(const kac_ctx *c, const kac_gemm *g) {
    return several_blocks(g) ? (size_t)c->n_threads * ROWS * COLUMNS_LONG * 2 * sizeof(float) : 0;
}

/* Rows and panels of a task: large enough to reuse W from the cache, small enough that all threads have work. */
static void task_size(const struct kac_kernels *k, const kac_gemm *g, int threads, int64_t *rows, int *panels) {
    const int64_t n_panels = kac_ceil_div(g->n, k->nr);
    const bool several = several_blocks(g);
    int64_t r = several ? ROWS : 4 * ROWS, p = (several || g->n_in > 256 ? COLUMNS_LONG : COLUMNS_SHORT) / k->nr;
    p = KAC_MIN(p, n_panels);
    const int64_t wanted = threads == 1 ? 1 : 3 * threads;
    while (kac_ceil_div(g->m, r) * kac_ceil_div(n_panels, p) < wanted && r > ROWS) r /= 2;
    while (kac_ceil_div(g->m, r) * kac_ceil_div(n_panels, p) < wanted && (p > 2 || r > 4 * k->mr)) {
        if (p > 2 && (p > 4 || r <= 4 * k->mr))
            p = (p + 1) / 2;
        else
            r = kac_ceil_div(r / 2, k->mr) * k->mr;
    }
    *rows = r;
    *panels = (int)p;
}

void kac_cpu_gemm(kac_ctx *c, const kac_gemm *g, float *partials) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    if (g->m == 0) return;
    const double flops = 2.0 * (double)g->m * (double)g->n * (double)g->n_in * g->n_taps * (g->geglu ? 2 : 1);
    const int threads = kac_cpu_threads(c, flops);
    int64_t rows;
    int panels;
    task_size(k, g, threads, &rows, &panels);
    const int64_t n_panels = kac_ceil_div(g->n, k->nr), row_tasks = kac_ceil_div(g->m, rows);
    const int64_t tasks = row_tasks * kac_ceil_div(n_panels, panels);
    const bool several = several_blocks(g);
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(dynamic)
    for (int64_t t = 0; t < tasks; t++) {
        const int64_t m0 = t % row_tasks * rows, p0 = t / row_tasks * panels;
        float *part = several ? partials + (size_t)omp_get_thread_num() * ROWS * COLUMNS_LONG * 2 : NULL;
        k->gemm_rows(g, m0, KAC_MIN(g->m, m0 + rows), (int)p0, (int)KAC_MIN(n_panels, p0 + panels), part);
    }
}

bool kac_cpu_rows_in_place(const kac_tensor *x, int64_t *ld) {
    const int last = x->rank - 1;
    int inner = -1; /* innermost leading axis with more than one entry */
    int64_t distance = x->shape[last];
    for (int i = last - 1; i >= 0; i--) {
        if (x->shape[i] == 1) continue;
        if (inner < 0)
            *ld = distance = x->stride[i];
        else if (x->stride[i] != distance)
            return false;
        inner = i;
        distance *= x->shape[i];
    }
    if (inner < 0) *ld = x->shape[last];
    return x->dtype == KAC_F32;
}

void kac_cpu_rows_copy(kac_ctx *c, float *buffer, const kac_tensor *x) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int last = x->rank - 1;
    const int64_t n = x->shape[last], rows = kac_tensor_count(*x) / KAC_MAX(1, n);
    const int64_t block = KAC_MAX(1, 16384 / KAC_MAX(1, n));
#pragma omp parallel for num_threads(c->n_threads) if (rows * n > 65536)
    for (int64_t r0 = 0; r0 < rows; r0 += block)
        for (int64_t r = r0; r < KAC_MIN(rows, r0 + block); r++) {
            const int64_t at = kac_element_offset(x, last, r);
            if (x->dtype == KAC_BF16)
                k->to_f32(buffer + r * n, (const uint16_t *)x->data + at, n);
            else
                memcpy(buffer + r * n, (const float *)x->data + at, (size_t)n * sizeof(float));
        }
}

typedef struct linear_plan {
    kac_gemm g;
    bool copy_x, gate_apart; /* geglu whose halves do not begin at a panel: as two steps */
    float *x, *low, *partials, *sums;
    size_t bytes;
} linear_plan;

static void plan_low(kac_gemm *g, const kac_low *low) {
    if (low->x.data == NULL) return;
    g->low = low->x.data, g->low_b = low->up->data;
    g->low_k = low->up->n_in, g->low_ld = low->parts * g->low_k, g->low_columns = low->up->n_out / low->parts;
}

static linear_plan plan_linear(const kac_ctx *c, const kac_linear_args *a, char *scratch) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int last = a->x.rank - 1;
    linear_plan p = {0};
    kac_gemm *g = &p.g;
    g->n_in = a->w->n_in, g->n_taps = 1;
    g->m = kac_tensor_count(a->x) / g->n_in;
    g->n = a->out.shape[last];
    g->a = a->x.data;
    p.copy_x = !kac_cpu_rows_in_place(&a->x, &g->lda);
    g->b = a->w->data, g->b_bf16 = a->w->dtype == KAC_BF16;
    g->bias = a->o.bias.data;
    g->act = a->o.act, g->geglu = a->o.geglu;
    g->residual = a->o.residual.data;
    g->out = a->out.data, g->ldo = g->ldr = g->n, g->x_bf16 = a->out.dtype == KAC_BF16;
    plan_low(g, &a->o.low);
    p.gate_apart = g->geglu && g->n % k->nr != 0;
    if (p.gate_apart) g->n *= 2, g->geglu = false, g->act = KAC_ACT_NONE;
    kac_carver v = {.base = scratch};
    p.x = kac_carve(&v, p.copy_x ? (size_t)(g->m * g->n_in) * sizeof(float) : 0);
    const bool copy_low = g->low != NULL && a->o.low.x.dtype != KAC_F32;
    p.low = kac_carve(&v, copy_low ? (size_t)(g->m * g->low_ld) * sizeof(float) : 0);
    p.partials = kac_carve(&v, kac_cpu_gemm_partials(c, g));
    p.sums = kac_carve(&v, p.gate_apart ? (size_t)(g->m * g->n) * sizeof(float) : 0);
    p.bytes = v.used;
    return p;
}

size_t kac_cpu_linear_scratch(const kac_ctx *c, const kac_linear_args *a) {
    return plan_linear(c, a, NULL).bytes;
}

/* out += residual of another type, or behind a gate that was computed apart. */
static kac_status add_residual(kac_ctx *c, const kac_linear_args *a) {
    static const double one[] = {1, 1};
    const kac_lincomb_args sum = {.out = a->out, .n_terms = 2, .x = {a->out, a->o.residual}, .coef = one, .n_coef = 1};
    return kac_cpu_lincomb(c, &sum);
}

static kac_status gate_apart(kac_ctx *c, const kac_linear_args *a, linear_plan *p) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    kac_gemm *g = &p->g;
    const bool bf16 = g->x_bf16;
    g->out = p->sums, g->ldo = g->n, g->residual = NULL, g->x_bf16 = false;
    kac_cpu_gemm(c, g, p->partials);
    const int64_t n = g->n / 2;
#pragma omp parallel for num_threads(c->n_threads) if (g->m * n > 16384)
    for (int64_t r = 0; r < g->m; r++)
        k->geglu((char *)a->out.data + r * n * (bf16 ? 2 : 4), p->sums + r * 2 * n, n, bf16);
    return a->o.residual.data ? add_residual(c, a) : KAC_OK;
}

kac_status kac_cpu_linear(kac_ctx *c, const kac_linear_args *a) {
    const size_t mark = kac_arena_mark(&c->scratch), bytes = kac_cpu_linear_scratch(c, a);
    char *scratch = bytes ? kac_arena_take(&c->scratch, bytes) : NULL;
    if (bytes && scratch == NULL) return KAC_E_MEMORY;
    linear_plan p = plan_linear(c, a, scratch);
    if (p.copy_x) {
        kac_cpu_rows_copy(c, p.x, &a->x);
        p.g.a = p.x, p.g.lda = p.g.n_in;
    }
    if (p.g.low != NULL && a->o.low.x.dtype != KAC_F32) {
        kac_cpu_rows_copy(c, p.low, &a->o.low.x);
        p.g.low = p.low;
    }
    kac_status s = KAC_OK;
    const bool other_type = a->o.residual.data && a->o.residual.dtype != a->out.dtype;
    if (other_type) p.g.residual = NULL;
    if (p.gate_apart) {
        s = gate_apart(c, a, &p);
    } else {
        kac_cpu_gemm(c, &p.g, p.partials);
        if (other_type) s = add_residual(c, a);
    }
    kac_arena_release(&c->scratch, mark);
    return s;
}
