/* The fronts: check once -> take the output -> count -> record -> call the slot. */
#include "ops.h"
#include <string.h>

const char *kac_op_name(kac_op op) {
    static const char *const names[] = {
#define OP_NAME(name) #name,
        KAC_OPS(OP_NAME)
#undef OP_NAME
    };
    return op >= 0 && op < KAC_N_OPS ? names[op] : "?";
}

/* "conv2d: residual is [2, 3] F32 …" */
static kac_status bad(const char *op, const char *what, kac_tensor t, const char *want) {
    char text[96];
    return KAC_FAIL(KAC_E_SHAPE, "%s: %s is %s, %s", op, what, kac_tensor_text(t, text, sizeof text), want);
}

/* f64: in a context of that dtype, which only ref has. */
static bool is_activation(const kac_ctx *c, kac_tensor t) {
    return t.dtype == KAC_F32 || t.dtype == KAC_BF16 || (t.dtype == KAC_F64 && c->dtype == KAC_F64);
}

static bool last_contiguous(kac_tensor t) {
    return t.rank > 0 && (t.shape[t.rank - 1] == 1 || t.stride[t.rank - 1] == 1);
}

static kac_status check_activation(const kac_ctx *c, const char *op, const char *what, kac_tensor t) {
    if (t.data == NULL) return KAC_FAIL(KAC_E_SHAPE, "%s: %s is missing", op, what);
    if (!is_activation(c, t)) return bad(op, what, t, "f32 or bf16 is wanted");
    if (kac_tensor_count(t) == 0) return bad(op, what, t, "it is empty");
    if (!kac_tensor_contiguous(t)) return bad(op, what, t, "it must be contiguous");
    return KAC_OK;
}

static kac_status check_view(const kac_ctx *c, const char *op, const char *what, kac_tensor t) {
    if (t.data == NULL) return KAC_FAIL(KAC_E_SHAPE, "%s: %s is missing", op, what);
    if (!is_activation(c, t)) return bad(op, what, t, "f32 or bf16 is wanted");
    if (kac_tensor_count(t) == 0) return bad(op, what, t, "it is empty");
    if (!last_contiguous(t)) return bad(op, what, t, "its last axis must be contiguous");
    return KAC_OK;
}

/* Optional f32 vector of n entries. */
static kac_status check_vector(const char *op, const char *what, kac_tensor t, int64_t n) {
    if (t.data == NULL) return KAC_OK;
    if (t.dtype != KAC_F32 || t.rank != 1 || t.shape[0] != n || !kac_tensor_contiguous(t))
        return KAC_FAIL(KAC_E_SHAPE, "%s: %s must be f32 [%lld]", op, what, (long long)n);
    return KAC_OK;
}

/* Takes *out from scratch when it is {0}, else insists on shape and contiguity. */
static kac_status prepare(kac_ctx *c, const char *op, kac_tensor *out, kac_dtype dtype, int rank,
                          const int64_t *shape) {
    if (out->data == NULL) return kac_take(out, &c->scratch, dtype, rank, shape);
    const kac_tensor want = kac_tensor_of(NULL, dtype, rank, shape);
    char got[96], wanted[96];
    if (kac_tensor_same_shape(*out, want) && is_activation(c, *out) && kac_tensor_contiguous(*out)) return KAC_OK;
    return KAC_FAIL(KAC_E_SHAPE, "%s: out is %s, a contiguous %s is wanted", op, kac_tensor_text(*out, got, sizeof got),
                    kac_tensor_text(want, wanted, sizeof wanted));
}

static double bytes_of(kac_tensor t) {
    return t.data == NULL ? 0 : (double)kac_tensor_bytes(t);
}

static kac_status finish(kac_ctx *c, kac_op op, const void *args, size_t n_args, double flops, double bytes) {
    c->counts.ops++;
    c->counts.flops += flops;
    c->counts.bytes += bytes;
    return c->tape == NULL ? KAC_OK : c->tape->record(c->tape, op, args, n_args);
}

