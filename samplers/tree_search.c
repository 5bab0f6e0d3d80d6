#include "samplers/tree_search.h"
#include "base/base.h"
#include <math.h>

enum {
    MOST_IDLE = 100000, /* visits in a row without a new child: a tree that cannot grow */
    SAVE_EVERY_MS = 10000,
    SAVE_SHARE = 20 /* saving takes at most one part in so many of the time */
};

/* ---- asking ---- */

/* Level of the first new state of a visit. */
static int first_level(const kac_tree_search *s, const kac_tree_visit *v) {
    return s->groups[v->group].tree.nodes[v->node].level + 1;
}

static int first_step(const kac_tree_search *s, const kac_tree_visit *v) {
    const int level = first_level(s, v);
    return level == 0 ? 0 : s->levels[level - 1];
}

/* Evaluations by the denoiser: the state that a child starts from has its prediction. */
static int64_t cost_of(const kac_tree_search *s, const kac_tree_visit *v) {
    const int level = first_level(s, v);
    return s->process->n_steps - first_step(s, v) - (level > 0);
}

static int64_t n_new_nodes(const kac_tree_search *s, const kac_tree_visit *v) {
    return v->index < 0 ? 0 : s->n_levels - first_level(s, v) + 1;
}

/* From the root to a node that may have another child, or to a sample. Whoever is on the way counts as visited at once. */
static kac_tree_visit find(kac_tree_search *s, int g) {
    kac_tree_group *group = &s->groups[g];
    kac_tree *t = &group->tree;
    kac_tree_visit v = {.group = g, .index = -1};
    int64_t draw = group->n_iterations++ * KAC_TREE_LEVELS;
    while (!kac_tree_is_sample(t, v.node)) {
        kac_tree_node *node = &t->nodes[v.node];
        const bool grows = node->n_asked < s->widening * pow((double)node->visits, s->power);
        if (grows || node->n_children == 0) {
            v.index = node->n_asked++;
            v.key = kac_tree_child_key(t, v.node, v.index);
            node->visits++;
            break;
        }
        v.node = s->choose(s, g, v.node, draw++, &v.log_w);
        node->visits++;
    }
    return v;
}

static void unask(kac_tree_search *s, const kac_tree_visit *v) {
    kac_tree_group *group = &s->groups[v->group];
    kac_tree *t = &group->tree;
    const bool visited = kac_tree_is_sample(t, v->node);
    for (int32_t at = visited ? t->nodes[v->node].parent : v->node; at >= 0; at = t->nodes[at].parent)
        t->nodes[at].visits--;
    if (!visited) t->nodes[v->node].n_asked--;
    group->n_iterations--;
}

/* Whether the group can afford it. */
static bool fits(const kac_tree_search *s, const kac_tree_visit *v) {
    const kac_tree_group *group = &s->groups[v->group];
    if (v->index < 0) return group->n_idle < MOST_IDLE;
    return (s->nfe_budget == 0 || group->nfe + cost_of(s, v) <= s->nfe_budget) &&
           group->tree.n + group->n_coming + n_new_nodes(s, v) <= s->most_nodes;
}

/* Fills this round's visits. */
static void ask(kac_tree_search *s) {
    s->n_visits = 0;
    for (int g = 0; g < s->process->n_groups; g++) {
        kac_tree_group *group = &s->groups[g];
        int slot = g * s->process->n_per_group;
        group->idle_before = group->n_idle;
        for (int i = 0; i < s->n_rollouts && !group->done; i++) {
            kac_tree_visit v = find(s, g);
            if (!fits(s, &v)) {
                unask(s, &v);
                group->done = true;
                break;
            }
            group->n_idle = v.index < 0 ? group->n_idle + 1 : 0;
            if (v.index >= 0) {
                v.slot = slot++;
                v.places = s->n_places;
                s->n_places += n_new_nodes(s, &v);
                group->n_coming += n_new_nodes(s, &v);
                group->nfe += cost_of(s, &v);
            }
            s->visits[s->n_visits++] = v;
        }
    }
}

