/* What loading and encoding share. */
#ifndef KAC_TEXT_TOKENIZER_PARTS_H
#define KAC_TEXT_TOKENIZER_PARTS_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/token_map.h"
#include "text/tokenizer.h"
#include <pcre2.h>

enum { KAC_TOKENIZER_MAX_SPECIAL = 1024 };

/* A token that is cut out of the text before anything else. */
typedef struct kac_special {
    char *text;
    int32_t id;
    int n_more;      /* ids that follow it, for one text that means several */
    bool normalized; /* looked for in the normalised text, spelled as normalisation spells it */
} kac_special;

struct kac_tokenizer {
    int32_t byte_id[256];      /* of one byte inside a word; −1: not in the vocabulary */
    int32_t last_byte_id[256]; /* of the last byte of a word (with "</w>") */
    kac_merges merges;
    int32_t bos, eos, pad, unknown; /* unknown −1: such bytes are left out */
    int32_t n_vocab;
    int max_length;
    kac_special special[KAC_TOKENIZER_MAX_SPECIAL];
    int n_special;
    pcre2_code *pattern;
};

/* NFC, white space runs to one space, lower case, appended to *out. */
kac_status kac_text_normalize(kac_text *out, const char *text, size_t n);

#endif
