/* Plain sampling. A reward, when there is one, scores the results and changes nothing. */
#include "samplers/methods.h"
#include "samplers/swarm.h"

static const kac_option_spec options[] = {KAC_OPTIONS_END};

static kac_status sample(kac_swarm *s) {
    const int n_steps = s->process->n_steps;
    KAC_TRY(kac_swarm_run_plain(s));
    if (s->reward != NULL) KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, s->reward != NULL);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    (void)o;
    kac_swarm s;
    kac_status status = kac_swarm_init(&s, process, reward, events, seed);
    if (status == KAC_OK) status = sample(&s);
    if (status == KAC_OK) kac_swarm_finish(&s, out);
    kac_swarm_free(&s);
    return status;
}

const kac_method kac_method_none = {.name = "none",
                                    .summary = "plain samples of the model; a reward only scores them",
                                    .options = options,
                                    .target = KAC_TARGET_BASE,
                                    .run = run};
