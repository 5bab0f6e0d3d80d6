#include "base.h"
#include <errno.h>
#include <float.h>
#include <kac/options.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct option_value {
    const kac_option_spec *spec;
    bool given;
    char **texts; /* TEXT, CHOICE: what was set; LIST, INT, REAL, BOOL: the text it came from */
    int n_texts;
    int64_t *ints; /* LIST */
    int n_ints;
    bool b;
    int64_t i;
    double r;
} option_value;

struct kac_options {
    option_value *values;
    int n, cap;
    char *shown; /* kac_options_as_text */
};

/* ---- reading one value ---- */

static bool limited(const kac_option_spec *spec) {
    return spec->min != 0.0 || spec->max != 0.0;
}

static kac_status fail_range(const kac_option_spec *spec, const char *text) {
    if (spec->max >= 1e18 || spec->max == INFINITY)
        return KAC_FAIL(KAC_E_USAGE, "--%s is %.60s; it must be %.10g or more", spec->name, text, spec->min);
    return KAC_FAIL(KAC_E_USAGE, "--%s is %.60s; it must lie between %.10g and %.10g", spec->name, text, spec->min,
                    spec->max);
}

static kac_status read_int(const kac_option_spec *spec, const char *text, int64_t *out) {
    char *end = NULL;
    errno = 0;
    const long long v = strtoll(text, &end, 10);
    if (end == text || *end != 0)
        return KAC_FAIL(KAC_E_USAGE, "--%s wants a whole number, not \"%.60s\"", spec->name, text);
    if (errno == ERANGE || (limited(spec) && ((double)v < spec->min || (double)v > spec->max)))
        return fail_range(spec, text);
    *out = v;
    return KAC_OK;
}

static kac_status read_real(const kac_option_spec *spec, const char *text, double *out) {
    char *end = NULL;
    const double v = strtod(text, &end);
    if (end == text || *end != 0 || !isfinite(v))
        return KAC_FAIL(KAC_E_USAGE, "--%s wants a number, not \"%.60s\"", spec->name, text);
    if (limited(spec) && (v < spec->min || v > spec->max)) return fail_range(spec, text);
    *out = v;
    return KAC_OK;
}

static kac_status read_bool(const kac_option_spec *spec, const char *text, bool *out) {
    static const char *const yes[] = {"", "true", "1", "yes", "on"}, *const no[] = {"false", "0", "no", "off"};
    for (int i = 0; i < KAC_COUNT_OF(yes); i++)
        if (strcmp(text, yes[i]) == 0) return *out = true, KAC_OK;
    for (int i = 0; i < KAC_COUNT_OF(no); i++)
        if (strcmp(text, no[i]) == 0) return *out = false, KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "--%s wants true or false, not \"%.60s\"", spec->name, text);
}

static bool next_choice(const char **rest, char *out, size_t n) {
    if (**rest == 0) return false;
    const char *end = strchr(*rest, '|');
    const size_t length = end != NULL ? (size_t)(end - *rest) : strlen(*rest);
    KAC_ASSERT(length < n);
    memcpy(out, *rest, length);
    out[length] = 0;
    *rest += length + (end != NULL);
    return true;
}

static kac_status check_choice(const kac_option_spec *spec, const char *text) {
    enum { MAX_CHOICES = 32, MAX_NAME = 48 };
    char names[MAX_CHOICES][MAX_NAME];
    const char *list[MAX_CHOICES + 1] = {NULL}, *rest = spec->choices;
    int n = 0;
    for (; n < MAX_CHOICES && next_choice(&rest, names[n], MAX_NAME); n++) {
        if (strcmp(names[n], text) == 0) return KAC_OK;
        list[n] = names[n];
    }
    const char *near = kac_nearest(text, list);
    return KAC_FAIL(KAC_E_USAGE, "--%s cannot be \"%.60s\"%s%s%s; choose one of %s", spec->name, text,
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "", spec->choices);
}

static kac_status read_list(const kac_option_spec *spec, const char *text, int64_t **out, int *n_out) {
    int n = 1;
    for (const char *c = text; *c != 0; c++) n += *c == ',';
    int64_t *list = kac_alloc((size_t)n * sizeof *list);
    char *copy = kac_strdup(text);
    kac_status status = list != NULL && copy != NULL ? KAC_OK : KAC_E_MEMORY;
    char *entry = copy;
    for (int i = 0; status == KAC_OK && i < n; i++) {
        char *comma = strchr(entry, ',');
        if (comma != NULL) *comma = 0;
        status = read_int(spec, entry, &list[i]);
        entry = comma != NULL ? comma + 1 : entry;
    }
    kac_free(copy);
    if (status != KAC_OK) {
        kac_free(list);
        return status;
    }
    kac_free(*out);
    *out = list;
    *n_out = n;
    return KAC_OK;
}

