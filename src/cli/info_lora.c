#include "info.h"
#include "io/lora.h"
#include "run/convert_lora.h"
#include <stdio.h>
#include <string.h>

/* Smallest and largest of a property over the modules. */
static void add_range(cJSON *d, const char *name, double least, double most) {
    if (least == most) {
        cJSON_AddNumberToObject(d, name, least);
        return;
    }
    cJSON *range = cJSON_AddArrayToObject(d, name);
    cJSON_AddItemToArray(range, cJSON_CreateNumber(least));
    cJSON_AddItemToArray(range, cJSON_CreateNumber(most));
}

/* The last two words of the modules' names and how often each pair occurs: "attn2.to_k": 16. */
static void count_targets(cJSON *targets, const char *path) {
    char name[128] = "";
    for (const char *word = path; word != NULL; word = strchr(word, '.'), word = word == NULL ? NULL : word + 1) {
        const int n = (int)strcspn(word, ".");
        if (strspn(word, "0123456789") == (size_t)n) continue;
        char *dot = strrchr(name, '.');
        char last[64];
        snprintf(last, sizeof last, "%.60s", dot == NULL ? name : dot + 1);
        snprintf(name, sizeof name, "%s%s%.*s", last, last[0] == '\0' ? "" : ".", KAC_MIN(n, 60), word);
    }
    cJSON *item = cJSON_GetObjectItemCaseSensitive(targets, name);
    if (item == NULL)
        cJSON_AddNumberToObject(targets, name, 1);
    else
        cJSON_SetNumberValue(item, item->valuedouble + 1);
}

static void describe_part(cJSON *d, const kac_lora *l, kac_lora_part part) {
    double rank[2] = {1e9, 0}, alpha[2] = {1e300, -1e300};
    int n = 0;
    cJSON *one = cJSON_CreateObject(), *targets = cJSON_CreateObject();
    double n_parameters = 0;
    for (int i = 0; i < l->n_modules; i++) {
        const kac_lora_module *m = &l->modules[i];
        if (m->part != part) continue;
        const double a = m->scale * (double)m->rank;
        rank[0] = KAC_MIN(rank[0], (double)m->rank), rank[1] = KAC_MAX(rank[1], (double)m->rank);
        alpha[0] = KAC_MIN(alpha[0], a), alpha[1] = KAC_MAX(alpha[1], a);
        n_parameters += (double)(kac_tensor_count(m->down) + kac_tensor_count(m->up));
        count_targets(targets, m->path);
        n++;
    }
    if (n == 0) {
        cJSON_Delete(one), cJSON_Delete(targets);
        return;
    }
    cJSON_AddNumberToObject(one, "modules", n);
    cJSON_AddNumberToObject(one, "parameters", n_parameters);
    add_range(one, "rank", rank[0], rank[1]);
    add_range(one, "alpha", alpha[0], alpha[1]);
    cJSON_AddItemToObject(one, "targets", targets);
    cJSON_AddItemToObject(d, kac_lora_part_name(part), one);
}

bool kac_info_is_lora(const char *path) {
    return kac_convert_is_lora(path);
}

kac_status kac_info_lora(cJSON *d, const char *path) {
    kac_lora l;
    KAC_TRY(kac_lora_open(&l, path));
    kac_lora_resolve_sgm(&l, 2);
    cJSON_AddStringToObject(d, "kind", "LoRA");
    cJSON_AddStringToObject(d, "file", l.path);
    cJSON_AddStringToObject(d, "format", kac_lora_format_name(l.format));
    const char *base = kac_lora_base(&l);
    cJSON_AddStringToObject(d, "base_model", base[0] == '\0' ? "unknown" : base);
    cJSON_AddStringToObject(d, "dtype", kac_dtype_name(l.modules[0].down.dtype));
    cJSON_AddNumberToObject(d, "modules", l.n_modules);
    if (l.n_unknown > 0) cJSON_AddNumberToObject(d, "unknown_keys", l.n_unknown);
    for (int part = 0; part < KAC_LORA_N_PARTS; part++) describe_part(d, &l, (kac_lora_part)part);
    kac_lora_close(&l);
    return KAC_OK;
}
