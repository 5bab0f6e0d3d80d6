/* Feynman-Kac steering: sequential Monte Carlo over the reverse chain (Singhal et al. 2025; Del Moral 2004).
 *
 * At scoring steps each particle's weight is multiplied by a potential G of its rewards so far, r̂ = r(x0-hat(x)):
 *     difference  G = exp(lambda (r̂ − previous r̂)), the first previous being 0
 *     max         G = exp(lambda · largest r̂ so far)
 *     sum         G = exp(lambda · sum of r̂ so far)
 *     reward      G = exp(lambda r̂)
 * and the last one, at x_0 with its own reward r(x_0), is whatever makes the product exp(lambda r(x_0)). So all of them have the same
 * target, base × exp(lambda r) / Z, and the same unbiased estimate of Z; they differ in variance. Weights are carried until a
 * resampling, in the log domain. With --gradient-scale particles are proposed by guided steps and weighed by p / q besides, which changes
 * neither target nor estimate. */
#include "base/base.h"
#include "samplers/guidance.h"
#include "samplers/methods.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    KAC_OPTION_LAMBDA,
    {"potential", 0, KAC_OPT_CHOICE, "difference", 0, 0, "difference|max|sum|reward", NULL,
     "how rewards on the way weigh particles; all have the same target", false},
    {"ess-threshold", 0, KAC_OPT_REAL, "0.5", 0, 1, NULL, "X",
     "resample below X times the particles in effective size; 0 never, 1 always", false},
    {"resampling", 0, KAC_OPT_CHOICE, "systematic", 0, 0, KAC_RESAMPLE_CHOICES, NULL, "how ancestors are drawn", false},
    {"score-every", 0, KAC_OPT_INT, NULL, 1, 100000, NULL, "N", "score every N steps (default: a fifth of the steps)",
     false},
    {"score-start", 0, KAC_OPT_INT, NULL, 0, 100000, NULL, "STEP", "first step to score, from 0 (default: N)", false},
    {"score-end", 0, KAC_OPT_INT, NULL, 0, 100000, NULL, "STEP", "last step to score (default: the last but one)",
     false},
    {"score-steps", 0, KAC_OPT_LIST, NULL, 0, 100000, NULL, "LIST",
     "these steps instead, e.g. 5,10,20; the final samples are always scored", false},
    KAC_OPTIONS_GUIDANCE("0", "variance"),
    KAC_OPTION_PRESET("paper|launch|repository", "of the paper's samples, its launch script, the code's own defaults"),
    KAC_OPTIONS_END};

/* Singhal et al.: 100 ancestral DDIM steps of Stable Diffusion with ImageReward. That code's last potential and what it does between
 * resamplings are not taken over: the target stays exact. */
#define PUBLISHED                                                                                                      \
    "resampling=multinomial steps=100 eta=1 sampling-method=ddim particles=4 cfg-scale=7.5 gradient-scale=0"
static const kac_preset presets[] = {
    {"paper", "lambda=2 potential=max score-every=20 score-start=20 score-end=80 ess-threshold=0.5 " PUBLISHED},
    {"launch", "lambda=10 potential=max score-every=20 score-start=20 score-end=80 ess-threshold=1 " PUBLISHED},
    {"repository",
     "lambda=10 potential=difference score-every=5 score-start=5 score-end=30 ess-threshold=1 " PUBLISHED},
    {NULL, NULL}};

typedef enum potential { DIFFERENCE, MAX, SUM, REWARD } potential;

typedef struct fk {
    kac_swarm swarm;
    kac_guidance guidance;
    double lambda, threshold;
    potential kind;
    kac_scheme scheme;
    bool *scores; /* [n_steps] */
} fk;

static kac_status read_score_list(fk *f, const kac_options *o, int n_steps) {
    if (kac_options_given(o, "score-every") || kac_options_given(o, "score-start") || kac_options_given(o, "score-end"))
        return KAC_FAIL(KAC_E_USAGE,
                        "--score-steps says all steps; leave out --score-every, --score-start and --score-end");
    for (int i = 0; i < kac_options_count(o, "score-steps"); i++) {
        const int64_t step = kac_options_int_at(o, "score-steps", i);
        if (step < 0 || step >= n_steps)
            return KAC_FAIL(KAC_E_USAGE, "--score-steps has %lld; steps are 0 to %d", (long long)step, n_steps - 1);
        f->scores[step] = true;
    }
    return KAC_OK;
}

