/* What rewards with networks have in common: pictures → pixels → features by ops on the backend, then a value of each picture's features on the
 * host. So a reward says each half once and has both its score and its gradient.
 *
 *     typedef struct my_reward { kac_network_reward net; … } my_reward;      // first
 *     kac_network_reward_init(r, &(kac_network_reward){&self->preprocess, size, features, value});
 */
#ifndef KAC_NETWORK_REWARD_H
#define KAC_NETWORK_REWARD_H

#include "reward/image_reward.h"
#include "reward/preprocess.h"

typedef struct kac_network_reward {
    const kac_preprocess *preprocess;
    int64_t size; /* of the network's input, a square */
    /* pixels [n, size, size, 3] f32 as the network wants them; out [n, width] f32, not taken yet. Ops only: a tape may record. */
    kac_status (*features)(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt);
    /* Of one picture's features [width]; its derivatives by them into d (NULL: not wanted). Not called in a plan run. */
    double (*value)(const kac_image_reward *r, const float *features, int64_t width, int prompt, float *d);
    /* May two prompts be in one call of features? NULL: any. */
    bool (*together)(const kac_image_reward *r, int prompt, int other);
} kac_network_reward;

/* r->self begins with a kac_network_reward, which is filled in by `net`; r->score and r->grad are set. */
void kac_network_reward_init(kac_image_reward *r, const kac_network_reward *net);

#endif
