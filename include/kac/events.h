/* The third seam: what happened. The progress bar, the run folder and the live page are sinks of these events. */
#ifndef KAC_EVENTS_H
#define KAC_EVENTS_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>

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

/* Named pieces of a method's state, for stopping and continuing. */
typedef struct kac_blob {
    const char *name;
    void *data;
    size_t n_bytes;
} kac_blob;

typedef struct kac_events kac_events;
struct kac_events {
    void *self;
    kac_status (*on_step)(kac_events *e, const kac_step_event *event);
    /* Called when all groups have finished step i_step, with everything needed to go on at i_step + 1. May be NULL. */
    kac_status (*on_checkpoint)(kac_events *e, int i_step, const kac_blob *blobs, int n_blobs);
    /* Fills the blobs of an earlier on_checkpoint and sets *i_step to the step to go on with; 0 and untouched blobs for
     * a fresh start. May be NULL (always fresh). */
    kac_status (*on_restore)(kac_events *e, int *i_step, const kac_blob *blobs, int n_blobs);
    /* True: stop with KAC_E_CANCELLED after the checkpoint. May be NULL. */
    bool (*cancelled)(kac_events *e);
};

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
