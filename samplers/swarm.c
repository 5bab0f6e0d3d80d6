#include "samplers/swarm.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

static kac_status take_doubles(double **out, int n) {
    *out = kac_alloc((size_t)n * sizeof **out);
    return *out != NULL ? KAC_OK : KAC_E_MEMORY;
}

static kac_status take_ints(int **out, int n) {
    *out = kac_alloc((size_t)n * sizeof **out);
    return *out != NULL ? KAC_OK : KAC_E_MEMORY;
}

static kac_status allocate(kac_swarm *s) {
    double **per_slot[] = {&s->log_w, &s->log_product, &s->memory, &s->rewards, &s->weights_before};
    double **per_group[] = {&s->log_z, &s->ess, &s->running_log_z};
    int **indices[] = {&s->eves, &s->ancestors, &s->slots, &s->from, &s->to};
    for (int i = 0; i < KAC_COUNT_OF(per_slot); i++) KAC_TRY(take_doubles(per_slot[i], s->n));
    for (int i = 0; i < KAC_COUNT_OF(per_group); i++) KAC_TRY(take_doubles(per_group[i], s->n_groups));
    for (int i = 0; i < KAC_COUNT_OF(indices); i++) KAC_TRY(take_ints(indices[i], s->n));
    KAC_TRY(take_ints(&s->counts, s->n_per_group));
    KAC_TRY(take_doubles(&s->shares, s->n_per_group));
    KAC_TRY(take_doubles(&s->sums, s->n_per_group));
    s->resampled = kac_alloc((size_t)s->n_groups * sizeof(bool));
    if (s->resampled == NULL) return KAC_E_MEMORY;
    return KAC_OK;
}

kac_status kac_swarm_init(kac_swarm *s, kac_process *process, kac_reward *reward, kac_events *events, uint64_t seed) {
    *s = (kac_swarm){.process = process,
                     .reward = reward,
                     .events = events,
                     .seed = seed,
                     .n_groups = process->n_groups,
                     .n_per_group = process->n_per_group,
                     .n = process->n_groups * process->n_per_group};
    KAC_TRY(allocate(s));
    for (int i = 0; i < s->n; i++) {
        s->slots[i] = i;
        s->eves[i] = s->ancestors[i] = i % s->n_per_group;
        s->rewards[i] = NAN;
    }
    return KAC_OK;
}

void kac_swarm_free(kac_swarm *s) {
    void *const all[] = {s->log_w,  s->log_product, s->memory,    s->rewards,   s->weights_before, s->log_z,
                         s->ess,    s->eves,        s->ancestors, s->slots,     s->from,           s->to,
                         s->counts, s->shares,      s->sums,      s->resampled, s->state,          s->running_log_z};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    *s = (kac_swarm){0};
}

/* Everything that a run needs to go on, in the order of the blobs' names. */
static int collect_blobs(kac_swarm *s, kac_blob blobs[7]) {
    const size_t per_slot = (size_t)s->n * sizeof(double);
    blobs[0] = (kac_blob){"log_weights", s->log_w, per_slot};
    blobs[1] = (kac_blob){"log_products", s->log_product, per_slot};
    blobs[2] = (kac_blob){"memory", s->memory, per_slot};
    blobs[3] = (kac_blob){"log_z", s->log_z, (size_t)s->n_groups * sizeof(double)};
    blobs[4] = (kac_blob){"eves", s->eves, (size_t)s->n * sizeof(int)};
    int n = 5;
    if (s->own.data != NULL) blobs[n++] = s->own;
    blobs[n++] = (kac_blob){"process", s->state, s->state_bytes};
    return n;
}

static kac_status check_restored(const kac_swarm *s, int i_step) {
    bool good = i_step <= s->process->n_steps;
    for (int i = 0; i < s->n; i++)
        good = good && s->eves[i] >= 0 && s->eves[i] < s->n_per_group && isfinite(s->log_w[i]);
    if (good) return KAC_OK;
    return KAC_FAIL(KAC_E_FORMAT,
                    "the checkpoint does not belong to this run or is damaged; start again without --resume");
}

kac_status kac_swarm_start(kac_swarm *s, int *i_step) {
    *i_step = 0;
    if (s->process->state_bytes != NULL && s->events != NULL && s->events->on_restore != NULL) {
        kac_blob blobs[7];
        const int n = collect_blobs(s, blobs);
        KAC_TRY(s->events->on_restore(s->events, i_step, blobs, n));
        s->state = blobs[n - 1].data;
        s->state_bytes = blobs[n - 1].n_bytes;
    }
    if (*i_step <= 0) {
        *i_step = 0;
        return s->begin != NULL ? s->begin(s->begin_self) : s->process->start(s->process, s->slots, s->n);
    }
    KAC_TRY(check_restored(s, *i_step));
    if (s->state == NULL) return KAC_FAIL(KAC_E_FORMAT, "the checkpoint lacks the process's state");
    return s->process->state_load(s->process, s->state, s->state_bytes);
}

kac_status kac_swarm_predict(kac_swarm *s, int i_step) {
    return s->process->predict(s->process, i_step, s->slots, s->n);
}

