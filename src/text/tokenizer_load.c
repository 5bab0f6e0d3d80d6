#include "base/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_bpe_file.h"
#include "text/tokenizer_parts.h"
#include <string.h>

enum { MAX_FILE_BYTES = 64 << 20 };

/* What is needed until the tables stand: the texts of the vocabulary lie in the documents. */
typedef struct loader {
    kac_tokenizer *t;
    const char *path;
    kac_vocab vocab;
    kac_json model, config, map;
    char *merges_text;
    kac_text joined;
} loader;

/* ---- vocabulary and merges ---- */

static kac_status read_vocab(loader *l, const cJSON *object, const char *name) {
    if (!cJSON_IsObject(object)) return KAC_FAIL(KAC_E_FORMAT, "%s: the vocabulary must be an object", name);
    KAC_TRY(kac_vocab_init(&l->vocab, (size_t)cJSON_GetArraySize(object) + 2 * KAC_TOKENIZER_MAX_SPECIAL));
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        const double id = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(id >= 0 && id < INT32_MAX) || id != (int32_t)id)
            return KAC_FAIL(KAC_E_FORMAT, "%s: the id of \"%.60s\" must be a whole number", name, item->string);
        kac_vocab_put(&l->vocab, item->string, strlen(item->string), (int32_t)id);
    }
    return KAC_OK;
}

static kac_status add_merge(loader *l, const char *left, size_t n_left, const char *right, size_t n_right,
                            int32_t rank) {
    l->joined.n = 0;
    kac_text_add_bytes(&l->joined, left, n_left);
    kac_text_add_bytes(&l->joined, right, n_right);
    if (l->joined.failed) return KAC_E_MEMORY;
    const int32_t a = kac_vocab_id(&l->vocab, left, n_left), b = kac_vocab_id(&l->vocab, right, n_right),
                  merged = kac_vocab_id(&l->vocab, l->joined.s, l->joined.n);
    if (a < 0 || b < 0 || merged < 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s: merge %d, \"%.60s\", uses a token that the vocabulary does not have",
                        l->path, rank, l->joined.s);
    kac_merges_put(&l->t->merges, a, b, rank, merged);
    return KAC_OK;
}

/* One merge: two texts with a space between. */
static kac_status add_merge_line(loader *l, const char *line, size_t n, int32_t rank) {
    const char *space = memchr(line, ' ', n);
    const size_t n_left = space == NULL ? 0 : (size_t)(space - line);
    if (n_left == 0 || n_left + 1 == n || memchr(space + 1, ' ', n - n_left - 1) != NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: merge %d must be two texts with a space between", l->path, rank);
    return add_merge(l, line, n_left, space + 1, n - n_left - 1, rank);
}

static kac_status read_merges_text(loader *l, const char *path) {
    size_t n;
    KAC_TRY(kac_file_read(&l->merges_text, &n, path, MAX_FILE_BYTES));
    size_t n_lines = 1;
    for (size_t i = 0; i < n; i++) n_lines += l->merges_text[i] == '\n';
    KAC_TRY(kac_merges_init(&l->t->merges, n_lines));
    int32_t rank = 0;
    for (const char *line = l->merges_text, *end = line + n; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) stop = end;
        size_t n_line = (size_t)(stop - line);
        if (n_line > 0 && line[n_line - 1] == '\r') n_line--;
        if (n_line > 0 && !(n_line >= 8 && memcmp(line, "#version", 8) == 0))
            KAC_TRY(add_merge_line(l, line, n_line, rank++));
        line = stop + 1;
    }
    return KAC_OK;
}

/* Each merge is "a b" or ["a", "b"]. */
static kac_status read_merges_list(loader *l, const cJSON *list) {
    if (!cJSON_IsArray(list)) return KAC_FAIL(KAC_E_FORMAT, "%s: model.merges must be a list", l->path);
    KAC_TRY(kac_merges_init(&l->t->merges, (size_t)cJSON_GetArraySize(list)));
    int32_t rank = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const cJSON *a = item->child, *b = a == NULL ? NULL : a->next;
        if (cJSON_IsString(item))
            KAC_TRY(add_merge_line(l, item->valuestring, strlen(item->valuestring), rank));
        else if (cJSON_IsArray(item) && cJSON_IsString(a) && cJSON_IsString(b))
            KAC_TRY(add_merge(l, a->valuestring, strlen(a->valuestring), b->valuestring, strlen(b->valuestring), rank));
        else
            return KAC_FAIL(KAC_E_FORMAT, "%s: merge %d must be two texts", l->path, rank);
        rank++;
    }
    return KAC_OK;
}

