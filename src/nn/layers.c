#include "nn/layers.h"
#include "nn/parameters.h"
#include "nn/scope.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static kac_status load_bias(const kac_loader *l, kac_tensor *bias, const char *path, int64_t n) {
    return kac_loader_vector(l, bias, kac_path_of("%s.bias", path).s, n);
}

kac_status kac_nn_linear_load(const kac_loader *l, kac_nn_linear *m, const char *path, int64_t n_in, int64_t n_out,
                              bool bias) {
    kac_tensor src;
    KAC_TRY(kac_loader_get(l, &src, kac_path_of("%s.weight", path).s, 2, (int64_t[]){n_out, n_in}));
    const kac_path name = kac_path_of("%s", path);
    KAC_TRY(kac_lora_pack(l, &m->w, &m->low, src, &name, 1, 1));
    return bias ? load_bias(l, &m->bias, path, n_out) : KAC_OK;
}

/* The parts copied one below the other into `stack`. A plan run reads no weights. */
static kac_status stack_rows(const kac_loader *l, kac_tensor *stack, char **owned, const kac_path *path, int n_path,
                             const char *suffix, int rank, const int64_t *shape) {
    int64_t whole[2] = {shape[0] * n_path, rank == 2 ? shape[1] : 1};
    *owned = NULL;
    for (int i = 0; i < n_path; i++) {
        kac_tensor part;
        KAC_TRY(kac_loader_get(l, &part, kac_path_of("%s.%s", path[i].s, suffix).s, rank, shape));
        const size_t n_bytes = kac_tensor_bytes(part);
        if (i == 0) {
            *owned = kac_alloc(n_bytes * (size_t)n_path);
            if (*owned == NULL) return KAC_E_MEMORY;
            *stack = kac_tensor_of(*owned, part.dtype, rank, whole);
        } else if (part.dtype != stack->dtype) {
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %s.%s is %s, its neighbours are %s; convert the file to one dtype",
                            l->path, path[i].s, suffix, kac_dtype_name(part.dtype), kac_dtype_name(stack->dtype));
        }
        if (!l->c->model.counting) memcpy(*owned + (size_t)i * n_bytes, part.data, n_bytes);
    }
    return KAC_OK;
}

kac_status kac_nn_linear_load_stack(const kac_loader *l, kac_nn_linear *m, const kac_path *path, int n_path,
                                    int64_t n_in, int64_t n_out, bool bias) {
    kac_tensor stack = KAC_NONE;
    char *owned = NULL;
    kac_status s = stack_rows(l, &stack, &owned, path, n_path, "weight", 2, (int64_t[]){n_out, n_in});
    if (s == KAC_OK) s = kac_lora_pack(l, &m->w, &m->low, stack, path, n_path, 1);
    kac_free(owned);
    if (s != KAC_OK || !bias) return s;
    s = stack_rows(l, &stack, &owned, path, n_path, "bias", 1, (int64_t[]){n_out});
    if (s == KAC_OK) s = kac_take_make(&m->bias, &l->c->model, KAC_F32, n_out * n_path);
    if (s == KAC_OK) s = kac_copy(l->c, &m->bias, stack);
    kac_path name[KAC_PARAMETERS_STACK];
    for (int i = 0; i < n_path; i++) name[i] = kac_path_of("%s.bias", path[i].s);
    if (s == KAC_OK) s = kac_parameters_add_table(l, m->bias, stack, name, n_path);
    kac_free(owned);
    return s;
}

kac_status kac_nn_conv_load(const kac_loader *l, kac_nn_conv *m, const char *path, int64_t n_in, int64_t n_out,
                            int kernel, int stride, int pad, bool bias) {
    kac_tensor src;
    KAC_TRY(kac_loader_get(l, &src, kac_path_of("%s.weight", path).s, 4, (int64_t[]){n_out, n_in, kernel, kernel}));
    const kac_path name = kac_path_of("%s", path);
    KAC_TRY(kac_lora_pack(l, &m->w, &m->low, src, &name, 1, stride));
    m->stride = stride;
    const int p = pad < 0 ? (kernel - 1) / 2 : pad;
    for (int i = 0; i < 4; i++) m->pad[i] = p;
    if (pad == 0 && stride == 2) m->pad[2] = m->pad[3] = 1;
    return bias ? load_bias(l, &m->bias, path, n_out) : KAC_OK;
}

kac_status kac_nn_patch_load(const kac_loader *l, kac_nn_linear *m, const char *path, int64_t n_in, int64_t n_out,
                             int patch) {
    kac_tensor src;
    KAC_TRY(kac_loader_get(l, &src, kac_path_of("%s.weight", path).s, 4, (int64_t[]){n_out, n_in, patch, patch}));
    const size_t size = kac_dtype_bytes(src.dtype);
    const int64_t n_inner = (int64_t)patch * patch;
    char *rows = kac_alloc(kac_tensor_bytes(src));
    if (rows == NULL) return KAC_E_MEMORY;
    const char *from = src.data;
    for (int64_t o = 0; o < n_out && !l->c->model.counting; o++)
        for (int64_t i = 0; i < n_in; i++)
            for (int64_t k = 0; k < n_inner; k++)
                memcpy(rows + (size_t)((o * n_inner + k) * n_in + i) * size,
                       from + (size_t)((o * n_in + i) * n_inner + k) * size, size);
    const kac_status s = kac_weight_pack(l->c, &m->w, kac_tensor_make(rows, src.dtype, n_out, n_inner * n_in), 1);
    kac_free(rows);
    return s;
}

