/* `kac run COMPONENT`: one network on tensors from a file, under the reference implementation's own names and layouts
 * (NCHW). */
#ifndef KAC_RUN_COMPONENT_H
#define KAC_RUN_COMPONENT_H

#include <kac/status.h>
#include <kac/tensor.h>

struct kac_ops;

/* component      reads                                                   writes
 * unet           sample, timestep ([] or [N]), encoder_hidden_states     sample   (UNet2DModel: without the last input;
 *                as the configuration wants them: text_embeds and time_ids, timestep_cond, class_labels)
 * text_encoder   input_ids                                               last_hidden_state, pooler_output
 *                                                                        (, text_embeds with a projection)
 * clip           pixel_values, input_ids                                 image_embeds, text_embeds, logits_per_image
 * vae.encode     sample                                                  moments (AutoencoderTiny: latents)
 * vae.decode     z                                                       sample */
typedef struct kac_run_component_args {
    const char *component;
    const char *model_dir; /* whatever kac_source_open takes */
    const char *in_path, *out_path;
    const struct kac_options *options; /* of the adapters, run/adapters.h (`--lora`, `--embedding`); NULL: none */
    /* Also reads "grad.NAME" for results of the network (those that are there) and writes "grad.NAME" for its floating-point
     * inputs: the vector-Jacobian product. One pass, whatever n_repeat says. */
    bool grad;
    const char *taps_path; /* NULL: none; else a safetensors file of every named intermediate result */
    const struct kac_ops *ops;
    kac_dtype dtype;   /* KAC_F32 or KAC_BF16 */
    int n_threads;     /* 0: all */
    int n_repeat;      /* 0, 1: once; more: the same forward pass so often, for timing (`--repeat N`) */
    double *repeat_ms; /* NULL, or n_repeat milliseconds: the forward pass alone, without files, loading, conditioning
                          on the prompt (which a run does once) and layout changes */
} kac_run_component_args;

kac_status kac_run_component(const kac_run_component_args *a);

#endif
