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
 *     KAC_TRY(kac_chain_reward(&ch, totals, g));                // scaled to dL/dx0 by the caller
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
    int n_rows; /* the last row to run is n_rows − 1, and its x0-hat is the final state. 0: all, and the final state is x_0 */
    int begin; /* first row to run, from the states `start` [n, n_state]; 0: from noise. Later rows must not need history */
    const float *start;
    int same_start; /* so many neighbours begin with the same noise; 0, 1: each with its own */
} kac_chain_draw;

typedef struct kac_chain {
    kac_trainee *t;
    int n, n_rows;
    kac_chain_draw draw; /* of the last sampling; prompt copied */
    int *prompt;
    float *x;      /* [n_rows + 1, n, n_state]: the state before each row, and the final one */
    float *out;    /* [n_rows, n, n_state]: the network's output at each row; kept only while `keep_out` */
    float *x0;     /* [n, n_state] the final states */
    bool *inside;  /* [n_rows, n, n_state] where x0-hat was not clipped; NULL when the solver never clips */
    float *past;   /* [n_past, n, n_state] the solver's history, and on the way back its gradient */
    float *work;   /* [4, n, n_state] */
    double *level; /* [2, batch] timestep and c_in of one call */
    bool keep_out; /* set by the caller before sampling: for likelihood ratios */
} kac_chain;

typedef struct kac_chain_plan {
    const bool *keep; /* [n_rows] the gradient goes through the network at this row */
    bool stop_input;  /* DRTune: of a kept row it reaches θ but not the state that the network read */
    int first; /* nothing before this row gets a gradient (the state there is a constant): DRaFT-K, ReFL; 0: none */
    double
        kl; /* adds kl · mean over the state of (out − out of the base model)² at every kept row to each sample's loss, the base model's
                  output taken as a constant; 0: not. Needs θ in use to be t->values. */
} kac_chain_plan;

/* Memory for n samples (more than t->batch are split) of all rows. KAC_E_MEMORY. KAC_E_UNSUPPORTED: dynamic thresholding and learned
 * variances, whose rows are not linear. */
kac_status kac_chain_open(kac_chain *ch, kac_trainee *t, int n);
void kac_chain_close(kac_chain *ch); /* a zeroed one is fine */
/* KAC_E_NONFINITE names the sample. */
kac_status kac_chain_sample(kac_chain *ch, const kac_chain_draw *draw);
/* The rewards totals [n] of the final states; d_x0 [n, n_state] their gradients, NULL: not wanted. */
kac_status kac_chain_reward(kac_chain *ch, double *totals, float *d_x0);
/* What the base model says at every state of the rows that ran: out [n_rows, n, n_state]. θ in use is t->values afterwards. */
kac_status kac_chain_base(kac_chain *ch, float *out);
/* State of sample i before row i_row; i_row = n_rows: the final one. */
const float *kac_chain_state(const kac_chain *ch, int i_row, int i);
/* d_x0 [n, n_state] = dL/d x0. *kl_sum (NULL allowed) += the loss that plan->kl added. */
kac_status kac_chain_backward(kac_chain *ch, const kac_chain_plan *plan, const float *d_x0, double *kl_sum);

#endif
