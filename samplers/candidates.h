/* Chains that look at candidates for their next state: a run of a group's particles are candidates of one chain. */
#ifndef KAC_SAMPLERS_CANDIDATES_H
#define KAC_SAMPLERS_CANDIDATES_H

#include "samplers/swarm.h"

#define KAC_OPTION_CANDIDATES                                                                                          \
    {                                                                                                                  \
        "candidates", 0, KAC_OPT_INT, NULL, 1, 1000000, NULL, "M",                                                     \
            "of each chain; --particles is a multiple of it (default: all particles, one chain)", false                \
    }

/* What --candidates says of a swarm; KAC_E_USAGE when it does not divide the particles. */
kac_status kac_candidates_read(int *n_candidates, const kac_swarm *s, const kac_options *options);

/* Which of the n candidates in slots first … goes on, from 0: one drawn by its log-weight in log_w [n], or, when that is NULL, the best by
 * reward (the first of equals). scratch: n doubles. */
int kac_candidates_choose(const kac_swarm *s, int i_step, int first, int n, const double *log_w, double *scratch);

/* For methods whose states lie in places of the process: refuses a process without search and a missing reward; `who` needs them. */
kac_status kac_candidates_check(const char *who, const kac_process *process, const kac_reward *reward);

/* slots[j] becomes the next state after the one at places[j], which was predicted at i_step, by the noise of keys[j]; it is predicted and scored
 * (swarm.rewards). Each slot at most once. */
kac_status kac_candidates_draw(kac_swarm *s, int i_step, const int64_t *places, const uint64_t *keys, const int *slots,
                               int n);

#endif
