#include "model/ldm_names.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 500 };

static const kac_weights_entry *find(const kac_ldm_names *n, const char *format, va_list args) {
    char name[MAX_NAME];
    const int used = snprintf(name, sizeof name, "%s", n->prefix);
    vsnprintf(name + used, sizeof name - (size_t)used, format, args);
    return kac_weights_entry_of(n->in, name);
}

const kac_weights_entry *kac_ldm_find(const kac_ldm_names *n, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const kac_weights_entry *e = find(n, format, args);
    va_end(args);
    return e;
}

int64_t kac_ldm_size(const kac_ldm_names *n, int i, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const kac_weights_entry *e = find(n, format, args);
    va_end(args);
    return e != NULL && i < e->rank && i < KAC_MAX_RANK ? e->shape[i] : 0;
}

/* `name` is taken over; NULL: out of memory. */
static kac_status put(kac_ldm_names *n, kac_weights_entry e, char *name) {
    if (name == NULL) return KAC_E_MEMORY;
    if (n->out->n_entries == n->cap) {
        const int cap = n->cap == 0 ? 256 : 2 * n->cap;
        kac_weights_entry *grown = kac_realloc(n->out->entries, sizeof *grown * (size_t)cap);
        if (grown == NULL) {
            kac_free(name);
            return KAC_E_MEMORY;
        }
        n->out->entries = grown;
        n->cap = cap;
    }
    e.name = e.own_name = name;
    e.own_data = NULL;
    e.file = 0;
    n->out->entries[n->out->n_entries++] = e;
    return KAC_OK;
}

static char *name_of(const char *format, va_list args) {
    char name[MAX_NAME];
    vsnprintf(name, sizeof name, format, args);
    return kac_strdup(name);
}

kac_status kac_ldm_put(kac_ldm_names *n, const kac_weights_entry *e, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *name = name_of(format, args);
    va_end(args);
    return put(n, *e, name);
}

kac_status kac_ldm_put_part(kac_ldm_names *n, const kac_weights_entry *e, int i, int parts, const char *format, ...) {
    if (e->rank < 1 || e->shape[0] % parts != 0 || e->strided)
        return KAC_FAIL(KAC_E_SHAPE, "%s: %s cannot be cut into %d parts", n->path, e->name, parts);
    kac_weights_entry part = *e;
    part.shape[0] /= parts;
    part.n_bytes /= (size_t)parts;
    part.data += part.n_bytes * (size_t)i;
    va_list args;
    va_start(args, format);
    char *name = name_of(format, args);
    va_end(args);
    return put(n, part, name);
}

kac_status kac_ldm_put_transposed(kac_ldm_names *n, const kac_weights_entry *e, const char *name) {
    if (e->rank != 2) return KAC_FAIL(KAC_E_SHAPE, "%s: %s is no matrix", n->path, e->name);
    kac_weights_entry t = *e;
    t.stride[1] = e->strided ? e->stride[0] : e->shape[1];
    t.stride[0] = e->strided ? e->stride[1] : 1;
    t.shape[0] = e->shape[1];
    t.shape[1] = e->shape[0];
    t.strided = true;
    return put(n, t, kac_strdup(name));
}

void kac_ldm_add_ints(cJSON *config, const char *key, const int64_t *v, int n) {
    cJSON *list = cJSON_AddArrayToObject(config, key);
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber((double)v[i]));
}

void kac_ldm_add_texts(cJSON *config, const char *key, const char *const *v, int n) {
    cJSON *list = cJSON_AddArrayToObject(config, key);
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateString(v[i]));
}

int64_t kac_ldm_groups(const int64_t *channels, int n) {
    int64_t groups = 32;
    for (int i = 0; i < n; i++)
        while (groups > 1 && channels[i] % groups != 0) groups /= 2;
    return groups;
}

int kac_ldm_number(const char *name, int i, const char **rest) {
    for (const char *p = name; p != NULL && *p != 0; p = strchr(p, '.'), p = p == NULL ? NULL : p + 1) {
        char *end;
        if (!isdigit((unsigned char)*p)) continue;
        const long v = strtol(p, &end, 10);
        if ((*end != '.' && *end != 0) || i-- > 0) continue;
        if (rest != NULL) *rest = *end == '.' ? end + 1 : end;
        return v > 100000 ? -1 : (int)v;
    }
    return -1;
}
