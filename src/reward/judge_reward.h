/* The judge of coloured-shapes pictures as a reward: 1 or 0. */
#ifndef KAC_JUDGE_REWARD_H
#define KAC_JUDGE_REWARD_H

#include "reward/image_reward.h"

/* Pictures of another size are resized to 64 × 64 first. prepare fails with KAC_E_USAGE for a prompt that names no shape. */
kac_status kac_judge_reward_open(kac_image_reward *r, const char *path);

#endif