static kac_status find_bytes(loader *l) {
    int n_last = 0;
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        const size_t n = kac_byte_spelling(text, byte);
        l->t->byte_id[byte] = kac_vocab_id(&l->vocab, text, n);
        memcpy(text + n, "</w>", 4);
        l->t->last_byte_id[byte] = kac_vocab_id(&l->vocab, text, n + 4);
        n_last += l->t->last_byte_id[byte] >= 0;
    }
    if (n_last == 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: no token of the vocabulary ends in </w>: this is not a CLIP tokenizer",
                        l->path);
    return KAC_OK;
}

/* ---- special tokens ---- */

static kac_status too_many(const loader *l) {
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: more than %d added tokens", l->path, (int)KAC_TOKENIZER_MAX_SPECIAL);
}

static kac_status add_special(loader *l, const char *text, int32_t id, bool normalized) {
    kac_tokenizer *t = l->t;
    kac_text spelled = {0};
    kac_status status = KAC_OK;
    if (normalized)
        status = kac_text_normalize(&spelled, text, strlen(text));
    else
        kac_text_add(&spelled, "%s", text);
    if (spelled.failed) status = KAC_E_MEMORY;
    int i = 0;
    while (i < t->n_special && t->special[i].id != id) i++;
    if (status == KAC_OK && i == KAC_TOKENIZER_MAX_SPECIAL) status = too_many(l);
    if (status != KAC_OK) {
        kac_text_free(&spelled);
        return status;
    }
    if (i == t->n_special) t->n_special++;
    kac_free(t->special[i].text);
    t->special[i] = (kac_special){.text = spelled.s, .id = id, .normalized = normalized};
    return KAC_OK;
}

/* An entry {"content": …, "normalized": …} of a list of added tokens; the vocabulary has room for two whole lists. */
static kac_status add_added(loader *l, const cJSON *item, double id) {
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(item, "content");
    if (!cJSON_IsString(content) || !(id >= 0 && id < INT32_MAX) || id != (int32_t)id)
        return KAC_FAIL(KAC_E_FORMAT, "%s: an added token needs a content and a whole number as id", l->path);
    const char *text = content->valuestring;
    kac_vocab_put(&l->vocab, text, strlen(text), (int32_t)id);
    return add_special(l, text, (int32_t)id, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, "normalized")));
}

static double number_of(const char *text) {
    double id = 0;
    if (*text == 0 || strlen(text) > 9) return -1;
    for (; *text != 0; text++) {
        if (*text < '0' || *text > '9') return -1;
        id = id * 10 + (*text - '0');
    }
    return id;
}

/* bos_token and its like: a text, or an object with content. The map is the older file and wins unless the newer list
 * of added tokens is there, as in transformers. */
static kac_status read_role(loader *l, const char *role, const char *preset, bool have_added, int32_t *id) {
    const cJSON *value = have_added ? NULL : cJSON_GetObjectItemCaseSensitive(l->map.root, role);
    if (value == NULL || cJSON_IsNull(value)) value = cJSON_GetObjectItemCaseSensitive(l->config.root, role);
    const char *text = preset;
    bool normalized = false;
    if (cJSON_IsObject(value)) {
        normalized = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(value, "normalized"));
        value = cJSON_GetObjectItemCaseSensitive(value, "content");
        if (!cJSON_IsString(value)) return KAC_FAIL(KAC_E_FORMAT, "%s: %s needs a content", l->path, role);
    }
    if (cJSON_IsString(value))
        text = value->valuestring;
    else if (value != NULL && !cJSON_IsNull(value))
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s must be a text", l->path, role);
    *id = kac_vocab_id(&l->vocab, text, strlen(text));
    if (*id < 0 && strcmp(role, "unk_token") == 0) return KAC_OK;
    if (*id < 0) return KAC_FAIL(KAC_E_FORMAT, "%s: %s \"%.60s\" is not in the vocabulary", l->path, role, text);
    if (have_added)
        for (int i = 0; i < l->t->n_special; i++)
            if (l->t->special[i].id == *id) return KAC_OK; /* the list has said how it is looked for */
    return add_special(l, text, *id, normalized);
}

static kac_status read_special(loader *l) {
    static const char *const end = "<|endoftext|>";
    kac_tokenizer *t = l->t;
    const cJSON *added = cJSON_GetObjectItemCaseSensitive(l->config.root, "added_tokens_decoder"), *item;
    const bool have_added = cJSON_IsObject(added);
    if (have_added && cJSON_GetArraySize(added) > KAC_TOKENIZER_MAX_SPECIAL) return too_many(l);
    if (have_added) cJSON_ArrayForEach(item, added) KAC_TRY(add_added(l, item, number_of(item->string)));
    KAC_TRY(read_role(l, "bos_token", "<|startoftext|>", have_added, &t->bos));
    KAC_TRY(read_role(l, "eos_token", end, have_added, &t->eos));
    KAC_TRY(read_role(l, "unk_token", end, have_added, &t->unknown));
    KAC_TRY(read_role(l, "pad_token", end, have_added, &t->pad));
    double length = 0;
    KAC_TRY(kac_json_real(&l->config, l->config.root, "model_max_length", &length));
    t->max_length = length >= 2 && length <= 1e6 ? (int)length : 0; /* 1e30 stands for "not known" */
    return KAC_OK;
}

