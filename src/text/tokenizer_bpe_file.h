/* OpenAI's list of merges, from which the whole vocabulary follows. */
#ifndef KAC_TEXT_TOKENIZER_BPE_FILE_H
#define KAC_TEXT_TOKENIZER_BPE_FILE_H

#include "text/tokenizer_parts.h"

/* Fills everything but the pattern. Ids: 256 bytes, the same with "</w>", one per merge, BOS, EOS; the padding is 0 and
 * the length 77 as in openai/CLIP's tokenize. Plain text or gzip. */
kac_status kac_tokenizer_read_bpe_file(kac_tokenizer *t, const char *path);

/* How byte-level BPE writes a byte as a character: UTF-8 of at most 2 bytes into text; returns the length. */
size_t kac_byte_spelling(char *text, int byte);

#endif
