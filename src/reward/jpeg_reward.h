/* Size of the picture as a JPEG: the compressibility rewards of Black et al. 2023 (DDPO). The value is the true size; a file's size has no
 * derivative, so the derivative is that of a network fitted to sizes (model/jpeg_size.h). */
#ifndef KAC_JPEG_REWARD_H
#define KAC_JPEG_REWARD_H

#include "reward/image_reward.h"

/* + or − kB (1000 bytes) of the file that Pillow writes at quality 95; no prompt. dir: the network for the gradient; NULL: none. */
kac_status kac_incompressibility_reward_open(kac_image_reward *r, const char *dir);
kac_status kac_compressibility_reward_open(kac_image_reward *r, const char *dir);

#endif
