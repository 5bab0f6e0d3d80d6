/* Best of n: plain samples, of which the reward chooses. As importance sampling: with log-weights lambda · r(x_0) the particles
 * stand for the target base × exp(lambda · r), and log Z is their log-mean; the ranking by reward does not depend on lambda. */
#include "samplers/methods.h"
#include "samplers/swarm.h"

static const kac_option_spec options[] = {KAC_OPTION_LAMBDA, KAC_OPTIONS_END};

static kac_status sample(kac_swarm *s, double lambda) {
    const int n_steps = s->process->n_steps;
    KAC_TRY(kac_swarm_run_plain(s));
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    for (int i = 0; i < s->n; i++) s->log_w[i] += lambda * s->rewards[i];
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "best-of-n needs a reward to choose by; add --reward");
    kac_swarm s;
    kac_status status = kac_swarm_init(&s, process, reward, events, seed);
    if (status == KAC_OK) status = sample(&s, kac_options_real(o, "lambda"));
    if (status == KAC_OK) kac_swarm_finish(&s, out);
    kac_swarm_free(&s);
    return status;
}

const kac_method kac_method_best_of_n = {
    .name = "best-of-n",
    .summary = "plain samples, ranked and weighed by their reward at the end",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run};
