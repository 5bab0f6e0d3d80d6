#include "base/json.h"
#include "check.h"
#include "text/tokenizer.h"
#include "util/temp.h"
#include <stdlib.h>
#include <zlib.h>

#define DATA "tests/text/data/"
#define BPE DATA "bpe_simple_vocab_16e6.head.txt.gz"
#define SHAPES DATA "shapes"

enum { N_IDS = 4096 };

static bool same_ids(const int32_t *ids, int n, const cJSON *want) {
    if (cJSON_GetArraySize(want) != n) return false;
    const cJSON *item;
    cJSON_ArrayForEach(item, want) if (*ids++ != item->valueint) return false;
    return true;
}

static void show_row(const cJSON *row, const int32_t *ids, int n) {
    char *text = cJSON_PrintUnformatted(row);
    printf("  %s\n  got ", text);
    for (int i = 0; i < n; i++) printf("%d,", ids[i]);
    printf("\n");
    cJSON_free(text);
}

/* Calls check(line) for each row of a file of JSON lines; returns their number. */
static int each_row(const char *path, void (*check)(const cJSON *row)) {
    char *text, *line;
    size_t n;
    int n_rows = 0;
    if (!CHECK_OK(kac_file_read(&text, &n, path, 1 << 24))) return 0;
    for (line = text; *line != 0;) {
        char *end = strchr(line, '\n');
        if (end == NULL) end = line + strlen(line);
        cJSON *row = cJSON_ParseWithLength(line, (size_t)(end - line));
        if (CHECK(row != NULL)) check(row);
        cJSON_Delete(row);
        line = *end == 0 ? end : end + 1;
        n_rows++;
    }
    kac_free(text);
    return n_rows;
}

static kac_tokenizer *clip, *shapes, *bang;
static int n_checked;
static int32_t ids[N_IDS];

static void check_openai(const cJSON *row) {
    if (!cJSON_IsTrue(cJSON_GetObjectItem(row, "ftfy_noop"))) return;
    const char *text = cJSON_GetObjectItem(row, "text")->valuestring;
    kac_tokens used;
    n_checked++;
    if (!CHECK_OK(kac_tokenizer_encode(ids, N_IDS, &used, clip, text, strlen(text)))) return;
    CHECK(ids[0] == 49406 && ids[used.n - 1] == 49407 && used.n_cut == 0);
    if (!CHECK(same_ids(ids + 1, used.n - 2, cJSON_GetObjectItem(row, "ids")))) show_row(row, ids, used.n);
}

static void check_transformers(const cJSON *row) {
    const char *name = cJSON_GetObjectItem(row, "tokenizer")->valuestring;
    char *text = cJSON_GetObjectItem(row, "text")->valuestring;
    size_t n = strlen(text);
    for (char *zero; (zero = memmem(text, n, "\xEE\x80\x80", 3)) != NULL; n -= 2) { /* U+E000 stands for a zero byte */
        *zero = 0;
        memmove(zero + 1, zero + 3, n - (size_t)(zero + 3 - text));
    }
    const kac_tokenizer *t = strcmp(name, "clip") == 0 ? clip : strcmp(name, "bang") == 0 ? bang : shapes;
    kac_tokens used;
    n_checked++;
    if (!CHECK_OK(kac_tokenizer_encode(ids, N_IDS, &used, t, text, n))) return;
    if (!CHECK(same_ids(ids, used.n, cJSON_GetObjectItem(row, "ids")))) show_row(row, ids, used.n);
}

