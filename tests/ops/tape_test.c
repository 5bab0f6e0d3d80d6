/* The tape: views, results put together from parts, uses that add up, refusals, segments, and bytes that a plan run foretells. */
#include "tensor/convert.h"
#include "tests/cases/ops.h"
#include "tests/check.h"
#include "tests/util/op_grad.h"

enum { WIDTH = 24, ROWS = 6 };

static kac_tensor filled(kac_ctx *c, uint32_t key, int64_t rows, int64_t width) {
    kac_tensor t;
    CHECK_OK(kac_take_make(&t, &c->run, KAC_F32, rows, width));
    if (!c->run.counting)
        kac_rng_normal(t.data, rows * width, (kac_key){.seed = 8, .purpose = KAC_PURPOSE_TEST, .step = key}, 0, 0);
    return t;
}

static kac_tensor zeros(kac_ctx *c, int64_t rows, int64_t width) {
    kac_tensor t;
    CHECK_OK(kac_take_make(&t, &c->run, KAC_F32, rows, width));
    if (!c->run.counting) memset(t.data, 0, kac_tensor_bytes(t));
    return t;
}

static double at(kac_tensor t, int64_t i) {
    return kac_element_load(t.data, t.dtype, kac_element_offset(&t, t.rank, i));
}

/* ---- parts and uses ---- */

/* y = [3 x_left, 5 x_right + 2 x_right], written half by half into one buffer; read whole. */
static kac_status halves(kac_ctx *c, kac_tensor *y, kac_tensor x) {
    kac_tensor whole, twice = {0};
    KAC_TRY(kac_take_make(&whole, &c->scratch, KAC_F32, ROWS, WIDTH));
    kac_tensor left = kac_tensor_slice(whole, 1, 0, WIDTH / 2),
               right = kac_tensor_slice(whole, 1, WIDTH / 2, WIDTH / 2);
    kac_tensor a = {0}, b = {0}, parts[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++) {
        KAC_TRY(kac_take_make(&parts[i], &c->scratch, KAC_F32, ROWS, WIDTH / 2));
        KAC_TRY(kac_copy(c, &parts[i], kac_tensor_slice(x, 1, i * WIDTH / 2, WIDTH / 2)));
    }
    KAC_TRY(kac_lincomb(c, &a, 1, &parts[0], &(double){3}, 1));
    KAC_TRY(kac_lincomb(c, &b, 2, (kac_tensor[]){parts[1], parts[1]}, (double[]){5, 2}, 1));
    KAC_TRY(kac_copy(c, &left, a));
    KAC_TRY(kac_copy(c, &right, b));
    KAC_TRY(kac_add(c, &twice, whole, whole));
    *y = twice;
    return KAC_OK;
}

static void test_parts(void) {
    kac_ctx c;
    kac_grad_tape t;
    CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 1, NULL));
    CHECK_OK(kac_tape_open(&t, &c, 0));
    kac_tensor x = filled(&c, 1, ROWS, WIDTH), dx = zeros(&c, ROWS, WIDTH), dy = filled(&c, 2, ROWS, WIDTH), y;
    CHECK_OK(kac_tape_watch(&t, x, dx));
    kac_tape_start(&t);
    CHECK_OK(halves(&c, &y, x));
    kac_tape_stop(&t);
    CHECK_OK(kac_tape_seed(&t, y, dy));
    CHECK_OK(kac_tape_replay(&t));
    for (int64_t i = 0; i < ROWS * WIDTH; i++)
        CHECK_NEAR(at(dx, i), 2 * (i % WIDTH < WIDTH / 2 ? 3 : 7) * at(dy, i), 1e-5);
    CHECK(t.grads.used == 0 && t.notes.used == 0 && t.n_nodes == 0 && t.n_entries == 0);
    kac_tape_close(&t);
    kac_ctx_close(&c);
}

