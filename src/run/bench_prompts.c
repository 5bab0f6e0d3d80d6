#include "run/bench_prompts.h"
#include <string.h>

enum { MAX_CATEGORIES = 1024 };

/* A file's prompts; those without a category get this one, if it is not NULL. */
static kac_status add_file(kac_bench_plan *p, kac_prompt_list *all, const char *name, const char *category) {
    char *path = kac_bench_path(p, name);
    const int before = all->n;
    kac_status s = path == NULL ? KAC_E_MEMORY : kac_prompt_list_add_file(all, path);
    for (int i = before; i < all->n && s == KAC_OK && category != NULL; i++)
        if (all->categories[i] == NULL && (all->categories[i] = kac_strdup(category)) == NULL) s = KAC_E_MEMORY;
    kac_free(path);
    return s;
}

/* {"file", "category"}: without one the file's name is the category. */
static kac_status add_entry(kac_bench_plan *p, kac_prompt_list *all, const cJSON *v, int at) {
    const char *file = NULL, *category = NULL;
    if (cJSON_IsObject(v)) KAC_TRY(kac_json_text(&p->file, v, "file", &file));
    if (file == NULL) {
        const kac_status s = kac_prompt_list_add_json(all, v, at);
        return s == KAC_OK || s == KAC_E_MEMORY ? s : kac_fail_prefix(s, "%s: prompts", p->file.name);
    }
    KAC_TRY(kac_json_text(&p->file, v, "category", &category));
    const char *base = kac_path_base(file);
    char *stem = category != NULL ? kac_strdup(category) : kac_format("%.*s", (int)strcspn(base, "."), base);
    const kac_status s = stem == NULL ? KAC_E_MEMORY : add_file(p, all, file, stem);
    kac_free(stem);
    return s;
}

static kac_status read_all(kac_bench_plan *p, kac_prompt_list *all) {
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(p->file.root, "prompts"), *v;
    int at = 1;
    if (prompts == NULL) {
        p->unconditional = true;
        return KAC_OK;
    }
    if (cJSON_IsString(prompts)) return add_file(p, all, prompts->valuestring, NULL);
    if (!cJSON_IsArray(prompts) || prompts->child == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"prompts\" must be a file, or a list", p->file.name);
    cJSON_ArrayForEach(v, prompts) KAC_TRY(add_entry(p, all, v, at++));
    return KAC_OK;
}

/* Which categories there are, in the order of their first prompts; of[i]: prompt i's number among them. */
static kac_status number_categories(const kac_prompt_list *all, int *of, const char **names, int *n) {
    *n = 0;
    for (int i = 0; i < all->n; i++) {
        const char *name = all->categories[i] == NULL ? "" : all->categories[i];
        int k = 0;
        while (k < *n && strcmp(names[k], name) != 0) k++;
        if (k == *n && *n == MAX_CATEGORIES)
            return KAC_FAIL(KAC_E_USAGE, "the prompts have more than %d categories", (int)MAX_CATEGORIES);
        if (k == *n) names[(*n)++] = name;
        of[i] = k;
    }
    return KAC_OK;
}

static kac_status choose_categories(const kac_bench_plan *p, bool *chosen, const char *const *names, int n) {
    const char *wanted[MAX_CATEGORIES];
    int n_wanted = 0;
    KAC_TRY(kac_json_texts(&p->file, p->file.root, "categories", wanted, MAX_CATEGORIES, &n_wanted));
    for (int k = 0; k < n; k++) chosen[k] = n_wanted == 0;
    for (int i = 0; i < n_wanted; i++) {
        bool found = false;
        for (int k = 0; k < n; k++)
            if (strcmp(names[k], wanted[i]) == 0) chosen[k] = found = true;
        if (!found)
            return KAC_FAIL(KAC_E_USAGE, "%s: \"categories\": no prompt is of \"%.60s\"", p->file.name, wanted[i]);
    }
    return KAC_OK;
}

/* Categories in turn, each in its own order; a prompt without an id has its number in the files. */
static kac_status order(kac_bench_plan *p, const kac_prompt_list *all, const int *of, const bool *chosen, int n) {
    int *next = kac_alloc((size_t)(n + 1) * sizeof *next);
    if (next == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    for (bool any = true; any && s == KAC_OK;) {
        any = false;
        for (int k = 0; k < n && s == KAC_OK; k++) {
            int i = next[k];
            while (i < all->n && of[i] != k) i++;
            next[k] = KAC_MIN(i + 1, all->n);
            if (i == all->n || !chosen[k]) continue;
            char *id = all->ids[i] != NULL ? kac_strdup(all->ids[i]) : kac_format("%d", i + 1);
            s = id == NULL ? KAC_E_MEMORY
                           : kac_prompt_list_add_known(&p->prompts, all->items[i], all->categories[i], id);
            kac_free(id);
            any = true;
        }
    }
    kac_free(next);
    return s;
}

static kac_status arrange(kac_bench_plan *p, const kac_prompt_list *all) {
    const char *names[MAX_CATEGORIES];
    bool chosen[MAX_CATEGORIES] = {0};
    int n, *of = kac_alloc((size_t)(all->n + 1) * sizeof *of);
    if (of == NULL) return KAC_E_MEMORY;
    kac_status s = number_categories(all, of, names, &n);
    if (s == KAC_OK) s = choose_categories(p, chosen, names, n);
    if (s == KAC_OK) s = order(p, all, of, chosen, n);
    kac_free(of);
    return s;
}

kac_status kac_bench_prompts_read(kac_bench_plan *p, const kac_options *o) {
    kac_prompt_list all = {0};
    kac_status s = read_all(p, &all);
    if (s == KAC_OK) s = arrange(p, &all);
    kac_prompt_list_free(&all);
    KAC_TRY(s);
    int64_t limit = 0;
    KAC_TRY(kac_json_int(&p->file, p->file.root, "limit", &limit));
    if (limit < 0) return KAC_FAIL(KAC_E_USAGE, "%s: \"limit\" must be above 0", p->file.name);
    if (kac_options_given(o, "limit")) limit = kac_options_int(o, "limit");
    p->n_prompts = p->unconditional ? 1 : p->prompts.n;
    if (limit > 0) p->n_prompts = (int)KAC_MIN(limit, p->n_prompts);
    return KAC_OK;
}
