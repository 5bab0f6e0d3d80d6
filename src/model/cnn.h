/* A small convolutional network that a config.json lists layer by layer: classifiers as rewards.
 *
 *     {"model_type": "kac-cnn",
 *      "input": {"channels": 1, "size": 32, "filter": "bilinear", "mean": 0, "std": 1},
 *      "layers": [{"conv": "features.0", "act": "relu", "padding": 2}, {"max_pool": 2}, {"linear": "fc.0", "act": "relu"}, {"linear": "fc.2"}],
 *      "labels": ["zero", "one", …]}
 *
 * conv: the weight's name without ".weight" (square kernel; "stride" 1 or 2, "padding", both 1 and 0 when missing); max_pool, avg_pool: 2;
 * linear: before the first one the picture is flattened as PyTorch does (channels first). act: relu, silu, gelu, mish or missing. Biases are used
 * where the file has them. Batch norms must be folded into the convolutions. Pictures with one channel are greys (luma). */
#ifndef KAC_CNN_H
#define KAC_CNN_H

#include "model/source.h"
#include "nn/layers.h"

enum { KAC_CNN_MAX_LAYERS = 64 };

typedef struct kac_cnn_layer {
    enum { KAC_CNN_CONV, KAC_CNN_MAX_POOL, KAC_CNN_AVG_POOL, KAC_CNN_LINEAR } kind;
    kac_act act;
    kac_nn_conv conv;
    kac_nn_linear linear;
    kac_path path;
} kac_cnn_layer;

typedef struct kac_cnn {
    int64_t channels, size, n_out;
    int n_layers;
    kac_cnn_layer layer[KAC_CNN_MAX_LAYERS];
} kac_cnn;

/* KAC_E_FORMAT, KAC_E_UNSUPPORTED, KAC_E_SHAPE naming the layer that does not fit what is before it. */
kac_status kac_cnn_load(kac_cnn *m, kac_ctx *c, const kac_source *source);

/* out [N, n_out] f32 in c->scratch: the last layer's numbers. pixels [N, size, size, channels] f32. */
kac_status kac_cnn_run(kac_tensor *out, const kac_cnn *m, kac_ctx *c, kac_tensor pixels);

#endif
