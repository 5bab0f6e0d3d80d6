/* Linear layers and convolutions through oneDNN: every row of tests/cases/ops.h against ref, the rule of rows (image n has the same
 * bits in a batch of 3 and alone, with any number of threads), and that a second call makes no primitive. */
#include "cpu/onednn.h"
#include "tests/cases/ops.h"
#include "tests/check.h"

typedef struct contexts {
    kac_ctx ref, one, two; /* one, two: oneDNN with so many threads */
} contexts;

static void reset(kac_ctx *c) {
    kac_arena_release(&c->model, 0);
    kac_arena_release(&c->run, 0);
    kac_arena_release(&c->scratch, 0);
}

static bool call(kac_ctx *c, const op_case *row, op_inputs *in, kac_tensor *out) {
    reset(c);
    *out = (kac_tensor){0};
    return CHECK_OK(op_case_prepare(c, row, in)) && CHECK_OK(op_case_call(c, row, in, out));
}

static void check_values(contexts *k, const op_case *row) {
    op_inputs in;
    kac_tensor want, got;
    if (!call(&k->ref, row, &in, &want) || !call(&k->two, row, &in, &got)) {
        printf("  %s\n", row->name);
        return;
    }
    const double error = op_case_distance(got, want);
    printf("%-36s %9.2e\n", row->name, error);
    CHECK(error <= (k->two.dtype == KAC_F32 ? 1e-5 : 2e-2));
}

static void check_rows(contexts *k, const op_case *row) {
    op_case three = *row, alone = *row;
    three.x[0] = 3, alone.x[0] = 1;
    if (row->rows > 1 && (row->with & WITH_INDEX) == 0) three.rows = 3;
    op_inputs in;
    kac_tensor out, again = {0}, other;
    if (!call(&k->one, &three, &in, &other) || !call(&k->two, &three, &in, &out)) return;
    if (!CHECK(op_case_same_bits(out, other))) printf("  %s: depends on the number of threads\n", row->name);
    for (int n = 0; n < 3; n++) { /* in place calls have overwritten what they were given: inputs are made again */
        op_inputs whole, one;
        kac_tensor single = {0};
        if (!CHECK_OK(op_case_prepare(&k->two, &three, &whole)) || !CHECK(op_case_one_image(&three, &whole, n, &one)) ||
            !CHECK_OK(op_case_call(&k->two, &alone, &one, &single)))
            return;
        if (!CHECK(op_case_same_bits(single, kac_tensor_slice(out, 0, n, 1))))
            printf("  %s: image %d alone differs\n", row->name, n);
    }
    const int64_t made = kac_onednn_primitives(&k->two);
    CHECK(made > 0 || !kac_onednn_has_products(&k->two));
    CHECK_OK(op_case_call(&k->two, &three, &in, &again));
    CHECK(kac_onednn_primitives(&k->two) == made);
}

int main(void) {
    if (kac_onednn_ops() == NULL) return CHECK_SKIP("this build has no oneDNN");
    for (int pass = 0; pass < 2; pass++) {
        const kac_dtype dtype = pass == 0 ? KAC_F32 : KAC_BF16;
        contexts k;
        if (!CHECK_OK(kac_ctx_open(&k.ref, &kac_ref_ops, dtype, 0, NULL)) ||
            !CHECK_OK(kac_ctx_open(&k.one, kac_onednn_ops(), dtype, 1, NULL)) ||
            !CHECK_OK(kac_ctx_open(&k.two, kac_onednn_ops(), dtype, 2, NULL)))
            return check_done();
        printf("%s: %s\n", kac_dtype_name(dtype), kac_onednn_has_products(&k.two) ? "oneDNN" : "the cpu slots");
        CHECK(dtype != KAC_F32 || kac_onednn_has_products(&k.two));
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) {
            const op_case *row = &op_cases[i];
            if ((row->op != KAC_OP_linear && row->op != KAC_OP_conv2d) || row->with & (ONLY_BENCH | WITH_LOW)) continue;
            check_values(&k, row);
            check_rows(&k, row);
        }
        kac_ctx_close(&k.ref);
        kac_ctx_close(&k.one);
        kac_ctx_close(&k.two);
    }
    return check_done();
}