/* Counts, records, calls. */
#define RUN(name, args, flops, bytes)                                                                                  \
    do {                                                                                                               \
        KAC_TRY(finish(c, KAC_OP_##name, &(args), sizeof(args), (flops), (bytes)));                                    \
        return c->ops->name(c, &(args));                                                                               \
    } while (0)

kac_status kac_weight_pack(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    if (src.data == NULL || (src.rank != 2 && src.rank != 4) || kac_tensor_count(src) == 0 ||
        !kac_tensor_contiguous(src))
        return bad("weight_pack", "weight", src, "[n_out, n_in] or [n_out, n_in, kh, kw] is wanted");
    if (src.dtype != KAC_F32 && src.dtype != KAC_F16 && src.dtype != KAC_BF16 && src.dtype != KAC_F64)
        return bad("weight_pack", "weight", src, "a floating-point type is wanted");
    *w = (kac_weight){.n_out = src.shape[0], .n_in = src.shape[1], .dtype = c->dtype};
    if (src.rank == 4) w->kh = (int)src.shape[2], w->kw = (int)src.shape[3];
    const size_t mark = kac_arena_mark(&c->scratch);
    const kac_status s = c->ops->weight_pack(c, w, src, stride_hint);
    kac_arena_release(&c->scratch, mark);
    return s;
}

/* The backend packs as ever, only that the model arena is the weight's own memory meanwhile. */
kac_status kac_weight_update(kac_ctx *c, kac_weight *w, kac_tensor src, int stride_hint) {
    if (w->impl != NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "weights cannot be changed on the backend %s; choose cpu", c->ops->name);
    const kac_arena model = c->model;
    kac_weight again;
    c->model = (kac_arena){.name = "weight", .base = w->data, .cap = w->n_bytes, .counting = model.counting};
    const kac_status s = kac_weight_pack(c, &again, src, stride_hint);
    c->model = model;
    KAC_ASSERT(s != KAC_OK || (again.data == w->data && again.n_bytes == w->n_bytes && again.n_out == w->n_out &&
                               again.n_in == w->n_in && again.kh == w->kh && again.kw == w->kw));
    return s;
}

/* Flops of the second product per row in *flops. */
static kac_status check_low(const kac_ctx *c, const kac_low *low, kac_tensor x, const kac_weight *w, bool geglu, double *flops) {
    *flops = 0;
    if (low->x.data == NULL) return KAC_OK;
    KAC_TRY(check_activation(c, "linear", "low x", low->x));
    const kac_weight *up = low->up;
    bool fits = low->x.rank == x.rank && low->x.dtype == x.dtype && low->parts >= 1 && (!geglu || low->parts == 1) &&
                up->kh <= 1 && up->kw <= 1 && up->n_out == w->n_out && w->n_out % low->parts == 0 &&
                low->x.shape[x.rank - 1] == low->parts * up->n_in;
    for (int i = 0; fits && i < x.rank - 1; i++) fits = low->x.shape[i] == x.shape[i];
    if (!fits) return bad("linear", "low x", low->x, "it must be [..., parts · r] beside x, with as many outputs");
    *flops = 2.0 * (double)up->n_in * (double)up->n_out;
    return KAC_OK;
}

kac_status kac_linear(kac_ctx *c, kac_tensor *out, kac_tensor x, const kac_weight *w, kac_linear_opt o) {
    KAC_TRY(check_view(c, "linear", "x", x));
    const int last = x.rank - 1;
    if (x.shape[last] != w->n_in || w->kh > 1 || w->kw > 1)
        return KAC_FAIL(KAC_E_SHAPE, "linear: x has %lld features, the weight is [%lld, %lld]",
                        (long long)x.shape[last], (long long)w->n_out, (long long)w->n_in);
    if (o.geglu && w->n_out % 2 != 0) return KAC_FAIL(KAC_E_SHAPE, "linear: geglu needs an even number of rows");
    KAC_TRY(check_vector("linear", "bias", o.bias, w->n_out));
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, x.shape, sizeof shape);
    shape[last] = o.geglu ? w->n_out / 2 : w->n_out;
    KAC_TRY(prepare(c, "linear", out, x.dtype, x.rank, shape));
    if (o.residual.data != NULL) {
        KAC_TRY(check_activation(c, "linear", "residual", o.residual));
        if (!kac_tensor_same_shape(o.residual, *out))
            return bad("linear", "residual", o.residual, "it must have the shape of out");
    }
    double low_flops;
    KAC_TRY(check_low(c, &o.low, x, w, o.geglu, &low_flops));
    const kac_linear_args a = {*out, x, w, o};
    const double rows = (double)kac_tensor_count(x) / (double)w->n_in;
    RUN(linear, a, rows * (2.0 * (double)w->n_in * (double)w->n_out + low_flops),
        bytes_of(x) + bytes_of(*out) + bytes_of(o.residual) + bytes_of(o.low.x) + (double)w->n_bytes +
            (low_flops > 0 ? (double)o.low.up->n_bytes : 0));
}

static kac_status check_row_bias(const kac_ctx *c, const char *op, kac_tensor t, const int *row_index, int64_t n, int64_t channels) {
    if (t.data == NULL) return KAC_OK;
    if (!is_activation(c, t) || t.rank != 2 || t.shape[1] != channels || !last_contiguous(t))
        return bad(op, "row bias", t, "[rows, channels] is wanted");
    if (row_index == NULL && t.shape[0] != n && t.shape[0] != 1)
        return bad(op, "row bias", t, "one row, or one per image, is wanted");
    for (int64_t i = 0; row_index != NULL && i < n; i++)
        if (row_index[i] < 0 || row_index[i] >= t.shape[0]) return bad(op, "row bias", t, "an index lies outside");
    return KAC_OK;
}

kac_status kac_conv2d(kac_ctx *c, kac_tensor *out, kac_tensor x, const kac_weight *w, kac_conv_opt o) {
    KAC_TRY(check_activation(c, "conv2d", "x", x));
    if (x.rank != 4 || x.shape[3] != w->n_in) {
        char text[96];
        return KAC_FAIL(KAC_E_SHAPE, "conv2d: x is %s, [N, H, W, %lld] is wanted",
                        kac_tensor_text(x, text, sizeof text), (long long)w->n_in);
    }
    const int kh = KAC_MAX(1, w->kh), kw = KAC_MAX(1, w->kw);
    if (o.stride < 1) o.stride = 1;
    const int64_t h = x.shape[1] + o.pad[0] + o.pad[2] - kh, wd = x.shape[2] + o.pad[1] + o.pad[3] - kw;
    if (h < 0 || wd < 0) return bad("conv2d", "x", x, "it is smaller than the kernel");
    KAC_TRY(
        prepare(c, "conv2d", out, x.dtype, 4, (int64_t[]){x.shape[0], h / o.stride + 1, wd / o.stride + 1, w->n_out}));
    KAC_TRY(check_vector("conv2d", "bias", o.bias, w->n_out));
    KAC_TRY(check_row_bias(c, "conv2d", o.row_bias, o.row_index, x.shape[0], w->n_out));
    if (o.residual.data != NULL) {
        KAC_TRY(check_activation(c, "conv2d", "residual", o.residual));
        if (!kac_tensor_same_shape(o.residual, *out))
            return bad("conv2d", "residual", o.residual, "it must have the shape of out");
    }
    const kac_conv2d_args a = {*out, x, w, o};
    RUN(conv2d, a, 2.0 * (double)kac_tensor_count(*out) * (double)w->n_in * kh * kw,
        bytes_of(x) + bytes_of(*out) + bytes_of(o.residual) + (double)w->n_bytes);
}

kac_status kac_matmul_t(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b, double scale) {
    KAC_TRY(check_activation(c, "matmul_t", "a", a));
    KAC_TRY(check_activation(c, "matmul_t", "b", b));
    const int r = a.rank;
    bool fits = r >= 2 && b.rank == r && a.shape[r - 1] == b.shape[r - 1];
    for (int i = 0; fits && i < r - 2; i++) fits = a.shape[i] == b.shape[i];
    if (!fits) return bad("matmul_t", "b", b, "its last axis must be that of a, and its leading axes equal");
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, a.shape, sizeof shape);
    shape[r - 1] = b.shape[r - 2];
    KAC_TRY(prepare(c, "matmul_t", out, a.dtype, r, shape));
    const kac_matmul_t_args args = {*out, a, b, scale};
    RUN(matmul_t, args, 2.0 * (double)kac_tensor_count(*out) * (double)a.shape[r - 1],
        bytes_of(a) + bytes_of(b) + bytes_of(*out));
}