/* ---- folders ---- */

/* KAC_OK and an empty document when there is no such file. */
static kac_status load_if_there(kac_json *j, const char *dir, const char *name, bool *there) {
    char *path = kac_path_join(dir, name);
    if (path == NULL) return KAC_E_MEMORY;
    *there = kac_file_exists(path);
    const kac_status status = *there ? kac_json_load(j, path) : KAC_OK;
    kac_free(path);
    return status;
}

static kac_status read_vocab_and_merges(loader *l) {
    KAC_TRY(read_vocab(l, l->model.root, l->model.name));
    char *merges = kac_path_join(l->path, "merges.txt");
    if (merges == NULL) return KAC_E_MEMORY;
    const kac_status status = read_merges_text(l, merges);
    kac_free(merges);
    return status;
}

static kac_status read_tokenizer_json(loader *l) {
    const cJSON *model = cJSON_GetObjectItemCaseSensitive(l->model.root, "model"), *item;
    const char *type = "BPE", *suffix = "";
    KAC_TRY(kac_json_text(&l->model, model, "type", &type));
    KAC_TRY(kac_json_text(&l->model, model, "end_of_word_suffix", &suffix));
    if (strcmp(type, "BPE") != 0 || strcmp(suffix, "</w>") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: only CLIP's BPE is read, with </w> at the end of words", l->model.name);
    KAC_TRY(read_vocab(l, cJSON_GetObjectItemCaseSensitive(model, "vocab"), l->model.name));
    KAC_TRY(read_merges_list(l, cJSON_GetObjectItemCaseSensitive(model, "merges")));
    const cJSON *added = cJSON_GetObjectItemCaseSensitive(l->model.root, "added_tokens");
    if (cJSON_GetArraySize(added) > KAC_TOKENIZER_MAX_SPECIAL) return too_many(l);
    cJSON_ArrayForEach(item, added) {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(item, "id");
        KAC_TRY(add_added(l, item, cJSON_IsNumber(id) ? id->valuedouble : -1));
    }
    return KAC_OK;
}

static kac_status load_folder(loader *l) {
    bool there;
    const char *class = "CLIPTokenizer";
    KAC_TRY(load_if_there(&l->config, l->path, "tokenizer_config.json", &there));
    KAC_TRY(load_if_there(&l->map, l->path, "special_tokens_map.json", &there));
    KAC_TRY(kac_json_text(&l->config, l->config.root, "tokenizer_class", &class));
    if (strcmp(class, "CLIPTokenizer") != 0 && strcmp(class, "CLIPTokenizerFast") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tokenizer_class is %.60s, kac reads CLIPTokenizer", l->path, class);
    KAC_TRY(load_if_there(&l->model, l->path, "vocab.json", &there));
    if (there)
        KAC_TRY(read_vocab_and_merges(l));
    else {
        KAC_TRY(load_if_there(&l->model, l->path, "tokenizer.json", &there));
        if (!there) return KAC_FAIL(KAC_E_IO, "%s: there is no vocab.json and no tokenizer.json", l->path);
        KAC_TRY(read_tokenizer_json(l));
    }
    KAC_TRY(find_bytes(l));
    KAC_TRY(read_special(l));
    l->t->n_vocab = l->vocab.n;
    return KAC_OK;
}

static kac_status compile_pattern(kac_tokenizer *t) {
    static const char pattern[] =
        "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^ \\p{L}\\p{N}]+";
    int error;
    PCRE2_SIZE at;
    t->pattern = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    return t->pattern == NULL ? KAC_FAIL(KAC_E_MEMORY, "PCRE2 cannot compile the split pattern (error %d)", error)
                              : KAC_OK;
}

kac_status kac_tokenizer_load(kac_tokenizer **out, const char *path) {
    *out = NULL;
    kac_tokenizer *t = kac_alloc(sizeof(*t));
    if (t == NULL) return KAC_E_MEMORY;
    loader l = {.t = t, .path = path};
    kac_status status = kac_dir_exists(path) ? load_folder(&l) : kac_tokenizer_read_bpe_file(t, path);
    if (status == KAC_OK) status = compile_pattern(t);
    kac_vocab_free(&l.vocab);
    kac_json_free(&l.model);
    kac_json_free(&l.config);
    kac_json_free(&l.map);
    kac_free(l.merges_text);
    kac_text_free(&l.joined);
    if (status == KAC_OK)
        *out = t;
    else
        kac_tokenizer_free(t);
    return status;
}

void kac_tokenizer_free(kac_tokenizer *t) {
    if (t == NULL) return;
    for (int i = 0; i < t->n_special; i++) kac_free(t->special[i].text);
    kac_merges_free(&t->merges);
    pcre2_code_free(t->pattern);
    kac_free(t);
}
