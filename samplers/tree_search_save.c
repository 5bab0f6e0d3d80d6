/* Checkpoints of a tree search: the counts, the trees, the process with the states of all nodes. */
#include "base/base.h"
#include "samplers/tree_search.h"
#include <math.h>
#include <string.h>

/* What has to be the same when a run goes on. */
typedef struct settings {
    uint64_t seed;
    double lambda, widening, power;
    int64_t n_groups, n_per_group, n_steps, n_levels, n_rollouts;
    int levels[KAC_TREE_LEVELS];
} settings;

typedef struct head {
    settings settings;
    int64_t n_places;
    double seconds;
    uint64_t checksum; /* of everything else */
} head;

typedef struct group_record {
    int64_t n_nodes, n_iterations, nfe, n_idle;
    double log_sum_w, log_sum_square;
} group_record;

enum { HEAD, GROUPS, NODES, STATES, N_BLOBS };

static settings settings_of(const kac_tree_search *s) {
    settings out = {.seed = s->seed,
                    .lambda = s->lambda,
                    .widening = s->widening,
                    .power = s->power,
                    .n_groups = s->process->n_groups,
                    .n_per_group = s->process->n_per_group,
                    .n_steps = s->process->n_steps,
                    .n_levels = s->n_levels,
                    .n_rollouts = s->n_rollouts};
    memcpy(out.levels, s->levels, (size_t)s->n_levels * sizeof(int));
    return out;
}

static uint64_t checksum_of(const kac_blob blobs[N_BLOBS]) {
    head h;
    memcpy(&h, blobs[HEAD].data, sizeof h);
    h.checksum = 0;
    uint32_t sum = kac_crc32(&h, sizeof h, 0);
    for (int i = GROUPS; i < N_BLOBS; i++) sum = kac_crc32(blobs[i].data, blobs[i].n_bytes, sum);
    return sum;
}

static void free_blobs(kac_blob blobs[N_BLOBS]) {
    for (int i = 0; i < N_BLOBS; i++) kac_free(blobs[i].data);
}

/* ---- saving ---- */

static kac_status fill_blobs(kac_tree_search *s, kac_blob blobs[N_BLOBS]) {
    kac_process *p = s->process;
    int64_t n_nodes = 0;
    for (int g = 0; g < p->n_groups; g++) n_nodes += s->groups[g].tree.n;
    blobs[HEAD].n_bytes = sizeof(head);
    blobs[GROUPS].n_bytes = (size_t)p->n_groups * sizeof(group_record);
    blobs[NODES].n_bytes = (size_t)n_nodes * sizeof(kac_tree_record);
    blobs[STATES].n_bytes = (size_t)p->state_bytes(p);
    for (int i = 0; i < N_BLOBS; i++)
        if ((blobs[i].data = kac_alloc(blobs[i].n_bytes)) == NULL) return KAC_E_MEMORY;
    group_record *groups = blobs[GROUPS].data;
    kac_tree_record *nodes = blobs[NODES].data;
    for (int g = 0; g < p->n_groups; g++) {
        const kac_tree_group *from = &s->groups[g];
        groups[g] = (group_record){from->tree.n, from->n_iterations, from->nfe,
                                   from->n_idle, from->log_sum_w,    from->log_sum_square};
        kac_tree_save(&from->tree, nodes);
        nodes += from->tree.n;
    }
    KAC_TRY(p->state_save(p, blobs[STATES].data));
    head *h = blobs[HEAD].data;
    *h = (head){.settings = settings_of(s), .n_places = s->n_places, .seconds = kac_tree_search_seconds(s)};
    h->checksum = checksum_of(blobs);
    return KAC_OK;
}

