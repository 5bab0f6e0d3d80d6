#include "model/jpeg_size.h"
#include "model/config.h"
#include "nn/scope.h"

enum { BLOCK = 8, UNIT = 16, FREQUENCIES = 64, PATCH = 3 * BLOCK * BLOCK, SPREAD = 3 * FREQUENCIES, HIDDEN = 32 };

/* ---- loading ---- */

static kac_status load_half(kac_jpeg_half *m, const kac_loader *l, const char *name) {
    KAC_TRY(kac_nn_linear_load(l, &m->spread, kac_path_of("%s.spread", name).s, 2 * FREQUENCIES, SPREAD, true));
    KAC_TRY(kac_nn_linear_load(l, &m->mix, kac_path_of("%s.mix", name).s, SPREAD, HIDDEN, true));
    return kac_nn_linear_load(l, &m->out, kac_path_of("%s.out", name).s, HIDDEN, 1, true);
}

kac_status kac_jpeg_size_load(kac_jpeg_size_net *m, kac_ctx *c, const kac_source *source) {
    static const char *const planes[KAC_JPEG_PLANES] = {"dct.y", "dct.b", "dct.r"};
    int64_t quality = 0;
    *m = (kac_jpeg_size_net){0};
    if (source->config.root != NULL)
        KAC_TRY(kac_config_int(&source->config, source->config.root, "quality", &quality, 0, 100));
    if (quality != 95)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: config.json must say \"quality\": 95, which is what rewards measure",
                        source->path);
    const kac_loader l = kac_source_loader(source, c);
    for (int i = 0; i < KAC_JPEG_PLANES; i++)
        KAC_TRY(kac_nn_linear_load(&l, &m->dct[i], planes[i], PATCH, FREQUENCIES, i == 0));
    kac_tensor sign;
    KAC_TRY(kac_loader_get(&l, &sign, "sign.weight", 4, (int64_t[]){2 * FREQUENCIES, FREQUENCIES, 1, 2}));
    KAC_TRY(kac_weight_pack(c, &m->sign, sign, 1));
    KAC_TRY(load_half(&m->half[0], &l, "luma"));
    return load_half(&m->half[1], &l, "chroma");
}

/* ---- running ---- */

/* *x with `axis` filled up to a multiple of UNIT by repeating its last entry. */
static kac_status fill_up(kac_ctx *c, kac_tensor *x, int axis) {
    const int64_t n = x->shape[axis], more = (UNIT - n % UNIT) % UNIT;
    if (more == 0) return KAC_OK;
    kac_tensor out = *x;
    out.shape[axis] += more;
    KAC_TRY(kac_take(&out, &c->scratch, KAC_F32, 4, out.shape));
    kac_tensor inner = kac_tensor_slice(out, axis, 0, n);
    KAC_TRY(kac_copy(c, &inner, *x));
    for (int64_t i = n; i < n + more; i++) {
        kac_tensor line = kac_tensor_slice(out, axis, i, 1);
        KAC_TRY(kac_copy(c, &line, kac_tensor_slice(*x, axis, n - 1, 1)));
    }
    *x = out;
    return KAC_OK;
}

/* Pictures [n, h · 8, w · 8, 3] as rows [n, h, w, 192] of c->dtype. */
static kac_status patches(kac_ctx *c, kac_tensor *rows, kac_tensor x) {
    const int64_t n = x.shape[0], h = x.shape[1] / BLOCK, w = x.shape[2] / BLOCK;
    kac_tensor out;
    KAC_TRY(kac_take_make(&out, &c->scratch, c->dtype, n, h, w, BLOCK, BLOCK, 3));
    x = kac_tensor_split(kac_tensor_split(x, 2, w), 1, h); /* [n, h, 8, w, 8, 3] */
    KAC_TRY(kac_copy(c, &out, kac_tensor_transpose(x, 2, 3)));
    *rows = kac_tensor_reshape(out, n, h, w, PATCH);
    return KAC_OK;
}

static kac_status run_plane(kac_ctx *c, kac_tensor *bits, const kac_jpeg_size_net *m, int plane, kac_tensor rows) {
    const kac_jpeg_half *half = &m->half[plane > 0];
    kac_tensor coefficients = KAC_NONE, size = KAC_NONE, spread = KAC_NONE, mixed = KAC_NONE;
    KAC_TRY(kac_take_make(bits, &c->scratch, c->dtype, rows.shape[0], rows.shape[1], rows.shape[2], 1));
    const size_t mark = kac_scope_open(c);
    KAC_TRY(kac_nn_linear_run(c, &coefficients, &m->dct[plane], rows, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_conv2d(c, &size, coefficients, &m->sign,
                       (kac_conv_opt){.stride = 1, .pad = {0, 1, 0, 0}, .act = KAC_ACT_GELU}));
    KAC_TRY(kac_nn_linear_run(c, &spread, &half->spread, size, KAC_ACT_TANH, KAC_NONE));
    KAC_TRY(kac_nn_linear_run(c, &mixed, &half->mix, spread, KAC_ACT_SILU, KAC_NONE));
    KAC_TRY(kac_nn_linear_run(c, bits, &half->out, mixed, KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_jpeg_size_bits(kac_tensor bits[KAC_JPEG_PLANES], const kac_jpeg_size_net *m, kac_ctx *c,
                              kac_tensor images) {
    kac_tensor rows, halved = KAC_NONE;
    for (int axis = 1; axis < 3; axis++) KAC_TRY(fill_up(c, &images, axis));
    KAC_TRY(patches(c, &rows, images));
    KAC_TRY(run_plane(c, &bits[0], m, 0, rows));
    KAC_TRY(kac_avg_pool2(c, &halved, images));
    KAC_TRY(patches(c, &rows, halved));
    for (int i = 1; i < KAC_JPEG_PLANES; i++) KAC_TRY(run_plane(c, &bits[i], m, i, rows));
    return KAC_OK;
}
