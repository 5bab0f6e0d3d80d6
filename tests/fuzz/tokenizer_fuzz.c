#include "fuzz/fuzz.h"
#include "text/tokenizer.h"
#include "util/temp.h"
#include <string.h>

enum { N_IDS = 77 };

/* Texts: a short result is the start of a long one. */
static void encode(const kac_tokenizer *t, const char *text, size_t n) {
    int32_t all[4 * N_IDS], some[N_IDS];
    kac_tokens used_all, used_some;
    if (kac_tokenizer_encode(all, 4 * N_IDS, &used_all, t, text, n) != KAC_OK) return;
    if (kac_tokenizer_encode(some, N_IDS, &used_some, t, text, n) != KAC_OK) abort();
    if (used_all.n + used_all.n_cut != used_some.n + used_some.n_cut) abort();
    if (memcmp(all, some, sizeof(some[0]) * (size_t)(used_some.n - 1)) != 0) abort();
    for (int i = 0; i < N_IDS; i++)
        if (some[i] < 0 || some[i] >= kac_tokenizer_vocab_size(t)) abort();
}

static void load(const char *path) {
    kac_tokenizer *t;
    if (kac_tokenizer_load(&t, path) != KAC_OK) return;
    encode(t, "a red circle don't <|endoftext|>\xff", 33);
    kac_tokenizer_free(t);
}

/* The first byte says what the rest is: a file of merges, tokenizer.json, vocab.json, a configuration, or a text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static kac_tokenizer *shapes;
    static const char *const names[] = {"f/tokenizer.json", "f/vocab.json", "f/tokenizer_config.json", "f/merges.txt"};
    if (shapes == NULL) {
        if (kac_tokenizer_load(&shapes, KAC_SOURCE_DIR "/tests/text/data/shapes") != KAC_OK) {
            fprintf(stderr, "%s\n", kac_error());
            abort();
        }
        if (kac_dir_make(temp_path("f")) != KAC_OK) abort();
    }
    if (n == 0) return 0;
    const char kind = (char)data[0];
    if (kind == 'b')
        load(fuzz_file(data + 1, n - 1));
    else if (kind >= '0' && kind < '4') {
        for (int i = 1; i < 4; i++) unlink(temp_path(names[i]));
        if (kind == '2') {
            const char *vocab = "{\"a\":0,\"a</w>\":1,\"aa</w>\":2,\"<|startoftext|>\":3,\"<|endoftext|>\":4}";
            temp_write(names[1], vocab, strlen(vocab));
        }
        if (kind == '1' || kind == '2') temp_write(names[3], "a a</w>\n", 8);
        if (kind == '3') {
            const char *vocab =
                "{\"a\":0,\"a</w>\":1,\"aa</w>\":2,\"aaa</w>\":3,\"<|startoftext|>\":4,\"<|endoftext|>\":5}";
            temp_write(names[1], vocab, strlen(vocab));
        }
        temp_write(names[kind - '0'], data + 1, n - 1);
        load(temp_path("f"));
    } else
        encode(shapes, (const char *)data, n);
    return 0;
}
