/* A search's tree (kac_tree_event), read. Nothing in it is trusted.
 *
 *     {"group", "n_steps", "n_nodes",
 *      "parent":   [−1 or an earlier node, …],      "i_step": [−1: the root, which is no state; else steps taken, …],
 *      "visits":   [of the search, …],              "value":  [soft value; a sample's is its reward; null: none, …],
 *      "log_prob": [of a sample under the law that results are drawn from; null: others, …],
 *      "chosen":   [node of each result, …]}
 *
 * Lists have n_nodes entries, except "chosen". "log_prob" and "chosen" may be missing. */
#ifndef KAC_REPORT_TREE_DATA_H
#define KAC_REPORT_TREE_DATA_H

#include "base/base.h"

typedef struct kac_tree_file {
    int n;                                                 /* nodes */
    int *parent, *i_step, *visits, *n_children, *n_chosen; /* [n] */
    double *value, *log_prob;                              /* [n]; NAN: none */
    int n_results;
} kac_tree_file;

/* Fails: IO, FORMAT (not such a file, a parent that does not come before its child), MEMORY. The caller ends with kac_tree_file_free, also on
 * failure. */
kac_status kac_tree_file_load(kac_tree_file *t, const char *path);
void kac_tree_file_free(kac_tree_file *t);

/* The tree as a <figure>: a row for each level, the root above; area by visits, colour by value, lines to results bold. Of a large one only
 * the most visited nodes of each level and the ways to the results are drawn; the rows say how many there are. KAC_E_MEMORY. */
kac_status kac_tree_file_draw(kac_text *text, const kac_tree_file *t);

#endif
