#include "nn/blocks.h"
#include "nn/scope.h"
#include "tensor/tape.h"
#include <math.h>

enum { Q, K, V, OUT, N_NAMES };

/* Newer files say to_q … to_out.0, older ones query … proj_attn. */
static void attention_names(const kac_loader *l, kac_path name[N_NAMES], const char *path) {
    static const char *const names[2][N_NAMES] = {{"to_q", "to_k", "to_v", "to_out.0"},
                                                  {"query", "key", "value", "proj_attn"}};
    const int old = !kac_loader_has(l, kac_path_of("%s.to_q.weight", path).s) &&
                    kac_loader_has(l, kac_path_of("%s.query.weight", path).s);
    for (int i = 0; i < N_NAMES; i++) name[i] = kac_path_of("%s.%s", path, names[old][i]);
}

kac_status kac_nn_attention_load(const kac_loader *l, kac_nn_attention *m, kac_path path, int64_t n, int64_t head_dim,
                                 int64_t groups, double eps, double out_scale) {
    if (head_dim < 1 || n % head_dim != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: attention_head_dim %lld does not divide the %lld channels of %s",
                        l->path, (long long)head_dim, (long long)n, path.s);
    m->path = path;
    m->heads = n / head_dim;
    m->out_scale = out_scale;
    m->has_norm = groups > 0;
    if (m->has_norm)
        KAC_TRY(kac_nn_group_norm_load(l, &m->norm, kac_path_of("%s.group_norm", path.s).s, n, groups, eps));
    kac_path name[N_NAMES];
    attention_names(l, name, path.s);
    KAC_TRY(kac_nn_linear_load_stack(l, &m->qkv, name, 3, n, n, true));
    return kac_nn_linear_load(l, &m->to_out, name[OUT].s, n, n, true);
}

/* Part i of n stacked along the last axis, split into heads: [N, T, parts·D] -> [N, T, heads, D / heads]. */
static kac_tensor part(kac_tensor t, int i, int64_t n, int64_t heads) {
    return kac_tensor_split(kac_tensor_slice(t, 2, i * n, n), 2, heads);
}

/* out [N, T, D] = softmax(q kᵀ / √d) v with q, k, v of `qkv` [N, T, 3·D]. */
static kac_status self_attention(kac_ctx *c, kac_tensor *out, kac_tensor qkv, int64_t heads) {
    const int64_t n = qkv.shape[2] / 3;
    kac_tensor a = out->data != NULL ? kac_tensor_split(*out, 2, heads) : KAC_NONE;
    KAC_TRY(kac_attention(c, &a, part(qkv, 0, n, heads), part(qkv, 1, n, heads), part(qkv, 2, n, heads),
                          (kac_attention_opt){.scale = 1 / sqrt((double)(n / heads))}));
    *out = kac_tensor_reshape(a, qkv.shape[0], qkv.shape[1], n);
    return KAC_OK;
}

/* What a segment needs to run again; out may be x. */
typedef struct attention_call {
    const kac_nn_attention *m;
    kac_tensor out, x;
} attention_call;

