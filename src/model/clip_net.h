/* The modules of CLIP as clip_load.c reads and clip.c runs them. */
#ifndef KAC_CLIP_NET_H
#define KAC_CLIP_NET_H

#include "model/clip.h"
#include "nn/encoder.h"

typedef struct kac_clip_tower {
    kac_clip_tower_config cfg;
    kac_path path;
    kac_nn_encoder_layer *layer; /* cfg.layers, on the heap */
} kac_clip_tower;

struct kac_clip {
    kac_clip_config cfg;
    kac_clip_tower text, vision;
    kac_tensor token_table, position_table; /* [vocabulary and what was added to it, D], [tokens, D] of c->dtype */
    kac_nn_norm final_norm;
    kac_nn_patches patches;
    kac_nn_norm pre_norm, post_norm;
    kac_nn_linear text_projection, visual_projection;
};

#endif
