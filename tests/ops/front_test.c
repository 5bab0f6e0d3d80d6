/* The op fronts: what does not fit is refused with a clear line before anything runs, outputs are taken or checked, every op is counted and
 * recorded once, a tap sees values, full memory is a status and not a crash. */
#include "base/memory.h"
#include "tests/cases/ops.h"
#include "tests/check.h"

static kac_ctx c;
static const kac_tensor none = {0};

static kac_tensor take(kac_dtype dtype, int rank, const int64_t *shape) {
    kac_tensor t = {0};
    CHECK_OK(kac_take(&t, &c.run, dtype, rank, shape));
    if (t.data != NULL) memset(t.data, 0, kac_tensor_bytes(t));
    return t;
}
#define TAKE(dtype, ...)                                                                                               \
    take((dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
#define F32(...) TAKE(KAC_F32, __VA_ARGS__)

/* The call (which writes `out`) fails, says `text`, and neither counts nor takes memory. */
#define REFUSED(text, call)                                                                                            \
    do {                                                                                                               \
        kac_tensor out = {0};                                                                                          \
        const size_t used_ = c.scratch.used;                                                                           \
        const int64_t ops_ = c.counts.ops;                                                                             \
        CHECK_FAILS((call), KAC_E_SHAPE, (text));                                                                      \
        CHECK(c.counts.ops == ops_);                                                                                   \
        c.scratch.used = used_;                                                                                        \
    } while (0)

static kac_weight pack(int rank, const int64_t *shape) {
    kac_weight w = {0};
    CHECK_OK(kac_weight_pack(&c, &w, take(KAC_F32, rank, shape), 1));
    return w;
}

static void test_weights(void) {
    kac_weight w;
    CHECK_FAILS(kac_weight_pack(&c, &w, F32(3), 1), KAC_E_SHAPE, "weight");
    CHECK_FAILS(kac_weight_pack(&c, &w, F32(3, 0), 1), KAC_E_SHAPE, "weight");
    CHECK_FAILS(kac_weight_pack(&c, &w, none, 1), KAC_E_SHAPE, "weight");
    CHECK_FAILS(kac_weight_pack(&c, &w, TAKE(KAC_I32, 3, 4), 1), KAC_E_SHAPE, "floating-point");
    CHECK_FAILS(kac_weight_pack(&c, &w, kac_tensor_transpose(F32(3, 4), 0, 1), 1), KAC_E_SHAPE, "weight");
}

static void test_linear(void) {
    const kac_weight w = pack(2, (int64_t[]){6, 4}), odd = pack(2, (int64_t[]){5, 4}),
                     conv = pack(4, (int64_t[]){6, 4, 3, 3});
    const kac_tensor x = F32(2, 3, 4);
    REFUSED("linear: x is missing", kac_linear(&c, &out, none, &w, (kac_linear_opt){0}));
    REFUSED("linear: x has 5 features, the weight is [6, 4]", kac_linear(&c, &out, F32(2, 5), &w, (kac_linear_opt){0}));
    REFUSED("linear: x has 4", kac_linear(&c, &out, x, &conv, (kac_linear_opt){0}));
    REFUSED("f32 or bf16", kac_linear(&c, &out, TAKE(KAC_F16, 2, 4), &w, (kac_linear_opt){0}));
    REFUSED("empty", kac_linear(&c, &out, F32(0, 4), &w, (kac_linear_opt){0}));
    REFUSED("last axis", kac_linear(&c, &out, kac_tensor_transpose(F32(4, 4), 0, 1), &w, (kac_linear_opt){0}));
    REFUSED("geglu", kac_linear(&c, &out, x, &odd, (kac_linear_opt){.geglu = true}));
    REFUSED("linear: bias must be f32 [6]", kac_linear(&c, &out, x, &w, (kac_linear_opt){.bias = F32(5)}));
    REFUSED("bias", kac_linear(&c, &out, x, &w, (kac_linear_opt){.bias = TAKE(KAC_BF16, 6)}));
    REFUSED("linear: residual is [2, 3, 5]", kac_linear(&c, &out, x, &w, (kac_linear_opt){.residual = F32(2, 3, 5)}));
    REFUSED("linear: out is [2, 3, 7]", (out = F32(2, 3, 7), kac_linear(&c, &out, x, &w, (kac_linear_opt){0})));
    REFUSED("linear: out is", (out = TAKE(KAC_I32, 2, 3, 6), kac_linear(&c, &out, x, &w, (kac_linear_opt){0})));
    REFUSED("linear: out is",
            (out = kac_tensor_slice(F32(2, 3, 7), 2, 0, 6), kac_linear(&c, &out, x, &w, (kac_linear_opt){0})));
}

static void test_conv(void) {
    const kac_weight w = pack(4, (int64_t[]){6, 4, 3, 3});
    const kac_tensor x = F32(2, 5, 5, 4);
    const kac_conv_opt same = {.stride = 1, .pad = {1, 1, 1, 1}};
    kac_conv_opt o = same;
    REFUSED("[N, H, W, 4] is wanted", kac_conv2d(&c, &out, F32(2, 5, 5, 3), &w, same));
    REFUSED("[N, H, W, 4] is wanted", kac_conv2d(&c, &out, F32(2, 5, 4), &w, same));
    REFUSED("contiguous", kac_conv2d(&c, &out, kac_tensor_slice(F32(2, 5, 6, 4), 2, 0, 5), &w, same));
    REFUSED("smaller than the kernel", kac_conv2d(&c, &out, F32(1, 2, 5, 4), &w, (kac_conv_opt){.stride = 1}));
    REFUSED("empty", kac_conv2d(&c, &out, F32(0, 5, 5, 4), &w, same));
    REFUSED("row bias is [3, 6]", (o = same, o.row_bias = F32(3, 6), kac_conv2d(&c, &out, x, &w, o)));
    REFUSED("row bias is [2, 5]", (o = same, o.row_bias = F32(2, 5), kac_conv2d(&c, &out, x, &w, o)));
    REFUSED("an index lies outside",
            (o = same, o.row_bias = F32(3, 6), o.row_index = (int[]){0, 3}, kac_conv2d(&c, &out, x, &w, o)));
    REFUSED("an index lies outside",
            (o = same, o.row_bias = F32(3, 6), o.row_index = (int[]){-1, 0}, kac_conv2d(&c, &out, x, &w, o)));
    REFUSED("conv2d: residual is [2, 5, 5, 4]", (o = same, o.residual = x, kac_conv2d(&c, &out, x, &w, o)));
    REFUSED("conv2d: out is [2, 5, 4, 6]", (out = F32(2, 5, 4, 6), kac_conv2d(&c, &out, x, &w, same)));
}

static void test_products(void) {
    const kac_tensor q = F32(2, 5, 3, 4), k = F32(2, 7, 3, 4), a = F32(2, 3, 4);
    const kac_attention_opt plain = {.scale = 1};
    REFUSED("matmul_t", kac_matmul_t(&c, &out, a, F32(2, 3, 5), 1));
    REFUSED("matmul_t", kac_matmul_t(&c, &out, a, F32(3, 3, 4), 1));
    REFUSED("matmul_t", kac_matmul_t(&c, &out, F32(4), F32(4), 1));
    REFUSED("attention: v is missing", kac_attention(&c, &out, q, k, none, plain));
    REFUSED("attention: k", kac_attention(&c, &out, q, k, F32(2, 6, 3, 4), plain));
    REFUSED("attention: k", kac_attention(&c, &out, q, F32(2, 7, 2, 4), F32(2, 7, 2, 4), plain));
    REFUSED("attention: k", kac_attention(&c, &out, q, F32(2, 7, 3, 5), F32(2, 7, 3, 5), plain));
    REFUSED("attention: k", kac_attention(&c, &out, q, F32(2, 0, 3, 4), F32(2, 0, 3, 4), plain));
    REFUSED("causal", kac_attention(&c, &out, q, k, k, (kac_attention_opt){.scale = 1, .causal = true}));
    REFUSED("row lies outside", kac_attention(&c, &out, q, F32(1, 7, 3, 4), F32(1, 7, 3, 4), plain));
    REFUSED("row lies outside",
            kac_attention(&c, &out, q, k, k, (kac_attention_opt){.scale = 1, .kv_row = (int[]){0, 2}}));
}

static void test_norms(void) {
    const kac_tensor x = F32(2, 3, 3, 6), g = F32(6);
    REFUSED("6 channels cannot be split into 4 groups", kac_group_norm(&c, &out, x, g, g, 4, 1e-5, KAC_ACT_NONE));
    REFUSED("groups", kac_group_norm(&c, &out, x, g, g, 0, 1e-5, KAC_ACT_NONE));
    REFUSED("gamma", kac_group_norm(&c, &out, x, F32(5), g, 2, 1e-5, KAC_ACT_NONE));
    REFUSED("empty", kac_group_norm(&c, &out, F32(0, 3, 6), g, g, 2, 1e-5, KAC_ACT_NONE));
    REFUSED("beta", kac_layer_norm(&c, &out, x, g, F32(6, 1), 1e-5));
    REFUSED("contiguous", kac_layer_norm(&c, &out, kac_tensor_slice(F32(2, 7), 1, 0, 6), g, g, 1e-5));
    REFUSED("l2_normalize: x", kac_l2_normalize(&c, &out, TAKE(KAC_U8, 2, 3)));
    REFUSED("activate: out is", (out = F32(2, 3), kac_activate(&c, &out, x, KAC_ACT_SILU)));
    REFUSED("scale", kac_affine(&c, &out, x, F32(3), F32(6)));
    REFUSED("modulate", kac_modulate(&c, &out, x, F32(2, 6), F32(1, 6), NULL));
    REFUSED("modulate", kac_modulate(&c, &out, x, F32(2, 6), none, NULL));
    REFUSED("modulate: row bias is [3, 6]", kac_modulate(&c, &out, x, F32(3, 6), F32(3, 6), NULL));
    REFUSED("an index", kac_modulate(&c, &out, x, F32(3, 6), F32(3, 6), (int[]){0, 3}));
    REFUSED("clamp: x is missing", kac_clamp(&c, &out, none, 0, 1));
    REFUSED("two entries", kac_row_stats(&c, &out, F32(3, 1)));
}

static void test_combinations(void) {
    const kac_tensor x = F32(2, 3);
    const double one[KAC_MAX_TERMS + 1] = {1};
    const kac_tensor two[] = {x, F32(3, 2)}, many[KAC_MAX_TERMS + 1] = {x, x, x, x, x, x, x, x, x};
    REFUSED("0 terms", kac_lincomb(&c, &out, 0, two, one, 1));
    REFUSED("9 terms", kac_lincomb(&c, &out, 9, many, one, 1));
    REFUSED("one shape", kac_lincomb(&c, &out, 2, two, one, 1));
    REFUSED("one coefficient", kac_lincomb(&c, &out, 1, two, one, 3));
    REFUSED("one shape", kac_add(&c, &out, two[0], two[1]));
}

static void test_moves(void) {
    const kac_tensor x = F32(2, 3, 4), ids = TAKE(KAC_I32, 1, 3), table = F32(5, 4);
    REFUSED("copy: out", (out = F32(2, 4, 3), kac_copy(&c, &out, x)));
    REFUSED("concat", kac_concat(&c, &out, x, F32(2, 2, 4), 2));
    REFUSED("concat", kac_concat(&c, &out, x, x, 3));
    REFUSED("dtype", kac_concat(&c, &out, x, TAKE(KAC_BF16, 2, 3, 4), 2));
    REFUSED("an index lies outside", kac_gather(&c, &out, x, (int[]){0, 2}, 2));
    REFUSED("an index lies outside", kac_gather(&c, &out, x, (int[]){-1}, 1));
    REFUSED("one index", kac_gather(&c, &out, x, NULL, 0));
    REFUSED("i32 [N, T]", kac_embedding(&c, &out, F32(1, 3), table, none));
    REFUSED("position", kac_embedding(&c, &out, ids, table, F32(2, 4)));
    ((int32_t *)ids.data)[1] = 5;
    REFUSED("token id 5 lies outside the vocabulary of 5", kac_embedding(&c, &out, ids, table, none));
    ((int32_t *)ids.data)[1] = -1;
    REFUSED("token id -1", kac_embedding(&c, &out, ids, table, none));
    REFUSED("width 1", kac_timestep_embedding(&c, &out, (double[]){1}, 1, 1, true, 0, 1, 10000));
    REFUSED("frequency shift of 1", kac_timestep_embedding(&c, &out, (double[]){1}, 1, 2, true, 1, 1, 10000));
    REFUSED("[N, H, W, C]", kac_upsample_nearest(&c, &out, x, 4, 4));
    REFUSED("[N, H, W, C]", kac_upsample_nearest(&c, &out, F32(1, 2, 2, 3), 0, 4));
    REFUSED("avg_pool2", kac_avg_pool2(&c, &out, F32(1, 1, 4, 3)));
    REFUSED("resample", kac_resample(&c, &out, F32(1, 4, 4, 3), 4, 0, KAC_FILTER_BICUBIC));
    REFUSED("randn: out", (out = TAKE(KAC_BF16, 2, 3), kac_randn(&c, &out, (kac_key){0}, (int[]){0, 1})));
    /* Sizes that no memory holds are a status too. */
    kac_tensor huge = {0};
    CHECK_FAILS(kac_upsample_nearest(&c, &huge, F32(1, 2, 2, 3), (int64_t)1 << 40, (int64_t)1 << 40), KAC_E_MEMORY, "");
    CHECK_FAILS(kac_upsample_nearest(&c, &huge, F32(1, 2, 2, 3), 1 << 20, 1 << 20), KAC_E_MEMORY,
                "scratch memory is full");
    CHECK(huge.data == NULL);
}

/* ---- what fronts do besides checking ---- */

typedef struct recorder {
    kac_tape tape;
    int n;
    kac_op last;
    kac_tensor out;
} recorder;

static kac_status record(kac_tape *t, kac_op op, const void *args, size_t n_args) {
    recorder *r = (recorder *)t;
    r->n++;
    r->last = op;
    if (op == KAC_OP_clamp && CHECK(n_args == sizeof(kac_clamp_args))) r->out = ((const kac_clamp_args *)args)->out;
    return KAC_OK;
}

static void test_tape(void) {
    recorder r = {.tape = {record}};
    kac_tensor out = {0};
    c.tape = &r.tape;
    for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) { /* also: every op has a row */
        op_inputs in;
        if ((op_cases[i].with & ONLY_BENCH) != 0) continue;
        const size_t mark = kac_arena_mark(&c.run);
        CHECK_OK(op_case_prepare(&c, &op_cases[i], &in));
        const int before = r.n;
        out = (kac_tensor){0};
        CHECK_OK(op_case_call(&c, &op_cases[i], &in, &out));
        CHECK(r.n == before + 1 && r.last == op_cases[i].op);
        kac_arena_release(&c.run, mark);
        kac_arena_release(&c.scratch, 0);
    }
    out = (kac_tensor){0};
    CHECK_OK(kac_clamp(&c, &out, F32(2, 3), 0, 1));
    CHECK(r.out.data == out.data);
    c.tape = NULL;
    const int before = r.n;
    CHECK_OK(kac_clamp(&c, &out, F32(2, 3), 0, 1));
    CHECK(r.n == before);
}

static void test_every_op_has_a_row(void) {
    for (int op = 0; op < KAC_N_OPS; op++) {
        int n = 0;
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) n += op_cases[i].op == (kac_op)op;
        if (!CHECK(n > 0)) printf("  no row for %s\n", kac_op_name((kac_op)op));
    }
    CHECK_TEXT(kac_op_name(KAC_OP_conv2d), "conv2d");
    CHECK_TEXT(kac_op_name(KAC_N_OPS), "?");
}

