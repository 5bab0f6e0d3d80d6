/* The safetensors format: writing files; reading is io/weights.h. Nothing in a file is trusted as a size.
 *
 * Source: https://github.com/huggingface/safetensors (format), verdicts checked against its version 0.8.0. */
#ifndef KAC_IO_SAFETENSORS_H
#define KAC_IO_SAFETENSORS_H

#include "base/base.h"
#include <kac/tensor.h>

/* The header of the reference implementation may not be longer. */
#define KAC_ST_MAX_HEADER_BYTES 100000000

typedef struct kac_st_item {
    const char *name;
    kac_tensor tensor; /* contiguous */
} kac_st_item;

typedef struct kac_st_pair {
    const char *key, *value;
} kac_st_pair;

/* Writes a file that the reference library reads, and in its order (dtype size descending, then name), so that the same
 * tensors give the same bytes. Atomic as kac_file_write; memory does not grow with the tensors. KAC_E_IO, KAC_E_USAGE
 * (two tensors of one name, a name that is not UTF-8 or is "__metadata__", a tensor with gaps). */
kac_status kac_st_write(const char *path, const kac_st_item *items, int n_items, const kac_st_pair *metadata,
                        int n_metadata);

/* The same with the numbers made as they are needed: fetch(self, i, &data) gives those of items[i], valid until the next call; of
 * the tensors only dtype and shape count. */
typedef kac_status kac_st_fetch(void *self, int i_item, const void **data);
kac_status kac_st_write_fetched(const char *path, const kac_st_item *items, int n_items, const kac_st_pair *metadata,
                                int n_metadata, kac_st_fetch *fetch, void *self);

#endif
