/* What searches over noise share: rounds of whole samples until the budget is spent, of which the best of each group are kept.
 *
 *     KAC_TRY(kac_noise_open(&s, "noise-random", …));
 *     KAC_TRY(kac_noise_start(&s, blobs, n_blobs));                    // fresh, or from a checkpoint
 *     while (kac_noise_goes_on(&s, cost of the smallest round)) {
 *         … rekey, process->noise, start …
 *         KAC_TRY(kac_noise_rollout(&s, n_each, 0, n_steps));          // the first n_each slots of every group
 *         if (s.stopped) break;                                        // a round that was cut short counts for nothing
 *         KAC_TRY(kac_noise_score(&s, n_each, KAC_STAGE_FINAL));
 *         KAC_TRY(kac_noise_keep(&s, n_each, numbers));
 *         KAC_TRY(kac_noise_end_round(&s, blobs, n_blobs));
 *     }
 *     KAC_TRY(kac_noise_finish(&s, blobs, n_blobs, out));
 *
 * All groups do the same at the same time, in one pass. What is tried depends on the seed and on numbers of samples alone, never on how many
 * slots there are. Places 0 … n − 1 of the process hold what is kept; a method's own begin at n. */
#ifndef KAC_SAMPLERS_NOISE_SEARCH_H
#define KAC_SAMPLERS_NOISE_SEARCH_H

#include <kac/rng.h>
#include <kac/steer.h>

typedef struct kac_noise_search {
    const char *who;
    kac_process *process;
    kac_reward *reward;
    kac_events *events; /* may be NULL */
    uint64_t seed;
    int n_groups, k, n; /* k slots in each group, n in all */
    int64_t most_nfe;   /* of each group; INT64_MAX: no limit */
    int64_t most_rounds;
    double start_ms;

    /* saved with a checkpoint */
    int64_t round, nfe, n_samples; /* finished rounds, and of each group in them */
    double seconds;                /* before this start of the program */
    double *best;                  /* [n] rewards of what is kept of each group, best first; equal ones as they came */
    int64_t *number;               /* [n] which sample that is */
    int64_t *place;                /* [n] where it is */
    int *n_kept;                   /* [n_groups] */

    bool stopped;    /* in the middle of a round: cancelled, or the time is over */
    int64_t spent;   /* evaluations of each group in the round under way */
    int n_each;      /* slots of each group in the list below */
    int *slots;      /* [n_groups · n_each], group by group */
    double *rewards; /* the same, of the last scoring */
    double *recent;  /* [n_groups, most_recent] rewards of finished samples since the last event */
    int n_recent, most_recent;
} kac_noise_search;

/* `who` needs a reward, and a process with search: KAC_E_USAGE, KAC_E_UNSUPPORTED. Without a budget in events it ends after
 * default_rounds. */
kac_status kac_noise_open(kac_noise_search *s, const char *who, kac_process *process, kac_reward *reward,
                          kac_events *events, uint64_t seed, int64_t default_rounds);
void kac_noise_close(kac_noise_search *s); /* a cleared one is fine */

/* Restores the last checkpoint, with the method's own blobs, whose sizes are known. */
kac_status kac_noise_start(kac_noise_search *s, const kac_blob *own, int n_own);
/* Whether another round that costs at least `cost` evaluations of each group may begin. */
bool kac_noise_goes_on(kac_noise_search *s, int64_t cost);
/* KAC_E_USAGE when the whole budget is less than `cost`, what one sample takes. */
kac_status kac_noise_check_budget(const kac_noise_search *s, int64_t cost);
/* Evaluations of each group that are left, those of the round under way taken off. */
int64_t kac_noise_room(const kac_noise_search *s);
/* Whether to break off: what is done so far is thrown away unless it was kept. Sets `stopped`. Never before every group has a sample, but
 * KAC_E_CANCELLED then. */
kac_status kac_noise_check_stop(kac_noise_search *s);

/* The first n_each slots of every group are those of the calls that follow: list and n. */
int kac_noise_take_slots(kac_noise_search *s, int n_each);
/* Predicts them at i_step, and counts that. */
kac_status kac_noise_predict(kac_noise_search *s, int i_step);
/* From step `first` until before step `end`; checks for stopping at every step. */
kac_status kac_noise_rollout(kac_noise_search *s, int n_each, int first, int end);
/* Fills rewards. KAC_E_NONFINITE names the sample. */
kac_status kac_noise_score(kac_noise_search *s, int n_each, kac_stage stage);
/* Slots that hold finished, scored samples: the best are kept. numbers [n_each], for all groups alike; of two with one number only the better
 * is kept. */
kac_status kac_noise_keep(kac_noise_search *s, int n_each, const int64_t *numbers);
/* Counts the round, tells of it, and writes a checkpoint. */
kac_status kac_noise_end_round(kac_noise_search *s, const kac_blob *own, int n_own);

/* What is kept goes to the slots, best first, and its rewards to `out`; where less was found than there are slots, it comes again from the
 * first on, and eves tell. After a checkpoint, if cancelled: a round that was broken off then begins anew, from what the method's blobs
 * were before it. */
kac_status kac_noise_finish(kac_noise_search *s, const kac_blob *own, int n_own, kac_particles *out);

/* Normals [n_state] of a search's own: proposal `number` of a group. */
void kac_noise_draw(const kac_noise_search *s, float *z, int group, uint64_t number);

/* One row of an option table. */
#define KAC_OPTION_ROUNDS(value, what)                                                                                 \
    {                                                                                                                  \
        "rounds", 0, KAC_OPT_INT, value, 1, 1e9, NULL, "N", what ", where neither --nfe nor --time says when to end",  \
            false                                                                                                      \
    }

#endif
