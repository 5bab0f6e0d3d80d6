/* LoRA files from one key format and dtype to another: kohya (read by every tool), peft (diffusers' own), diffusers and processor (its older
 * ones). */
#ifndef KAC_RUN_CONVERT_LORA_H
#define KAC_RUN_CONVERT_LORA_H

#include "io/lora_write.h"

typedef struct kac_convert_lora_args {
    const char *in, *out; /* in: what kac_lora_open reads; out: a .safetensors file, replaced when it exists */
    kac_lora_format format;
    int dtype; /* a kac_dtype for all matrices, or -1: as they are (F64: F32) */
} kac_convert_lora_args;

/* As kac_lora_write; KAC_E_FORMAT for keys of no known network. */
kac_status kac_convert_lora(kac_lora_written *r, const kac_convert_lora_args *a);

/* Whether a file or folder is meant to be one: by its keys alone. False too when it cannot be read. */
bool kac_convert_is_lora(const char *path);

#endif
