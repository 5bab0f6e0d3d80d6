/* LoRA files: low-rank changes of a checkpoint's linear and convolution layers, ΔW = scale · up · down.
 *
 *     kac_lora file;
 *     KAC_TRY(kac_lora_open(&file, "style.safetensors"));    // a file, or a folder that PEFT or diffusers wrote
 *     for (int i = 0; i < file.n_modules; i++) … file.modules[i].path, .down, .up, .scale
 *     kac_lora_close(&file);
 *
 * Key formats, told apart key by key:
 *     kohya        lora_unet_down_blocks_0_…_to_q.lora_down.weight, .lora_up, .lora_mid, .alpha (lora_te_, lora_te1_, lora_te2_; UNets by
 *                  the names of diffusers or of the original code, input_blocks_4_1_…)
 *     PEFT         unet.….to_q.lora_A.weight, .lora_A.NAME.weight; text_encoder.…, text_encoder_2.…, base_model.model.…
 *     diffusers    unet.….to_q.lora.down.weight, text_encoder.….q_proj.lora_linear_layer.down.weight
 *     processor    ….attn1.processor.to_q_lora.down.weight (diffusers up to 2023)
 * scale = alpha / rank; alpha comes from the key .alpha, from the metadata lora_adapter_metadata, or from adapter_config.json; without one
 * the scale is 1. LoHa, LoKr, DoRA, OFT, full differences and biases are refused by name.
 * Source: Hu et al. 2021; key formats as read by diffusers 0.42 and PEFT 0.21. */
#ifndef KAC_IO_LORA_H
#define KAC_IO_LORA_H

#include "io/weights.h"

typedef enum kac_lora_part { KAC_LORA_UNET, KAC_LORA_TEXT, KAC_LORA_TEXT_2, KAC_LORA_N_PARTS } kac_lora_part;
const char *kac_lora_part_name(kac_lora_part part); /* "unet", "text_encoder", "text_encoder_2" */

typedef enum kac_lora_format {
    KAC_LORA_KOHYA,
    KAC_LORA_PEFT,
    KAC_LORA_DIFFUSERS,
    KAC_LORA_PROCESSOR,
    KAC_LORA_N_FORMATS
} kac_lora_format;
const char *kac_lora_format_name(kac_lora_format format); /* "kohya", "peft", "diffusers", "processor" */

typedef struct kac_lora_module {
    char *path; /* as diffusers and transformers name it: "down_blocks.0.….attn1.to_q", "text_model.encoder.…" */
    char *flat; /* path with '_' for '.': what modules are compared by, since kohya's names cannot always be split */
    kac_lora_part part;
    bool sgm;        /* path is of the original code: "input_blocks.4.1.…"; kac_lora_from_sgm tells diffusers' */
    kac_tensor down; /* [r, n_in] or [r, n_in, kh, kw]; views into the file */
    kac_tensor up;   /* [n_out, r] or [n_out, r, 1, 1] */
    kac_tensor mid;  /* Tucker core [r, r, kh, kw] with down [r, n_in, 1, 1]; mostly none */
    int64_t rank, n_in, n_out;
    int kh, kw;   /* of the whole product; 1 for a linear layer */
    double alpha; /* NAN: the file says none */
    double scale; /* alpha / rank (rank-stabilised: alpha / √rank), or 1 */
} kac_lora_module;

enum { KAC_LORA_N_SHOWN = 3 };

typedef struct kac_lora {
    char *path; /* of the file that was read */
    kac_weights weights;
    kac_lora_format format;   /* of its first key */
    kac_lora_module *modules; /* sorted by part and flat name */
    int n_modules;
    int n_unknown; /* keys that belong to no network known here */
    const char *unknown[KAC_LORA_N_SHOWN];
} kac_lora;

/* KAC_E_IO, KAC_E_FORMAT (naming file and key: a down without its up, shapes that do not multiply, no LoRA in it at all),
 * KAC_E_UNSUPPORTED (another kind of adapter, by name). On failure *l is empty. */
kac_status kac_lora_open(kac_lora *l, const char *path);
void kac_lora_close(kac_lora *l);

/* The module of that flat name in `part`; NULL: none. */
const kac_lora_module *kac_lora_find(const kac_lora *l, kac_lora_part part, const char *flat);

/* Gives the modules with names of the original code the names of diffusers, for a UNet with `layers` residual blocks in a down block; those
 * without one keep theirs. */
void kac_lora_resolve_sgm(kac_lora *l, int layers);

/* Which base model the shapes speak of: "SD 1.x", "SD 2.x", "SDXL", or "" when they say nothing. */
const char *kac_lora_base(const kac_lora *l);
/* The width of the prompt's hidden states that its cross-attention layers read; 0: it has none. */
int64_t kac_lora_cross_width(const kac_lora *l);

/* Row i of the product as it is used: the k×k kernel down' [r, n_in · kh · kw] with a Tucker core multiplied in, in
 * double. out: rank · n_in · kh · kw numbers. */
void kac_lora_down_values(double *out, const kac_lora_module *m);
/* up as numbers [n_out · r], not scaled. */
void kac_lora_up_values(double *out, const kac_lora_module *m);

/* ---- names ---- */
enum { KAC_LORA_MAX_NAME = 256 };

/* diffusers' path of a module that the original code names otherwise, for a UNet with `layers` residual blocks in a
 * down block. false: there is none. */
bool kac_lora_from_sgm(char out[KAC_LORA_MAX_NAME], const char *path, int layers);

#endif
