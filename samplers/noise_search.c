#include "samplers/noise_search.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

/* ---- opening ---- */

static kac_status allocate(kac_noise_search *s) {
    const size_t n = (size_t)s->n;
    s->best = kac_alloc(n * sizeof *s->best);
    s->number = kac_alloc(n * sizeof *s->number);
    s->place = kac_alloc(n * sizeof *s->place);
    s->n_kept = kac_alloc((size_t)s->n_groups * sizeof *s->n_kept);
    s->slots = kac_alloc(n * sizeof *s->slots);
    s->rewards = kac_alloc(n * sizeof *s->rewards);
    if (s->best == NULL || s->number == NULL || s->place == NULL || s->n_kept == NULL || s->slots == NULL ||
        s->rewards == NULL)
        return KAC_E_MEMORY;
    for (int i = 0; i < s->n; i++) s->place[i] = i;
    return KAC_OK;
}

kac_status kac_noise_open(kac_noise_search *s, const char *who, kac_process *p, kac_reward *reward, kac_events *events,
                          uint64_t seed, int64_t default_rounds) {
    *s = (kac_noise_search){.who = who,
                            .process = p,
                            .reward = reward,
                            .events = events,
                            .seed = seed,
                            .n_groups = p->n_groups,
                            .k = p->n_per_group,
                            .n = p->n_groups * p->n_per_group,
                            .most_nfe = INT64_MAX,
                            .most_rounds = default_rounds,
                            .start_ms = kac_now_ms()};
    if (reward == NULL) return KAC_FAIL(KAC_E_USAGE, "%s needs a reward to steer by; add --reward", who);
    if (p->rekey == NULL || p->store == NULL || p->fetch == NULL || p->noise == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s tries other noise, and this process cannot take any", who);
    if (events != NULL && events->nfe > 0) s->most_nfe = events->nfe;
    if (events != NULL && (events->nfe > 0 || events->seconds > 0)) s->most_rounds = INT64_MAX;
    return allocate(s);
}

void kac_noise_close(kac_noise_search *s) {
    void *const all[] = {s->best, s->number, s->place, s->n_kept, s->slots, s->rewards, s->recent};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    *s = (kac_noise_search){0};
}

/* ---- checkpoints ---- */

enum { N_COUNTS = 3, N_BLOBS = 6, MOST_OWN = 8 };

static int collect_blobs(kac_noise_search *s, int64_t counts[N_COUNTS], const kac_blob *own, int n_own,
                         kac_blob blobs[N_BLOBS + MOST_OWN]) {
    const size_t n = (size_t)s->n;
    KAC_ASSERT(n_own <= MOST_OWN);
    blobs[0] = (kac_blob){"counts", counts, N_COUNTS * sizeof *counts};
    blobs[1] = (kac_blob){"seconds", &s->seconds, sizeof s->seconds};
    blobs[2] = (kac_blob){"best", s->best, n * sizeof *s->best};
    blobs[3] = (kac_blob){"numbers", s->number, n * sizeof *s->number};
    blobs[4] = (kac_blob){"places", s->place, n * sizeof *s->place};
    blobs[5] = (kac_blob){"n_kept", s->n_kept, (size_t)s->n_groups * sizeof *s->n_kept};
    for (int i = 0; i < n_own; i++) blobs[N_BLOBS + i] = own[i];
    return N_BLOBS + n_own;
}

static kac_status checkpoint(kac_noise_search *s, const kac_blob *own, int n_own) {
    kac_process *p = s->process;
    if (s->events == NULL || s->events->on_checkpoint == NULL || p->state_bytes == NULL) return KAC_OK;
    int64_t counts[N_COUNTS] = {s->round, s->nfe, s->n_samples};
    const double seconds = s->seconds;
    kac_blob blobs[N_BLOBS + MOST_OWN + 1];
    int n = collect_blobs(s, counts, own, n_own, blobs);
    const size_t n_bytes = (size_t)p->state_bytes(p);
    void *state = kac_alloc(n_bytes);
    if (state == NULL) return KAC_E_MEMORY;
    kac_status status = p->state_save(p, state);
    blobs[n++] = (kac_blob){"process", state, n_bytes};
    s->seconds += (kac_now_ms() - s->start_ms) / 1000;
    if (status == KAC_OK) status = s->events->on_checkpoint(s->events, (int)(s->round - 1), blobs, n);
    s->seconds = seconds;
    kac_free(state);
    return status;
}

static bool is_sound(const kac_noise_search *s, const int64_t counts[N_COUNTS], int i_step) {
    bool good = counts[0] == i_step && counts[1] >= 0 && counts[2] >= 0 && s->seconds >= 0 && isfinite(s->seconds);
    for (int g = 0; g < s->n_groups && good; g++) {
        good = s->n_kept[g] >= 0 && s->n_kept[g] <= s->k;
        for (int i = g * s->k; i < (g + 1) * s->k && good; i++)
            good = isfinite(s->best[i]) && s->place[i] >= g * s->k && s->place[i] < (g + 1) * s->k;
    }
    return good;
}

kac_status kac_noise_start(kac_noise_search *s, const kac_blob *own, int n_own) {
    kac_process *p = s->process;
    if (s->events == NULL || s->events->on_restore == NULL || p->state_load == NULL) return KAC_OK;
    int64_t counts[N_COUNTS] = {0};
    int i_step = 0;
    kac_blob blobs[N_BLOBS + MOST_OWN + 1];
    const int n = collect_blobs(s, counts, own, n_own, blobs);
    kac_blob *state = &blobs[n];
    *state = (kac_blob){"process", NULL, 0};
    kac_status status = s->events->on_restore(s->events, &i_step, blobs, n + 1);
    if (status == KAC_OK && i_step > 0 && (state->data == NULL || !is_sound(s, counts, i_step)))
        status = KAC_FAIL(KAC_E_FORMAT,
                          "the checkpoint does not belong to this run or is damaged; start again without --resume");
    if (status == KAC_OK && i_step > 0) status = p->state_load(p, state->data, state->n_bytes);
    kac_free(state->data);
    if (i_step > 0) s->round = counts[0], s->nfe = counts[1], s->n_samples = counts[2];
    return status;
}

/* ---- the budget ---- */

static double seconds_of(const kac_noise_search *s) {
    return s->seconds + (kac_now_ms() - s->start_ms) / 1000;
}

static bool is_cancelled(const kac_noise_search *s) {
    return s->events != NULL && s->events->cancelled != NULL && s->events->cancelled(s->events);
}

static bool is_late(const kac_noise_search *s) {
    return s->events != NULL && s->events->seconds > 0 && seconds_of(s) >= s->events->seconds;
}

static bool all_have_some(const kac_noise_search *s) {
    for (int g = 0; g < s->n_groups; g++)
        if (s->n_kept[g] == 0) return false;
    return true;
}

kac_status kac_noise_check_budget(const kac_noise_search *s, int64_t cost) {
    if (cost <= s->most_nfe) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "%s needs %lld evaluations for a sample, and the budget is %lld (--nfe)", s->who,
                    (long long)cost, (long long)s->most_nfe);
}

