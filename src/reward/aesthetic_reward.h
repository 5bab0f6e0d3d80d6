/* LAION's aesthetic predictors: how much people like a picture, about 1 … 10, from its CLIP ViT-L/14 embedding; no prompt. */
#ifndef KAC_AESTHETIC_REWARD_H
#define KAC_AESTHETIC_REWARD_H

#include "reward/image_reward.h"

/* CLIP+HEAD: what clip_files.h reads, and a file with the head (affine_head.h): sac+logos+ava1-l14-linearMSE.pth (v2; five linear layers
 * without activations, which are one vector) or sa_0_4_vit_l_14_linear.pth (v1), as published or as safetensors. Score: w · (embedding of length 1) + b. */
kac_status kac_aesthetic_reward_open(kac_image_reward *r, const char *path);

#endif
