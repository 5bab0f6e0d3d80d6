/* The second seam: how good a state is. A reward decodes what it needs itself, in batches, and never the same state
 * twice. */
#ifndef KAC_REWARD_H
#define KAC_REWARD_H

#include <kac/process.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef enum kac_stage {
    KAC_STAGE_PREDICTED, /* r(x0-hat(x)): the x0-hat beside a state that has been predicted */
    KAC_STAGE_FINAL      /* r(x_0) after the last step */
} kac_stage;

typedef struct kac_reward kac_reward;
struct kac_reward {
    void *self;
    const char *name; /* for reports, e.g. "clip=weights/shapes-clip" */
    /* out[i] = reward of slots[i]; higher is better. A value that is not finite is the caller's to reject
     * (KAC_E_NONFINITE). */
    kac_status (*score)(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out);
    /* The same values, and d out[i] / d x0-hat (or x_0) of each slot: d_state [n, process->n_state]. NULL: no gradient. */
    kac_status (*grad)(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out,
                       float *d_state);
};

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