static void test_refusals(void) {
    kac_ctx c;
    kac_grad_tape t;
    CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 1, NULL));
    CHECK_OK(kac_tape_open(&t, &c, 0));
    kac_tensor x = filled(&c, 1, ROWS, WIDTH), dx = zeros(&c, ROWS, WIDTH), y = {0}, other = {0};
    kac_tensor aside = filled(&c, 2, ROWS, WIDTH);
    CHECK_OK(kac_tape_watch(&t, x, dx));
    kac_tape_start(&t);
    CHECK_OK(kac_activate(&c, &other, aside, KAC_ACT_SILU)); /* does not depend on x */
    CHECK(t.n_entries == 0);
    CHECK_OK(kac_activate(&c, &y, x, KAC_ACT_SILU));
    CHECK(t.n_entries == 1);
    CHECK(kac_activate(&c, &y, y, KAC_ACT_SILU) == KAC_E_UNSUPPORTED);
    CHECK(strstr(kac_error(), "activate writes over a result") != NULL);
    CHECK(kac_activate(&c, &x, aside, KAC_ACT_SILU) == KAC_E_UNSUPPORTED);
    kac_tape_stop(&t);
    CHECK_OK(kac_tape_seed(&t, other, aside)); /* nothing to carry back */
    CHECK_OK(kac_tape_replay(&t));
    for (int64_t i = 0; i < ROWS * WIDTH; i++) CHECK(at(dx, i) == 0);
    kac_tape_close(&t);
    kac_ctx_close(&c);
}

/* ---- segments ---- */

typedef struct layer {
    const kac_weight *w;
    kac_tensor out, x;
    const int *row;
} layer;

/* out = w · gelu(w · norm(x)) + x, with a list on the host that must outlive the call. */
static kac_status run_layer(kac_ctx *c, const void *args) {
    const layer *m = args;
    kac_tensor h = {0}, inner = {0}, mixed = {0}, out = m->out;
    KAC_TRY(kac_layer_norm(c, &h, m->x, (kac_tensor){0}, (kac_tensor){0}, 1e-5));
    KAC_TRY(kac_linear(c, &inner, h, m->w, (kac_linear_opt){.act = KAC_ACT_GELU}));
    KAC_TRY(kac_gather(c, &mixed, inner, m->row, ROWS));
    return kac_linear(c, &out, mixed, m->w, (kac_linear_opt){.residual = m->x});
}

static kac_status run_layers(kac_ctx *c, kac_tensor *y, const kac_weight *w, kac_tensor x, int n_layers,
                             bool segments) {
    int row[ROWS];
    for (int i = 0; i < ROWS; i++) row[i] = (i + 1) % ROWS;
    const int *kept = segments ? kac_tape_keep(c, row, sizeof row) : row;
    for (int i = 0; i < n_layers; i++) {
        layer m = {.w = w, .x = x, .row = kept};
        KAC_TRY(kac_take_make(&m.out, &c->scratch, KAC_F32, ROWS, WIDTH));
        KAC_TRY(segments ? kac_segment(c, run_layer, &m, sizeof m, m.out) : run_layer(c, &m));
        x = m.out;
    }
    *y = x;
    memset(row, 0, sizeof row); /* who still reads the list now reads nonsense */
    return KAC_OK;
}

typedef struct measured {
    size_t scratch, grads;
    kac_tensor dx, dw;
} measured;

