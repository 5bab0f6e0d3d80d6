/* What `--lora` and `--embedding` add to a model: opened from the options, checked once all networks are loaded, recorded. */
#ifndef KAC_RUN_ADAPTERS_H
#define KAC_RUN_ADAPTERS_H

#include "base/json.h"
#include "io/inversion.h"
#include "nn/lora.h"
#include <kac/options.h>

/* *lora stays NULL and *embeddings empty without such options. KAC_E_USAGE for a scale that is no number, else as the files. */
kac_status kac_adapters_open(kac_lora_set **lora, kac_inversion_set *embeddings, const kac_options *o);

/* Every module of the LoRA files found its layer in a whole pipeline (nn/lora.h); lora NULL: nothing to check. */
kac_status kac_adapters_check(const kac_lora_set *lora, const kac_options *o);

/* Adds "lora" and "embeddings" to run.json's facts: name, path, scale, format, modules, SHA-256. */
kac_status kac_adapters_facts(cJSON *facts, const kac_lora_set *lora, const kac_inversion_set *embeddings);

/* ", LoRA: style:0.8 film:0.5" for the line of settings in pictures, "" without; caller frees, NULL when out of memory. */
char *kac_adapters_line(const kac_lora_set *lora);

/* FILE[:SCALE] apart; *path is the caller's to free. */
kac_status kac_lora_spec_read(char **path, double *scale, const char *spec);

#endif
