/* command=PROGRAM …: rewards of any program that speaks JSON, one object a line.
 *
 *     it says      {"protocol": 1}                                            once, when it is ready
 *     kac asks     {"id": 7, "images": [{"path": "/…/7-0.png", "prompt": "a cat"}, …]}
 *     it answers   {"id": 7, "rewards": [0.31, …]}                            or {"id": 7, "error": "why not"}
 *
 * Each image has "width" and "height" too. With "images": "png_base64" or "rgb_base64" (rows of R, G, B bytes) in its first line pictures
 * come in the line, under that key, instead of as PNG files, which are there until the answer. "batch": N asks for at most N at a time
 * (16). Other keys are ignored on both sides. Its standard error goes to ours; its input ends when it should end. It has --reward-timeout
 * to become ready and for each answer. */
#ifndef KAC_OUTSIDE_REWARD_H
#define KAC_OUTSIDE_REWARD_H

#include "reward/image_reward.h"

/* Starts the program (base/child.h says how a command is read), except in a rehearsal. */
kac_status kac_outside_reward_open(kac_image_reward *r, const char *command);

#endif
