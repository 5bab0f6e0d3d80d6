#include "nn/loader.h"
#include "nn/parameters.h"
#include "tensor/convert.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

kac_path kac_path_of(const char *format, ...) {
    kac_path p;
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(p.s, sizeof p.s, format, args);
    va_end(args);
    KAC_ASSERT(n >= 0 && n < KAC_PATH_MAX);
    return p;
}

bool kac_loader_has(const kac_loader *l, const char *name) {
    return kac_weights_entry_of(l->weights, name) != NULL;
}

static void shape_text(char *buffer, size_t n_buffer, int rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(buffer, n_buffer, "[");
    for (int i = 0; i < rank && used < n_buffer; i++)
        used += (size_t)snprintf(buffer + used, n_buffer - used, i == 0 ? "%lld" : ", %lld", (long long)shape[i]);
    if (used < n_buffer) snprintf(buffer + used, n_buffer - used, "]");
}

static bool same_shape(const kac_tensor *t, int rank, const int64_t *shape) {
    const int n = KAC_MAX(t->rank, rank);
    if (n != rank && !(rank == 2 && n == 4)) return false;
    if (n != t->rank && !(t->rank == 2 && n == 4)) return false;
    for (int i = 0; i < n; i++) {
        const int64_t have = i < t->rank ? t->shape[i] : 1, want = i < rank ? shape[i] : 1;
        if (have != want) return false;
    }
    return true;
}

kac_status kac_loader_get(const kac_loader *l, kac_tensor *t, const char *name, int rank, const int64_t *shape) {
    if (!kac_loader_has(l, name))
        return KAC_FAIL(KAC_E_FORMAT, "%s: the weights lack %s, which its config implies", l->path, name);
    KAC_TRY(kac_weights_find(l->weights, name, t));
    if (!same_shape(t, rank, shape)) {
        char have[96], want[96];
        shape_text(have, sizeof have, t->rank, t->shape);
        shape_text(want, sizeof want, rank, shape);
        return KAC_FAIL(KAC_E_SHAPE, "%s: %s is %s, its config implies %s", l->path, name, have, want);
    }
    if (t->dtype != KAC_F32 && t->dtype != KAC_F16 && t->dtype != KAC_BF16 && t->dtype != KAC_F64)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %s is %s; weights must be F32, F16, BF16 or F64", l->path, name,
                        kac_dtype_name(t->dtype));
    *t = kac_tensor_of(t->data, t->dtype, rank, shape);
    return KAC_OK;
}

kac_status kac_loader_table(const kac_loader *l, kac_tensor *out, kac_dtype as, const char *name, int rank,
                            const int64_t *shape) {
    kac_tensor src;
    KAC_TRY(kac_loader_get(l, &src, name, rank, shape));
    KAC_TRY(kac_take(out, &l->c->model, as, rank, shape));
    KAC_TRY(kac_copy(l->c, out, src));
    const kac_path own = kac_path_of("%s", name);
    return kac_parameters_add_table(l, *out, src, &own, 1);
}

kac_status kac_loader_number(const kac_loader *l, double *out, const char *name) {
    kac_tensor t;
    KAC_TRY(kac_weights_find(l->weights, name, &t));
    if (kac_tensor_count(t) != 1) return KAC_FAIL(KAC_E_SHAPE, "%s: %s must be one number", l->path, name);
    *out = kac_element_load(t.data, t.dtype, 0);
    return KAC_OK;
}

kac_status kac_loader_constant(const kac_loader *l, kac_tensor *out, const float *values, int64_t n) {
    KAC_TRY(kac_take_make(out, &l->c->model, KAC_F32, n));
    return kac_copy(l->c, out, kac_tensor_make((void *)(uintptr_t)values, KAC_F32, n));
}
