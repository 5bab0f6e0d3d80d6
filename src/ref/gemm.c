#include "ref/ref.h"

double kac_ref_dot(const void *a, kac_dtype dtype_a, int64_t offset_a, const void *b, kac_dtype dtype_b,
                   int64_t offset_b, int64_t n) {
    double sum = 0;
    if (dtype_a == KAC_F32 && dtype_b == KAC_F32) {
        const float *x = (const float *)a + offset_a, *y = (const float *)b + offset_b;
#pragma omp simd reduction(+ : sum) simdlen(8)
        for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    } else if (dtype_a == KAC_F64 && dtype_b == KAC_F64) {
        const double *x = (const double *)a + offset_a, *y = (const double *)b + offset_b;
        for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    } else if (dtype_a == KAC_BF16 && dtype_b == KAC_BF16) {
        const uint16_t *x = (const uint16_t *)a + offset_a, *y = (const uint16_t *)b + offset_b;
        for (int64_t i = 0; i < n; i++) sum += (double)kac_bf16_to_f32(x[i]) * (double)kac_bf16_to_f32(y[i]);
    } else {
        for (int64_t i = 0; i < n; i++)
            sum += kac_element_load(a, dtype_a, offset_a + i) * kac_element_load(b, dtype_b, offset_b + i);
    }
    return sum;
}

static int64_t n_taps_of(const kac_weight *w) {
    return w->kh == 0 ? 1 : (int64_t)w->kh * w->kw;
}

void kac_ref_weight_bytes(const kac_ctx *c, const kac_weight *w, int stride_hint, size_t *model, size_t *scratch) {
    (void)stride_hint;
    *model = (size_t)(w->n_out * w->n_in * n_taps_of(w)) * kac_dtype_bytes(c->dtype);
    *scratch = 0;
}

kac_status kac_ref_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    const int64_t n_taps = n_taps_of(w);
    size_t scratch;
    kac_ref_weight_bytes(c, w, stride_hint, &w->n_bytes, &scratch);
    w->dtype = c->dtype;
    w->data = kac_arena_take(&c->model, w->n_bytes);
    if (w->data == NULL) return KAC_E_MEMORY;
    for (int64_t o = 0; o < w->n_out; o++)
        for (int64_t i = 0; i < w->n_in; i++)
            for (int64_t tap = 0; tap < n_taps; tap++)
                kac_element_store(w->data, w->dtype, (o * n_taps + tap) * w->n_in + i,
                                  kac_ref_load(&src, (o * w->n_in + i) * n_taps + tap));
    return KAC_OK;
}

/* (x' Uᵀ) at a row and output feature o. */
static double low_product(const kac_low *low, int64_t row, int64_t o) {
    if (low->x.data == NULL) return 0;
    const int64_t r = low->up->n_in, part = o / (low->up->n_out / low->parts);
    return kac_ref_dot(low->x.data, low->x.dtype, (row * low->parts + part) * r, low->up->data, low->up->dtype, o * r,
                       r);
}

double kac_ref_linear_sum(const kac_linear_args *a, int64_t row, int64_t offset_x, int64_t o) {
    return kac_ref_dot(a->x.data, a->x.dtype, offset_x, a->w->data, a->w->dtype, o * a->w->n_in, a->w->n_in) +
           low_product(&a->o.low, row, o) + kac_ref_load_or(&a->o.bias, o, 0);
}

kac_status kac_ref_linear(kac_ctx *c, const kac_linear_args *a) {
    const int last = a->x.rank - 1;
    const int64_t n_out = a->out.shape[last], n_rows = kac_tensor_count(a->out) / n_out;
    enum { BLOCK = 16 }; /* rows that share one pass over the weights */
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t block = 0; block < n_rows; block += BLOCK) {
        for (int64_t o = 0; o < n_out; o++) {
            for (int64_t row = block; row < KAC_MIN(block + BLOCK, n_rows); row++) {
                const int64_t offset_x = kac_element_offset(&a->x, last, row), at = row * n_out + o;
                double y = kac_ref_linear_sum(a, row, offset_x, o);
                if (a->o.geglu)
                    y *= kac_ref_act(kac_ref_linear_sum(a, row, offset_x, n_out + o), KAC_ACT_GELU);
                else
                    y = kac_ref_act(y, a->o.act);
                kac_ref_store(&a->out, at, y + kac_ref_load_or(&a->o.residual, at, 0));
            }
        }
    }
    return KAC_OK;
}

kac_status kac_ref_matmul_t(kac_ctx *c, const kac_matmul_t_args *a) {
    const int rank = a->a.rank;
    const int64_t n_rows = a->a.shape[rank - 2], n_columns = a->b.shape[rank - 2], n_inner = a->a.shape[rank - 1];
    const int64_t n_products = kac_tensor_count(a->a) / (n_rows * n_inner);
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t p = 0; p < n_products; p++)
        for (int64_t row = 0; row < n_rows; row++)
            for (int64_t column = 0; column < n_columns; column++) {
                const double sum = kac_ref_dot(a->a.data, a->a.dtype, (p * n_rows + row) * n_inner, a->b.data,
                                               a->b.dtype, (p * n_columns + column) * n_inner, n_inner);
                kac_ref_store(&a->out, (p * n_rows + row) * n_columns + column, sum * a->scale);
            }
    return KAC_OK;
}
