#include "run/convert_parts.h"
#include <stdio.h>
#include <string.h>
#include <zlib.h>

/* Source: openai/CLIP, simple_tokenizer.py: the vocabulary is the bytes as characters, the same with "</w>", the merges, the two
 * special tokens. */
enum { N_MERGES = 49152 - 256 - 2, MAX_BYTES = 16 << 20 };

static kac_status read_list(char **out, const char *path) {
    gzFile f = gzopen(path, "rb");
    if (f == NULL) return KAC_FAIL(KAC_E_IO, "%s cannot be read", path);
    char *text = kac_alloc(MAX_BYTES);
    const int n = text == NULL ? -1 : gzread(f, text, MAX_BYTES - 1);
    gzclose(f);
    if (n > 0) {
        *out = text;
        return KAC_OK;
    }
    kac_free(text);
    return text == NULL ? KAC_E_MEMORY : KAC_FAIL(KAC_E_FORMAT, "%s is no list of merges", path);
}

/* The character that stands for a byte: itself where it can be seen, else one from 256 on. */
static int character(int byte, int *n_hidden) {
    const bool seen = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    return seen ? byte : 256 + (*n_hidden)++;
}

static void add_entry(kac_text *vocab, const char *s, size_t n, const char *end, int id) {
    kac_text_add(vocab, id == 0 ? "{\"" : ",\"");
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\') kac_text_add_bytes(vocab, "\\", 1);
        if (s[i] != ' ') kac_text_add_bytes(vocab, s + i, 1);
    }
    kac_text_add(vocab, "%s\":%d", end, id);
}

/* Visible bytes first, then the others, as the reference orders them. */
static int add_bytes(kac_text *vocab, const char *end, int id) {
    for (int pass = 0; pass < 2; pass++)
        for (int byte = 0, n_hidden = 0; byte < 256; byte++) {
            const int c = character(byte, &n_hidden);
            char utf8[2] = {(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F))}, one = (char)c;
            if ((c < 256) != (pass == 0)) continue;
            add_entry(vocab, c < 128 ? &one : utf8, c < 128 ? 1 : 2, end, id++);
        }
    return id;
}

static kac_status add_all(kac_text *vocab, kac_text *merges, const char *list, const char *path) {
    int id = add_bytes(vocab, "", 0);
    id = add_bytes(vocab, "</w>", id);
    const char *line = strchr(list, '\n');
    kac_text_add(merges, "#version: 0.2\n");
    for (int i = 0; i < N_MERGES; i++) {
        const char *end = line == NULL ? NULL : strchr(line + 1, '\n');
        if (end == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s has only %d merges", path, i);
        add_entry(vocab, line + 1, (size_t)(end - line - 1), "", id++);
        kac_text_add_bytes(merges, line + 1, (size_t)(end - line));
        line = end;
    }
    kac_text_add(vocab, ",\"<|startoftext|>\":%d,\"<|endoftext|>\":%d}\n", id, id + 1);
    return vocab->failed || merges->failed ? KAC_E_MEMORY : KAC_OK;
}

static kac_status write_text(const char *dir, const char *name, const char *text, size_t n) {
    char *path = kac_path_join(dir, name);
    const kac_status s = path == NULL ? KAC_E_MEMORY : kac_file_write(path, text, n);
    kac_free(path);
    return s;
}

static kac_status write_small(const char *dir, const char *pad) {
    static const char
        special[] = "{\"bos_token\":\"<|startoftext|>\",\"eos_token\":\"<|endoftext|>\",\"pad_token\":\"%s\","
                    "\"unk_token\":\"<|endoftext|>\"}\n",
        config[] =
            "{\"add_prefix_space\":false,\"bos_token\":\"<|startoftext|>\",\"do_lower_case\":true,"
            "\"eos_token\":\"<|endoftext|>\",\"errors\":\"replace\",\"model_max_length\":77,\"pad_token\":\"%s\","
            "\"tokenizer_class\":\"CLIPTokenizer\",\"unk_token\":\"<|endoftext|>\"}\n";
    char text[512];
    const kac_status s =
        write_text(dir, "special_tokens_map.json", text, (size_t)snprintf(text, sizeof text, special, pad));
    return s != KAC_OK
               ? s
               : write_text(dir, "tokenizer_config.json", text, (size_t)snprintf(text, sizeof text, config, pad));
}

kac_status kac_convert_tokenizer(const char *dir, const char *merges_path, const char *pad) {
    char *list = NULL;
    kac_text vocab = {0}, merges = {0};
    KAC_TRY(kac_dir_make(dir));
    KAC_TRY(read_list(&list, merges_path));
    kac_status s = add_all(&vocab, &merges, list, merges_path);
    if (s == KAC_OK) s = write_text(dir, "vocab.json", vocab.s, vocab.n);
    if (s == KAC_OK) s = write_text(dir, "merges.txt", merges.s, merges.n);
    if (s == KAC_OK) s = write_small(dir, pad);
    kac_text_free(&vocab);
    kac_text_free(&merges);
    kac_free(list);
    return s;
}
