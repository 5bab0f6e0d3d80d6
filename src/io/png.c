#include "io/png.h"
#include "io/utf8.h"
#include <string.h>

/* A PNG is a signature, then chunks: length (4 bytes, big endian), type, data, CRC of type and data. */
static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

enum {
    HEADER_END = 8 + 4 + 4 + 13 + 4, /* the signature and IHDR, which must come first */
    MAX_FILE_BYTES = 512 << 20,
    MAX_KEY = 79,
};

uint32_t kac_png_uint32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void add_big_endian(kac_text *t, uint32_t v) {
    const char bytes[4] = {(char)(v >> 24), (char)(v >> 16), (char)(v >> 8), (char)v};
    kac_text_add_bytes(t, bytes, 4);
}

/* Appends the text as Latin-1; false when a character does not fit or it is not UTF-8 (*valid says which). */
static bool to_latin1(kac_text *out, const char *s, bool *valid) {
    bool fits = true;
    *valid = true;
    for (size_t i = 0, n = strlen(s); i < n;) {
        int32_t c;
        const size_t used = kac_utf8_next(&c, s + i, n - i);
        if (used == 0) return *valid = false;
        fits &= c < 256;
        kac_text_add_bytes(out, (const char[]){(char)c}, 1);
        i += used;
    }
    return fits;
}

static bool key_is_fine(const char *key, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (key[i] < 32 || key[i] > 126) return false;
    return n >= 1 && n <= MAX_KEY && key[0] != ' ' && key[n - 1] != ' ';
}

static kac_status add_text_chunk(kac_text *out, const kac_png_text *text, const char *path) {
    if (!key_is_fine(text->key, strlen(text->key)))
        return KAC_FAIL(KAC_E_USAGE, "%s: \"%.80s\" cannot name a text in a PNG", path, text->key);
    kac_text latin1 = {0};
    bool valid;
    const bool fits = to_latin1(&latin1, text->value, &valid);
    const size_t n_value = fits ? latin1.n : strlen(text->value);
    kac_status status = latin1.failed ? KAC_E_MEMORY : KAC_OK;
    if (!valid) status = KAC_FAIL(KAC_E_USAGE, "%s: the text \"%s\" is not UTF-8", path, text->key);
    const size_t n = strlen(text->key) + (fits ? 1 : 5) + n_value;
    if (status == KAC_OK && n > INT32_MAX)
        status = KAC_FAIL(KAC_E_USAGE, "%s: the text \"%s\" is too long", path, text->key);
    if (status == KAC_OK) {
        add_big_endian(out, (uint32_t)n);
        const size_t start = out->n;
        kac_text_add_bytes(out, fits ? "tEXt" : "iTXt", 4);
        kac_text_add_bytes(out, text->key, strlen(text->key));
        kac_text_add_bytes(out, "\0\0\0\0", fits ? 1 : 5); /* iTXt: not compressed, no language, no translated key */
        kac_text_add_bytes(out, fits ? latin1.s : text->value, n_value);
        if (!out->failed) add_big_endian(out, kac_crc32(out->s + start, out->n - start, 0));
    }
    kac_text_free(&latin1);
    return status;
}

kac_status kac_png_save(const char *path, const uint8_t *rgb, int width, int height, const kac_png_text *texts,
                        int n_texts) {
    uint8_t *png;
    size_t n;
    KAC_TRY(kac_png_encode(&png, &n, rgb, width, height, path));
    kac_text file = {0};
    kac_text_add_bytes(&file, (const char *)png, HEADER_END);
    kac_status status = KAC_OK;
    for (int i = 0; i < n_texts && status == KAC_OK; i++) status = add_text_chunk(&file, &texts[i], path);
    kac_text_add_bytes(&file, (const char *)png + HEADER_END, n - HEADER_END);
    kac_free(png);
    if (status == KAC_OK && file.failed) status = KAC_E_MEMORY;
    if (status == KAC_OK) status = kac_file_write(path, file.s, file.n);
    kac_text_free(&file);
    return status;
}

/* ---- reading ---- */

static char *from_latin1(const uint8_t *s, size_t n) {
    kac_text t = {0};
    kac_text_add_bytes(&t, "", 0);
    for (size_t i = 0; i < n; i++) {
        const char two[2] = {(char)(0xC0 | s[i] >> 6), (char)(0x80 | (s[i] & 63))};
        kac_text_add_bytes(&t, s[i] < 128 ? (const char *)s + i : two, s[i] < 128 ? 1 : 2);
    }
    if (t.failed) kac_text_free(&t);
    return t.s;
}

static kac_status broken(const char *name) {
    return KAC_FAIL(KAC_E_FORMAT, "%s: a text chunk of the PNG is broken", name);
}