/* As if the round had not been. */
static void forget_round(kac_tree_search *s) {
    for (int i = s->n_visits - 1; i >= 0; i--) {
        const kac_tree_visit *v = &s->visits[i];
        s->groups[v->group].done = false;
        s->groups[v->group].n_idle = s->groups[v->group].idle_before;
        if (v->index >= 0) {
            s->n_places -= n_new_nodes(s, v);
            s->groups[v->group].n_coming -= n_new_nodes(s, v);
            s->groups[v->group].nfe -= cost_of(s, v);
        }
        unask(s, v);
    }
    s->n_visits = 0;
}

/* ---- rolling out ---- */

/* Those whose first step is this one get their states and keys. */
static kac_status join(kac_tree_search *s, int i_step) {
    kac_process *p = s->process;
    int n = 0, n_fresh = 0;
    for (int i = 0; i < s->n_visits; i++) {
        const kac_tree_visit *v = &s->visits[i];
        if (v->index < 0 || first_level(s, v) > 0 || i_step > 0) continue;
        s->joining[n_fresh] = v->slot;
        s->keys[n_fresh++] = v->key;
    }
    p->rekey(p, s->joining, n_fresh, s->keys);
    if (n_fresh > 0) KAC_TRY(p->start(p, s->joining, n_fresh));
    for (int i = 0; i < s->n_visits; i++) {
        const kac_tree_visit *v = &s->visits[i];
        if (v->index < 0 || first_level(s, v) == 0 || first_step(s, v) != i_step) continue;
        s->joining[n] = v->slot;
        s->places[n] = s->groups[v->group].tree.nodes[v->node].place;
        s->keys[n++] = v->key;
    }
    p->rekey(p, s->joining, n, s->keys);
    return n > 0 ? p->fetch(p, s->places, s->joining, n) : KAC_OK;
}

/* Puts the states of a level by where they are new. */
static kac_status keep(kac_tree_search *s, int level) {
    int n = 0;
    for (int i = 0; i < s->n_visits; i++) {
        const kac_tree_visit *v = &s->visits[i];
        if (v->index < 0 || first_level(s, v) > level) continue;
        s->joining[n] = v->slot;
        s->places[n++] = v->places + level - first_level(s, v);
    }
    return n > 0 ? s->process->store(s->process, s->joining, n, s->places) : KAC_OK;
}

static bool is_cancelled(kac_tree_search *s) {
    return s->events != NULL && s->events->cancelled != NULL && s->events->cancelled(s->events);
}

/* Which slots run at this step. */
static int list_running(const kac_tree_search *s, int i_step) {
    int n = 0;
    for (int i = 0; i < s->n_visits; i++)
        if (s->visits[i].index >= 0 && first_step(s, &s->visits[i]) <= i_step) s->slots[n++] = s->visits[i].slot;
    return n;
}

static kac_status score(kac_tree_search *s, int n) {
    kac_reward *r = s->reward;
    KAC_TRY(r->score(r, s->process, s->slots, n, KAC_STAGE_FINAL, s->rewards));
    for (int i = 0, at = 0; i < s->n_visits; i++) {
        kac_tree_visit *v = &s->visits[i];
        if (v->index < 0) continue;
        v->reward = s->rewards[at++];
        if (!isfinite(v->reward) || !isfinite(s->lambda * v->reward))
            return KAC_FAIL(KAC_E_NONFINITE, "the reward %s of sample %lld of group %d is %g; times lambda it is %g",
                            r->name != NULL ? r->name : "", (long long)s->groups[v->group].n_samples, v->group,
                            v->reward, s->lambda * v->reward);
    }
    return KAC_OK;
}

