/* Scores pictures on disk, in batches; one that cannot be read or scored does not keep the others from it. */
#ifndef KAC_SCORE_PICTURES_H
#define KAC_SCORE_PICTURES_H

#include "reward/reward_set.h"

typedef struct kac_scored {
    char *path, *prompt; /* owned; prompt NULL: none known */
    char *error;         /* why there are no scores; NULL: they are there. Owned */
    double total, uncertainty, values[KAC_MAX_REWARDS];
} kac_scored;

typedef struct kac_score_hooks {
    void *self;
    void (*progress)(void *self, int n_done, int n); /* NULL: none */
} kac_score_hooks;

/* Fills error, or total, uncertainty and values, of every item; a running z is that of all of them. Fails as a whole when an outside scorer is
 * lost or memory is out, and with KAC_E_USAGE when a prompt is needed and no picture has one. */
kac_status kac_score_pictures(kac_scored *items, int n, kac_reward_set *set, const kac_score_hooks *hooks);
void kac_scored_free(kac_scored *item);

#endif