static kac_status tap(void *self, const char *name, kac_tensor value) {
    double *seen = self;
    CHECK_TEXT(name, "block.1.out");
    *seen = ((const float *)value.data)[1];
    return *seen > 1 ? KAC_FAIL(KAC_E_NONFINITE, "stop here") : KAC_OK;
}

static void test_tap(void) {
    double seen = 0;
    float x[] = {1, 0.5f}, large[] = {1, 7};
    CHECK_OK(kac_tap(&c, kac_tensor_make(x, KAC_F32, 2), "block.%d.out", 1)); /* off: nothing happens */
    c.tap = tap;
    c.tap_self = &seen;
    CHECK_OK(kac_tap(&c, kac_tensor_make(x, KAC_F32, 2), "block.%d.out", 1));
    CHECK(seen == 0.5);
    CHECK_FAILS(kac_tap(&c, kac_tensor_make(large, KAC_F32, 2), "block.%d.out", 1), KAC_E_NONFINITE, "stop here");
    c.tap = NULL;
}

/* Given an output, the front uses it; without one it takes contiguous scratch of the first input's dtype. */
static void test_outputs(void) {
    kac_tensor x = TAKE(KAC_BF16, 2, 3), mine = F32(2, 3), out = mine;
    CHECK_OK(kac_activate(&c, &out, x, KAC_ACT_SILU));
    CHECK(out.data == mine.data && out.dtype == KAC_F32);
    out = (kac_tensor){0};
    CHECK_OK(kac_activate(&c, &out, x, KAC_ACT_SILU));
    CHECK(out.dtype == KAC_BF16 && kac_tensor_same_shape(out, x) && (char *)out.data >= c.scratch.base &&
          (char *)out.data < c.scratch.base + c.scratch.used);
}

