/* The gradients of one op case by the tape: of L = Σ w · out with fixed pseudo-random w, by every floating-point input. */
#ifndef KAC_TESTS_OP_GRAD_H
#define KAC_TESTS_OP_GRAD_H

#include "tensor/tape.h"
#include "tests/util/op_case.h"

enum { OP_MAX_GRADS = OP_MAX_OTHERS + 7 };

typedef struct op_grads {
    int n;
    size_t grads_peak; /* of the tape's own arena, in the last call */
    const char *name[OP_MAX_GRADS];
    kac_tensor input[OP_MAX_GRADS];         /* views where the inputs are */
    kac_tensor grad[OP_MAX_GRADS];          /* f32, of the same geometry; zero before the first call */
    const kac_weight *packed[OP_MAX_GRADS]; /* of a weight: what `input` was packed to; else NULL */
} op_grads;

/* Whether the op and the types of this row have gradients at all. */
bool op_grad_exists(const op_case *row);
/* Lists the inputs and takes their gradients from c->run. */
kac_status op_grads_prepare(kac_ctx *c, const op_case *row, op_inputs *in, op_grads *g);
/* One forward and one backward; adds to g->grad. */
kac_status op_grads_call(kac_ctx *c, const op_case *row, const op_inputs *in, op_grads *g);
/* The weights w of out, f32 in c->run. */
kac_status op_grad_seed(kac_ctx *c, kac_tensor out, kac_tensor *seed);

#endif
