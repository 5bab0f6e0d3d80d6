/* Rewards of pictures as a kac_reward over the latent process: combined, each distinct state decoded and scored once. It has a gradient
 * when the process is guided. */
#ifndef KAC_LATENT_REWARD_H
#define KAC_LATENT_REWARD_H

#include "reward/reward_set.h"
#include "run/latent_process.h"

typedef struct kac_latent_reward kac_latent_reward;

/* The rewards stay the caller's. Prompts of the groups are prepared here, into c->run. */
kac_status kac_latent_reward_open(kac_latent_reward **out, kac_latent *l, kac_reward_set *rewards,
                                  const kac_latent_options *o);
void kac_latent_reward_close(kac_latent_reward *r); /* NULL allowed */
kac_reward *kac_latent_reward_of(kac_latent_reward *r);

/* What stands behind the last score of a slot: the single rewards [n] as they are, then the combined one and its uncertainty (NAN: the
 * combination has none). NULL when its present state was not scored. */
const double *kac_latent_reward_values(const kac_latent_reward *r, int slot);

int64_t kac_latent_reward_count(const kac_latent_reward *r);      /* pictures scored, once per reward */
int64_t kac_latent_reward_grad_count(const kac_latent_reward *r); /* pictures with gradients, once for all rewards */
double kac_latent_reward_grad_ms(const kac_latent_reward *r);     /* with the decoder, there and back */
double kac_latent_reward_ms(const kac_latent_reward *r);

#endif