static kac_status add_item(kac_png_texts *out, const uint8_t *key, size_t n_key, const uint8_t *value, size_t n_value,
                           bool latin1, const char *name) {
    if (!key_is_fine((const char *)key, n_key) || memchr(value, 0, n_value) != NULL ||
        (!latin1 && !kac_utf8_valid(value, n_value)))
        return broken(name);
    if (out->n == KAC_PNG_MAX_TEXTS)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: more than %d text chunks", name, (int)KAC_PNG_MAX_TEXTS);
    if (out->items == NULL && (out->items = kac_alloc(KAC_PNG_MAX_TEXTS * sizeof(*out->items))) == NULL)
        return KAC_E_MEMORY;
    kac_png_text *item = &out->items[out->n++];
    *item = (kac_png_text){.key = from_latin1(key, n_key)};
    if (latin1)
        item->value = from_latin1(value, n_value);
    else if ((item->value = kac_alloc(n_value + 1)) != NULL && n_value > 0)
        memcpy(item->value, value, n_value);
    return item->key == NULL || item->value == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* key 0 text */
static kac_status read_plain(kac_png_texts *out, const uint8_t *data, size_t n, const char *name) {
    const uint8_t *zero = memchr(data, 0, n);
    if (zero == NULL) return broken(name);
    return add_item(out, data, (size_t)(zero - data), zero + 1, (size_t)(data + n - zero - 1), true, name);
}

/* key 0 compressed method language 0 translated key 0 text */
static kac_status read_international(kac_png_texts *out, const uint8_t *data, size_t n, const char *name) {
    const uint8_t *end = data + n, *zero = memchr(data, 0, n);
    if (zero == NULL || end - zero < 3) return broken(name);
    if (zero[1] != 0) return KAC_OK;
    const uint8_t *language = memchr(zero + 3, 0, (size_t)(end - zero - 3));
    const uint8_t *translated = language == NULL ? NULL : memchr(language + 1, 0, (size_t)(end - language - 1));
    if (translated == NULL) return broken(name);
    return add_item(out, data, (size_t)(zero - data), translated + 1, (size_t)(end - translated - 1), false, name);
}

static kac_status read_chunks(kac_png_texts *out, const uint8_t *data, size_t n, const char *name) {
    if (n < sizeof(signature) || memcmp(data, signature, sizeof(signature)) != 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s is not a PNG", name);
    for (size_t at = sizeof(signature);;) {
        if (n - at < 12) return KAC_FAIL(KAC_E_FORMAT, "%s: the PNG is cut off", name);
        const uint8_t *chunk = data + at, *type = chunk + 4;
        const size_t n_chunk = kac_png_uint32(chunk);
        if (n_chunk > n - at - 12) return KAC_FAIL(KAC_E_FORMAT, "%s: the PNG is cut off", name);
        const bool plain = memcmp(type, "tEXt", 4) == 0, international = memcmp(type, "iTXt", 4) == 0;
        if ((plain || international) && kac_crc32(type, n_chunk + 4, 0) != kac_png_uint32(type + 4 + n_chunk))
            return KAC_FAIL(KAC_E_FORMAT, "%s: a text chunk of the PNG has a wrong checksum", name);
        if (plain) KAC_TRY(read_plain(out, type + 4, n_chunk, name));
        if (international) KAC_TRY(read_international(out, type + 4, n_chunk, name));
        if (memcmp(type, "IEND", 4) == 0) return KAC_OK;
        at += 12 + n_chunk;
    }
}

kac_status kac_png_texts_parse(kac_png_texts *out, const void *data, size_t n_bytes, const char *name) {
    *out = (kac_png_texts){0};
    const kac_status status = read_chunks(out, data, n_bytes, name);
    if (status != KAC_OK) kac_png_texts_free(out);
    return status;
}

kac_status kac_png_texts_read(kac_png_texts *out, const char *path) {
    char *data;
    size_t n;
    *out = (kac_png_texts){0};
    KAC_TRY(kac_file_read(&data, &n, path, MAX_FILE_BYTES));
    const kac_status status = kac_png_texts_parse(out, data, n, path);
    kac_free(data);
    return status;
}

void kac_png_texts_free(kac_png_texts *texts) {
    for (int i = 0; i < texts->n; i++) {
        kac_free(texts->items[i].key);
        kac_free(texts->items[i].value);
    }
    kac_free(texts->items);
    *texts = (kac_png_texts){0};
}

const char *kac_png_texts_get(const kac_png_texts *texts, const char *key) {
    for (int i = 0; i < texts->n; i++)
        if (strcmp(texts->items[i].key, key) == 0) return texts->items[i].value;
    return NULL;
}
