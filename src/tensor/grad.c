/* What backward knows of an op: its inputs, its result, its slot. */
#include "ops.h"

kac_tensor kac_weight_identity(const kac_weight *w) {
    const int64_t shape[] = {w->n_out, w->n_in, w->kh, w->kw};
    return kac_tensor_of(w->data, w->dtype, w->kh > 0 ? 4 : 2, shape);
}

static int inputs_of_product(kac_op op, const void *args, kac_tensor in[KAC_MAX_TERMS]) {
    in[KAC_IN_ROW_BIAS] = in[KAC_IN_LOW] = in[KAC_IN_UP] = (kac_tensor){0};
    if (op == KAC_OP_linear) {
        const kac_linear_args *a = args;
        in[KAC_IN_X] = a->x;
        in[KAC_IN_BIAS] = a->o.bias;
        in[KAC_IN_RESIDUAL] = a->o.residual;
        in[KAC_IN_WEIGHT] = kac_weight_identity(a->w);
        if (a->o.low.x.data != NULL) {
            in[KAC_IN_LOW] = a->o.low.x;
            in[KAC_IN_UP] = kac_weight_identity(a->o.low.up);
        }
        return KAC_IN_UP + 1;
    }
    const kac_conv2d_args *a = args;
    in[KAC_IN_X] = a->x;
    in[KAC_IN_BIAS] = a->o.bias;
    in[KAC_IN_RESIDUAL] = a->o.residual;
    in[KAC_IN_WEIGHT] = kac_weight_identity(a->w);
    in[KAC_IN_ROW_BIAS] = a->o.row_bias;
    return KAC_IN_UP + 1;
}

static int inputs_of_terms(const kac_lincomb_args *a, kac_tensor in[KAC_MAX_TERMS]) {
    for (int t = 0; t < a->n_terms; t++) in[t] = a->x[t];
    return a->n_terms;
}

/* The argument structs of all other ops begin with out and then hold their inputs one after the other. */
static int n_inputs_of(kac_op op) {
    switch (op) {
    case KAC_OP_matmul_t:
    case KAC_OP_concat:
        return 2;
    case KAC_OP_attention:
    case KAC_OP_group_norm:
    case KAC_OP_layer_norm:
    case KAC_OP_affine:
    case KAC_OP_modulate:
        return 3;
    case KAC_OP_timestep_embedding:
    case KAC_OP_randn:
        return 0;
    default:
        return 1;
    }
}

int kac_op_inputs(kac_op op, const void *args, kac_tensor in[KAC_MAX_TERMS]) {
    if (op == KAC_OP_linear || op == KAC_OP_conv2d) return inputs_of_product(op, args, in);
    if (op == KAC_OP_lincomb) return inputs_of_terms(args, in);
    if (op == KAC_OP_embedding) {
        in[KAC_IN_TABLE] = ((const kac_embedding_args *)args)->table;
        in[KAC_IN_POSITION] = ((const kac_embedding_args *)args)->position;
        return 2;
    }
    const int n = n_inputs_of(op);
    for (int i = 0; i < n; i++) in[i] = ((const kac_tensor *)args)[1 + i];
    return n;
}

kac_tensor kac_op_output(kac_op op, const void *args) {
    (void)op;
    return *(const kac_tensor *)args; /* every argument struct begins with it */
}

kac_status kac_op_grad(kac_ctx *c, kac_op op, const void *args, const kac_grads *g) {
    switch (op) {
#define GRAD_CASE(name)                                                                                                \
    case KAC_OP_##name:                                                                                                \
        if (c->ops->name##_grad == NULL) break;                                                                        \
        c->counts.ops++;                                                                                               \
        return c->ops->name##_grad(c, args, g);
        KAC_GRAD_OPS(GRAD_CASE)
#undef GRAD_CASE
    default:
        break;
    }
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s has no gradient on the backend %s", kac_op_name(op), c->ops->name);
}