kac_status kac_tree_search_save(kac_tree_search *s) {
    if (s->events == NULL || s->events->on_checkpoint == NULL || s->process->state_bytes == NULL) return KAC_OK;
    const double start = kac_now_ms();
    kac_blob blobs[N_BLOBS] = {{"search", NULL, 0}, {"groups", NULL, 0}, {"nodes", NULL, 0}, {"process", NULL, 0}};
    kac_status status = fill_blobs(s, blobs);
    if (status == KAC_OK) status = s->events->on_checkpoint(s->events, s->n_rounds - 1, blobs, N_BLOBS);
    free_blobs(blobs);
    s->saved_ms = kac_now_ms();
    s->save_ms = s->saved_ms - start;
    return status;
}

/* ---- restoring ---- */

static kac_status refuse(void) {
    return KAC_FAIL(KAC_E_FORMAT,
                    "the checkpoint does not belong to this run or is damaged; start again without --resume");
}

static bool belongs(const kac_tree_search *s, const kac_blob blobs[N_BLOBS]) {
    const settings want = settings_of(s);
    if (blobs[HEAD].n_bytes != sizeof(head) ||
        blobs[GROUPS].n_bytes != (size_t)s->process->n_groups * sizeof(group_record) ||
        blobs[NODES].n_bytes % sizeof(kac_tree_record) != 0)
        return false;
    const head *h = blobs[HEAD].data;
    return h->checksum == checksum_of(blobs) && memcmp(&h->settings, &want, sizeof want) == 0 && h->seconds >= 0.0;
}

/* The counts that follow from the tree, and whether the others can be. */
static bool count_samples(kac_tree_search *s, kac_tree_group *group) {
    for (int64_t i = 1; i < group->tree.n; i++) {
        const kac_tree_node *node = &group->tree.nodes[i];
        if (node->place < 0 || node->place >= s->n_places) return false;
        if (node->level < s->n_levels) continue;
        if (group->n_samples++ == 0 || node->value > group->best_reward) group->best_reward = node->value;
    }
    return group->n_samples > 0 && group->n_iterations >= group->n_samples && group->nfe >= 0 && group->n_idle >= 0 &&
           !isnan(group->log_sum_w) && !isnan(group->log_sum_square);
}

static kac_status read_blobs(kac_tree_search *s, const kac_blob blobs[N_BLOBS]) {
    if (!belongs(s, blobs)) return refuse();
    const head *h = blobs[HEAD].data;
    const group_record *groups = blobs[GROUPS].data;
    const kac_tree_record *nodes = blobs[NODES].data;
    int64_t n_left = (int64_t)(blobs[NODES].n_bytes / sizeof *nodes);
    s->n_places = h->n_places, s->seconds_before = h->seconds;
    for (int g = 0; g < s->process->n_groups; g++) {
        kac_tree_group *to = &s->groups[g];
        if (groups[g].n_nodes < 1 || groups[g].n_nodes > n_left) return refuse();
        KAC_TRY(kac_tree_load(&to->tree, nodes, groups[g].n_nodes));
        to->n_iterations = groups[g].n_iterations, to->nfe = groups[g].nfe, to->n_idle = groups[g].n_idle;
        to->log_sum_w = groups[g].log_sum_w, to->log_sum_square = groups[g].log_sum_square;
        if (!count_samples(s, to)) return refuse();
        nodes += groups[g].n_nodes;
        n_left -= groups[g].n_nodes;
    }
    if (n_left != 0) return refuse();
    return s->process->state_load(s->process, blobs[STATES].data, blobs[STATES].n_bytes);
}

kac_status kac_tree_search_restore(kac_tree_search *s) {
    if (s->events == NULL || s->events->on_restore == NULL || s->process->state_bytes == NULL) return KAC_OK;
    kac_blob blobs[N_BLOBS] = {{"search", NULL, 0}, {"groups", NULL, 0}, {"nodes", NULL, 0}, {"process", NULL, 0}};
    kac_status status = s->events->on_restore(s->events, &s->n_rounds, blobs, N_BLOBS);
    s->n_rounds = KAC_MAX(s->n_rounds, 0);
    s->first_round = s->n_rounds;
    if (status == KAC_OK && s->n_rounds > 0) status = read_blobs(s, blobs);
    free_blobs(blobs);
    return status;
}
