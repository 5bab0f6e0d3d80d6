#include "base/base.h"
#include <kac/tensor.h>
#include <stdio.h>
#include <string.h>

size_t kac_dtype_bytes(kac_dtype dtype) {
    switch (dtype) {
#define DTYPE_BYTES(name, bytes, text)                                                                                 \
    case name:                                                                                                         \
        return bytes;
        KAC_DTYPE_LIST(DTYPE_BYTES)
#undef DTYPE_BYTES
    }
    return 0;
}

const char *kac_dtype_name(kac_dtype dtype) {
    switch (dtype) {
#define DTYPE_NAME(name, bytes, text)                                                                                  \
    case name:                                                                                                         \
        return text;
        KAC_DTYPE_LIST(DTYPE_NAME)
#undef DTYPE_NAME
    }
    return "?";
}

kac_tensor kac_tensor_of(void *data, kac_dtype dtype, int rank, const int64_t *shape) {
    KAC_ASSERT(rank >= 0 && rank <= KAC_MAX_RANK);
    kac_tensor t = {.data = data, .dtype = dtype, .rank = rank};
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t.shape[i] = shape[i];
        t.stride[i] = stride;
        stride *= shape[i];
    }
    return t;
}

int64_t kac_tensor_count(kac_tensor t) {
    int64_t n = 1;
    for (int i = 0; i < t.rank; i++) n *= t.shape[i];
    return n;
}

size_t kac_tensor_bytes(kac_tensor t) {
    return (size_t)kac_tensor_count(t) * kac_dtype_bytes(t.dtype);
}

bool kac_tensor_contiguous(kac_tensor t) {
    int64_t stride = 1;
    for (int i = t.rank - 1; i >= 0; i--) {
        if (t.shape[i] != 1 && t.stride[i] != stride) return false;
        stride *= t.shape[i];
    }
    return true;
}

bool kac_tensor_same_shape(kac_tensor a, kac_tensor b) {
    return a.rank == b.rank && memcmp(a.shape, b.shape, (size_t)a.rank * sizeof *a.shape) == 0;
}

kac_tensor kac_tensor_slice(kac_tensor t, int axis, int64_t start, int64_t n) {
    KAC_ASSERT(axis >= 0 && axis < t.rank && start >= 0 && n >= 0 && start + n <= t.shape[axis]);
    t.data = (char *)t.data + start * t.stride[axis] * (int64_t)kac_dtype_bytes(t.dtype);
    t.shape[axis] = n;
    return t;
}

kac_tensor kac_tensor_transpose(kac_tensor t, int axis_a, int axis_b) {
    KAC_ASSERT(axis_a >= 0 && axis_a < t.rank && axis_b >= 0 && axis_b < t.rank);
    const int64_t shape = t.shape[axis_a], stride = t.stride[axis_a];
    t.shape[axis_a] = t.shape[axis_b], t.stride[axis_a] = t.stride[axis_b];
    t.shape[axis_b] = shape, t.stride[axis_b] = stride;
    return t;
}

kac_tensor kac_tensor_reshape_to(kac_tensor t, int rank, const int64_t *shape) {
    const kac_tensor r = kac_tensor_of(t.data, t.dtype, rank, shape);
    KAC_ASSERT(kac_tensor_contiguous(t) && kac_tensor_count(r) == kac_tensor_count(t));
    return r;
}

kac_tensor kac_tensor_split(kac_tensor t, int axis, int64_t outer) {
    KAC_ASSERT(axis >= 0 && axis < t.rank && t.rank < KAC_MAX_RANK && outer > 0 && t.shape[axis] % outer == 0);
    for (int i = t.rank; i > axis + 1; i--) t.shape[i] = t.shape[i - 1], t.stride[i] = t.stride[i - 1];
    t.rank++;
    t.shape[axis + 1] = t.shape[axis] / outer;
    t.stride[axis + 1] = t.stride[axis];
    t.shape[axis] = outer;
    t.stride[axis] = t.stride[axis + 1] * t.shape[axis + 1];
    return t;
}

const char *kac_tensor_text(kac_tensor t, char *buffer, size_t n_buffer) {
    size_t n = (size_t)snprintf(buffer, n_buffer, "[");
    for (int i = 0; i < t.rank && n < n_buffer; i++)
        n += (size_t)snprintf(buffer + n, n_buffer - n, "%s%lld", i == 0 ? "" : ", ", (long long)t.shape[i]);
    if (n < n_buffer) snprintf(buffer + n, n_buffer - n, "] %s", kac_dtype_name(t.dtype));
    return buffer;
}
