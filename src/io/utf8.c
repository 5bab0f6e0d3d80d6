#include "io/utf8.h"
#include <utf8proc.h>

size_t kac_utf8_next(int32_t *character, const void *text, size_t n) {
    const utf8proc_ssize_t used = utf8proc_iterate(text, (utf8proc_ssize_t)KAC_MIN(n, (size_t)4), character);
    return used > 0 ? (size_t)used : 0;
}

bool kac_utf8_valid(const void *text, size_t n) {
    const uint8_t *s = text;
    int32_t c;
    for (size_t used; n > 0; s += used, n -= used)
        if ((used = kac_utf8_next(&c, s, n)) == 0) return false;
    return true;
}

bool kac_utf8_is_space(int32_t c) {
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
