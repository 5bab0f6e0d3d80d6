/* A tree as flat records, and back: the children, keys and sums follow from the order of the nodes, the values from the samples. */
#include "base/base.h"
#include "samplers/tree.h"
#include <math.h>

void kac_tree_save(const kac_tree *t, kac_tree_record *records) {
    for (int64_t i = 0; i < t->n; i++) {
        const kac_tree_node *node = &t->nodes[i];
        const bool sample = node->level == t->n_levels;
        records[i] = (kac_tree_record){.place = node->place,
                                       .visits = node->visits,
                                       .reward = sample ? node->value : 0.0,
                                       .log_w = sample ? node->log_w : 0.0,
                                       .parent = node->parent,
                                       .level = node->level};
    }
}

static bool is_good(const kac_tree *t, const kac_tree_record *r) {
    return r->parent >= 0 && r->parent < t->n && r->level >= 0 && r->level <= t->n_levels && r->visits >= 1 &&
           t->nodes[r->parent].level == r->level - 1 && isfinite(r->reward) && r->log_w < INFINITY;
}

static kac_status refuse(void) {
    return KAC_FAIL(KAC_E_FORMAT, "the saved tree is damaged; start again without --resume");
}

kac_status kac_tree_load(kac_tree *t, const kac_tree_record *records, int64_t n) {
    KAC_ASSERT(t->n == 1);
    if (n < 1 || n > INT32_MAX || records[0].level != -1 || records[0].parent != -1 || records[0].visits < 1)
        return refuse();
    t->nodes[0].visits = records[0].visits;
    for (int64_t i = 1; i < n; i++) {
        const kac_tree_record *r = &records[i];
        int32_t node;
        if (!is_good(t, r)) return refuse();
        if (r->level == t->n_levels)
            KAC_TRY(kac_tree_add_sample(t, r->parent, r->place, r->reward, r->log_w, &node));
        else
            KAC_TRY(kac_tree_add(t, r->parent, r->place, &node));
        t->nodes[node].visits = r->visits;
    }
    for (int64_t i = 1; i < n; i++)
        if (t->nodes[i].level < t->n_levels && t->nodes[i].n_children == 0) return refuse();
    return KAC_OK;
}
