#include "model/cnn.h"
#include "model/config.h"
#include "nn/scope.h"
#include <string.h>

/* What flows between two layers. */
typedef struct flow {
    int64_t size, channels; /* size 0: flattened */
} flow;

/* ---- loading ---- */

static kac_status load_conv(kac_cnn_layer *m, const kac_loader *l, const kac_json *j, const cJSON *item, flow *f) {
    int64_t stride = 1, pad = 0;
    KAC_TRY(kac_config_int(j, item, "stride", &stride, 1, 2));
    KAC_TRY(kac_config_int(j, item, "padding", &pad, 0, 64));
    const kac_weights_entry *w = kac_weights_entry_of(l->weights, kac_path_of("%s.weight", m->path.s).s);
    const int64_t kernel = w != NULL && w->rank == 4 ? w->shape[2] : 0;
    if (f->size == 0 || kernel < 1 || kernel > 64 || kernel > f->size + 2 * pad || w->shape[0] < 1 ||
        w->shape[0] > 1 << 16)
        return KAC_FAIL(KAC_E_SHAPE, "%s: convolution %s does not fit a picture of %lld (kernel %lld)", l->path,
                        m->path.s, (long long)f->size, (long long)kernel);
    const bool bias = kac_loader_has(l, kac_path_of("%s.bias", m->path.s).s);
    KAC_TRY(
        kac_nn_conv_load(l, &m->conv, m->path.s, f->channels, w->shape[0], (int)kernel, (int)stride, (int)pad, bias));
    for (int i = 0; i < 4; i++) m->conv.pad[i] = (int)pad; /* also with stride 2: nothing one-sided */
    f->channels = w->shape[0];
    f->size = (f->size + 2 * pad - kernel) / stride + 1;
    return KAC_OK;
}

static kac_status load_linear(kac_cnn_layer *m, const kac_loader *l, flow *f) {
    const kac_weights_entry *w = kac_weights_entry_of(l->weights, kac_path_of("%s.weight", m->path.s).s);
    const int64_t n_out = w != NULL && w->rank == 2 && w->shape[0] > 0 ? w->shape[0] : 1,
                  n_in = f->size > 0 ? f->size * f->size * f->channels : f->channels;
    KAC_TRY(kac_nn_linear_load(l, &m->linear, m->path.s, n_in, n_out,
                               kac_loader_has(l, kac_path_of("%s.bias", m->path.s).s)));
    *f = (flow){.channels = n_out};
    return KAC_OK;
}

static kac_status load_layer(kac_cnn_layer *m, const kac_loader *l, const kac_json *j, const cJSON *item, flow *f) {
    const char *conv = NULL, *linear = NULL;
    int64_t max_pool = 0, avg_pool = 0;
    KAC_TRY(kac_json_text(j, item, "conv", &conv));
    KAC_TRY(kac_json_text(j, item, "linear", &linear));
    KAC_TRY(kac_config_int(j, item, "max_pool", &max_pool, 0, 2));
    KAC_TRY(kac_config_int(j, item, "avg_pool", &avg_pool, 0, 2));
    KAC_TRY(kac_config_act(j, item, "act", &m->act, true));
    if (max_pool == 1 || avg_pool == 1)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: max_pool and avg_pool must be 2", j->name);
    if ((conv != NULL) + (linear != NULL) + (max_pool > 0) + (avg_pool > 0) != 1)
        return KAC_FAIL(KAC_E_FORMAT, "%s: each of \"layers\" is one of conv, linear, max_pool, avg_pool", j->name);
    const char *name = conv != NULL ? conv : linear != NULL ? linear : "";
    if (strlen(name) > KAC_PATH_MAX - 16)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the name %.40s… is too long", j->name, name);
    m->path = kac_path_of("%s", name);
    m->kind = conv != NULL     ? KAC_CNN_CONV
              : linear != NULL ? KAC_CNN_LINEAR
              : max_pool > 0   ? KAC_CNN_MAX_POOL
                               : KAC_CNN_AVG_POOL;
    if (conv != NULL) return load_conv(m, l, j, item, f);
    if (linear != NULL) return load_linear(m, l, f);
    if (f->size < 2) return KAC_FAIL(KAC_E_SHAPE, "%s: nothing is left to pool", j->name);
    f->size /= 2;
    return KAC_OK;
}

