/* DSearch, dynamic search (Li et al. 2025, Dynamic search for inference-time alignment in diffusion models): a beam search over the reverse
 * chain. Of B beams in the end there are B·E at first; at each step every beam looks at M next states by r(x0-hat), goes on as the best of
 * them, and the worst beams are dropped:
 *     M = duplicate, or widen · duplicate · B·E / beams of now, with a probability that --search says for each step
 *     beams after step i of S = K − 1, by --drop:  exponential B·E (1/E)^(i/S)   linear B·E − i (B·E − B) / S
 *                                                  quadratic B + (B·E − B)(1 − i/S)²   sigmoid between the two; B after the last in any case
 * DSearch-R (--replace) drops none: the worst share become copies of others, drawn by exp(reward). The last step chooses nothing.
 *
 * Beams live in places of the process, side by side with their prompts; slots hold the candidates, as many at once as there are. So results do
 * not depend on the number of slots, and a step costs one evaluation for each candidate. */
#include "base/base.h"
#include "samplers/candidates.h"
#include "samplers/methods.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"beams", 0, KAC_OPT_INT, NULL, 1, 1000000, NULL, "B", "beams at the end (default: particles / duplicate)", false},
    {"duplicate", 0, KAC_OPT_INT, "5", 1, 1000000, NULL, "M", "candidates for each beam's next state", false},
    {"oversample", 0, KAC_OPT_REAL, "1", 1, 1000, NULL, "E",
     "times the beams at the start; particles must be as many as these", false},
    {"widen", 0, KAC_OPT_REAL, "1", 1, 1000, NULL, "W", "times the candidates at steps that --search picks", false},
    {"search", 0, KAC_OPT_CHOICE, "all", 0, 0, "all|uniform|linear|exponential", NULL,
     "which steps are widened: all, 7 of 10, or ever more", false},
    {"drop", 0, KAC_OPT_CHOICE, "none", 0, 0, "none|exponential|linear|quadratic|sigmoid", NULL,
     "how beams become fewer from step to step; none: all at the last", false},
    {"replace", 0, KAC_OPT_REAL, "0", 0, 0.99, NULL, "SHARE",
     "share of the beams that are replaced by copies of others at each step (DSearch-R; not with --oversample)", false},
    KAC_OPTION_PRESET("paper|replace", "DSearch and DSearch-R as their authors run them"),
    KAC_OPTIONS_END};

#define PUBLISHED "duplicate=5 widen=5 search=exponential steps=50 eta=1 sampling-method=ddim cfg-scale=7.5 "
static const kac_preset presets[] = {{"paper", PUBLISHED "beams=12 oversample=5 drop=exponential particles=60"},
                                     {"replace", PUBLISHED "beams=34 replace=0.03 particles=34"},
                                     {NULL, NULL}};

enum { SIGMOID_STEEP = 10 };

typedef struct dsearch {
    kac_swarm swarm; /* per beam: memory is its value, log_product its place; both at its number in the group */
    int n_beams, n_wide, duplicate;
    double widen, replace;
    const char *search, *drop;
    /* [n_slots], per beam of now at its number in the group */
    double *child_value;
    int *winner; /* slot of its best candidate in this pass; −1: none */
    int *order;  /* beams from best to worst */
    /* [n_slots], of one pass */
    int *slots, *of_slot; /* beam whose candidate a slot holds */
    int64_t *places;
    uint64_t *keys;
} dsearch;

/* ---- the plan of a run: beams and candidates at each step ---- */

static int beams_after(const dsearch *d, int i_step) {
    const int b = d->n_beams, wide = d->n_wide, last = d->swarm.process->n_steps - 2;
    if (i_step < 0) return wide;
    if (i_step >= last) return b;
    const double at = (double)i_step / (last + 1), more = wide - b;
    double n = wide;
    if (strcmp(d->drop, "exponential") == 0) n = wide * pow((double)b / wide, at);
    if (strcmp(d->drop, "linear") == 0) n = wide - at * more;
    if (strcmp(d->drop, "quadratic") == 0) n = b + more * (1 - at) * (1 - at);
    if (strcmp(d->drop, "sigmoid") == 0) n = b + more / (1 + exp(SIGMOID_STEEP * (at - 0.5)));
    return KAC_MAX(b, (int)n);
}

static int candidates_at(const dsearch *d, int i_step, int group) {
    const kac_swarm *s = &d->swarm;
    const int n = s->process->n_steps - 1;
    double chance = 1.0;
    if (strcmp(d->search, "uniform") == 0) chance = 0.7;
    if (strcmp(d->search, "linear") == 0) chance = (i_step + 10.0) / n;
    if (strcmp(d->search, "exponential") == 0) chance = 1.0 - exp(-(double)i_step / KAC_MAX(n / 3, 1));
    const kac_key key = {s->seed, KAC_PURPOSE_SEARCH, (uint32_t)i_step};
    if (kac_rng_uniform(key, kac_process_group_key(s->process, group), 0) >= chance) return d->duplicate;
    const double wide = d->widen * d->duplicate * d->n_wide / beams_after(d, i_step - 1);
    return (int)fmin(fmax(wide, d->duplicate), 1e6);
}

