/* A batch of samples drawn step by step, and the way back: how a loss of the final states depends on θ.
 *
 * A row of the solver (samplers/solver.h) is linear in x, past[] and the network's output, so its adjoint is written out once for all
 * solvers; only the kept rows go through the network again. That is the explicit form of AlignProp, DRaFT, ReFL and DRTune: they differ in
 * which rows are kept (mask), whether the gradient goes on through the network's input, and where the chain begins and ends. Memory: the
 * states of all rows and one evaluation of the network, however many rows there are.
 *
 *     kac_chain ch;
 *     KAC_TRY(kac_chain_open(&ch, t, n));
 *     KAC_TRY(kac_chain_sample(&ch, &draw));                    // ch.x0 [n, n_state]
 *     KAC_TRY(t->reward(t, ch.x0, prompt, n, totals, g));       // scaled to dL/dx0 by the caller
 *     KAC_TRY(kac_chain_backward(&ch, &plan, g));               // t->grads += dL/dθ
 *     kac_chain_close(&ch);
 */
#ifndef KAC_CHAIN_H
#define KAC_CHAIN_H

#include "train/trainee.h"

typedef struct kac_chain_draw {
    const int *prompt; /* [n] */
    uint64_t seed;     /* sample i has the noise of slot first_slot + i under this seed */
    int first_slot;
    double cfg_scale;
    int n_rows; /* rows to run; the final state is then the x0-hat of the last of them. 0: all, and the final state is x_0 */
} kac_chain_draw;

typedef struct kac_chain {
    kac_trainee *t;
    int n, n_rows;
    kac_chain_draw draw; /* of the last sampling; prompt copied */
    int *prompt;
    float *x;   /* [n_rows + 1, n, n_state]: the state before each row, and x_0 */
    float *out; /* [n_rows, n, n_state]: the network's output at each row; kept only while `keep_out` */
    float *z;   /* [n_rows, n, n_state]: noise drawn; kept only while `keep_out` */
    float *x0;  /* [n, n_state] the final states: of x, or of the last row's x0-hat */
    float *past, *work; /* the solver's history; scratch */
    bool keep_out;      /* set by the caller before sampling: for likelihood ratios */
} kac_chain;

typedef struct kac_chain_plan {
    const bool *keep; /* [n_rows] the gradient goes through the network at this row */
    bool stop_input;  /* DRTune: of a kept row it reaches θ but not the state that the network read */
    int first;        /* nothing before this row gets a gradient (the state there is a constant): DRaFT-K, ReFL; 0: none */
    double kl; /* adds kl · mean over the state of (out − out of the base model)² at every kept row to each sample's loss; 0: not */
} kac_chain_plan;

/* Memory for n samples (more than t->batch are split) of all rows. KAC_E_MEMORY. */
kac_status kac_chain_open(kac_chain *ch, kac_trainee *t, int n);
void kac_chain_close(kac_chain *ch); /* a zeroed one is fine */
kac_status kac_chain_sample(kac_chain *ch, const kac_chain_draw *draw);
/* d_x0 [n, n_state] = dL/d x0. *kl_sum (NULL allowed) += the loss that plan->kl added. */
kac_status kac_chain_backward(kac_chain *ch, const kac_chain_plan *plan, const float *d_x0, double *kl_sum);

#endif
