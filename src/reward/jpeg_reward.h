/* Size of the picture as a JPEG: the compressibility rewards of Black et al. 2023 (DDPO). */
#ifndef KAC_JPEG_REWARD_H
#define KAC_JPEG_REWARD_H

#include "reward/image_reward.h"

/* + or − kB (1000 bytes) of the file that Pillow writes at quality 95; no prompt. */
kac_status kac_incompressibility_reward_open(kac_image_reward *r, const char *path);
kac_status kac_compressibility_reward_open(kac_image_reward *r, const char *path);

#endif
