#include "ref/ref.h"

/* Σ over the taps that lie inside the image; x is contiguous along W and C, so one row of the kernel is one dot
 * product. */
static double window(const kac_conv2d_args *a, int64_t n, int64_t y0, int64_t x0, int64_t o) {
    const int64_t height = a->x.shape[1], width = a->x.shape[2], n_in = a->w->n_in;
    const int64_t kh = KAC_MAX(1, a->w->kh), kw = KAC_MAX(1, a->w->kw); /* a linear layer is a 1×1 convolution */
    const int64_t first = KAC_MAX(0, -x0), end = KAC_MIN(kw, width - x0);
    double sum = 0;
    if (first >= end) return sum;
    for (int64_t ky = 0; ky < kh; ky++) {
        if (y0 + ky < 0 || y0 + ky >= height) continue;
        sum += kac_ref_dot(a->x.data, a->x.dtype, ((n * height + y0 + ky) * width + x0 + first) * n_in, a->w->data,
                           a->w->dtype, ((o * kh + ky) * kw + first) * n_in, (end - first) * n_in);
    }
    return sum;
}

double kac_ref_conv2d_sum(const kac_conv2d_args *a, int64_t n, int64_t y, int64_t x, int64_t o) {
    const kac_conv_opt *opt = &a->o;
    const int64_t row_bias = opt->row_index != NULL ? opt->row_index[n] : opt->row_bias.shape[0] == 1 ? 0 : n;
    double sum = window(a, n, y * opt->stride - opt->pad[0], x * opt->stride - opt->pad[1], o);
    sum += kac_ref_load_or(&opt->bias, o, 0);
    if (opt->row_bias.data != NULL) sum += kac_ref_load(&opt->row_bias, row_bias * opt->row_bias.stride[0] + o);
    return sum;
}

kac_status kac_ref_conv2d(kac_ctx *c, const kac_conv2d_args *a) {
    const int64_t n_images = a->out.shape[0], height = a->out.shape[1], width = a->out.shape[2],
                  n_out = a->out.shape[3];
    const kac_conv_opt *opt = &a->o;
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t y = 0; y < height; y++)
            for (int64_t o = 0; o < n_out; o++)
                for (int64_t x = 0; x < width; x++) {
                    const int64_t at = ((n * height + y) * width + x) * n_out + o;
                    const double sum = kac_ref_conv2d_sum(a, n, y, x, o);
                    kac_ref_store(&a->out, at, kac_ref_act(sum, opt->act) + kac_ref_load_or(&opt->residual, at, 0));
                }
    return KAC_OK;
}
