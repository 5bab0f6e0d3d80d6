/* Backward of products: dx = dz W as a product by W with inputs and outputs exchanged, dW = dzᵀ x in chunks of rows. */
#include "cpu/cpu.h"
#include "ref/ref.h"

enum { CHUNK = 512, RUN = 256, COLUMNS = 64, TASK_ROWS = 48 };

/* ---- W the other way round ---- */

size_t kac_cpu_reverse_bytes(const kac_ctx *c, const kac_weight *w, int64_t n_rows) {
    const int64_t n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw), nr = kac_cpu_kernels_of(c)->nr;
    return (size_t)(kac_ceil_div(w->n_in, nr) * nr * n_taps * n_rows) * sizeof(float);
}

/* Panel `panel` of the inputs: [tap][o][nr], taps from the last to the first. */
static void reverse_panel(const kac_weight *w, int64_t o0, int64_t o1, int64_t panel, int nr, float *to) {
    const int64_t n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw), first = panel * nr;
    const int n = (int)KAC_MIN(nr, w->n_in - first);
    for (int64_t tap = 0; tap < n_taps; tap++)
        for (int64_t o = o0; o < o1; o++, to += nr) {
            const int64_t from = ((o / nr * n_taps + n_taps - 1 - tap) * w->n_in + first) * nr + o % nr;
            for (int j = 0; j < n; j++)
                to[j] = w->dtype == KAC_BF16 ? kac_bf16_to_f32(((const uint16_t *)w->data)[from + j * nr])
                                             : ((const float *)w->data)[from + j * nr];
            for (int j = n; j < nr; j++) to[j] = 0;
        }
}

void kac_cpu_reverse(kac_ctx *c, float *to, const kac_weight *w, int64_t o0, int64_t o1) {
    const int nr = kac_cpu_kernels_of(c)->nr;
    const int64_t n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw), panels = kac_ceil_div(w->n_in, nr);
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic) if (w->n_in * (o1 - o0) * n_taps > 32768)
    for (int64_t panel = 0; panel < panels; panel++)
        reverse_panel(w, o0, o1, panel, nr, to + panel * n_taps * (o1 - o0) * nr);
}

/* ---- sums over rows ---- */

/* Columns [j0, j1) of dz, in runs of rows with fixed borders. */
static void sum_columns(const struct kac_kernels *k, float *to, const float *dz, int64_t ld, int64_t m, int64_t j0,
                        int64_t j1) {
    double total[COLUMNS] = {0};
    for (int64_t r = 0; r < m; r += RUN) {
        float sum[COLUMNS] = {0};
        k->column_sums(sum, dz + r * ld + j0, ld, KAC_MIN(RUN, m - r), j1 - j0);
        for (int64_t j = 0; j < j1 - j0; j++) total[j] += sum[j];
    }
    for (int64_t j = j0; j < j1; j++) to[j] += (float)total[j - j0];
}

void kac_cpu_column_sums(kac_ctx *c, float *to, const float *dz, int64_t ld, int64_t m, int64_t n) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
#pragma omp parallel for num_threads(c->n_threads) if (m * n > 65536)
    for (int64_t j = 0; j < n; j += COLUMNS) sum_columns(k, to, dz, ld, m, j, KAC_MIN(n, j + COLUMNS));
}

size_t kac_cpu_outer_bytes(const kac_ctx *c, int64_t n_o, int64_t n_i) {
    const int64_t nr = kac_cpu_kernels_of(c)->nr;
    return (size_t)(CHUNK * (n_o + kac_ceil_div(n_i, nr) * nr) + 32) * sizeof(float) +
           (size_t)(n_i * c->n_threads) * sizeof(float);
}

