#include "ref/ref.h"

kac_ref_moments kac_ref_moments_of(const kac_tensor *x, int64_t offset, int64_t n_rows, int64_t n_columns,
                                   int64_t n_stride, double eps) {
    const double count = (double)(n_rows * n_columns);
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n_columns; i++) sum += kac_ref_load(x, offset + r * n_stride + i);
    const double mean = sum / count;
    for (int64_t r = 0; r < n_rows; r++)
        for (int64_t i = 0; i < n_columns; i++) {
            const double centred = kac_ref_load(x, offset + r * n_stride + i) - mean;
            squares += centred * centred;
        }
    return (kac_ref_moments){mean, 1 / sqrt(squares / count + eps)};
}

kac_status kac_ref_group_norm(kac_ctx *c, const kac_group_norm_args *a) {
    const int64_t n_images = a->x.shape[0], channels = a->x.shape[a->x.rank - 1], n_group = channels / a->groups;
    const int64_t n_rows = kac_tensor_count(a->x) / (n_images * channels);
#pragma omp parallel for collapse(2) num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++)
        for (int64_t g = 0; g < a->groups; g++) {
            const int64_t start = n * n_rows * channels + g * n_group;
            const kac_ref_moments m = kac_ref_moments_of(&a->x, start, n_rows, n_group, channels, a->eps);
            for (int64_t r = 0; r < n_rows; r++)
                for (int64_t i = 0; i < n_group; i++) {
                    const int64_t at = start + r * channels + i, channel = g * n_group + i;
                    const double y = (kac_ref_load(&a->x, at) - m.mean) * m.scale;
                    const double z = y * kac_ref_load_or(&a->gamma, channel, 1) + kac_ref_load_or(&a->beta, channel, 0);
                    kac_ref_store(&a->out, at, kac_ref_act(z, a->act));
                }
        }
    return KAC_OK;
}

kac_status kac_ref_layer_norm(kac_ctx *c, const kac_layer_norm_args *a) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        const kac_ref_moments m = kac_ref_moments_of(&a->x, r * channels, 1, channels, channels, a->eps);
        for (int64_t i = 0; i < channels; i++) {
            const double y = (kac_ref_load(&a->x, r * channels + i) - m.mean) * m.scale;
            kac_ref_store(&a->out, r * channels + i,
                          y * kac_ref_load_or(&a->gamma, i, 1) + kac_ref_load_or(&a->beta, i, 0));
        }
    }
    return KAC_OK;
}

kac_status kac_ref_l2_normalize(kac_ctx *c, const kac_l2_normalize_args *a) {
    const int64_t channels = a->x.shape[a->x.rank - 1], n_rows = kac_tensor_count(a->x) / channels;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t r = 0; r < n_rows; r++) {
        const int64_t at = r * channels;
        const double norm = sqrt(kac_ref_dot(a->x.data, a->x.dtype, at, a->x.data, a->x.dtype, at, channels));
        for (int64_t i = 0; i < channels; i++) kac_ref_store(&a->out, at + i, kac_ref_load(&a->x, at + i) / norm);
    }
    return KAC_OK;
}

/* Over everything but axis 0; x may be a view along axis 0. */
kac_status kac_ref_row_stats(kac_ctx *c, const kac_row_stats_args *a) {
    const int64_t n_images = a->x.shape[0], count = kac_tensor_count(a->x) / n_images;
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t n = 0; n < n_images; n++) {
        const int64_t start = n * a->x.stride[0];
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < count; i++) sum += kac_ref_load(&a->x, start + i);
        const double mean = sum / (double)count;
        for (int64_t i = 0; i < count; i++) {
            const double centred = kac_ref_load(&a->x, start + i) - mean;
            squares += centred * centred;
        }
        kac_ref_store(&a->out, 2 * n, mean);
        kac_ref_store(&a->out, 2 * n + 1, sqrt(squares / (double)(count - 1)));
    }
    return KAC_OK;
}
