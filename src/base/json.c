#include "json.h"
#include <math.h>
#include <string.h>

enum { JSON_MAX_BYTES = 256 << 20 };

kac_status kac_json_parse(kac_json *j, const char *text, size_t n, const char *name) {
    *j = (kac_json){.name = kac_strdup(name)};
    if (j->name == NULL) return KAC_E_MEMORY;
    /* cJSON before 1.7.18 reads a byte behind a text that is cut off: it gets a copy with a terminator. */
    char *copy = kac_alloc(n + 1);
    if (copy == NULL) {
        kac_json_free(j);
        return KAC_E_MEMORY;
    }
    if (n > 0) memcpy(copy, text, n);
    const char *end = NULL;
    j->root = cJSON_ParseWithLengthOpts(copy, n, &end, false);
    const size_t at = end == NULL ? 0 : (size_t)(end - copy);
    kac_free(copy);
    if (j->root == NULL) {
        kac_status s = KAC_FAIL(KAC_E_FORMAT, "%s is not valid JSON (near byte %zu)", name, at);
        kac_json_free(j);
        return s;
    }
    for (const char *p = text + at; p < text + n; p++)
        if (strchr(" \t\r\n", *p) ==
            NULL) { /* a 0 byte is among the characters that strchr finds: a terminator is fine */
            kac_json_free(j);
            return KAC_FAIL(KAC_E_FORMAT, "%s has something after its JSON value (byte %zu)", name, (size_t)(p - text));
        }
    if (!cJSON_IsObject(j->root)) {
        kac_json_free(j);
        return KAC_FAIL(KAC_E_FORMAT, "%s does not hold a JSON object", name);
    }
    return KAC_OK;
}

kac_status kac_json_load(kac_json *j, const char *path) {
    char *text;
    size_t n;
    *j = (kac_json){0};
    KAC_TRY(kac_file_read(&text, &n, path, JSON_MAX_BYTES));
    const kac_status s = kac_json_parse(j, text, n, path);
    kac_free(text);
    return s;
}

void kac_json_free(kac_json *j) {
    cJSON_Delete(j->root);
    kac_free(j->name);
    *j = (kac_json){0};
}

/* NULL when missing or null. */
static const cJSON *member(const cJSON *obj, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(obj, key);
    return v == NULL || cJSON_IsNull(v) ? NULL : v;
}

static kac_status wrong(const kac_json *j, const char *key, const char *what) {
    return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must be %s", j->name, key, what);
}

static bool as_int(const cJSON *v, int64_t *out) {
    if (!cJSON_IsNumber(v) || !(fabs(v->valuedouble) <= 9007199254740992.0) || v->valuedouble != floor(v->valuedouble))
        return false;
    *out = (int64_t)v->valuedouble;
    return true;
}

static bool as_real(const cJSON *v, double *out) {
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble)) return false;
    *out = v->valuedouble;
    return true;
}

kac_status kac_json_int(const kac_json *j, const cJSON *obj, const char *key, int64_t *out) {
    const cJSON *v = member(obj, key);
    return v == NULL || as_int(v, out) ? KAC_OK : wrong(j, key, "a whole number");
}

kac_status kac_json_real(const kac_json *j, const cJSON *obj, const char *key, double *out) {
    const cJSON *v = member(obj, key);
    return v == NULL || as_real(v, out) ? KAC_OK : wrong(j, key, "a finite number");
}

kac_status kac_json_bool(const kac_json *j, const cJSON *obj, const char *key, bool *out) {
    const cJSON *v = member(obj, key);
    if (v == NULL) return KAC_OK;
    if (!cJSON_IsBool(v)) return wrong(j, key, "true or false");
    *out = cJSON_IsTrue(v);
    return KAC_OK;
}

kac_status kac_json_text(const kac_json *j, const cJSON *obj, const char *key, const char **out) {
    const cJSON *v = member(obj, key);
    if (v == NULL) return KAC_OK;
    if (!cJSON_IsString(v)) return wrong(j, key, "a text");
    *out = v->valuestring;
    return KAC_OK;
}

/* One value or a list of 1 … n_max: calls get(item, i) for each. */
#define JSON_LIST(get, what)                                                                                           \
    const cJSON *v = member(obj, key);                                                                                 \
    if (v == NULL) return KAC_OK;                                                                                      \
    if (!cJSON_IsArray(v)) {                                                                                           \
        if (!get(v, &out[0])) return wrong(j, key, what " or a list of them");                                         \
        *n = 1;                                                                                                        \
        return KAC_OK;                                                                                                 \
    }                                                                                                                  \
    int count = 0;                                                                                                     \
    for (const cJSON *item = v->child; item != NULL; item = item->next) {                                              \
        if (count == n_max) return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" has more than %d entries", j->name, key, n_max); \
        if (!get(item, &out[count])) return wrong(j, key, "a list of " what "s");                                      \
        count++;                                                                                                       \
    }                                                                                                                  \
    if (count == 0) return wrong(j, key, "a list that is not empty");                                                  \
    *n = count;                                                                                                        \
    return KAC_OK

kac_status kac_json_ints(const kac_json *j, const cJSON *obj, const char *key, int64_t *out, int n_max, int *n) {
    JSON_LIST(as_int, "whole number");
}

kac_status kac_json_reals(const kac_json *j, const cJSON *obj, const char *key, double *out, int n_max, int *n) {
    JSON_LIST(as_real, "finite number");
}

static bool as_text(const cJSON *v, const char **out) {
    if (!cJSON_IsString(v)) return false;
    *out = v->valuestring;
    return true;
}

kac_status kac_json_texts(const kac_json *j, const cJSON *obj, const char *key, const char **out, int n_max, int *n) {
    JSON_LIST(as_text, "text");
}
