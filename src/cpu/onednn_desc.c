#include "cpu/onednn_desc.h"

#ifdef KAC_ONEDNN

#include <string.h>

typedef dnnl_memory_desc_t desc; /* 2.x: a value; 3.x: a handle that we free */
#if DNNL_VERSION_MAJOR >= 3
#define REF(d) (d)
#define desc_by_tag dnnl_memory_desc_create_with_tag
#define desc_by_strides dnnl_memory_desc_create_with_strides
static void desc_free(desc *d) {
    if (*d != NULL) dnnl_memory_desc_destroy(*d);
}
#else
#define REF(d) (&(d))
#define desc_by_tag dnnl_memory_desc_init_by_tag
#define desc_by_strides dnnl_memory_desc_init_by_strides
static void desc_free(desc *d) {
    (void)d;
}
#endif

typedef struct product_descs {
    desc x, w, bias, out;
} product_descs;

static kac_status describe_linear(product_descs *d, const kac_onednn_key *k, const kac_onednn_shape *s,
                                  dnnl_data_type_t t) {
    const dnnl_dims_t x = {k->h, s->n_in}, w = {s->n_in, s->n_out}, bias = {1, s->n_out}, out = {k->h, s->n_out};
    DNNL_TRY(desc_by_tag, &d->x, 2, x, t, dnnl_ab);
    DNNL_TRY(desc_by_tag, &d->w, 2, w, t, dnnl_format_tag_any);
    DNNL_TRY(desc_by_tag, &d->bias, 2, bias, dnnl_f32, dnnl_ab);
    DNNL_TRY(desc_by_tag, &d->out, 2, out, dnnl_f32, dnnl_ab);
    return KAC_OK;
}

static kac_status describe_conv(product_descs *d, const kac_onednn_key *k, const kac_onednn_shape *s,
                                dnnl_data_type_t t) {
    const dnnl_dims_t x = {1, s->n_in, k->h, k->w}, w = {s->n_out, s->n_in, s->kh, s->kw}, bias = {s->n_out},
                      out = {1, s->n_out, k->ho, k->wo};
    DNNL_TRY(desc_by_tag, &d->x, 4, x, t, dnnl_nhwc);
    DNNL_TRY(desc_by_tag, &d->w, 4, w, t, dnnl_format_tag_any);
    DNNL_TRY(desc_by_tag, &d->bias, 1, bias, dnnl_f32, dnnl_a);
    DNNL_TRY(desc_by_tag, &d->out, 4, out, dnnl_f32, dnnl_nhwc);
    return KAC_OK;
}

#if DNNL_VERSION_MAJOR >= 3
static kac_status create_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const product_descs *d,
                              const kac_onednn_key *k, dnnl_primitive_attr_t attr) {
    const kac_onednn_desc bias = k->bias ? d->bias : NULL;
    const dnnl_dims_t strides = {k->stride, k->stride}, dense = {0, 0}, before = {k->pad[0], k->pad[1]},
                      after = {k->pad[2], k->pad[3]};
    if (k->conv)
        DNNL_TRY(dnnl_convolution_forward_primitive_desc_create, out, engine, dnnl_forward_inference,
                 dnnl_convolution_direct, d->x, d->w, bias, d->out, strides, dense, before, after, attr);
    else
        DNNL_TRY(dnnl_matmul_primitive_desc_create, out, engine, d->x, d->w, bias, d->out, attr);
    return KAC_OK;
}
#else
static kac_status create_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const product_descs *d,
                              const kac_onednn_key *k, dnnl_primitive_attr_t attr) {
    const kac_onednn_desc bias = k->bias ? &d->bias : NULL;
    const dnnl_dims_t strides = {k->stride, k->stride}, before = {k->pad[0], k->pad[1]}, after = {k->pad[2], k->pad[3]};
    dnnl_convolution_desc_t conv;
    dnnl_matmul_desc_t matmul;
    if (k->conv)
        DNNL_TRY(dnnl_convolution_forward_desc_init, &conv, dnnl_forward_inference, dnnl_convolution_direct, &d->x,
                 &d->w, bias, &d->out, strides, before, after);
    else
        DNNL_TRY(dnnl_matmul_desc_init, &matmul, &d->x, &d->w, bias, &d->out);
    DNNL_TRY(dnnl_primitive_desc_create, out, k->conv ? (const void *)&conv : (const void *)&matmul, attr, engine,
             NULL);
    return KAC_OK;
}
#endif

kac_status kac_onednn_find_desc(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const kac_onednn_key *k,
                                const kac_onednn_shape *shape) {
    product_descs d;
    dnnl_primitive_attr_t attr;
    memset(&d, 0, sizeof d);
    DNNL_TRY(dnnl_primitive_attr_create, &attr);
    const dnnl_data_type_t type = k->bf16 ? dnnl_bf16 : dnnl_f32;
    kac_status s = k->conv ? describe_conv(&d, k, shape, type) : describe_linear(&d, k, shape, type);
    if (s == KAC_OK && dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) != dnnl_success)
        s = KAC_FAIL(KAC_E_DEVICE, "oneDNN: dnnl_primitive_attr_set_scratchpad_mode failed; use --backend cpu");
    if (s == KAC_OK) s = create_desc(out, engine, &d, k, attr);
    desc_free(&d.x);
    desc_free(&d.w);
    desc_free(&d.bias);
    desc_free(&d.out);
    dnnl_primitive_attr_destroy(attr);
    return s;
}

kac_status kac_onednn_plain(dnnl_memory_t *out, dnnl_engine_t engine, const kac_onednn_shape *s, bool bf16, bool conv,
                            void *data) {
    const dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
    const dnnl_dims_t oihw = {s->n_out, s->n_in, s->kh, s->kw}, io = {s->n_in, s->n_out}, turned = {1, s->n_in};
    desc d;
    if (conv)
        DNNL_TRY(desc_by_tag, &d, 4, oihw, type, dnnl_oihw);
    else
        DNNL_TRY(desc_by_strides, &d, 2, io, type, turned);
    const dnnl_status_t created = dnnl_memory_create(out, REF(d), engine, data);
    desc_free(&d);
    if (created == dnnl_success) return KAC_OK;
    return KAC_FAIL(KAC_E_DEVICE, "oneDNN: dnnl_memory_create failed with status %d; use --backend cpu", (int)created);
}

#else

typedef int kac_onednn_absent; /* C wants a declaration */

#endif
