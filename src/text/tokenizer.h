/* The byte-pair tokenizer of CLIP, as transformers' CLIPTokenizer does it (no text repair, no HTML unescaping).
 *
 *     kac_tokenizer *t;
 *     KAC_TRY(kac_tokenizer_load(&t, "model/tokenizer"));
 *     int32_t ids[77];
 *     kac_tokens used;
 *     status = kac_tokenizer_encode(ids, 77, &used, t, text, strlen(text));   // BOS, text, EOS, padding
 *     if (used.n_cut > 0) ...warn: the last n_cut tokens of the text were left out
 *     kac_tokenizer_free(t);
 *
 * Text → NFC → white space to one space → lower case → pieces by a pattern → bytes → merges by rank.
 * Source: Radford et al. 2021 (openai/CLIP simple_tokenizer.py); Sennrich et al. 2016. */
#ifndef KAC_TEXT_TOKENIZER_H
#define KAC_TEXT_TOKENIZER_H

#include "base/base.h"

typedef struct kac_tokenizer kac_tokenizer; /* read-only after loading: any number of threads may encode */

typedef struct kac_tokens {
    int n;         /* ids before the padding, BOS and EOS included */
    int64_t n_cut; /* tokens of the text that did not fit */
} kac_tokens;

/* `path` is a folder with vocab.json and merges.txt, or tokenizer.json instead of them (and, if there,
 * tokenizer_config.json and special_tokens_map.json); or OpenAI's list of merges, bpe_simple_vocab_16e6.txt, plain or
 * as .gz. KAC_E_IO, KAC_E_FORMAT, KAC_E_UNSUPPORTED (another kind of tokenizer). */
kac_status kac_tokenizer_load(kac_tokenizer **out, const char *path);
void kac_tokenizer_free(kac_tokenizer *t); /* NULL allowed */

/* A further token that the text is cut at: `text`, normalised as prompts are, means ids first_id … first_id + n − 1, and text_1, text_2, …
 * its single ones. KAC_E_USAGE when the tokenizer has that token already or has no room. Before encoding begins. */
kac_status kac_tokenizer_add(kac_tokenizer *t, const char *text, int32_t first_id, int n);

/* Context length that the files state (model_max_length); 0 when they do not: then it is the text encoder's
 * max_position_embeddings. */
int kac_tokenizer_max_length(const kac_tokenizer *t);
/* One more than the largest id. */
int32_t kac_tokenizer_vocab_size(const kac_tokenizer *t);
int32_t kac_tokenizer_bos(const kac_tokenizer *t);
int32_t kac_tokenizer_eos(const kac_tokenizer *t);
int32_t kac_tokenizer_pad(const kac_tokenizer *t);
/* Where no file says it, before encoding. As in transformers, a prompt that holds `text` (NULL: none) gets the padding's id there. KAC_E_MEMORY. */
kac_status kac_tokenizer_set_pad(kac_tokenizer *t, int32_t id, const char *text);

/* ids [n_ids], n_ids ≥ 2: BOS, the text's tokens cut to n_ids − 2, EOS, padding. `text` is n_text bytes of UTF-8; a
 * byte that belongs to no character counts as U+FFFD. KAC_E_USAGE for a text above 64 KiB. O(n log n). */
kac_status kac_tokenizer_encode(int32_t *ids, int n_ids, kac_tokens *used, const kac_tokenizer *t, const char *text,
                                size_t n_text);

#endif
