/* One static table describes the options of a command or a method; flags, --help, the config file, validation and the
 * report's provenance come from it. */
#ifndef KAC_OPTIONS_H
#define KAC_OPTIONS_H

#include <kac/status.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef enum kac_option_type {
    KAC_OPT_BOOL,   /* --flag, --flag=true, --no-flag */
    KAC_OPT_INT,    /* checked against min and max */
    KAC_OPT_REAL,   /* checked against min and max; finite */
    KAC_OPT_TEXT,   /* any text */
    KAC_OPT_CHOICE, /* one of choices: "difference|max|sum|reward" */
    KAC_OPT_LIST    /* comma-separated integers, each checked against min and max */
} kac_option_type;

typedef struct kac_option_spec {
    const char *name; /* "ess-threshold": without dashes; NULL ends a table */
    char letter;      /* 's' for -s; 0 for none */
    kac_option_type type;
    const char *value;   /* default as text; NULL: unset */
    double min, max;     /* for INT, REAL, LIST */
    const char *choices; /* for CHOICE */
    const char *meta;    /* what --help prints for the value, e.g. "N", "FILE" */
    const char *help;    /* one line */
    bool repeatable;     /* TEXT only: may be given several times */
} kac_option_spec;

typedef struct kac_options kac_options;

/* Values start as the defaults of the tables given (each ends with a NULL name; later tables add options). NULL when
 * out of memory. */
kac_options *kac_options_create(const kac_option_spec *table);
kac_status kac_options_add(kac_options *o, const kac_option_spec *table);
void kac_options_destroy(kac_options *o);

/* Checks type and range. KAC_E_USAGE names the option, what was given and what is allowed; an unknown name comes with
 * the nearest known one. */
kac_status kac_options_set(kac_options *o, const char *name, const char *value);

bool kac_options_has(const kac_options *o, const char *name);   /* known */
bool kac_options_given(const kac_options *o, const char *name); /* set by the user, not the default */

/* Asserts that the option exists with that type. */
bool kac_options_bool(const kac_options *o, const char *name);
int64_t kac_options_int(const kac_options *o, const char *name);
double kac_options_real(const kac_options *o, const char *name);
const char *kac_options_text(const kac_options *o, const char *name); /* TEXT, CHOICE; NULL when unset */
int kac_options_count(const kac_options *o, const char *name); /* values of a repeatable TEXT or entries of a LIST */
const char *kac_options_text_at(const kac_options *o, const char *name, int i);
int64_t kac_options_int_at(const kac_options *o, const char *name, int i);

/* The table entry i over all tables, in order; NULL after the last. */
const kac_option_spec *kac_options_spec(const kac_options *o, int i);
/* The current value as text ("" when unset), for reports: valid until the next call. */
const char *kac_options_as_text(const kac_options *o, const char *name);

/* Nearest of a NULL-terminated list of names by edit distance, for "did you mean"; NULL when none is near. */
const char *kac_nearest(const char *name, const char *const *names);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
