/* The WordPiece tokenizer against transformers' BertTokenizer. */
#include "base/json.h"
#include "check.h"
#include "text/wordpiece.h"
#include "util/temp.h"

#define DATA "tests/text/data/"

enum { N_IDS = 4096 };

static kac_wordpiece *uncased, *cased;
static int n_texts;

static void compare(const kac_wordpiece *t, const char *text, size_t n, const cJSON *want) {
    static int32_t ids[N_IDS];
    kac_tokens used;
    if (!CHECK_OK(kac_wordpiece_encode(ids, N_IDS, &used, t, text, n))) return;
    bool same = used.n == cJSON_GetArraySize(want) && used.n_cut == 0;
    const cJSON *item = same ? want->child : NULL;
    for (int i = 0; item != NULL; item = item->next) same &= ids[i++] == item->valueint;
    if (CHECK(same)) return;
    char *list = cJSON_PrintUnformatted(want);
    printf("  \"%.*s\": wanted %s, got", (int)n, text, list);
    for (int i = 0; i < used.n; i++) printf(" %d", ids[i]);
    printf("\n");
    cJSON_free(list);
}

/* Rows without a text belong to the rows of transformers_ids.jsonl, in order. */
static void check_row(const cJSON *row, const cJSON *text_row) {
    const cJSON *own = cJSON_GetObjectItem(row, "text");
    char *text = cJSON_GetStringValue(own != NULL ? own : cJSON_GetObjectItem(text_row, "text"));
    if (!CHECK(text != NULL)) return;
    size_t n = strlen(text);
    for (char *zero; (zero = memmem(text, n, "\xEE\x80\x80", 3)) != NULL; n -= 2) { /* U+E000 stands for a zero byte */
        *zero = 0;
        memmove(zero + 1, zero + 3, n - (size_t)(zero + 3 - text));
    }
    if (cJSON_GetObjectItem(row, "uncased") == NULL) return; /* newer Unicode than the reference knows */
    n_texts++;
    compare(uncased, text, n, cJSON_GetObjectItem(row, "uncased"));
    compare(cased, text, n, cJSON_GetObjectItem(row, "cased"));
}

static cJSON *next_row(char **line) {
    if (**line == '\0') return NULL;
    char *end = strchr(*line, '\n');
    if (end == NULL) end = *line + strlen(*line);
    cJSON *row = cJSON_ParseWithLength(*line, (size_t)(end - *line));
    *line = *end == '\0' ? end : end + 1;
    return row;
}

static void test_reference(void) {
    char *texts, *ids;
    size_t n;
    if (!CHECK_OK(kac_file_read(&texts, &n, DATA "transformers_ids.jsonl", 1 << 24)) ||
        !CHECK_OK(kac_file_read(&ids, &n, DATA "wordpiece/ids.jsonl", 1 << 24)))
        return;
    char *text_line = texts, *id_line = ids;
    for (cJSON *row; (row = next_row(&id_line)) != NULL;) {
        cJSON *text_row = next_row(&text_line);
        check_row(row, text_row);
        cJSON_Delete(row);
        cJSON_Delete(text_row);
    }
    CHECK(n_texts == 3505);
    kac_free(texts);
    kac_free(ids);
}

static void test_room(void) {
    int32_t ids[6];
    kac_tokens used;
    const char *text = "a b c d e f";
    CHECK_OK(kac_wordpiece_encode(ids, 6, &used, uncased, text, strlen(text)));
    CHECK(used.n == 6 && used.n_cut == 2 && ids[0] == 2 && ids[5] == 3);
    CHECK_OK(kac_wordpiece_encode(ids, 6, &used, uncased, "a", 1));
    CHECK(used.n == 3 && ids[2] == 3 && ids[3] == 0 && ids[5] == 0);
    CHECK_OK(kac_wordpiece_encode(ids, 6, &used, uncased, "\xff\xc3", 2)); /* no characters: nothing */
    CHECK(used.n == 2);
    CHECK_FAILS(kac_wordpiece_encode(ids, 1, &used, uncased, "a", 1), KAC_E_USAGE, "room for at least 2");
    static char longer[(1 << 16) + 1];
    CHECK_FAILS(kac_wordpiece_encode(ids, 6, &used, uncased, longer, sizeof longer), KAC_E_USAGE, "65536");
}