/* In a deterministic chain a state is a function of its eve: one of each is enough. Returns how many slots are in s->from; the
 * result of slot i will be entry s->to[i]. */
static int distinct_slots(kac_swarm *s) {
    int n = 0;
    for (int g = 0; g < s->n_groups; g++) {
        const int first = g * s->n_per_group;
        for (int i = 0; i < s->n_per_group; i++) s->counts[i] = -1;
        for (int i = first; i < first + s->n_per_group; i++) {
            int *entry = &s->counts[s->eves[i]];
            if (*entry < 0) {
                *entry = n;
                s->from[n++] = i;
            }
            s->to[i] = *entry;
        }
    }
    return n;
}

static kac_status check_reward(const kac_swarm *s, int i_step, int slot) {
    if (isfinite(s->rewards[slot])) return KAC_OK;
    return KAC_FAIL(KAC_E_NONFINITE, "the reward %s of particle %d of group %d is %g at step %d of %d",
                    s->reward->name != NULL ? s->reward->name : "", slot % s->n_per_group, slot / s->n_per_group,
                    s->rewards[slot], i_step, s->process->n_steps);
}

kac_status kac_swarm_check_rewards(const kac_swarm *s, int i_step) {
    for (int i = 0; i < s->n; i++) KAC_TRY(check_reward(s, i_step, i));
    return KAC_OK;
}

kac_status kac_swarm_score_some(kac_swarm *s, int i_step, kac_stage stage, const int *slots, int n) {
    kac_reward *r = s->reward;
    KAC_TRY(r->score(r, s->process, slots, n, stage, s->weights_before));
    for (int i = 0; i < n; i++) {
        s->rewards[slots[i]] = s->weights_before[i];
        KAC_TRY(check_reward(s, i_step, slots[i]));
    }
    return KAC_OK;
}

kac_status kac_swarm_score(kac_swarm *s, int i_step, kac_stage stage) {
    kac_reward *r = s->reward;
    if (s->process->stochastic) {
        KAC_TRY(r->score(r, s->process, s->slots, s->n, stage, s->rewards));
    } else {
        const int n = distinct_slots(s);
        KAC_TRY(r->score(r, s->process, s->from, n, stage, s->weights_before));
        for (int i = 0; i < s->n; i++) s->rewards[i] = s->weights_before[s->to[i]];
    }
    return kac_swarm_check_rewards(s, i_step);
}

/* Weights that overflowed, e.g. by a huge lambda, would make nonsense of everything after them. */
static kac_status check_weights(const kac_swarm *s, int group, int i_step) {
    for (int i = 0; i < s->n_per_group; i++)
        if (!isfinite(s->log_w[group * s->n_per_group + i]))
            return KAC_FAIL(
                KAC_E_NONFINITE,
                "the log-weight of particle %d of group %d is %g at step %d; lambda times reward is too large", i,
                group, s->log_w[group * s->n_per_group + i], i_step);
    return KAC_OK;
}

static bool all_equal(const double *a, int n) {
    for (int i = 1; i < n; i++)
        if (a[i] != a[0]) return false;
    return true;
}

/* The one gather list of all per-particle state that is not the process's. */
static void gather(kac_swarm *s, int group) {
    const int first = group * s->n_per_group, k = s->n_per_group;
    double *const doubles[] = {s->memory + first, s->log_product + first};
    const int *ancestors = s->ancestors + first;
    for (int a = 0; a < KAC_COUNT_OF(doubles); a++) {
        memcpy(s->shares, doubles[a], (size_t)k * sizeof(double));
        for (int i = 0; i < k; i++) doubles[a][i] = s->shares[ancestors[i]];
    }
    memcpy(s->counts, s->eves + first, (size_t)k * sizeof(int));
    for (int i = 0; i < k; i++) s->eves[first + i] = s->counts[ancestors[i]];
}

kac_status kac_swarm_resample(kac_swarm *s, int i_step, double threshold, kac_scheme scheme) {
    const int k = s->n_per_group;
    const kac_key key = {s->seed, KAC_PURPOSE_RESAMPLE, (uint32_t)i_step};
    int n_moved = 0;
    memcpy(s->weights_before, s->log_w, (size_t)s->n * sizeof(double));
    for (int i = 0; i < s->n; i++) s->ancestors[i] = i % k;
    for (int g = 0; g < s->n_groups; g++) {
        double *log_w = s->log_w + g * k;
        KAC_TRY(check_weights(s, g, i_step));
        s->ess[g] = kac_log_weights_ess(log_w, k);
        s->running_log_z[g] = s->log_z[g] + kac_log_weights_log_mean(log_w, k);
        /* Equal weights need no resampling by any scheme. */
        s->resampled[g] = (threshold >= 1.0 || s->ess[g] < threshold * k) && !all_equal(log_w, k);
        if (!s->resampled[g]) continue;
        kac_log_weights_normalise(s->shares, log_w, k);
        kac_draw_ancestors(scheme, s->shares, k, key, kac_process_group_key(s->process, g), s->ancestors + g * k,
                           s->sums, s->counts);
        s->log_z[g] = s->running_log_z[g];
        memset(log_w, 0, (size_t)k * sizeof(double));
        gather(s, g);
        for (int i = 0; i < k; i++) {
            if (s->ancestors[g * k + i] == i) continue;
            s->from[n_moved] = g * k + s->ancestors[g * k + i];
            s->to[n_moved++] = g * k + i;
        }
    }
    return n_moved > 0 ? s->process->copy(s->process, s->from, s->to, n_moved) : KAC_OK;
}

