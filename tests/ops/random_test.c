/* The fast backend against ref on random sizes and options, where the rows of tests/cases/ops.h are chosen: products, convolutions,
 * attention and norms with dtypes mixed in every way that the fronts allow.
 *
 * usage: test.ops.random [COUNT [SEED]]   (more cases than the test runs, or one family again) */
#include "tests/check.h"
#include "tests/util/op_case.h"
#include <stdlib.h>

typedef struct dice {
    uint64_t seed;
    int64_t n;
} dice;

/* lo … hi, both possible. */
static int64_t roll(dice *d, int64_t lo, int64_t hi) {
    const kac_key key = {.seed = d->seed, .purpose = KAC_PURPOSE_TEST, .step = 99};
    return lo + (int64_t)(kac_rng_uniform(key, 0, d->n++) * (double)(hi - lo + 1));
}

static unsigned maybe(dice *d, unsigned flag) {
    return roll(d, 0, 1) != 0 ? flag : 0;
}

/* Small mostly, so that every tail and edge comes; sometimes larger than a block. */
static int64_t roll_size(dice *d, int64_t large) {
    return roll(d, 0, 3) == 0 ? roll(d, 1, large) : roll(d, 1, KAC_MIN(large, 20));
}

static op_case roll_linear(dice *d) {
    op_case r = {.op = KAC_OP_linear, .x = {roll(d, 1, 3), roll_size(d, 150), roll_size(d, 700)}};
    r.to[0] = roll_size(d, 300);
    r.with = maybe(d, WITH_BIAS) | maybe(d, WITH_RESIDUAL) | maybe(d, WITH_VIEW) | maybe(d, MIXED_DTYPES) |
             maybe(d, OTHER_X);
    if (roll(d, 0, 3) == 0)
        r.with |= WITH_GEGLU;
    else
        r.act = (kac_act)roll(d, 0, KAC_ACT_MISH);
    return r;
}

static op_case roll_conv(dice *d) {
    static const int kernels[] = {1, 2, 3, 3, 3, 3, 5, 7};
    op_case r = {.op = KAC_OP_conv2d, .stride = roll(d, 0, 2) == 0 ? 2 : 1};
    r.kernel[0] = r.kernel[1] = kernels[roll(d, 0, KAC_COUNT_OF(kernels) - 1)];
    const int64_t x[] = {roll(d, 1, 4), roll(d, 1, 21), roll(d, 1, 21), roll_size(d, 130)};
    memcpy(r.x, x, sizeof x);
    for (int i = 0; i < 4; i++) r.pad[i] = (int)roll(d, 0, r.kernel[0] - 1);
    if (roll(d, 0, 1) != 0)
        for (int i = 0; i < 4; i++) r.pad[i] = r.kernel[0] / 2;
    while (r.x[1] + r.pad[0] + r.pad[2] < r.kernel[0]) r.x[1]++;
    while (r.x[2] + r.pad[1] + r.pad[3] < r.kernel[1]) r.x[2]++;
    r.to[0] = roll_size(d, 130);
    r.act = roll(d, 0, 1) != 0 ? (kac_act)roll(d, 0, KAC_ACT_MISH) : KAC_ACT_NONE;
    r.with = maybe(d, WITH_BIAS) | maybe(d, WITH_RESIDUAL) | maybe(d, WITH_ROW_BIAS) | maybe(d, MIXED_DTYPES) |
             maybe(d, OTHER_X);
    if ((r.with & WITH_ROW_BIAS) != 0) {
        const int64_t kind = roll(d, 0, 2);
        r.rows = kind == 0 ? 1 : kind == 1 ? (int)r.x[0] : (int)roll(d, 1, 5);
        if (kind == 2) r.with |= WITH_INDEX;
    }
    return r;
}

static op_case roll_attention(dice *d) {
    const int64_t x[] = {roll(d, 1, 3), roll_size(d, 120), roll(d, 1, 4), roll_size(d, 170)};
    op_case r = {.op = KAC_OP_attention};
    memcpy(r.x, x, sizeof x);
    r.with = maybe(d, WITH_VIEW) | maybe(d, OTHER_X);
    r.to[0] = roll_size(d, 600);
    if (roll(d, 0, 2) == 0) {
        r.with |= WITH_CAUSAL;
        r.to[0] = r.x[1];
    }
    if (roll(d, 0, 1) != 0) {
        r.with |= WITH_INDEX;
        r.rows = (int)roll(d, 1, 3);
    }
    return r;
}

static op_case roll_norm(dice *d) {
    op_case r = {.op = roll(d, 0, 1) != 0 ? KAC_OP_group_norm : KAC_OP_layer_norm, .groups = (int)roll_size(d, 40)};
    const int64_t x[] = {roll(d, 1, 4), roll_size(d, 40), roll_size(d, 40), roll_size(d, 40) * r.groups};
    memcpy(r.x, x, sizeof x);
    if (r.op == KAC_OP_group_norm) r.act = (kac_act)roll(d, 0, KAC_ACT_MISH);
    if (r.x[1] * r.x[2] * (r.x[3] / r.groups) < 8)
        r.x[1] += 8; /* of one or two nearly equal numbers, rounding is all that is left */
    r.with = maybe(d, WITH_SCALE) | maybe(d, OTHER_X);
    return r;
}

