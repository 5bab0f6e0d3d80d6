/* The denoisers UNet2DConditionModel and UNet2DModel of the diffusers folder layout.
 *
 *     kac_unet *u;
 *     KAC_TRY(kac_unet_load(&u, c, "model/unet"));
 *     kac_unet_cond *cond;                                   // once per prompt, in c->run
 *     KAC_TRY(kac_unet_condition(&cond, u, c, &(kac_unet_inputs){.tokens = tokens}));
 *     kac_tensor eps = {0};                                  // every step, in c->scratch
 *     KAC_TRY(kac_unet_forward(&eps, u, c, x, timestep, cond, cond_row));
 */
#ifndef KAC_UNET_H
#define KAC_UNET_H

#include "model/source.h"
#include "tensor/ops.h"

enum { KAC_UNET_MAX_BLOCKS = 8, KAC_UNET_MAX_LAYERS = 8, KAC_UNET_MAX_BATCH = 1024 };

typedef enum kac_unet_block_type {
    KAC_BLOCK_PLAIN,
    KAC_BLOCK_CROSS_ATTN,
    KAC_BLOCK_ATTN,
    KAC_BLOCK_NONE
} kac_unet_block_type;

/* What class_labels are, and how they become a row that is added to the time embedding. */
typedef enum kac_unet_class_embed {
    KAC_CLASS_EMBED_NONE,
    KAC_CLASS_EMBED_TABLE,      /* a number, looked up */
    KAC_CLASS_EMBED_TIMESTEP,   /* a number, embedded as timesteps are */
    KAC_CLASS_EMBED_IDENTITY,   /* the row itself */
    KAC_CLASS_EMBED_PROJECTION, /* a row through two linear layers */
    KAC_CLASS_EMBED_SIMPLE      /* a row through one linear layer */
} kac_unet_class_embed;

/* What else is added to the time embedding (addition_embed_type). */
typedef enum kac_unet_addition {
    KAC_ADDITION_NONE,
    KAC_ADDITION_TEXT,     /* the prompt's tokens, pooled by attention */
    KAC_ADDITION_TEXT_TIME /* the prompt's pooled embedding and sizes: SDXL */
} kac_unet_addition;

/* The keys of config.json that matter, defaults of the class filled in, scalars spread over the blocks. Up-block lists
 * are in the order of up_blocks. */
typedef struct kac_unet_config {
    bool conditional; /* UNet2DConditionModel */
    int64_t in_channels, out_channels;
    int64_t sample_size[2]; /* height, width; 0: not said */
    bool center_input, flip_sin_to_cos;
    double freq_shift;
    int n_blocks;
    kac_unet_block_type down[KAC_UNET_MAX_BLOCKS], mid, up[KAC_UNET_MAX_BLOCKS];
    int64_t channels[KAC_UNET_MAX_BLOCKS];
    int64_t layers[KAC_UNET_MAX_BLOCKS]; /* resnets per down block; its up block has one more */
    bool resnet_down[KAC_UNET_MAX_BLOCKS], resnet_up[KAC_UNET_MAX_BLOCKS]; /* ResnetDown/UpsampleBlock2D */
    int64_t depth_down[KAC_UNET_MAX_BLOCKS][KAC_UNET_MAX_LAYERS + 1], depth_mid,
        depth_up[KAC_UNET_MAX_BLOCKS][KAC_UNET_MAX_LAYERS + 1]; /* transformer layers of each attention */
    int64_t heads[KAC_UNET_MAX_BLOCKS]; /* the key attention_head_dim holds the NUMBER of heads here */
    int64_t head_dim_down[KAC_UNET_MAX_BLOCKS], head_dim_up[KAC_UNET_MAX_BLOCKS],
        head_dim_mid; /* of Attn blocks: a true head size */
    int64_t cross_dim[KAC_UNET_MAX_BLOCKS];
    bool only_cross[KAC_UNET_MAX_BLOCKS];
    int64_t down_pad;
    double mid_scale;
    kac_act act, head_act;            /* head_act: inside the time MLP and before conv_out */
    kac_act time_mlp_post, time_post; /* NONE when absent: after the MLP, on the finished embedding */
    int64_t groups, mid_attn_groups;
    double eps;
    bool linear_projection, scale_shift, resnet_samplers_down, resnet_samplers_up;
    double resnet_out_scale; /* of ResnetDown/UpsampleBlock2D */
    bool skip_time_act;      /* the same: the time embedding is not activated before it is projected */
    int64_t conv_in_kernel, conv_out_kernel;
    bool fourier, divide_by_time; /* random frequencies; the output over the timestep (UNet2DModel with them) */
    int64_t wave_dim, time_dim;   /* sinusoids, time embedding */
    int64_t time_cond_dim;        /* width of timestep_cond; 0: none */
    kac_unet_class_embed class_embed;
    bool class_concat; /* beside the time embedding instead of added to it */
    int64_t n_classes, class_dim;
    kac_unet_addition addition;
    int64_t addition_dim, addition_time_dim, addition_heads; /* pooled and sizes together; one size */
    int64_t text_dim; /* width of the tokens when they are projected to cross_dim first; 0: they are not */
} kac_unet_config;

