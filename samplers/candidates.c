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
    const double u = kac_rng_uniform(key, (uint32_t)(first / s->n_per_group), (uint32_t)(first % s->n_per_group));
    for (double sum = scratch[0]; chosen + 1 < n && sum <= u;) sum += scratch[++chosen];
    return chosen;
}
