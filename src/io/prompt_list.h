/* Prompts from arguments and files. */
#ifndef KAC_IO_PROMPT_LIST_H
#define KAC_IO_PROMPT_LIST_H

#include "base/json.h"

typedef struct kac_prompt_list {
    char **items;      /* owned */
    char **categories; /* [n] owned; NULL inside: the file says none */
    char **ids;        /* the same: what the file calls the prompt */
    int n, cap;
} kac_prompt_list;

/* KAC_E_USAGE for a text that is no UTF-8 or shows nothing. */
kac_status kac_prompt_check(const char *text);
/* The same, and a copy at the end of the list. */
kac_status kac_prompt_list_add(kac_prompt_list *l, const char *text);
/* With what is known of it; NULL: nothing. */
kac_status kac_prompt_list_add_known(kac_prompt_list *l, const char *text, const char *category, const char *id);
/* The prompt "" of an unconditional model. */
kac_status kac_prompt_list_add_empty(kac_prompt_list *l);
/* A text, or an object of those below; `at` is its number in its list, for messages. */
kac_status kac_prompt_list_add_json(kac_prompt_list *l, const cJSON *v, int at);

/* All prompts of a file, its kind told by its name:
 *   .jsonl, .ndjson  an object a line; "prompt", "text" or "caption" of it, its category "category" or "tag", its id "id"
 *   .json            a list of texts or of such objects
 *   .tsv             the columns that the first line calls "prompt", "category" or "tag", "id"; without such a line the
 *                    last column is the prompt and the first of several the category
 *   any other        one prompt a line; empty lines and those that start with # are left out
 * KAC_E_IO; KAC_E_FORMAT naming the line; KAC_E_USAGE for a file without a prompt. */
kac_status kac_prompt_list_add_file(kac_prompt_list *l, const char *path);

void kac_prompt_list_free(kac_prompt_list *l);

#endif
