#include "reward/reward_spec.h"
#include <kac/options.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* True for a number; "inf" and "nan" are words. */
static bool read_number(double *out, const char *text) {
    char *end;
    if (text[0] == '\0' || strchr("+-.0123456789", text[0]) == NULL) return false;
    const double value = strtod(text, &end);
    if (*end != '\0') return false; /* "3rd": *out stays */
    *out = value;
    return true;
}

static kac_status take_shape(kac_reward_spec *s, char *text, bool *taken) {
    kac_shaping shape = {0};
    kac_status status;
    const char *near;
    *taken = kac_shaping_parse(&shape, &status, &near, text);
    if (!*taken && near != NULL)
        return KAC_FAIL(KAC_E_USAGE,
                        "there is no shaping \"%.60s\"; did you mean \"%s\"? (a path that ends so is put in quotes)",
                        text, near);
    if (!*taken) return KAC_OK;
    KAC_TRY(status);
    if (s->n_shapings == KAC_MAX_SHAPINGS)
        return KAC_FAIL(KAC_E_USAGE, "a reward can be shaped %d times at most", (int)KAC_MAX_SHAPINGS);
    memmove(s->shapings + 1, s->shapings, (size_t)s->n_shapings++ * sizeof shape); /* found from the right */
    s->shapings[0] = shape;
    return KAC_OK;
}

/* Cuts weight and shapings off the end of `text`, which is not shorter than `keep` characters afterwards. */
static kac_status cut_ends(kac_reward_spec *s, char *text, size_t keep) {
    bool weighted = false;
    for (;;) {
        char *colon = strrchr(text, ':'), *comma = strrchr(text, ','), *last = colon > comma ? colon : comma;
        if (last == NULL || (size_t)(last - text) < keep) return KAC_OK;
        bool taken = false;
        if (last == comma)
            KAC_TRY(take_shape(s, last + 1, &taken));
        else
            taken = !weighted && read_number(&s->weight, last + 1), weighted |= taken;
        if (!taken) return KAC_OK;
        *last = '\0';
    }
}

/* path="…" or '…' up to the end, a weight or a shaping: where the quotes end, else NULL. */
static char *closing_quote(char *path) {
    if (path[0] != '"' && path[0] != '\'') return NULL;
    char *end = strchr(path + 1, path[0]);
    return end != NULL && strchr(":,", end[1]) != NULL ? end : NULL; /* the end of the text counts too */
}

static kac_status parse(kac_reward_spec *s, char *text) {
    const size_t n_name = strcspn(text, "=:,");
    char *path = text[n_name] == '=' ? text + n_name + 1 : NULL, *quote = path == NULL ? NULL : closing_quote(path);
    s->weight = 1;
    if (n_name == 0) return KAC_FAIL(KAC_E_USAGE, "\"%.80s\" names no reward: write NAME[=PATH][:WEIGHT]", text);
    KAC_TRY(cut_ends(s, text, quote != NULL ? (size_t)(quote + 1 - text) : n_name));
    const char *rest = quote != NULL ? quote + 1 : path == NULL ? text + n_name : "";
    if (*rest != '\0')
        return KAC_FAIL(KAC_E_USAGE, "\"%.80s\" in a reward is neither a weight (:2) nor a shaping (,target=0.3)",
                        rest);
    if (!isfinite(s->weight) || s->weight == 0)
        return KAC_FAIL(KAC_E_USAGE, "the weight of reward \"%.80s\" must be a number other than 0", text);
    if (quote != NULL) *quote = '\0', path++;
    s->path = path == NULL ? NULL : kac_strdup(path);
    text[n_name] = '\0';
    s->name = kac_strdup(text);
    s->label = path == NULL ? kac_strdup(text) : kac_format("%s=%s", text, path);
    return s->name == NULL || s->label == NULL || (path != NULL && s->path == NULL) ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_reward_spec_parse(kac_reward_spec *out, const char *text) {
    *out = (kac_reward_spec){0};
    char *copy = kac_strdup(text);
    const kac_status s = copy == NULL ? KAC_E_MEMORY : parse(out, copy);
    kac_free(copy);
    if (s != KAC_OK) kac_reward_spec_free(out);
    return s;
}

void kac_reward_spec_free(kac_reward_spec *s) {
    kac_free(s->name), kac_free(s->path), kac_free(s->label);
    *s = (kac_reward_spec){0};
}

kac_status kac_reward_spec_unknown(const char *name, const char *const *names) {
    const char *nearest = kac_nearest(name, names);
    kac_text all = {0};
    for (int i = 0; names[i] != NULL; i++) kac_text_add(&all, "%s%s", i == 0 ? "" : ", ", names[i]);
    const kac_status s = KAC_FAIL(KAC_E_USAGE, "there is no reward \"%.80s\"%s%s%s rewards are %s", name,
                                  nearest == NULL ? ";" : "; did you mean \"", nearest == NULL ? "" : nearest,
                                  nearest == NULL ? "" : "\"?", all.s == NULL ? "" : all.s);
    kac_text_free(&all);
    return s;
}
