/* The fast backend against ref, row by row: values, the rule of rows (one image alone, any number of threads: the same
 * bits), and NaN that must come through. Prints for each row the share of the tolerance used. */
#include "tensor/convert.h"
#include "tests/cases/ops.h"
#include "tests/check.h"

typedef struct backends {
    kac_ctx ref, fast, threads; /* threads: the fast backend with another number of threads */
} backends;

static void reset(kac_ctx *c) {
    kac_arena_release(&c->model, 0);
    kac_arena_release(&c->run, 0);
    kac_arena_release(&c->scratch, 0);
}

/* Everything that a row needs, from fresh arenas. */
static kac_status run_row(kac_ctx *c, const op_case *row, op_inputs *in, kac_tensor *out) {
    reset(c);
    *out = (kac_tensor){0};
    KAC_TRY(op_case_prepare(c, row, in));
    return op_case_call(c, row, in, out);
}

static void check_one_image(kac_ctx *c, const op_case *row, kac_tensor all) {
    op_inputs in, one;
    kac_tensor out = {0};
    const int64_t n = row->x[0] - 1;
    if (n < 1) return;
    /* The arenas keep `all`: inputs are made again behind it. */
    if (!CHECK_OK(op_case_prepare(c, row, &in)) || !op_case_one_image(row, &in, n, &one)) return;
    op_case alone = *row;
    alone.x[0] = 1;
    if (!CHECK_OK(op_case_call(c, &alone, &one, &out))) return;
    if (!CHECK(op_case_same_bits(out, kac_tensor_slice(all, 0, n, 1))))
        printf("  %s: image %lld alone differs\n", row->name, (long long)n);
}

/* A NaN in image 0 must reach every place where ref has one, and no other image. */
static void check_nan(kac_ctx *ref, kac_ctx *fast, const op_case *row) {
    kac_ctx *both[2] = {ref, fast};
    kac_tensor out[2] = {{0}, {0}};
    if (row->op == KAC_OP_embedding || row->op == KAC_OP_timestep_embedding || row->op == KAC_OP_randn ||
        row->op == KAC_OP_copy)
        return;
    for (int i = 0; i < 2; i++) {
        op_inputs in;
        reset(both[i]);
        if (!CHECK_OK(op_case_prepare(both[i], row, &in))) return;
        kac_element_store(in.x.data, in.x.dtype, 0, NAN);
        if (!CHECK_OK(op_case_call(both[i], row, &in, &out[i]))) return;
    }
    int64_t n_lost = 0, n_leaked = 0;
    const int64_t n_image = kac_tensor_count(out[0]) / out[0].shape[0];
    for (int64_t i = 0; i < kac_tensor_count(out[0]); i++) {
        const bool want = isnan(kac_element_load(out[0].data, out[0].dtype, i));
        const bool got = isnan(kac_element_load(out[1].data, out[1].dtype, i));
        n_lost += want && !got;
        n_leaked += !want && got && i >= n_image;
    }
    if (!CHECK(n_lost == 0 && n_leaked == 0))
        printf("  %s: %lld NaN lost, %lld in other images\n", row->name, (long long)n_lost, (long long)n_leaked);
}

static void check_row(backends *b, const op_case *row) {
    op_inputs in;
    kac_tensor want, got, other;
    const kac_dtype dtype = b->fast.dtype;
    if (!CHECK_OK(run_row(&b->ref, row, &in, &want)) || !CHECK_OK(run_row(&b->fast, row, &in, &got)) ||
        !CHECK_OK(run_row(&b->threads, row, &in, &other))) {
        printf("  %s\n", row->name);
        return;
    }
    const double tolerance = op_case_exact(row) ? 0
                             : dtype == KAC_F32 ? 1e-5
                                                : 2e-2,
                 error = op_case_distance(got, want);
    printf("%-4s %-36s %9.2e %5.1f %%\n", dtype == KAC_F32 ? "f32" : "bf16", row->name, error,
           tolerance == 0 ? 0 : 100 * error / tolerance);
    CHECK(error <= tolerance);
    if (!CHECK(op_case_same_bits(got, other))) printf("  %s: depends on the number of threads\n", row->name);
    check_one_image(&b->fast, row, got);
    if (kac_tensor_count(in.x) < 60000) check_nan(&b->ref, &b->fast, row);
}

int main(int n_args, char **args) {
    const char *only = n_args > 1 ? args[1] : ""; /* part of a name, to look at one row */
    for (int pass = 0; pass < 2; pass++) {
        backends b;
        const kac_dtype dtype = pass == 0 ? KAC_F32 : KAC_BF16;
        if (!CHECK_OK(kac_ctx_open(&b.ref, &kac_ref_ops, dtype, 0, NULL)) ||
            !CHECK_OK(kac_ctx_open(&b.fast, kac_cpu_ops(), dtype, 2, NULL)) ||
            !CHECK_OK(kac_ctx_open(&b.threads, kac_cpu_ops(), dtype, 3, NULL)))
            return check_done();
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++)
            if ((op_cases[i].with & ONLY_BENCH) == 0 && strstr(op_cases[i].name, only) != NULL)
                check_row(&b, &op_cases[i]);
        kac_ctx_close(&b.ref);
        kac_ctx_close(&b.fast);
        kac_ctx_close(&b.threads);
    }
    return check_done();
}
