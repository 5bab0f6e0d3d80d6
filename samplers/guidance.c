#include "samplers/guidance.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

bool kac_guidance_asked(const kac_options *o) {
    return kac_options_real(o, "gradient-scale") > 0.0;
}

static kac_guidance_form find_form(const char *name) {
    static const char *const names[] = {"score", "variance", "residual", "direction"};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(names[i], name) == 0) return (kac_guidance_form)i;
    KAC_ASSERT(!"one of the choices of --gradient-form");
    return KAC_GUIDE_SCORE;
}

kac_status kac_guidance_init(kac_guidance *g, kac_swarm *s, const kac_options *o, bool weighted) {
    *g = (kac_guidance){.swarm = s,
                        .form = find_form(kac_options_text(o, "gradient-form")),
                        .scale = kac_options_real(o, "gradient-scale"),
                        .clip = kac_options_given(o, "gradient-clip") ? kac_options_real(o, "gradient-clip")
                                : weighted                            ? 1.0
                                                                      : 0.15 * sqrt((double)s->process->n_state),
                        .start = kac_options_real(o, "gradient-start"),
                        .end = kac_options_real(o, "gradient-end"),
                        .weighted = weighted,
                        .scored = -1};
    if (g->scale == 0.0) return KAC_OK;
    if (weighted && !s->process->stochastic)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "guided steps can be weighed only where steps draw noise; take another "
                                           "--sampling-method or --eta, or --gradient-scale 0");
    if (s->process->pull == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "this process has no gradient; --gradient-scale 0 does without");
    if (s->reward->grad == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "the reward %s has no gradient to follow",
                        s->reward->name == NULL ? "" : s->reward->name);
    g->d_x0 = kac_alloc((size_t)s->n * (size_t)s->process->n_state * sizeof *g->d_x0);
    g->d_x = kac_alloc((size_t)s->n * (size_t)s->process->n_state * sizeof *g->d_x);
    return g->d_x0 == NULL || g->d_x == NULL ? KAC_E_MEMORY : KAC_OK;
}

void kac_guidance_free(kac_guidance *g) {
    kac_free(g->d_x0);
    kac_free(g->d_x);
    *g = (kac_guidance){0};
}

bool kac_guidance_wants(const kac_guidance *g, int i_step) {
    const kac_process *p = g->swarm->process;
    const double at = (double)i_step / p->n_steps;
    if (g->scale == 0.0 || at < g->start || at >= g->end) return false;
    const bool by_noise = g->weighted || g->form == KAC_GUIDE_VARIANCE || g->form == KAC_GUIDE_DIRECTION;
    return !by_noise || p->deviation(g->swarm->process, i_step) > 0.0;
}

static double norm_of(const float *v, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}

static kac_status check_finite(const kac_guidance *g, const float *rows, int i_step, const char *what) {
    const kac_swarm *s = g->swarm;
    const int64_t n = s->process->n_state;
    for (int i = 0; i < s->n; i++)
        if (!isfinite(norm_of(rows + i * n, n)))
            return KAC_FAIL(KAC_E_NONFINITE,
                            "the gradient of %s of particle %d of group %d is not finite at step %d of %d", what,
                            i % s->n_per_group, i / s->n_per_group, i_step, s->process->n_steps);
    return KAC_OK;
}

kac_status kac_guidance_score(kac_guidance *g, int i_step) {
    kac_swarm *s = g->swarm;
    KAC_TRY(s->reward->grad(s->reward, s->process, s->slots, s->n, KAC_STAGE_PREDICTED, s->rewards, g->d_x0));
    KAC_TRY(kac_swarm_check_rewards(s, i_step));
    for (int i = 0; i < s->n; i++) s->ancestors[i] = i % s->n_per_group;
    g->scored = i_step;
    return check_finite(g, g->d_x0, i_step, "the reward");
}

/* Gradients move with the particles that they belong to. */
static void follow(kac_guidance *g) {
    const kac_swarm *s = g->swarm;
    const size_t row = (size_t)s->process->n_state;
    for (int i = 0; i < s->n; i++) {
        const int from = i - i % s->n_per_group + s->ancestors[i];
        memcpy(g->d_x + (size_t)i * row, g->d_x0 + (size_t)from * row, row * sizeof *g->d_x);
    }
    float *moved = g->d_x;
    g->d_x = g->d_x0;
    g->d_x0 = moved;
}

/* What the gradient g of one particle is multiplied by. */
static kac_status factor_of(const kac_guidance *g, double *out, int i_step, int slot, double lambda) {
    kac_process *p = g->swarm->process;
    const double s = p->deviation(p, i_step), gain = p->gain(p, i_step);
    const double length = norm_of(g->d_x + slot * p->n_state, p->n_state);
    const double reward = g->swarm->rewards[slot - slot % p->n_per_group + g->swarm->ancestors[slot]];
    double factor = g->scale * lambda * gain;
    if (g->form == KAC_GUIDE_VARIANCE) factor = g->scale * lambda * s * s;
    if (g->form == KAC_GUIDE_DIRECTION) factor = length > 0.0 ? g->scale * s * sqrt((double)p->n_state) / length : 0.0;
    if (g->form == KAC_GUIDE_RESIDUAL) {
        if (reward > 0.0)
            return KAC_FAIL(KAC_E_USAGE,
                            "--gradient-form residual is for rewards that are minus a squared error; %s is %g",
                            g->swarm->reward->name, reward);
        factor = reward < 0.0 ? g->scale / sqrt(-reward) : 0.0;
    }
    const double most = g->clip * (g->weighted ? s : sqrt(fmax(gain, 0.0)));
    if (g->clip > 0.0 && fabs(factor) * length > most) factor = most / length * (factor < 0.0 ? -1.0 : 1.0);
    *out = factor;
    return KAC_OK;
}

kac_status kac_guidance_shift(kac_guidance *g, int i_step, double lambda) {
    kac_swarm *s = g->swarm;
    kac_process *p = s->process;
    if (!kac_guidance_wants(g, i_step)) return KAC_OK;
    if (g->scored != i_step) KAC_TRY(kac_guidance_score(g, i_step));
    follow(g);
    KAC_TRY(p->pull(p, i_step, s->slots, s->n, g->d_x0, g->d_x));
    KAC_TRY(check_finite(g, g->d_x, i_step, "the state"));
    for (int i = 0; i < s->n; i++) {
        double factor = 0.0;
        KAC_TRY(factor_of(g, &factor, i_step, i, lambda));
        float *row = g->d_x + i * p->n_state;
        for (int64_t j = 0; j < p->n_state; j++) row[j] = (float)(factor * (double)row[j]);
    }
    return p->shift(p, i_step, s->slots, s->n, g->d_x);
}
