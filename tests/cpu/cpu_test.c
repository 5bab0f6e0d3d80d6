/* The CPU backend against the reference at awkward sizes, for every instruction set of this machine; and the row rule: an image's bits
 * do not depend on the batch, its place in it, or the number of threads. */
#include "check.h"
#include "cpu/cpu.h"
#include <stdlib.h>

typedef struct pair {
    kac_ctx ref, cpu;
} pair;

static float uniform(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(*state >> 40) / 8388608.0 - 1.0);
}

static kac_tensor take(kac_ctx *c, kac_dtype dtype, uint64_t seed, int rank, const int64_t *shape) {
    kac_tensor t = {0};
    CHECK_OK(kac_take(&t, &c->run, dtype, rank, shape));
    for (int64_t i = 0, n = kac_tensor_count(t); i < n; i++) kac_element_store(t.data, dtype, i, uniform(&seed));
    return t;
}
#define TAKE(c, dtype, seed, ...)                                                                                      \
    take((c), (dtype), (seed), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

static double distance(kac_tensor a, kac_tensor b) {
    double d = 0, n = 1e-30;
    for (int64_t i = 0; i < kac_tensor_count(a); i++) {
        const double x = kac_element_load(a.data, a.dtype, i), y = kac_element_load(b.data, b.dtype, i);
        d += (x - y) * (x - y);
        n += y * y;
        if (x != x) return INFINITY;
    }
    return sqrt(d / n);
}

static void near(kac_tensor got, kac_tensor want, double tolerance, const char *what) {
    const double d = distance(got, want);
    char text[96];
    if (!CHECK(d <= tolerance)) printf("  %s: %s is off by %.3g\n", what, kac_tensor_text(want, text, sizeof text), d);
}

static double tolerance_of(kac_dtype dtype, double f32) {
    return dtype == KAC_BF16 ? 8e-3 : f32;
}

/* ---- one op on both backends ---- */
typedef struct conv_case {
    int64_t n, h, w, n_in, n_out;
    int kernel, stride, pad[4];
    kac_act act;
    bool row_bias, residual;
} conv_case;

static kac_tensor run_conv(kac_ctx *c, const conv_case *k, int64_t n, int64_t first) {
    const kac_dtype t = c->dtype;
    kac_weight w;
    kac_tensor out = {0};
    const kac_tensor x = TAKE(c, t, 1, 8, k->h, k->w, k->n_in), bias = TAKE(c, KAC_F32, 3, k->n_out);
    const kac_tensor src = TAKE(c, KAC_F32, 2, k->n_out, k->n_in, k->kernel, k->kernel),
                     rows = TAKE(c, t, 4, 3, k->n_out);
    const int index[8] = {2, 0, 1, 1, 2, 0, 0, 1};
    CHECK_OK(kac_weight_pack(c, &w, src, k->stride));
    const int64_t ho = (k->h + k->pad[0] + k->pad[2] - k->kernel) / k->stride + 1,
                  wo = (k->w + k->pad[1] + k->pad[3] - k->kernel) / k->stride + 1;
    kac_conv_opt o = {.stride = k->stride, .bias = bias, .act = k->act};
    memcpy(o.pad, k->pad, sizeof o.pad);
    if (k->row_bias) o.row_bias = rows, o.row_index = index + first;
    if (k->residual) o.residual = kac_tensor_slice(TAKE(c, t, 5, 8, ho, wo, k->n_out), 0, first, n);
    CHECK_OK(kac_conv2d(c, &out, kac_tensor_slice(x, 0, first, n), &w, o));
    return out;
}

static const conv_case convs[] = {
    {2, 8, 8, 16, 16, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {2, 9, 7, 48, 96, 3, 1, {1, 1, 1, 1}, KAC_ACT_SILU, true, true},
    {1, 4, 4, 160, 40, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, true, false},
    {3, 5, 6, 17, 19, 3, 1, {0, 1, 1, 0}, KAC_ACT_GELU, false, true},
    {2, 1, 9, 8, 8, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {2, 2, 2, 24, 24, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, true, true},
    {2, 16, 16, 3, 5, 3, 1, {1, 1, 1, 1}, KAC_ACT_RELU, false, false},
    {2, 16, 16, 4, 48, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {2, 12, 12, 48, 4, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {2, 16, 16, 48, 48, 3, 2, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {1, 9, 9, 16, 33, 3, 2, {0, 0, 1, 1}, KAC_ACT_NONE, true, true},
    {1, 32, 32, 3, 64, 8, 8, {0, 0, 0, 0}, KAC_ACT_NONE, false, false},
    {2, 6, 5, 31, 7, 1, 1, {0, 0, 0, 0}, KAC_ACT_TANH, false, true},
    {1, 7, 7, 1, 1, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, false},
    {1, 7, 7, 430, 9, 3, 2, {1, 1, 1, 1}, KAC_ACT_NONE, true, false},
    {1, 6, 6, 20, 9, 5, 1, {2, 2, 2, 2}, KAC_ACT_QUICK_GELU, true, false},
    {8, 20, 20, 24, 24, 3, 1, {1, 1, 1, 1}, KAC_ACT_NONE, false, true},
};

typedef struct linear_case {
    int64_t m, n_in, n_out;
    kac_act act;
    bool geglu, residual, strided;
} linear_case;

static kac_tensor run_linear(kac_ctx *c, const linear_case *k, int64_t n, int64_t first) {
    kac_weight w;
    kac_tensor out = {0}, x = TAKE(c, c->dtype, 1, 8, k->m, k->strided ? 2 * k->n_in : k->n_in);
    if (k->strided) x = kac_tensor_slice(x, 2, k->n_in, k->n_in);
    CHECK_OK(kac_weight_pack(c, &w, TAKE(c, KAC_F32, 2, k->n_out, k->n_in), 1));
    kac_linear_opt o = {.bias = TAKE(c, KAC_F32, 3, k->n_out), .act = k->act, .geglu = k->geglu};
    const int64_t width = k->geglu ? k->n_out / 2 : k->n_out;
    if (k->residual) o.residual = kac_tensor_slice(TAKE(c, c->dtype, 5, 8, k->m, width), 0, first, n);
    CHECK_OK(kac_linear(c, &out, kac_tensor_slice(x, 0, first, n), &w, o));
    return out;
}

static const linear_case linears[] = {
    {1, 1, 1, KAC_ACT_NONE, false, false, false},
    {1, 320, 1280, KAC_ACT_SILU, false, false, false},
    {16, 160, 160, KAC_ACT_NONE, false, true, false},
    {7, 33, 17, KAC_ACT_GELU, false, true, true},
    {64, 96, 768, KAC_ACT_NONE, true, false, false},
    {5, 24, 2 * 21, KAC_ACT_NONE, true, true, false},
    {256, 48, 48, KAC_ACT_NONE, false, true, false},
    {30, 1000, 130, KAC_ACT_GELU_TANH, false, true, true},
    {100, 640, 512, KAC_ACT_NONE, true, true, false},
    {3, 5, 3, KAC_ACT_MISH, false, false, true},
    {77, 1234, 640, KAC_ACT_QUICK_GELU, false, true, false},
};

typedef struct attention_case {
    int64_t t, s, heads, d;
    bool causal, shared;
} attention_case;

static kac_tensor run_attention(kac_ctx *c, const attention_case *k, int64_t n, int64_t first) {
    kac_tensor out = {0}, q = TAKE(c, c->dtype, 1, 8, k->t, 3, k->heads, k->d),
               kv = TAKE(c, c->dtype, 2, 8, k->s, 2, k->heads, k->d);
    const int rows[8] = {1, 1, 0, 2, 1, 0, 2, 2};
    kac_attention_opt o = {.scale = 3 / sqrt((double)k->d), .causal = k->causal};
    if (k->shared)
        o.kv_row = rows + first;
    else
        kv = kac_tensor_slice(kv, 0, first, n);
    /* q, k, v are parts of larger tensors */
    const kac_tensor views[3] = {kac_tensor_slice(q, 2, 1, 1), kac_tensor_slice(kv, 2, 0, 1),
                                 kac_tensor_slice(kv, 2, 1, 1)};
    kac_tensor flat[3];
    for (int i = 0; i < 3; i++) {
        flat[i] = views[i];
        flat[i].rank = 4;
        for (int axis = 2; axis < 4; axis++)
            flat[i].shape[axis] = views[i].shape[axis + 1], flat[i].stride[axis] = views[i].stride[axis + 1];
    }
    CHECK_OK(kac_attention(c, &out, kac_tensor_slice(flat[0], 0, first, n), flat[1], flat[2], o));
    return out;
}

static const attention_case attentions[] = {
    {1, 1, 1, 1, false, false},      {16, 16, 5, 32, false, false}, {64, 77, 3, 32, false, true},
    {77, 77, 2, 64, true, false},    {5, 300, 2, 40, false, false}, {300, 300, 1, 8, true, false},
    {60, 256, 1, 512, false, false}, {3, 1, 2, 80, false, true},    {33, 513, 2, 160, false, false},
    {10, 17, 3, 17, false, false},
};

typedef struct norm_case {
    int64_t h, w, channels;
    int groups; /* 0: layer norm */
    kac_act act;
} norm_case;

static kac_tensor run_norm(kac_ctx *c, const norm_case *k, int64_t n, int64_t first) {
    kac_tensor out = {0}, x = TAKE(c, c->dtype, 1, 8, k->h, k->w, k->channels);
    for (int64_t i = 0; i < kac_tensor_count(x); i++) /* a mean far from 0 */
        kac_element_store(x.data, x.dtype, i, 30 + kac_element_load(x.data, x.dtype, i));
    const kac_tensor gamma = TAKE(c, KAC_F32, 2, k->channels), beta = TAKE(c, KAC_F32, 3, k->channels);
    x = kac_tensor_slice(x, 0, first, n);
    if (k->groups)
        CHECK_OK(kac_group_norm(c, &out, x, gamma, beta, k->groups, 1e-5, k->act));
    else
        CHECK_OK(kac_layer_norm(c, &out, x, gamma, beta, 1e-5));
    return out;
}

static const norm_case norms[] = {
    {16, 16, 48, 16, KAC_ACT_SILU},  {1, 1, 32, 4, KAC_ACT_NONE},   {9, 5, 17, 17, KAC_ACT_GELU},
    {40, 40, 320, 32, KAC_ACT_SILU}, {3, 3, 5, 1, KAC_ACT_NONE},    {4, 4, 160, 0, KAC_ACT_NONE},
    {2, 1, 17, 0, KAC_ACT_NONE},     {2, 3, 1281, 0, KAC_ACT_NONE},
};

/* Other ops: their first image. */
static kac_tensor run_other(kac_ctx *c, const int *which, int64_t n, int64_t first) {
    kac_tensor out = {0};
    const kac_tensor x = kac_tensor_slice(TAKE(c, c->dtype, 1, 8, 6, 10, 19), 0, first, n);
    const kac_tensor y = kac_tensor_slice(TAKE(c, c->dtype, 2, 8, 6, 10, 19), 0, first, n);
    const double coef[] = {1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8};
    double mine[16];
    for (int i = 0; i < n; i++) mine[i] = coef[first + i] / 3, mine[n + i] = coef[8 + first + i] / 7;
    const int slots[] = {3, 1, 4, 1, 5, 9, 2, 6};
    switch (*which) {
    case 0:
        CHECK_OK(kac_lincomb(c, &out, 2, (kac_tensor[]){x, y}, mine, (int)n));
        break;
    case 1:
        CHECK_OK(kac_concat(c, &out, x, y, 3));
        break;
    case 2:
        CHECK_OK(kac_upsample_nearest(c, &out, x, 12, 20));
        break;
    case 3:
        CHECK_OK(kac_take_make(&out, &c->run, KAC_F32, n, 5, 1001));
        CHECK_OK(kac_randn(c, &out, (kac_key){7, 1, 2}, slots + first));
        break;
    case 4:
        CHECK_OK(kac_affine(c, &out, x, TAKE(c, KAC_F32, 8, 19), TAKE(c, KAC_F32, 9, 19)));
        break;
    case 5: { /* NHWC seen as NCHW, made contiguous */
        const kac_tensor view = kac_tensor_transpose(kac_tensor_transpose(x, 1, 3), 2, 3);
        CHECK_OK(kac_copy(c, &out, view));
        break;
    }
    case 6: { /* NCHW seen as NHWC */
        const kac_tensor view = kac_tensor_transpose(kac_tensor_transpose(x, 1, 3), 1, 2);
        CHECK_OK(kac_copy(c, &out, view));
        break;
    }
    case 7:
        CHECK_OK(kac_take_make(&out, &c->run, KAC_BF16, n, 6, 10, 19));
        CHECK_OK(kac_copy(c, &out, x));
        break;
    default:
        CHECK_OK(kac_activate(c, &out, x, (kac_act)(*which - 8)));
        break;
    }
    return out;
}

typedef kac_tensor run_fn(kac_ctx *c, const void *k, int64_t n, int64_t first);

/* Against ref with three images, then the row rule with batches 1, 2, 7 at other places and thread counts. */
static void check_case(kac_ctx *ref, kac_ctx *cpu, run_fn *run, const void *k, double tolerance, const char *what) {
    kac_tensor all;
    const size_t marks[4] = {kac_arena_mark(&ref->run), kac_arena_mark(&ref->scratch), kac_arena_mark(&cpu->run),
                             kac_arena_mark(&cpu->scratch)};
    const size_t model = kac_arena_mark(&cpu->model), model_ref = kac_arena_mark(&ref->model);
    cpu->n_threads = 2;
    all = run(cpu, k, 7, 1);
    near(run(cpu, k, 3, 2), run(ref, k, 3, 2), tolerance, what);
    const size_t bytes = kac_tensor_bytes(all) / 7;
    for (int threads = 1; threads <= 3; threads++) {
        cpu->n_threads = threads;
        for (int i = 0; i < 3; i++) {
            const int64_t n = (int64_t[]){1, 2, 7}[i], first = (int64_t[]){4, 5, 1}[i];
            const kac_tensor some = run(cpu, k, n, first);
            if (!CHECK(memcmp(some.data, (char *)all.data + (size_t)(first - 1) * bytes, (size_t)n * bytes) == 0))
                printf("  %s: batch %d with %d threads gives other bits\n", what, (int)n, threads);
        }
    }
    cpu->n_threads = 2;
    kac_arena_release(&ref->run, marks[0]), kac_arena_release(&ref->scratch, marks[1]);
    kac_arena_release(&cpu->run, marks[2]), kac_arena_release(&cpu->scratch, marks[3]);
    kac_arena_release(&cpu->model, model), kac_arena_release(&ref->model, model_ref);
}

static kac_tensor as_conv(kac_ctx *c, const void *k, int64_t n, int64_t f) {
    return run_conv(c, k, n, f);
}
static kac_tensor as_linear(kac_ctx *c, const void *k, int64_t n, int64_t f) {
    return run_linear(c, k, n, f);
}
static kac_tensor as_attention(kac_ctx *c, const void *k, int64_t n, int64_t f) {
    return run_attention(c, k, n, f);
}
static kac_tensor as_norm(kac_ctx *c, const void *k, int64_t n, int64_t f) {
    return run_norm(c, k, n, f);
}
static kac_tensor as_other(kac_ctx *c, const void *k, int64_t n, int64_t f) {
    return run_other(c, k, n, f);
}

static void check_isa(const char *isa, kac_dtype dtype) {
    kac_ctx ref, cpu;
    CHECK_OK(kac_ctx_open(&ref, &kac_ref_ops, dtype, 2, NULL));
    if (!CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), dtype, 2, NULL))) return;
    printf("%s %s\n", isa, kac_dtype_name(dtype));
    char what[64];
#define CASES(table, fn, tolerance)                                                                                    \
    for (int i = 0; i < KAC_COUNT_OF(table); i++) {                                                                    \
        snprintf(what, sizeof what, "%s %s %d", isa, #table, i);                                                       \
        check_case(&ref, &cpu, fn, &table[i], tolerance_of(dtype, tolerance), what);                                   \
    }
    CASES(convs, as_conv, 3e-6)
    CASES(linears, as_linear, 1e-6)
    CASES(attentions, as_attention, 1e-6)
    CASES(norms, as_norm, 2e-6)
    static const int others[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    CASES(others, as_other, 3e-7)
    kac_ctx_close(&ref);
    kac_ctx_close(&cpu);
}

int main(void) {
    const char *wanted = getenv("KAC_ISA");
    if (wanted == NULL || wanted[0] == 0) wanted = "best";
    const struct kac_kernels *k;
    if (kac_cpu_kernels_find(&k) != KAC_OK) return CHECK_SKIP("%s", kac_error());
    check_isa(wanted, KAC_F32);
    check_isa(wanted, KAC_BF16);
    return check_done();
}
