/* CLIPScore-type rewards (Hessel et al. 2021) from any CLIPModel folder with tokenizer and preprocessor_config.json. */
#ifndef KAC_CLIP_REWARD_H
#define KAC_CLIP_REWARD_H

#include "reward/image_reward.h"

/* cos(image, text); pictures go through the folder's own preprocessing (resize, centre crop, normalise). */
kac_status kac_clip_reward_open(kac_image_reward *r, const char *dir);
/* 2.5 max(cos, 0). Source: Hessel et al. 2021, eq. 1 (without its "A photo depicts" before the prompt). */
kac_status kac_clipscore_reward_open(kac_image_reward *r, const char *dir);
/* The same times exp(logit_scale). */
kac_status kac_clip_logit_reward_open(kac_image_reward *r, const char *dir);

#endif
