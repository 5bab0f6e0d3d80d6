/* Textual inversion: files of every kind against the reference's text encoder with the same rows, tokens in prompts, files that do not fit. */
#include "check.h"
#include "io/inversion.h"
#include "io/safetensors.h"
#include "model/clip.h"
#include "model/source.h"
#include "text/tokenizer.h"
#include "util/golden_run.h"
#include "util/temp.h"

#define FILES "tests/golden/inversion/files/"
static const char *const specs[] = {FILES "learned_embeds.safetensors", FILES "learned_embeds.bin", FILES "a1111.pt",
                                    FILES "four.safetensors:FOUR"};

static bool run(golden *g, kac_ctx *c) {
    kac_source source;
    kac_inversion_set set;
    kac_clip *clip = NULL;
    int32_t ids[64];
    int64_t n = 0, length = 0;
    kac_clip_text_out out;
    if (!CHECK_OK(kac_source_open_dir(&source, g->dir, "model"))) return false;
    bool fine = CHECK_OK(kac_inversion_set_open(&set, specs, KAC_COUNT_OF(specs)));
    if (fine) {
        source.embeddings = &set, source.lora_part = KAC_LORA_TEXT;
        fine = CHECK_OK(kac_inversion_set_check(&set, 0, 1, 24)) && CHECK_OK(kac_clip_load_from(&clip, c, &source)) &&
               CHECK_OK(golden_ids(g, "input_ids", ids, 64, &n, &length)) &&
               CHECK_OK(kac_clip_text(&out, clip, c, ids, n, length, 0)) &&
               CHECK(golden_output(g, "last_hidden_state", out.hidden)) &&
               CHECK(golden_output(g, "pooler_output", out.pooled));
        ids[1] = 104;
        CHECK_FAILS(kac_clip_text(&out, clip, c, ids, n, length, 0), KAC_E_SHAPE, "vocabulary of 104");
        kac_clip_free(clip);
        kac_inversion_set_close(&set);
    }
    kac_source_close(&source);
    return fine;
}

static void test_files(void) {
    kac_inversion_set set;
    if (CHECK_OK(kac_inversion_set_open(&set, specs, KAC_COUNT_OF(specs)))) {
        static const char *const tokens[] = {"<one>", "<two>", "three", "FOUR"};
        for (int i = 0; i < KAC_COUNT_OF(tokens); i++) CHECK_TEXT(set.list[i].token, tokens[i]);
        CHECK(kac_inversion_set_count(&set) == 5 && set.list[0].n == 2);
        CHECK_FAILS(kac_inversion_set_check(&set, 0, 1, 768), KAC_E_SHAPE,
                    "24 wide, this model's text encoder wants 768 (SD 1.x)");
        CHECK_FAILS(kac_inversion_set_check(&set, 1, 2, 24), KAC_E_SHAPE, "clip_l and clip_g");
        kac_inversion_set_close(&set);
    }
    static float zeros[80 * 4];
    const char *path = temp_path("own.safetensors");
    const struct {
        const char *names[2];
        int64_t shape[2][2];
        kac_status status;
        const char *text;
    } cases[] = {{{"a", "b"}, {{1, 4}, {1, 4}}, KAC_E_FORMAT, "no textual inversion"},
                 {{"clip_l", "clip_g"}, {{2, 4}, {1, 4}}, KAC_E_FORMAT, "as many"},
                 {{"<t>"}, {{80, 4}}, KAC_E_FORMAT, "[1 … 75, width]"},
                 {{"two words"}, {{1, 4}}, KAC_E_USAGE, "without spaces"},
                 {{"clip_l", "clip_g"}, {{2, 4}, {2, 8}}, KAC_OK, NULL}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        kac_st_item items[2];
        const int n = cases[i].names[1] == NULL ? 1 : 2;
        for (int k = 0; k < n; k++)
            items[k] = (kac_st_item){cases[i].names[k], kac_tensor_of(zeros, KAC_F32, 2, cases[i].shape[k])};
        CHECK_OK(kac_st_write(path, items, n, NULL, 0));
        if (cases[i].status != KAC_OK) {
            CHECK_FAILS(kac_inversion_set_open(&set, &path, 1), cases[i].status, cases[i].text);
        } else if (CHECK_OK(kac_inversion_set_open(&set, &path, 1))) {
            CHECK_TEXT(set.list[0].token, "own");
            CHECK_OK(kac_inversion_set_check(&set, 1, 2, 8));
            CHECK_FAILS(kac_inversion_set_check(&set, 0, 1, 4), KAC_E_SHAPE, "two text encoders");
            kac_inversion_set_close(&set);
        }
    }
    CHECK_FAILS(kac_inversion_set_open(&set, (const char *[]){specs[0], specs[0]}, 2), KAC_E_USAGE, "same token");
    CHECK_FAILS(kac_inversion_set_open(&set, (const char *[]){FILES "four.safetensors:"}, 1), KAC_E_USAGE, "empty");
    CHECK_FAILS(kac_inversion_set_open(&set, (const char *[]){FILES "none.pt"}, 1), KAC_E_IO, "none.pt");
}

/* A token of three vectors, its single ones, another spelling of it, and its neighbours. */
static void test_tokens(void) {
    kac_tokenizer *t;
    if (!CHECK_OK(kac_tokenizer_load(&t, "tests/text/data/shapes"))) return;
    const int32_t vocab = kac_tokenizer_vocab_size(t);
    CHECK_OK(kac_tokenizer_add(t, "<Cat>", 5000, 3));
    CHECK_OK(kac_tokenizer_add(t, "dogx", 5003, 1));
    CHECK(kac_tokenizer_vocab_size(t) == 5004 && vocab < 5000);
    const char *text = "<cat><CAT>_2dogx dog";
    int32_t ids[12], plain[12];
    kac_tokens used, used_plain;
    CHECK_OK(kac_tokenizer_encode(ids, 12, &used, t, text, strlen(text)));
    CHECK_OK(kac_tokenizer_encode(plain, 12, &used_plain, t, "dog", 3));
    const int32_t want[] = {5000, 5001, 5002, 5002, 5003};
    CHECK(memcmp(ids + 1, want, sizeof want) == 0 && ids[6] == plain[1] && used.n == used_plain.n + 5);
    CHECK_FAILS(kac_tokenizer_add(t, "<cat>", 6000, 1), KAC_E_USAGE, "already has");
    CHECK_FAILS(kac_tokenizer_add(t, "<cat>_1", 6000, 1), KAC_E_USAGE, "already has");
    kac_tokenizer_free(t);
}

int main(void) {
    CHECK(golden_run("inversion", run) == 0);
    test_files();
    test_tokens();
    return check_done();
}
