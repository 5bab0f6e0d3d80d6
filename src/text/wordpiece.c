#include "io/utf8.h"
#include "text/wordpiece_parts.h"
#include <string.h>
#include <utf8proc.h>

enum { MAX_TEXT_BYTES = 1 << 16 };

/* The work of one call of encode. */
typedef struct encoder {
    const kac_wordpiece *t;
    int32_t *ids; /* after [CLS] */
    int n_room;
    int64_t n_tokens; /* also those that did not fit */
    kac_text piece;   /* "##" and the rest of a word */
} encoder;

static void emit(encoder *e, int32_t id) {
    if (e->n_tokens < e->n_room) e->ids[e->n_tokens] = id;
    e->n_tokens++;
}

/* ---- characters ---- */

/* Characters that no version of Unicode has assigned stay, as in the reference. */
static bool is_removed(int32_t c) {
    if (c == '\t' || c == '\n' || c == '\r') return false;
    const utf8proc_category_t k = utf8proc_category(c);
    return c == 0 || c == 0xFFFD || k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

static bool is_punctuation(int32_t c) {
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    const utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/* CJK ideographs, not the letters of Japanese and Korean. 2B820 … 2B91F are left out, as the reference does. */
static bool is_chinese(int32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void add_char(kac_text *t, int32_t c) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);
    kac_text_add_bytes(t, (const char *)bytes, (size_t)n);
}

/* The next character of valid UTF-8. */
static int32_t next_char(const char *text, size_t n, size_t *at) {
    int32_t c;
    const size_t used = kac_utf8_next(&c, text + *at, n - *at);
    KAC_ASSERT(used > 0);
    *at += used;
    return c;
}

/* ---- normalisation ---- */

static void add_clean(kac_text *out, const kac_wordpiece *t, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        int32_t c;
        const size_t used = kac_utf8_next(&c, text + i, n - i);
        i += used > 0 ? used : 1;
        if (used == 0) c = 0xFFFD;
        if (t->clean && is_removed(c)) continue;
        const bool chinese = t->split_chinese && is_chinese(c);
        if (chinese) add_char(out, ' ');
        add_char(out, t->clean && kac_utf8_is_space(c) ? ' ' : c);
        if (chinese) add_char(out, ' ');
    }
    kac_text_add_bytes(out, "", 0);
}

/* Characters and accents apart, accents off. */
static kac_status strip_accents(kac_text *out, const kac_text *in) {
    utf8proc_uint8_t *apart = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const uint8_t *)in->s, (utf8proc_ssize_t)in->n, &apart, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    if (n < 0) return KAC_FAIL(KAC_E_MEMORY, "text: %s", utf8proc_errmsg(n));
    for (size_t at = 0; at < (size_t)n;) {
        const int32_t c = next_char((const char *)apart, (size_t)n, &at);
        if (utf8proc_category(c) != UTF8PROC_CATEGORY_MN) add_char(out, c);
    }
    kac_free(apart); /* utf8proc's memory is malloc's */
    kac_text_add_bytes(out, "", 0);
    return KAC_OK;
}

static void add_lower(kac_text *out, const kac_text *in) {
    for (size_t at = 0; at < in->n;) {
        const int32_t c = next_char(in->s, in->n, &at);
        if (c == 0x130) /* the one letter whose lower case is two characters */
            kac_text_add_bytes(out, "i\xCC\x87", 3);
        else
            add_char(out, utf8proc_tolower(c));
    }
    kac_text_add_bytes(out, "", 0);
}

static kac_status normalize(kac_text *out, const kac_wordpiece *t, const char *text, size_t n) {
    kac_text clean = {0}, bare = {0};
    kac_status s = KAC_OK;
    add_clean(&clean, t, text, n);
    if (!clean.failed && t->strip_accents) {
        s = strip_accents(&bare, &clean);
        kac_text_free(&clean);
        clean = bare;
    }
    if (s == KAC_OK && !clean.failed && t->lower) {
        add_lower(out, &clean);
        kac_text_free(&clean);
    } else {
        *out = clean;
    }
    return s == KAC_OK && out->failed ? KAC_E_MEMORY : s;
}

/* ---- words and pieces ---- */

