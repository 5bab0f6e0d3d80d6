/* oneDNN's descriptors: the one place where its API generations 2.x and 3.x differ. Empty when built without oneDNN. */
#ifndef KAC_ONEDNN_DESC_H
#define KAC_ONEDNN_DESC_H
#ifdef KAC_ONEDNN

#include "base/base.h"
#include <oneapi/dnnl/dnnl.h>

/* Names of calls as oneDNN spells them, also through the macros of onednn_desc.c. */
#define DNNL_NAME_(name) #name
#define DNNL_NAME(name) DNNL_NAME_(name)
#define DNNL_TRY(name, ...)                                                                                            \
    do {                                                                                                               \
        const dnnl_status_t dnnl_status_ = name(__VA_ARGS__);                                                          \
        if (dnnl_status_ != dnnl_success)                                                                              \
            return KAC_FAIL(KAC_E_DEVICE, "oneDNN: " DNNL_NAME(name) " failed with status %d; use --backend cpu",      \
                            (int)dnnl_status_);                                                                        \
    } while (0)

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t kac_onednn_desc;
#else
typedef const dnnl_memory_desc_t *kac_onednn_desc;
#endif

/* What one primitive is made for: one image. All members of one type, compared as bytes. linear: h rows, w = 1. */
typedef struct kac_onednn_key {
    int64_t conv, bias, bf16, h, w, ho, wo, stride, pad[4];
} kac_onednn_key;

typedef struct kac_onednn_shape {
    int64_t n_out, n_in, kh, kw;
} kac_onednn_shape;

/* For f32 or bf16 x and weights, f32 sums: weights in whatever layout oneDNN likes, its scratchpad ours. Caller: destroy. */
kac_status kac_onednn_find_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const kac_onednn_key *k,
                                const kac_onednn_shape *shape);
/* `data` [n_out, n_in, kh, kw] as the weight of a convolution, or as the [n_in, n_out] of a product. Caller: destroy. */
kac_status kac_onednn_plain(dnnl_memory_t *out, dnnl_engine_t engine, const kac_onednn_shape *s, bool bf16, bool conv,
                            void *data);

#endif
#endif
