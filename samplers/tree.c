#include "samplers/tree.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

/* The heaps of a node: what is backed up, the squares for the effective sample size, and what children are chosen by if that is not the
 * first one. */
enum { BACKED, SQUARES, CHOICE };

static kac_tree_node *node_at(const kac_tree *t, int32_t i) {
    return &t->nodes[i];
}

bool kac_tree_is_sample(const kac_tree *t, int32_t node) {
    return node_at(t, node)->level == t->n_levels;
}

kac_status kac_tree_init(kac_tree *t, int n_levels, double lambda, kac_tree_backup backup, double tempering) {
    KAC_ASSERT(n_levels >= 1 && n_levels <= KAC_TREE_LEVELS);
    const bool same = tempering == 1.0 && backup == KAC_TREE_SOFT;
    *t = (kac_tree){.n_levels = n_levels,
                    .lambda = lambda,
                    .backup = backup,
                    .tempering = tempering,
                    .n_heaps = same ? 2 : 3,
                    .choice = same ? BACKED : CHOICE,
                    .most = 64};
    t->nodes = kac_alloc((size_t)t->most * sizeof *t->nodes);
    if (t->nodes == NULL) return KAC_E_MEMORY;
    t->nodes[t->n++] = (kac_tree_node){.place = -1, .visits = 1, .parent = -1, .level = -1, .log_w = -INFINITY};
    return KAC_OK;
}

void kac_tree_free(kac_tree *t) {
    for (int64_t i = 0; i < t->n; i++) {
        kac_free(t->nodes[i].sums);
        kac_free(t->nodes[i].children);
    }
    kac_free(t->nodes);
    *t = (kac_tree){0};
}

/* ---- the heaps ---- */

static double log_add(double a, double b) {
    const double top = fmax(a, b), low = fmin(a, b);
    return low == -INFINITY ? top : top + log1p(exp(low - top));
}

static bool is_mean(const kac_tree *t) {
    return t->backup == KAC_TREE_SOFT && t->lambda == 0.0;
}

/* What an empty entry of a heap is, and what two make together. */
static double nothing(const kac_tree *t, int heap) {
    return heap == BACKED && is_mean(t) ? 0.0 : -INFINITY;
}

static double combine(const kac_tree *t, int heap, double a, double b) {
    if (heap == BACKED && t->backup == KAC_TREE_MAX) return fmax(a, b);
    return heap == BACKED && is_mean(t) ? a + b : log_add(a, b);
}

static double *heap_of(const kac_tree_node *node, int heap) {
    return node->sums + (size_t)heap * 2 * (size_t)node->cap;
}

/* What a child contributes to a heap of its parent. */
static double entry_of(const kac_tree *t, const kac_tree_node *child, int heap) {
    const double scaled = t->lambda * child->value;
    if (heap == SQUARES) return 2.0 * scaled + child->log_square;
    if (heap == CHOICE) return t->tempering * scaled;
    if (t->backup == KAC_TREE_MAX) return t->lambda < 0.0 ? -child->value : child->value;
    return is_mean(t) ? child->value : scaled;
}

static kac_status grow_fan(kac_tree *t, kac_tree_node *node) {
    const int32_t cap = node->cap == 0 ? 1 : 2 * node->cap;
    double *sums = kac_alloc((size_t)t->n_heaps * 2 * (size_t)cap * sizeof *sums);
    int32_t *children = sums == NULL ? NULL : kac_realloc(node->children, (size_t)cap * sizeof *children);
    if (children == NULL) {
        kac_free(sums);
        return KAC_E_MEMORY;
    }
    for (int h = 0; h < t->n_heaps; h++) {
        double *to = sums + (size_t)h * 2 * (size_t)cap;
        for (int32_t i = 0; i < cap; i++)
            to[cap + i] = i < node->n_children ? heap_of(node, h)[node->cap + i] : nothing(t, h);
        for (int32_t i = cap - 1; i >= 1; i--) to[i] = combine(t, h, to[2 * i], to[2 * i + 1]);
    }
    kac_free(node->sums);
    node->sums = sums, node->children = children, node->cap = cap;
    return KAC_OK;
}

static void set_entry(const kac_tree *t, kac_tree_node *node, int heap, int32_t index, double value) {
    double *sums = heap_of(node, heap);
    int32_t i = node->cap + index;
    sums[i] = value;
    for (i /= 2; i >= 1; i /= 2) sums[i] = combine(t, heap, sums[2 * i], sums[2 * i + 1]);
}

/* ---- values ---- */

static void value_of(const kac_tree *t, kac_tree_node *node) {
    const double sum = heap_of(node, BACKED)[1], n = node->n_children;
    if (t->backup == KAC_TREE_MAX)
        node->value = t->lambda < 0.0 ? -sum : sum;
    else
        node->value = is_mean(t) ? sum / n : (sum - log(n)) / t->lambda;
    const double all = is_mean(t) ? log(n) : sum;
    node->log_square = t->backup == KAC_TREE_MAX ? 0.0 : heap_of(node, SQUARES)[1] - 2.0 * all;
}

/* From a node whose value is new to the root. */
static void back_up(kac_tree *t, int32_t from) {
    for (int32_t at = from; node_at(t, at)->parent >= 0; at = node_at(t, at)->parent) {
        const kac_tree_node *child = node_at(t, at);
        kac_tree_node *parent = node_at(t, child->parent);
        for (int h = 0; h < t->n_heaps; h++) set_entry(t, parent, h, child->index, entry_of(t, child, h));
        value_of(t, parent);
    }
}

