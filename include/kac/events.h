/* The third seam: what happened, and when to stop. The progress bar, the run folder and the live page are sinks of these events. */
#ifndef KAC_EVENTS_H
#define KAC_EVENTS_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* One per group and step, and one more with i_step = n_steps for the final scoring. Arrays have n_particles entries and
 * live only during the call. Particles are local to the group. */
typedef struct kac_step_event {
    int i_step, n_steps;
    int group, n_groups;
    int n_particles;
    bool scored;               /* rewards below are of this step */
    bool resampled;            /* ancestors below are of this step */
    const int *ancestors;      /* which particle (before resampling) each one continues; identity when not resampled */
    const int *eves;           /* root ancestor of each: the particle at the start */
    const double *log_weights; /* after weighting, before resampling reset them; not normalised */
    const double *rewards;     /* of this step when scored, else NULL */
    double ess;                /* effective sample size 1 / Σ W² before resampling */
    double log_z;              /* running estimate of log Z, this step included */
} kac_step_event;

/* Of a method that goes on until its budget is spent: what it has found so far, one per group now and then, and at the end. */
typedef struct kac_search_event {
    int group, n_groups;
    int64_t nfe,
        nfe_budget; /* evaluations of states by the denoiser (one with guidance, too) of this group; 0: no such limit */
    double seconds, seconds_budget;
    int64_t n_samples;     /* finished samples, each scored */
    int64_t n_nodes;       /* states kept; 0: the method keeps none */
    double best_reward;    /* over the samples so far */
    const double *rewards; /* [n_rewards] of the samples since the last event */
    int n_rewards;
    double log_z; /* estimates by all samples so far; NAN: the method has none */
    double ess;
} kac_search_event;

/* A group's tree at the end of a search: nodes in the order of their making, a parent before its children. */
typedef struct kac_tree_event {
    int group, n_groups;
    int64_t n_nodes;
    const int64_t *parent; /* −1: the root */
    const int *i_step;     /* steps taken to the state; n_steps: a finished sample. The root, which is no state: −1 */
    const int64_t *visits; /* of the search */
    const double *value;   /* soft value, in units of the reward; a sample's is its reward */
    const double *log_prob; /* of a finished sample under the law that results are drawn from; −INFINITY for others */
    const int64_t *chosen;  /* [n_particles] node that each result is */
    int n_particles;
} kac_tree_event;

/* Named pieces of a method's state, for stopping and continuing. On restoring, data NULL: of whatever size it had; data is then
 * kac_alloc'ed by the sink and the method's to free. */
typedef struct kac_blob {
    const char *name;
    void *data;
    size_t n_bytes;
} kac_blob;

typedef struct kac_events kac_events;
struct kac_events {
    void *self;
    kac_status (*on_step)(kac_events *e, const kac_step_event *event);
    kac_status (*on_search)(kac_events *e, const kac_search_event *event); /* may be NULL */
    kac_status (*on_tree)(kac_events *e, const kac_tree_event *event);     /* may be NULL */
    /* Called when all groups have finished step i_step, with everything needed to go on at i_step + 1. May be NULL. */
    kac_status (*on_checkpoint)(kac_events *e, int i_step, const kac_blob *blobs, int n_blobs);
    /* Fills the blobs of an earlier on_checkpoint and sets *i_step to the step to go on with; 0 and untouched blobs for
     * a fresh start. May be NULL (always fresh). */
    kac_status (*on_restore)(kac_events *e, int *i_step, kac_blob *blobs, int n_blobs);
    /* True: stop with KAC_E_CANCELLED after the checkpoint. Methods that are anytime (steer.h) hand over what they have instead, after a
     * checkpoint, and return KAC_OK. May be NULL. */
    bool (*cancelled)(kac_events *e);
    /* What an anytime method may spend on each group; 0: no such limit. Without any limit it takes its own default. */
    int64_t nfe;    /* evaluations of states by the denoiser */
    double seconds; /* since the method began, for all groups together */
};

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
