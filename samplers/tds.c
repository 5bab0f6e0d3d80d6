/* Twisted diffusion sampler (Wu et al. 2023): particles propose with guidance, and are weighed at every step by the reward of x0-hat and by what
 * the guidance changed. */
#include "samplers/methods.h"
#include "samplers/twisted.h"

static const kac_option_spec options[] = {KAC_OPTION_LAMBDA,
                                          KAC_OPTIONS_GUIDANCE("1", "score"),
                                          KAC_OPTION_ESS_THRESHOLD("1"),
                                          KAC_OPTION_RESAMPLING("systematic"),
                                          KAC_OPTION_PRESET("paper", "of its class-conditional images, 100 steps"),
                                          KAC_OPTIONS_END};

static const kac_preset presets[] = {
    {"paper", "lambda=1 gradient-scale=1 gradient-form=score gradient-clip=0 ess-threshold=1 resampling=systematic "
              "particles=4 steps=100 sampling-method=ddpm"},
    {NULL, NULL}};

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    kac_twisted t;
    kac_status status = kac_twisted_init(&t, "tds", process, reward, events, o, seed);
    if (status == KAC_OK) status = kac_twisted_sample(&t);
    return kac_twisted_finish(&t, out, status);
}

const kac_method kac_method_tds = {
    .name = "tds",
    .summary = "twisted diffusion: guided particles, weighed and resampled at every step",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_density = true,
    .needs_grad = kac_guidance_asked,
    .presets = presets};
