/* Writing LoRA files, in any of the key formats of io/lora.h. */
#ifndef KAC_IO_LORA_WRITE_H
#define KAC_IO_LORA_WRITE_H

#include "io/lora.h"
#include "io/safetensors.h"

typedef struct kac_lora_write_args {
    const char *from; /* what the modules are of, for messages */
    const char *to;   /* a .safetensors file, replaced when it exists */
    kac_lora_format format;
    int dtype;               /* a kac_dtype for all matrices, or −1: as they are (F64: F32) */
    const kac_st_pair *meta; /* [n_meta] further metadata */
    int n_meta;
} kac_lora_write_args;

typedef struct kac_lora_written {
    int n_modules, n_tensors;
    size_t n_bytes; /* of the tensors */
} kac_lora_written;

/* Of a module path, part, down, up, mid, rank, n_in, kh, kw and scale are read. Alphas: kohya keeps them (one is written for every module); in
 * the other formats they are multiplied into the up matrix, and a Tucker core into the down matrix, so that readers which know neither get the
 * same result. KAC_E_UNSUPPORTED where the format has no name for a module; KAC_E_NONFINITE where a number does not fit into dtype. */
kac_status kac_lora_write(kac_lora_written *r, const kac_lora_module *modules, int n, const kac_lora_write_args *a);

#endif
