#include "ref/ref.h"

/* dx += dy, views on both sides; a change of dtype has slope 1. */
static void add_view(kac_ctx *c, const kac_tensor *dx, const kac_tensor *dy) {
    const int64_t count = kac_tensor_count(*dy);
#pragma omp parallel for num_threads(c->n_threads) if (count > 4096)
    for (int64_t i = 0; i < count; i++)
        kac_ref_add(dx, kac_element_offset(dx, dx->rank, i), kac_ref_load(dy, kac_element_offset(dy, dy->rank, i)));
}

kac_status kac_ref_copy_grad(kac_ctx *c, const kac_copy_args *a, const kac_grads *g) {
    (void)a;
    if (g->in[KAC_IN_X].data != NULL) add_view(c, &g->in[KAC_IN_X], &g->out);
    return KAC_OK;
}

kac_status kac_ref_concat_grad(kac_ctx *c, const kac_concat_args *a, const kac_grads *g) {
    const int64_t left = a->a.shape[a->axis], right = a->b.shape[a->axis];
    const kac_tensor part[2] = {kac_tensor_slice(g->out, a->axis, 0, left),
                                kac_tensor_slice(g->out, a->axis, left, right)};
    for (int i = 0; i < 2; i++)
        if (g->in[i].data != NULL) add_view(c, &g->in[i], &part[i]);
    return KAC_OK;
}

kac_status kac_ref_gather_grad(kac_ctx *c, const kac_gather_args *a, const kac_grads *g) {
    for (int i = 0; i < a->n_index && g->in[KAC_IN_X].data != NULL; i++) {
        const kac_tensor to = kac_tensor_slice(g->in[KAC_IN_X], 0, a->index[i], 1),
                         from = kac_tensor_slice(g->out, 0, i, 1);
        add_view(c, &to, &from);
    }
    return KAC_OK;
}

kac_status kac_ref_embedding_grad(kac_ctx *c, const kac_embedding_args *a, const kac_grads *g) {
    (void)c;
    const int64_t n_ids = kac_tensor_count(a->ids), n_tokens = a->ids.shape[1], width = a->table.shape[1];
    for (int64_t i = 0; i < n_ids; i++) {
        const int64_t id = ((const int32_t *)a->ids.data)[i];
        for (int64_t j = 0; j < width; j++) {
            const double dy = kac_ref_load(&g->out, i * width + j);
            kac_ref_add(&g->in[KAC_IN_TABLE], id * width + j, dy);
            kac_ref_add(&g->in[KAC_IN_POSITION], i % n_tokens * width + j, dy);
        }
    }
    return KAC_OK;
}

kac_status kac_ref_upsample_nearest_grad(kac_ctx *c, const kac_upsample_nearest_args *a, const kac_grads *g) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], channels = a->x.shape[3];
    const int64_t n_images = a->out.shape[0], h = a->out.shape[1], w = a->out.shape[2];
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++) {
                const int64_t to = ((n * height + y * height / h) * width + x * width / w) * channels;
                for (int64_t i = 0; i < channels; i++)
                    kac_ref_add(&g->in[KAC_IN_X], to + i, kac_ref_load(&g->out, ((n * h + y) * w + x) * channels + i));
            }
    return KAC_OK;
}

kac_status kac_ref_avg_pool2_grad(kac_ctx *c, const kac_avg_pool2_args *a, const kac_grads *g) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], channels = a->x.shape[3];
    const int64_t n_images = a->out.shape[0], h = a->out.shape[1], w = a->out.shape[2];
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < 2 * h; y++)
            for (int64_t x = 0; x < 2 * w; x++)
                for (int64_t i = 0; i < channels; i++)
                    kac_ref_add(&g->in[KAC_IN_X], ((n * height + y) * width + x) * channels + i,
                                kac_ref_load(&g->out, ((n * h + y / 2) * w + x / 2) * channels + i) / 4);
    return KAC_OK;
}
