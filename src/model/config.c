#include "model/config.h"

#include <string.h>
#include <strings.h>

kac_status kac_config_open(kac_json *j, const char *dir) {
    char *path = kac_path_join(dir, "config.json");
    if (path == NULL) return KAC_E_MEMORY;
    const kac_status s = kac_json_load(j, path);
    kac_free(path);
    return s;
}

static kac_status check_range(const kac_json *j, const char *key, int64_t value, int64_t lo, int64_t hi) {
    if (value >= lo && value <= hi) return KAC_OK;
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%s\" is %lld, it must be between %lld and %lld", j->name, key,
                    (long long)value, (long long)lo, (long long)hi);
}

kac_status kac_config_int(const kac_json *j, const cJSON *obj, const char *key, int64_t *out, int64_t lo, int64_t hi) {
    KAC_TRY(kac_json_int(j, obj, key, out));
    return check_range(j, key, *out, lo, hi);
}

kac_status kac_config_optional(const kac_json *j, const char *key, int64_t *out, int64_t lo, int64_t hi) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, key);
    return v == NULL || cJSON_IsNull(v) ? KAC_OK : kac_config_int(j, j->root, key, out, lo, hi);
}

kac_status kac_config_list(const kac_json *j, const char *key, int64_t *out, int n_max, int *n, int64_t lo,
                           int64_t hi) {
    KAC_TRY(kac_json_ints(j, j->root, key, out, n_max, n));
    for (int i = 0; i < *n; i++) KAC_TRY(check_range(j, key, out[i], lo, hi));
    return KAC_OK;
}

kac_status kac_config_per_block(const kac_json *j, const char *key, int64_t *out, int n, int64_t lo, int64_t hi) {
    int64_t value[16];
    int n_value = 0;
    KAC_ASSERT(n <= KAC_COUNT_OF(value));
    KAC_TRY(kac_config_list(j, key, value, KAC_COUNT_OF(value), &n_value, lo, hi));
    if (n_value == 0) return KAC_OK;
    const bool list = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(j->root, key));
    if (list && n_value != n)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" has %d entries for %d blocks", j->name, key, n_value, n);
    for (int i = 0; i < n; i++) out[i] = list ? value[i] : value[0];
    return KAC_OK;
}

kac_status kac_config_act(const kac_json *j, const cJSON *obj, const char *key, kac_act *out, bool clip) {
    static const struct {
        const char *name;
        kac_act act;
        bool clip;
    } acts[] = {{"silu", KAC_ACT_SILU, false},         {"swish", KAC_ACT_SILU, false},
                {"gelu", KAC_ACT_GELU, false},         {"relu", KAC_ACT_RELU, false},
                {"mish", KAC_ACT_MISH, false},         {"quick_gelu", KAC_ACT_QUICK_GELU, true},
                {"gelu_new", KAC_ACT_GELU_TANH, true}, {"gelu_pytorch_tanh", KAC_ACT_GELU_TANH, true}};
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, obj, key, &name));
    if (name == NULL) return KAC_OK;
    for (int i = 0; i < KAC_COUNT_OF(acts); i++) {
        if ((acts[i].clip && !clip) || strcasecmp(acts[i].name, name) != 0) continue;
        *out = acts[i].act;
        return KAC_OK;
    }
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%s\" is \"%s\", which is not supported (silu, gelu, relu, mish%s)",
                    j->name, key, name, clip ? ", quick_gelu, gelu_new" : "");
}

kac_status kac_config_unsupported(const kac_json *j, const char *key, const char *why) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, key);
    char *value = v == NULL ? NULL : cJSON_PrintUnformatted(v);
    const kac_status s = KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%s\" is %.60s, which is not supported (%s)", j->name, key,
                                  value == NULL ? "missing" : value, why);
    cJSON_free(value);
    return s;
}

bool kac_config_is_null(const kac_json *j, const char *key) {
    return cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(j->root, key));
}

kac_status kac_config_refuse(const kac_json *j, const char *key, const char *only) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, key);
    if (v == NULL || cJSON_IsNull(v) || cJSON_IsFalse(v)) return KAC_OK;
    if (only != NULL && cJSON_IsString(v) && strcmp(v->valuestring, only) == 0) return KAC_OK;
    if (only != NULL) {
        char why[64] = "only ";
        strncat(why, only, sizeof why - 6);
        return kac_config_unsupported(j, key, why);
    }
    return kac_config_unsupported(j, key, "only null or false");
}