kac_status kac_tree_add(kac_tree *t, int32_t parent, int64_t place, int32_t *out) {
    if (t->n == t->most) {
        kac_tree_node *nodes = kac_realloc(t->nodes, 2 * (size_t)t->most * sizeof *nodes);
        if (nodes == NULL) return KAC_E_MEMORY;
        t->nodes = nodes, t->most *= 2;
    }
    kac_tree_node *above = node_at(t, parent);
    if (above->n_children == above->cap) KAC_TRY(grow_fan(t, above));
    const int32_t level = above->level + 1, index = above->n_children;
    KAC_ASSERT(level <= t->n_levels && t->n < INT32_MAX);
    t->nodes[t->n] = (kac_tree_node){.key = kac_tree_child_key(t, parent, index),
                                     .place = place,
                                     .visits = level < t->n_levels ? 2 : 1,
                                     .log_w = -INFINITY,
                                     .parent = parent,
                                     .index = index,
                                     .level = level};
    above->children[above->n_children++] = (int32_t)t->n;
    above->n_asked = KAC_MAX(above->n_asked, above->n_children);
    *out = (int32_t)t->n++;
    return KAC_OK;
}

kac_status kac_tree_add_sample(kac_tree *t, int32_t parent, int64_t place, double reward, double log_w, int32_t *out) {
    KAC_TRY(kac_tree_add(t, parent, place, out));
    KAC_ASSERT(kac_tree_is_sample(t, *out));
    node_at(t, *out)->value = reward;
    node_at(t, *out)->log_w = log_w;
    back_up(t, *out);
    return KAC_OK;
}

/* ---- noise ---- */

/* splitmix64's finaliser (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

uint64_t kac_tree_child_key(const kac_tree *t, int32_t parent, int64_t index) {
    const kac_tree_node *node = node_at(t, parent);
    if (node->level < 0) return (uint64_t)index;
    if (index == 0) return node->key;
    /* the level belongs to it: a node and its first child have one key */
    return mix(mix(node->key + 0x9E3779B97F4A7C15u * (uint64_t)(node->level + 1)) + (uint64_t)index);
}

/* ---- choosing ---- */

static int32_t draw_index(const kac_tree *t, const kac_tree_node *node, double u) {
    const double *sums = heap_of(node, t->choice);
    int32_t i = 1;
    while (i < node->cap) {
        i *= 2;
        if (sums[i + 1] == -INFINITY) continue;
        const double left = exp(sums[i] - log_add(sums[i], sums[i + 1]));
        if (u < left) {
            u /= left;
        } else {
            u = (u - left) / (1.0 - left);
            i++;
        }
    }
    return i - node->cap;
}

int32_t kac_tree_draw(const kac_tree *t, int32_t at, double epsilon, double u, double *log_w) {
    const kac_tree_node *node = node_at(t, at);
    const int32_t n = node->n_children;
    KAC_ASSERT(n > 0);
    const bool even = u < epsilon || is_mean(t);
    const double rest = u < epsilon ? u / epsilon : (u - epsilon) / (1.0 - epsilon);
    const int32_t index = even ? KAC_MIN((int32_t)(rest * n), n - 1) : draw_index(t, node, rest);
    if (!is_mean(t)) {
        const double *sums = heap_of(node, t->choice);
        const double share = exp(sums[node->cap + index] - sums[1]);
        *log_w -= log(n * (1.0 - epsilon) * share + epsilon);
    }
    return node->children[index];
}

int32_t kac_tree_best(const kac_tree *t, int32_t at, double c) {
    const kac_tree_node *node = node_at(t, at);
    const double bonus = c > 0.0 ? c * sqrt(log((double)node->visits)) : 0.0, sign = t->lambda < 0.0 ? -1.0 : 1.0;
    int32_t best = node->children[0];
    double top = -INFINITY;
    for (int32_t i = 0; i < node->n_children; i++) {
        const kac_tree_node *child = node_at(t, node->children[i]);
        const double score = sign * child->value + (bonus > 0.0 ? bonus / sqrt((double)child->visits) : 0.0);
        if (score > top) top = score, best = node->children[i];
    }
    return best;
}

/* ---- what the tree says ---- */

double kac_tree_log_z(const kac_tree *t) {
    return t->backup == KAC_TREE_MAX || t->nodes[0].n_children == 0 ? (double)NAN : t->lambda * t->nodes[0].value;
}

void kac_tree_log_law(const kac_tree *t, double *log_prob) {
    for (int64_t i = 0; i < t->n; i++) {
        const kac_tree_node *node = &t->nodes[i];
        if (i == 0) {
            log_prob[i] = 0.0;
            continue;
        }
        const kac_tree_node *parent = node_at(t, node->parent);
        /* mean of exp(λ v) over the siblings is exp(λ v) of the parent, for soft values */
        const double share = t->lambda * (node->value - parent->value) - log((double)parent->n_children);
        log_prob[i] = log_prob[node->parent] + share;
    }
    for (int64_t i = 0; i < t->n; i++)
        if (t->nodes[i].level < t->n_levels) log_prob[i] = -INFINITY;
}
