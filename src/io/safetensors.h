/* Safetensors files: reading through a mapping, writing atomically. Nothing in a file is trusted as a size.
 *
 *     kac_st weights = {0};
 *     KAC_TRY(kac_st_open_dir(&weights, "model/unet", "diffusion_pytorch_model"));
 *     kac_tensor w;
 *     status = kac_st_find(&weights, "conv_in.weight", &w);    // a view into the mapping
 *     kac_st_close(&weights);                                  // views end here
 *
 * Source: https://github.com/huggingface/safetensors (format), verdicts checked against its version 0.8.0. */
#ifndef KAC_IO_SAFETENSORS_H
#define KAC_IO_SAFETENSORS_H

#include "base/base.h"
#include "base/json.h"
#include <kac/tensor.h>

/* The header of the reference implementation may not be longer. */
#define KAC_ST_MAX_HEADER_BYTES 100000000

typedef struct kac_st_entry {
    const char *name;
    const char *dtype_name;      /* as the file spells it */
    int dtype;                   /* a kac_dtype, or -1: can be listed, not used (F8_E4M3, …) */
    int rank;                    /* may be larger than KAC_MAX_RANK: can be listed, not used */
    int64_t shape[KAC_MAX_RANK]; /* the first KAC_MAX_RANK sizes */
    int file;                    /* index into files */
    const uint8_t *data;         /* at any byte address */
    size_t n_bytes;
    void *aligned; /* own copy, made when a misaligned tensor is first asked for */
} kac_st_entry;

typedef struct kac_st_file {
    char *path;
    kac_map map;
    kac_json header; /* owns the names; root is NULL when the header could not be read */
} kac_st_file;

/* One file or the shards of one model. Zeroed = empty; close is allowed on an empty one. */
typedef struct kac_st {
    char *path; /* what was opened, for messages */
    kac_st_file *files;
    int n_files;
    kac_st_entry *entries; /* sorted by name (bytes); for (i = 0; i < n_entries; i++) lists a file */
    int n_entries;
} kac_st;

/* Opens one file. KAC_E_IO unreadable; KAC_E_FORMAT malformed, naming file and tensor; KAC_E_UNSUPPORTED for a file of
 * another kind (pickle, GGUF, Git LFS pointer). On failure *s is empty. The file must not shrink while it is open. */
kac_status kac_st_open(kac_st *s, const char *path);

/* Opens the weights of a model folder; stem is "diffusion_pytorch_model" (diffusers) or "model" (transformers). In this
 * order: STEM.safetensors, STEM.safetensors.index.json with its shards, and the same two of the variant fp16.
 * KAC_E_UNSUPPORTED when the folder holds only .bin or .ckpt files. */
kac_status kac_st_open_dir(kac_st *s, const char *dir, const char *stem);

void kac_st_close(kac_st *s);

/* NULL when there is none. */
const kac_st_entry *kac_st_entry_of(const kac_st *s, const char *name);

/* A contiguous, aligned, read-only view of a tensor. It lies in the mapping, or, when the file puts the tensor at an
 * address that does not suit its dtype, in a copy that lives until kac_st_close (the first such call is not
 * thread-safe). KAC_E_FORMAT "… has no tensor NAME" with the nearest name; KAC_E_UNSUPPORTED for other dtypes and ranks
 * above KAC_MAX_RANK. */
kac_status kac_st_find(const kac_st *s, const char *name, kac_tensor *out);
kac_status kac_st_view(const kac_st *s, const kac_st_entry *entry, kac_tensor *out);

/* The text stored under `key` in __metadata__ of the first file that has it; NULL when there is none. */
const char *kac_st_metadata(const kac_st *s, const char *key);

/* ---- writing ---- */
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

#endif
