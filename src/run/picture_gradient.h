/* From a reward back to latents: decoded, clamped to what pixels can show, scored, combined; and the derivative of all of it. */
#ifndef KAC_PICTURE_GRADIENT_H
#define KAC_PICTURE_GRADIENT_H

#include "model/codec.h"
#include "reward/reward_set.h"

typedef enum kac_reward_balance {
    KAC_BALANCE_PLAIN, /* d total / d picture */
    KAC_BALANCE_NORM   /* each reward's derivative by the picture is divided by its own norm first (R0: Luo et al. 2025), then weighed */
} kac_reward_balance;

/* latents [n, h, w, C] f32 through the decoder; codec NULL: they are the pictures [n, H, W, 3 or 1] in −1 … 1, as decoders write them; outside of that range nothing
 * pulls. prompt [n]. values [n, n_rewards + 2]: single rewards, combined, uncertainty; running means take the values in, as after every scoring.
 * d_latents, of the latents' shape, is written: d combined[i] / d latents[i]. In batches of KAC_REWARD_BATCH pictures, or of what the rewards' batch
 * says: the same bits for any. Takes scratch and the tapes' own memory, and gives both back. KAC_E_UNSUPPORTED for a reward without a gradient
 * (kac_image_reward_grad) and for pictures that the decoder makes in tiles (codec.h); KAC_E_NONFINITE names the reward. */
kac_status kac_picture_gradient(kac_reward_set *s, kac_ctx *c, const kac_codec *codec, kac_tensor latents,
                                const int *prompt, kac_reward_balance balance, double *values, kac_tensor d_latents);

/* out: image [n, H, W, 3] as it is; [n, H, W, 1], greys, with the same in all three colours. A recorded operation. */
kac_status kac_picture_colors(kac_ctx *c, kac_tensor *out, kac_tensor image);

/* NULL when every reward has a gradient, else the name of the first that has none. */
const char *kac_reward_set_no_grad(const kac_reward_set *s);

#endif
