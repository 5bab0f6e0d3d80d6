/* Importance sampling: independent rollouts, plain or guided, weighed at the end by exp(lambda r(x_0)) and by what the guidance changed. With
 * --gradient-scale 0 these are best-of-n's weights. */
#include "samplers/methods.h"
#include "samplers/twisted.h"

static const kac_option_spec options[] = {KAC_OPTION_LAMBDA, KAC_OPTIONS_GUIDANCE("0", "variance"), KAC_OPTIONS_END};

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    kac_twisted t;
    kac_status status = kac_twisted_init(&t, "is", process, reward, events, o, seed);
    t.late = true;
    if (status == KAC_OK) status = kac_twisted_sample(&t);
    return kac_twisted_finish(&t, out, status);
}

const kac_method kac_method_is = {
    .name = "is",
    .summary = "importance sampling: independent samples, plain or guided, with their weights",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_grad = kac_guidance_asked};
