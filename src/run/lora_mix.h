/* Several LoRA files as one.
 *
 *     change   Σ w_i ΔW_i exactly: the factors of a layer are stacked, so its rank is the sum of theirs
 *     factors  (Σ w_i up_i) (Σ w_i down_i): the "soup" of AlignProp, of equal ranks and scales; rank stays, and the change is not the mean
 *              of the changes: with weights that sum to 1 cross terms take part of it
 *
 * Source: Prabhudesai et al. 2023 (evaluate_soup) for the second. */
#ifndef KAC_RUN_LORA_MIX_H
#define KAC_RUN_LORA_MIX_H

#include "io/lora.h"

enum { KAC_LORA_MIX_MAX = 16 };

typedef struct kac_lora_mix_args {
    const char *const *files; /* [n] whatever kac_lora_open reads */
    const double *weights;    /* [n] */
    int n;
    bool factors;
    kac_lora_format format;
    const char *out; /* a .safetensors file, replaced when it exists; numbers are f32 */
} kac_lora_mix_args;

typedef struct kac_lora_mix_result {
    int n_modules;
    int n_shared; /* modules that more than one file has */
    int64_t rank_min, rank_max;
} kac_lora_mix_result;

/* KAC_E_SHAPE for files made for different layers, KAC_E_USAGE for factors that do not match, else as kac_lora_open and kac_convert_lora. */
kac_status kac_lora_mix(kac_lora_mix_result *r, const kac_lora_mix_args *a);

#endif
