/* Backward of moved data: rows of gradients added where memory allows it, the reference otherwise. */
#include "cpu/cpu.h"
#include "ref/ref.h"

/* dx += dy; the innermost axis in one piece when it is one in both. */
static void add_view(kac_ctx *c, const kac_tensor *dx, const kac_tensor *dy) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    if (dx->data == NULL) return;
    if (kac_tensor_contiguous(*dx) && kac_tensor_contiguous(*dy)) {
        kac_cpu_add(c, dx->data, dy->data, kac_tensor_count(*dy), 1);
        return;
    }
    const int last = dy->rank - 1;
    const int64_t n = dy->shape[last], rows = kac_tensor_count(*dy) / n;
    const int64_t step_x = dx->stride[last], step_y = dy->stride[last];
    const int threads = kac_cpu_threads(c, 4.0 * (double)(rows * n));
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        float *to = (float *)dx->data + kac_element_offset(dx, last, r);
        const float *from = (const float *)dy->data + kac_element_offset(dy, last, r);
        if (step_x == 1 && step_y == 1)
            k->add(to, from, n, 1);
        else
            for (int64_t i = 0; i < n; i++) to[i * step_x] += from[i * step_y];
    }
}

kac_status kac_cpu_copy_grad(kac_ctx *c, const kac_copy_args *a, const kac_grads *g) {
    if (a->out.rank == 0) return kac_ref_copy_grad(c, a, g);
    add_view(c, &g->in[KAC_IN_X], &g->out);
    return KAC_OK;
}

kac_status kac_cpu_concat_grad(kac_ctx *c, const kac_concat_args *a, const kac_grads *g) {
    const int64_t left = a->a.shape[a->axis], right = a->b.shape[a->axis];
    const kac_tensor part[2] = {kac_tensor_slice(g->out, a->axis, 0, left),
                                kac_tensor_slice(g->out, a->axis, left, right)};
    for (int i = 0; i < 2; i++) add_view(c, &g->in[i], &part[i]);
    return KAC_OK;
}

/* One row of x: all rows of dy that fall on it, from the top. */
static void upsample_row(const kac_upsample_nearest_args *a, const kac_grads *g, const struct kac_kernels *k, int64_t n,
                         int64_t y) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], channels = a->x.shape[3];
    const int64_t h = a->out.shape[1], w = a->out.shape[2];
    float *to = (float *)g->in[KAC_IN_X].data + (n * height + y) * width * channels;
    for (int64_t from_y = kac_ceil_div(y * h, height); from_y < h && from_y * height / h == y; from_y++) {
        const float *from = (const float *)g->out.data + (n * h + from_y) * w * channels;
        for (int64_t x = 0; x < w; x++) k->add(to + x * width / w * channels, from + x * channels, channels, 1);
    }
}

kac_status kac_cpu_upsample_nearest_grad(kac_ctx *c, const kac_upsample_nearest_args *a, const kac_grads *g) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int threads = kac_cpu_threads(c, 4.0 * (double)kac_tensor_count(a->out));
    if (g->in[KAC_IN_X].data == NULL) return KAC_OK;
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < a->x.shape[0]; n++)
        for (int64_t y = 0; y < a->x.shape[1]; y++) upsample_row(a, g, k, n, y);
    return KAC_OK;
}
