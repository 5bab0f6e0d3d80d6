/* The prompt that a picture says it was made from.
 *
 * Looked for in a PNG's text chunks, in this order: "kac" (ours), "parameters" (the lines of A1111 and those who write them too),
 * "invokeai_metadata", "Comment" (JSON with a prompt), "prompt" (ComfyUI's graph: the text that its sampler's positive input leads to,
 * through at most a few nodes; none when samplers disagree). */
#ifndef KAC_PICTURE_PROMPT_H
#define KAC_PICTURE_PROMPT_H

#include "base/base.h"

/* *out is NULL when the picture does not say; caller frees. Fails with KAC_E_MEMORY alone: what is broken says nothing. */
kac_status kac_picture_prompt(char **out, const char *path);

/* The text that a ComfyUI graph starts from; NULL when there is none or no single one. */
char *kac_comfy_prompt(const char *json);

#endif
