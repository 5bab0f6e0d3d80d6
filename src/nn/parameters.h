/* The parameters of a network that are tuned, as one flat vector: LoRA factors of chosen layers, or every weight.
 *
 *     kac_parameters *p;
 *     KAC_TRY(kac_parameters_create(&p, &spec));
 *     source.parameters = p;                          // before kac_unet_load_from: layers register themselves while they are loaded
 *     …
 *     KAC_TRY(kac_parameters_finish(p, c));           // values set to their start, packed
 *     KAC_TRY(kac_parameters_watch(p, &tape));        // … forward, replay …
 *     kac_parameters_settle(p, grads);                // grads [count] += dL/d values
 *     KAC_TRY(kac_parameters_apply(p, c, values));    // the network computes with these from now on
 *
 * f32 here whatever the network computes in; applying packs anew into the same memory. */
#ifndef KAC_PARAMETERS_H
#define KAC_PARAMETERS_H

#include "nn/lora.h"
#include "tensor/tape.h"

typedef enum kac_parameters_kind { KAC_PARAMETERS_LORA, KAC_PARAMETERS_FULL } kac_parameters_kind;
/* How a LoRA's down factor begins; up begins at zero. */
typedef enum kac_lora_init {
    KAC_LORA_KAIMING, /* uniform in ± 1 / √n_in (kohya, PEFT's default) */
    KAC_LORA_GAUSSIAN /* normal, deviation 1 / rank (diffusers, AlignProp) */
} kac_lora_init;

typedef struct kac_parameters_spec {
    kac_parameters_kind kind;
    int rank;
    double alpha;        /* scale = alpha / rank */
    const char *targets; /* patterns with * by commas; a layer counts whose path, or its end after a dot, matches one: "to_q,to_k,attn2.*" */
    kac_lora_init init;
    uint64_t seed;
} kac_parameters_spec;

typedef struct kac_parameters kac_parameters;

/* KAC_E_USAGE: rank below 1, no pattern. */
kac_status kac_parameters_create(kac_parameters **out, const kac_parameters_spec *spec);
void kac_parameters_free(kac_parameters *p); /* NULL allowed */

/* After the network was loaded. KAC_E_USAGE: nothing matches a pattern (names near ones), a rank larger than a layer (names it). */
kac_status kac_parameters_finish(kac_parameters *p, kac_ctx *c);
int64_t kac_parameters_count(const kac_parameters *p);
bool kac_parameters_is_low(const kac_parameters *p); /* LORA: other values cost little */
int kac_parameters_layers(const kac_parameters *p); /* modules as LoRA files count them, or tensors */
/* The values at the start, [count]. */
const float *kac_parameters_start(const kac_parameters *p);
/* out [count]: values whose change of the network is `scale` times that of `values`: up factors times it, whole weights moved towards their
 * start. */
void kac_parameters_scale(const kac_parameters *p, float *out, const float *values, double scale);
/* values NULL: the base model (a LoRA's layers run without it). */
kac_status kac_parameters_apply(kac_parameters *p, kac_ctx *c, const float *values);
/* LORA alone: its layers run with what was last applied, or without it; nothing is packed. */
void kac_parameters_switch(kac_parameters *p, bool on);
/* Gradients by what is packed, in memory of its own; settle adds dL/d values to grads [count] and clears them. */
kac_status kac_parameters_watch(kac_parameters *p, kac_grad_tape *t);
void kac_parameters_settle(kac_parameters *p, float *grads);

/* Writes values as a LoRA file (kohya's keys with alpha, or PEFT's with alpha folded into the up factors and lora_adapter_metadata), or for FULL
 * the changed weights as a component's safetensors. meta: pairs name, value; ends with NULL. Written beside and renamed. */
kac_status kac_parameters_write(const kac_parameters *p, const float *values, kac_lora_format format, const char *path,
                                const char *const *meta);
/* Reads such a file back into values [count]; KAC_E_SHAPE, KAC_E_FORMAT when it does not fit. What --init-lora uses. */
kac_status kac_parameters_read(const kac_parameters *p, float *values, const char *path);

/* ---- what layers call while they load; nothing happens when l->parameters is NULL ---- */

enum { KAC_PARAMETERS_STACK = 3 }; /* layers packed as one at most: q, k, v */

/* `src` was packed into *w, the layers `path` one below the other; w and low stay where they are. KAC_E_USAGE: the rank is larger than the
 * layer. */
kac_status kac_parameters_add_weight(const kac_loader *l, kac_weight *w, kac_nn_low *low, kac_tensor src,
                                     const kac_path *path, int n_path, int stride);
/* `src` was copied into `table`: the tensors `name` one after the other. */
kac_status kac_parameters_add_table(const kac_loader *l, kac_tensor table, kac_tensor src, const kac_path *name,
                                    int n_name);

#endif
