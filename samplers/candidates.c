#include "samplers/candidates.h"
#include <kac/rng.h>

kac_status kac_candidates_read(int *n_candidates, const kac_swarm *s, const kac_options *o) {
    const int k = s->n_per_group;
    *n_candidates = kac_options_given(o, "candidates") ? (int)kac_options_int(o, "candidates") : k;
    if (k % *n_candidates != 0)
        return KAC_FAIL(KAC_E_USAGE, "--candidates %d does not divide the %d particles of a prompt", *n_candidates, k);
    return KAC_OK;
}

int kac_candidates_choose(const kac_swarm *s, int i_step, int first, int n, const double *log_w, double *scratch) {
    const kac_key key = {s->seed, KAC_PURPOSE_RESAMPLE, (uint32_t)i_step};
    int chosen = 0;
    if (log_w == NULL) {
        for (int i = 1; i < n; i++)
            if (s->rewards[first + i] > s->rewards[first + chosen]) chosen = i;
        return chosen;
    }
    kac_log_weights_normalise(scratch, log_w, n);
    const double u = kac_rng_uniform(key, kac_process_group_key(s->process, first / s->n_per_group),
                                     (uint32_t)(first % s->n_per_group));
    for (double sum = scratch[0]; chosen + 1 < n && sum <= u;) sum += scratch[++chosen];
    return chosen;
}

kac_status kac_candidates_check(const char *who, const kac_process *process, const kac_reward *reward) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "%s needs a reward to choose by; add --reward", who);
    if (process->store == NULL) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s puts states by, which this process cannot", who);
    return KAC_OK;
}

kac_status kac_candidates_draw(kac_swarm *s, int i_step, const int64_t *places, const uint64_t *keys, const int *slots,
                               int n) {
    kac_process *p = s->process;
    KAC_TRY(p->fetch(p, places, slots, n));
    p->rekey(p, slots, n, keys);
    KAC_TRY(p->step(p, i_step, slots, slots, n));
    KAC_TRY(p->predict(p, i_step + 1, slots, n));
    return kac_swarm_score_some(s, i_step, KAC_STAGE_PREDICTED, slots, n);
}
