/* Gradients, row by row: ref in double against central differences along a random direction of each input; the fast backend
 * against ref in f32 and bf16, with the same bits for any number of threads. Prints the share of the tolerance used. */
#include "tensor/convert.h"
#include "tests/cases/ops.h"
#include "tests/check.h"
#include "tests/util/op_grad.h"

static void reset(kac_ctx *c) {
    kac_arena_release(&c->model, 0);
    kac_arena_release(&c->run, 0);
    kac_arena_release(&c->scratch, 0);
}

static double load(kac_tensor t, int64_t i) {
    return kac_element_load(t.data, t.dtype, kac_element_offset(&t, t.rank, i));
}

/* ---- against differences ---- */

/* L = Σ w · out, with an input moved; a moved weight is packed again. */
static kac_status loss(kac_ctx *c, const op_case *row, const op_inputs *in, double *value) {
    op_inputs now = *in;
    kac_tensor out = {0}, seed;
    const size_t model = kac_arena_mark(&c->model), run = kac_arena_mark(&c->run), mark = kac_arena_mark(&c->scratch);
    if (in->weight.data != NULL)
        KAC_TRY(kac_weight_pack(c, &now.w, in->weight, row->op == KAC_OP_conv2d ? row->stride : 1));
    if (in->up_weight.data != NULL) KAC_TRY(kac_weight_pack(c, &now.up, in->up_weight, 1));
    KAC_TRY(op_case_call(c, row, &now, &out));
    KAC_TRY(op_grad_seed(c, out, &seed));
    *value = 0;
    for (int64_t i = 0; i < kac_tensor_count(out); i++) *value += load(out, i) * load(seed, i);
    kac_arena_release(&c->model, model);
    kac_arena_release(&c->run, run);
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

/* x + h · direction, rounded to x's type; the step that was really made is known afterwards. */
static void move(kac_tensor x, const double *from, const float *direction, double h) {
    for (int64_t i = 0; i < kac_tensor_count(x); i++)
        kac_element_store(x.data, x.dtype, kac_element_offset(&x, x.rank, i), from[i] + h * direction[i]);
}

/* How far the differences may be from the slope, and the step: by how an op rounds its results. */
static double tolerance_of(const op_case *row, double *h) {
    const bool coarse = row->op == KAC_OP_copy && row->into != KAC_F32 && row->into != KAC_F64;
    *h = 1e-5;
    if (coarse) return *h = 8, 2e-2;
    if (row->op == KAC_OP_copy) return *h = 8, 1e-2; /* from may be bf16 */
    if (row->op == KAC_OP_lincomb) return *h = 1e-1, 1e-5;
    if (row->op == KAC_OP_row_stats) return *h = 3e-3, 1e-4;
    return 1e-6;
}

static void check_input(kac_ctx *c, const op_case *row, const op_inputs *in, const op_grads *g, int k) {
    const kac_tensor x = g->input[k];
    const int64_t n = kac_tensor_count(x);
    double h, value[2] = {0}, by_slope = 0, slope2 = 0, step2 = 0;
    const double tolerance = tolerance_of(row, &h);
    double *from = kac_alloc((size_t)n * sizeof *from), *step = kac_alloc((size_t)n * sizeof *step);
    float *direction = kac_alloc((size_t)n * sizeof *direction);
    KAC_ASSERT(from != NULL && step != NULL && direction != NULL);
    kac_rng_normal(direction, n, (kac_key){.seed = 4, .purpose = KAC_PURPOSE_TEST, .step = (uint32_t)k}, 0, 0);
    for (int64_t i = 0; i < n; i++) from[i] = load(x, i);
    for (int side = 0; side < 2; side++) {
        move(x, from, direction, side == 0 ? h : -h);
        CHECK_OK(loss(c, row, in, &value[side]));
        for (int64_t i = 0; i < n; i++) step[i] = side == 0 ? load(x, i) : (step[i] - load(x, i)) / 2;
    }
    for (int64_t i = 0; i < n; i++) { /* a weight's gradient lies as in checkpoints, like in->weight */
        const double slope = load(g->grad[k], i);
        by_slope += slope * step[i];
        slope2 += slope * slope;
        step2 += step[i] * step[i];
    }
    move(x, from, direction, 0);
    const double by_difference = (value[0] - value[1]) / 2;
    const double error = fabs(by_slope - by_difference) / (sqrt(KAC_MAX(slope2, 1e-2) * step2) + 1e-300);
    printf("f64  %-36s %-9s %9.2e %5.1f %%\n", row->name, g->name[k], error, 100 * error / tolerance);
    if (!CHECK(error <= tolerance))
        printf("  %s by %s: slope %.9g, difference %.9g\n", row->name, g->name[k], by_slope, by_difference);
    kac_free(from);
    kac_free(step);
    kac_free(direction);
}

static void check_differences(kac_ctx *c, const op_case *row) {
    op_inputs in;
    op_grads g;
    op_case apart = *row;
    apart.with &= ~(unsigned)IN_PLACE;
    reset(c);
    if (!CHECK_OK(op_case_prepare(c, row, &in)) || !CHECK_OK(op_grads_prepare(c, row, &in, &g)) ||
        !CHECK_OK(op_grads_call(c, row, &in, &g))) {
        printf("  %s\n", row->name);
        return;
    }
    for (int k = 0; k < g.n; k++) check_input(c, &apart, &in, &g, k);
}

/* ---- the fast backend ---- */

static kac_status run_row(kac_ctx *c, const op_case *row, op_grads *g) {
    op_inputs in;
    reset(c);
    KAC_TRY(op_case_prepare(c, row, &in));
    KAC_TRY(op_grads_prepare(c, row, &in, g));
    return op_grads_call(c, row, &in, g);
}

static bool same_bits(kac_tensor a, kac_tensor b) {
    for (int64_t i = 0; i < kac_tensor_count(a); i++)
        if (kac_f32_bits((float)load(a, i)) != kac_f32_bits((float)load(b, i))) return false;
    return true;
}

static void check_fast(kac_ctx *ref, kac_ctx *fast, kac_ctx *threads, const op_case *row) {
    op_grads want, got, other;
    if (!CHECK_OK(run_row(ref, row, &want)) || !CHECK_OK(run_row(fast, row, &got)) ||
        !CHECK_OK(run_row(threads, row, &other))) {
        printf("  %s\n", row->name);
        return;
    }
    /* In bf16 the fast backend keeps Winograd's weights in f32: near its kink a relu may fall to the other side. */
    const double coarse = row->act == KAC_ACT_RELU ? 1e-1 : 2e-2, tolerance = fast->dtype == KAC_F32 ? 1e-5 : coarse;
    /* Of one channel a norm's dx is 0; what is left is rounding, divided by the root of eps. */
    const bool nothing = row->op == KAC_OP_layer_norm && kac_tensor_count(want.grad[0]) == row->x[0] * row->x[1];
    for (int k = 0; k < want.n; k++) {
        double difference = 0, norm = 0;
        for (int64_t i = 0; i < kac_tensor_count(want.grad[k]); i++) {
            const double x = load(got.grad[k], i), y = load(want.grad[k], i);
            difference += (x - y) * (x - y);
            norm += y * y;
        }
        const double error = sqrt(difference / KAC_MAX(norm, nothing ? 1e4 : 1e-2));
        printf("%-4s %-36s %-9s %9.2e %5.1f %%\n", fast->dtype == KAC_F32 ? "f32" : "bf16", row->name, want.name[k],
               error, 100 * error / tolerance);
        if (!CHECK(error <= tolerance)) printf("  %s by %s\n", row->name, want.name[k]);
        if (!CHECK(same_bits(got.grad[k], other.grad[k])))
            printf("  %s by %s depends on the number of threads\n", row->name, want.name[k]);
    }
}

int main(int n_args, char **args) {
    const char *only = n_args > 1 ? args[1] : ""; /* part of a name, to look at one row */
    for (int pass = 0; pass < 3; pass++) {
        static const kac_dtype dtypes[] = {KAC_F64, KAC_F32, KAC_BF16};
        const kac_dtype dtype = dtypes[pass];
        kac_ctx ref, fast = {0}, threads = {0};
        if (!CHECK_OK(kac_ctx_open(&ref, &kac_ref_ops, dtype, 0, NULL)) ||
            (pass > 0 && (!CHECK_OK(kac_ctx_open(&fast, kac_cpu_ops(), dtype, 2, NULL)) ||
                          !CHECK_OK(kac_ctx_open(&threads, kac_cpu_ops(), dtype, 3, NULL)))))
            return check_done();
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) {
            const op_case *row = &op_cases[i];
            if ((row->with & ONLY_BENCH) != 0 || strstr(row->name, only) == NULL || !op_grad_exists(row)) continue;
            if (pass == 0)
                check_differences(&ref, row);
            else
                check_fast(&ref, &fast, &threads, row);
        }
        kac_ctx_close(&ref);
        if (pass > 0) kac_ctx_close(&fast), kac_ctx_close(&threads);
    }
    return check_done();
}