/* ---- one step ---- */

/* The slots of this pass: candidates first … of every group, as many as it has slots. */
static int fill_pass(dsearch *d, int i_step, int64_t first) {
    const kac_swarm *s = &d->swarm;
    const int beams = beams_after(d, i_step - 1);
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        const int group = i / s->n_per_group, m = candidates_at(d, i_step, group);
        const int64_t candidate = first + i % s->n_per_group;
        if (candidate >= (int64_t)beams * m) continue;
        const int beam = group * s->n_per_group + (int)(candidate / m);
        d->slots[n] = i;
        d->of_slot[n] = beam;
        d->places[n] = (int64_t)s->log_product[beam];
        d->keys[n++] = (uint64_t)candidate;
    }
    return n;
}

/* Beams' next states lie in the other half of their group's places. */
static int64_t place_of(const dsearch *d, int i_step, int beam) {
    const int k = d->swarm.n_per_group;
    return (int64_t)(beam / k * 2 + (i_step + 1) % 2) * k + beam % k;
}

/* Puts the best candidates so far by. */
static kac_status keep_winners(dsearch *d, int i_step, int n) {
    const kac_swarm *s = &d->swarm;
    for (int i = 0; i < s->n; i++) d->winner[i] = -1;
    for (int j = 0; j < n; j++) {
        const int beam = d->of_slot[j];
        if (s->rewards[d->slots[j]] <= d->child_value[beam]) continue;
        d->child_value[beam] = s->rewards[d->slots[j]];
        d->winner[beam] = d->slots[j];
    }
    int n_kept = 0;
    for (int i = 0; i < s->n; i++) {
        if (d->winner[i] < 0) continue;
        d->slots[n_kept] = d->winner[i];
        d->places[n_kept++] = place_of(d, i_step, i);
    }
    return s->process->store(s->process, d->slots, n_kept, d->places);
}

static kac_status look(dsearch *d, int i_step) {
    kac_swarm *s = &d->swarm;
    for (int i = 0; i < s->n; i++) d->child_value[i] = -INFINITY;
    for (int64_t first = 0;; first += s->n_per_group) {
        const int n = fill_pass(d, i_step, first);
        if (n == 0) return KAC_OK;
        KAC_TRY(kac_candidates_draw(s, i_step, d->places, d->keys, d->slots, n));
        KAC_TRY(keep_winners(d, i_step, n));
    }
}

/* order of the group's beams, the best first; equals in their order. */
static void sort_beams(dsearch *d, int first, int beams) {
    for (int i = 0; i < beams; i++) {
        int at = i;
        for (; at > 0 && d->child_value[first + d->order[first + at - 1]] < d->child_value[first + i]; at--)
            d->order[first + at] = d->order[first + at - 1];
        d->order[first + at] = i;
    }
}

/* The worst of the sorted beams become copies of the others. */
static void replace_worst(dsearch *d, int i_step, int first, int beams) {
    kac_swarm *s = &d->swarm;
    const int n_worst = (int)(d->replace * beams), rest = beams - n_worst;
    const kac_key key = {s->seed, KAC_PURPOSE_SEARCH, (uint32_t)i_step};
    for (int i = 0; i < rest; i++) s->shares[i] = d->child_value[first + d->order[first + i]];
    kac_log_weights_normalise(s->shares, s->shares, rest);
    for (int i = rest; i < beams; i++) {
        const double u = kac_rng_uniform(key, kac_process_group_key(s->process, first / s->n_per_group), 1 + i);
        int chosen = 0;
        for (double sum = s->shares[0]; chosen + 1 < rest && sum <= u;) sum += s->shares[++chosen];
        d->order[first + i] = d->order[first + chosen];
    }
}

/* Beams become the best children; slots beyond them show the same once more, for the events. */
static void select_beams(dsearch *d, int i_step) {
    kac_swarm *s = &d->swarm;
    const int k = s->n_per_group, before = beams_after(d, i_step - 1), after = beams_after(d, i_step);
    for (int first = 0; first < s->n; first += k) {
        sort_beams(d, first, before);
        replace_worst(d, i_step, first, before);
        for (int i = 0; i < k; i++) {
            const int parent = d->order[first + i % after];
            s->ancestors[first + i] = parent;
            s->resampled[first / k] |= parent != i;
            s->rewards[first + i] = s->memory[first + i] = d->child_value[first + parent];
            s->log_product[first + i] = (double)place_of(d, i_step, first + parent);
            s->counts[i] = s->eves[first + parent];
        }
        memcpy(s->eves + first, s->counts, (size_t)k * sizeof *s->eves);
    }
}

/* ---- the run ---- */

