/* How strong each module of a LoRA file is: alpha / rank, with alpha from where the file keeps it. */
#include "io/lora_names.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* One configuration as PEFT writes it: adapter_config.json, or the metadata that diffusers keeps in the file, whose keys begin with the
 * network's name ("unet.lora_alpha"). */
typedef struct config {
    const kac_json *json;
    const char *prefix; /* "" or "unet." */
    double alpha;       /* NAN: not said */
    bool rank_stabilized;
    const cJSON *pattern; /* alpha by name; NULL: none */
} config;

static const cJSON *item_of(const config *c, const char *key) {
    char name[96];
    snprintf(name, sizeof name, "%s%s", c->prefix, key);
    return cJSON_GetObjectItemCaseSensitive(c->json->root, name);
}

static kac_status read_config(config *c) {
    const cJSON *alpha = item_of(c, "lora_alpha"), *type = item_of(c, "peft_type"),
                *pattern = item_of(c, "alpha_pattern");
    if (cJSON_IsString(type) && strcmp(type->valuestring, "LORA") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: peft_type is %.40s; only LORA is supported", c->json->name,
                        type->valuestring);
    if (cJSON_IsTrue(item_of(c, "use_dora")))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: use_dora is true; DoRA is not supported", c->json->name);
    c->alpha = NAN;
    if (alpha != NULL && !cJSON_IsNull(alpha)) {
        if (!cJSON_IsNumber(alpha) || !isfinite(alpha->valuedouble))
            return KAC_FAIL(KAC_E_FORMAT, "%s: %slora_alpha must be a number", c->json->name, c->prefix);
        c->alpha = alpha->valuedouble;
    }
    c->rank_stabilized = cJSON_IsTrue(item_of(c, "use_rslora"));
    if (cJSON_IsObject(pattern)) c->pattern = pattern;
    return KAC_OK;
}

/* PEFT reads a pattern's key as a regular expression for the end of a module's name. What diffusers writes are names, with ^ before them
 * or with escaped dots at most; others are refused. */
static kac_status pattern_fits(bool *fits, const config *c, const char *key, const char *path) {
    char name[KAC_LORA_MAX_NAME];
    size_t n = 0;
    const bool whole = key[0] == '^';
    for (const char *p = key + whole; *p != '\0' && n + 1 < sizeof name; p++) {
        if (p[0] == '\\' && p[1] == '.') continue;
        if (strchr("\\^$*+?()[]{}|", *p) != NULL)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the alpha_pattern \"%.80s\" is more than a module's name",
                            c->json->name, key);
        name[n++] = *p;
    }
    name[n] = '\0';
    const size_t n_path = strlen(path);
    const char *tail = n_path < n ? NULL : path + n_path - n;
    *fits = tail != NULL && strcmp(tail, name) == 0 &&
            (tail == path || (tail[-1] == '.' && (!whole || strncmp(path, "text_model.", (size_t)(tail - path)) == 0)));
    return KAC_OK;
}

static kac_status scale_module(const config *c, kac_lora_module *m) {
    double alpha = c->alpha;
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, c->pattern) {
        bool fits = false;
        KAC_TRY(pattern_fits(&fits, c, item->string, m->path));
        if (!fits) continue;
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return KAC_FAIL(KAC_E_FORMAT, "%s: alpha_pattern of \"%.80s\" must be a number", c->json->name,
                            item->string);
        alpha = item->valuedouble;
        break;
    }
    if (isnan(m->alpha)) m->alpha = alpha;
    if (!isnan(m->alpha)) m->scale = m->alpha / (c->rank_stabilized ? sqrt((double)m->rank) : (double)m->rank);
    return KAC_OK;
}

/* The part's own configuration, or the one without a name. */
static kac_status scale_by(kac_lora *l, const kac_json *json) {
    for (int part = 0; part < KAC_LORA_N_PARTS; part++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "%s.", kac_lora_part_name((kac_lora_part)part));
        config c = {.json = json, .prefix = prefix};
        if (item_of(&c, "r") == NULL && item_of(&c, "lora_alpha") == NULL) c.prefix = "";
        KAC_TRY(read_config(&c));
        for (int i = 0; i < l->n_modules; i++)
            if (l->modules[i].part == (kac_lora_part)part) KAC_TRY(scale_module(&c, &l->modules[i]));
    }
    return KAC_OK;
}

/* adapter_config.json beside a file of PEFT's. */
static kac_status open_config(kac_json *json, bool *found, const kac_lora *l) {
    *found = false;
    const char *metadata = kac_weights_metadata(&l->weights, "lora_adapter_metadata");
    if (metadata != NULL) {
        *found = true;
        return kac_json_parse(json, metadata, strlen(metadata), l->path);
    }
    const char *base = kac_path_base(l->path);
    if (strncmp(base, "adapter_model.", 14) != 0) return KAC_OK;
    char *path = kac_format("%.*sadapter_config.json", (int)(base - l->path), l->path);
    if (path == NULL) return KAC_E_MEMORY;
    *found = kac_file_exists(path);
    const kac_status s = *found ? kac_json_load(json, path) : KAC_OK;
    kac_free(path);
    return s;
}

kac_status kac_lora_read_scales(kac_lora *l) {
    kac_json json = {0};
    bool found;
    KAC_TRY(open_config(&json, &found, l));
    if (found) {
        const kac_status s = scale_by(l, &json);
        kac_json_free(&json);
        return s;
    }
    for (int i = 0; i < l->n_modules; i++)
        if (!isnan(l->modules[i].alpha)) l->modules[i].scale = l->modules[i].alpha / (double)l->modules[i].rank;
    return KAC_OK;
}
