/* ImageReward (Xu et al. 2023): how well people would say a picture fits its prompt, about N(0, 1). */
#ifndef KAC_BLIP_REWARD_H
#define KAC_BLIP_REWARD_H

#include "reward/image_reward.h"

/* `path` is ImageReward.pt (or the same tensors as safetensors), or a folder with one of them; vocab.txt of bert-base-uncased lies beside
 * it. Score: (head(state of the first token) − 0.16717…) / 1.03333… . Prompts are cut to 35 tokens. */
kac_status kac_blip_reward_open(kac_image_reward *r, const char *path);

#endif
