#include "nn/blocks.h"
#include "nn/scope.h"
#include "tensor/tape.h"

kac_status kac_nn_resnet_load(const kac_loader *l, kac_nn_resnet *m, kac_path path, kac_nn_resnet_opt o) {
    m->path = path;
    m->o = o;
    KAC_TRY(kac_nn_group_norm_load(l, &m->norm1, kac_path_of("%s.norm1", path.s).s, o.n_in, o.groups, o.eps));
    KAC_TRY(kac_nn_conv_load(l, &m->conv1, kac_path_of("%s.conv1", path.s).s, o.n_in, o.n_out, 3, 1, 1, true));
    if (o.n_time > 0)
        KAC_TRY(kac_nn_linear_load(l, &m->time, kac_path_of("%s.time_emb_proj", path.s).s, o.n_time,
                                   o.scale_shift ? 2 * o.n_out : o.n_out, true));
    KAC_TRY(kac_nn_group_norm_load(l, &m->norm2, kac_path_of("%s.norm2", path.s).s, o.n_out, o.groups, o.eps));
    KAC_TRY(kac_nn_conv_load(l, &m->conv2, kac_path_of("%s.conv2", path.s).s, o.n_out, o.n_out, 3, 1, 1, true));
    if (o.n_in != o.n_out)
        KAC_TRY(kac_nn_linear_load(l, &m->shortcut, kac_path_of("%s.conv_shortcut", path.s).s, o.n_in, o.n_out, true));
    return KAC_OK;
}

static kac_status resample(kac_ctx *c, kac_tensor *out, kac_tensor x, int direction) {
    return direction > 0 ? kac_upsample_nearest(c, out, x, 2 * x.shape[1], 2 * x.shape[2]) : kac_avg_pool2(c, out, x);
}

/* h = act(norm2(h + time)), with the time embedding as a bias of conv1 or as scale and shift of norm2. */
static kac_status middle(kac_ctx *c, kac_tensor *h, const kac_nn_resnet *m, kac_tensor x, kac_nn_time time) {
    const kac_nn_resnet_opt *o = &m->o;
    kac_conv_opt conv = {0};
    kac_tensor t = KAC_NONE;
    if (time.act.data != NULL)
        KAC_TRY(kac_nn_linear_run(c, &t, &m->time, o->bare_time ? time.bare : time.act, KAC_ACT_NONE, KAC_NONE));
    if (!o->scale_shift) {
        conv.row_bias = t;
        conv.row_index = time.row;
    }
    kac_tensor h1 = KAC_NONE;
    KAC_TRY(kac_nn_conv_apply(c, &h1, &m->conv1, x, conv));
    *h = kac_scope_reuse(c, h1);
    if (!o->scale_shift) return kac_nn_norm_run(c, h, &m->norm2, h1, o->act);
    KAC_TRY(kac_nn_norm_run(c, h, &m->norm2, h1, KAC_ACT_NONE));
    kac_tensor h2 = kac_scope_reuse(c, *h), h3 = h2;
    KAC_TRY(kac_modulate(c, &h2, *h, kac_tensor_slice(t, 1, 0, o->n_out), kac_tensor_slice(t, 1, o->n_out, o->n_out),
                         time.row));
    KAC_TRY(kac_activate(c, &h3, h2, o->act));
    *h = h3;
    return KAC_OK;
}

typedef struct resnet_call {
    const kac_nn_resnet *m;
    kac_tensor out, x, more; /* more: none, or further channels of the input */
    kac_nn_time time;
} resnet_call;

static kac_status run_call(kac_ctx *c, const void *args) {
    const resnet_call *call = args;
    const kac_nn_resnet *m = call->m;
    const kac_nn_resnet_opt *o = &m->o;
    const size_t mark = kac_scope_open(c);
    kac_tensor x = call->x, both = KAC_NONE;
    if (call->more.data != NULL) {
        KAC_TRY(kac_concat(c, &both, x, call->more, 3));
        x = both;
    }
    kac_tensor h = KAC_NONE, h2 = KAC_NONE, skip = x, out = call->out;
    kac_tensor sum = o->out_scale != 1 ? kac_scope_reuse(c, out) : out;
    KAC_TRY(kac_nn_norm_run(c, &h, &m->norm1, x, o->act));
    if (o->resample != 0) {
        kac_tensor moved = KAC_NONE;
        KAC_TRY(resample(c, &moved, h, o->resample));
        h = moved;
        skip = KAC_NONE;
        KAC_TRY(resample(c, &skip, x, o->resample));
    }
    KAC_TRY(middle(c, &h2, m, h, call->time));
    if (o->n_in != o->n_out) {
        kac_tensor projected = kac_scope_reuse(c, out);
        KAC_TRY(kac_nn_linear_run(c, &projected, &m->shortcut, skip, KAC_ACT_NONE, KAC_NONE));
        skip = projected;
    }
    KAC_TRY(kac_nn_conv_run(c, &sum, &m->conv2, h2, KAC_ACT_NONE, skip));
    if (o->out_scale != 1) KAC_TRY(kac_lincomb(c, &out, 1, &sum, &(double){1 / o->out_scale}, 1));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_resnet_join(kac_ctx *c, kac_tensor *out, const kac_nn_resnet *m, kac_tensor x, kac_tensor more,
                              kac_nn_time time) {
    const int resample = m->o.resample;
    const int64_t height = resample > 0 ? 2 * x.shape[1] : resample < 0 ? x.shape[1] / 2 : x.shape[1];
    const int64_t width = resample > 0 ? 2 * x.shape[2] : resample < 0 ? x.shape[2] / 2 : x.shape[2];
    KAC_TRY(kac_nn_out(c, out, x.shape[0], height, width, m->o.n_out));
    const resnet_call call = {m, *out, x, more, time};
    KAC_TRY(kac_segment(c, run_call, &call, sizeof call, *out));
    return kac_tap(c, *out, "%s", m->path.s);
}

kac_status kac_nn_resnet_run(kac_ctx *c, kac_tensor *out, const kac_nn_resnet *m, kac_tensor x, kac_nn_time time) {
    return kac_nn_resnet_join(c, out, m, x, KAC_NONE, time);
}