/* ---- the table of values ---- */

static option_value *find(const kac_options *o, const char *name) {
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->values[i].spec->name, name) == 0) return &o->values[i];
    return NULL;
}

static option_value *find_typed(const kac_options *o, const char *name, kac_option_type type) {
    option_value *v = find(o, name);
    KAC_ASSERT(v != NULL);
    KAC_ASSERT(v->spec->type == type);
    return v;
}

static void clear_texts(option_value *v) {
    for (int i = 0; i < v->n_texts; i++) kac_free(v->texts[i]);
    v->n_texts = 0;
}

static kac_status keep_text(option_value *v, const char *text, bool append) {
    char *copy = kac_strdup(text);
    if (copy == NULL) return KAC_E_MEMORY;
    if (!append) clear_texts(v);
    char **texts = kac_realloc(v->texts, ((size_t)v->n_texts + 1) * sizeof *texts);
    if (texts == NULL) {
        kac_free(copy);
        return KAC_E_MEMORY;
    }
    v->texts = texts;
    v->texts[v->n_texts++] = copy;
    return KAC_OK;
}

static kac_status set_value(option_value *v, const char *text, bool append) {
    switch (v->spec->type) {
    case KAC_OPT_BOOL:
        KAC_TRY(read_bool(v->spec, text, &v->b));
        break;
    case KAC_OPT_INT:
        KAC_TRY(read_int(v->spec, text, &v->i));
        break;
    case KAC_OPT_REAL:
        KAC_TRY(read_real(v->spec, text, &v->r));
        break;
    case KAC_OPT_CHOICE:
        KAC_TRY(check_choice(v->spec, text));
        break;
    case KAC_OPT_LIST:
        KAC_TRY(read_list(v->spec, text, &v->ints, &v->n_ints));
        break;
    case KAC_OPT_TEXT:
        break;
    }
    return keep_text(v, text, append);
}

kac_status kac_options_add(kac_options *o, const kac_option_spec *table) {
    for (; table->name != NULL; table++) {
        KAC_ASSERT(find(o, table->name) == NULL); /* two tables must not share a name */
        if (o->n == o->cap) {
            const int cap = o->cap > 0 ? 2 * o->cap : 32;
            option_value *values = kac_realloc(o->values, (size_t)cap * sizeof *values);
            if (values == NULL) return KAC_E_MEMORY;
            o->values = values;
            o->cap = cap;
        }
        option_value *v = &o->values[o->n++];
        *v = (option_value){.spec = table};
        if (table->value != NULL) {
            const kac_status status = set_value(v, table->value, false);
            KAC_ASSERT(status == KAC_OK || status == KAC_E_MEMORY); /* a default must be allowed */
            KAC_TRY(status);
        }
    }
    return KAC_OK;
}

kac_options *kac_options_create(const kac_option_spec *table) {
    kac_options *o = kac_alloc(sizeof *o);
    if (o == NULL) return NULL;
    if (kac_options_add(o, table) == KAC_OK) return o;
    kac_options_destroy(o);
    return NULL;
}

void kac_options_destroy(kac_options *o) {
    if (o == NULL) return;
    for (int i = 0; i < o->n; i++) {
        clear_texts(&o->values[i]);
        kac_free(o->values[i].texts);
        kac_free(o->values[i].ints);
    }
    kac_free(o->values);
    kac_free(o->shown);
    kac_free(o);
}

static kac_status fail_unknown(const kac_options *o, const char *name) {
    const char **names = kac_alloc(((size_t)o->n + 1) * sizeof *names);
    if (names == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < o->n; i++) names[i] = o->values[i].spec->name;
    const char *near = kac_nearest(name, names);
    kac_free(names);
    if (near == NULL) return KAC_FAIL(KAC_E_USAGE, "unknown option --%.60s", name);
    return KAC_FAIL(KAC_E_USAGE, "unknown option --%.60s; did you mean --%s?", name, near);
}

