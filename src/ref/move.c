#include "ref/ref.h"

kac_status kac_ref_copy(kac_ctx *c, const kac_copy_args *a) {
    const int64_t count = kac_tensor_count(a->out);
    const int rank = a->out.rank;
    const bool same_bits = a->x.dtype == a->out.dtype; /* 64-bit integers and NaN payloads do not pass through double */
    const size_t n_bytes = kac_dtype_bytes(a->out.dtype);
#pragma omp parallel for num_threads(c->n_threads)
    for (int64_t i = 0; i < count; i++) {
        const int64_t from = kac_element_offset(&a->x, rank, i), to = kac_element_offset(&a->out, rank, i);
        if (same_bits)
            memcpy((char *)a->out.data + (size_t)to * n_bytes, (const char *)a->x.data + (size_t)from * n_bytes,
                   n_bytes);
        else
            kac_ref_store(&a->out, to, kac_ref_load(&a->x, from));
    }
    return KAC_OK;
}

kac_status kac_ref_concat(kac_ctx *c, const kac_concat_args *a) {
    kac_tensor left = kac_tensor_slice(a->out, a->axis, 0, a->a.shape[a->axis]);
    kac_tensor right = kac_tensor_slice(a->out, a->axis, a->a.shape[a->axis], a->b.shape[a->axis]);
    KAC_TRY(kac_ref_copy(c, &(kac_copy_args){left, a->a}));
    return kac_ref_copy(c, &(kac_copy_args){right, a->b});
}

kac_status kac_ref_gather(kac_ctx *c, const kac_gather_args *a) {
    for (int i = 0; i < a->n_index; i++)
        KAC_TRY(kac_ref_copy(
            c, &(kac_copy_args){kac_tensor_slice(a->out, 0, i, 1), kac_tensor_slice(a->x, 0, a->index[i], 1)}));
    return KAC_OK;
}

kac_status kac_ref_embedding(kac_ctx *c, const kac_embedding_args *a) {
    (void)c;
    const int64_t n_ids = kac_tensor_count(a->ids), n_tokens = a->ids.shape[1], width = a->table.shape[1];
    for (int64_t i = 0; i < n_ids; i++) {
        const int64_t id = ((const int32_t *)a->ids.data)[i];
        for (int64_t j = 0; j < width; j++)
            kac_ref_store(&a->out, i * width + j,
                          kac_ref_load(&a->table, id * width + j) +
                              kac_ref_load_or(&a->position, i % n_tokens * width + j, 0));
    }
    return KAC_OK;
}

/* Frequencies and angles in f32: a network was trained with angles rounded that way, and at t = 999 the rounding is as
 * large as 3e-5. */
kac_status kac_ref_timestep_embedding(kac_ctx *c, const kac_timestep_embedding_args *a) {
    (void)c;
    const int half = a->n / 2;
    for (int u = 0; u < a->n_t; u++) {
        for (int i = 0; i < half; i++) {
            const float exponent = (float)-log(a->max_period) * (float)i / (float)(half - a->shift);
            const float angle = (float)a->scale * ((float)a->t[u] * (float)exp(exponent));
            const int at_sin = a->flip ? half + i : i, at_cos = a->flip ? i : half + i;
            kac_ref_store(&a->out, (int64_t)u * a->n + at_sin, sin(angle));
            kac_ref_store(&a->out, (int64_t)u * a->n + at_cos, cos(angle));
        }
        if (a->n % 2 != 0) kac_ref_store(&a->out, (int64_t)u * a->n + a->n - 1, 0);
    }
    return KAC_OK;
}