static kac_status roll_out(kac_tree_search *s, bool *stopped) {
    kac_process *p = s->process;
    int n = 0;
    for (int i_step = 0, level = 0; i_step < p->n_steps; i_step++) {
        KAC_TRY(join(s, i_step));
        n = list_running(s, i_step);
        if (n > 0) KAC_TRY(p->predict(p, i_step, s->slots, n));
        if (level < s->n_levels && s->levels[level] == i_step) KAC_TRY(keep(s, level++));
        if (n > 0) KAC_TRY(p->step(p, i_step, s->slots, s->slots, n));
        if (n > 0 && i_step + 1 < p->n_steps && is_cancelled(s)) {
            *stopped = true;
            return KAC_OK;
        }
    }
    if (n == 0) return KAC_OK;
    KAC_TRY(keep(s, s->n_levels));
    return score(s, n);
}

/* ---- taking in ---- */

static double log_add(double a, double b) {
    const double top = fmax(a, b), low = fmin(a, b);
    return low == -INFINITY ? top : top + log1p(exp(low - top));
}

static kac_status add_nodes(kac_tree_search *s, const kac_tree_visit *v, int32_t *sample) {
    kac_tree *t = &s->groups[v->group].tree;
    int32_t at = v->node;
    int64_t place = v->places;
    KAC_ASSERT(t->nodes[at].n_children == v->index);
    for (int level = first_level(s, v); level < s->n_levels; level++) KAC_TRY(kac_tree_add(t, at, place++, &at));
    return kac_tree_add_sample(t, at, place, v->reward, -INFINITY, sample);
}

static kac_status take_in(kac_tree_search *s, kac_tree_visit *v) {
    kac_tree_group *group = &s->groups[v->group];
    int32_t sample = v->node;
    if (v->index >= 0) {
        KAC_TRY(add_nodes(s, v, &sample));
        if (group->n_samples++ == 0 || v->reward > group->best_reward) group->best_reward = v->reward;
    }
    kac_tree_node *node = &group->tree.nodes[sample];
    const double scaled = s->lambda * node->value, before = node->log_w;
    node->log_w = log_add(before, v->log_w);
    group->log_sum_w = log_add(group->log_sum_w, v->log_w + scaled);
    /* (a + w)² − a² = w (2 a + w) */
    group->log_sum_square =
        log_add(group->log_sum_square, v->log_w + log_add(before + log(2.0), v->log_w) + 2.0 * scaled);
    return KAC_OK;
}

double kac_tree_search_seconds(const kac_tree_search *s) {
    return s->seconds_before + (kac_now_ms() - s->start_ms) / 1000.0;
}

static kac_status report(kac_tree_search *s, int g) {
    const kac_tree_group *group = &s->groups[g];
    int n = 0;
    for (int i = 0; i < s->n_visits; i++)
        if (s->visits[i].group == g && s->visits[i].index >= 0) s->rewards[n++] = s->visits[i].reward;
    kac_search_event event = {.group = g,
                              .n_groups = s->process->n_groups,
                              .nfe = group->nfe,
                              .nfe_budget = s->nfe_budget,
                              .seconds = kac_tree_search_seconds(s),
                              .seconds_budget = s->seconds_budget,
                              .n_samples = group->n_samples,
                              .n_nodes = group->tree.n,
                              .best_reward = group->best_reward,
                              .rewards = s->rewards,
                              .n_rewards = n};
    s->estimate(s, g, &event.log_z, &event.ess);
    return n > 0 ? s->events->on_search(s->events, &event) : KAC_OK;
}

/* ---- rounds ---- */

/* *stopped: cancelled on the way, and as if it had not begun. */
static kac_status run_round(kac_tree_search *s, bool *stopped) {
    KAC_TRY(roll_out(s, stopped));
    if (*stopped) {
        forget_round(s);
        return KAC_OK;
    }
    for (int i = 0; i < s->n_visits; i++) KAC_TRY(take_in(s, &s->visits[i]));
    for (int g = 0; g < s->process->n_groups; g++) s->groups[g].n_coming = 0;
    s->n_rounds++;
    for (int g = 0; s->events != NULL && s->events->on_search != NULL && g < s->process->n_groups; g++)
        KAC_TRY(report(s, g));
    return KAC_OK;
}