/* The first N merges as merges.txt and the vocabulary that follows from them as vocab.json, with "!" for padding. */
static void make_folder(const char *dir) {
    enum { N_MERGES = 48894 };
    gzFile z = gzopen(BPE, "rb");
    char line[1024], name[64];
    kac_text vocab = {0}, merges = {0};
    kac_text_add(&vocab, "{\"<|startoftext|>\": %d, \"<|endoftext|>\": %d", 512 + N_MERGES, 513 + N_MERGES);
    static const int first[] = {33, 161, 174, 256}, last[] = {126, 172, 255, 323};
    for (int word_end = 0, id = 0; word_end < 2; word_end++)
        for (int r = 0; r < 4; r++)
            for (int c = first[r]; c <= last[r]; c++)
                kac_text_add(&vocab, ", \"\\u%04x%s\": %d", c, word_end ? "</w>" : "", id++);
    CHECK(gzgets(z, line, sizeof(line)) != NULL);
    kac_text_add(&merges, "#version: 0.2\n");
    for (int i = 0; i < N_MERGES && CHECK(gzgets(z, line, sizeof(line)) != NULL); i++) {
        kac_text_add(&merges, "%s", line);
        *strchr(line, '\n') = 0;
        char *space = strchr(line, ' ');
        *space = 0;
        kac_text_add(&vocab, ", \"");
        for (const char *s = line; s < space + 1 + strlen(space + 1); s++)
            if (s != space) kac_text_add(&vocab, *s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
        kac_text_add(&vocab, "\": %d", 512 + i);
    }
    gzclose(z);
    kac_text_add(&vocab, "}");
    CHECK_OK(kac_dir_make(temp_path(dir)));
    snprintf(name, sizeof(name), "%s/vocab.json", dir);
    temp_write(name, vocab.s, vocab.n);
    snprintf(name, sizeof(name), "%s/merges.txt", dir);
    temp_write(name, merges.s, merges.n);
    snprintf(name, sizeof(name), "%s/special_tokens_map.json", dir);
    const char *map =
        "{\"pad_token\": \"!\", \"bos_token\": {\"content\": \"<|startoftext|>\", \"normalized\": false}}";
    temp_write(name, map, strlen(map));
    kac_text_free(&vocab);
    kac_text_free(&merges);
}

static void test_golden(void) {
    make_folder("bang");
    if (!CHECK_OK(kac_tokenizer_load(&clip, BPE)) || !CHECK_OK(kac_tokenizer_load(&shapes, SHAPES)) ||
        !CHECK_OK(kac_tokenizer_load(&bang, temp_path("bang"))))
        return;
    CHECK(kac_tokenizer_vocab_size(clip) == 49408 && kac_tokenizer_max_length(clip) == 77 &&
          kac_tokenizer_pad(clip) == 0);
    CHECK(kac_tokenizer_vocab_size(bang) == 49408 && kac_tokenizer_max_length(bang) == 0 &&
          kac_tokenizer_pad(bang) == 0);
    CHECK(kac_tokenizer_vocab_size(shapes) == 918 && kac_tokenizer_max_length(shapes) == 32);
    CHECK(kac_tokenizer_bos(shapes) == 916 && kac_tokenizer_eos(shapes) == 917 && kac_tokenizer_pad(shapes) == 917);
    CHECK(each_row(DATA "expected_ids.jsonl", check_openai) == 2545);
    CHECK(n_checked == 2524);
    n_checked = 0;
    CHECK(each_row(DATA "transformers_ids.jsonl", check_transformers) > 2000);
    CHECK(n_checked > 2000);
}

static void test_room(void) {
    kac_tokens used;
    int32_t got[9];
    memset(got, 0xFF, sizeof(got));
    CHECK_OK(kac_tokenizer_encode(got, 8, &used, shapes, "a red circle", 12));
    const int32_t padded[9] = {916, 320, 583, 545, 917, 917, 917, 917, -1};
    CHECK(memcmp(got, padded, sizeof(got)) == 0 && used.n == 5 && used.n_cut == 0);
    CHECK_OK(kac_tokenizer_encode(got, 4, &used, shapes, "a red circle", 12));
    const int32_t cut[4] = {916, 320, 583, 917};
    CHECK(memcmp(got, cut, sizeof(cut)) == 0 && used.n == 4 && used.n_cut == 1);
    CHECK_OK(kac_tokenizer_encode(got, 2, &used, shapes, "a red circle", 12));
    CHECK(got[0] == 916 && got[1] == 917 && used.n_cut == 3);
    CHECK_OK(kac_tokenizer_encode(got, 3, NULL, shapes, NULL, 0));
    CHECK(got[0] == 916 && got[1] == 917 && got[2] == 917);
    CHECK_FAILS(kac_tokenizer_encode(got, 1, &used, shapes, "a", 1), KAC_E_USAGE, "at least 2");
    char *large = calloc(1, 65537);
    memset(large, 'a', 65537);
    CHECK_OK(kac_tokenizer_encode(got, 9, &used, shapes, large, 65536));
    CHECK(used.n_cut > 1000);
    CHECK_FAILS(kac_tokenizer_encode(got, 9, &used, shapes, large, 65537), KAC_E_USAGE, "65537 bytes");
    free(large);
}

static void test_invalid_utf8(void) {
    static const char *const bad[] = {"\xff",     "\xc3",  "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xc0\x80", "a\x80z"};
    int32_t got[32], want[32];
    for (int i = 0; i < KAC_COUNT_OF(bad); i++) {
        kac_text repaired = {0};
        for (const char *c = bad[i]; *c != 0; c++)
            kac_text_add_bytes(&repaired, (*c & 0x80) ? "\xEF\xBF\xBD" : c, (*c & 0x80) ? 3 : 1);
        CHECK_OK(kac_tokenizer_encode(got, 32, NULL, clip, bad[i], strlen(bad[i])));
        CHECK_OK(kac_tokenizer_encode(want, 32, NULL, clip, repaired.s, repaired.n));
        kac_text_free(&repaired);
        CHECK(memcmp(got, want, sizeof(got)) == 0);
    }
}

static kac_status load_with(const char *name, const char *text) {
    char path[64];
    kac_tokenizer *t = NULL;
    snprintf(path, sizeof(path), "small/%s", name);
    temp_write(path, text, strlen(text));
    const kac_status status = kac_tokenizer_load(&t, temp_path("small"));
    CHECK((status == KAC_OK) == (t != NULL));
    kac_tokenizer_free(t);
    return status;
}

#define VOCAB "{\"a\":0,\"a</w>\":1,\"aa</w>\":2,\"<|startoftext|>\":3,\"<|endoftext|>\":4}"

static void test_broken_folders(void) {
    kac_tokenizer *t;
    CHECK_FAILS(kac_tokenizer_load(&t, temp_path("none")), KAC_E_IO, "none");
    CHECK_OK(kac_dir_make(temp_path("small")));
    CHECK_FAILS(kac_tokenizer_load(&t, temp_path("small")), KAC_E_IO, "vocab.json");
    CHECK_FAILS(load_with("vocab.json", VOCAB), KAC_E_IO, "merges.txt");
    CHECK_OK(load_with("merges.txt", "#version: 0.2\r\na a</w>\r\n"));
    CHECK_FAILS(load_with("merges.txt", "a b\n"), KAC_E_FORMAT, "does not have");
    CHECK_FAILS(load_with("merges.txt", "a\n"), KAC_E_FORMAT, "two texts");
    CHECK_FAILS(load_with("merges.txt", "a a</w> a\n"), KAC_E_FORMAT, "two texts");
    CHECK_FAILS(load_with("merges.txt", "a \n"), KAC_E_FORMAT, "two texts");
    CHECK_OK(load_with("merges.txt", ""));
    CHECK_FAILS(load_with("vocab.json", "{\"a</w>\":-1}"), KAC_E_FORMAT, "whole number");
    CHECK_FAILS(load_with("vocab.json", "{\"a</w>\":1.5}"), KAC_E_FORMAT, "whole number");
    CHECK_FAILS(load_with("vocab.json", "{\"a</w>\":3e9}"), KAC_E_FORMAT, "whole number");
    CHECK_FAILS(load_with("vocab.json", "{\"a\":1}"), KAC_E_UNSUPPORTED, "not a CLIP tokenizer");
    CHECK_FAILS(load_with("vocab.json", "{\"a</w>\":1}"), KAC_E_FORMAT, "bos_token");
    CHECK_OK(load_with("vocab.json", VOCAB));
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"tokenizer_class\":\"GPT2Tokenizer\"}"), KAC_E_UNSUPPORTED,
                "GPT2Tokenizer");
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"pad_token\":\"[PAD]\"}"), KAC_E_FORMAT, "[PAD]");
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"pad_token\":7}"), KAC_E_FORMAT, "pad_token must be a text");
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"pad_token\":{}}"), KAC_E_FORMAT, "pad_token needs a content");
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"model_max_length\":\"77\"}"), KAC_E_FORMAT, "model_max_length");
    CHECK_FAILS(load_with("tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"a\"}}}"),
                KAC_E_FORMAT, "added");
    CHECK_FAILS(load_with("tokenizer_config.json", "{"), KAC_E_FORMAT, "JSON");
    CHECK_OK(load_with("tokenizer_config.json", "{\"pad_token\":null,\"model_max_length\":1e30}"));
    CHECK_FAILS(kac_tokenizer_load(&t, temp_write("cut.gz", "\x1f\x8b\x08\0\0\0\0\0\0\0", 10)), KAC_E_FORMAT, "gzip");
    CHECK_FAILS(kac_tokenizer_load(&t, temp_write("empty.txt", "", 0)), KAC_E_FORMAT, "empty");
    CHECK_FAILS(kac_tokenizer_load(&t, temp_write("title.txt", "title", 5)), KAC_E_FORMAT, "no merges");
    CHECK_FAILS(kac_tokenizer_load(&t, temp_write("bad.txt", "title\ni n\nin zz\n", 15)), KAC_E_FORMAT, "line 3");
}

