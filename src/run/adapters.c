#include "run/adapters.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 64 };

/* ---- opening ---- */

kac_status kac_lora_spec_read(char **path, double *scale, const char *spec) {
    *scale = 1;
    *path = NULL;
    const bool whole = kac_file_exists(spec) || kac_dir_exists(spec);
    const char *colon = whole ? NULL : strrchr(spec, ':');
    if (colon != NULL) {
        char *end;
        errno = 0;
        *scale = strtod(colon + 1, &end);
        if (end == colon + 1 || *end != '\0' || !isfinite(*scale))
            return KAC_FAIL(KAC_E_USAGE, "--lora %s: \"%s\" is no scale; FILE or FILE:SCALE is wanted", spec,
                            colon + 1);
    }
    *path = colon == NULL ? kac_strdup(spec) : kac_format("%.*s", (int)(colon - spec), spec);
    if (*path == NULL) return KAC_E_MEMORY;
    if ((*path)[0] != '\0' && (kac_file_exists(*path) || kac_dir_exists(*path))) return KAC_OK;
    const kac_status s = KAC_FAIL(KAC_E_IO, "--lora %s: there is no file %s", spec, *path);
    kac_free(*path);
    *path = NULL;
    return s;
}

static kac_status open_lora(kac_lora_set **lora, const kac_options *o) {
    const int n = kac_options_count(o, "lora");
    if (n == 0) return KAC_OK;
    if (n > MAX_FILES) return KAC_FAIL(KAC_E_USAGE, "at most %d --lora can be given", (int)MAX_FILES);
    kac_lora_use uses[MAX_FILES];
    char *paths[MAX_FILES] = {0};
    kac_status s = KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++) {
        s = kac_lora_spec_read(&paths[i], &uses[i].scale, kac_options_text_at(o, "lora", i));
        uses[i].path = paths[i];
    }
    if (s == KAC_OK) s = kac_lora_set_open(lora, uses, n, kac_options_bool(o, "lora-merge"));
    for (int i = 0; i < n; i++) kac_free(paths[i]);
    return s;
}

static kac_status open_embeddings(kac_inversion_set *set, const kac_options *o) {
    const int n = kac_options_count(o, "embedding");
    if (n == 0) return KAC_OK;
    if (n > MAX_FILES) return KAC_FAIL(KAC_E_USAGE, "at most %d --embedding can be given", (int)MAX_FILES);
    const char *specs[MAX_FILES];
    for (int i = 0; i < n; i++) specs[i] = kac_options_text_at(o, "embedding", i);
    return kac_inversion_set_open(set, specs, n);
}

kac_status kac_adapters_open(kac_lora_set **lora, kac_inversion_set *embeddings, const kac_options *o) {
    *lora = NULL;
    *embeddings = (kac_inversion_set){0};
    KAC_TRY(open_lora(lora, o));
    return open_embeddings(embeddings, o);
}

kac_status kac_adapters_check(const kac_lora_set *lora, const kac_options *o) {
    if (lora == NULL) return KAC_OK;
    return kac_lora_set_check(lora, (1u << KAC_LORA_N_PARTS) - 1, kac_options_bool(o, "lora-partial"));
}

/* ---- the record ---- */

/* The file's name without ending; of a folder, its own name. */
static char *name_of(const char *path) {
    const char *base = kac_path_base(path);
    const size_t n = strlen(base), n_end = strcspn(base, ".");
    return kac_format("%.*s", (int)(n_end == 0 ? n : n_end), base);
}

static kac_status add_file(cJSON *item, const char *path) {
    char hex[65], *name = name_of(path);
    const kac_status s = name == NULL ? KAC_E_MEMORY : kac_sha256_file(hex, path);
    if (s == KAC_OK) {
        cJSON_AddStringToObject(item, "name", name);
        cJSON_AddStringToObject(item, "path", path);
        cJSON_AddStringToObject(item, "sha256", hex);
    }
    kac_free(name);
    return s;
}

kac_status kac_adapters_facts(cJSON *facts, const kac_lora_set *lora, const kac_inversion_set *embeddings) {
    if (lora != NULL) {
        cJSON *list = cJSON_AddArrayToObject(facts, "lora");
        for (int i = 0; i < kac_lora_set_count(lora); i++) {
            const kac_lora *file = kac_lora_set_file(lora, i);
            cJSON *item = cJSON_CreateObject();
            cJSON_AddItemToArray(list, item);
            KAC_TRY(add_file(item, file->path));
            cJSON_AddNumberToObject(item, "scale", kac_lora_set_scale(lora, i));
            cJSON_AddStringToObject(item, "format", kac_lora_format_name(file->format));
            cJSON_AddNumberToObject(item, "modules", file->n_modules);
            cJSON_AddNumberToObject(item, "modules_used", kac_lora_set_matched(lora, i));
        }
    }
    if (embeddings->n > 0) {
        cJSON *list = cJSON_AddArrayToObject(facts, "embeddings");
        for (int i = 0; i < embeddings->n; i++) {
            cJSON *item = cJSON_CreateObject();
            cJSON_AddItemToArray(list, item);
            KAC_TRY(add_file(item, embeddings->list[i].path));
            cJSON_AddStringToObject(item, "token", embeddings->list[i].token);
            cJSON_AddNumberToObject(item, "vectors", embeddings->list[i].n);
        }
    }
    return KAC_OK;
}

char *kac_adapters_line(const kac_lora_set *lora) {
    kac_text t = {0};
    kac_text_add(&t, "%s", "");
    for (int i = 0; lora != NULL && i < kac_lora_set_count(lora); i++) {
        char *name = name_of(kac_lora_set_file(lora, i)->path);
        if (name != NULL) kac_text_add(&t, "%s%s:%g", i == 0 ? ", LoRA: " : " ", name, kac_lora_set_scale(lora, i));
        kac_free(name);
    }
    char *line = t.failed || t.s == NULL ? NULL : kac_strdup(t.s);
    kac_text_free(&t);
    return line;
}
