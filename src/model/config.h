/* What the networks' config.json files share: ranges, activations, lists over blocks, refusals. Every message names
 * file, key and value. */
#ifndef KAC_CONFIG_H
#define KAC_CONFIG_H

#include "base/json.h"
#include "tensor/ops.h"

/* dir/config.json. */
kac_status kac_config_open(kac_json *j, const char *dir);

kac_status kac_config_int(const kac_json *j, const cJSON *obj, const char *key, int64_t *out, int64_t lo, int64_t hi);
/* As kac_config_int of j->root, but a missing key leaves *out outside the range too (0: there is none). */
kac_status kac_config_optional(const kac_json *j, const char *key, int64_t *out, int64_t lo, int64_t hi);
/* One number for all n blocks, or a list of exactly n. `out` holds the default on entry. */
kac_status kac_config_per_block(const kac_json *j, const char *key, int64_t *out, int n, int64_t lo, int64_t hi);
/* A list of 1 … n_max numbers (a single number is a list of one); *n is its length. Untouched when the key is missing.
 */
kac_status kac_config_list(const kac_json *j, const char *key, int64_t *out, int n_max, int *n, int64_t lo, int64_t hi);
/* "silu", "swish", "gelu", "relu", "mish" (any case), and with `clip` also "quick_gelu", "gelu_new",
 * "gelu_pytorch_tanh". */
kac_status kac_config_act(const kac_json *j, const cJSON *obj, const char *key, kac_act *out, bool clip);
/* KAC_E_UNSUPPORTED unless the key is missing, null, false, or equal to the text `only` (may be NULL). */
kac_status kac_config_refuse(const kac_json *j, const char *key, const char *only);
bool kac_config_is_null(const kac_json *j, const char *key); /* present and null, which is not the same as missing */
/* "<file>: <key> is <value>, which is not supported (<why>)" */
kac_status kac_config_unsupported(const kac_json *j, const char *key, const char *why);

#endif
