/* A tree of states, as tree searches grow it: nodes in one growing array, soft values backed up from finished samples.
 *
 *     root (no state, level −1) → x_K (level 0) → states at the branch levels 1 … L−1 → x_0 (level L, a sample)
 *
 * A child is an independent draw from p(· | its parent), so that a node's value is (1/λ) log of the MEAN of exp(λ v) over its children,
 * without any density. A node with thousands of children keeps their sum in a binary heap of partial sums: changing one value, the sum of
 * all and drawing one by its share take O(log n), and what comes out depends on the children's values alone, not on the order in which
 * they came. */
#ifndef KAC_SAMPLERS_TREE_H
#define KAC_SAMPLERS_TREE_H

#include <kac/status.h>
#include <stdbool.h>
#include <stdint.h>

enum { KAC_TREE_LEVELS = 64 }; /* at most, samples not counted */

typedef enum kac_tree_backup {
    KAC_TREE_SOFT, /* log-mean-exp; λ = 0: the mean */
    KAC_TREE_MAX   /* best child; of λ < 0 the lowest */
} kac_tree_backup;

typedef struct kac_tree_node {
    uint64_t key;      /* whose noise leads from the parent here */
    int64_t place;     /* of the state in the process; root: −1 */
    int64_t visits;    /* N */
    double value;      /* v, in units of the reward; a sample's is its reward */
    double log_w;      /* of a sample: log Σ W over the iterations that ended in it */
    double log_square; /* log Σ p² over the samples below, p drawn by Boltzmann shares */
    double *sums;      /* heaps of cap partial sums: [n_heaps, 2 cap], entry 1 the sum of all, entry cap + i child i */
    int32_t *children; /* [cap] */
    int32_t n_children, cap;
    int32_t n_asked; /* children that exist or are being made */
    int32_t parent, index, level;
} kac_tree_node;

typedef struct kac_tree {
    kac_tree_node *nodes; /* [n], parents before children; 0 is the root */
    int64_t n, most;
    int n_levels; /* L */
    double lambda;
    kac_tree_backup backup;
    double tempering; /* children are chosen by exp(tempering · λ v) */
    int n_heaps, choice;
} kac_tree;

/* One root. n_levels at most KAC_TREE_LEVELS. */
kac_status kac_tree_init(kac_tree *t, int n_levels, double lambda, kac_tree_backup backup, double tempering);
void kac_tree_free(kac_tree *t);

/* A new last child of `parent`, on its way to a sample that is still to be added: valueless until kac_tree_add_sample. */
kac_status kac_tree_add(kac_tree *t, int32_t parent, int64_t place, int32_t *out);
/* The sample at the end of a chain of new nodes, and the values of all above it. */
kac_status kac_tree_add_sample(kac_tree *t, int32_t parent, int64_t place, double reward, double log_w, int32_t *out);

/* The key of a node's child: the first goes on with its parent's noise, whose later steps were not used; those of the root are the
 * particles 0, 1, … of its group; others are keys of their own. */
uint64_t kac_tree_child_key(const kac_tree *t, int32_t parent, int64_t index);

/* A finished child drawn from (1 − epsilon) · exp(tempering · λ v) / Σ + epsilon / n by a uniform u in (0, 1). *log_w is reduced by
 * log(n · probability): the weight that makes the child a uniform draw. */
int32_t kac_tree_draw(const kac_tree *t, int32_t node, double epsilon, double u, double *log_w);
/* The child with the highest value, or by c > 0 the highest of v + c sqrt(log N / N_child). λ < 0 looks for the lowest values. */
int32_t kac_tree_best(const kac_tree *t, int32_t node, double c);

bool kac_tree_is_sample(const kac_tree *t, int32_t node);
/* log of the estimate of E[exp(λ r)]; NAN for max. */
double kac_tree_log_z(const kac_tree *t);
/* log_prob [n]: of samples drawn child by child with Boltzmann shares; −INFINITY for other nodes. */
void kac_tree_log_law(const kac_tree *t, double *log_prob);

/* ---- saving: tree_save.c ---- */

/* A node as it is saved; the rest follows from these. */
typedef struct kac_tree_record {
    int64_t place, visits;
    double reward, log_w; /* of a sample, else 0 */
    int32_t parent, level;
} kac_tree_record;

/* records [n] */
void kac_tree_save(const kac_tree *t, kac_tree_record *records);
/* Into a tree that has only its root. KAC_E_FORMAT for records that are no such tree; places are the caller's to check. */
kac_status kac_tree_load(kac_tree *t, const kac_tree_record *records, int64_t n);

#endif
