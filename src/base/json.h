/* JSON from files that we do not trust, read through typed getters that say which key is wrong in which file (cJSON
 * inside). */
#ifndef KAC_JSON_H
#define KAC_JSON_H

#include "base.h"
#include <cjson/cJSON.h>
#include <kac/options.h>

typedef struct kac_json {
    cJSON *root;
    char *name; /* file name, for messages */
} kac_json;

/* The file must hold an object. KAC_E_IO, KAC_E_FORMAT. */
kac_status kac_json_load(kac_json *j, const char *path);
kac_status kac_json_parse(kac_json *j, const char *text, size_t n, const char *name);
void kac_json_free(kac_json *j);

/* Each leaves *out as it is when the key is missing or null, and fails with KAC_E_FORMAT "<file>: <key> must be …" when
 * it has another type. `obj` is j->root or an object inside it. */
kac_status kac_json_int(const kac_json *j, const cJSON *obj, const char *key, int64_t *out);
kac_status kac_json_real(const kac_json *j, const cJSON *obj, const char *key, double *out);
kac_status kac_json_bool(const kac_json *j, const cJSON *obj, const char *key, bool *out);
/* Points into the document. */
kac_status kac_json_text(const kac_json *j, const cJSON *obj, const char *key, const char **out);
/* An integer, or a list of 1 … n_max of them; *n is the count. */
kac_status kac_json_ints(const kac_json *j, const cJSON *obj, const char *key, int64_t *out, int n_max, int *n);
kac_status kac_json_reals(const kac_json *j, const cJSON *obj, const char *key, double *out, int n_max, int *n);
kac_status kac_json_texts(const kac_json *j, const cJSON *obj, const char *key, const char **out, int n_max, int *n);

/* Sets options from an object whose keys are option names, except those that were given already. With `only` (a list of names) no others.
 * KAC_E_USAGE beginning with the file's name. */
kac_status kac_options_from_json(kac_options *o, const kac_json *j, const cJSON *object, const cJSON *only);

#endif