static measured backward(kac_ctx *c, int n_layers, bool segments) {
    kac_grad_tape t;
    kac_weight w;
    kac_tensor y = {0};
    measured m = {0};
    c->scratch.peak = 0;
    CHECK_OK(kac_tape_open(&t, c, 0));
    CHECK_OK(kac_weight_pack(c, &w, filled(c, 3, WIDTH, WIDTH), 1));
    kac_tensor x = filled(c, 1, ROWS, WIDTH), dy = filled(c, 2, ROWS, WIDTH);
    m.dx = zeros(c, ROWS, WIDTH), m.dw = zeros(c, WIDTH, WIDTH);
    CHECK_OK(kac_tape_watch(&t, x, m.dx));
    CHECK_OK(kac_tape_watch(&t, kac_weight_identity(&w), m.dw));
    kac_tape_start(&t);
    CHECK_OK(run_layers(c, &y, &w, x, n_layers, segments));
    kac_tape_stop(&t);
    CHECK_OK(kac_tape_seed(&t, y, dy));
    CHECK_OK(kac_tape_replay(&t));
    CHECK(t.grads.used == 0 && t.n_blocks == 0);
    m.scratch = c->scratch.peak;
    m.grads = t.grads.peak;
    kac_tape_close(&t);
    kac_arena_release(&c->scratch, 0);
    return m;
}

static void test_segments(void) {
    kac_ctx c, plan;
    CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 2, NULL));
    CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, KAC_F32, 2, NULL));
    const measured whole = backward(&c, 5, false), cut = backward(&c, 5, true);
    CHECK(op_case_same_bits(whole.dx, cut.dx) && op_case_same_bits(whole.dw, cut.dw));
    CHECK(at(cut.dx, 3) != 0 && at(cut.dw, 3) != 0);
    CHECK(cut.scratch < whole.scratch);
    const measured more = backward(&c, 15, true), much = backward(&c, 15, false);
    const size_t stored = (size_t)10 * ROWS * WIDTH * sizeof(float);
    CHECK(more.grads == cut.grads);               /* gradients: those of one segment */
    CHECK(more.scratch - cut.scratch == stored);  /* results of the ten more segments, nothing else */
    CHECK(much.scratch - whole.scratch > stored); /* every result */
    const measured planned = backward(&plan, 15, true);
    CHECK(planned.scratch == more.scratch && planned.grads == more.grads);
    kac_ctx_close(&c);
    kac_ctx_close(&plan);
}

/* ---- a plan run of every row ---- */

static kac_status run_row(kac_ctx *c, const op_case *row, op_grads *g) {
    op_inputs in;
    kac_arena *const arenas[] = {&c->model, &c->run, &c->scratch};
    for (int i = 0; i < 3; i++) {
        kac_arena_release(arenas[i], 0);
        arenas[i]->peak = 0;
    }
    KAC_TRY(op_case_prepare(c, row, &in));
    KAC_TRY(op_grads_prepare(c, row, &in, g));
    return op_grads_call(c, row, &in, g);
}

static void test_plan(void) {
    for (int pass = 0; pass < 4; pass++) {
        kac_ctx plan, cpu;
        const kac_dtype dtype = pass % 2 == 0 ? KAC_F32 : KAC_BF16;
        const int n_threads = pass < 2 ? 1 : 3;
        CHECK_OK(kac_ctx_open(&plan, &kac_plan_ops, dtype, n_threads, NULL));
        CHECK_OK(kac_ctx_open(&cpu, kac_cpu_ops(), dtype, n_threads, NULL));
        for (int i = 0; i < KAC_COUNT_OF(op_cases); i++) {
            op_grads planned, taken;
            if ((op_cases[i].with & ONLY_BENCH) != 0 || !op_grad_exists(&op_cases[i])) continue;
            if (!CHECK_OK(run_row(&plan, &op_cases[i], &planned)) || !CHECK_OK(run_row(&cpu, &op_cases[i], &taken)) ||
                !CHECK(plan.scratch.peak == cpu.scratch.peak && planned.grads_peak == taken.grads_peak))
                printf("  %s: scratch planned %zu, taken %zu\n", op_cases[i].name, plan.scratch.peak, cpu.scratch.peak);
        }
        kac_ctx_close(&plan);
        kac_ctx_close(&cpu);
    }
}

int main(void) {
    test_parts();
    test_refusals();
    test_segments();
    test_plan();
    return check_done();
}