/* The first states and their predictions go to their places. */
static kac_status start_beams(dsearch *d) {
    kac_swarm *s = &d->swarm;
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        s->log_product[i] = (double)place_of(d, -1, i);
        if (i % s->n_per_group >= d->n_wide) continue;
        d->slots[n] = i;
        d->places[n++] = place_of(d, -1, i);
    }
    KAC_TRY(s->process->predict(s->process, 0, d->slots, n));
    return s->process->store(s->process, d->slots, n, d->places);
}

/* Every slot takes the last step of a beam, with noise of its own. */
static kac_status finish_beams(dsearch *d) {
    kac_swarm *s = &d->swarm;
    kac_process *p = s->process;
    const int k = s->n_per_group, beams = beams_after(d, p->n_steps - 2);
    for (int i = 0; i < s->n; i++) {
        d->places[i] = (int64_t)s->log_product[i / k * k + i % k % beams];
        d->keys[i] = (uint64_t)(i % k);
    }
    KAC_TRY(p->fetch(p, d->places, s->slots, s->n));
    p->rekey(p, s->slots, s->n, d->keys);
    return KAC_OK;
}

static kac_status sample(dsearch *d) {
    kac_swarm *s = &d->swarm;
    const int n_steps = s->process->n_steps;
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    if (i_step == 0) KAC_TRY(start_beams(d));
    for (; i_step < n_steps; i_step++) {
        const bool last = i_step == n_steps - 1;
        if (!last) KAC_TRY(look(d, i_step));
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        if (last)
            KAC_TRY(finish_beams(d));
        else
            select_beams(d, i_step);
        KAC_TRY(kac_swarm_report(s, i_step, !last));
        KAC_TRY(last ? kac_swarm_step(s, i_step) : kac_swarm_end_step(s, i_step));
    }
    KAC_TRY(kac_swarm_score(s, n_steps, KAC_STAGE_FINAL));
    KAC_TRY(kac_swarm_resample(s, n_steps, 0.0, KAC_RESAMPLE_SYSTEMATIC));
    return kac_swarm_report(s, n_steps, true);
}

static kac_status check(const dsearch *d) {
    if (d->n_wide > d->swarm.n_per_group)
        return KAC_FAIL(KAC_E_USAGE,
                        "%d beams × --oversample are %d at the start, more than the %d particles of a prompt",
                        d->n_beams, d->n_wide, d->swarm.n_per_group);
    if (d->replace > 0.0 && d->n_wide > d->n_beams)
        return KAC_FAIL(KAC_E_USAGE, "--replace keeps the number of beams; leave out --oversample");
    return KAC_OK;
}

static kac_status prepare(dsearch *d, const kac_options *o) {
    const size_t n = (size_t)d->swarm.n;
    const int k = d->swarm.n_per_group;
    d->duplicate = (int)kac_options_int(o, "duplicate");
    if (!kac_options_given(o, "duplicate")) d->duplicate = KAC_MIN(d->duplicate, k);
    d->n_beams = kac_options_given(o, "beams") ? (int)kac_options_int(o, "beams") : KAC_MAX(k / d->duplicate, 1);
    d->n_wide = (int)fmin(d->n_beams * kac_options_real(o, "oversample"), 1e9);
    d->widen = kac_options_real(o, "widen");
    d->replace = kac_options_real(o, "replace");
    d->search = kac_options_text(o, "search");
    d->drop = kac_options_text(o, "drop");
    KAC_TRY(check(d));
    d->child_value = kac_alloc(n * sizeof *d->child_value);
    d->winner = kac_alloc(n * sizeof *d->winner);
    d->order = kac_alloc(n * sizeof *d->order);
    d->slots = kac_alloc(n * sizeof *d->slots);
    d->of_slot = kac_alloc(n * sizeof *d->of_slot);
    d->places = kac_alloc(n * sizeof *d->places);
    d->keys = kac_alloc(n * sizeof *d->keys);
    const bool all = d->child_value != NULL && d->winner != NULL && d->order != NULL && d->slots != NULL &&
                     d->of_slot != NULL && d->places != NULL && d->keys != NULL;
    return all ? KAC_OK : KAC_E_MEMORY;
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    dsearch d = {0};
    KAC_TRY(kac_candidates_check("dsearch", process, reward));
    kac_status status = kac_swarm_init(&d.swarm, process, reward, events, seed);
    if (status == KAC_OK) status = prepare(&d, o);
    if (status == KAC_OK) status = sample(&d);
    for (int g = 0; status == KAC_OK && g < d.swarm.n_groups; g++)
        d.swarm.running_log_z[g] = NAN; /* there is no estimate */
    if (status == KAC_OK) kac_swarm_finish(&d.swarm, out);
    kac_swarm_free(&d.swarm);
    void *const all[] = {d.child_value, d.winner, d.order, d.slots, d.of_slot, d.places, d.keys};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

const kac_method kac_method_dsearch = {.name = "dsearch",
                                       .summary = "beam search: the best of several next states, and ever fewer beams",
                                       .options = options,
                                       .target = KAC_TARGET_MODE,
                                       .run = run,
                                       .needs_density = true,
                                       .presets = presets};