typedef struct kac_unet kac_unet;
typedef struct kac_unet_cond kac_unet_cond;

/* dir holds config.json and the weights; weights go to c->model, the structure itself to the heap (free it with
 * kac_unet_free). KAC_E_IO for missing files, KAC_E_FORMAT for wrong types, KAC_E_UNSUPPORTED naming key and value,
 * KAC_E_SHAPE naming the tensor. */
kac_status kac_unet_load(kac_unet **out, kac_ctx *c, const char *dir);
/* The same from any source. */
kac_status kac_unet_load_from(kac_unet **out, kac_ctx *c, const kac_source *source);
void kac_unet_free(kac_unet *u); /* NULL allowed */
const kac_unet_config *kac_unet_config_of(const kac_unet *u);
/* dir/config.json alone: what `info` and `--plan` read before any weight. */
kac_status kac_unet_config_load(kac_unet_config *cfg, const char *dir);
kac_status kac_unet_config_read(kac_unet_config *cfg, const kac_json *config);

/* What a network reads beside the states and the timestep, for P prompts; the reference's names in brackets. Tensors
 * are f32 or c->dtype; what a network does not have is ignored. */
typedef struct kac_unet_inputs {
    kac_tensor tokens;      /* [P, S, D] the prompts' hidden states [encoder_hidden_states] */
    int64_t n;              /* P when there are no tokens */
    kac_tensor pooled;      /* [P, E] [text_embeds] */
    const double *time_ids; /* P × n_time_ids [time_ids]: height and width, crop, size or score */
    int n_time_ids;
    kac_tensor timestep_cond; /* [P, time_cond_dim] [timestep_cond]; none: nothing is added */
    const double *labels;     /* P [class_labels] of TABLE and TIMESTEP */
    kac_tensor label_rows;    /* [P, class_dim] [class_labels] of the others */
} kac_unet_inputs;

/* Everything that does not change over the steps, into c->run: keys and values of every cross-attention layer, rows that
 * are added to the time embedding. Once per prompt, not per step or particle. A network with neither needs none (pass
 * NULL as cond). The structure is on the heap: kac_unet_cond_free. KAC_E_USAGE for a missing input, KAC_E_SHAPE. */
kac_status kac_unet_condition(kac_unet_cond **out, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in);
void kac_unet_cond_free(kac_unet_cond *cond);           /* NULL allowed; the tensors stay in c->run */
int64_t kac_unet_cond_count(const kac_unet_cond *cond); /* P */

/* The sinusoids by which distilled networks are told the guidance scale, for timestep_cond: out [n, dim] c->dtype of w,
 * which is the scale − 1. Source: diffusers get_guidance_scale_embedding. */
kac_status kac_unet_guidance(kac_tensor *out, const kac_unet *u, kac_ctx *c, const double *w, int n);

/* out [N, h, w, out_channels] f32 ({0}: taken from c->scratch) = the network's prediction.
 *   sample    [N, h, w, in_channels] f32 or c->dtype; any h, w ≥ 1 (upsampling follows the sizes of the skips)
 *   timestep  N values on the host, which may differ; one time embedding is computed per distinct value (and prompt,
 *             where the prompt adds to it)
 *   cond_row  N rows of cond (which prompt); NULL: row n (N = P) or 0 (P = 1)
 * Allocates nothing outside c->scratch, which is as before on return (apart from `out`). A row's result does not depend
 * on N. KAC_E_SHAPE for channels, N > KAC_UNET_MAX_BATCH, or a cond_row outside. */
kac_status kac_unet_forward(kac_tensor *out, const kac_unet *u, kac_ctx *c, kac_tensor sample, const double *timestep,
                            const kac_unet_cond *cond, const int *cond_row);

#endif