int64_t kac_noise_room(const kac_noise_search *s) {
    return s->most_nfe == INT64_MAX ? INT64_MAX : s->most_nfe - s->nfe - s->spent;
}

bool kac_noise_goes_on(kac_noise_search *s, int64_t cost) {
    if (s->stopped || s->round >= s->most_rounds || s->round >= 1000000 || kac_noise_room(s) < cost) return false;
    return !all_have_some(s) || !(is_late(s) || is_cancelled(s));
}

kac_status kac_noise_check_stop(kac_noise_search *s) {
    const bool cancelled = is_cancelled(s);
    s->stopped = s->stopped || ((cancelled || is_late(s)) && all_have_some(s));
    if (cancelled && !s->stopped) return KAC_FAIL(KAC_E_CANCELLED, "stopped before the first sample was finished");
    return KAC_OK;
}

/* ---- sampling ---- */

int kac_noise_take_slots(kac_noise_search *s, int n_each) {
    KAC_ASSERT(n_each >= 1 && n_each <= s->k);
    for (int i = 0; i < s->n_groups * n_each; i++) s->slots[i] = i / n_each * s->k + i % n_each;
    s->n_each = n_each;
    return s->n_groups * n_each;
}

kac_status kac_noise_predict(kac_noise_search *s, int i_step) {
    s->spent += s->n_each;
    return s->process->predict(s->process, i_step, s->slots, s->n_groups * s->n_each);
}

