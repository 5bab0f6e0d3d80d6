/* A tensor is a small value: where the numbers lie and how. No name, no graph, no reference count; arenas own the data.
 */
#ifndef KAC_TENSOR_H
#define KAC_TENSOR_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum { KAC_MAX_RANK = 6 };

/* name, bytes, safetensors' name */
#define KAC_DTYPE_LIST(X)                                                                                              \
    X(KAC_F32, 4, "F32")                                                                                               \
    X(KAC_BF16, 2, "BF16")                                                                                             \
    X(KAC_F16, 2, "F16")                                                                                               \
    X(KAC_F64, 8, "F64")                                                                                               \
    X(KAC_I64, 8, "I64")                                                                                               \
    X(KAC_I32, 4, "I32")                                                                                               \
    X(KAC_I16, 2, "I16")                                                                                               \
    X(KAC_I8, 1, "I8")                                                                                                 \
    X(KAC_U8, 1, "U8")                                                                                                 \
    X(KAC_BOOL, 1, "BOOL")                                                                                             \
    X(KAC_U16, 2, "U16")                                                                                               \
    X(KAC_U32, 4, "U32")                                                                                               \
    X(KAC_U64, 8, "U64")

typedef enum kac_dtype {
#define KAC_DTYPE_ENUM(name, bytes, text) name,
    KAC_DTYPE_LIST(KAC_DTYPE_ENUM)
#undef KAC_DTYPE_ENUM
} kac_dtype;

/* Bytes of one element; the name as safetensors writes it, "F32". */
size_t kac_dtype_bytes(kac_dtype dtype);
const char *kac_dtype_name(kac_dtype dtype);

typedef struct kac_tensor {
    void *data; /* NULL: no tensor (an optional argument left out, an output not taken yet) */
    kac_dtype dtype;
    int rank;
    int64_t shape[KAC_MAX_RANK];  /* outermost first */
    int64_t stride[KAC_MAX_RANK]; /* in elements */
} kac_tensor;

/* A contiguous tensor over `data` (may be NULL). */
kac_tensor kac_tensor_of(void *data, kac_dtype dtype, int rank, const int64_t *shape);
/* kac_tensor_make(data, KAC_F32, 2, 3) = [2, 3]; up to KAC_MAX_RANK sizes. */
#define kac_tensor_make(data, dtype, ...)                                                                              \
    kac_tensor_of((data), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

int64_t kac_tensor_count(kac_tensor t);   /* number of elements */
size_t kac_tensor_bytes(kac_tensor t);    /* count × dtype, without gaps */
bool kac_tensor_contiguous(kac_tensor t); /* row-major without gaps */
bool kac_tensor_same_shape(kac_tensor a, kac_tensor b);

/* Views, no copy. */
kac_tensor kac_tensor_slice(kac_tensor t, int axis, int64_t start, int64_t n);
kac_tensor kac_tensor_transpose(kac_tensor t, int axis_a, int axis_b);
/* Needs a contiguous t with the same number of elements; asserts. */
kac_tensor kac_tensor_reshape_to(kac_tensor t, int rank, const int64_t *shape);
#define kac_tensor_reshape(t, ...)                                                                                     \
    kac_tensor_reshape_to((t), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

/* Splits one axis of size a·b into two (views allowed): [N, T, heads·d] -> [N, T, heads, d]. */
kac_tensor kac_tensor_split(kac_tensor t, int axis, int64_t outer);

/* "[2, 8, 8, 4] f32" into a buffer of at least 96 bytes; returns the buffer. */
const char *kac_tensor_text(kac_tensor t, char *buffer, size_t n_buffer);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
