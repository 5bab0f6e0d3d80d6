/* A plan run takes from every arena exactly what the CPU backend takes, and counts the same work, for every row. */
#include "tests/cases/ops.h"
#include "tests/check.h"

static kac_status run_row(kac_ctx *c, const op_case *row, kac_tensor *out) {
    op_inputs in;
    kac_arena *const arenas[] = {&c->model, &c->run, &c->scratch};
    for (int i = 0; i < 3; i++) {
        kac_arena_release(arenas[i], 0);
        arenas[i]->peak = 0;
    }
    c->counts = (kac_counts){0};
    *out = (kac_tensor){0};
    KAC_TRY(op_case_prepare(c, row, &in));
    return op_case_call(c, row, &in, out);
}

static void check_arena(const op_case *row, const kac_arena *planned, const kac_arena *taken) {
    if (!CHECK(planned->used == taken->used && planned->peak == taken->peak))
        printf("  %s, %s arena: planned %zu (peak %zu), taken %zu (peak %zu)\n", row->name, taken->name, planned->used,
               planned->peak, taken->used, taken->peak);
}

static bool moves_data_only(kac_op op) {
    return op == KAC_OP_copy || op == KAC_OP_concat || op == KAC_OP_gather || op == KAC_OP_embedding ||
           op == KAC_OP_upsample_nearest;
}

static void check_row(kac_ctx *plan, kac_ctx *cpu, const op_case *row) {
    kac_tensor planned, taken;
    if (!CHECK_OK(run_row(plan, row, &planned)) || !CHECK_OK(run_row(cpu, row, &taken))) {
        printf("  %s\n", row->name);
        return;
    }
    check_arena(row, &plan->model, &cpu->model);
    check_arena(row, &plan->run, &cpu->run);
    check_arena(row, &plan->scratch, &cpu->scratch);
    CHECK(kac_tensor_same_shape(planned, taken) && planned.dtype == taken.dtype);
    CHECK(plan->counts.ops == cpu->counts.ops && plan->counts.flops == cpu->counts.flops &&
          plan->counts.bytes == cpu->counts.bytes);
    CHECK(plan->counts.ops >= 1 && plan->counts.bytes > 0);
    if (!CHECK(moves_data_only(row->op) || plan->counts.flops > 0)) printf("  %s: no flops\n", row->name);
}

/* 2 · M · N · K and the like, by hand. */
static void check_known_flops(kac_ctx *plan) {
    static const struct {
        const char *name;
        double flops;
    } known[] = {
        {"linear 257x130x333", 2.0 * 257 * 130 * 333},
        {"linear geglu odd", 2.0 * 15 * 20 * 74},
        {"conv 3x3 64->96 33x17", 2.0 * 33 * 17 * 96 * 64 * 9},
        {"conv 3x3 stride 2 odd right", 2.0 * 3 * 4 * 7 * 5 * 9},
        {"attention 200 d 40", 4.0 * 2 * 2 * 200 * 200 * 40},
    };
    for (int k = 0; k < KAC_COUNT_OF(known); k++)
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) {
            kac_tensor out;
            if (strcmp(op_cases[i].name, known[k].name) != 0) continue;
            CHECK_OK(run_row(plan, &op_cases[i], &out));
            CHECK_NEAR(plan->counts.flops, known[k].flops, 0);
        }
}

int main(void) {
    for (int pass = 0; pass < 4; pass++) {
        kac_ctx plan, cpu;
        const kac_dtype dtype = pass % 2 == 0 ? KAC_F32 : KAC_BF16;
        const int n_threads = pass < 2 ? 1 : 3;
        if (!CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, dtype, n_threads, NULL)) ||
            !CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), dtype, n_threads, NULL)))
            return check_done();
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++)
            if ((op_cases[i].with & ONLY_BENCH) == 0) check_row(&plan, &cpu, &op_cases[i]);
        check_known_flops(&plan);
        kac_ctx_close(&plan);
        kac_ctx_close(&cpu);
    }
    return check_done();
}
