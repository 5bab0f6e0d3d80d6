#include "io/prompt_list.h"
#include "io/utf8.h"
#include <stdio.h>
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

static kac_status grow(kac_prompt_list *l) {
    char ***const arrays[] = {&l->items, &l->categories, &l->ids};
    const int cap = l->cap > 0 ? 2 * l->cap : 16;
    for (int i = 0; i < KAC_COUNT_OF(arrays); i++) {
        char **more = kac_realloc(*arrays[i], (size_t)cap * sizeof *more);
        if (more == NULL) return KAC_E_MEMORY;
        *arrays[i] = more;
    }
    l->cap = cap;
    return KAC_OK;
}

static bool copy_known(char **to, const char *text) {
    *to = text == NULL ? NULL : kac_strdup(text);
    return text == NULL || *to != NULL;
}

static kac_status append(kac_prompt_list *l, const char *text, const char *category, const char *id) {
    if (l->n == MAX_PROMPTS) return KAC_FAIL(KAC_E_USAGE, "more than %d prompts are too many", MAX_PROMPTS);
    if (l->n == l->cap) KAC_TRY(grow(l));
    const int i = l->n++;
    l->categories[i] = l->ids[i] = NULL;
    l->items[i] = kac_strdup(text);
    return l->items[i] != NULL && copy_known(&l->categories[i], category) && copy_known(&l->ids[i], id) ? KAC_OK
                                                                                                        : KAC_E_MEMORY;
}

kac_status kac_prompt_list_add_known(kac_prompt_list *l, const char *text, const char *category, const char *id) {
    KAC_TRY(kac_prompt_check(text));
    return append(l, text, category, id);
}

kac_status kac_prompt_list_add_empty(kac_prompt_list *l) {
    return append(l, "", NULL, NULL);
}

kac_status kac_prompt_list_add(kac_prompt_list *l, const char *text) {
    return kac_prompt_list_add_known(l, text, NULL, NULL);
}

/* What files call the parts of an entry; NULL ends each. */
static const char *const prompt_names[] = {"prompt", "text", "caption", NULL},
                         *const category_names[] = {"category", "tag", NULL}, *const id_names[] = {"id", NULL};

/* What an object says under one of the names; NULL: nothing. A number is written into `number`. */
static const char *part_of(const cJSON *v, const char *const *names, char number[32]) {
    for (int i = 0; names[i] != NULL && cJSON_IsObject(v); i++) {
        const cJSON *entry = cJSON_GetObjectItemCaseSensitive(v, names[i]);
        if (cJSON_IsString(entry)) return entry->valuestring;
        if (number != NULL && cJSON_IsNumber(entry)) {
            snprintf(number, 32, "%.15g", entry->valuedouble);
            return number;
        }
    }
    return NULL;
}

kac_status kac_prompt_list_add_json(kac_prompt_list *l, const cJSON *v, int at) {
    char category[32], id[32];
    const char *text = cJSON_IsString(v) ? v->valuestring : part_of(v, prompt_names, NULL);
    if (text == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "entry %d is no prompt; a text, or an object with \"prompt\", is wanted", at);
    const kac_status s =
        kac_prompt_list_add_known(l, text, part_of(v, category_names, category), part_of(v, id_names, id));
    return s == KAC_OK ? s : kac_fail_prefix(s, "entry %d", at);
}

static kac_status read_json(kac_prompt_list *l, const char *text) {
    cJSON *list = cJSON_Parse(text);
    kac_status s = cJSON_IsArray(list) ? KAC_OK : KAC_FAIL(KAC_E_FORMAT, "a JSON list of prompts is wanted");
    int at = 1;
    for (const cJSON *v = list == NULL ? NULL : list->child; v != NULL && s == KAC_OK; v = v->next)
        s = kac_prompt_list_add_json(l, v, at++);
    cJSON_Delete(list);
    return s;
}

/* Where the parts of a .tsv's lines stand; −1: nowhere. */
typedef struct columns {
    bool named; /* by the first line */
    int prompt, category, id;
} columns;

/* The column that a first line calls by one of the names; −1: none. */
static int column_of(const char *line, const char *const *names) {
    for (int i = 0;; i++) {
        const size_t n = strcspn(line, "\t");
        for (int k = 0; names[k] != NULL; k++)
            if (n == strlen(names[k]) && strncasecmp(line, names[k], n) == 0) return i;
        if (line[n] == '\0') return -1;
        line += n + 1;
    }
}

static columns columns_of(const char *line) {
    static const char *const prompt[] = {"prompt", NULL};
    const columns c = {true, column_of(line, prompt), column_of(line, category_names), column_of(line, id_names)};
    return c.prompt >= 0 ? c : (columns){false, -1, -1, -1};
}

static kac_status add_columns(kac_prompt_list *l, char *line, const columns *c, int at) {
    const char *text = NULL, *category = NULL, *id = NULL, *word;
    if (!c->named) {
        char *tab = strrchr(line, '\t');
        text = tab == NULL ? line : tab + 1;
        if (tab != NULL) category = strsep(&line, "\t");
        return kac_prompt_list_add_known(l, text, category, NULL);
    }
    for (int i = 0; (word = strsep(&line, "\t")) != NULL; i++) {
        if (i == c->prompt) text = word;
        if (i == c->category) category = word;
        if (i == c->id) id = word;
    }
    if (text == NULL) return KAC_FAIL(KAC_E_FORMAT, "line %d has too few columns", at);
    return kac_prompt_list_add_known(l, text, category, id);
}

typedef enum kind { LINES, TSV, JSON_LINES, JSON_LIST } kind;

static kac_status add_line(kac_prompt_list *l, char *line, kind k, columns *c, int at) {
    if (line[strspn(line, " \t")] == '\0' || (k == LINES && line[0] == '#')) return KAC_OK;
    kac_status s;
    if (k == JSON_LINES) {
        cJSON *v = cJSON_Parse(line);
        s = v == NULL ? KAC_FAIL(KAC_E_FORMAT, "entry %d is no JSON", at) : kac_prompt_list_add_json(l, v, at);
        cJSON_Delete(v);
        return s;
    }
    if (k == TSV && at == 1) {
        *c = columns_of(line);
        if (c->named) return KAC_OK;
    }
    s = k == TSV ? add_columns(l, line, c, at) : kac_prompt_list_add(l, line);
    return s == KAC_OK || s == KAC_E_FORMAT ? s : kac_fail_prefix(s, "line %d", at);
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
    int at = 1;
    columns c = {false, -1, -1, -1};
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) text += 3;
    for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n"), at++) {
        line[strcspn(line, "\r")] = '\0';
        KAC_TRY(add_line(l, line, k, &c, at));
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
    for (int i = 0; i < l->n; i++) {
        if (l->items != NULL) kac_free(l->items[i]);
        kac_free(l->categories[i]), kac_free(l->ids[i]);
    }
    kac_free(l->items), kac_free(l->categories), kac_free(l->ids);
    *l = (kac_prompt_list){0};
}
