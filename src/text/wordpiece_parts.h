/* What loading and encoding share. */
#ifndef KAC_TEXT_WORDPIECE_PARTS_H
#define KAC_TEXT_WORDPIECE_PARTS_H

#include "base/json.h"
#include "text/token_map.h"
#include "text/wordpiece.h"

enum {
    KAC_WORDPIECE_PAD,
    KAC_WORDPIECE_UNK,
    KAC_WORDPIECE_CLS,
    KAC_WORDPIECE_SEP,
    KAC_WORDPIECE_MASK,
    KAC_WORDPIECE_SPECIALS
};

/* Cut out of the text before anything else. */
typedef struct kac_wordpiece_special {
    const char *text;
    int32_t id; /* −1: this vocabulary has none */
} kac_wordpiece_special;

struct kac_wordpiece {
    kac_vocab vocab; /* its texts lie in list or document */
    char *list;
    kac_json document;
    size_t max_piece; /* bytes of the longest token */
    kac_wordpiece_special special[KAC_WORDPIECE_SPECIALS];
    bool clean, split_chinese, strip_accents, lower;
    int64_t max_word_chars;
};

#endif
