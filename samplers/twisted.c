#include "samplers/twisted.h"
#include "base/base.h"

kac_status kac_twisted_init(kac_twisted *t, const char *who, kac_process *process, kac_reward *reward,
                            kac_events *events, const kac_options *o, uint64_t seed) {
    *t = (kac_twisted){.scheme = KAC_RESAMPLE_SYSTEMATIC};
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "%s needs a reward to steer by; add --reward", who);
    KAC_TRY(kac_swarm_init(&t->swarm, process, reward, events, seed));
    KAC_TRY(kac_guidance_init(&t->guidance, &t->swarm, o, true));
    t->lambda = kac_options_real(o, "lambda");
    if (kac_options_has(o, "ess-threshold")) t->threshold = kac_options_real(o, "ess-threshold");
    if (kac_options_has(o, "resampling")) t->scheme = kac_scheme_find(kac_options_text(o, "resampling"));
    t->temper = kac_alloc((size_t)(process->n_steps + 1) * sizeof *t->temper);
    if (t->temper == NULL) return KAC_E_MEMORY;
    for (int i = 0; i <= process->n_steps; i++) t->temper[i] = 1.0;
    return KAC_OK;
}

/* log_w += ψ' − ψ; what is remembered is ψ'. */
static void weigh(kac_twisted *t, int i_step) {
    kac_swarm *s = &t->swarm;
    for (int i = 0; i < s->n; i++) {
        const double twist = t->temper[i_step] * t->lambda * s->rewards[i];
        if (!t->drawn || i_step > 0) s->log_w[i] += twist - s->memory[i];
        s->memory[i] = twist;
    }
}

kac_status kac_twisted_sample(kac_twisted *t) {
    kac_swarm *s = &t->swarm;
    kac_guidance *g = &t->guidance;
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < n_steps; i_step++) {
        const bool scored = !t->late && t->temper[i_step] != 0.0;
        const double ahead = t->temper[i_step + 1] * t->lambda;
        KAC_TRY(kac_swarm_predict(s, i_step));
        if (scored) {
            if (kac_guidance_wants(g, i_step))
                KAC_TRY(kac_guidance_score(g, i_step));
            else
                KAC_TRY(kac_swarm_score(s, i_step, KAC_STAGE_PREDICTED));
            weigh(t, i_step);
        }
        KAC_TRY(kac_swarm_resample(s, i_step, scored ? t->threshold : 0.0, t->scheme));
        KAC_TRY(kac_swarm_report(s, i_step, scored));
        if (ahead != 0.0) KAC_TRY(kac_guidance_shift(g, i_step, ahead));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    weigh(t, n_steps);
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, t->scheme));
    return kac_swarm_report(s, n_steps, true);
}

kac_status kac_twisted_finish(kac_twisted *t, kac_particles *out, kac_status status) {
    if (status == KAC_OK) kac_swarm_finish(&t->swarm, out);
    kac_guidance_free(&t->guidance);
    kac_swarm_free(&t->swarm);
    kac_free(t->temper);
    return status;
}