/* Rows first … first + n of x, as panels [panel][n][nr]. */
static void pack_rows(kac_ctx *c, const kac_outer *p, int64_t first, int64_t n, float *panels, float *rows) {
    const int64_t nr = kac_cpu_kernels_of(c)->nr, n_panels = kac_ceil_div(p->n_i, nr);
#pragma omp parallel for num_threads(c->n_threads) if (n * p->n_i > 16384)
    for (int64_t r = 0; r < n; r++) {
        float *row = rows + omp_get_thread_num() * p->n_i;
        p->row(p->self, first + r, row);
        for (int64_t q = 0; q < n_panels; q++) {
            float *to = panels + (q * n + r) * nr;
            const int64_t used = KAC_MIN(nr, p->n_i - q * nr);
            memcpy(to, row + q * nr, (size_t)used * sizeof(float));
            for (int64_t j = used; j < nr; j++) to[j] = 0;
        }
    }
}

static void outer_chunk(kac_ctx *c, const kac_outer *p, const float *dz_t, const float *panels, int64_t n) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n_panels = kac_ceil_div(p->n_i, k->nr), blocks = kac_ceil_div(p->n_o, TASK_ROWS);
    const int64_t group = KAC_MAX(1, 128 / k->nr), groups = kac_ceil_div(n_panels, group);
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic) if (n * p->n_i * p->n_o > 65536)
    for (int64_t t = 0; t < blocks * groups; t++) {
        const int64_t o = t % blocks * TASK_ROWS, q = t / blocks * group, q1 = KAC_MIN(n_panels, q + group);
        const kac_panel_product product = {.a = dz_t + o * n,
                                           .lda = n,
                                           .b = panels + q * n * k->nr,
                                           .ldb = n * k->nr,
                                           .out = p->dw + o * p->ld + q * k->nr,
                                           .ldo = p->ld,
                                           .m = KAC_MIN(TASK_ROWS, p->n_o - o),
                                           .k = n,
                                           .n_panels = (int)(q1 - q),
                                           .n_last = (int)KAC_MIN(k->nr, p->n_i - (q1 - 1) * k->nr),
                                           .add = true};
        k->panel_product(&product);
    }
}

void kac_cpu_outer(kac_ctx *c, const kac_outer *p, void *scratch) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    float *dz_t = scratch, *panels = dz_t + CHUNK * p->n_o + 16;
    float *rows = panels + CHUNK * kac_ceil_div(p->n_i, k->nr) * k->nr + 16;
    for (int64_t first = 0; first < p->m; first += CHUNK) {
        const int64_t n = KAC_MIN(CHUNK, p->m - first);
        const float *dz = p->dz + first * p->ldz;
#pragma omp parallel for num_threads(c->n_threads) if (n * p->n_o > 16384)
        for (int64_t o = 0; o < p->n_o; o += 16)
            k->transpose(dz_t + o * n, n, dz + o, p->ldz, n, KAC_MIN(16, p->n_o - o));
        pack_rows(c, p, first, n, panels, rows);
        outer_chunk(c, p, dz_t, panels, n);
    }
}

/* ---- linear ---- */

typedef struct linear_grad {
    const kac_linear_args *a;
    const kac_grads *g;
    int64_t m, n;          /* rows, numbers of z in a row */
    bool recompute, apart; /* z is needed again; dx has no regular rows */
    kac_tensor z;
    float *dz, *reverse, *dx, *partials;
    void *outer;
    size_t bytes, inner; /* its own scratch, and that of the slots it calls */
} linear_grad;

/* z again: without activation, gate and residual. */
static kac_linear_args forward_args(const linear_grad *p) {
    kac_linear_args a = *p->a;
    a.out = p->z;
    a.o.residual = (kac_tensor){0};
    a.o.act = KAC_ACT_NONE;
    a.o.geglu = false;
    return a;
}

static kac_gemm input_gemm(const linear_grad *p, int64_t n_in, int64_t n_o) {
    return (kac_gemm){.m = p->m, .n = n_in, .n_in = n_o, .n_taps = 1, .a = p->dz, .lda = p->n, .b = p->reverse};
}

