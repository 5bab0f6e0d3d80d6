/* What the conversions share. */
#ifndef KAC_CONVERT_PARTS_H
#define KAC_CONVERT_PARTS_H

#include "base/json.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "run/convert.h"

typedef struct kac_convert_job {
    const kac_convert_args *a;
    kac_convert_result *r;
} kac_convert_job;

/* All tensors of w in one safetensors file of the wanted dtype. */
kac_status kac_convert_weights(kac_convert_job *j, const char *path, const kac_weights *w, const kac_st_pair *metadata,
                               int n_metadata);
/* Indented, with a line break at the end. */
kac_status kac_convert_json(const char *path, const cJSON *json);
/* One file of a folder, up to 256 MiB. */
kac_status kac_convert_copy(const char *from_dir, const char *to_dir, const char *name);

/* vocab.json, merges.txt and the two small files of a CLIPTokenizer; `pad` is its padding token. */
kac_status kac_convert_tokenizer(const char *dir, const char *merges, const char *pad);

#endif
