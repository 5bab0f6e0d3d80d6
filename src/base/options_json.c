/* Options from a JSON object whose keys are their names. */
#include "json.h"
#include <math.h>
#include <string.h>

/* A JSON value as an option's text, into `text`. */
static kac_status config_value(kac_text *text, const cJSON *v, const char *name) {
    if (cJSON_IsString(v)) {
        kac_text_add_bytes(text, v->valuestring, strlen(v->valuestring));
    } else if (cJSON_IsBool(v)) {
        kac_text_add(text, "%s", cJSON_IsTrue(v) ? "true" : "false");
    } else if (cJSON_IsNumber(v)) {
        const double d = v->valuedouble;
        kac_text_add(text, fabs(d) < 1e15 && d == floor(d) ? "%.0f" : "%.17g", d);
    } else {
        return KAC_FAIL(KAC_E_USAGE, "\"%s\" must be a text, a number, true or false, or a list of these", name);
    }
    return text->failed ? KAC_E_MEMORY : KAC_OK;
}

/* Entries of a list are given one by one, or joined by commas for an option that is a list itself. */
static kac_status config_set(kac_options *o, const cJSON *v, const kac_option_spec *spec) {
    const bool many = cJSON_IsArray(v), joined = many && spec->type == KAC_OPT_LIST;
    kac_text text = {0};
    kac_status s = KAC_OK;
    for (const cJSON *entry = many ? v->child : v; entry != NULL && s == KAC_OK; entry = many ? entry->next : NULL) {
        s = config_value(&text, entry, spec->name);
        if (joined && entry->next != NULL) {
            kac_text_add(&text, ",");
        } else {
            if (s == KAC_OK) s = kac_options_set(o, spec->name, text.s == NULL ? "" : text.s);
            kac_text_free(&text);
        }
    }
    kac_text_free(&text);
    return s;
}

static const kac_option_spec *known(const kac_options *o, const char *name) {
    const kac_option_spec *spec;
    for (int i = 0; (spec = kac_options_spec(o, i)) != NULL; i++)
        if (strcmp(spec->name, name) == 0) return spec;
    return NULL;
}

static bool listed(const cJSON *names, const char *name) {
    const cJSON *entry;
    cJSON_ArrayForEach(entry, names) if (cJSON_IsString(entry) && strcmp(entry->valuestring, name) == 0) return true;
    return false;
}

kac_status kac_options_from_json(kac_options *o, const kac_json *j, const cJSON *object, const cJSON *only) {
    const cJSON *v;
    cJSON_ArrayForEach(v, object) {
        if (only != NULL && !listed(only, v->string)) continue;
        const kac_option_spec *spec = known(o, v->string);
        if (spec != NULL && (cJSON_IsNull(v) || kac_options_given(o, spec->name))) continue;
        /* an unknown name: kac_options_set says which is nearest */
        const kac_status s = spec == NULL ? kac_options_set(o, v->string, "") : config_set(o, v, spec);
        if (s != KAC_OK) return kac_fail_prefix(s, "%s", j->name);
    }
    return KAC_OK;
}
