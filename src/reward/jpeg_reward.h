/* Size of the picture as a JPEG: the compressibility rewards of Black et al. 2023 (DDPO). */
#ifndef KAC_JPEG_REWARD_H
#define KAC_JPEG_REWARD_H

#include "reward/image_reward.h"

/* kB (1000 bytes) at quality 95; needs no prompt. */
kac_status kac_jpeg_reward_open(kac_image_reward *r, const char *path);

#endif