/* By default five times over a run, the last time at its end. x0-hat before the first steps says little, and that of the last state
 * is the final sample in the usual solvers: neither is worth a decoder call. */
static kac_status read_score_steps(fk *f, const kac_options *o, int n_steps) {
    if (kac_options_count(o, "score-steps") > 0) return read_score_list(f, o, n_steps);
    int64_t every = KAC_MAX(n_steps / 5, 1), end = n_steps - 2;
    if (kac_options_given(o, "score-every")) every = kac_options_int(o, "score-every");
    if (kac_options_given(o, "score-end")) end = KAC_MIN(kac_options_int(o, "score-end"), n_steps - 1);
    const int64_t start = kac_options_given(o, "score-start") ? kac_options_int(o, "score-start") : every;
    if (kac_options_given(o, "score-start") && start >= n_steps)
        return KAC_FAIL(KAC_E_USAGE, "--score-start is %lld; steps are 0 to %d", (long long)start, n_steps - 1);
    for (int64_t i = start; i <= end; i += every) f->scores[i] = true;
    return KAC_OK;
}

static potential find_potential(const char *name) {
    static const char *const names[] = {"difference", "max", "sum", "reward"};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(names[i], name) == 0) return (potential)i;
    KAC_ASSERT(!"one of the choices of --potential");
    return DIFFERENCE;
}

/* Multiplies every weight by its potential. */
static void weigh(fk *f, bool final) {
    kac_swarm *s = &f->swarm;
    for (int i = 0; i < s->n; i++) {
        const double r = s->rewards[i], before = s->memory[i];
        double log_g = f->lambda * r;
        if (f->kind == DIFFERENCE) {
            log_g = f->lambda * (r - before);
            s->memory[i] = r;
        } else if (final) {
            log_g = f->lambda * r - s->log_product[i];
        } else if (f->kind != REWARD) {
            s->memory[i] = f->kind == MAX ? fmax(before, r) : before + r;
            log_g = f->lambda * s->memory[i];
        }
        s->log_product[i] += log_g;
        s->log_w[i] += log_g;
    }
}

static kac_status sample(fk *f) {
    kac_swarm *s = &f->swarm;
    const int n_steps = s->process->n_steps;
    int i_step;
    for (int i = 0; i < s->n; i++) s->memory[i] = f->kind == MAX ? -INFINITY : 0.0;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < n_steps; i_step++) {
        const bool scored = f->scores[i_step];
        KAC_TRY(kac_swarm_predict(s, i_step));
        if (scored) {
            if (kac_guidance_wants(&f->guidance, i_step))
                KAC_TRY(kac_guidance_score(&f->guidance, i_step));
            else
                KAC_TRY(kac_swarm_score(s, i_step, KAC_STAGE_PREDICTED));
            weigh(f, false);
        }
        /* Only scoring steps resample: between them the ratios of a guided proposal would select against the guidance. */
        KAC_TRY(kac_swarm_resample(s, i_step, scored ? f->threshold : 0.0, f->scheme));
        KAC_TRY(kac_swarm_report(s, i_step, scored));
        KAC_TRY(kac_guidance_shift(&f->guidance, i_step, f->lambda));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    weigh(f, true);
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, f->scheme));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status prepare_and_sample(fk *f, const kac_options *o) {
    f->lambda = kac_options_real(o, "lambda");
    f->threshold = kac_options_real(o, "ess-threshold");
    f->kind = find_potential(kac_options_text(o, "potential"));
    f->scheme = kac_scheme_find(kac_options_text(o, "resampling"));
    f->scores = kac_alloc((size_t)f->swarm.process->n_steps * sizeof(bool));
    if (f->scores == NULL) return KAC_E_MEMORY;
    KAC_TRY(read_score_steps(f, o, f->swarm.process->n_steps));
    KAC_TRY(kac_guidance_init(&f->guidance, &f->swarm, o, true));
    return sample(f);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "fk needs a reward to steer by; add --reward");
    fk f = {0};
    kac_status status = kac_swarm_init(&f.swarm, process, reward, events, seed);
    if (status == KAC_OK) status = prepare_and_sample(&f, o);
    if (status == KAC_OK) kac_swarm_finish(&f.swarm, out);
    kac_guidance_free(&f.guidance);
    kac_swarm_free(&f.swarm);
    kac_free(f.scores);
    return status;
}

const kac_method kac_method_fk = {
    .name = "fk",
    .summary = "Feynman-Kac particles: weighted and resampled by rewards on the way",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_density = true,
    .needs_grad = kac_guidance_asked,
    .presets = presets};