/* Another round would end after the time is up, if it takes as long as those before. */
static bool is_out_of_time(const kac_tree_search *s) {
    const int n = s->n_rounds - s->first_round;
    if (s->seconds_budget <= 0.0 || s->n_rounds == 0) return false;
    const double spent = (kac_now_ms() - s->start_ms) / 1000.0, next = n > 0 ? spent / n : 0.0;
    return s->seconds_before + spent + next > s->seconds_budget;
}

static kac_status save_sometimes(kac_tree_search *s) {
    const double since = kac_now_ms() - s->saved_ms;
    return since > SAVE_EVERY_MS && since > SAVE_SHARE * s->save_ms ? kac_tree_search_save(s) : KAC_OK;
}

static kac_status check_samples(const kac_tree_search *s, bool stopped) {
    for (int g = 0; g < s->process->n_groups; g++) {
        if (s->groups[g].n_samples > 0) continue;
        if (stopped) return KAC_FAIL(KAC_E_CANCELLED, "stopped before the first sample was finished");
        return KAC_FAIL(KAC_E_USAGE, "%s: the budget of %lld evaluations is less than the %d of one sample", s->name,
                        (long long)s->nfe_budget, s->process->n_steps);
    }
    return KAC_OK;
}

kac_status kac_tree_search_run(kac_tree_search *s) {
    bool stopped = false;
    while (!is_out_of_time(s)) {
        ask(s);
        if (s->n_visits == 0) break;
        KAC_TRY(run_round(s, &stopped));
        stopped = stopped || is_cancelled(s);
        if (stopped) {
            if (s->n_rounds > 0) KAC_TRY(kac_tree_search_save(s));
            break;
        }
        KAC_TRY(save_sometimes(s));
    }
    return check_samples(s, stopped);
}

/* ---- memory ---- */

kac_status kac_tree_search_init(kac_tree_search *s, kac_tree_backup backup, double tempering) {
    const size_t n_groups = (size_t)s->process->n_groups, n = n_groups * (size_t)s->process->n_per_group;
    KAC_ASSERT(s->n_rollouts >= 1 && s->n_rollouts <= s->process->n_per_group);
    s->start_ms = s->saved_ms = kac_now_ms();
    s->groups = kac_alloc(n_groups * sizeof *s->groups);
    s->visits = kac_alloc(n * sizeof *s->visits);
    s->slots = kac_alloc(n * sizeof *s->slots);
    s->joining = kac_alloc(n * sizeof *s->joining);
    s->keys = kac_alloc(n * sizeof *s->keys);
    s->places = kac_alloc(n * sizeof *s->places);
    s->rewards = kac_alloc(n * sizeof *s->rewards);
    if (s->groups == NULL || s->visits == NULL || s->slots == NULL || s->joining == NULL || s->keys == NULL ||
        s->places == NULL || s->rewards == NULL)
        return KAC_E_MEMORY;
    for (size_t g = 0; g < n_groups; g++) {
        s->groups[g].log_sum_w = s->groups[g].log_sum_square = -INFINITY;
        KAC_TRY(kac_tree_init(&s->groups[g].tree, s->n_levels, s->lambda, backup, tempering));
    }
    return kac_tree_search_restore(s);
}

void kac_tree_search_free(kac_tree_search *s) {
    for (int g = 0; s->groups != NULL && g < s->process->n_groups; g++) kac_tree_free(&s->groups[g].tree);
    void *const all[] = {s->groups, s->visits, s->slots, s->joining, s->keys, s->places, s->rewards};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    s->groups = NULL;
}