kac_status kac_attention(kac_ctx *c, kac_tensor *out, kac_tensor q, kac_tensor k, kac_tensor v, kac_attention_opt o) {
    KAC_TRY(check_view(c, "attention", "q", q));
    KAC_TRY(check_view(c, "attention", "k", k));
    KAC_TRY(check_view(c, "attention", "v", v));
    if (q.rank != 4 || k.rank != 4 || !kac_tensor_same_shape(k, v) || q.shape[2] != k.shape[2] ||
        q.shape[3] != k.shape[3] || k.shape[1] < 1)
        return bad("attention", "k", k, "it must be [M, S, heads, d] like v, with the heads and d of q");
    if (o.causal && q.shape[1] != k.shape[1])
        return bad("attention", "k", k, "a causal mask needs as many keys as queries");
    for (int64_t n = 0; n < q.shape[0]; n++) {
        const int64_t row = o.kv_row == NULL ? n : o.kv_row[n];
        if (row < 0 || row >= k.shape[0]) return bad("attention", "k", k, "an image's row lies outside");
    }
    KAC_TRY(prepare(c, "attention", out, q.dtype, 4, q.shape));
    const kac_attention_args a = {*out, q, k, v, o};
    RUN(attention, a, 4.0 * (double)kac_tensor_count(q) * (double)k.shape[1],
        bytes_of(q) + bytes_of(*out) + bytes_of(k) + bytes_of(v));
}

