/* AdamW on one flat vector: decoupled weight decay, bias correction, warm-up and decay of the rate, clipping by the norm, a moving average.
 * Same bits for any number of threads. Source: Loshchilov and Hutter, Decoupled weight decay regularization, 2019; arithmetic in f32 as
 * torch.optim.AdamW. */
#ifndef KAC_OPTIMIZER_H
#define KAC_OPTIMIZER_H

#include "base/base.h"
#include <kac/status.h>

typedef enum kac_lr_schedule { KAC_LR_CONSTANT, KAC_LR_LINEAR, KAC_LR_COSINE } kac_lr_schedule;

typedef struct kac_optimizer_options {
    double lr, beta1, beta2, eps, weight_decay;
    double clip; /* of the gradient's L2 norm; 0: none */
    kac_lr_schedule schedule;
    int64_t warmup, total; /* updates: linear from 0, so that the first one has rate 0; the decay ends at `total` (0: never) */
    double ema;            /* decay of the average of θ, less in the first updates: (1 + u) / (10 + u) at most; 0: none */
} kac_optimizer_options;

typedef struct kac_optimizer {
    kac_optimizer_options o;
    int64_t n, update; /* numbers; updates done */
    float *m, *v;      /* [n] moments */
    float *ema;        /* [n]; NULL: none */
} kac_optimizer;

/* values [n]: where the average begins. KAC_E_MEMORY. */
kac_status kac_optimizer_open(kac_optimizer *opt, const kac_optimizer_options *o, const float *values, int64_t n);
void kac_optimizer_close(kac_optimizer *opt); /* a zeroed one is fine */
/* values are moved by grads, which are left scaled by the clipping. *norm: of the gradient before clipping; *lr: the rate used. KAC_E_NONFINITE
 * when the norm is no finite number: nothing was changed. */
kac_status kac_optimizer_step(kac_optimizer *opt, float *values, float *grads, double *norm, double *lr);

#endif
