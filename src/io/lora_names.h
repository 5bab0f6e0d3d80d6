/* Keys of LoRA files: what each one says, and back. */
#ifndef KAC_IO_LORA_NAMES_H
#define KAC_IO_LORA_NAMES_H

#include "io/lora.h"

typedef enum kac_lora_slot { KAC_LORA_DOWN, KAC_LORA_UP, KAC_LORA_MID, KAC_LORA_ALPHA, KAC_LORA_N_SLOTS } kac_lora_slot;

typedef struct kac_lora_key {
    kac_lora_slot slot;
    kac_lora_format format;
    kac_lora_part part; /* KAC_LORA_N_PARTS: belongs to no network known here */
    bool sgm;
    char path[KAC_LORA_MAX_NAME];
} kac_lora_key;

/* KAC_E_UNSUPPORTED for the key of another kind of adapter, KAC_E_FORMAT for one that is too long. *known: it is a key
 * of a LoRA at all. `file` is for messages. */
kac_status kac_lora_key_read(kac_lora_key *k, bool *known, const char *key, const char *file);

/* Fills alpha and scale of all modules. KAC_E_FORMAT, KAC_E_UNSUPPORTED. */
kac_status kac_lora_read_scales(kac_lora *l);

/* out = path with '_' for '.'. */
void kac_lora_flatten(char out[KAC_LORA_MAX_NAME], const char *path);

/* The key under which `format` stores `slot` of a module; two_texts: the file also has the second text encoder. KAC_E_UNSUPPORTED where
 * the format has no name for it. */
kac_status kac_lora_key_write(char out[KAC_LORA_MAX_NAME], kac_lora_format format, kac_lora_part part, const char *path,
                              kac_lora_slot slot, bool two_texts);

#endif
