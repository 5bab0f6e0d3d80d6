/* Plain sampling with guidance: every step's mean is moved along the gradient of r(x0-hat(x)) (Dhariwal and Nichol 2021; Chung et al. 2023,
 * Diffusion posterior sampling). Nothing is weighed, so what the samples stand for is only near base × exp(lambda r): x0-hat is one point
 * where the posterior of x_0 has a spread, and steps are finite. The weighted methods (tds, das, fk with --gradient-scale) take the same
 * steps and correct for both. */
#include "samplers/guidance.h"
#include "samplers/methods.h"
#include <math.h>

static const kac_option_spec options[] = {KAC_OPTION_LAMBDA, KAC_OPTIONS_GUIDANCE("1", "score"), KAC_OPTIONS_END};

static kac_status sample(kac_swarm *s, kac_guidance *g, double lambda) {
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < n_steps; i_step++) {
        const bool guided = kac_guidance_wants(g, i_step);
        KAC_TRY(kac_swarm_predict(s, i_step));
        if (guided) KAC_TRY(kac_guidance_score(g, i_step));
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        KAC_TRY(kac_swarm_report(s, i_step, guided));
        KAC_TRY(kac_guidance_shift(g, i_step, lambda));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "dps needs a reward to follow; add --reward");
    kac_swarm s;
    kac_guidance g = {0};
    kac_status status = kac_swarm_init(&s, process, reward, events, seed);
    s.weightless = true;
    if (status == KAC_OK) status = kac_guidance_init(&g, &s, o, false);
    if (status == KAC_OK) status = sample(&s, &g, kac_options_real(o, "lambda"));
    for (int i = 0; status == KAC_OK && i < s.n_groups; i++) s.running_log_z[i] = NAN; /* there is no estimate */
    if (status == KAC_OK) kac_swarm_finish(&s, out);
    kac_guidance_free(&g);
    kac_swarm_free(&s);
    return status;
}

const kac_method kac_method_dps = {
    .name = "dps",
    .summary = "steps moved along the reward's gradient, unweighted",
    .options = options,
    .target = KAC_TARGET_HEURISTIC,
    .run = run,
    .needs_grad = kac_guidance_asked};
