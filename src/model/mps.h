/* The network of the multi-dimensional preference score (Zhang et al. 2024, MPS): CLIP's image tokens attend to those text tokens that matter for
 * a condition, in blocks of cross-attention and self-attention with one key and value for all heads, rotary positions and SwiGLU. */
#ifndef KAC_MPS_H
#define KAC_MPS_H

#include "model/clip.h"
#include "nn/layers.h"

enum { KAC_MPS_MAX = 256 }; /* pictures at once */

typedef struct kac_mps_block {
    kac_nn_norm norm;
    kac_nn_linear q, kv, out, ff_in, ff_out; /* cross-attention */
    kac_nn_norm norm2;
    kac_nn_linear fused, attn_out,
        ff_out2; /* self-attention: q, k, v and both halves of the inner layer in one product */
} kac_mps_block;

typedef struct kac_mps {
    kac_clip *clip;
    int64_t width, heads, head_dim, n_tokens; /* n_tokens of a picture, the class token first */
    kac_mps_block *block;
    int n_blocks;
    kac_tensor cosine[2], sine[2],
        zero; /* of q and k: [1, n_tokens · heads · head_dim] and [1, n_tokens · head_dim] of c->dtype, less 1 */
} kac_mps;

/* CLIP under transformers' names, the rest under "cross_model." ; config.json is the CLIP's. Sizes of the blocks come from the shapes. */
kac_status kac_mps_load(kac_mps *m, kac_ctx *c, kac_source *source);
void kac_mps_free(kac_mps *m);

/* out [N, width] f32 in c->scratch, not normalised: the picture's class token after all blocks. text [S, width] of c->dtype: the text tokens that
 * are looked at, the same for all pictures. */
kac_status kac_mps_features(kac_tensor *out, const kac_mps *m, kac_ctx *c, kac_tensor pixels, kac_tensor text);

#endif
