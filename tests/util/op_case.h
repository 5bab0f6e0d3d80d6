/* One description of an op call, used by many drivers: fast backends against ref, the plan's bytes, gradients, the
 * bench.
 *
 *     op_inputs in;
 *     CHECK_OK(op_case_prepare(&c, row, &in));    // inputs in c->run, weight packed in c->model
 *     kac_tensor out = {0};
 *     CHECK_OK(op_case_call(&c, row, &in, &out)); // as often as wanted
 *
 * The rows are in tests/cases/ops.h. */
#ifndef KAC_TESTS_OP_CASE_H
#define KAC_TESTS_OP_CASE_H

#include "tensor/ops.h"

enum op_case_with {
    WITH_BIAS = 1,        /* linear, conv2d */
    WITH_RESIDUAL = 2,    /* linear, conv2d */
    WITH_ROW_BIAS = 4,    /* conv2d */
    WITH_INDEX = 8,       /* row_index, kv_row: image n uses row (2n + 1) mod rows */
    WITH_GEGLU = 16,      /* linear */
    WITH_VIEW = 32,       /* x (attention: q, k, v) is a slice of something larger */
    WITH_CAUSAL = 64,     /* attention */
    WITH_FLIP = 128,      /* timestep_embedding */
    WITH_SCALE = 256,     /* norms: gamma and beta; embedding: position */
    IN_PLACE = 512,       /* out is x; linear and conv2d: out is the residual */
    WITH_ROW_COEF = 1024, /* lincomb: a coefficient per image */
    MIXED_DTYPES =
        2048,       /* lincomb: every other term has the other dtype; linear, conv2d: residual and row bias have it */
    OTHER_X = 4096, /* x has the other dtype than c->dtype */
    ONLY_BENCH = 8192, /* too long for the tests */
    WITH_LOW = 16384   /* linear: a second product of rank `groups` in `rows` parts */
};

typedef struct op_case {
    const char *name;
    kac_op op;
    int64_t x[KAC_MAX_RANK]; /* shape of the first input, up to the first 0; timestep_embedding, randn: of out */
    int64_t to[2]; /* linear, conv2d: n_out; matmul_t: rows of b; attention: S; upsample, resample: h, w; concat: size
                      of b along axis; embedding: rows and width of the table */
    int kernel[2], stride, pad[4];
    int rows; /* of row_bias, kv, scale and shift; gather: indices taken */
    int groups; /* of group_norm; the rank of WITH_LOW */
    int axis, n_terms;
    kac_act act;
    kac_filter filter;
    kac_dtype from, into; /* copy */
    unsigned with;
} op_case;

enum { OP_MAX_IMAGES = 64, OP_MAX_OTHERS = KAC_MAX_TERMS };

typedef struct op_inputs {
    kac_tensor x, other[OP_MAX_OTHERS]; /* other: k, v; b; gamma, beta; scale, shift; further terms; table, position */
    kac_tensor bias, row_bias, residual, low;
    kac_weight w, up;
    kac_tensor weight, up_weight; /* as they were packed, for drivers that want them */
    int index[OP_MAX_IMAGES];
    double number[OP_MAX_IMAGES * KAC_MAX_TERMS]; /* coefficients, timesteps */
} op_inputs;

/* Inputs are pseudo-random, the same on every backend for a dtype. On a counting context nothing is filled. */
kac_status op_case_prepare(kac_ctx *c, const op_case *row, op_inputs *in);
kac_status op_case_call(kac_ctx *c, const op_case *row, const op_inputs *in, kac_tensor *out);

/* Inputs of image n alone (the rule of rows: its result must have the same bits). False: this op does not work by
 * image. */
bool op_case_one_image(const op_case *row, const op_inputs *in, int64_t n, op_inputs *one);

/* Ops that every backend computes to the same bits. */
bool op_case_exact(const op_case *row);

/* |a − b| / |b| over all entries, any dtypes; infinite where shapes differ. */
double op_case_distance(kac_tensor a, kac_tensor b);
bool op_case_same_bits(kac_tensor a, kac_tensor b);
kac_dtype op_case_other_dtype(kac_dtype dtype); /* f32 <-> bf16 */

#endif