/* Every row on a scratch arena that is too small by ever less: a status, no crash. */
static void test_full_memory(const struct kac_ops *ops) {
    for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) {
        const op_case *row = &op_cases[i];
        kac_ctx plan, small;
        op_inputs in;
        kac_tensor out = {0};
        if ((row->with & ONLY_BENCH) != 0) continue;
        if (!CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, KAC_F32, 2, NULL))) return;
        CHECK_OK(op_case_prepare(&plan, row, &in));
        CHECK_OK(op_case_call(&plan, row, &in, &out));
        for (size_t part = 1; part <= 8 && plan.scratch.peak > 1024; part++) {
            if (!CHECK_OK(kac_ctx_open(&small, ops, KAC_F32, 2, NULL))) continue;
            const size_t cap = small.scratch.cap;
            small.scratch.cap = plan.scratch.peak * part / 9; /* finer than the pages that arenas are made of */
            out = (kac_tensor){0};
            kac_status s = op_case_prepare(&small, row, &in);
            if (s == KAC_OK) s = op_case_call(&small, row, &in, &out);
            if (!CHECK(s == KAC_E_MEMORY && strstr(kac_error(), "scratch memory is full") != NULL))
                printf("  %s: %s (%s)\n", row->name, kac_status_text(s), kac_error());
            small.scratch.cap = cap;
            kac_ctx_close(&small);
        }
        kac_ctx_close(&plan);
    }
    kac_ctx_sizes sizes = {.model = 4096};
    kac_ctx small;
    kac_weight w;
    const kac_tensor src = F32(64, 64);
    CHECK_OK(kac_ctx_open(&small, ops, KAC_F32, 2, &sizes));
    CHECK_FAILS(kac_weight_pack(&small, &w, src, 1), KAC_E_MEMORY, "model memory is full");
    kac_ctx_close(&small);
}

