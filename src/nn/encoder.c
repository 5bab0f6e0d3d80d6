#include "nn/encoder.h"
#include "nn/scope.h"
#include "tensor/tape.h"

#include <math.h>

typedef struct layer_call {
    const kac_nn_encoder_layer *m;
    kac_tensor out, h; /* out may be h */
    int64_t heads;
    kac_act act;
    bool causal;
    kac_path name;
} layer_call;

static kac_status run_layer(kac_ctx *c, const void *args) {
    const layer_call *call = args;
    const kac_nn_encoder_layer *m = call->m;
    const kac_tensor h = call->h;
    const size_t mark = kac_scope_open(c);
    const int64_t width = h.shape[2], heads = call->heads;
    kac_tensor x = KAC_NONE, qkv = KAC_NONE, inner = KAC_NONE, part[3];
    KAC_TRY(kac_nn_norm_run(c, &x, &m->norm1, h, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_run(c, &qkv, &m->qkv, x, KAC_ACT_NONE, KAC_NONE));
    for (int i = 0; i < 3; i++) part[i] = kac_tensor_split(kac_tensor_slice(qkv, 2, i * width, width), 2, heads);
    kac_tensor a = kac_scope_reuse(c, kac_tensor_split(x, 2, heads));
    const kac_attention_opt o = {.scale = 1 / sqrt((double)(width / heads)), .causal = call->causal};
    KAC_TRY(kac_attention(c, &a, part[0], part[1], part[2], o));
    a = kac_tensor_reshape(a, h.shape[0], h.shape[1], width);
    kac_tensor sum = kac_scope_reuse(c, call->out), out = call->out;
    KAC_TRY(kac_nn_linear_add(c, &sum, &m->out, a, h, "%s.self_attn", call->name.s));
    x = kac_scope_reuse(c, x);
    KAC_TRY(kac_nn_norm_run(c, &x, &m->norm2, sum, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_run(c, &inner, &m->fc1, x, call->act, KAC_NONE));
    KAC_TRY(kac_nn_linear_add(c, &out, &m->fc2, inner, sum, "%s.mlp", call->name.s));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_encoder_layer_run(kac_ctx *c, const kac_nn_encoder_layer *m, kac_tensor *h, int64_t heads,
                                    kac_act act, bool causal, const char *name) {
    kac_tensor out = kac_scope_reuse(c, *h);
    if (out.data == NULL) KAC_TRY(kac_take(&out, &c->scratch, c->dtype, h->rank, h->shape));
    const layer_call call = {m, out, *h, heads, act, causal, kac_path_of("%s", name)};
    KAC_TRY(kac_segment(c, run_layer, &call, sizeof call, out));
    *h = out;
    return kac_tap(c, *h, "%s", name);
}

/* Class and patch positions are added to constants once: class_row is the whole first token. */
static kac_status load_positions(const kac_loader *l, kac_nn_patches *m, kac_nn_patches_opt o) {
    kac_ctx *c = l->c;
    const int64_t n_patches = m->side * m->side;
    kac_tensor class_token, positions, sum = KAC_NONE;
    const int64_t class_shape[3] = {1, 1, o.width}, position_shape[3] = {1, n_patches + 1, o.width};
    KAC_TRY(kac_loader_get(l, &class_token, o.class_token, o.leading ? 3 : 1, class_shape + (o.leading ? 0 : 2)));
    KAC_TRY(kac_loader_get(l, &positions, o.positions, o.leading ? 3 : 2, position_shape + (o.leading ? 0 : 1)));
    positions = kac_tensor_reshape(positions, n_patches + 1, o.width);
    kac_tensor a, b;
    KAC_TRY(kac_take_make(&a, &c->scratch, KAC_F32, 1, o.width));
    KAC_TRY(kac_take_make(&b, &c->scratch, KAC_F32, 1, o.width));
    KAC_TRY(kac_copy(c, &a, kac_tensor_reshape(class_token, 1, o.width)));
    KAC_TRY(kac_copy(c, &b, kac_tensor_slice(positions, 0, 0, 1)));
    KAC_TRY(kac_lincomb(c, &sum, 2, (kac_tensor[]){a, b}, (double[]){1, 1}, 1));
    KAC_TRY(kac_take_make(&m->class_row, &c->model, c->dtype, 1, o.width));
    KAC_TRY(kac_copy(c, &m->class_row, sum));
    KAC_TRY(kac_take_make(&m->patch_rows, &c->model, c->dtype, n_patches, o.width));
    KAC_TRY(kac_copy(c, &m->patch_rows, kac_tensor_slice(positions, 0, 1, n_patches)));
    m->class_row = kac_tensor_reshape(m->class_row, 1, 1, o.width);
    m->patch_rows = kac_tensor_reshape(m->patch_rows, 1, n_patches, o.width);
    return KAC_OK;
}

kac_status kac_nn_patches_load(const kac_loader *l, kac_nn_patches *m, kac_nn_patches_opt o) {
    *m = (kac_nn_patches){.patch = o.patch, .side = o.image_size / o.patch, .channels = o.channels};
    KAC_TRY(kac_nn_patch_load(l, &m->proj, o.proj, o.channels, o.width, (int)o.patch));
    if (o.bias) KAC_TRY(kac_loader_vector(l, &m->proj.bias, kac_path_of("%s.bias", o.proj).s, o.width));
    const size_t mark = kac_arena_mark(&l->c->scratch);
    const kac_status s = load_positions(l, m, o);
    kac_arena_release(&l->c->scratch, mark);
    return s;
}

/* The patches in rows, then the embedding with positions. */
kac_status kac_nn_patches_run(kac_ctx *c, kac_tensor *out, const kac_nn_patches *m, kac_tensor pixels) {
    const int64_t n = pixels.shape[0], side = m->side, p = m->patch, width = m->class_row.shape[2];
    const int zero[KAC_NN_MAX_PICTURES] = {0};
    kac_tensor rows, positions = KAC_NONE, patches = KAC_NONE, first = KAC_NONE;
    KAC_ASSERT(n <= KAC_NN_MAX_PICTURES);
    KAC_TRY(kac_take_make(&rows, &c->scratch, c->dtype, n, side, side, p, p, m->channels));
    kac_tensor x = kac_tensor_slice(kac_tensor_slice(pixels, 1, 0, side * p), 2, 0, side * p);
    x = kac_tensor_split(kac_tensor_split(x, 2, side), 1, side); /* [N, side, p, side, p, channels] */
    KAC_TRY(kac_copy(c, &rows, kac_tensor_transpose(x, 2, 3)));
    KAC_TRY(kac_gather(c, &positions, m->patch_rows, zero, (int)n));
    patches = kac_scope_reuse(c, positions);
    KAC_TRY(kac_nn_linear_run(c, &patches, &m->proj, kac_tensor_reshape(rows, n, side * side, p * p * m->channels),
                              KAC_ACT_NONE, positions));
    KAC_TRY(kac_gather(c, &first, m->class_row, zero, (int)n));
    KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, n, side * side + 1, width));
    return kac_concat(c, out, first, patches, 1);
}
