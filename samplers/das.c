/* DAS (Kim et al. 2025, Test-time alignment of diffusion models without reward over-optimization): tds whose twist grows with the steps, so that
 * early rewards of a blurred x0-hat select less. With n_steps K and j steps after the start of the tempering:
 *     exponential  min((1 + gamma)^j − 1, 1); gamma by default so that it is 1 after 0.87 K steps (published: 0.008 at K = 100)
 *     linear       min(gamma j, 1); gamma by default 1 / (0.87 K)
 */
#include "samplers/methods.h"
#include "samplers/twisted.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    KAC_OPTION_LAMBDA,
    KAC_OPTIONS_GUIDANCE("1", "variance"),
    KAC_OPTION_ESS_THRESHOLD("0.5"),
    KAC_OPTION_RESAMPLING("ssp"),
    {"tempering", 0, KAC_OPT_CHOICE, "exponential", 0, 0, "exponential|linear|none", NULL,
     "how the reward's share grows over the steps", false},
    {"tempering-rate", 0, KAC_OPT_REAL, NULL, 1e-9, 1e3, NULL, "GAMMA",
     "its rate for each step (default: full strength after 87 % of the steps)", false},
    {"tempering-start", 0, KAC_OPT_REAL, "0", 0, 1, NULL, "SHARE", "share of the steps before it grows", false},
    KAC_OPTION_PRESET("aesthetic|clip|pickscore", "for the reward of that name, 100 steps"),
    KAC_OPTIONS_END};

/* λ = 1 / KL coefficient; PickScore was taken without its logit scale of about 100. */
#define PUBLISHED                                                                                                      \
    " ess-threshold=0.5 resampling=ssp tempering=exponential tempering-rate=0.008 gradient-scale=1 "                   \
    "gradient-form=variance gradient-clip=0 steps=100 eta=1 sampling-method=ddim particles=4 cfg-scale=5"
static const kac_preset presets[] = {{"aesthetic", "lambda=200" PUBLISHED},
                                     {"clip", "lambda=100" PUBLISHED},
                                     {"pickscore", "lambda=100" PUBLISHED},
                                     {NULL, NULL}};

static void fill_temper(double *temper, int n_steps, const kac_options *o) {
    const char *kind = kac_options_text(o, "tempering");
    const bool exponential = strcmp(kind, "exponential") == 0;
    const double full = fmax(0.87 * n_steps, 1.0);
    double rate = exponential ? pow(2.0, 1.0 / full) - 1.0 : 1.0 / full;
    if (kac_options_given(o, "tempering-rate")) rate = kac_options_real(o, "tempering-rate");
    const int start = (int)(n_steps * kac_options_real(o, "tempering-start"));
    for (int i = 0; i < n_steps && strcmp(kind, "none") != 0; i++) {
        const double j = i > start ? i - start : 0;
        temper[i] = fmin(exponential ? pow(1.0 + rate, j) - 1.0 : rate * j, 1.0);
    }
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    kac_twisted t;
    kac_status status = kac_twisted_init(&t, "das", process, reward, events, o, seed);
    if (status == KAC_OK) fill_temper(t.temper, process->n_steps, o);
    if (status == KAC_OK) status = kac_twisted_sample(&t);
    return kac_twisted_finish(&t, out, status);
}

const kac_method kac_method_das = {
    .name = "das",
    .summary = "guided particles whose reward counts more from step to step",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_density = true,
    .needs_grad = kac_guidance_asked,
    .presets = presets};