static linear_grad plan_linear_grad(const kac_ctx *c, const kac_linear_args *a, const kac_grads *g, char *scratch) {
    linear_grad p = {.a = a, .g = g, .m = kac_tensor_count(a->x) / a->w->n_in, .n = a->w->n_out};
    const bool low = a->o.low.x.data != NULL;
    int64_t ld;
    kac_carver v = {.base = scratch};
    p.recompute = a->o.act != KAC_ACT_NONE || a->o.geglu;
    p.dz = kac_carve(&v, p.recompute ? (size_t)(p.m * p.n) * sizeof(float) : 0);
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, a->x.shape, sizeof shape);
    shape[a->x.rank - 1] = p.n;
    p.z = kac_tensor_of(p.dz, KAC_F32, a->x.rank, shape);
    size_t reverse = 0, outer = 0;
    if (g->in[KAC_IN_X].data != NULL) reverse = kac_cpu_reverse_bytes(c, a->w, p.n);
    if (low && g->in[KAC_IN_LOW].data != NULL)
        reverse = KAC_MAX(reverse, kac_cpu_reverse_bytes(c, a->o.low.up, p.n / a->o.low.parts));
    p.reverse = kac_carve(&v, reverse);
    p.apart = g->in[KAC_IN_X].data != NULL && !kac_cpu_rows_in_place(&g->in[KAC_IN_X], &ld);
    p.dx = kac_carve(&v, p.apart ? (size_t)(p.m * a->w->n_in) * sizeof(float) : 0);
    const kac_gemm whole = input_gemm(&p, a->w->n_in, p.n);
    p.partials = kac_carve(&v, reverse > 0 ? kac_cpu_gemm_partials(c, &whole) : 0);
    if (g->in[KAC_IN_WEIGHT].data != NULL) outer = kac_cpu_outer_bytes(c, p.n, a->w->n_in);
    if (low && g->in[KAC_IN_UP].data != NULL)
        outer = KAC_MAX(outer, kac_cpu_outer_bytes(c, p.n / a->o.low.parts, a->o.low.up->n_in));
    p.outer = kac_carve(&v, outer);
    p.bytes = v.used;
    const kac_linear_args forward = forward_args(&p);
    p.inner = p.recompute ? kac_cpu_linear_scratch(c, &forward) : 0;
    return p;
}

size_t kac_cpu_linear_grad_scratch(const kac_ctx *c, const kac_linear_args *a, const kac_grads *g) {
    const linear_grad p = plan_linear_grad(c, a, g, NULL);
    return p.bytes + p.inner;
}

static kac_status before_act(kac_ctx *c, linear_grad *p) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const float *dy = p->g->out.data;
    if (!p->recompute) {
        p->dz = p->g->out.data;
        return KAC_OK;
    }
    const kac_linear_args forward = forward_args(p);
    KAC_TRY(kac_cpu_linear(c, &forward));
    const int64_t n = p->a->o.geglu ? p->n / 2 : p->n;
#pragma omp parallel for num_threads(c->n_threads) if (p->m * n > 16384)
    for (int64_t r = 0; r < p->m; r++) {
        float *z = p->dz + r * p->n;
        if (p->a->o.geglu)
            k->geglu_grad(z, dy + r * n, n);
        else
            k->act_grad(z, z, dy + r * n, n, p->a->o.act, false, false);
    }
    return KAC_OK;
}

/* dx += dz W, where rows of dx lie apart in any way. */
static void by_input(kac_ctx *c, const linear_grad *p) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const kac_tensor *dx = &p->g->in[KAC_IN_X];
    const int64_t n_in = p->a->w->n_in;
    if (dx->data == NULL) return;
    kac_gemm g = input_gemm(p, n_in, p->n);
    kac_cpu_reverse(c, p->reverse, p->a->w, 0, p->n);
    int64_t ld = n_in;
    if (p->apart)
        g.out = p->dx;
    else
        kac_cpu_rows_in_place(dx, &ld), g.out = dx->data, g.residual = dx->data;
    g.ldo = g.ldr = ld;
    kac_cpu_gemm(c, &g, p->partials);
    for (int64_t r = 0; r < p->m && p->apart; r++)
        k->add((float *)dx->data + kac_element_offset(dx, dx->rank - 1, r), p->dx + r * n_in, n_in, 1);
}

