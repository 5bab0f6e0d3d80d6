/* What the methods have in common that follow the reward's gradient back through the chain; they differ in which rows they keep.
 *
 *     loss = mean over samples of L(total reward) + kl · (distance to the base model at the kept rows)
 *     L(r) = −r (reward), |r − target| (distance), max(0, target − r) (hinge) */
#ifndef KAC_TRAIN_PATHWISE_H
#define KAC_TRAIN_PATHWISE_H

#include "train/chain.h"
#include "train/trainer.h"

typedef enum kac_pathwise_loss { KAC_LOSS_REWARD, KAC_LOSS_DISTANCE, KAC_LOSS_HINGE } kac_pathwise_loss;

typedef struct kac_pathwise {
    kac_chain chain;
    bool *keep;  /* [n_steps] for the method to fill in */
    int *prompt; /* [batch] */
    double *totals;
    float *d_x0; /* [batch, n_state] */
    kac_pathwise_loss kind;
    double target, loss, kl; /* loss and kl: sums of this round */
    bool unit;
} kac_pathwise;

/* In the option table of each of these methods. */
#define KAC_PATHWISE_OPTIONS                                                                                           \
    {"loss",                                                                                                           \
     0,                                                                                                                \
     KAC_OPT_CHOICE,                                                                                                   \
     "reward",                                                                                                         \
     0,                                                                                                                \
     0,                                                                                                                \
     "reward|distance|hinge",                                                                                          \
     NULL,                                                                                                             \
     "-r, |r - target| (alignprop: target 10 of an aesthetic score), max(0, target - r) (refl: target 2 of "           \
     "ImageReward)",                                                                                                   \
     false},                                                                                                           \
        {"loss-target", 0, KAC_OPT_REAL, NULL, -1e9, 1e9, NULL, "X", "target of distance and hinge", false}, {         \
        "unit-gradient", 0, KAC_OPT_BOOL, "false", 0, 0, NULL, NULL,                                                   \
            "scale each sample's reward gradient to norm 1 at the final state", false                                  \
    }

kac_status kac_pathwise_open(kac_pathwise *p, kac_trainer *tr);
void kac_pathwise_close(kac_pathwise *p); /* a zeroed one is fine */
/* Draws part 0 … accum − 1 of the round's samples; n_rows as in kac_chain_draw. */
kac_status kac_pathwise_draw(kac_pathwise *p, kac_trainer *tr, int part, int n_rows);
/* Scores the chain's final states and adds `weight` times the gradient of their mean loss, as part of accum; keep is p->keep. */
kac_status kac_pathwise_pull(kac_pathwise *p, kac_trainer *tr, bool stop_input, int first, double weight);
/* The update after the last part. */
kac_status kac_pathwise_update(kac_pathwise *p, kac_trainer *tr);

#endif
