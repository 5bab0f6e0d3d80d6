/* Weights in files: found by name in a mapping, whatever the file's format. Nothing in a file is trusted as a size.
 *
 *     kac_weights weights = {0};
 *     KAC_TRY(kac_weights_open_dir(&weights, "model/unet", "diffusion_pytorch_model"));
 *     kac_tensor w;
 *     status = kac_weights_find(&weights, "conv_in.weight", &w);    // a view into the mapping
 *     kac_weights_close(&weights);                                  // views end here
 */
#ifndef KAC_IO_WEIGHTS_H
#define KAC_IO_WEIGHTS_H

#include "base/base.h"
#include "base/json.h"
#include <kac/tensor.h>

typedef struct kac_weights_entry {
    const char *name;
    const char *dtype_name;       /* as safetensors spells it */
    int dtype;                    /* a kac_dtype, or -1: can be listed, not used (F8_E4M3, …) */
    int rank;                     /* may be larger than KAC_MAX_RANK: can be listed, not used */
    int64_t shape[KAC_MAX_RANK];  /* the first KAC_MAX_RANK sizes */
    int64_t stride[KAC_MAX_RANK]; /* in elements; meaningful when strided */
    bool strided;                 /* not row-major in the file */
    int file;                     /* index into files */
    const uint8_t *data;          /* at any byte address */
    size_t n_bytes;               /* of the elements, without gaps */
    char *own_name;               /* the name's memory when no file's header holds it */
    void *own_data;               /* row-major, aligned copy, made when a tensor that needs one is first asked for */
} kac_weights_entry;

typedef struct kac_weights_file {
    char *path;
    bool torch; /* written by torch.save; else safetensors */
    kac_map map;
    kac_json header; /* what __metadata__ and, of a safetensors file, the names lie in; root may be NULL */
} kac_weights_file;

/* One file or the shards of one model. Zeroed = empty; close is allowed on an empty one. */
typedef struct kac_weights {
    char *path; /* what was opened, for messages */
    kac_weights_file *files;
    int n_files;
    kac_weights_entry *entries; /* sorted by name (bytes); for (i = 0; i < n_entries; i++) lists a file */
    int n_entries;
} kac_weights;

/* Opens one file, its format told by its content: safetensors or what torch.save writes (io/torch_file.h). KAC_E_IO
 * unreadable; KAC_E_FORMAT malformed, naming file and tensor; KAC_E_UNSUPPORTED for a file of another kind (GGUF, Git LFS
 * pointer, a pickle that wants code). On failure *s is empty. The file must not shrink while it is open. */
kac_status kac_weights_open(kac_weights *s, const char *path);

/* Opens the weights of a model folder; stem is "diffusion_pytorch_model" (diffusers) or "model" (transformers). In this
 * order: STEM.safetensors, STEM.safetensors.index.json with its shards, the same of the variants fp16 and bf16, then all
 * of these as .bin, where transformers' stem is "pytorch_model". */
kac_status kac_weights_open_dir(kac_weights *s, const char *dir, const char *stem);
/* Only files of this variant ("fp16", "non_ema"); NULL: as kac_weights_open_dir. */
kac_status kac_weights_open_variant(kac_weights *s, const char *dir, const char *stem, const char *variant);

/* Several files as one; name(part, NAME) is what tensor NAME of files[part] is called from then on (a fresh string, NULL when out of
 * memory). `path` is for messages. Fails as kac_weights_open. */
typedef char *kac_weights_part_name(int part, const char *name);
kac_status kac_weights_open_parts(kac_weights *s, const char *path, const char *const *files, int n_files,
                                  kac_weights_part_name *name);

void kac_weights_close(kac_weights *s);

/* NULL when there is none. */
const kac_weights_entry *kac_weights_entry_of(const kac_weights *s, const char *name);

/* A contiguous, aligned, read-only view of a tensor. It lies in the mapping, or, when the file puts the tensor at an
 * address that does not suit its dtype or not row-major, in a copy that lives until kac_weights_close (the first such
 * call is not thread-safe). KAC_E_FORMAT "… has no tensor NAME" with the nearest name; KAC_E_UNSUPPORTED for other
 * dtypes and ranks above KAC_MAX_RANK. */
kac_status kac_weights_find(const kac_weights *s, const char *name, kac_tensor *out);
kac_status kac_weights_view(const kac_weights *s, const kac_weights_entry *entry, kac_tensor *out);

/* The text stored under `key` in the metadata of the first file that has it; NULL when there is none. */
const char *kac_weights_metadata(const kac_weights *s, const char *key);

/* A name from a file as one printable line of at most 95 bytes; returns the buffer. */
const char *kac_weights_shown(const char *name, char buffer[96]);

#endif
