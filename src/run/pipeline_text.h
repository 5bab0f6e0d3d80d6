/* Prompts as the denoiser sees them. */
#ifndef KAC_PIPELINE_TEXT_H
#define KAC_PIPELINE_TEXT_H

#include "run/pipeline.h"

/* What P texts become. */
typedef struct kac_conditioning {
    kac_tensor tokens; /* [P, S, D] c->dtype */
    kac_tensor pooled; /* [P, E] f32, of models that read the text as a whole too; none for others */
} kac_conditioning;

/* `out` in c->run. clip_skip 0: none. *n_truncated counts texts longer than the context (NULL allowed). */
kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const char *const *texts,
                               int n_texts, int clip_skip, int *n_truncated);

#endif
