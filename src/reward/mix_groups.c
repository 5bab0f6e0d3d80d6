#include "reward/mix_groups.h"
#include "base/json.h"
#include <kac/options.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static kac_status unknown_reward(const char *where, const char *key, const kac_reward_spec *const *specs, int n) {
    const char *names[KAC_MAX_REWARDS + 2] = {0};
    for (int i = 0; i < n; i++) names[i] = specs[i]->name;
    names[n] = "share";
    const char *near = kac_nearest(key, names);
    return KAC_FAIL(KAC_E_FORMAT, "%s: no --reward is called \"%.80s\"%s%s%s", where, key,
                    near == NULL ? "" : "; did you mean \"", near == NULL ? "" : near, near == NULL ? "" : "\"?");
}

/* By label, by a name that only one has, or by number from 1. */
static kac_status find_reward(int *out, const char *where, const char *key, const kac_reward_spec *const *specs,
                              int n) {
    int n_named = 0;
    char *end;
    for (int i = 0; i < n; i++)
        if (strcmp(specs[i]->label, key) == 0) return *out = i, KAC_OK;
    for (int i = 0; i < n; i++)
        if (strcmp(specs[i]->name, key) == 0) *out = i, n_named++;
    if (n_named == 1) return KAC_OK;
    if (n_named > 1)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %d rewards are called \"%.80s\"; write NAME=PATH or their number from 1",
                        where, n_named, key);
    const long number = strtol(key, &end, 10);
    if (key[0] != '\0' && *end == '\0' && number >= 1 && number <= n) return *out = (int)number - 1, KAC_OK;
    return unknown_reward(where, key, specs, n);
}

static kac_status read_group(kac_mix_groups *g, const char *where, const cJSON *group,
                             const kac_reward_spec *const *specs, int n) {
    const cJSON *item;
    if (!cJSON_IsObject(group) || group->child == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s must be an object of weights: {\"%s\": 1}", where, specs[0]->name);
    g->shares[g->n] = 1;
    cJSON_ArrayForEach(item, group) {
        int i = 0;
        const double v = cJSON_IsNumber(item) ? item->valuedouble : NAN;
        const bool is_share = strcmp(item->string, "share") == 0;
        if (!is_share) KAC_TRY(find_reward(&i, where, item->string, specs, n));
        if (!isfinite(v) || (is_share && !(v > 0)))
            return KAC_FAIL(KAC_E_FORMAT, "%s: \"%.80s\" must be a%s number", where, item->string,
                            is_share ? " positive" : "");
        *(is_share ? &g->shares[g->n] : &g->weights[g->n][i]) = v;
    }
    g->n++;
    return KAC_OK;
}

static kac_status read_groups(kac_mix_groups *g, const kac_json *j, const kac_reward_spec *const *specs, int n) {
    const cJSON *group;
    cJSON_ArrayForEach(group, j->root) {
        if (g->n == KAC_MAX_GROUPS)
            return KAC_FAIL(KAC_E_FORMAT, "%s: at most %d groups", j->name, (int)KAC_MAX_GROUPS);
        char *where = kac_format("%s: group \"%.80s\"", j->name, group->string);
        const kac_status s = where == NULL ? KAC_E_MEMORY : read_group(g, where, group, specs, n);
        kac_free(where);
        KAC_TRY(s);
    }
    if (g->n == 0) return KAC_FAIL(KAC_E_FORMAT, "%s names no group", j->name);
    double all = 0;
    for (int k = 0; k < g->n; k++) all += g->shares[k];
    for (int k = 0; k < g->n; k++) g->shares[k] /= all;
    return KAC_OK;
}

kac_status kac_mix_groups_load(kac_mix_groups *g, const char *path, const kac_reward_spec *const *specs, int n) {
    kac_json j = {0};
    *g = (kac_mix_groups){0};
    kac_status s = kac_json_load(&j, path);
    if (s == KAC_OK) s = read_groups(g, &j, specs, n);
    kac_json_free(&j);
    return s;
}

void kac_mix_groups_totals(double *totals, const kac_mix_groups *g, const double *v, int n) {
    for (int k = 0; k < g->n; k++) {
        totals[k] = 0;
        for (int i = 0; i < n; i++) totals[k] += g->weights[k][i] * v[i];
    }
}
