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

typedef struct kac_encode_options {
    int clip_skip;  /* layers left out at the end; 0: none */
    bool weighting; /* (word:1.3) and the like are weights: text/prompt.h */
    bool chunks; /* texts longer than the context in several, S = their number · context; else the rest is cut off */
} kac_encode_options;

/* `out` in c->run. The encoders' weights lie in c->scratch meanwhile, where the denoiser works later. Chunks are encoded one by one and
 * joined along S, shorter texts followed by empty ones; pooled is that of the first. *n_truncated counts texts that were cut (NULL
 * allowed). KAC_E_USAGE: what text/prompt.h refuses. */
kac_status kac_pipeline_encode(kac_conditioning *out, const kac_pipeline *p, kac_ctx *c, const kac_prompt_text *texts,
                               int n_texts, kac_encode_options o, int *n_truncated);

#endif
