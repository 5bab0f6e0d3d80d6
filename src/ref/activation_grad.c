#include "ref/ref.h"

kac_status kac_ref_activate_grad(kac_ctx *c, const kac_activate_args *a, const kac_grads *g) {
    const int64_t count = kac_tensor_count(a->x);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < count; i++)
        kac_ref_add(&g->in[KAC_IN_X], i, kac_ref_load(&g->out, i) * kac_ref_act_slope(kac_ref_load(&a->x, i), a->act));
    return KAC_OK;
}

kac_status kac_ref_affine_grad(kac_ctx *c, const kac_affine_args *a, const kac_grads *g) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < channels; i++) {
        const double scale = kac_ref_load(&a->scale, i);
        double by_scale = 0, by_shift = 0;
        for (int64_t at = i; at < n_rows * channels; at += channels) {
            const double dy = kac_ref_load(&g->out, at);
            kac_ref_add(&g->in[KAC_IN_X], at, dy * scale);
            by_scale += dy * kac_ref_load(&a->x, at);
            by_shift += dy;
        }
        kac_ref_add(&g->in[KAC_IN_SCALE], i, by_scale);
        kac_ref_add(&g->in[KAC_IN_SHIFT], i, by_shift);
    }
    return KAC_OK;
}

/* One channel of all images, so that images that share a row are summed in one order. */
static void modulate_channel(const kac_modulate_args *a, const kac_grads *g, int64_t i) {
    const int64_t n_images = a->x.shape[0], channels = a->x.shape[a->x.rank - 1];
    const int64_t n_rows = kac_tensor_count(a->x) / (n_images * channels);
    const kac_tensor *dscale = &g->in[KAC_IN_SCALE], *dshift = &g->in[KAC_IN_SHIFT];
    for (int64_t n = 0; n < n_images; n++) {
        const int64_t row = a->row_index != NULL ? a->row_index[n] : a->scale.shape[0] == 1 ? 0 : n;
        const double scale = kac_ref_load(&a->scale, row * a->scale.stride[0] + i);
        double by_scale = 0, by_shift = 0;
        for (int64_t r = n * n_rows; r < (n + 1) * n_rows; r++) {
            const double dy = kac_ref_load(&g->out, r * channels + i);
            kac_ref_add(&g->in[KAC_IN_X], r * channels + i, dy * (1 + scale));
            by_scale += dy * kac_ref_load(&a->x, r * channels + i);
            by_shift += dy;
        }
        kac_ref_add(dscale, row * dscale->stride[0] + i, by_scale);
        kac_ref_add(dshift, row * dshift->stride[0] + i, by_shift);
    }
}

kac_status kac_ref_modulate_grad(kac_ctx *c, const kac_modulate_args *a, const kac_grads *g) {
    const int64_t channels = a->x.shape[a->x.rank - 1];
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < channels; i++) modulate_channel(a, g, i);
    return KAC_OK;
}

/* 1 inside, the borders included, as PyTorch has it. */
kac_status kac_ref_clamp_grad(kac_ctx *c, const kac_clamp_args *a, const kac_grads *g) {
    const int64_t count = kac_tensor_count(a->x);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < count; i++) {
        const double x = kac_ref_load(&a->x, i);
        if (!(x < a->lo) && !(x > a->hi)) kac_ref_add(&g->in[KAC_IN_X], i, kac_ref_load(&g->out, i));
    }
    return KAC_OK;
}

/* The coefficients are rounded to f32, as the op does. */
kac_status kac_ref_lincomb_grad(kac_ctx *c, const kac_lincomb_args *a, const kac_grads *g) {
    const int64_t n_images = a->out.shape[0], count = kac_tensor_count(a->out) / n_images;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int t = 0; t < a->n_terms; t++) {
            const kac_tensor *dx = &g->in[t];
            const float coef = (float)a->coef[t * a->n_coef + (a->n_coef == 1 ? 0 : n)];
            for (int64_t i = 0; i < count && dx->data != NULL; i++)
                kac_ref_add(dx, n * dx->stride[0] + i, (double)coef * kac_ref_load(&g->out, n * count + i));
        }
    return KAC_OK;
}