static op_case roll_move(dice *d) {
    static const kac_op ops[] = {
        KAC_OP_concat,  KAC_OP_gather, KAC_OP_upsample_nearest, KAC_OP_activate, KAC_OP_affine,
        KAC_OP_lincomb, KAC_OP_copy,   KAC_OP_avg_pool2,        KAC_OP_modulate, KAC_OP_resample};
    op_case r = {.op = ops[roll(d, 0, KAC_COUNT_OF(ops) - 1)]};
    const int64_t x[] = {roll(d, 1, 4), roll(d, 2, 20), roll(d, 2, 20), roll_size(d, 130)};
    memcpy(r.x, x, sizeof x);
    r.to[0] = roll(d, 1, 40);
    r.to[1] = roll(d, 1, 40);
    r.n_terms = (int)roll(d, 1, 8);
    r.act = (kac_act)roll(d, 0, KAC_ACT_MISH);
    r.filter = (kac_filter)roll(d, 0, KAC_FILTER_LANCZOS);
    r.from = roll(d, 0, 1) != 0 ? KAC_F32 : KAC_BF16;
    r.into = roll(d, 0, 1) != 0 ? KAC_F32 : KAC_BF16;
    r.axis = (int)roll(d, 0, 3);
    r.rows = (int)roll(d, 1, 5);
    if (r.op == KAC_OP_modulate) r.with |= WITH_INDEX;
    if (r.op == KAC_OP_lincomb) r.with |= maybe(d, WITH_ROW_COEF) | maybe(d, MIXED_DTYPES);
    if (r.op != KAC_OP_concat) r.with |= maybe(d, OTHER_X);
    return r;
}

static kac_status run(kac_ctx *c, const op_case *row, bool other_out, kac_tensor *out) {
    op_inputs in;
    kac_arena_release(&c->model, 0);
    kac_arena_release(&c->run, 0);
    kac_arena_release(&c->scratch, 0);
    *out = (kac_tensor){0};
    KAC_TRY(op_case_prepare(c, row, &in));
    KAC_TRY(op_case_call(c, row, &in, out));
    if (!other_out || row->op == KAC_OP_copy) return KAC_OK;
    kac_tensor again;
    KAC_TRY(kac_take(&again, &c->run, op_case_other_dtype(out->dtype), out->rank, out->shape));
    KAC_TRY(op_case_call(c, row, &in, &again));
    *out = again;
    return KAC_OK;
}

static void print_case(int64_t i, const op_case *r, kac_dtype dtype, bool other_out) {
    printf("  case %lld: %s %s x [%lld, %lld, %lld, %lld] to %lld, %lld kernel %d stride %d pad %d %d %d %d rows %d "
           "groups %d act %d "
           "axis %d terms %d with %#x%s\n",
           (long long)i, kac_op_name(r->op), kac_dtype_name(dtype), (long long)r->x[0], (long long)r->x[1],
           (long long)r->x[2], (long long)r->x[3], (long long)r->to[0], (long long)r->to[1], r->kernel[0], r->stride,
           r->pad[0], r->pad[1], r->pad[2], r->pad[3], r->rows, r->groups, (int)r->act, r->axis, r->n_terms, r->with,
           other_out ? " other out" : "");
}

int main(int n_args, char **args) {
    static op_case (*const families[])(dice *) = {roll_linear,    roll_conv, roll_conv,
                                                  roll_attention, roll_norm, roll_move};
    const int64_t count = n_args > 1 ? strtoll(args[1], NULL, 10) : 240;
    const uint64_t seed = n_args > 2 ? strtoull(args[2], NULL, 10) : 1;
    kac_ctx ref[2], fast[2];
    double worst[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        if (!CHECK_OK(kac_ctx_open(&ref[i], &kac_ref_ops, i == 0 ? KAC_F32 : KAC_BF16, 2, NULL)) ||
            !CHECK_OK(kac_ctx_open(&fast[i], kac_cpu_ops(), i == 0 ? KAC_F32 : KAC_BF16, 2, NULL)))
            return check_done();
    for (int64_t i = 0; i < count; i++) {
        dice d = {seed * 1000003 + (uint64_t)i, 0};
        const int type = (int)roll(&d, 0, 1);
        const bool other_out = roll(&d, 0, 3) == 0;
        op_case row = families[i % KAC_COUNT_OF(families)](&d);
        kac_tensor want, got;
        row.name = "random";
        if (!CHECK_OK(run(&ref[type], &row, other_out, &want)) || !CHECK_OK(run(&fast[type], &row, other_out, &got))) {
            print_case(i, &row, fast[type].dtype, other_out);
            continue;
        }
        /* One bf16 tensor anywhere makes it a bf16 result, except that f32 weights and inputs stay exact. */
        const double tolerance = op_case_exact(&row) ? 0 : type == 0 && want.dtype == KAC_F32 ? 1e-5 : 2e-2;
        const double error = op_case_distance(got, want);
        if (tolerance > 0) worst[tolerance > 1e-3] = fmax(worst[tolerance > 1e-3], error / tolerance);
        if (!CHECK(error <= tolerance)) {
            print_case(i, &row, fast[type].dtype, other_out);
            printf("  off by %.3g\n", error);
        }
    }
    printf("share of the tolerance used: f32 %.0f %%, bf16 %.0f %%\n", 100 * worst[0], 100 * worst[1]);
    for (int i = 0; i < 2; i++) {
        kac_ctx_close(&ref[i]);
        kac_ctx_close(&fast[i]);
    }
    return check_done();
}
