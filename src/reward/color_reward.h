/* Targets for the picture's colours; no prompt. */
#ifndef KAC_COLOR_REWARD_H
#define KAC_COLOR_REWARD_H

#include "reward/image_reward.h"

/* brightness=T, T in 0 … 1: −|mean(Y) − T|, Y = 0.299 R + 0.587 G + 0.114 B of 0 … 1, over all pixels. */
kac_status kac_brightness_reward_open(kac_image_reward *r, const char *target);
/* color=#RRGGBB: −mean over pixels of ((R − r)² + (G − g)² + (B − b)²) / 3, all in 0 … 1. */
kac_status kac_color_reward_open(kac_image_reward *r, const char *target);

#endif
