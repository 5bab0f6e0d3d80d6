/* Moving data: runs of bytes where memory allows it, the reference otherwise. */
#include "cpu/cpu.h"
#include "ref/ref.h"

enum { BLOCK = 65536 }; /* bytes of a task */

static int move_threads(const kac_ctx *c, int64_t n_bytes) {
    return n_bytes < 2 * BLOCK ? 1 : c->n_threads;
}

static void copy_bytes(kac_ctx *c, void *to, const void *from, int64_t n) {
    const int threads = move_threads(c, n);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += BLOCK)
        memcpy((char *)to + i, (const char *)from + i, (size_t)KAC_MIN(BLOCK, n - i));
}

static void convert(kac_ctx *c, const kac_copy_args *a) {
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t n = kac_tensor_count(a->x);
    const bool to_bf16 = a->out.dtype == KAC_BF16;
    const int threads = move_threads(c, 4 * n);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < n; i += BLOCK / 4) {
        const int64_t m = KAC_MIN(BLOCK / 4, n - i);
        if (to_bf16)
            k->to_bf16((uint16_t *)a->out.data + i, (const float *)a->x.data + i, m);
        else
            k->to_f32((float *)a->out.data + i, (const uint16_t *)a->x.data + i, m);
    }
}

/* A view whose outer axes all have one entry and whose three inner ones are a transposed [C, pixels]: NCHW to NHWC and back. */
typedef struct flip {
    int64_t images, rows, cols; /* out[n, c, r] = x[n, r, c], both contiguous inside an image */
} flip;

static bool is_flip(const kac_tensor *out, const kac_tensor *x, flip *f) {
    if (x->dtype != KAC_F32 || out->dtype != KAC_F32 || x->rank != 4 || !kac_tensor_contiguous(*out)) return false;
    const int64_t *n = x->shape, *s = x->stride;
    if (n[0] > 1 && s[0] != n[1] * n[2] * n[3]) return false;
    if (s[1] == 1 && s[3] == n[1] && s[2] == n[3] * n[1]) { /* seen as NCHW, lies as NHWC */
        *f = (flip){n[0], n[2] * n[3], n[1]};
        return true;
    }
    if (s[2] == 1 && s[3] == n[1] * n[2] && s[1] == n[2]) { /* seen as NHWC, lies as NCHW */
        *f = (flip){n[0], n[3], n[1] * n[2]};
        return true;
    }
    return false;
}

kac_status kac_cpu_copy(kac_ctx *c, const kac_copy_args *a) {
    const bool flat = kac_tensor_contiguous(a->x) && kac_tensor_contiguous(a->out);
    if (flat && a->x.dtype == a->out.dtype) {
        copy_bytes(c, a->out.data, a->x.data, (int64_t)kac_tensor_bytes(a->x));
        return KAC_OK;
    }
    const bool floats =
        (a->x.dtype == KAC_F32 && a->out.dtype == KAC_BF16) || (a->x.dtype == KAC_BF16 && a->out.dtype == KAC_F32);
    if (flat && floats) {
        convert(c, a);
        return KAC_OK;
    }
    flip f;
    if (!is_flip(&a->out, &a->x, &f)) return kac_ref_copy(c, a);
    const struct kac_kernels *k = kac_cpu_kernels_of(c);
    const int64_t count = f.rows * f.cols;
    const int threads = move_threads(c, 4 * count * f.images);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < f.images; n++)
        k->transpose((float *)a->out.data + n * count, f.rows, (const float *)a->x.data + n * count, f.cols, f.rows,
                     f.cols);
    return KAC_OK;
}

kac_status kac_cpu_concat(kac_ctx *c, const kac_concat_args *a) {
    if (!kac_tensor_contiguous(a->a) || !kac_tensor_contiguous(a->b) || a->out.dtype != a->a.dtype)
        return kac_ref_concat(c, a);
    int64_t outer = 1, left = (int64_t)kac_dtype_bytes(a->out.dtype), right = left;
    for (int i = 0; i < a->axis; i++) outer *= a->out.shape[i];
    for (int i = a->axis; i < a->out.rank; i++) left *= a->a.shape[i], right *= a->b.shape[i];
    const int64_t row = left + right, step = KAC_MAX(1, BLOCK / KAC_MAX(1, row));
    const int threads = move_threads(c, outer * row);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i0 = 0; i0 < outer; i0 += step)
        for (int64_t i = i0; i < KAC_MIN(outer, i0 + step); i++) {
            memcpy((char *)a->out.data + i * row, (const char *)a->a.data + i * left, (size_t)left);
            memcpy((char *)a->out.data + i * row + left, (const char *)a->b.data + i * right, (size_t)right);
        }
    return KAC_OK;
}

kac_status kac_cpu_gather(kac_ctx *c, const kac_gather_args *a) {
    if (a->out.dtype != a->x.dtype) return kac_ref_gather(c, a);
    const int64_t n = (int64_t)kac_tensor_bytes(a->out) / a->n_index;
    const int threads = move_threads(c, n * a->n_index);
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int i = 0; i < a->n_index; i++)
        memcpy((char *)a->out.data + i * n, (const char *)a->x.data + a->index[i] * n, (size_t)n);
    return KAC_OK;
}

kac_status kac_cpu_embedding(kac_ctx *c, const kac_embedding_args *a) {
    const kac_dtype dtype = a->table.dtype;
    if (a->out.dtype != dtype || kac_cpu_kernels_of(c)->lincomb == NULL) return kac_ref_embedding(c, a);
    const int64_t n = kac_tensor_count(a->ids), tokens = a->ids.shape[1], width = a->table.shape[1];
    const int64_t size = (int64_t)kac_dtype_bytes(dtype);
    const bool bf16[2] = {dtype == KAC_BF16, dtype == KAC_BF16};
    for (int64_t i = 0; i < n; i++) {
        const char *row = (const char *)a->table.data + ((const int32_t *)a->ids.data)[i] * width * size;
        char *to = (char *)a->out.data + i * width * size;
        if (a->position.data) {
            const void *terms[2] = {row, (const char *)a->position.data + i % tokens * width * size};
            kac_cpu_kernels_of(c)->lincomb(to, 2, terms, bf16, (const float[]){1, 1}, width, bf16[0]);
        } else {
            memcpy(to, row, (size_t)(width * size));
        }
    }
    return KAC_OK;
}

kac_status kac_cpu_upsample_nearest(kac_ctx *c, const kac_upsample_nearest_args *a) {
    if (a->out.dtype != a->x.dtype) return kac_ref_upsample_nearest(c, a);
    const int64_t images = a->x.shape[0], h = a->x.shape[1], w = a->x.shape[2], ho = a->out.shape[1],
                  wo = a->out.shape[2];
    const int64_t pixel = a->x.shape[3] * (int64_t)kac_dtype_bytes(a->x.dtype);
    const int threads = move_threads(c, images * ho * wo * pixel);
#pragma omp parallel for collapse(2) num_threads(threads) if (threads > 1)
    for (int64_t n = 0; n < images; n++)
        for (int64_t y = 0; y < ho; y++) {
            const char *from = (const char *)a->x.data + (n * h + y * h / ho) * w * pixel;
            char *to = (char *)a->out.data + (n * ho + y) * wo * pixel;
            for (int64_t x = 0; x < wo; x++) memcpy(to + x * pixel, from + x * w / wo * pixel, (size_t)pixel);
        }
    return KAC_OK;
}