static void write(const char *name, const char *text) {
    temp_write(name, text, strlen(text));
}

static void test_files(void) {
    static const char vocab[] = "[PAD]\r\n[UNK]\n[CLS]\n[SEP]\n\xC3\xA9\nE\ne\n##\xC3\xA9\n";
    int32_t ids[5];
    kac_wordpiece *t;
    CHECK_OK(kac_dir_make(temp_path("bert")));
    CHECK_FAILS(kac_wordpiece_load(&t, temp_path("bert")), KAC_E_IO, "vocab.txt");
    write("bert/vocab.txt", vocab);
    if (CHECK_OK(kac_wordpiece_load(&t, temp_path("bert")))) {
        CHECK_OK(kac_wordpiece_encode(ids, 5, NULL, t, "\xC3\x89", 2));
        CHECK(ids[1] == 6 && kac_wordpiece_vocab_size(t) == 8);
        kac_wordpiece_free(t);
    }
    write("bert/tokenizer_config.json", "{\"do_lower_case\": true, \"strip_accents\": false}");
    if (CHECK_OK(kac_wordpiece_load(&t, temp_path("bert")))) {
        CHECK_OK(kac_wordpiece_encode(ids, 5, NULL, t, "E\xC3\x89", 3));
        CHECK(ids[1] == 6 && ids[2] == 7);
        kac_wordpiece_free(t);
    }
    write("bert/tokenizer_config.json", "{\"do_lower_case\": 3}");
    CHECK_FAILS(kac_wordpiece_load(&t, temp_path("bert")), KAC_E_FORMAT, "do_lower_case");
    CHECK_OK(kac_dir_make(temp_path("fast")));
    write("fast/tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}");
    CHECK_FAILS(kac_wordpiece_load(&t, temp_path("fast")), KAC_E_UNSUPPORTED, "WordPiece");
    write("fast/tokenizer.json",
          "{\"normalizer\": {\"type\": \"BertNormalizer\", \"lowercase\": false, \"strip_accents\": null}, \"model\": "
          "{\"type\": \"WordPiece\", \"vocab\": {\"[PAD]\": 3, \"[UNK]\": 2, \"[CLS]\": 1, \"[SEP]\": 0, \"E\": 4}}}");
    if (CHECK_OK(kac_wordpiece_load(&t, temp_path("fast")))) {
        CHECK_OK(kac_wordpiece_encode(ids, 5, NULL, t, "E e", 3));
        CHECK(ids[0] == 1 && ids[1] == 4 && ids[2] == 2 && ids[3] == 0 && ids[4] == 3);
        kac_wordpiece_free(t);
    }
    write("list.txt", "[PAD]\n[UNK]\n[CLS]\n");
    CHECK_FAILS(kac_wordpiece_load(&t, temp_path("list.txt")), KAC_E_UNSUPPORTED, "[SEP]");
}

int main(void) {
    CHECK_OK(kac_dir_make(temp_path("cased")));
    char *vocab;
    size_t n;
    if (!CHECK_OK(kac_file_read(&vocab, &n, DATA "wordpiece/vocab.txt", 1 << 20))) return check_done();
    write("cased/vocab.txt", vocab);
    write("cased/tokenizer_config.json", "{\"do_lower_case\": false}");
    kac_free(vocab);
    if (!CHECK_OK(kac_wordpiece_load(&uncased, DATA "wordpiece")) ||
        !CHECK_OK(kac_wordpiece_load(&cased, temp_path("cased"))))
        return check_done();
    test_reference();
    test_room();
    test_files();
    kac_wordpiece_free(uncased);
    kac_wordpiece_free(cased);
    return check_done();
}