kac_status kac_noise_rollout(kac_noise_search *s, int n_each, int first, int end) {
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_each);
    for (int i = first; i < end; i++) {
        KAC_TRY(kac_noise_check_stop(s));
        if (s->stopped) return KAC_OK;
        KAC_TRY(kac_noise_predict(s, i));
        KAC_TRY(p->step(p, i, s->slots, s->slots, n));
    }
    return KAC_OK;
}

kac_status kac_noise_score(kac_noise_search *s, int n_each, kac_stage stage) {
    const int n = kac_noise_take_slots(s, n_each);
    KAC_TRY(s->reward->score(s->reward, s->process, s->slots, n, stage, s->rewards));
    for (int i = 0; i < n; i++)
        if (!isfinite(s->rewards[i]))
            return KAC_FAIL(KAC_E_NONFINITE, "the reward %s of a sample of group %d is %g",
                            s->reward->name != NULL ? s->reward->name : "", i / n_each, s->rewards[i]);
    return KAC_OK;
}

/* ---- what is kept ---- */

/* Takes entry i out of a group; its place is that of the first free entry. */
static void take_out(kac_noise_search *s, int group, int i) {
    const int first = group * s->k, last = first + --s->n_kept[group];
    const int64_t place = s->place[i];
    for (; i < last; i++) {
        s->best[i] = s->best[i + 1];
        s->number[i] = s->number[i + 1];
        s->place[i] = s->place[i + 1];
    }
    s->place[last] = place;
}

static kac_status offer(kac_noise_search *s, int group, int slot, double reward, int64_t number) {
    const int first = group * s->k;
    for (int i = first; i < first + s->n_kept[group]; i++) {
        if (s->number[i] != number) continue;
        if (reward <= s->best[i]) return KAC_OK;
        take_out(s, group, i);
    }
    if (s->n_kept[group] == s->k) {
        if (reward <= s->best[first + s->k - 1]) return KAC_OK;
        take_out(s, group, first + s->k - 1);
    }
    int at = first + s->n_kept[group]++;
    const int64_t place = s->place[at];
    for (; at > first && s->best[at - 1] < reward; at--) {
        s->best[at] = s->best[at - 1];
        s->number[at] = s->number[at - 1];
        s->place[at] = s->place[at - 1];
    }
    s->best[at] = reward, s->number[at] = number, s->place[at] = place;
    return s->process->store(s->process, &slot, 1, &place);
}

static kac_status remember_recent(kac_noise_search *s, int n_each) {
    if (s->n_recent + n_each > s->most_recent) {
        const int most = 2 * (s->n_recent + n_each);
        double *recent = kac_alloc((size_t)s->n_groups * (size_t)most * sizeof *recent);
        if (recent == NULL) return KAC_E_MEMORY;
        for (int g = 0; g < s->n_groups && s->n_recent > 0; g++)
            memcpy(recent + g * most, s->recent + g * s->most_recent, (size_t)s->n_recent * sizeof *recent);
        kac_free(s->recent);
        s->recent = recent, s->most_recent = most;
    }
    for (int i = 0; i < s->n_groups * n_each; i++)
        s->recent[i / n_each * s->most_recent + s->n_recent + i % n_each] = s->rewards[i];
    s->n_recent += n_each;
    return KAC_OK;
}

