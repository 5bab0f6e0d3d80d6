/* The kinds of things that `kac info` can describe: each fills a JSON object. */
#ifndef KAC_CLI_INFO_H
#define KAC_CLI_INFO_H

#include "cli.h"

/* A diffusers folder: components with their classes, parameters, bytes; scheduler; tokenizer. */
kac_status kac_info_pipeline(cJSON *d, const char *dir);
/* One network's folder (config.json and weights). */
kac_status kac_info_component(cJSON *d, const char *dir);
/* Tensors, dtypes, metadata. */
kac_status kac_info_weights(cJSON *d, const char *path);
/* A LoRA file or folder: format, ranks, alphas, what it changes, the model it is for. */
bool kac_info_is_lora(const char *path);
kac_status kac_info_lora(cJSON *d, const char *path);
/* Adds which rewards the weights at a path can give, when they can; false: none. */
bool kac_info_add_reward(cJSON *d, const char *path);
/* A folder with weights of a reward and no config.json. KAC_E_FORMAT saying what it holds instead. */
kac_status kac_info_reward(cJSON *d, const char *dir);
/* Size and text chunks. */
kac_status kac_info_png(cJSON *d, const char *path);
/* State, options, best pictures. */
kac_status kac_info_run(cJSON *d, const char *dir);

#endif