/* tokenizer.json alone gives what vocab.json and merges.txt give. */
static void test_tokenizer_json(void) {
    char *text;
    size_t n;
    kac_tokenizer *t;
    int32_t got[32], want[32];
    const char *prompt = "Two GREEN stars, left of a 3rd <|startoftext|> blue's";
    CHECK_OK(kac_dir_make(temp_path("json")));
    CHECK_OK(kac_file_read(&text, &n, SHAPES "/tokenizer.json", 1 << 20));
    temp_write("json/tokenizer.json", text, n);
    if (CHECK_OK(kac_tokenizer_load(&t, temp_path("json")))) {
        CHECK_OK(kac_tokenizer_encode(got, 32, NULL, t, prompt, strlen(prompt)));
        CHECK_OK(kac_tokenizer_encode(want, 32, NULL, shapes, prompt, strlen(prompt)));
        CHECK(memcmp(got, want, sizeof(got)) == 0);
        kac_tokenizer_free(t);
    }
    char *type = strstr(text, "\"type\": \"BPE\"");
    if (CHECK(type != NULL)) {
        memcpy(type, "\"type\": \"ABC\"", 13);
        temp_write("json/tokenizer.json", text, n);
        CHECK_FAILS(kac_tokenizer_load(&t, temp_path("json")), KAC_E_UNSUPPORTED, "only CLIP's BPE");
    }
    kac_free(text);
}

