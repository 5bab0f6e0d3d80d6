/* Weights in panels: [panel][tap][n_in][nr], the columns of the last panel filled with zeros. */
#include "cpu/cpu.h"

/* Winograd's weights are four times as large: beyond this they cost more memory than they save time at the small maps where such
 * layers work. */
static const int64_t wino_max_entries = 1300000;
/* F(2×2) serves maps of at most 4 × 4, which only small networks have at batch 1 with so few channels. */
static const int64_t small_max_entries = 110000;

kac_weight_layout kac_cpu_weight_layout(const struct kac_kernels *k, const kac_weight *w, kac_dtype dtype,
                                        int stride_hint) {
    kac_weight_layout l = {.n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw),
                           .panels = kac_ceil_div(w->n_out, k->nr)};
    const size_t entries = (size_t)(l.panels * k->nr * w->n_in);
    l.direct_bytes = (entries * (size_t)l.n_taps * kac_dtype_bytes(dtype) + 63) / 64 * 64;
    const bool wino = w->kh == 3 && w->kw == 3 && stride_hint == 1 && w->n_in >= 8 && w->n_out >= 8;
    if (wino && w->n_in * w->n_out <= wino_max_entries) l.wino_bytes = 36 * entries * sizeof(float);
    if (wino && w->n_in * w->n_out <= small_max_entries) l.small_bytes = 16 * entries * sizeof(float);
    return l;
}

void kac_cpu_weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch) {
    const kac_weight_layout l = kac_cpu_weight_layout(kac_cpu_kernels_of(c), w, c->dtype, stride_hint);
    *model = l.direct_bytes + l.wino_bytes + l.small_bytes;
    *scratch = 0;
}

static void pack_panel(const kac_weight *w, const kac_tensor *src, int64_t panel, int64_t n_taps, int nr) {
    for (int64_t tap = 0; tap < n_taps; tap++)
        for (int64_t i = 0; i < w->n_in; i++) {
            const int64_t to = ((panel * n_taps + tap) * w->n_in + i) * nr;
            for (int j = 0; j < nr; j++) {
                const int64_t o = panel * nr + j;
                const double x =
                    o < w->n_out ? kac_element_load(src->data, src->dtype, (o * w->n_in + i) * n_taps + tap) : 0;
                if (w->dtype == KAC_BF16)
                    kac_element_store(w->data, w->dtype, to + j, x);
                else
                    ((float *)w->data)[to + j] = (float)x;
            }
        }
}

kac_status kac_cpu_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const kac_weight_layout l = kac_cpu_weight_layout(k, w, c->dtype, stride_hint);
    w->dtype = c->dtype;
    w->n_bytes = l.direct_bytes + l.wino_bytes + l.small_bytes;
    w->data = kac_arena_take(&c->model, w->n_bytes);
    if (w->data == NULL) return KAC_E_MEMORY;
#pragma omp parallel for num_threads(c->n_threads) schedule(dynamic)
    for (int64_t panel = 0; panel < l.panels; panel++) pack_panel(w, &src, panel, l.n_taps, k->nr);
    char *wino = (char *)w->data + l.direct_bytes;
    if (l.wino_bytes) kac_cpu_wino_pack(c, (float *)wino, w, &src, l.panels, 4);
    if (l.small_bytes) kac_cpu_wino_pack(c, (float *)(wino + l.wino_bytes), w, &src, l.panels, 2);
    return KAC_OK;
}
