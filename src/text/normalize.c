#include "io/utf8.h"
#include "text/tokenizer_parts.h"
#include <utf8proc.h>

static void add_char(kac_text *t, utf8proc_int32_t c) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);
    kac_text_add_bytes(t, (const char *)bytes, (size_t)n);
}

/* Bytes that belong to no character become U+FFFD, one each. */
static void add_repaired(kac_text *t, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        int32_t c;
        const size_t used = kac_utf8_next(&c, text + i, n - i);
        if (used > 0)
            kac_text_add_bytes(t, text + i, used);
        else
            kac_text_add_bytes(t, "\xEF\xBF\xBD", 3);
        i += used > 0 ? used : 1;
    }
}

kac_status kac_text_normalize(kac_text *out, const char *text, size_t n) {
    kac_text repaired = {0};
    add_repaired(&repaired, text, n);
    kac_text_add_bytes(&repaired, "", 0);
    utf8proc_uint8_t *composed = NULL;
    const utf8proc_ssize_t n_composed = repaired.failed
                                            ? UTF8PROC_ERROR_NOMEM
                                            : utf8proc_map((const uint8_t *)repaired.s, (utf8proc_ssize_t)repaired.n,
                                                           &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    kac_text_free(&repaired);
    if (n_composed < 0) return KAC_FAIL(KAC_E_MEMORY, "text: %s", utf8proc_errmsg(n_composed));
    bool in_space = false;
    for (utf8proc_ssize_t i = 0; i < n_composed;) {
        int32_t c;
        const size_t used = kac_utf8_next(&c, composed + i, (size_t)(n_composed - i));
        KAC_ASSERT(used > 0);
        i += (utf8proc_ssize_t)used;
        if (kac_utf8_is_space(c)) {
            if (!in_space) kac_text_add_bytes(out, " ", 1);
            in_space = true;
            continue;
        }
        in_space = false;
        if (c == 0x130) /* the one letter whose lower case is two characters */
            kac_text_add_bytes(out, "i\xCC\x87", 3);
        else
            add_char(out, utf8proc_tolower(c));
    }
    kac_free(composed); /* utf8proc's memory is malloc's */
    kac_text_add_bytes(out, "", 0);
    return out->failed ? KAC_E_MEMORY : KAC_OK;
}
