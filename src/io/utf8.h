#ifndef KAC_IO_UTF8_H
#define KAC_IO_UTF8_H

#include "base/base.h"

/* Whether n bytes are whole characters of UTF-8 (no surrogates, nothing above U+10FFFF, no overlong forms). */
bool kac_utf8_valid(const void *text, size_t n);

/* The character at the start of n ≥ 1 bytes and its length; length 0 when there is none. */
size_t kac_utf8_next(int32_t *character, const void *text, size_t n);

/* Unicode's White_Space. */
bool kac_utf8_is_space(int32_t character);

#endif
