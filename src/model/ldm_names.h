/* What the translators of one network each share. */
#ifndef KAC_LDM_NAMES_H
#define KAC_LDM_NAMES_H

#include "model/ldm.h"

/* Collects translated entries. */
typedef struct kac_ldm_names {
    const kac_weights *in;
    kac_weights *out;
    const char *prefix; /* of `in`'s names */
    const char *path;   /* for messages */
    int cap;
    cJSON *config;
} kac_ldm_names;

/* The entry of `in` called prefix + name; NULL when there is none. */
const kac_weights_entry *kac_ldm_find(const kac_ldm_names *n, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Size i of that tensor's shape; 0 when there is none. */
int64_t kac_ldm_size(const kac_ldm_names *n, int i, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Appends e under a new name. */
kac_status kac_ldm_put(kac_ldm_names *n, const kac_weights_entry *e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Part `i` of `parts` along the first axis; the two axes of a matrix changed. */
kac_status kac_ldm_put_part(kac_ldm_names *n, const kac_weights_entry *e, int i, int parts, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
kac_status kac_ldm_put_transposed(kac_ldm_names *n, const kac_weights_entry *e, const char *name);

/* Lists for the config. */
void kac_ldm_add_ints(cJSON *config, const char *key, const int64_t *v, int n);
void kac_ldm_add_texts(cJSON *config, const char *key, const char *const *v, int n);
/* 32, or the largest power of two that divides all n channel counts. */
int64_t kac_ldm_groups(const int64_t *channels, int n);

kac_status kac_ldm_unet(kac_ldm_names *n, const kac_ldm *m);
kac_status kac_ldm_vae(kac_ldm_names *n, const kac_ldm *m);
kac_status kac_ldm_text(kac_ldm_names *n, const kac_ldm *m, bool second);

/* The i-th number between dots, "input_blocks.3.1.x": 3, 1. −1 when there is none; *rest (may be NULL) is what follows it. */
int kac_ldm_number(const char *name, int i, const char **rest);

#endif
