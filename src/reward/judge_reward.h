/* The judge of coloured-shapes pictures as rewards. Pictures of another size are resized to 64 × 64 first. prepare fails with
 * KAC_E_USAGE for a prompt that names no shape. */
#ifndef KAC_JUDGE_REWARD_H
#define KAC_JUDGE_REWARD_H

#include "reward/image_reward.h"

/* 1 when the picture shows exactly what its prompt says, else 0. */
kac_status kac_judge_reward_open(kac_image_reward *r, const char *path);
/* The partial scores of judge.h: of everything stated, of the count, of the relation (which the prompt must state). */
kac_status kac_judge_share_reward_open(kac_image_reward *r, const char *path);
kac_status kac_judge_count_reward_open(kac_image_reward *r, const char *path);
kac_status kac_judge_relation_reward_open(kac_image_reward *r, const char *path);

#endif
