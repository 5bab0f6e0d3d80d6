/* The multi-dimensional preference score (Zhang et al. 2024): logit scale times the cosine of the prompt's embedding and the picture's, which was
 * made looking at the words that matter for the condition. */
#ifndef KAC_MPS_REWARD_H
#define KAC_MPS_REWARD_H

#include "reward/image_reward.h"

/* A folder with the weights of MPS (its state dict; the published file is a whole pickled Python object, which is refused: save its
 * state_dict()), the config.json, preprocessor and tokenizer files of laion/CLIP-ViT-H-14-laion2B-s32B-b79K. The condition is that of "overall". */
kac_status kac_mps_reward_open(kac_image_reward *r, const char *path);

#endif
