#include "tree_data.h"
#include "run_data.h"
#include <limits.h>
#include <math.h>

enum { MAX_NODES = 1 << 22 };

/* The numbers of a list as whole ones from lo to INT_MAX; all n must be there. */
static bool wholes(int *out, const cJSON *list, int n, int lo) {
    int i = 0;
    const cJSON *v;
    if (!cJSON_IsArray(list)) return false;
    cJSON_ArrayForEach(v, list) {
        if (i >= n || !cJSON_IsNumber(v) || !(v->valuedouble >= lo) || !(v->valuedouble <= INT_MAX)) return false;
        out[i++] = (int)v->valuedouble;
    }
    return i == n;
}

/* A missing list, or an entry that is no finite number: NAN. */
static void reals(double *out, const cJSON *list, int n) {
    int i = 0;
    const cJSON *v;
    for (int k = 0; k < n; k++) out[k] = NAN;
    if (!cJSON_IsArray(list)) return;
    cJSON_ArrayForEach(v, list) {
        if (i >= n) return;
        out[i++] = cJSON_IsNumber(v) && isfinite(v->valuedouble) ? v->valuedouble : NAN;
    }
}

static kac_status take(kac_tree_file *t, const kac_json *j) {
    const cJSON *parents = kac_run_at(j->root, "parent"), *v;
    const int n = cJSON_IsArray(parents) ? cJSON_GetArraySize(parents) : 0;
    if (n < 1 || n > MAX_NODES)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"parent\" must be a list of 1 … %d nodes", j->name, MAX_NODES);
    int **of_ints[] = {&t->parent, &t->i_step, &t->visits, &t->n_children, &t->n_chosen};
    for (int i = 0; i < KAC_COUNT_OF(of_ints); i++)
        if ((*of_ints[i] = kac_alloc((size_t)n * sizeof(int))) == NULL) return KAC_E_MEMORY;
    t->value = kac_alloc((size_t)n * sizeof(double));
    t->log_prob = kac_alloc((size_t)n * sizeof(double));
    if (t->value == NULL || t->log_prob == NULL) return KAC_E_MEMORY;
    if (!wholes(t->parent, parents, n, -1) || !wholes(t->i_step, kac_run_at(j->root, "i_step"), n, -1) ||
        !wholes(t->visits, kac_run_at(j->root, "visits"), n, 0))
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"parent\", \"i_step\" and \"visits\" must be lists of %d whole numbers",
                        j->name, n);
    for (int i = 0; i < n; i++) {
        if (t->parent[i] >= i)
            return KAC_FAIL(KAC_E_FORMAT, "%s: node %d comes before its parent %d", j->name, i, t->parent[i]);
        if (t->parent[i] >= 0 && t->i_step[i] <= t->i_step[t->parent[i]])
            return KAC_FAIL(KAC_E_FORMAT, "%s: node %d is not a later state than its parent %d", j->name, i,
                            t->parent[i]);
        if (t->parent[i] >= 0) t->n_children[t->parent[i]]++;
    }
    reals(t->value, kac_run_at(j->root, "value"), n);
    reals(t->log_prob, kac_run_at(j->root, "log_prob"), n);
    cJSON_ArrayForEach(v, kac_run_at(j->root, "chosen")) {
        if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0) || !(v->valuedouble < n)) continue;
        t->n_chosen[(int)v->valuedouble]++;
        t->n_results++;
    }
    t->n = n;
    return KAC_OK;
}

kac_status kac_tree_file_load(kac_tree_file *t, const char *path) {
    kac_json j;
    *t = (kac_tree_file){0};
    KAC_TRY(kac_json_load(&j, path));
    const kac_status s = take(t, &j);
    kac_json_free(&j);
    return s;
}

void kac_tree_file_free(kac_tree_file *t) {
    kac_free(t->parent), kac_free(t->i_step), kac_free(t->visits), kac_free(t->n_children), kac_free(t->n_chosen);
    kac_free(t->value), kac_free(t->log_prob);
    *t = (kac_tree_file){0};
}
