/* The modules of a UNet as unet_load.c reads and unet.c runs them. */
#ifndef KAC_UNET_NET_H
#define KAC_UNET_NET_H

#include "model/unet.h"
#include "nn/blocks.h"

typedef struct kac_unet_block {
    kac_path path;
    kac_unet_block_type type;
    int n_resnets, n_attentions;
    kac_nn_resnet resnet[KAC_UNET_MAX_LAYERS + 1];
    kac_nn_transformer transformer[KAC_UNET_MAX_LAYERS + 1]; /* of CROSS_ATTN blocks */
    kac_nn_attention attention[KAC_UNET_MAX_LAYERS + 1];     /* of ATTN blocks */
    bool has_sampler, sampler_is_resnet;
    kac_path sampler_path;
    kac_nn_conv sampler;
    kac_nn_resnet sampler_resnet;
    int64_t n_out;
} kac_unet_block;

struct kac_unet {
    kac_unet_config cfg;
    kac_tensor center_scale, center_shift; /* 2 and −1 per channel, when center_input */
    kac_nn_linear time1, time2;
    kac_nn_conv conv_in, conv_out;
    kac_nn_norm norm_out;
    kac_unet_block down[KAC_UNET_MAX_BLOCKS], mid, up[KAC_UNET_MAX_BLOCKS];
    int n_kv; /* cross-attention layers in all */
};

struct kac_unet_cond {
    int64_t n; /* prompts */
    int n_kv;
    kac_nn_kv kv[]; /* n_kv */
};

#endif