/* The n-th allocation of anything fails: a status, or not needed at all. */
static void test_failing_allocations(const struct kac_ops *ops) {
    for (int i = 0; i < KAC_COUNT_OF(op_cases); i += 5)
        for (int n = 1; n < 6; n++) {
            kac_ctx small;
            op_inputs in;
            kac_tensor out = {0};
            if ((op_cases[i].with & ONLY_BENCH) != 0) continue;
            kac_alloc_fail_after(n);
            kac_status s = kac_ctx_open(&small, ops, KAC_BF16, 2, NULL);
            const bool opened = s == KAC_OK;
            if (opened) s = op_case_prepare(&small, &op_cases[i], &in);
            if (s == KAC_OK) s = op_case_call(&small, &op_cases[i], &in, &out);
            kac_alloc_fail_after(0);
            CHECK(s == KAC_OK || s == KAC_E_MEMORY);
            if (opened) kac_ctx_close(&small);
        }
}

int main(void) {
    if (!CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 2, NULL))) return check_done();
    test_weights();
    test_linear();
    test_conv();
    test_products();
    test_norms();
    test_combinations();
    test_moves();
    test_tape();
    test_every_op_has_a_row();
    test_tap();
    test_outputs();
    test_full_memory(kac_cpu_ops());
    test_failing_allocations(&kac_ref_ops);
    test_failing_allocations(kac_cpu_ops());
    kac_ctx_close(&c);
    return check_done();
}