kac_status kac_swarm_move(kac_swarm *s) {
    int n_moved = 0;
    for (int g = 0; g < s->n_groups; g++) {
        const int first = g * s->n_per_group;
        for (int i = first; i < first + s->n_per_group; i++) {
            if (first + s->ancestors[i] == i) continue;
            s->from[n_moved] = first + s->ancestors[i];
            s->to[n_moved++] = i;
            s->resampled[g] = true;
        }
        gather(s, g);
    }
    return n_moved > 0 ? s->process->copy(s->process, s->from, s->to, n_moved) : KAC_OK;
}

kac_status kac_swarm_report(kac_swarm *s, int i_step, bool scored) {
    if (s->events == NULL || s->events->on_step == NULL) return KAC_OK;
    const int k = s->n_per_group;
    for (int g = 0; g < s->n_groups; g++) {
        const double *before = s->weights_before + g * k;
        const kac_step_event event = {.i_step = i_step,
                                      .n_steps = s->process->n_steps,
                                      .group = g,
                                      .n_groups = s->n_groups,
                                      .n_particles = k,
                                      .scored = scored,
                                      .resampled = s->resampled[g],
                                      .ancestors = s->ancestors + g * k,
                                      .eves = s->eves + g * k,
                                      .log_weights = before,
                                      .rewards = scored ? s->rewards + g * k : NULL,
                                      .ess = s->ess[g],
                                      .log_z = s->running_log_z[g]};
        KAC_TRY(s->events->on_step(s->events, &event));
    }
    return KAC_OK;
}

/* Grows with what the process has put by. */
static kac_status reserve_state(kac_swarm *s) {
    const size_t n_bytes = (size_t)s->process->state_bytes(s->process);
    if (s->state != NULL && n_bytes == s->state_bytes) return KAC_OK;
    kac_free(s->state);
    s->state = kac_alloc(n_bytes);
    s->state_bytes = n_bytes;
    return s->state == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status checkpoint(kac_swarm *s, int i_step) {
    if (s->events == NULL || s->events->on_checkpoint == NULL || s->process->state_bytes == NULL) return KAC_OK;
    kac_blob blobs[7];
    KAC_TRY(reserve_state(s));
    KAC_TRY(s->process->state_save(s->process, s->state));
    const int n = collect_blobs(s, blobs);
    return s->events->on_checkpoint(s->events, i_step, blobs, n);
}

kac_status kac_swarm_end_step(kac_swarm *s, int i_step) {
    KAC_TRY(checkpoint(s, i_step));
    if (s->events != NULL && s->events->cancelled != NULL && s->events->cancelled(s->events))
        return KAC_FAIL(KAC_E_CANCELLED, "stopped after step %d of %d", i_step + 1, s->process->n_steps);
    return KAC_OK;
}

kac_status kac_swarm_step(kac_swarm *s, int i_step) {
    kac_process *p = s->process;
    KAC_TRY(p->step(p, i_step, s->slots, s->slots, s->n));
    if (p->log_ratio != NULL && !s->weightless) {
        KAC_TRY(p->log_ratio(p, s->slots, s->n, s->weights_before));
        for (int i = 0; i < s->n; i++) s->log_w[i] += s->weights_before[i];
    }
    return kac_swarm_end_step(s, i_step);
}

kac_status kac_swarm_run_plain(kac_swarm *s) {
    int i_step;
    KAC_TRY(kac_swarm_start(s, &i_step));
    for (; i_step < s->process->n_steps; i_step++) {
        KAC_TRY(kac_swarm_predict(s, i_step));
        KAC_TRY(kac_swarm_resample(s, i_step, 0.0, KAC_RESAMPLE_SYSTEMATIC));
        KAC_TRY(kac_swarm_report(s, i_step, false));
        KAC_TRY(kac_swarm_step(s, i_step));
    }
    return KAC_OK;
}

void kac_swarm_finish(kac_swarm *s, kac_particles *out) {
    for (int g = 0; g < s->n_groups; g++) s->log_z[g] = s->running_log_z[g];
    *out = (kac_particles){.n_groups = s->n_groups,
                           .n_per_group = s->n_per_group,
                           .log_weights = s->log_w,
                           .rewards = s->rewards,
                           .log_z = s->log_z,
                           .eves = s->eves};
    s->log_w = s->rewards = s->log_z = NULL;
    s->eves = NULL;
}

void kac_particles_free(kac_particles *p) {
    kac_free(p->log_weights);
    kac_free(p->rewards);
    kac_free(p->log_z);
    kac_free(p->eves);
    *p = (kac_particles){0};
}