kac_status kac_noise_keep(kac_noise_search *s, int n_each, const int64_t *numbers) {
    KAC_TRY(remember_recent(s, n_each));
    for (int i = 0; i < s->n_groups * n_each; i++)
        KAC_TRY(offer(s, i / n_each, s->slots[i], s->rewards[i], numbers[i % n_each]));
    return KAC_OK;
}

static kac_status tell(kac_noise_search *s) {
    if (s->events == NULL || s->events->on_search == NULL) return KAC_OK;
    for (int g = 0; g < s->n_groups; g++) {
        const kac_search_event event = {.group = g,
                                        .n_groups = s->n_groups,
                                        .nfe = s->nfe + s->spent,
                                        .nfe_budget = s->events->nfe,
                                        .seconds = seconds_of(s),
                                        .seconds_budget = s->events->seconds,
                                        .n_samples = s->n_samples,
                                        .best_reward = s->n_kept[g] > 0 ? s->best[g * s->k] : NAN,
                                        .rewards = s->recent == NULL ? NULL : s->recent + g * s->most_recent,
                                        .n_rewards = s->n_recent,
                                        .log_z = NAN,
                                        .ess = NAN};
        KAC_TRY(s->events->on_search(s->events, &event));
    }
    s->n_recent = 0;
    return KAC_OK;
}

kac_status kac_noise_end_round(kac_noise_search *s, const kac_blob *own, int n_own) {
    s->nfe += s->spent, s->spent = 0;
    s->n_samples += s->n_recent;
    s->round++;
    KAC_TRY(tell(s));
    return checkpoint(s, own, n_own);
}

/* ---- the end ---- */

static kac_status allocate_particles(const kac_noise_search *s, kac_particles *out) {
    *out = (kac_particles){.n_groups = s->n_groups,
                           .n_per_group = s->k,
                           .log_weights = kac_alloc((size_t)s->n * sizeof *out->log_weights),
                           .rewards = kac_alloc((size_t)s->n * sizeof *out->rewards),
                           .log_z = kac_alloc((size_t)s->n_groups * sizeof *out->log_z),
                           .eves = kac_alloc((size_t)s->n * sizeof *out->eves)};
    return out->log_weights == NULL || out->rewards == NULL || out->log_z == NULL || out->eves == NULL ? KAC_E_MEMORY
                                                                                                       : KAC_OK;
}

static kac_status hand_over(kac_noise_search *s, kac_particles *out) {
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, s->k);
    for (int slot = 0; slot < s->n; slot++) {
        const int group = slot / s->k, rank = slot % s->k % s->n_kept[group];
        KAC_TRY(p->fetch(p, &s->place[group * s->k + rank], &slot, 1));
        out->rewards[slot] = s->best[group * s->k + rank];
        out->eves[slot] = rank;
    }
    for (int g = 0; g < s->n_groups; g++) out->log_z[g] = NAN;
    s->n_samples += s->n_recent; /* of a round that was broken off */
    if (s->spent > 0) KAC_TRY(tell(s));
    /* Once more, so that what a reward knows of the slots is of these samples. */
    return s->reward->score(s->reward, p, s->slots, n, KAC_STAGE_FINAL, s->rewards);
}

kac_status kac_noise_finish(kac_noise_search *s, const kac_blob *own, int n_own, kac_particles *out) {
    if (!all_have_some(s)) return KAC_FAIL(KAC_E_USAGE, "%s ended without a sample; give it a larger budget", s->who);
    if (is_cancelled(s) && s->round > 0) KAC_TRY(checkpoint(s, own, n_own));
    kac_status status = allocate_particles(s, out);
    if (status == KAC_OK) status = hand_over(s, out);
    if (status != KAC_OK) kac_particles_free(out);
    return status;
}

void kac_noise_draw(const kac_noise_search *s, float *z, int group, uint64_t number) {
    const uint32_t step = kac_process_group_key(s->process, group);
    const kac_key key = kac_key_of_particle((kac_key){s->seed, KAC_PURPOSE_SEARCH, step}, number);
    kac_rng_normal(z, s->process->n_state, key, (uint32_t)number, 0);
}
