#include "ops.h"
#include <stdio.h>

/* Address space, not memory: what is not touched costs nothing. */
static const size_t generous_bytes = (size_t)64 << 30;

static kac_status open_arena(kac_arena *a, const char *name, size_t bytes, bool counting) {
    if (!counting) return kac_arena_init(a, name, bytes == 0 ? generous_bytes : bytes);
    kac_arena_init_counting(a, name);
    return KAC_OK;
}

kac_status kac_ctx_open(kac_ctx *c, const struct kac_ops *ops, kac_dtype dtype, int n_threads,
                        const kac_ctx_sizes *sizes) {
    static const kac_ctx_sizes generous = {0};
    if (sizes == NULL) sizes = &generous;
    KAC_ASSERT(dtype == KAC_F32 || dtype == KAC_BF16 || (dtype == KAC_F64 && ops == &kac_ref_ops));
    *c = (kac_ctx){.ops = ops, .dtype = dtype, .n_threads = n_threads > 0 ? n_threads : kac_cpu_count()};
    const bool counting = ops == &kac_plan_ops;
    kac_status s = open_arena(&c->model, "model", sizes->model, counting);
    if (s == KAC_OK) s = open_arena(&c->run, "run", sizes->run, counting);
    if (s == KAC_OK) s = open_arena(&c->scratch, "scratch", sizes->scratch, counting);
    if (s == KAC_OK && ops->open != NULL) s = ops->open(c);
    if (s != KAC_OK) kac_ctx_close(c);
    return s;
}

void kac_ctx_close(kac_ctx *c) {
    if (c->ops != NULL && c->ops->close != NULL) c->ops->close(c);
    kac_arena_free(&c->model);
    kac_arena_free(&c->run);
    kac_arena_free(&c->scratch);
    *c = (kac_ctx){0};
}

kac_status kac_take(kac_tensor *out, kac_arena *arena, kac_dtype dtype, int rank, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i], &n))
            return KAC_FAIL(KAC_E_MEMORY, "a tensor of this size cannot exist (axis %d has %lld entries)", i,
                            (long long)shape[i]);
    size_t bytes;
    if (__builtin_mul_overflow((size_t)n, kac_dtype_bytes(dtype), &bytes))
        return KAC_FAIL(KAC_E_MEMORY, "a tensor of %lld entries cannot exist", (long long)n);
    void *data = kac_arena_take(arena, bytes);
    if (data == NULL) return KAC_E_MEMORY;
    *out = kac_tensor_of(data, dtype, rank, shape);
    return KAC_OK;
}

kac_status kac_tap(kac_ctx *c, kac_tensor value, const char *format, ...) {
    if (c->tap == NULL) return KAC_OK;
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return c->tap(c->tap_self, name, value);
}