kac_status kac_cnn_load(kac_cnn *m, kac_ctx *c, const kac_source *source) {
    const kac_json *j = &source->config;
    const kac_loader l = kac_source_loader(source, c);
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(j->root, "input"),
                *layers = cJSON_GetObjectItemCaseSensitive(j->root, "layers"), *item;
    *m = (kac_cnn){.channels = 3};
    if (!cJSON_IsObject(input) || !cJSON_IsArray(layers))
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"input\" must be an object and \"layers\" a list", j->name);
    KAC_TRY(kac_config_int(j, input, "channels", &m->channels, 1, 3));
    KAC_TRY(kac_config_int(j, input, "size", &m->size, 0, 2048));
    if (m->size == 0 || m->channels == 2)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"input\" needs a \"size\", and \"channels\" 1 or 3", j->name);
    flow f = {m->size, m->channels};
    cJSON_ArrayForEach(item, layers) {
        if (m->n_layers == KAC_CNN_MAX_LAYERS || !cJSON_IsObject(item))
            return KAC_FAIL(KAC_E_FORMAT, "%s: \"layers\" must hold 1 to %d objects", j->name, (int)KAC_CNN_MAX_LAYERS);
        KAC_TRY(load_layer(&m->layer[m->n_layers++], &l, j, item, &f));
    }
    m->n_out = f.channels;
    return m->n_layers > 0 && f.size == 0
               ? KAC_OK
               : KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the last of \"layers\" must be linear", j->name);
}

/* ---- running ---- */

/* out = max(a, b) = a + relu(b − a). */
static kac_status larger(kac_ctx *c, kac_tensor *out, kac_tensor a, kac_tensor b) {
    kac_tensor difference = KAC_NONE, positive = KAC_NONE;
    KAC_TRY(kac_lincomb(c, &difference, 2, (kac_tensor[]){b, a}, (double[]){1, -1}, 1));
    KAC_TRY(kac_activate(c, &positive, difference, KAC_ACT_RELU));
    return kac_add(c, out, a, positive);
}

/* 2×2, stride 2; an odd last row or column is left out. */
static kac_status max_pool(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    const int64_t n = x.shape[0], side = x.shape[1] / 2, channels = x.shape[3];
    kac_tensor part[4], across[2] = {KAC_NONE, KAC_NONE};
    x = kac_tensor_slice(kac_tensor_slice(x, 1, 0, 2 * side), 2, 0, 2 * side);
    x = kac_tensor_split(kac_tensor_split(x, 2, side), 1, side); /* [N, side, 2, side, 2, C] */
    for (int i = 0; i < 4; i++) {
        KAC_TRY(kac_take_make(&part[i], &c->scratch, x.dtype, n, side, 1, side, 1, channels));
        KAC_TRY(kac_copy(c, &part[i], kac_tensor_slice(kac_tensor_slice(x, 2, i / 2, 1), 4, i % 2, 1)));
        part[i] = kac_tensor_reshape(part[i], n, side, side, channels);
    }
    KAC_TRY(larger(c, &across[0], part[0], part[1]));
    KAC_TRY(larger(c, &across[1], part[2], part[3]));
    return larger(c, out, across[0], across[1]);
}

/* [N, H, W, C] as [N, C·H·W]. */
static kac_status flatten(kac_ctx *c, kac_tensor *x) {
    if (x->rank == 2) return KAC_OK;
    const int64_t n = x->shape[0], h = x->shape[1], w = x->shape[2], channels = x->shape[3];
    kac_tensor flat;
    KAC_TRY(kac_take_make(&flat, &c->scratch, x->dtype, n, channels, h, w));
    KAC_TRY(kac_copy(c, &flat, kac_tensor_transpose(kac_tensor_transpose(*x, 2, 3), 1, 2)));
    *x = kac_tensor_reshape(flat, n, channels * h * w);
    return KAC_OK;
}

static kac_status run_layer(kac_ctx *c, const kac_cnn_layer *m, kac_tensor *x) {
    kac_tensor out = KAC_NONE;
    switch (m->kind) {
    case KAC_CNN_CONV:
        KAC_TRY(kac_nn_conv_run(c, &out, &m->conv, *x, m->act, KAC_NONE));
        break;
    case KAC_CNN_MAX_POOL:
        KAC_TRY(max_pool(c, &out, *x));
        break;
    case KAC_CNN_AVG_POOL:
        KAC_TRY(kac_avg_pool2(c, &out, *x));
        break;
    case KAC_CNN_LINEAR:
        KAC_TRY(flatten(c, x));
        KAC_TRY(kac_nn_linear_run(c, &out, &m->linear, *x, m->act, KAC_NONE));
        break;
    }
    *x = out;
    return KAC_OK;
}

kac_status kac_cnn_run(kac_tensor *out, const kac_cnn *m, kac_ctx *c, kac_tensor pixels) {
    if (pixels.rank != 4 || pixels.shape[1] != m->size || pixels.shape[2] != m->size || pixels.shape[3] != m->channels)
        return KAC_FAIL(KAC_E_SHAPE, "this classifier wants pictures of %lldx%lld with %lld channels",
                        (long long)m->size, (long long)m->size, (long long)m->channels);
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, pixels.shape[0], m->n_out));
    const size_t mark = kac_scope_open(c);
    kac_tensor x = pixels;
    KAC_TRY(kac_nn_cast(c, &x));
    for (int i = 0; i < m->n_layers; i++) KAC_TRY(run_layer(c, &m->layer[i], &x));
    KAC_TRY(kac_copy(c, out, x));
    kac_scope_close(c, mark);
    return KAC_OK;
}
