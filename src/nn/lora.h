/* LoRA files in use: the layers of a network ask for their factors while they are loaded.
 *
 *     kac_lora_set *set;
 *     KAC_TRY(kac_lora_set_open(&set, (kac_lora_use[]){{"style.safetensors", 0.8}}, 1, false));
 *     source.lora = set, source.lora_part = KAC_LORA_UNET;           // before kac_unet_load_from
 *     …
 *     KAC_TRY(kac_lora_set_check(set, 1 << KAC_LORA_UNET, false));   // everything found its layer
 *     kac_lora_set_close(set);                                       // the networks have their own copies
 *
 * A layer y = W x becomes W x + Σ_f s_f · (alpha / r)_f · B_f (A_f x). At run time (the default) all files' factors of a layer are one
 * pair of matrices, A stacked over B's columns side by side, and B (A x) is added inside the layer's own product; W stays as it is, so that
 * gradients of A and B need nothing else. Merged, the products are added to W in double while it is packed: no cost afterwards, and a model
 * that is stored in half precision is not rounded again. */
#ifndef KAC_NN_LORA_H
#define KAC_NN_LORA_H

#include "nn/loader.h"

typedef struct kac_lora_set kac_lora_set;

typedef struct kac_lora_use {
    const char *path; /* file or folder */
    double scale;     /* the user's; 0 is allowed and changes nothing */
} kac_lora_use;

/* KAC_E_IO, KAC_E_FORMAT, KAC_E_UNSUPPORTED as kac_lora_open; KAC_E_USAGE for a scale that is not finite. */
kac_status kac_lora_set_open(kac_lora_set **out, const kac_lora_use *uses, int n, bool merge);
void kac_lora_set_close(kac_lora_set *s); /* NULL allowed */

int kac_lora_set_count(const kac_lora_set *s);
const kac_lora *kac_lora_set_file(const kac_lora_set *s, int i);
double kac_lora_set_scale(const kac_lora_set *s, int i);
int kac_lora_set_matched(const kac_lora_set *s, int i); /* modules of file i that found their layer so far */

/* After the networks in `parts` (bits by kac_lora_part) were loaded: every module of theirs must have found a layer. KAC_E_FORMAT with the
 * count and the first names, or what model a file is for when it found nothing; with `partial` only the latter. Modules of other parts do
 * not matter. */
kac_status kac_lora_set_check(const kac_lora_set *s, unsigned parts, bool partial);

/* The factors of one layer at run time. */
typedef struct kac_nn_low {
    kac_weight down; /* [parts · r, n_in] or [r, n_in, k, k] */
    kac_weight up;   /* [n_out, r], scales folded in */
    int parts;       /* 0: the layer has none; else 1, or one per stacked layer */
} kac_nn_low;

/* Packs `src`, the weight of the layers `path` stacked, with what the loader's set has for them: factors into *low, or
 * merged. KAC_E_SHAPE for a file that is made for another layer. */
kac_status kac_lora_pack(const kac_loader *l, kac_weight *w, kac_nn_low *low, kac_tensor src, const kac_path *path,
                         int n_path, int stride);

/* Before the first layer of a network: names of the original code are told by its own structure. */
void kac_lora_begin(const kac_loader *l);

#endif
