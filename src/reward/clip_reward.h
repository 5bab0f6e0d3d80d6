/* Rewards that compare a CLIP's embedding of the picture with that of the prompt. The path is what clip_files.h reads. */
#ifndef KAC_CLIP_REWARD_H
#define KAC_CLIP_REWARD_H

#include "reward/image_reward.h"

/* cos(image, text). */
kac_status kac_clip_reward_open(kac_image_reward *r, const char *path);
/* The same times exp(logit_scale): log-odds between prompts; PickScore (Kirstain et al. 2023). */
kac_status kac_clip_logit_reward_open(kac_image_reward *r, const char *path);
/* 2.5 max(cos, 0). Source: Hessel et al. 2021, eq. 1 (without its "A photo depicts" before the prompt). */
kac_status kac_clipscore_reward_open(kac_image_reward *r, const char *path);
/* cos with HPSv2's own preprocessing, for HPS_v2_compressed.pt and HPS_v2.1_compressed.pt: in float, the longest side to 224, padded to a
 * square (Wu et al. 2023; hpsv2 1.2 with torchvision ≥ 0.17, which resizes with antialiasing). */
kac_status kac_hps_reward_open(kac_image_reward *r, const char *path);

#endif