kac_status kac_options_set(kac_options *o, const char *name, const char *value) {
    option_value *v = find(o, name);
    if (v == NULL && strncmp(name, "no-", 3) == 0) { /* --no-flag */
        option_value *flag = find(o, name + 3);
        if (flag != NULL && flag->spec->type == KAC_OPT_BOOL && (value == NULL || *value == 0)) {
            v = flag;
            value = "false";
        }
    }
    if (v == NULL) return fail_unknown(o, name);
    if (value == NULL && v->spec->type != KAC_OPT_BOOL)
        return KAC_FAIL(KAC_E_USAGE, "--%s wants a value", v->spec->name);
    KAC_TRY(set_value(v, value != NULL ? value : "", v->spec->repeatable && v->given));
    v->given = true;
    return KAC_OK;
}

/* ---- reading ---- */

bool kac_options_has(const kac_options *o, const char *name) {
    return find(o, name) != NULL;
}

bool kac_options_given(const kac_options *o, const char *name) {
    const option_value *v = find(o, name);
    return v != NULL && v->given;
}

bool kac_options_bool(const kac_options *o, const char *name) {
    return find_typed(o, name, KAC_OPT_BOOL)->b;
}

int64_t kac_options_int(const kac_options *o, const char *name) {
    return find_typed(o, name, KAC_OPT_INT)->i;
}

double kac_options_real(const kac_options *o, const char *name) {
    return find_typed(o, name, KAC_OPT_REAL)->r;
}

const char *kac_options_text(const kac_options *o, const char *name) {
    const option_value *v = find(o, name);
    KAC_ASSERT(v != NULL);
    KAC_ASSERT(v->spec->type == KAC_OPT_TEXT || v->spec->type == KAC_OPT_CHOICE);
    return v->n_texts > 0 ? v->texts[0] : NULL;
}

int kac_options_count(const kac_options *o, const char *name) {
    const option_value *v = find(o, name);
    KAC_ASSERT(v != NULL);
    return v->spec->type == KAC_OPT_LIST ? v->n_ints : v->n_texts;
}

const char *kac_options_text_at(const kac_options *o, const char *name, int i) {
    const option_value *v = find(o, name);
    KAC_ASSERT(v != NULL && i >= 0 && i < v->n_texts);
    return v->texts[i];
}

int64_t kac_options_int_at(const kac_options *o, const char *name, int i) {
    const option_value *v = find_typed(o, name, KAC_OPT_LIST);
    KAC_ASSERT(i >= 0 && i < v->n_ints);
    return v->ints[i];
}

const kac_option_spec *kac_options_spec(const kac_options *o, int i) {
    return i >= 0 && i < o->n ? o->values[i].spec : NULL;
}

const char *kac_options_as_text(const kac_options *o, const char *name) {
    const option_value *v = find(o, name);
    KAC_ASSERT(v != NULL);
    if (v->spec->type == KAC_OPT_BOOL) return v->b ? "true" : "false";
    if (v->n_texts <= 1) return v->n_texts == 1 ? v->texts[0] : "";
    kac_text all = {0};
    for (int i = 0; i < v->n_texts; i++) kac_text_add(&all, "%s%s", i > 0 ? "," : "", v->texts[i]);
    kac_options *owner = (kac_options *)(uintptr_t)o; /* only the text for showing changes */
    kac_free(owner->shown);
    owner->shown = all.s;
    return all.s != NULL && !all.failed ? all.s : "";
}

/* ---- did you mean ---- */

enum { MAX_NEAR = 64 };

/* Levenshtein's distance with neighbours swapped as one edit. */
static int edit_distance(const char *a, const char *b) {
    const size_t n = strlen(a), m = strlen(b);
    if (n > MAX_NEAR || m > MAX_NEAR) return MAX_NEAR;
    int rows[3][MAX_NEAR + 1], *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++) last[j] = before[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            const int replaced = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = KAC_MIN(replaced, KAC_MIN(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = KAC_MIN(now[j], before[j - 2] + 1);
        }
        int *swap = before;
        before = last;
        last = now;
        now = swap;
    }
    return last[m];
}

const char *kac_nearest(const char *name, const char *const *names) {
    const char *best = NULL;
    int best_distance = (int)strlen(name) / 3 + 1;
    for (; *names != NULL; names++) {
        const int d = edit_distance(name, *names);
        if (d < best_distance || (d == best_distance && best == NULL)) {
            best_distance = d;
            best = *names;
        }
    }
    return best;
}
