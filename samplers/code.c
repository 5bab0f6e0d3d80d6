/* CoDe (Singh et al. 2025, CoDe: Blockwise Control for Denoising Diffusion Models): best of n, block by block. The particles of a group are
 * candidates of n / M chains. Every B steps a chain looks at r(x0-hat) of its M candidates and goes on from the best one, in all their
 * places; the last block is judged by the reward of the finished samples. With one block that is best-of-n.
 *
 * No law: whoever is best goes on, as published. --choice draw takes one by exp(lambda r) instead; still nothing is carried from block to
 * block, so that is only near base × exp(lambda r). */
#include "base/base.h"
#include "samplers/candidates.h"
#include "samplers/methods.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    KAC_OPTION_LAMBDA,
    {"block", 0, KAC_OPT_INT, "5", 1, 100000, NULL, "B", "steps of a block; candidates are compared at its end", false},
    KAC_OPTION_CANDIDATES,
    {"choice", 0, KAC_OPT_CHOICE, "best", 0, 0, "best|draw", NULL,
     "which candidate goes on: the best, or one drawn by exp(lambda reward)", false},
    KAC_OPTION_PRESET("paper", "blocks of 5 of 500 steps, 40 candidates"),
    KAC_OPTIONS_END};

static const kac_preset presets[] = {
    {"paper", "block=5 candidates=40 choice=best particles=40 steps=500 eta=1 sampling-method=ddim cfg-scale=5"},
    {NULL, NULL}};

/* log-weight of candidates that lost their last block: nothing beside 0, and a number. */
static const double LOST = -1000.0;

typedef struct code {
    kac_swarm swarm;
    double lambda;
    int block, n_candidates;
    bool best;
    double *scratch; /* [n_candidates] */
} code;

/* The candidate that the chain in slots first … goes on from. */
static int choose(code *c, int i_step, int first) {
    kac_swarm *s = &c->swarm;
    for (int i = first; i < first + c->n_candidates; i++) s->log_w[i] = c->lambda * s->rewards[i];
    return kac_candidates_choose(s, i_step, first, c->n_candidates, c->best ? NULL : s->log_w + first, c->scratch);
}

static kac_status choose_all(code *c, int i_step) {
    kac_swarm *s = &c->swarm;
    for (int first = 0; first < s->n; first += c->n_candidates) {
        const int chosen = choose(c, i_step, first);
        for (int i = first; i < first + c->n_candidates; i++) {
            s->ancestors[i] = first % s->n_per_group + chosen;
            s->log_w[i] = 0.0;
        }
    }
    return kac_swarm_move(s);
}

/* The finished candidates are all kept; weights say what a chain's choice among them would be. */
static void weigh(code *c) {
    kac_swarm *s = &c->swarm;
    for (int first = 0; first < s->n; first += c->n_candidates) {
        const int chosen = choose(c, s->process->n_steps, first);
        const double mean = kac_log_weights_log_mean(s->log_w + first, c->n_candidates);
        for (int i = first; i < first + c->n_candidates; i++)
            s->log_w[i] = !c->best ? s->log_w[i] - mean : i == first + chosen ? 0.0 : LOST;
    }
}

static kac_status sample(code *c) {
    kac_swarm *s = &c->swarm;
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < n_steps; i_step++) {
        const bool scored = i_step > 0 && i_step % c->block == 0;
        KAC_TRY(kac_swarm_predict(s, i_step));
        if (scored) KAC_TRY(kac_swarm_score(s, i_step, KAC_STAGE_PREDICTED));
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        if (scored) KAC_TRY(choose_all(c, i_step));
        KAC_TRY(kac_swarm_report(s, i_step, scored));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    weigh(c);
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status prepare(code *c, const kac_options *o) {
    KAC_TRY(kac_candidates_read(&c->n_candidates, &c->swarm, o));
    c->lambda = kac_options_real(o, "lambda");
    c->block = (int)kac_options_int(o, "block");
    c->best = strcmp(kac_options_text(o, "choice"), "best") == 0;
    c->scratch = kac_alloc((size_t)c->n_candidates * sizeof *c->scratch);
    return c->scratch == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "code needs a reward to choose by; add --reward");
    code c = {0};
    kac_status status = kac_swarm_init(&c.swarm, process, reward, events, seed);
    if (status == KAC_OK) status = prepare(&c, o);
    if (status == KAC_OK) status = sample(&c);
    for (int g = 0; status == KAC_OK && g < c.swarm.n_groups; g++)
        c.swarm.running_log_z[g] = NAN; /* there is no estimate */
    if (status == KAC_OK) kac_swarm_finish(&c.swarm, out);
    kac_swarm_free(&c.swarm);
    kac_free(c.scratch);
    return status;
}

const kac_method kac_method_code = {.name = "code",
                                    .summary = "best of n block by block: every few steps all go on from the best",
                                    .options = options,
                                    .target = KAC_TARGET_MODE,
                                    .run = run,
                                    .needs_density = true,
                                    .presets = presets};
