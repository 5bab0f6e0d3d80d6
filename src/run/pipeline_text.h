/* Prompts as the denoiser sees them. */
#ifndef KAC_PIPELINE_TEXT_H
#define KAC_PIPELINE_TEXT_H

#include "run/pipeline.h"

/* One text to encode. */
typedef struct kac_prompt_text {
    const char *text; /* NULL: nothing was said, which is "" or, where p->zero_empty, zeros */
    bool negative;    /* clip_skip does not act on it */
} kac_prompt_text;

/* What P texts become. */
typedef struct kac_conditioning {
    kac_tensor tokens; /* [P, S, D] c->dtype */
    kac_tensor pooled; /* [P, E] f32, of models that read the text as a whole too (SDXL); none for others */
} kac_conditioning;

/* `out` in c->run. The encoders' weights lie in c->scratch meanwhile, where the denoiser works later.
 * clip_skip 0: none. *n_truncated counts texts longer than the context (NULL allowed). */
kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const kac_prompt_text *texts,
                               int n_texts, int clip_skip, int *n_truncated);

#endif
