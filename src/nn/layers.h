/* The smallest modules: linear, convolution, norms, and how their weights are named in checkpoints ("<path>.weight",
 * "<path>.bias"). */
#ifndef KAC_LAYERS_H
#define KAC_LAYERS_H

#include "nn/lora.h"

typedef struct kac_nn_linear {
    kac_weight w;
    kac_nn_low low;  /* LoRA at run time */
    kac_tensor bias; /* none allowed */
} kac_nn_linear;

typedef struct kac_nn_conv {
    kac_weight w;
    kac_nn_low low;
    kac_tensor bias;
    int stride, pad[4]; /* top, left, bottom, right */
} kac_nn_conv;

typedef struct kac_nn_norm {
    kac_tensor gamma, beta;
    int groups; /* 0: layer norm */
    double eps;
} kac_nn_norm;

/* 1×1 convolutions load as linear layers: the same product in NHWC. */
kac_status kac_nn_linear_load(const kac_loader *l, kac_nn_linear *m, const char *path, int64_t n_in, int64_t n_out,
                              bool bias);
/* Layers that read the same input, their rows one below the other (q, k, v): one product instead of three. n_out rows
 * each. */
kac_status kac_nn_linear_load_stack(const kac_loader *l, kac_nn_linear *m, const kac_path *path, int n_path,
                                    int64_t n_in, int64_t n_out, bool bias);
/* Square kernel; pad < 0: (kernel − 1) / 2 on all sides; pad 0 with stride 2: one row and column of zeros at the bottom
 * and right. */
kac_status kac_nn_conv_load(const kac_loader *l, kac_nn_conv *m, const char *path, int64_t n_in, int64_t n_out,
                            int kernel, int stride, int pad, bool bias);
/* A convolution whose stride is its kernel (patches), as a linear layer over [patch, patch, channels]. */
kac_status kac_nn_patch_load(const kac_loader *l, kac_nn_linear *m, const char *path, int64_t n_in, int64_t n_out,
                             int patch);
kac_status kac_nn_group_norm_load(const kac_loader *l, kac_nn_norm *m, const char *path, int64_t n, int64_t groups,
                                  double eps);
kac_status kac_nn_layer_norm_load(const kac_loader *l, kac_nn_norm *m, const char *path, int64_t n, double eps);

kac_status kac_nn_linear_run(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_act act,
                             kac_tensor residual);
/* out = linear(x) + residual. When a tap is set, linear(x) alone is computed first and reported under the name. */
kac_status kac_nn_linear_add(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_tensor residual,
                             const char *format, ...) __attribute__((format(printf, 6, 7)));
kac_status kac_nn_conv_run(kac_ctx *c, kac_tensor *out, const kac_nn_conv *m, kac_tensor x, kac_act act,
                           kac_tensor residual);
kac_status kac_nn_norm_run(kac_ctx *c, kac_tensor *out, const kac_nn_norm *m, kac_tensor x, kac_act act);

/* The same with all options of the op; bias, stride, padding and LoRA are the module's. A convolution with LoRA takes no `act`. */
kac_status kac_nn_linear_apply(kac_ctx *c, kac_tensor *out, const kac_nn_linear *m, kac_tensor x, kac_linear_opt o);
kac_status kac_nn_conv_apply(kac_ctx *c, kac_tensor *out, const kac_nn_conv *m, kac_tensor x, kac_conv_opt o);

#define KAC_NONE ((kac_tensor){0})

/* *x in c->dtype: itself, or a copy in scratch. */
kac_status kac_nn_cast(kac_ctx *c, kac_tensor *x);

/* Taken by the caller's side when *out is none: [N, h, w, C] of c->dtype in scratch. */
kac_status kac_nn_out(kac_ctx *c, kac_tensor *out, int64_t n, int64_t h, int64_t w, int64_t channels);

#endif
