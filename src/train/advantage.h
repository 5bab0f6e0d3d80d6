/* How much better a sample is than others: (r − mean) / deviation, over the samples of a round or over the last ones of the same prompt. */
#ifndef KAC_TRAIN_ADVANTAGE_H
#define KAC_TRAIN_ADVANTAGE_H

#include "train/trainer.h"

typedef struct kac_advantage {
    int n_prompts, size, least; /* of each prompt the last `size` rewards, used from `least` on; size 0: rounds only */
    double clip;
    double *seen; /* [n_prompts, 2 + size]: number known, place of the next, rewards */
    void *extra;  /* the method's, behind them */
    size_t n_bytes;
} kac_advantage;

#define KAC_ADVANTAGE_OPTIONS                                                                                          \
    {"track",                                                                                                          \
     0,                                                                                                                \
     KAC_OPT_INT,                                                                                                      \
     "16",                                                                                                             \
     0,                                                                                                                \
     100000,                                                                                                           \
     NULL,                                                                                                             \
     "N",                                                                                                              \
     "compare with the last N rewards of the same prompt (published: 16 and 32); 0: with this round's samples",        \
     false},                                                                                                           \
        {"track-least", 0,   KAC_OPT_INT,                                                                              \
         "16",          1,   100000,                                                                                   \
         NULL,          "N", "prompts with fewer known rewards are compared with this round's samples",                \
         false},                                                                                                       \
    {                                                                                                                  \
        "advantage-clip", 0, KAC_OPT_REAL, "5", 1e-6, 1e9, NULL, "X", "advantages are clamped to ± X", false           \
    }

/* extra_bytes: what else the method remembers, so that its state is one piece. */
kac_status kac_advantage_open(kac_advantage *a, const kac_trainer *tr, size_t extra_bytes);
void kac_advantage_close(kac_advantage *a);
/* Takes in the rewards of a round and gives the advantages of its samples. */
void kac_advantage_take(kac_advantage *a, const double *rewards, const int *prompt, int n, double *advantages);
/* What it and the method remember over rounds. */
void *kac_advantage_state(const kac_advantage *a, size_t *n_bytes);

#endif
