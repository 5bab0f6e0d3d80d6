/* Prompts with weights, and prompts in chunks: text → pieces of one weight → token ids with a weight each.
 *
 *     (word)        more attention: its weight times 1.1; nested brackets multiply
 *     [word]        less: divided by 1.1
 *     (word:1.3)    times 1.3
 *     \( \) \[ \] \\  the character itself
 *
 * A bracket that is never closed reaches to the end; one that was never opened is text; so is a colon that no number and closing
 * bracket follow. The grammar is that of AUTOMATIC1111's stable-diffusion-webui (parse_prompt_attention; without its word BREAK). */
#ifndef KAC_TEXT_PROMPT_H
#define KAC_TEXT_PROMPT_H

#include "text/tokenizer.h"

/* A stretch of text with one weight; neighbours differ in weight. */
typedef struct kac_prompt_piece {
    size_t first, n; /* in the text of the list */
    double weight;
} kac_prompt_piece;

typedef struct kac_prompt_pieces {
    char *text; /* all pieces, one after the other, markup and escapes removed */
    kac_prompt_piece *items;
    int n; /* at least 1: of an empty prompt one empty piece of weight 1 */
} kac_prompt_pieces;

/* KAC_E_USAGE: a weight that is no finite number or beyond ±100. kac_prompt_pieces_free in every case. */
kac_status kac_prompt_parse(kac_prompt_pieces *out, const char *prompt);
void kac_prompt_pieces_free(kac_prompt_pieces *p);

/* Whether it holds a weight that is a number, as in (word:1.3): a sign that brackets are meant as weights. */
bool kac_prompt_has_weights(const char *prompt);

typedef struct kac_prompt_options {
    bool weighting; /* false: the whole text is one piece of weight 1 */
    bool chunks;    /* false: cut after the first chunk */
} kac_prompt_options;

/* Token ids in chunks of n_each: BOS, n_each − 2 tokens, EOS, padding; and a weight for every id, 1 for BOS, EOS and padding. The pieces are
 * tokenized one by one, so that a weight never falls inside a token. */
typedef struct kac_prompt_ids {
    int32_t *ids;  /* [n_chunks, n_each] */
    float *weight; /* [n_chunks, n_each] */
    int n_chunks, n_each;
    int64_t n_cut; /* tokens left out for want of chunks */
    bool weighted; /* some weight is not 1 */
} kac_prompt_ids;

/* At most KAC_PROMPT_MAX_CHUNKS. KAC_E_USAGE: as kac_prompt_parse, kac_tokenizer_encode. On failure *out is empty. */
enum { KAC_PROMPT_MAX_CHUNKS = 64 };
kac_status kac_prompt_encode(kac_prompt_ids *out, const kac_tokenizer *t, const char *prompt, int n_each,
                             kac_prompt_options o);
/* Chunks of BOS, EOS and padding behind those that are there, until there are n_chunks: texts of one batch must be equally long. */
kac_status kac_prompt_extend(kac_prompt_ids *p, const kac_tokenizer *t, int n_chunks);
void kac_prompt_ids_free(kac_prompt_ids *p);

/* Weights act on the token states z [T, D] of one chunk, in place: z_t · w_t, then all of it times mean(z before) / mean(z after), so
 * that the chunk's mean stays (the rule of stable-diffusion-webui). Sums in double; a mean of 0 is left. */
void kac_prompt_weigh(float *z, const float *weight, int64_t n_tokens, int64_t width);

#endif
