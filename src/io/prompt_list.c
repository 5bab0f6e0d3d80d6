#include "io/prompt_list.h"
#include "base/json.h"
#include "io/utf8.h"
#include <string.h>
#include <strings.h>

enum { MAX_FILE_BYTES = 64 << 20, MAX_PROMPTS = 1 << 20 };

kac_status kac_prompt_check(const char *text) {
    const size_t n = strlen(text);
    for (size_t i = 0; i < n;) {
        int32_t character;
        const size_t used = kac_utf8_next(&character, text + i, n - i);
        if (used == 0) return KAC_FAIL(KAC_E_USAGE, "the prompt is not valid UTF-8 (byte %zu)", i + 1);
        i += used;
    }
    if (text[strspn(text, " \t\r\n")] == '\0')
        return KAC_FAIL(KAC_E_USAGE, "the prompt is empty; say what the picture should show");
    return KAC_OK;
}

kac_status kac_prompt_list_add(kac_prompt_list *l, const char *text) {
    KAC_TRY(kac_prompt_check(text));
    if (l->n == MAX_PROMPTS) return KAC_FAIL(KAC_E_USAGE, "more than %d prompts are too many", MAX_PROMPTS);
    if (l->n == l->cap) {
        const int cap = l->cap > 0 ? 2 * l->cap : 16;
        char **more = kac_realloc(l->items, (size_t)cap * sizeof *more);
        if (more == NULL) return KAC_E_MEMORY;
        l->items = more, l->cap = cap;
    }
    l->items[l->n] = kac_strdup(text);
    return l->items[l->n++] == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* A text, or what an object says under one of the usual names; NULL: neither. */
static const char *prompt_of(const cJSON *v) {
    static const char *const keys[] = {"prompt", "text", "caption"};
    if (cJSON_IsString(v)) return v->valuestring;
    for (int i = 0; i < KAC_COUNT_OF(keys) && cJSON_IsObject(v); i++) {
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(v, keys[i]);
        if (cJSON_IsString(entry)) return entry->valuestring;
    }
    return NULL;
}

static kac_status add_json(kac_prompt_list *l, const cJSON *v, int at) {
    const char *text = prompt_of(v);
    if (text == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "entry %d is no prompt; a text, or an object with \"prompt\", is wanted", at);
    const kac_status s = kac_prompt_list_add(l, text);
    return s == KAC_OK ? s : kac_fail_prefix(s, "entry %d", at);
}

static kac_status read_json(kac_prompt_list *l, const char *text) {
    cJSON *list = cJSON_Parse(text);
    kac_status s = cJSON_IsArray(list) ? KAC_OK : KAC_FAIL(KAC_E_FORMAT, "a JSON list of prompts is wanted");
    int at = 1;
    for (const cJSON *v = list == NULL ? NULL : list->child; v != NULL && s == KAC_OK; v = v->next)
        s = add_json(l, v, at++);
    cJSON_Delete(list);
    return s;
}

/* Column `column` of a line of a .tsv, cut out in place; −1: the last one. */
static char *cell(char *line, int column) {
    if (column < 0) {
        char *tab = strrchr(line, '\t');
        return tab == NULL ? line : tab + 1;
    }
    char *word = strsep(&line, "\t");
    for (int i = 0; i < column && word != NULL; i++) word = strsep(&line, "\t");
    return word;
}

/* The column that a first line names "prompt"; −1: it is no line of names. */
static int prompt_column(const char *line) {
    for (int i = 0;; i++) {
        const size_t n = strcspn(line, "\t");
        if (n == 6 && strncasecmp(line, "prompt", 6) == 0) return i;
        if (line[n] == '\0') return -1;
        line += n + 1;
    }
}

typedef enum kind { LINES, TSV, JSON_LINES, JSON_LIST } kind;

static kac_status add_line(kac_prompt_list *l, char *line, kind k, int *column, int at) {
    if (line[strspn(line, " \t")] == '\0' || (k == LINES && line[0] == '#')) return KAC_OK;
    kac_status s;
    if (k == JSON_LINES) {
        cJSON *v = cJSON_Parse(line);
        s = v == NULL ? KAC_FAIL(KAC_E_FORMAT, "entry %d is no JSON", at) : add_json(l, v, at);
        cJSON_Delete(v);
        return s;
    }
    if (k == TSV && at == 1 && (*column = prompt_column(line)) >= 0) return KAC_OK;
    char *text = k == TSV ? cell(line, *column) : line;
    if (text == NULL) return KAC_FAIL(KAC_E_FORMAT, "line %d has too few columns", at);
    s = kac_prompt_list_add(l, text);
    return s == KAC_OK ? s : kac_fail_prefix(s, "line %d", at);
}

static kind kind_of(const char *path) {
    static const struct {
        const char *end;
        kind k;
    } kinds[] = {{".jsonl", JSON_LINES}, {".ndjson", JSON_LINES}, {".json", JSON_LIST}, {".tsv", TSV}};
    const char *dot = strrchr(kac_path_base(path), '.');
    for (int i = 0; dot != NULL && i < KAC_COUNT_OF(kinds); i++)
        if (strcasecmp(dot, kinds[i].end) == 0) return kinds[i].k;
    return LINES;
}

static kac_status read_text(kac_prompt_list *l, char *text, kind k) {
    if (k == JSON_LIST) return read_json(l, text);
    int at = 1, column = -1;
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) text += 3;
    for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n"), at++) {
        line[strcspn(line, "\r")] = '\0';
        KAC_TRY(add_line(l, line, k, &column, at));
    }
    return KAC_OK;
}

kac_status kac_prompt_list_add_file(kac_prompt_list *l, const char *path) {
    char *text;
    size_t n;
    KAC_TRY(kac_file_read(&text, &n, path, MAX_FILE_BYTES));
    const int before = l->n;
    kac_status s = strlen(text) == n
                       ? read_text(l, text, kind_of(path))
                       : KAC_FAIL(KAC_E_FORMAT, "it holds a 0 byte; a text file with one prompt a line is wanted");
    if (s == KAC_OK && l->n == before) s = KAC_FAIL(KAC_E_USAGE, "there is no prompt in it");
    kac_free(text);
    return s == KAC_OK || s == KAC_E_MEMORY ? s : kac_fail_prefix(s, "%s", path);
}

void kac_prompt_list_free(kac_prompt_list *l) {
    for (int i = 0; i < l->n; i++) kac_free(l->items[i]);
    kac_free(l->items);
    *l = (kac_prompt_list){0};
}
