/* Textual inversion: vectors that stand for a word in the prompt.
 *
 * Files: {"<token>": [n, width]} as diffusers' learned_embeds.bin and .safetensors; string_to_param and name (A1111 .pt); emb_params (A1111
 * .safetensors); clip_l and clip_g (two text encoders). Source: Gal et al. 2022; formats as diffusers 0.42 reads them. */
#ifndef KAC_IO_INVERSION_H
#define KAC_IO_INVERSION_H

#include "io/weights.h"

enum { KAC_INVERSION_MAX_ENCODERS = 2, KAC_INVERSION_MAX_VECTORS = 75 };

typedef struct kac_inversion {
    char *path;
    char *token; /* the user's, else the file's own, else the file's name without ending */
    kac_weights weights;
    kac_tensor rows
        [KAC_INVERSION_MAX_ENCODERS]; /* [n, width] of text encoder 0, 1; the second mostly none. Views into the file */
    int n;
} kac_inversion;

typedef struct kac_inversion_set {
    kac_inversion *list;
    int n;
} kac_inversion_set;

/* specs: FILE or FILE:TOKEN. KAC_E_IO, KAC_E_FORMAT for a file without such vectors, KAC_E_USAGE for a token that occurs twice or is empty. */
kac_status kac_inversion_set_open(kac_inversion_set *s, const char *const *specs, int n);
void kac_inversion_set_close(kac_inversion_set *s);

/* Vectors in all. */
int kac_inversion_set_count(const kac_inversion_set *s);
/* Every file has vectors of `width` for text encoder `encoder` of `n_encoders`; KAC_E_SHAPE with what model it is for. */
kac_status kac_inversion_set_check(const kac_inversion_set *s, int encoder, int n_encoders, int64_t width);

#endif