kac_status kac_group_norm(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor gamma, kac_tensor beta, int groups,
                          double eps, kac_act act) {
    KAC_TRY(check_activation(c, "group_norm", "x", x));
    const int64_t channels = x.rank < 2 ? 0 : x.shape[x.rank - 1];
    if (groups < 1 || channels == 0 || channels % groups != 0)
        return KAC_FAIL(KAC_E_SHAPE, "group_norm: %lld channels cannot be split into %d groups", (long long)channels,
                        groups);
    KAC_TRY(check_vector("group_norm", "gamma", gamma, channels));
    KAC_TRY(check_vector("group_norm", "beta", beta, channels));
    KAC_TRY(prepare(c, "group_norm", out, x.dtype, x.rank, x.shape));
    const kac_group_norm_args a = {*out, x, gamma, beta, groups, eps, act};
    RUN(group_norm, a, 8.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_layer_norm(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor gamma, kac_tensor beta, double eps) {
    KAC_TRY(check_activation(c, "layer_norm", "x", x));
    if (x.rank < 1) return bad("layer_norm", "x", x, "at least one axis is wanted");
    KAC_TRY(check_vector("layer_norm", "gamma", gamma, x.shape[x.rank - 1]));
    KAC_TRY(check_vector("layer_norm", "beta", beta, x.shape[x.rank - 1]));
    KAC_TRY(prepare(c, "layer_norm", out, x.dtype, x.rank, x.shape));
    const kac_layer_norm_args a = {*out, x, gamma, beta, eps};
    RUN(layer_norm, a, 8.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_l2_normalize(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    KAC_TRY(check_activation(c, "l2_normalize", "x", x));
    if (x.rank < 1) return bad("l2_normalize", "x", x, "at least one axis is wanted");
    KAC_TRY(prepare(c, "l2_normalize", out, x.dtype, x.rank, x.shape));
    const kac_l2_normalize_args a = {*out, x};
    RUN(l2_normalize, a, 3.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_activate(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_act act) {
    KAC_TRY(check_activation(c, "activate", "x", x));
    KAC_TRY(prepare(c, "activate", out, x.dtype, x.rank, x.shape));
    const kac_activate_args a = {*out, x, act};
    RUN(activate, a, 4.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_affine(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor scale, kac_tensor shift) {
    KAC_TRY(check_activation(c, "affine", "x", x));
    if (x.rank < 1) return bad("affine", "x", x, "at least one axis is wanted");
    KAC_TRY(check_vector("affine", "scale", scale, x.shape[x.rank - 1]));
    KAC_TRY(check_vector("affine", "shift", shift, x.shape[x.rank - 1]));
    KAC_TRY(prepare(c, "affine", out, x.dtype, x.rank, x.shape));
    const kac_affine_args a = {*out, x, scale, shift};
    RUN(affine, a, 2.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_modulate(kac_ctx *c, kac_tensor *out, kac_tensor x, kac_tensor scale, kac_tensor shift,
                        const int *row_index) {
    KAC_TRY(check_activation(c, "modulate", "x", x));
    if (x.rank < 2 || scale.data == NULL || !kac_tensor_same_shape(scale, shift) || shift.data == NULL)
        return bad("modulate", "x", x, "[N, …, C] with scale and shift of one shape is wanted");
    KAC_TRY(check_row_bias(c, "modulate", scale, row_index, x.shape[0], x.shape[x.rank - 1]));
    KAC_TRY(check_row_bias(c, "modulate", shift, row_index, x.shape[0], x.shape[x.rank - 1]));
    KAC_TRY(prepare(c, "modulate", out, x.dtype, x.rank, x.shape));
    const kac_modulate_args a = {*out, x, scale, shift, row_index};
    RUN(modulate, a, 2.0 * (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_clamp(kac_ctx *c, kac_tensor *out, kac_tensor x, double lo, double hi) {
    KAC_TRY(check_activation(c, "clamp", "x", x));
    KAC_TRY(prepare(c, "clamp", out, x.dtype, x.rank, x.shape));
    const kac_clamp_args a = {*out, x, lo, hi};
    RUN(clamp, a, (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_lincomb(kac_ctx *c, kac_tensor *out, int n_terms, const kac_tensor *x, const double *coef, int n_coef) {
    if (n_terms < 1 || n_terms > KAC_MAX_TERMS)
        return KAC_FAIL(KAC_E_SHAPE, "lincomb: %d terms, 1 to %d are wanted", n_terms, KAC_MAX_TERMS);
    kac_lincomb_args a = {.n_terms = n_terms, .coef = coef, .n_coef = n_coef};
    double bytes = 0;
    for (int t = 0; t < n_terms; t++) {
        KAC_TRY(check_activation(c, "lincomb", "a term", x[t]));
        if (!kac_tensor_same_shape(x[t], x[0])) return bad("lincomb", "a term", x[t], "all terms must have one shape");
        a.x[t] = x[t];
        bytes += bytes_of(x[t]);
    }
    if (n_coef != 1 && (x[0].rank < 1 || n_coef != x[0].shape[0]))
        return bad("lincomb", "a term", x[0], "one coefficient, or one per image, is wanted");
    KAC_TRY(prepare(c, "lincomb", out, x[0].dtype, x[0].rank, x[0].shape));
    a.out = *out;
    RUN(lincomb, a, 2.0 * n_terms * (double)kac_tensor_count(x[0]), bytes + bytes_of(*out));
}

kac_status kac_add(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b) {
    return kac_lincomb(c, out, 2, (kac_tensor[]){a, b}, (double[]){1, 1}, 1);
}

kac_status kac_row_stats(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    KAC_TRY(check_activation(c, "row_stats", "x", x));
    if (x.rank < 2 || kac_tensor_count(x) / KAC_MAX(1, x.shape[0]) < 2)
        return bad("row_stats", "x", x, "at least two entries per image are wanted");
    KAC_TRY(prepare(c, "row_stats", out, KAC_F32, 2, (int64_t[]){x.shape[0], 2}));
    const kac_row_stats_args a = {*out, x};
    RUN(row_stats, a, 4.0 * (double)kac_tensor_count(x), bytes_of(x));
}

kac_status kac_copy(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    if (x.data == NULL) return KAC_FAIL(KAC_E_SHAPE, "copy: x is missing");
    if (out->data == NULL) KAC_TRY(kac_take(out, &c->scratch, c->dtype, x.rank, x.shape));
    if (!kac_tensor_same_shape(*out, x)) return bad("copy", "out", *out, "it must have the shape of x");
    const kac_copy_args a = {*out, x};
    RUN(copy, a, 0, bytes_of(x) + bytes_of(*out));
}

kac_status kac_concat(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b, int axis) {
    KAC_TRY(check_view(c, "concat", "a", a));
    KAC_TRY(check_view(c, "concat", "b", b));
    bool fits = a.rank == b.rank && axis >= 0 && axis < a.rank && a.dtype == b.dtype;
    for (int i = 0; fits && i < a.rank; i++) fits = i == axis || a.shape[i] == b.shape[i];
    if (!fits) return bad("concat", "b", b, "it must equal a in every axis but the one joined, and in dtype");
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, a.shape, sizeof shape);
    shape[axis] += b.shape[axis];
    KAC_TRY(prepare(c, "concat", out, a.dtype, a.rank, shape));
    const kac_concat_args args = {*out, a, b, axis};
    RUN(concat, args, 0, 2 * bytes_of(*out));
}

kac_status kac_gather(kac_ctx *c, kac_tensor *out, kac_tensor x, const int *index, int n_index) {
    KAC_TRY(check_activation(c, "gather", "x", x));
    if (x.rank < 1 || n_index < 1) return bad("gather", "x", x, "at least one axis and one index are wanted");
    for (int i = 0; i < n_index; i++)
        if (index[i] < 0 || index[i] >= x.shape[0]) return bad("gather", "x", x, "an index lies outside");
    int64_t shape[KAC_MAX_RANK];
    memcpy(shape, x.shape, sizeof shape);
    shape[0] = n_index;
    KAC_TRY(prepare(c, "gather", out, x.dtype, x.rank, shape));
    const kac_gather_args a = {*out, x, index, n_index};
    RUN(gather, a, 0, 2 * bytes_of(*out));
}

kac_status kac_embedding(kac_ctx *c, kac_tensor *out, kac_tensor ids, kac_tensor table, kac_tensor position) {
    KAC_TRY(check_activation(c, "embedding", "table", table));
    if (ids.data == NULL || ids.dtype != KAC_I32 || ids.rank != 2 || !kac_tensor_contiguous(ids) || table.rank != 2)
        return bad("embedding", "ids", ids, "i32 [N, T] and a table [n, C] are wanted");
    if (position.data != NULL &&
        (position.rank != 2 || position.shape[0] < ids.shape[1] || position.shape[1] != table.shape[1] ||
         position.dtype != table.dtype || !kac_tensor_contiguous(position)))
        return bad("embedding", "position", position, "a row for each token is wanted");
    const bool readable = c->ops != &kac_plan_ops;
    for (int64_t i = 0; readable && i < kac_tensor_count(ids); i++) {
        const int32_t id = ((const int32_t *)ids.data)[i];
        if (id < 0 || id >= table.shape[0])
            return KAC_FAIL(KAC_E_SHAPE, "embedding: token id %d lies outside the vocabulary of %lld", id,
                            (long long)table.shape[0]);
    }
    KAC_TRY(prepare(c, "embedding", out, table.dtype, 3, (int64_t[]){ids.shape[0], ids.shape[1], table.shape[1]}));
    const kac_embedding_args a = {*out, ids, table, position};
    RUN(embedding, a, 0, 2 * bytes_of(*out));
}

kac_status kac_timestep_embedding(kac_ctx *c, kac_tensor *out, const double *t, int n_t, int n, bool flip, double shift,
                                  double scale, double max_period) {
    if (n_t < 1 || n < 2 || !(shift < n / 2))
        return KAC_FAIL(KAC_E_SHAPE, "timestep_embedding: %d timesteps of width %d with a frequency shift of %g", n_t,
                        n, shift);
    KAC_TRY(prepare(c, "timestep_embedding", out, c->dtype, 2, (int64_t[]){n_t, n}));
    const kac_timestep_embedding_args a = {*out, t, n_t, n, flip, shift, scale, max_period};
    RUN(timestep_embedding, a, 20.0 * n_t * n, bytes_of(*out));
}

kac_status kac_upsample_nearest(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t h, int64_t w) {
    KAC_TRY(check_activation(c, "upsample_nearest", "x", x));
    if (x.rank != 4 || h < 1 || w < 1) return bad("upsample_nearest", "x", x, "[N, H, W, C] is wanted");
    KAC_TRY(prepare(c, "upsample_nearest", out, x.dtype, 4, (int64_t[]){x.shape[0], h, w, x.shape[3]}));
    const kac_upsample_nearest_args a = {*out, x};
    RUN(upsample_nearest, a, 0, bytes_of(x) + bytes_of(*out));
}

kac_status kac_avg_pool2(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    KAC_TRY(check_activation(c, "avg_pool2", "x", x));
    if (x.rank != 4 || x.shape[1] < 2 || x.shape[2] < 2)
        return bad("avg_pool2", "x", x, "[N, H ≥ 2, W ≥ 2, C] is wanted");
    KAC_TRY(
        prepare(c, "avg_pool2", out, x.dtype, 4, (int64_t[]){x.shape[0], x.shape[1] / 2, x.shape[2] / 2, x.shape[3]}));
    const kac_avg_pool2_args a = {*out, x};
    RUN(avg_pool2, a, (double)kac_tensor_count(x), bytes_of(x) + bytes_of(*out));
}

kac_status kac_resample(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t h, int64_t w, kac_filter filter) {
    KAC_TRY(check_activation(c, "resample", "x", x));
    if (x.rank != 4 || h < 1 || w < 1 || kac_tensor_count(x) == 0)
        return bad("resample", "x", x, "[N, H, W, C] is wanted");
    KAC_TRY(prepare(c, "resample", out, x.dtype, 4, (int64_t[]){x.shape[0], h, w, x.shape[3]}));
    const kac_resample_args a = {*out, x, filter};
    RUN(resample, a, 16.0 * (double)kac_tensor_count(*out), bytes_of(x) + bytes_of(*out));
}

kac_status kac_randn(kac_ctx *c, kac_tensor *out, kac_key key, const int *slot) {
    if (out->data == NULL || out->dtype != KAC_F32 || out->rank < 1 || !kac_tensor_contiguous(*out))
        return bad("randn", "out", *out, "a contiguous f32 tensor is wanted");
    const kac_randn_args a = {*out, key, slot};
    RUN(randn, a, 20.0 * (double)kac_tensor_count(*out), bytes_of(*out));
}