/* Of two added tokens that begin at the same place the longer one counts; one that is normalized is found in any spelling. */
static void test_added_tokens(void) {
    static const char *const configs[] = {
        "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\"},\"8\":{\"content\":\"<x>a\"},"
        "\"9\":{\"content\":\"<Y>\",\"normalized\":true}}}",
        "{\"added_tokens_decoder\":{\"8\":{\"content\":\"<x>a\"},\"9\":{\"content\":\"<Y>\",\"normalized\":true},"
        "\"7\":{\"content\":\"<x>\"}}}"};
    CHECK_OK(load_with("vocab.json", VOCAB));
    for (int i = 0; i < 2; i++) {
        kac_tokenizer *t;
        int32_t got[8];
        CHECK_OK(load_with("tokenizer_config.json", configs[i]));
        if (!CHECK_OK(kac_tokenizer_load(&t, temp_path("small")))) continue;
        const int32_t want[8] = {3, 8, 1, 7, 9, 9, 4, 4};
        CHECK_OK(kac_tokenizer_encode(got, 8, NULL, t, "<x>aa<x><y><Y>", 14));
        if (!CHECK(memcmp(got, want, sizeof(got)) == 0))
            for (int k = 0; k < 8; k++) printf("  %d\n", got[k]);
        CHECK(kac_tokenizer_vocab_size(t) == 10);
        kac_tokenizer_free(t);
    }
}

int main(void) {
    test_golden();
    if (check_failures_ == 0) {
        test_room();
        test_invalid_utf8();
        test_tokenizer_json();
    }
    test_broken_folders();
    test_added_tokens();
    kac_tokenizer_free(clip);
    kac_tokenizer_free(shapes);
    kac_tokenizer_free(bang);
    return check_done();
}