/* Length of the longest token that begins `rest`, which ends at a character; 0: none. */
static size_t longest_piece(encoder *e, const char *rest, size_t n, bool inside, int32_t *id) {
    const size_t n_prefix = inside ? 2 : 0;
    e->piece.n = 0;
    kac_text_add_bytes(&e->piece, "##", n_prefix);
    kac_text_add_bytes(&e->piece, rest, KAC_MIN(n, e->t->max_piece));
    if (e->piece.failed) return 0;
    for (size_t end = KAC_MIN(n, e->t->max_piece); end > 0; end--) {
        if (end < n && ((unsigned char)rest[end] & 0xC0) == 0x80) continue;
        *id = kac_vocab_id(&e->t->vocab, e->piece.s, n_prefix + end);
        if (*id >= 0) return end;
    }
    return 0;
}

/* A word becomes its pieces, or one [UNK]. */
static kac_status encode_word(encoder *e, const char *word, size_t n) {
    int64_t n_chars = 0;
    for (size_t i = 0; i < n; i++) n_chars += ((unsigned char)word[i] & 0xC0) != 0x80;
    const int64_t before = e->n_tokens;
    bool known = n_chars <= e->t->max_word_chars;
    for (size_t at = 0; at < n && known;) {
        int32_t id = -1;
        const size_t used = longest_piece(e, word + at, n - at, at > 0, &id);
        known = used > 0;
        if (known) emit(e, id);
        at += used;
    }
    if (e->piece.failed) return KAC_E_MEMORY;
    if (!known) {
        e->n_tokens = before;
        emit(e, e->t->special[KAC_WORDPIECE_UNK].id);
    }
    return KAC_OK;
}

static kac_status encode_words(encoder *e, const char *text, size_t n) {
    size_t begin = 0;
    for (size_t at = 0; at < n;) {
        const size_t here = at;
        const int32_t c = next_char(text, n, &at);
        const bool space = kac_utf8_is_space(c), mark = is_punctuation(c);
        if (!space && !mark) continue;
        if (here > begin) KAC_TRY(encode_word(e, text + begin, here - begin));
        if (mark) KAC_TRY(encode_word(e, text + here, at - here));
        begin = at;
    }
    return n > begin ? encode_word(e, text + begin, n - begin) : KAC_OK;
}

/* The first special token spelled out in the text; NULL: none. */
static const kac_wordpiece_special *find_special(const kac_wordpiece *t, const char *text, size_t n, size_t *at) {
    const kac_wordpiece_special *found = NULL;
    for (int i = 0; i < KAC_WORDPIECE_SPECIALS; i++) {
        const kac_wordpiece_special *s = &t->special[i];
        const char *place = s->id < 0 ? NULL : memmem(text, n, s->text, strlen(s->text));
        if (place == NULL || (found != NULL && (size_t)(place - text) > *at)) continue;
        found = s;
        *at = (size_t)(place - text);
    }
    return found;
}

static kac_status encode_text(encoder *e, const char *text, size_t n) {
    while (n > 0) {
        size_t at = n;
        const kac_wordpiece_special *s = find_special(e->t, text, n, &at);
        kac_text normal = {0};
        kac_status status = normalize(&normal, e->t, text, at);
        if (status == KAC_OK) status = encode_words(e, normal.s, normal.n);
        kac_text_free(&normal);
        KAC_TRY(status);
        if (s == NULL) break;
        emit(e, s->id);
        const size_t used = at + strlen(s->text);
        text += used;
        n -= used;
    }
    return KAC_OK;
}

kac_status kac_wordpiece_encode(int32_t *ids, int n_ids, kac_tokens *used, const kac_wordpiece *t, const char *text,
                                size_t n_text) {
    if (n_ids < 2) return KAC_FAIL(KAC_E_USAGE, "a text needs room for at least 2 tokens, not %d", n_ids);
    if (n_text > MAX_TEXT_BYTES)
        return KAC_FAIL(KAC_E_USAGE, "the text has %zu bytes, more than the %d that are allowed", n_text,
                        (int)MAX_TEXT_BYTES);
    encoder e = {.t = t, .ids = ids + 1, .n_room = n_ids - 2};
    const kac_status status = encode_text(&e, text, n_text);
    kac_text_free(&e.piece);
    KAC_TRY(status);
    const int n_kept = (int)KAC_MIN(e.n_tokens, (int64_t)e.n_room);
    ids[0] = t->special[KAC_WORDPIECE_CLS].id;
    ids[n_kept + 1] = t->special[KAC_WORDPIECE_SEP].id;
    for (int i = n_kept + 2; i < n_ids; i++) ids[i] = t->special[KAC_WORDPIECE_PAD].id;
    if (used != NULL) *used = (kac_tokens){.n = n_kept + 2, .n_cut = e.n_tokens - n_kept};
    return KAC_OK;
}
