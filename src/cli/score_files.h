/* Which pictures `kac score` looks at, and where it puts the best. */
#ifndef KAC_CLI_SCORE_FILES_H
#define KAC_CLI_SCORE_FILES_H

#include "run/score_pictures.h"

typedef struct kac_score_list {
    kac_scored *items;
    int n, cap;
} kac_score_list;

/* A file as it is; of a folder its pictures by name (.png, .jpg, .jpeg, .bmp), with `recursive` those of folders in it too. KAC_E_USAGE for a
 * folder without any. */
kac_status kac_score_list_add(kac_score_list *l, const char *word, bool recursive);
void kac_score_list_free(kac_score_list *l);

/* Copies the first n pictures to folder/RANK-NAME, byte for byte. KAC_E_USAGE when one of the names is there already: then, and after any
 * failure, nothing new is left in the folder. */
kac_status kac_score_copy(const kac_scored *items, int n, const char *folder);

#endif
