/* Checkpoints from one layout to another: folder, one file in the original names, plain weights; always to safetensors. */
#ifndef KAC_CONVERT_RUN_H
#define KAC_CONVERT_RUN_H

#include "base/base.h"

typedef struct kac_convert_args {
    const char *in;      /* a model folder, a network's folder, a file of weights */
    const char *out;     /* ends in .safetensors: one file; else a folder */
    int dtype;           /* a kac_dtype that floating-point tensors become, or −1: as they are */
    const char *variant; /* of a folder's weights, or NULL */
    bool overwrite;
    const char *merges; /* CLIP's bpe_simple_vocab_16e6.txt[.gz]: the tokenizer of folders made from one file */
} kac_convert_args;

typedef struct kac_convert_result {
    const char *kind; /* "weights", "network", "folder", "single file" */
    int n_tensors;
    double bytes;
} kac_convert_result;

/* model folder -> file: all networks under the original names. File -> folder: the reverse, for such files. File -> file: same names.
 * Folder -> folder: every network in one file. A new folder appears whole or not at all; so does each file of an old one.
 * KAC_E_USAGE when the output exists and may not be overwritten; KAC_E_NONFINITE when a number does not fit the dtype. */
kac_status kac_convert(kac_convert_result *r, const kac_convert_args *a);

#endif