/* dx' += dz U, part by part. */
static void by_low(kac_ctx *c, const linear_grad *p) {
    const kac_low *low = &p->a->o.low;
    if (low->x.data == NULL || p->g->in[KAC_IN_LOW].data == NULL) return;
    const int64_t r = low->up->n_in, n_part = p->n / low->parts;
    for (int64_t part = 0; part < low->parts; part++) {
        kac_gemm g = input_gemm(p, r, n_part);
        kac_cpu_reverse(c, p->reverse, low->up, part * n_part, (part + 1) * n_part);
        g.a = p->dz + part * n_part;
        g.out = (float *)p->g->in[KAC_IN_LOW].data + part * r;
        g.residual = g.out;
        g.ldo = g.ldr = low->parts * r;
        kac_cpu_gemm(c, &g, p->partials);
    }
}

/* Numbers [first, first + n) of row m of x, as f32. */
typedef struct row_part {
    const struct kac_kernels *k;
    const kac_tensor *x;
    int64_t first, n;
} row_part;

static void load_row(const void *self, int64_t m, float *to) {
    const row_part *s = self;
    const int64_t at = kac_element_offset(s->x, s->x->rank - 1, m) + s->first;
    if (s->x->dtype == KAC_BF16)
        s->k->to_f32(to, (const uint16_t *)s->x->data + at, s->n);
    else
        memcpy(to, (const float *)s->x->data + at, (size_t)s->n * sizeof(float));
}

static void by_weight(kac_ctx *c, const linear_grad *p, const kac_tensor *x, const kac_weight *w, const kac_tensor *dw,
                      int64_t parts) {
    if (x->data == NULL || dw->data == NULL) return;
    const int64_t n_part = p->n / parts;
    for (int64_t part = 0; part < parts; part++) {
        const row_part rows = {kac_cpu_kernels_of(c), x, part * w->n_in, w->n_in};
        const kac_outer o = {.dw = (float *)dw->data + part * n_part * w->n_in,
                             .ld = w->n_in,
                             .n_o = n_part,
                             .n_i = w->n_in,
                             .m = p->m,
                             .dz = p->dz + part * n_part,
                             .ldz = p->n,
                             .row = load_row,
                             .self = &rows};
        kac_cpu_outer(c, &o, p->outer);
    }
}

kac_status kac_cpu_linear_grad(kac_ctx *c, const kac_linear_args *a, const kac_grads *g) {
    const size_t mark = kac_arena_mark(&c->scratch), bytes = plan_linear_grad(c, a, g, NULL).bytes;
    char *scratch = bytes ? kac_arena_take(&c->scratch, bytes) : NULL;
    if (bytes && scratch == NULL) return KAC_E_MEMORY;
    linear_grad p = plan_linear_grad(c, a, g, scratch);
    const kac_status s = before_act(c, &p);
    if (s == KAC_OK) {
        kac_cpu_add(c, g->in[KAC_IN_RESIDUAL].data, g->out.data, kac_tensor_count(g->out), 1);
        by_input(c, &p);
        by_low(c, &p);
        by_weight(c, &p, &a->x, a->w, &g->in[KAC_IN_WEIGHT], 1);
        by_weight(c, &p, &a->o.low.x, a->o.low.up, &g->in[KAC_IN_UP], a->o.low.parts);
        if (g->in[KAC_IN_BIAS].data != NULL) kac_cpu_column_sums(c, g->in[KAC_IN_BIAS].data, p.dz, p.n, p.m, p.n);
    }
    kac_arena_release(&c->scratch, mark);
    return s;
}
