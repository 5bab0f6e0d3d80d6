/* Pictures of a latent run on disk: previews on the way, final PNGs that carry their settings, and their entries in run.json. */
#ifndef KAC_GENERATE_OUTPUT_H
#define KAC_GENERATE_OUTPUT_H

#include "run/generate_job.h"
#include "run/latent_run.h"

/* A reward that passes on to `inner` and stores the single rewards in events.jsonl and, with --previews, what it looked at as
 * previews/…png. */
typedef struct kac_recorded_reward {
    kac_reward outer;
    kac_reward *inner;
    kac_job *job;
    kac_latent_run *run;
    bool previews;
    int n_written; /* pictures so far; none are written beyond a fixed number */
} kac_recorded_reward;

/* Makes the folder for previews when they are wanted. */
kac_status kac_recorded_reward_init(kac_recorded_reward *p, kac_reward *inner, kac_job *j, kac_latent_run *r);

/* Writes every final picture and fills "images" and "log_z" of `facts`; sets result->best. Particles of a group are ranked by reward, or stay in
 * order without one. */
kac_status kac_generate_write_images(kac_job *j, kac_latent_run *r, const kac_particles *p, cJSON *facts);

#endif
