/* Prompts from arguments and files. */
#ifndef KAC_IO_PROMPT_LIST_H
#define KAC_IO_PROMPT_LIST_H

#include "base/base.h"

typedef struct kac_prompt_list {
    char **items; /* owned */
    int n, cap;
} kac_prompt_list;

/* KAC_E_USAGE for a text that is no UTF-8 or shows nothing. */
kac_status kac_prompt_check(const char *text);
/* The same, and a copy at the end of the list. */
kac_status kac_prompt_list_add(kac_prompt_list *l, const char *text);

/* All prompts of a file, its kind told by its name:
 *   .jsonl, .ndjson  an object a line; "prompt", "text" or "caption" of it
 *   .json            a list of texts or of such objects
 *   .tsv             the column that the first line calls "prompt", else the last one
 *   any other        one prompt a line; empty lines and those that start with # are left out
 * KAC_E_IO; KAC_E_FORMAT naming the line; KAC_E_USAGE for a file without a prompt. */
kac_status kac_prompt_list_add_file(kac_prompt_list *l, const char *path);

void kac_prompt_list_free(kac_prompt_list *l);

#endif
