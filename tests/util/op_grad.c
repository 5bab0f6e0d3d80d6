#include "tests/util/op_grad.h"

#include "tensor/convert.h"

static bool floating(kac_dtype dtype) {
    return dtype == KAC_F32 || dtype == KAC_BF16 || dtype == KAC_F16 || dtype == KAC_F64;
}

bool op_grad_exists(const op_case *row) {
    if (row->op == KAC_OP_timestep_embedding || row->op == KAC_OP_randn) return false;
    return row->op != KAC_OP_copy || (floating(row->from) && floating(row->into));
}

/* All memory between the first and the last number of a view, as the tape knows it. */
static kac_tensor span_of(kac_tensor t) {
    int64_t last = 0;
    for (int i = 0; i < t.rank; i++) last += (t.shape[i] - 1) * t.stride[i];
    return kac_tensor_make(t.data, t.dtype, last + 1);
}

static kac_status add(kac_ctx *c, op_grads *g, const char *name, kac_tensor input, const kac_weight *packed) {
    if (input.data == NULL || !floating(input.dtype)) return KAC_OK;
    const kac_tensor span = span_of(input);
    kac_tensor flat;
    KAC_TRY(kac_take(&flat, &c->run, KAC_F32, 1, span.shape));
    if (!c->run.counting) memset(flat.data, 0, kac_tensor_bytes(flat));
    g->name[g->n] = name;
    g->packed[g->n] = packed;
    g->input[g->n] = g->grad[g->n] = input;
    g->grad[g->n].data = flat.data;
    g->grad[g->n++].dtype = KAC_F32;
    return KAC_OK;
}

kac_status op_grads_prepare(kac_ctx *c, const op_case *row, op_inputs *in, op_grads *g) {
    static const char *const other[OP_MAX_OTHERS] = {"other 0", "other 1", "other 2", "other 3",
                                                     "other 4", "other 5", "other 6", "other 7"};
    *g = (op_grads){0};
    KAC_TRY(add(c, g, "x", in->x, NULL));
    for (int i = 0; i < OP_MAX_OTHERS; i++) KAC_TRY(add(c, g, other[i], in->other[i], NULL));
    KAC_TRY(add(c, g, "bias", in->bias, NULL));
    if (row->op != KAC_OP_modulate) KAC_TRY(add(c, g, "row bias", in->row_bias, NULL));
    KAC_TRY(add(c, g, "residual", in->residual, NULL));
    KAC_TRY(add(c, g, "low", in->low, NULL));
    KAC_TRY(add(c, g, "weight", in->weight, &in->w));
    return add(c, g, "up", in->up_weight, &in->up);
}

kac_status op_grad_seed(kac_ctx *c, kac_tensor out, kac_tensor *seed) {
    KAC_TRY(kac_take(seed, &c->run, KAC_F32, out.rank, out.shape));
    if (!c->run.counting)
        kac_rng_normal(seed->data, kac_tensor_count(*seed), (kac_key){.seed = 3, .purpose = KAC_PURPOSE_TEST}, 0, 0);
    return KAC_OK;
}

static kac_status forward_and_back(kac_grad_tape *t, const op_case *row, const op_inputs *in, op_grads *g) {
    kac_tensor out = {0}, seed;
    for (int i = 0; i < g->n; i++)
        KAC_TRY(kac_tape_watch(t, g->packed[i] != NULL ? kac_weight_identity(g->packed[i]) : span_of(g->input[i]),
                               span_of(g->grad[i])));
    kac_tape_start(t);
    const kac_status s = op_case_call(t->c, row, in, &out);
    kac_tape_stop(t);
    KAC_TRY(s);
    KAC_TRY(op_grad_seed(t->c, out, &seed));
    KAC_TRY(kac_tape_seed(t, out, seed));
    return kac_tape_replay(t);
}

kac_status op_grads_call(kac_ctx *c, const op_case *row, const op_inputs *in, op_grads *g) {
    op_case apart = *row; /* a tape refuses to write over inputs */
    apart.with &= ~(unsigned)IN_PLACE;
    kac_grad_tape t;
    KAC_TRY(kac_tape_open(&t, c, 0));
    const size_t mark = kac_arena_mark(&c->scratch);
    const kac_status s = forward_and_back(&t, &apart, in, g);
    kac_arena_release(&c->scratch, mark);
    g->grads_peak = t.grads.peak;
    kac_tape_close(&t);
    return s;
}
