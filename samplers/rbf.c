/* RBF, rollover budget forcing (Kim et al. 2025, Inference-time scaling for flow models via stochastic generation and rollover budget
 * forcing): one chain per prompt with N evaluations to spend. It starts at the best of some first states; then every step may draw
 * Q = (N − first states) / K next states, numbered. The first whose r(x0-hat) beats the best so far is taken, and what it left of Q rolls over
 * to the next step; if none does, the best of the step is taken. The last step but one, whose x0-hat is the sample, draws until all is spent.
 *
 * Candidates are drawn --at-once by --at-once; those behind the winner of such a batch count as spent and are not looked at: 1 is the
 * published rule. N is --nfe, or particles × steps. The results are the best candidates of the end, of which the best has all the weight. */
#include "base/base.h"
#include "samplers/candidates.h"
#include "samplers/methods.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {{"init", 0, KAC_OPT_INT, NULL, 1, 1000000, NULL, "N",
                                           "first states to choose from (default: a tenth of the budget)", false},
                                          {"at-once", 0, KAC_OPT_INT, "4", 1, 100000, NULL, "N",
                                           "candidates of a prompt that go through the network together; more than 1 "
                                           "is faster, and spends those behind the winner",
                                           false},
                                          KAC_OPTION_PRESET("paper", "250 evaluations for each picture in 10 steps"),
                                          KAC_OPTIONS_END};

static const kac_preset presets[] = {{"paper", "init=25 at-once=1 particles=25 steps=10"}, {NULL, NULL}};

/* log-weight of all but the best: nothing beside 0, and a number. */
static const double LOST = -1000.0;

/* A prompt's chain between steps. */
typedef struct chain {
    double best;    /* reward that must be beaten */
    int64_t quota;  /* of the next step */
    int64_t spent;  /* evaluations so far */
    int64_t n_kept; /* candidates of the last step that are put by */
} chain;

typedef struct rbf {
    kac_swarm swarm;       /* per kept candidate, the best first: memory is its reward, log_product its place */
    int64_t budget, share; /* N, Q */
    int n_init, at_once;
    chain *chains; /* [n_groups] */
    /* of this step */
    int64_t *drawn; /* [n_groups] */
    bool *done;     /* [n_groups] */
    /* of this pass, [n_slots] */
    int *slots;
    int64_t *places;
    uint64_t *keys;
} rbf;

/* ---- what is kept ---- */

/* The step's own half of the group's places. */
static int64_t place_of(const rbf *f, int i_step, int slot) {
    const int k = f->swarm.n_per_group;
    return (int64_t)(slot / k * 2 + (i_step + 1) % 2) * k + slot % k;
}

/* Among the best `most` of the step, or not. */
static kac_status keep(rbf *f, int i_step, int group, int slot, int most) {
    kac_swarm *s = &f->swarm;
    chain *c = &f->chains[group];
    const int first = group * s->n_per_group;
    double *value = s->memory + first, *place = s->log_product + first;
    const double reward = s->rewards[slot];
    if (c->n_kept == most && reward <= value[most - 1]) return KAC_OK;
    double free_place = c->n_kept < most ? (double)place_of(f, i_step, first + (int)c->n_kept) : place[most - 1];
    int at = c->n_kept < most ? (int)c->n_kept++ : most - 1;
    for (; at > 0 && value[at - 1] < reward; at--) value[at] = value[at - 1], place[at] = place[at - 1];
    value[at] = reward, place[at] = free_place;
    const int64_t to = (int64_t)free_place;
    return s->process->store(s->process, &slot, 1, &to);
}

/* ---- passes ---- */

/* The next candidates of all groups that are not done: their slots, numbers and the places they start from. */
static int fill_pass(rbf *f, const int64_t *parents) {
    const kac_swarm *s = &f->swarm;
    int n = 0;
    for (int g = 0; g < s->n_groups; g++) {
        const int64_t left = f->chains[g].quota - f->drawn[g];
        const int here = f->done[g] ? 0 : (int)KAC_MIN(left, KAC_MIN(f->at_once, s->n_per_group));
        for (int i = 0; i < here; i++) {
            f->slots[n] = g * s->n_per_group + i;
            f->places[n] = parents[g];
            f->keys[n++] = (uint64_t)(f->drawn[g] + i);
        }
    }
    return n;
}

