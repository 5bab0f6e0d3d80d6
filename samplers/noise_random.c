/* Random search over initial noise (Ma et al. 2025, Inference-time scaling for diffusion models beyond scaling denoising steps): fresh noises,
 * each sampled as ever, the best samples are kept. Sample i has the noise of particle i, so what is found does not depend on the number of
 * slots, and equals the best of that many samples by best-of-n. */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/noise_search.h"

static const kac_option_spec options[] = {KAC_OPTION_ROUNDS("8", "rounds of as many samples as there are particles"),
                                          KAC_OPTIONS_END};

typedef struct noise_random {
    kac_noise_search search;
    uint64_t *keys;   /* [n] of the slots in use */
    int64_t *numbers; /* [k] */
} noise_random;

static kac_status run_round(noise_random *m, int n_each) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_each);
    for (int i = 0; i < n_each; i++) m->numbers[i] = s->n_samples + i;
    for (int i = 0; i < n; i++) m->keys[i] = (uint64_t)m->numbers[i % n_each];
    p->rekey(p, s->slots, n, m->keys);
    KAC_TRY(p->start(p, s->slots, n));
    KAC_TRY(kac_noise_rollout(s, n_each, 0, p->n_steps));
    if (s->stopped) return KAC_OK;
    KAC_TRY(kac_noise_score(s, n_each, KAC_STAGE_FINAL));
    KAC_TRY(kac_noise_keep(s, n_each, m->numbers));
    return kac_noise_end_round(s, NULL, 0);
}

static kac_status sample(noise_random *m, kac_particles *out) {
    kac_noise_search *s = &m->search;
    const int n_steps = s->process->n_steps;
    m->keys = kac_alloc((size_t)s->n * sizeof *m->keys);
    m->numbers = kac_alloc((size_t)s->k * sizeof *m->numbers);
    if (m->keys == NULL || m->numbers == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_noise_check_budget(s, n_steps));
    KAC_TRY(kac_noise_start(s, NULL, 0));
    while (kac_noise_goes_on(s, n_steps)) KAC_TRY(run_round(m, (int)KAC_MIN(s->k, kac_noise_room(s) / n_steps)));
    return kac_noise_finish(s, NULL, 0, out);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    noise_random m = {0};
    const int64_t rounds = kac_options_int(o, "rounds");
    kac_status status = kac_noise_open(&m.search, "noise-random", process, reward, events, seed, rounds);
    if (status == KAC_OK) status = sample(&m, out);
    kac_noise_close(&m.search);
    kac_free(m.keys);
    kac_free(m.numbers);
    return status;
}

const kac_method kac_method_noise_random = {.name = "noise-random",
                                            .summary =
                                                "fresh noises until the budget is spent; the best samples are kept",
                                            .options = options,
                                            .target = KAC_TARGET_MODE,
                                            .run = run,
                                            .anytime = true};
