#include "fuzz/fuzz.h"
#include "text/prompt.h"
#include <math.h>
#include <string.h>

enum { N_EACH = 9 };

static kac_tokenizer *shapes;

/* The pieces cover their text without gaps, neighbours differ, weights are finite. */
static void check_pieces(const char *text) {
    kac_prompt_pieces p;
    if (kac_prompt_parse(&p, text) == KAC_OK) {
        size_t at = 0;
        if (p.n < 1) abort();
        for (int i = 0; i < p.n; i++) {
            if (p.items[i].first != at || !isfinite(p.items[i].weight)) abort();
            if (i > 0 && p.items[i].weight == p.items[i - 1].weight) abort();
            at += p.items[i].n;
        }
        if (strlen(p.text) != at || at > strlen(text)) abort();
    }
    kac_prompt_pieces_free(&p);
}

/* One chunk is the beginning of many; every chunk begins with BOS and holds ids of the vocabulary. */
static void check_ids(const char *text, bool weighting) {
    kac_prompt_ids one, all;
    const kac_status s = kac_prompt_encode(&one, shapes, text, N_EACH, (kac_prompt_options){.weighting = weighting});
    const kac_status s2 = kac_prompt_encode(&all, shapes, text, N_EACH, (kac_prompt_options){weighting, true});
    if (s == KAC_OK && s2 == KAC_OK) {
        if (one.n_chunks != 1 || memcmp(one.ids, all.ids, N_EACH * sizeof *one.ids) != 0) abort();
        if (all.n_cut != 0 || (one.n_cut > 0) != (all.n_chunks > 1)) abort();
        if (kac_prompt_extend(&all, shapes, all.n_chunks + 1) != KAC_OK) abort();
        for (int i = 0; i < all.n_chunks * N_EACH; i++) {
            if (all.ids[i] < 0 || all.ids[i] >= kac_tokenizer_vocab_size(shapes)) abort();
            if (i % N_EACH == 0 && all.ids[i] != kac_tokenizer_bos(shapes)) abort();
        }
    }
    kac_prompt_ids_free(&one), kac_prompt_ids_free(&all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (shapes == NULL && kac_tokenizer_load(&shapes, KAC_SOURCE_DIR "/tests/text/data/shapes") != KAC_OK) abort();
    char *text = malloc(n + 1);
    if (text == NULL) abort();
    memcpy(text, data, n);
    text[n] = '\0';
    check_pieces(text);
    check_ids(text, true);
    check_ids(text, false);
    (void)kac_prompt_has_weights(text);
    free(text);
    return 0;
}