/* Goes through the pass in the order of the candidates' numbers. */
static kac_status judge(rbf *f, int i_step, int n, bool may_stop, int most) {
    const kac_swarm *s = &f->swarm;
    for (int j = 0; j < n; j++) {
        const int group = f->slots[j] / s->n_per_group;
        chain *c = &f->chains[group];
        c->spent++;
        f->drawn[group]++;
        if (f->done[group]) continue;
        KAC_TRY(keep(f, i_step, group, f->slots[j], most));
        if (s->rewards[f->slots[j]] > c->best) {
            c->best = s->rewards[f->slots[j]];
            f->done[group] = may_stop;
        }
    }
    for (int g = 0; g < s->n_groups; g++) f->done[g] |= f->drawn[g] >= f->chains[g].quota;
    return KAC_OK;
}

static void begin_step(rbf *f, int64_t *parents) {
    const kac_swarm *s = &f->swarm;
    for (int g = 0; g < s->n_groups; g++) {
        parents[g] = (int64_t)s->log_product[g * s->n_per_group];
        f->drawn[g] = f->chains[g].n_kept = 0;
        f->done[g] = false;
    }
}

/* What the step left rolls over to the next one, which must leave one evaluation for each after it. */
static void end_step(rbf *f, int i_step, bool rolls) {
    const kac_swarm *s = &f->swarm;
    const int n_left = s->process->n_steps - 2 - i_step; /* steps with candidates to come */
    for (int g = 0; g < s->n_groups; g++) {
        chain *c = &f->chains[g];
        const int64_t all = f->budget - c->spent;
        c->quota = f->share + (rolls ? c->quota - f->drawn[g] : 0);
        c->quota = n_left <= 1 ? all : KAC_MAX(1, KAC_MIN(c->quota, all - (n_left - 1)));
    }
}

/* The first states: as a step whose candidates come from nowhere. */
static kac_status start_chains(rbf *f) {
    kac_swarm *s = &f->swarm;
    kac_process *p = s->process;
    const int most = p->n_steps == 1 ? s->n_per_group : 1;
    for (int g = 0; g < s->n_groups; g++) f->chains[g] = (chain){.best = -INFINITY, .quota = f->n_init};
    for (;;) {
        const int n = fill_pass(f, f->drawn); /* no parents */
        if (n == 0) break;
        p->rekey(p, f->slots, n, f->keys);
        KAC_TRY(p->start(p, f->slots, n));
        KAC_TRY(p->predict(p, 0, f->slots, n));
        KAC_TRY(kac_swarm_score_some(s, 0, KAC_STAGE_PREDICTED, f->slots, n));
        KAC_TRY(judge(f, -1, n, false, most));
    }
    end_step(f, -1, false);
    return KAC_OK;
}

static kac_status look(rbf *f, int i_step, int64_t *parents) {
    kac_swarm *s = &f->swarm;
    const bool last = i_step == s->process->n_steps - 2;
    begin_step(f, parents);
    for (;;) {
        const int n = fill_pass(f, parents);
        if (n == 0) break;
        KAC_TRY(kac_candidates_draw(s, i_step, f->places, f->keys, f->slots, n));
        KAC_TRY(judge(f, i_step, n, !last, last ? s->n_per_group : 1));
    }
    end_step(f, i_step, true);
    return KAC_OK;
}

/* ---- the run ---- */

/* Every slot shows a kept candidate, all of one parent. */
static void show(rbf *f) {
    kac_swarm *s = &f->swarm;
    for (int i = 0; i < s->n; i++) {
        const int first = i / s->n_per_group * s->n_per_group, n_kept = (int)f->chains[i / s->n_per_group].n_kept;
        s->memory[i] = s->memory[first + (i - first) % n_kept];
        s->log_product[i] = s->log_product[first + (i - first) % n_kept];
        s->rewards[i] = s->memory[i];
        s->ancestors[i] = 0;
        s->eves[i] = s->eves[first];
        s->resampled[i / s->n_per_group] = s->n_per_group > 1;
    }
}

static kac_status finish(rbf *f) {
    kac_swarm *s = &f->swarm;
    kac_process *p = s->process;
    for (int i = 0; i < s->n; i++) {
        f->places[i] = (int64_t)s->log_product[i];
        f->keys[i] = (uint64_t)(i % s->n_per_group);
    }
    KAC_TRY(p->fetch(p, f->places, s->slots, s->n));
    p->rekey(p, s->slots, s->n, f->keys);
    return KAC_OK;
}