static kac_status load_norm(const kac_loader *l, kac_nn_norm *m, const char *path, int64_t n, double eps) {
    m->eps = eps;
    KAC_TRY(kac_loader_vector(l, &m->gamma, kac_path_of("%s.weight", path).s, n));
    return kac_loader_vector(l, &m->beta, kac_path_of("%s.bias", path).s, n);
}

kac_status kac_nn_group_norm_load(const kac_loader *l, kac_nn_norm *m, const char *path, int64_t n, int64_t groups,
                                  double eps) {
    if (groups < 1 || n % groups != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: norm_num_groups %lld does not divide the %lld channels of %s", l->path,
                        (long long)groups, (long long)n, path);
    m->groups = (int)groups;
    return load_norm(l, m, path, n, eps);
}

kac_status kac_nn_layer_norm_load(const kac_loader *l, kac_nn_norm *m, const char *path, int64_t n, double eps) {
    m->groups = 0;
    return load_norm(l, m, path, n, eps);
}

kac_status kac_nn_linear_apply(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_linear_opt o) {
    o.bias = m->bias;
    if (m->low.parts == 0) return kac_linear(c, out, x, &m->w, o);
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, x.shape, sizeof shape);
    shape[x.rank - 1] = o.geglu ? m->w.n_out / 2 : m->w.n_out;
    if (out->data == NULL) KAC_TRY(kac_take(out, &c->scratch, x.dtype, x.rank, shape));
    const size_t mark = kac_scope_open(c);
    o.low = (kac_low){.up = &m->low.up, .parts = m->low.parts};
    KAC_TRY(kac_linear(c, &o.low.x, x, &m->low.down, (kac_linear_opt){.bias = KAC_NONE}));
    KAC_TRY(kac_linear(c, out, x, &m->w, o));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_linear_run(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_act act,
                             kac_tensor residual) {
    return kac_nn_linear_apply(c, out, m, x, (kac_linear_opt){.act = act, .residual = residual});
}

/* The low-rank product goes to `out` first, with the residual; the convolution then takes that as its residual. */
kac_status kac_nn_conv_apply(kac_ctx *c, kac_tensor *out, const kac_nn_conv *m, kac_tensor x, kac_conv_opt o) {
    o.bias = m->bias, o.stride = m->stride;
    memcpy(o.pad, m->pad, sizeof o.pad);
    if (m->low.parts == 0) return kac_conv2d(c, out, x, &m->w, o);
    KAC_ASSERT(o.act == KAC_ACT_NONE);
    kac_conv_opt down = {.stride = o.stride};
    memcpy(down.pad, o.pad, sizeof down.pad);
    const int64_t h = (x.shape[1] + o.pad[0] + o.pad[2] - m->w.kh) / o.stride + 1,
                  w = (x.shape[2] + o.pad[1] + o.pad[3] - m->w.kw) / o.stride + 1;
    KAC_TRY(kac_nn_out(c, out, x.shape[0], h, w, m->w.n_out));
    const size_t mark = kac_scope_open(c);
    kac_tensor inner = KAC_NONE, sum = kac_scope_reuse(c, *out);
    KAC_TRY(kac_conv2d(c, &inner, x, &m->low.down, down));
    KAC_TRY(kac_linear(c, &sum, inner, &m->low.up, (kac_linear_opt){.residual = o.residual}));
    o.residual = sum;
    KAC_TRY(kac_conv2d(c, out, x, &m->w, o));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_linear_add(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_tensor residual,
                             const char *format, ...) {
    if (c->tap == NULL) return kac_nn_linear_run(c, out, m, x, KAC_ACT_NONE, residual);
    kac_path name;
    va_list args;
    va_start(args, format);
    vsnprintf(name.s, sizeof name.s, format, args);
    va_end(args);
    kac_tensor alone = KAC_NONE;
    const size_t mark = kac_scope_open(c);
    KAC_TRY(kac_nn_linear_run(c, &alone, m, x, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_tap(c, alone, "%s", name.s));
    kac_scope_close(c, mark);
    return kac_nn_linear_run(c, out, m, x, KAC_ACT_NONE, residual);
}

kac_status kac_nn_conv_run(kac_ctx *c, kac_tensor *out, const kac_nn_conv *m, kac_tensor x, kac_act act,
                           kac_tensor residual) {
    return kac_nn_conv_apply(c, out, m, x, (kac_conv_opt){.act = act, .residual = residual});
}

kac_status kac_nn_norm_run(kac_ctx *c, kac_tensor *out, const kac_nn_norm *m, kac_tensor x, kac_act act) {
    if (m->groups > 0) return kac_group_norm(c, out, x, m->gamma, m->beta, m->groups, m->eps, act);
    KAC_ASSERT(act == KAC_ACT_NONE);
    return kac_layer_norm(c, out, x, m->gamma, m->beta, m->eps);
}

kac_status kac_nn_cast(kac_ctx *c, kac_tensor *x) {
    if (x->dtype == c->dtype) return KAC_OK;
    kac_tensor converted;
    KAC_TRY(kac_take(&converted, &c->scratch, c->dtype, x->rank, x->shape));
    KAC_TRY(kac_copy(c, &converted, *x));
    *x = converted;
    return KAC_OK;
}

kac_status kac_nn_out(kac_ctx *c, kac_tensor *out, int64_t n, int64_t h, int64_t w, int64_t channels) {
    return out->data != NULL ? KAC_OK : kac_take_make(out, &c->scratch, c->dtype, n, h, w, channels);
}