static kac_status run_attention(kac_ctx *c, const void *args) {
    const attention_call *call = args;
    const kac_nn_attention *m = call->m;
    const kac_tensor x = call->x;
    const int64_t n = x.shape[0], pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
    const size_t mark = kac_scope_open(c);
    kac_tensor h = x, qkv = KAC_NONE, whole = call->out;
    kac_tensor sum = m->out_scale != 1 ? kac_scope_reuse(c, whole) : whole;
    KAC_TRY(kac_nn_out(c, &sum, n, x.shape[1], x.shape[2], channels));
    if (m->has_norm) {
        h = KAC_NONE;
        KAC_TRY(kac_nn_norm_run(c, &h, &m->norm, x, KAC_ACT_NONE));
    }
    KAC_TRY(kac_nn_linear_run(c, &qkv, &m->qkv, kac_tensor_reshape(h, n, pixels, channels), KAC_ACT_NONE, KAC_NONE));
    kac_tensor a = m->has_norm ? kac_scope_reuse(c, kac_tensor_reshape(h, n, pixels, channels)) : KAC_NONE;
    KAC_TRY(self_attention(c, &a, qkv, m->heads));
    kac_tensor out = kac_tensor_reshape(sum, n, pixels, channels);
    KAC_TRY(kac_nn_linear_run(c, &out, &m->to_out, a, KAC_ACT_NONE, kac_tensor_reshape(x, n, pixels, channels)));
    if (m->out_scale != 1) KAC_TRY(kac_lincomb(c, &whole, 1, &sum, &(double){1 / m->out_scale}, 1));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_attention_run(kac_ctx *c, const kac_nn_attention *m, kac_tensor *x) {
    kac_tensor whole = kac_scope_reuse(c, *x);
    KAC_TRY(kac_nn_out(c, &whole, x->shape[0], x->shape[1], x->shape[2], x->shape[3]));
    const attention_call call = {m, whole, *x};
    KAC_TRY(kac_segment(c, run_attention, &call, sizeof call, whole));
    *x = whole;
    return kac_tap(c, *x, "%s", m->path.s);
}

/* ---- Transformer2DModel ---- */

static kac_status load_cross(const kac_loader *l, kac_nn_cross *m, const char *path, int64_t n, int64_t n_context,
                             bool cross, int *n_kv) {
    kac_path name[N_NAMES];
    attention_names(l, name, path);
    m->cross = cross;
    if (cross) {
        m->i_kv = (*n_kv)++;
        KAC_TRY(kac_nn_linear_load(l, &m->q, name[Q].s, n, n, false));
        KAC_TRY(kac_nn_linear_load_stack(l, &m->kv, name + K, 2, n_context, n, false));
    } else {
        KAC_TRY(kac_nn_linear_load_stack(l, &m->q, name, 3, n, n, false));
    }
    return kac_nn_linear_load(l, &m->to_out, name[OUT].s, n, n, true);
}

static kac_status load_block(const kac_loader *l, kac_nn_transformer_block *b, const char *path,
                             kac_nn_transformer_opt o, int *n_kv) {
    KAC_TRY(kac_nn_layer_norm_load(l, &b->norm1, kac_path_of("%s.norm1", path).s, o.n, 1e-5));
    KAC_TRY(load_cross(l, &b->attn1, kac_path_of("%s.attn1", path).s, o.n, o.cross_dim, o.only_cross, n_kv));
    KAC_TRY(kac_nn_layer_norm_load(l, &b->norm2, kac_path_of("%s.norm2", path).s, o.n, 1e-5));
    KAC_TRY(load_cross(l, &b->attn2, kac_path_of("%s.attn2", path).s, o.n, o.cross_dim, true, n_kv));
    KAC_TRY(kac_nn_layer_norm_load(l, &b->norm3, kac_path_of("%s.norm3", path).s, o.n, 1e-5));
    KAC_TRY(kac_nn_linear_load(l, &b->ff_in, kac_path_of("%s.ff.net.0.proj", path).s, o.n, 8 * o.n, true));
    return kac_nn_linear_load(l, &b->ff_out, kac_path_of("%s.ff.net.2", path).s, 4 * o.n, o.n, true);
}

kac_status kac_nn_transformer_load(const kac_loader *l, kac_nn_transformer *m, kac_path path, kac_nn_transformer_opt o,
                                   int *n_kv) {
    if (o.heads < 1 || o.n % o.heads != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: %lld heads (the key attention_head_dim) do not divide the %lld channels of %s", l->path,
                        (long long)o.heads, (long long)o.n, path.s);
    m->path = path;
    m->heads = o.heads;
    m->block = kac_alloc((size_t)KAC_MAX(o.layers, 1) * sizeof *m->block);
    if (m->block == NULL) return KAC_E_MEMORY;
    m->n_blocks = (int)o.layers;
    KAC_TRY(kac_nn_group_norm_load(l, &m->norm, kac_path_of("%s.norm", path.s).s, o.n, o.groups, 1e-6));
    KAC_TRY(kac_nn_linear_load(l, &m->proj_in, kac_path_of("%s.proj_in", path.s).s, o.n, o.n, true));
    for (int i = 0; i < m->n_blocks; i++)
        KAC_TRY(load_block(l, &m->block[i], kac_path_of("%s.transformer_blocks.%d", path.s, i).s, o, n_kv));
    return kac_nn_linear_load(l, &m->proj_out, kac_path_of("%s.proj_out", path.s).s, o.n, o.n, true);
}

void kac_nn_transformer_free(kac_nn_transformer *m) {
    kac_free(m->block);
    m->block = NULL;
}

/* h += to_out(attention(norm(h))) */
static kac_status attend(kac_ctx *c, kac_tensor *h, const kac_nn_transformer *t, int i_block, bool second,
                         kac_nn_cond cond) {
    const kac_nn_transformer_block *b = &t->block[i_block];
    const kac_nn_cross *m = second ? &b->attn2 : &b->attn1;
    const int64_t heads = t->heads;
    const size_t mark = kac_scope_open(c);
    const int64_t n = h->shape[2];
    kac_tensor x = KAC_NONE, q = KAC_NONE;
    KAC_TRY(kac_nn_norm_run(c, &x, second ? &b->norm2 : &b->norm1, *h, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_run(c, &q, &m->q, x, KAC_ACT_NONE, KAC_NONE));
    kac_tensor a = kac_scope_reuse(c, x);
    if (m->cross) {
        kac_tensor split = a.data != NULL ? kac_tensor_split(a, 2, heads) : KAC_NONE;
        KAC_TRY(kac_attention(c, &split, kac_tensor_split(q, 2, heads), cond.layer[m->i_kv].k, cond.layer[m->i_kv].v,
                              (kac_attention_opt){.scale = 1 / sqrt((double)(n / heads)), .kv_row = cond.row}));
        a = kac_tensor_reshape(split, h->shape[0], h->shape[1], n);
    } else {
        KAC_TRY(self_attention(c, &a, q, heads));
    }
    kac_tensor sum = kac_scope_reuse(c, *h);
    KAC_TRY(kac_nn_linear_add(c, &sum, &m->to_out, a, *h, "%s.transformer_blocks.%d.attn%d", t->path.s, i_block,
                              second ? 2 : 1));
    *h = sum;
    kac_scope_close(c, mark);
    return KAC_OK;
}

/* h += ff_out(geglu(ff_in(norm3(h)))) */
static kac_status feed_forward(kac_ctx *c, kac_tensor *h, const kac_nn_transformer *t, int i_block) {
    const kac_nn_transformer_block *b = &t->block[i_block];
    const size_t mark = kac_scope_open(c);
    kac_tensor x = KAC_NONE, inner = KAC_NONE;
    KAC_TRY(kac_nn_norm_run(c, &x, &b->norm3, *h, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_apply(c, &inner, &b->ff_in, x, (kac_linear_opt){.geglu = true}));
    kac_tensor sum = kac_scope_reuse(c, *h);
    KAC_TRY(kac_nn_linear_add(c, &sum, &b->ff_out, inner, *h, "%s.transformer_blocks.%d.ff", t->path.s, i_block));
    *h = sum;
    kac_scope_close(c, mark);
    return KAC_OK;
}

typedef struct transformer_call {
    const kac_nn_transformer *m;
    kac_tensor out, x;
    kac_nn_cond cond;
} transformer_call;

static kac_status run_transformer(kac_ctx *c, const void *args) {
    const transformer_call *call = args;
    const kac_nn_transformer *m = call->m;
    const kac_nn_cond cond = call->cond;
    const kac_tensor x = call->x;
    const int64_t n = x.shape[0], pixels = x.shape[1] * x.shape[2], channels = x.shape[3];
    const size_t mark = kac_scope_open(c);
    kac_tensor h = KAC_NONE, x_norm = KAC_NONE;
    KAC_TRY(kac_take_make(&h, &c->scratch, c->dtype, n, pixels, channels));
    const size_t mark_norm = kac_scope_open(c);
    KAC_TRY(kac_nn_norm_run(c, &x_norm, &m->norm, x, KAC_ACT_NONE));
    KAC_TRY(
        kac_nn_linear_run(c, &h, &m->proj_in, kac_tensor_reshape(x_norm, n, pixels, channels), KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark_norm);
    for (int i = 0; i < m->n_blocks; i++) {
        KAC_TRY(attend(c, &h, m, i, false, cond));
        KAC_TRY(attend(c, &h, m, i, true, cond));
        KAC_TRY(feed_forward(c, &h, m, i));
        KAC_TRY(kac_tap(c, h, "%s.transformer_blocks.%d", m->path.s, i));
    }
    kac_tensor out = kac_tensor_reshape(call->out, n, pixels, channels);
    KAC_TRY(kac_nn_linear_run(c, &out, &m->proj_out, h, KAC_ACT_NONE, kac_tensor_reshape(x, n, pixels, channels)));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_nn_transformer_run(kac_ctx *c, const kac_nn_transformer *m, kac_tensor *x, kac_nn_cond cond) {
    kac_tensor whole = kac_scope_reuse(c, *x);
    KAC_TRY(kac_nn_out(c, &whole, x->shape[0], x->shape[1], x->shape[2], x->shape[3]));
    const transformer_call call = {m, whole, *x, cond};
    KAC_TRY(kac_segment(c, run_transformer, &call, sizeof call, whole));
    *x = whole;
    return kac_tap(c, *x, "%s", m->path.s);
}

kac_status kac_nn_transformer_condition(kac_ctx *c, const kac_nn_transformer *m, kac_nn_kv *kv, kac_tensor tokens) {
    for (int i = 0; i < 2 * m->n_blocks; i++) {
        const kac_nn_cross *a = i % 2 == 0 ? &m->block[i / 2].attn1 : &m->block[i / 2].attn2;
        if (!a->cross) continue;
        const int64_t n = a->kv.w.n_out / 2;
        kac_tensor both = KAC_NONE;
        KAC_TRY(kac_take_make(&both, &c->run, c->dtype, tokens.shape[0], tokens.shape[1], 2 * n));
        KAC_TRY(kac_nn_linear_run(c, &both, &a->kv, tokens, KAC_ACT_NONE, KAC_NONE));
        kv[a->i_kv] = (kac_nn_kv){.k = part(both, 0, n, m->heads), .v = part(both, 1, n, m->heads)};
    }
    return KAC_OK;
}