static void weigh(kac_swarm *s) {
    for (int first = 0; first < s->n; first += s->n_per_group) {
        int best = first;
        for (int i = first; i < first + s->n_per_group; i++) {
            s->log_w[i] = LOST;
            if (s->rewards[i] > s->rewards[best]) best = i;
        }
        s->log_w[best] = 0.0;
    }
}

static kac_status sample(rbf *f, int64_t *parents) {
    kac_swarm *s = &f->swarm;
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    if (i_step == 0) {
        KAC_TRY(start_chains(f));
        show(f);
    }
    for (; i_step < n_steps; i_step++) {
        const bool last = i_step == n_steps - 1;
        if (!last) KAC_TRY(look(f, i_step, parents));
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        if (last)
            KAC_TRY(finish(f));
        else
            show(f);
        KAC_TRY(kac_swarm_report(s, i_step, !last));
        KAC_TRY(last ? kac_swarm_step(s, i_step) : kac_swarm_end_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    weigh(s);
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status read_budget(rbf *f, const kac_options *o) {
    const kac_swarm *s = &f->swarm;
    const int n_steps = s->process->n_steps;
    f->budget = (int64_t)s->n_per_group * n_steps;
    if (s->events != NULL && s->events->nfe > 0) f->budget = s->events->nfe;
    f->at_once = (int)kac_options_int(o, "at-once");
    f->n_init = (int)KAC_MIN(KAC_MAX(KAC_MIN(f->budget / 10, f->budget - n_steps + 1), 1), 1000000);
    if (kac_options_given(o, "init")) f->n_init = (int)kac_options_int(o, "init");
    if (f->n_init + n_steps - 1 > f->budget)
        return KAC_FAIL(KAC_E_USAGE, "rbf has %lld evaluations for each prompt; %d first states and %d steps need %d",
                        (long long)f->budget, f->n_init, n_steps, f->n_init + n_steps - 1);
    f->share = KAC_MAX((f->budget - f->n_init) / n_steps, 1);
    return KAC_OK;
}

static kac_status prepare_and_sample(rbf *f, const kac_options *o) {
    kac_swarm *s = &f->swarm;
    const size_t n = (size_t)s->n, n_groups = (size_t)s->n_groups;
    KAC_TRY(read_budget(f, o));
    f->chains = kac_alloc(n_groups * sizeof *f->chains);
    f->drawn = kac_alloc(n_groups * sizeof *f->drawn);
    f->done = kac_alloc(n_groups * sizeof *f->done);
    f->slots = kac_alloc(n * sizeof *f->slots);
    f->places = kac_alloc(n * sizeof *f->places);
    f->keys = kac_alloc(n * sizeof *f->keys);
    int64_t *parents = kac_alloc(n_groups * sizeof *parents);
    kac_status status = KAC_E_MEMORY;
    if (f->chains != NULL && f->drawn != NULL && f->done != NULL && f->slots != NULL && f->places != NULL &&
        f->keys != NULL && parents != NULL) {
        s->own = (kac_blob){"chains", f->chains, n_groups * sizeof *f->chains};
        status = sample(f, parents);
    }
    kac_free(parents);
    return status;
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    rbf f = {0};
    KAC_TRY(kac_candidates_check("rbf", process, reward));
    kac_status status = kac_swarm_init(&f.swarm, process, reward, events, seed);
    if (status == KAC_OK) status = prepare_and_sample(&f, o);
    for (int g = 0; status == KAC_OK && g < f.swarm.n_groups; g++)
        f.swarm.running_log_z[g] = NAN; /* there is no estimate */
    if (status == KAC_OK) kac_swarm_finish(&f.swarm, out);
    kac_swarm_free(&f.swarm);
    void *const all[] = {f.chains, f.drawn, f.done, f.slots, f.places, f.keys};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

const kac_method kac_method_rbf = {
    .name = "rbf",
    .summary = "one chain that draws each step until it improves, and saves what it need not spend",
    .options = options,
    .target = KAC_TARGET_MODE,
    .run = run,
    .needs_density = true,
    .presets = presets};
