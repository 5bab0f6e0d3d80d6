#include "base/json.h"
#include "text/wordpiece_parts.h"
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

static const char *const special_names[KAC_WORDPIECE_SPECIALS] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

/* ---- vocabulary ---- */

static void put(kac_wordpiece *t, const char *text, size_t n, int32_t id) {
    kac_vocab_put(&t->vocab, text, n, id);
    t->max_piece = KAC_MAX(t->max_piece, n);
}

/* One token a line; the line's number is its id. */
static kac_status read_list(kac_wordpiece *t, const char *path) {
    size_t n = 0, n_lines = 1;
    KAC_TRY(kac_file_read(&t->list, &n, path, MAX_FILE_BYTES));
    for (size_t i = 0; i < n; i++) n_lines += t->list[i] == '\n';
    KAC_TRY(kac_vocab_init(&t->vocab, n_lines));
    int32_t id = 0;
    for (const char *line = t->list, *end = line + n; line < end; id++) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) stop = end;
        const size_t n_line = (size_t)(stop - line) - (stop > line && stop[-1] == '\r');
        put(t, line, n_line, id);
        line = stop + 1;
    }
    return KAC_OK;
}

static kac_status read_object(kac_wordpiece *t, const char *name, const cJSON *vocab) {
    if (!cJSON_IsObject(vocab)) return KAC_FAIL(KAC_E_FORMAT, "%s: model.vocab must be an object", name);
    KAC_TRY(kac_vocab_init(&t->vocab, (size_t)cJSON_GetArraySize(vocab)));
    const cJSON *item;
    cJSON_ArrayForEach(item, vocab) {
        const double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(id >= 0 && id < INT32_MAX) || id != (int32_t)id)
            return KAC_FAIL(KAC_E_FORMAT, "%s: the id of \"%.60s\" must be a whole number", name, item->string);
        put(t, item->string, strlen(item->string), (int32_t)id);
    }
    return KAC_OK;
}

static kac_status find_specials(kac_wordpiece *t, const char *path) {
    for (int i = 0; i < KAC_WORDPIECE_SPECIALS; i++) {
        t->special[i] = (kac_wordpiece_special){special_names[i],
                                                kac_vocab_id(&t->vocab, special_names[i], strlen(special_names[i]))};
        if (t->special[i].id < 0 && i != KAC_WORDPIECE_MASK)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s has no token %s: it is not the vocabulary of a BERT tokenizer", path,
                            special_names[i]);
    }
    return KAC_OK;
}

/* ---- configuration ---- */

/* strip_accents null or missing: as lower case says. */
static kac_status read_accents(kac_wordpiece *t, const kac_json *j, const cJSON *obj) {
    t->strip_accents = t->lower;
    return kac_json_bool(j, obj, "strip_accents", &t->strip_accents);
}

static kac_status read_tokenizer_config(kac_wordpiece *t, const char *path) {
    kac_json j;
    KAC_TRY(kac_json_load(&j, path));
    kac_status s = kac_json_bool(&j, j.root, "do_lower_case", &t->lower);
    if (s == KAC_OK) s = kac_json_bool(&j, j.root, "tokenize_chinese_chars", &t->split_chinese);
    if (s == KAC_OK) s = read_accents(t, &j, j.root);
    kac_json_free(&j);
    return s;
}

static bool is_type(const kac_json *j, const cJSON *obj, const char *name) {
    const char *type = NULL;
    return cJSON_IsObject(obj) && kac_json_text(j, obj, "type", &type) == KAC_OK && type != NULL &&
           strcmp(type, name) == 0;
}

/* tokenizer.json of the tokenizers library. */
static kac_status read_tokenizer(kac_wordpiece *t, const kac_json *j) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(j->root, "model"),
                *normalizer = cJSON_GetObjectItemCaseSensitive(j->root, "normalizer");
    if (!cJSON_HasObjectItem(model, "continuing_subword_prefix") &&
        (!is_type(j, model, "WordPiece") || !is_type(j, normalizer, "BertNormalizer")))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is not a BERT tokenizer (model WordPiece, normalizer BertNormalizer)",
                        j->name);
    const char *prefix = "##", *unknown = "[UNK]";
    int64_t max_chars = t->max_word_chars;
    KAC_TRY(kac_json_text(j, model, "continuing_subword_prefix", &prefix));
    KAC_TRY(kac_json_text(j, model, "unk_token", &unknown));
    KAC_TRY(kac_json_int(j, model, "max_input_chars_per_word", &max_chars));
    if (strcmp(prefix, "##") != 0 || strcmp(unknown, "[UNK]") != 0 || max_chars < 1 || max_chars > 1 << 20)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: only the prefix ##, the token [UNK] and words of 1 to 2^20 characters are supported",
                        j->name);
    t->max_word_chars = max_chars;
    if (cJSON_IsObject(normalizer)) {
        KAC_TRY(kac_json_bool(j, normalizer, "clean_text", &t->clean));
        KAC_TRY(kac_json_bool(j, normalizer, "handle_chinese_chars", &t->split_chinese));
        KAC_TRY(kac_json_bool(j, normalizer, "lowercase", &t->lower));
        KAC_TRY(read_accents(t, j, normalizer));
    }
    return read_object(t, j->name, cJSON_GetObjectItemCaseSensitive(model, "vocab"));
}

static kac_status load_tokenizer_json(kac_wordpiece *t, const char *path) {
    KAC_TRY(kac_json_load(&t->document, path));
    return read_tokenizer(t, &t->document);
}

static kac_status load_folder(kac_wordpiece *t, const char *path) {
    char *vocab = kac_path_join(path, "vocab.txt"), *json = kac_path_join(path, "tokenizer.json"),
         *config = kac_path_join(path, "tokenizer_config.json");
    kac_status s = vocab == NULL || json == NULL || config == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && kac_file_exists(vocab)) {
        s = read_list(t, vocab);
        if (s == KAC_OK && kac_file_exists(config)) s = read_tokenizer_config(t, config);
    } else if (s == KAC_OK && kac_file_exists(json)) {
        s = load_tokenizer_json(t, json);
    } else if (s == KAC_OK) {
        s = KAC_FAIL(KAC_E_IO,
                     "%s holds no BERT tokenizer: put the vocab.txt (or tokenizer.json) of bert-base-uncased there",
                     path);
    }
    kac_free(vocab), kac_free(json), kac_free(config);
    return s;
}

kac_status kac_wordpiece_load(kac_wordpiece **out, const char *path) {
    *out = NULL;
    kac_wordpiece *t = kac_alloc(sizeof *t);
    if (t == NULL) return KAC_E_MEMORY;
    *t = (kac_wordpiece){
        .clean = true, .split_chinese = true, .strip_accents = true, .lower = true, .max_word_chars = 100};
    kac_status s = kac_dir_exists(path) ? load_folder(t, path) : read_list(t, path);
    if (s == KAC_OK) s = find_specials(t, path);
    if (s == KAC_OK)
        *out = t;
    else
        kac_wordpiece_free(t);
    return s;
}

void kac_wordpiece_free(kac_wordpiece *t) {
    if (t == NULL) return;
    kac_vocab_free(&t->vocab);
    kac_json_free(&t->document);
    kac_free(t->list);
    kac_free(t);
}

int32_t kac_wordpiece_vocab_size(const kac_wordpiece *t) {
    return t->vocab.n;
}
