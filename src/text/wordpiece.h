/* The WordPiece tokenizer of BERT, as transformers' BertTokenizer (5.x, and BertTokenizerFast before) does it.
 *
 *     kac_wordpiece *t;
 *     KAC_TRY(kac_wordpiece_load(&t, "models/image-reward"));
 *     int32_t ids[35];
 *     kac_tokens used;
 *     status = kac_wordpiece_encode(ids, 35, &used, t, text, strlen(text));    // [CLS], text, [SEP], padding
 *     kac_wordpiece_free(t);
 *
 * Text → control characters out → spaces around Chinese characters → NFD without accents → lower case → words and single marks of
 * punctuation → the longest pieces of the vocabulary from the left ("##" before those inside a word), or [UNK] for the whole word.
 * Source: Devlin et al. 2019 (google-research/bert tokenization.py); Wu et al. 2016. */
#ifndef KAC_TEXT_WORDPIECE_H
#define KAC_TEXT_WORDPIECE_H

#include "text/tokenizer.h"

typedef struct kac_wordpiece kac_wordpiece; /* read-only after loading: any number of threads may encode */

/* `path` is a folder with vocab.txt, or tokenizer.json instead (and, if there, tokenizer_config.json), or a list of tokens such as
 * vocab.txt itself. Without a configuration: lower case, accents off. KAC_E_IO, KAC_E_FORMAT, KAC_E_UNSUPPORTED (another kind of
 * tokenizer). */
kac_status kac_wordpiece_load(kac_wordpiece **out, const char *path);
void kac_wordpiece_free(kac_wordpiece *t); /* NULL allowed */

/* One more than the largest id. */
int32_t kac_wordpiece_vocab_size(const kac_wordpiece *t);

/* ids [n_ids], n_ids ≥ 2. `text` is n_text bytes of UTF-8; bytes that belong to no character are left out. KAC_E_USAGE for a text above
 * 64 KiB. */
kac_status kac_wordpiece_encode(int32_t *ids, int n_ids, kac_tokens *used, const kac_wordpiece *t, const char *text,
                                size_t n_text);

#endif
