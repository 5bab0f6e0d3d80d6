/* SVDD, soft value-based decoding (Li et al. 2024): a chain looks at M candidates for its next state and goes on from one of them, drawn by
 * exp(lambda v), v = r(x0-hat). The particles of a group are candidates of n / M chains, which do not see each other; those of the last step
 * are all kept.
 *
 * As published a chain forgets how good its candidates were, and what comes out is biased for any M. Carried, each chain has the weight
 * Π mean_m exp(lambda v_m) / exp(lambda v of the state before): particles with a nested proposal, so target and estimate of Z are those of
 * fk. The released code takes the best candidate instead of drawing one: --choice best. */
#include "base/base.h"
#include "samplers/candidates.h"
#include "samplers/methods.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    KAC_OPTION_LAMBDA,
    KAC_OPTION_CANDIDATES,
    {"choice", 0, KAC_OPT_CHOICE, "draw", 0, 0, "draw|best", NULL, "which candidate goes on; best: exact no more",
     false},
    {"carry", 0, KAC_OPT_BOOL, "true", 0, 0, NULL, NULL, "weigh chains by their candidates; off: as published, biased",
     false},
    KAC_OPTION_PRESET("paper|code", "as written, and as released (the best candidate goes on)"),
    KAC_OPTIONS_END};

#define PUBLISHED "carry=false candidates=20 particles=20 steps=50 eta=1 sampling-method=ddim cfg-scale=7.5"
static const kac_preset presets[] = {
    {"paper", "lambda=100 choice=draw " PUBLISHED}, {"code", "lambda=100 choice=best " PUBLISHED}, {NULL, NULL}};

typedef struct svdd {
    kac_swarm swarm;
    double lambda;
    int n_candidates;
    bool best, carry;
    double *scratch; /* [n_candidates] */
} svdd;

/* log_w of every candidate: its chain's, what its proposal left and its own; uncarried, its own alone. */
static void weigh(svdd *v) {
    kac_swarm *s = &v->swarm;
    for (int i = 0; i < s->n; i++) {
        const double value = v->lambda * s->rewards[i];
        s->log_w[i] = v->carry ? s->log_w[i] + value - s->memory[i] : value;
        s->memory[i] = value;
    }
}

/* Every chain goes on from one candidate, in all its slots, with the chain's weight. */
static kac_status select_all(svdd *v, int i_step) {
    kac_swarm *s = &v->swarm;
    for (int first = 0; first < s->n; first += v->n_candidates) {
        double *log_w = s->log_w + first;
        const int chosen = first % s->n_per_group + kac_candidates_choose(s, i_step, first, v->n_candidates,
                                                                          v->best ? NULL : log_w, v->scratch);
        const double chain_w = v->carry ? kac_log_weights_log_mean(log_w, v->n_candidates) : 0.0;
        for (int i = 0; i < v->n_candidates; i++) {
            s->ancestors[first + i] = chosen;
            log_w[i] = chain_w;
        }
    }
    return kac_swarm_move(s);
}

static kac_status sample(svdd *v) {
    kac_swarm *s = &v->swarm;
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < n_steps; i_step++) {
        KAC_TRY(kac_swarm_predict(s, i_step));
        KAC_TRY(kac_swarm_score(s, i_step, KAC_STAGE_PREDICTED));
        weigh(v);
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        KAC_TRY(select_all(v, i_step));
        KAC_TRY(kac_swarm_report(s, i_step, true));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    if (v->carry) weigh(v);
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status prepare(svdd *v, const kac_options *o) {
    KAC_TRY(kac_candidates_read(&v->n_candidates, &v->swarm, o));
    v->lambda = kac_options_real(o, "lambda");
    v->best = strcmp(kac_options_text(o, "choice"), "best") == 0;
    v->carry = kac_options_bool(o, "carry");
    v->scratch = kac_alloc((size_t)v->n_candidates * sizeof *v->scratch);
    return v->scratch == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "svdd needs a reward to choose by; add --reward");
    svdd v = {0};
    kac_status status = kac_swarm_init(&v.swarm, process, reward, events, seed);
    if (status == KAC_OK) status = prepare(&v, o);
    if (status == KAC_OK) status = sample(&v);
    for (int g = 0; status == KAC_OK && g < v.swarm.n_groups; g++)
        if (!v.carry || v.best) v.swarm.running_log_z[g] = NAN; /* there is no estimate */
    if (status == KAC_OK) kac_swarm_finish(&v.swarm, out);
    kac_swarm_free(&v.swarm);
    kac_free(v.scratch);
    return status;
}

const kac_method kac_method_svdd = {
    .name = "svdd",
    .summary = "chains that choose among candidates at every step",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_density = true,
    .presets = presets};
