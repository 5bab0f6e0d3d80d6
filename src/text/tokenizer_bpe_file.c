#include "text/tokenizer_bpe_file.h"
#include <string.h>
#include <zlib.h>

enum {
    MAX_FILE_BYTES = 64 << 20,
    MAX_MERGES = 49152 - 256 - 2, /* the file is longer than the vocabulary */
};

static bool printable(int byte) {
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

/* Printable bytes come first in the vocabulary, in order, then the others in order. */
static int place_of(int byte) {
    int place = printable(byte) ? 0 : 188;
    for (int b = 0; b < byte; b++) place += printable(b) == printable(byte);
    return place;
}

size_t kac_byte_spelling(char *text, int byte) {
    const int c = printable(byte) ? byte : 256 + place_of(byte) - 188;
    if (c < 128) {
        text[0] = (char)c;
        return 1;
    }
    text[0] = (char)(0xC0 | c >> 6);
    text[1] = (char)(0x80 | (c & 63));
    return 2;
}

static kac_status inflate_text(kac_text *out, const char *data, size_t n, const char *path) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)n};
    if (inflateInit2(&z, 15 + 16) != Z_OK) return KAC_FAIL(KAC_E_MEMORY, "%s: zlib cannot start", path);
    char chunk[65536];
    int rc = Z_OK;
    while (rc == Z_OK && out->n <= MAX_FILE_BYTES && !out->failed) {
        z.next_out = (Bytef *)chunk;
        z.avail_out = sizeof(chunk);
        rc = inflate(&z, Z_NO_FLUSH);
        kac_text_add_bytes(out, chunk, sizeof(chunk) - z.avail_out);
    }
    inflateEnd(&z);
    if (out->failed) return KAC_E_MEMORY;
    if (rc != Z_STREAM_END) return KAC_FAIL(KAC_E_FORMAT, "%s: the gzip data is broken, cut off or too large", path);
    return KAC_OK;
}

/* Reads the file into *text, unpacked. */
static kac_status read_lines(kac_text *text, const char *path) {
    char *data;
    size_t n;
    KAC_TRY(kac_file_read(&data, &n, path, MAX_FILE_BYTES));
    kac_status status = KAC_OK;
    if (n >= 2 && (uint8_t)data[0] == 0x1F && (uint8_t)data[1] == 0x8B)
        status = inflate_text(text, data, n, path);
    else
        kac_text_add_bytes(text, data, n);
    kac_free(data);
    return text->failed ? KAC_E_MEMORY : status;
}

static const char *line_end(const char *line, const char *end) {
    const char *stop = memchr(line, '\n', (size_t)(end - line));
    return stop == NULL ? end : stop;
}

static void put_bytes(kac_tokenizer *t, kac_vocab *vocab, char spellings[512][8]) {
    for (int byte = 0; byte < 256; byte++) {
        char *plain = spellings[byte], *last = spellings[256 + byte];
        const size_t n = kac_byte_spelling(plain, byte);
        memcpy(last, plain, n);
        memcpy(last + n, "</w>", 4);
        t->byte_id[byte] = place_of(byte);
        t->last_byte_id[byte] = 256 + place_of(byte);
        kac_vocab_put(vocab, plain, n, t->byte_id[byte]);
        kac_vocab_put(vocab, last, n + 4, t->last_byte_id[byte]);
    }
}

/* `joined` has room for all lines: a merged text is shorter than its line. */
static kac_status read_merges(kac_tokenizer *t, kac_vocab *vocab, const kac_text *text, char *joined,
                              const char *path) {
    const char *end = text->s + text->n, *line = line_end(text->s, end) + 1; /* the first line is a title */
    int32_t n = 0;
    for (; line < end && n < MAX_MERGES; line = line_end(line, end) + 1) {
        const char *stop = line_end(line, end), *space = memchr(line, ' ', (size_t)(stop - line));
        if (stop > line && stop[-1] == '\r') stop--;
        if (stop == line) continue;
        const size_t n_left = space == NULL ? 0 : (size_t)(space - line);
        const size_t n_right = space == NULL ? 0 : (size_t)(stop - space) - 1;
        const int32_t left = kac_vocab_id(vocab, line, n_left),
                      right = n_right == 0 ? -1 : kac_vocab_id(vocab, space + 1, n_right);
        if (left < 0 || right < 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: line %d is not a merge of two earlier tokens", path, n + 2);
        memcpy(joined, line, n_left);
        memcpy(joined + n_left, space + 1, n_right);
        kac_vocab_put(vocab, joined, n_left + n_right, 512 + n);
        kac_merges_put(&t->merges, left, right, n, 512 + n);
        joined += n_left + n_right;
        n++;
    }
    if (n == 0) return KAC_FAIL(KAC_E_FORMAT, "%s: no merges in it", path);
    t->n_vocab = 512 + n + 2;
    return KAC_OK;
}

static kac_status set_special(kac_tokenizer *t) {
    t->bos = t->n_vocab - 2;
    t->eos = t->n_vocab - 1;
    t->unknown = -1; /* every byte has a token */
    t->max_length = 77;
    t->special[0] = (kac_special){.text = kac_strdup("<|startoftext|>"), .id = t->bos};
    t->special[1] = (kac_special){.text = kac_strdup("<|endoftext|>"), .id = t->eos};
    t->n_special = 2;
    return t->special[0].text == NULL || t->special[1].text == NULL ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_tokenizer_read_bpe_file(kac_tokenizer *t, const char *path) {
    kac_text text = {0};
    kac_vocab vocab = {0};
    char spellings[512][8];
    char *joined = NULL;
    kac_status status = read_lines(&text, path);
    if (status == KAC_OK && text.n == 0) status = KAC_FAIL(KAC_E_FORMAT, "%s is empty", path);
    if (status == KAC_OK) status = kac_vocab_init(&vocab, 512 + MAX_MERGES);
    if (status == KAC_OK) status = kac_merges_init(&t->merges, MAX_MERGES);
    if (status == KAC_OK && (joined = kac_alloc(text.n)) == NULL) status = KAC_E_MEMORY;
    if (status == KAC_OK) {
        put_bytes(t, &vocab, spellings);
        status = read_merges(t, &vocab, &text, joined, path);
    }
    if (status == KAC_OK) status = set_special(t);
    kac_free(joined);
    kac_vocab_free(&vocab);
    kac_text_free(&text);
    return status;
}
