/* The algebra of rewards: the vector of single rewards r of one picture becomes one number.
 *
 *     kac_mix *m;
 *     KAC_TRY(kac_mix_open(&m, specs, n, "mean-std=1"));
 *     KAC_TRY(kac_mix_observe(m, values, n_pictures));          // only running z-scores need it
 *     KAC_TRY(kac_mix_total(m, &total, &uncertainty, values));  // of one picture
 *     KAC_TRY(kac_mix_grad(m, grad, values));                   // d total / d r
 *
 * u_i = the shapings of reward i applied to r_i; v_i = weight_i · u_i. Then by name:
 *
 *     sum              Σ v
 *     mean, min, max   over v, an ensemble
 *     softmin=T        −T ln mean e^(−v/T): min for T → 0, mean for T → ∞
 *     mean-std=K       mean − K · std                 pessimism about disagreement
 *     mean-var=K       mean − K · std²                Coste et al., Reward model ensembles help mitigate overoptimization, 2023
 *     robust=L         L · mean + (1 − L) · min       Yan et al., Reward-robust RLHF in LLMs, 2024
 *     shrink=K/REF     REF + (mean − REF) / (1 + K · std²): disagreement down-weights towards REF (0)
 *     product          Σ weight · ln u                product of experts; all u > 0, weights are exponents
 *     geometric        e^(Σ weight · ln u / Σ weight)
 *     worst-group=FILE min over groups of Σ a_gi v_i  pluralistic: every group of people has its own weights a
 *     mean-group=FILE  their mean by the groups' shares
 *
 * std is the population's (divided by n): the uncertainty that is reported with mean … shrink, over v, and with groups, over groups. */
#ifndef KAC_MIX_H
#define KAC_MIX_H

#include "reward/reward_spec.h"

enum { KAC_MAX_REWARDS = 16, KAC_MAX_GROUPS = 64 };

typedef struct kac_mix kac_mix;

/* combine: one of the above; NULL: "sum". The specs stay the caller's and must outlive it. FILE is JSON, {"GROUP": {"REWARD": weight, …}, …};
 * REWARD is a name ("clip") when only one reward has it, a label ("clip=DIR"), or a number from 1; "share" is the group's (1).
 * KAC_E_USAGE, KAC_E_IO, KAC_E_FORMAT. */
kac_status kac_mix_open(kac_mix **out, const kac_reward_spec *const *specs, int n, const char *combine);
void kac_mix_close(kac_mix *m); /* NULL allowed */

int kac_mix_count(const kac_mix *m);
/* True when totals come with an uncertainty. */
bool kac_mix_has_uncertainty(const kac_mix *m);

/* The running mean and deviation of every "z" take in these pictures; values [n_pictures, n]. */
kac_status kac_mix_observe(kac_mix *m, const double *values, int n_pictures);

/* uncertainty (NULL allowed) is NAN where the rule has none. KAC_E_NONFINITE: names the reward that is no number or outside its domain. */
kac_status kac_mix_total(const kac_mix *m, double *total, double *uncertainty, const double *values);

/* grad [n] = d total / d r_i; running means count as constants, of min and max the first one counts. */
kac_status kac_mix_grad(const kac_mix *m, double *grad, const double *values);

/* The running means, for stopping and going on: n_bytes is constant. NULL when there are none. */
void *kac_mix_state(kac_mix *m, size_t *n_bytes);

#endif
