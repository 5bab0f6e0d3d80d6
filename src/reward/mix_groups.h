/* Groups of people, each with its own weights of the rewards: {"ann": {"clip": 2, "jpeg": -0.1}, "ben": {"clip": 1, "share": 3}}. */
#ifndef KAC_MIX_GROUPS_H
#define KAC_MIX_GROUPS_H

#include "reward/mix.h"

typedef struct kac_mix_groups {
    int n;
    double shares[KAC_MAX_GROUPS]; /* sum 1 */
    double weights[KAC_MAX_GROUPS][KAC_MAX_REWARDS];
} kac_mix_groups;

/* KAC_E_IO, KAC_E_FORMAT: says which group and key. */
kac_status kac_mix_groups_load(kac_mix_groups *g, const char *path, const kac_reward_spec *const *specs, int n);

/* totals [g->n] = Σ_i weights[k][i] · v[i] */
void kac_mix_groups_totals(double *totals, const kac_mix_groups *g, const double *v, int n);

#endif
