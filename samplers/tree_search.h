/* What tree searches share: one tree per group, grown by rollouts that run at once.
 *
 * A search goes round by round: every group that still has budget asks for up to n_rollouts children of nodes that its rule finds; all
 * of them run down to x_0 together, those from later levels joining when the clock reaches their level, so that each step is one
 * evaluation of a large batch; then their rewards are backed up in the order of asking. Asked-for children count at once (virtual
 * visits), so that one round does not ask for the same again and again; with one rollout per round it is the serial algorithm.
 *
 * A state is kept with its prediction: the second child of a node costs one evaluation less than the first. */
#ifndef KAC_SAMPLERS_TREE_SEARCH_H
#define KAC_SAMPLERS_TREE_SEARCH_H

#include "samplers/tree.h"
#include <kac/steer.h>

/* One iteration of the algorithm: a child that was asked for, or a visit of a sample that exists. */
typedef struct kac_tree_visit {
    int group, slot;
    int32_t node;  /* whose child it is, or the sample */
    int32_t index; /* of the child; −1: a sample that exists */
    uint64_t key;
    int64_t places; /* of the new states, from the child to the sample: this and those after it */
    double log_w;   /* of the iteration: what makes its path a uniform draw among the children on it */
    double reward;
} kac_tree_visit;

/* One group's tree and counts. */
typedef struct kac_tree_group {
    kac_tree tree;
    int64_t n_iterations, n_samples, nfe;
    int64_t n_coming;            /* nodes of this round */
    int64_t n_idle, idle_before; /* iterations in a row that only visited; before this round */
    double best_reward;
    double log_sum_w, log_sum_square; /* log Σ W exp(λ r) over iterations, and over samples log Σ of its square */
    bool done;                        /* no budget, or no room, for another child */
} kac_tree_group;

typedef struct kac_tree_search kac_tree_search;
struct kac_tree_search {
    /* what the method sets before kac_tree_search_init */
    const char *name; /* of the method */
    kac_process *process;
    kac_reward *reward;
    kac_events *events; /* may be NULL */
    uint64_t seed;
    double lambda;
    int levels[KAC_TREE_LEVELS]; /* steps taken before the states of each level; the first is 0 */
    int n_levels;
    int n_rollouts;         /* of a group in a round, at most n_per_group */
    double widening, power; /* a node has up to widening · N^power children */
    int64_t nfe_budget;     /* of each group; 0: none */
    double seconds_budget;  /* of all together; 0: none */
    int64_t most_nodes;     /* of each group */
    /* Which finished child of a saturated node to go on to; `draw` numbers the draws of this group. Takes from *log_w what kac_tree_draw does. */
    int32_t (*choose)(const kac_tree_search *s, int group, int32_t node, int64_t draw, double *log_w);
    /* What a group's samples so far say; NAN: nothing. */
    void (*estimate)(const kac_tree_search *s, int group, double *log_z, double *ess);
    void *method;

    kac_tree_group *groups; /* [n_groups] */
    int64_t n_places;       /* in use, of all groups */
    int n_rounds;           /* so far */
    double seconds_before;  /* spent before it was restored */
    double start_ms, saved_ms, save_ms;
    int first_round; /* since it was restored */

    kac_tree_visit *visits; /* [n_groups · n_rollouts] of this round */
    int n_visits;
    int *slots, *joining;
    uint64_t *keys;
    int64_t *places;
    double *rewards;
};

/* Restores a checkpoint if there is one. */
kac_status kac_tree_search_init(kac_tree_search *s, kac_tree_backup backup, double tempering);
void kac_tree_search_free(kac_tree_search *s);

/* Until the budgets are spent or the run is cancelled; every group has a sample when it returns KAC_OK. KAC_E_NONFINITE names the sample. */
kac_status kac_tree_search_run(kac_tree_search *s);

double kac_tree_search_seconds(const kac_tree_search *s);

/* ---- tree_search_save.c ---- */

/* A checkpoint of what is between rounds, if the sink takes any. */
kac_status kac_tree_search_save(kac_tree_search *s);
/* Goes on from the sink's checkpoint, if it has one. KAC_E_FORMAT: damaged, or of other settings. */
kac_status kac_tree_search_restore(kac_tree_search *s);

#endif
