#include "model/mps.h"
#include "nn/scope.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- loading ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const kac_weights_entry *)a)->name, ((const kac_weights_entry *)b)->name);
}

/* The CLIP lies under "model.". */
static void strip_prefix(kac_weights *w) {
    static const char prefix[] = "model.";
    for (int i = 0; i < w->n_entries; i++)
        if (strncmp(w->entries[i].name, prefix, sizeof prefix - 1) == 0) w->entries[i].name += sizeof prefix - 1;
    qsort(w->entries, (size_t)w->n_entries, sizeof *w->entries, by_name);
}

/* Rows and columns of a matrix; 0 when there is none. */
static int64_t size_of(const kac_loader *l, const char *path, int axis) {
    const kac_weights_entry *e = kac_weights_entry_of(l->weights, kac_path_of("%s.weight", path).s);
    return e != NULL && e->rank == 2 ? e->shape[axis] : 0;
}

/* Norms without a bias store zeros, or nothing. */
static kac_status load_norm(const kac_loader *l, kac_nn_norm *m, kac_path path, int64_t width) {
    if (kac_loader_has(l, kac_path_of("%s.bias", path.s).s)) return kac_nn_layer_norm_load(l, m, path.s, width, 1e-5);
    m->eps = 1e-5;
    KAC_TRY(kac_loader_vector(l, &m->gamma, kac_path_of("%s.weight", path.s).s, width));
    float *zeros = kac_alloc((size_t)width * sizeof *zeros);
    if (zeros == NULL) return KAC_E_MEMORY;
    const kac_status s = kac_loader_constant(l, &m->beta, zeros, width);
    kac_free(zeros);
    return s;
}

static kac_status load_block(kac_mps_block *b, const kac_loader *l, const kac_mps *m, int i) {
    const kac_path cross = kac_path_of("cross_model.layers.%d.0.fn", i),
                   self = kac_path_of("cross_model.layers.%d.1.fn", i);
    const int64_t width = m->width, inner = m->heads * m->head_dim;
    const int64_t ff = size_of(l, kac_path_of("%s.ff.2", cross.s).s, 1),
                  ff2 = size_of(l, kac_path_of("%s.ff_out.1", self.s).s, 1);
    if (ff < 1 || ff2 < 1) return KAC_FAIL(KAC_E_FORMAT, "%s: %s lacks ff.2 or %s ff_out.1", l->path, cross.s, self.s);
    KAC_TRY(load_norm(l, &b->norm, kac_path_of("%s.norm", cross.s), width));
    KAC_TRY(kac_nn_linear_load(l, &b->q, kac_path_of("%s.to_q", cross.s).s, width, inner, false));
    KAC_TRY(kac_nn_linear_load(l, &b->kv, kac_path_of("%s.to_kv", cross.s).s, width, 2 * m->head_dim, false));
    KAC_TRY(kac_nn_linear_load(l, &b->out, kac_path_of("%s.to_out", cross.s).s, inner, width, false));
    KAC_TRY(kac_nn_linear_load(l, &b->ff_in, kac_path_of("%s.ff.0", cross.s).s, width, 2 * ff, false));
    KAC_TRY(kac_nn_linear_load(l, &b->ff_out, kac_path_of("%s.ff.2", cross.s).s, ff, width, false));
    KAC_TRY(load_norm(l, &b->norm2, kac_path_of("%s.norm", self.s), width));
    KAC_TRY(kac_nn_linear_load(l, &b->fused, kac_path_of("%s.fused_attn_ff_proj", self.s).s, width,
                               inner + 2 * m->head_dim + 2 * ff2, false));
    KAC_TRY(kac_nn_linear_load(l, &b->attn_out, kac_path_of("%s.attn_out", self.s).s, inner, width, false));
    return kac_nn_linear_load(l, &b->ff_out2, kac_path_of("%s.ff_out.1", self.s).s, ff2, width, false);
}

/* Rotary positions for n_heads heads: cos and, with the sign of the rotation, sin; 1 is taken off, since modulation adds it. */
static kac_status load_rotary(kac_mps *m, const kac_loader *l, int which, int64_t n_heads) {
    const int64_t d = m->head_dim, n = m->n_tokens * n_heads * d;
    float *table = kac_alloc((size_t)n * 2 * sizeof *table);
    if (table == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        const int64_t t = i / (n_heads * d), k = i % d;
        const double angle = (double)t / pow(10000, (double)(2 * (k % (d / 2))) / (double)d);
        table[i] = (float)(cos(angle) - 1);
        table[n + i] = (float)((k < d / 2 ? -sin(angle) : sin(angle)) - 1);
    }
    kac_tensor *const to[2] = {&m->cosine[which], &m->sine[which]};
    kac_status s = KAC_OK;
    for (int k = 0; k < 2 && s == KAC_OK; k++) {
        s = kac_take_make(to[k], &l->c->model, l->c->dtype, 1, n);
        if (s == KAC_OK) s = kac_copy(l->c, to[k], kac_tensor_make(table + k * n, KAC_F32, 1, n));
    }
    memset(table, 0, (size_t)n * sizeof *table);
    if (s == KAC_OK && which == 0) {
        s = kac_take_make(&m->zero, &l->c->model, l->c->dtype, 1, n);
        if (s == KAC_OK) s = kac_copy(l->c, &m->zero, kac_tensor_make(table, KAC_F32, 1, n));
    }
    kac_free(table);
    return s;
}

static kac_status load(kac_mps *m, kac_ctx *c, kac_source *source) {
    strip_prefix(&source->weights);
    const kac_loader l = kac_source_loader(source, c);
    KAC_TRY(kac_clip_load_from(&m->clip, c, source));
    const kac_clip_config *cfg = kac_clip_config_of(m->clip);
    m->width = cfg->projection;
    m->n_tokens = 1 + (cfg->image_size / cfg->patch) * (cfg->image_size / cfg->patch);
    m->head_dim = size_of(&l, "cross_model.layers.0.0.fn.to_kv", 0) / 2;
    const int64_t inner = size_of(&l, "cross_model.layers.0.0.fn.to_q", 0);
    if (m->head_dim < 2 || m->head_dim % 2 != 0 || inner % m->head_dim != 0 || !cfg->has_vision)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: heads of %lld in attention of %lld are not supported", source->path,
                        (long long)m->head_dim, (long long)inner);
    m->heads = inner / m->head_dim;
    while (m->n_blocks < 64 && size_of(&l, kac_path_of("cross_model.layers.%d.0.fn.to_q", m->n_blocks).s, 0) > 0)
        m->n_blocks++;
    m->block = kac_alloc((size_t)m->n_blocks * sizeof *m->block);
    if (m->block == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < m->n_blocks; i++) KAC_TRY(load_block(&m->block[i], &l, m, i));
    KAC_TRY(load_rotary(m, &l, 0, m->heads));
    return load_rotary(m, &l, 1, 1);
}

kac_status kac_mps_load(kac_mps *m, kac_ctx *c, kac_source *source) {
    *m = (kac_mps){0};
    const kac_status s = load(m, c, source);
    if (s != KAC_OK) kac_mps_free(m);
    return s;
}

void kac_mps_free(kac_mps *m) {
    kac_clip_free(m->clip);
    kac_free(m->block);
    *m = (kac_mps){0};
}

/* ---- running ---- */

/* [N, T, n] of a wider tensor's last axis, contiguous. */
static kac_status part_of(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t start, int64_t n) {
    KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, x.shape[0], x.shape[1], n));
    return kac_copy(c, out, kac_tensor_slice(x, 2, start, n));
}

/* out = a · silu(b), a and b the halves of x [N, T, 2 n]. As a (1 + s) − a: there is no op for a product of two activations. */
static kac_status swiglu(kac_ctx *c, kac_tensor *out, kac_tensor x) {
    const int64_t n = x.shape[2] / 2, rows = x.shape[0] * x.shape[1];
    kac_tensor a, gate, minus = KAC_NONE;
    KAC_TRY(part_of(c, &a, x, 0, n));
    KAC_TRY(part_of(c, &gate, x, n, n));
    kac_tensor silu = kac_scope_reuse(c, gate), flat = kac_tensor_reshape(a, rows, n),
               product = kac_scope_reuse(c, flat);
    KAC_TRY(kac_activate(c, &silu, gate, KAC_ACT_SILU));
    KAC_TRY(kac_lincomb(c, &minus, 1, &a, (double[]){-1}, 1));
    KAC_TRY(
        kac_modulate(c, &product, flat, kac_tensor_reshape(silu, rows, n), kac_tensor_reshape(minus, rows, n), NULL));
    *out = kac_tensor_reshape(product, x.shape[0], x.shape[1], n);
    return KAC_OK;
}

/* x [N, T, heads · d] in place: t cos + rotate(t) sin, where rotate swaps the halves of each head. */
static kac_status rotate(kac_ctx *c, const kac_mps *m, kac_tensor *x, int which) {
    const int64_t n = x->shape[0], d = m->head_dim, all = x->shape[1] * x->shape[2], pairs = all / d;
    kac_tensor swapped, halves = kac_tensor_reshape(*x, n, pairs, 2, d / 2), flat = kac_tensor_reshape(*x, n, all);
    const kac_tensor zero = kac_tensor_slice(m->zero, 1, 0, all);
    KAC_TRY(kac_take_make(&swapped, &c->scratch, c->dtype, n, pairs, 2, d / 2));
    for (int i = 0; i < 2; i++) {
        kac_tensor to = kac_tensor_slice(swapped, 2, i, 1);
        KAC_TRY(kac_copy(c, &to, kac_tensor_slice(halves, 2, 1 - i, 1)));
    }
    swapped = kac_tensor_reshape(swapped, n, all);
    kac_tensor part[2] = {kac_scope_reuse(c, flat), kac_scope_reuse(c, swapped)}, sum = kac_scope_reuse(c, flat);
    KAC_TRY(kac_modulate(c, &part[0], flat, m->cosine[which], zero, NULL));
    KAC_TRY(kac_modulate(c, &part[1], swapped, m->sine[which], zero, NULL));
    KAC_TRY(kac_lincomb(c, &sum, 2, part, (double[]){1, 1}, 1));
    *x = kac_tensor_reshape(sum, n, x->shape[1], x->shape[2]);
    return KAC_OK;
}

/* The one key (or value) x [M, S, d] as every head sees it. While a tape records, really once for each: gradients of heads are added up side by
 * side and must not meet in one place. */
static kac_status for_all_heads(kac_ctx *c, kac_tensor *out, kac_tensor x, int64_t heads) {
    x = kac_tensor_split(x, 2, 1);
    *out = x;
    out->shape[2] = heads;
    out->stride[2] = 0;
    if (c->tape == NULL) return KAC_OK;
    KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, x.shape[0], x.shape[1], heads, x.shape[3]));
    for (int64_t i = 0; i < heads; i++) {
        kac_tensor head = kac_tensor_slice(*out, 2, i, 1);
        KAC_TRY(kac_copy(c, &head, x));
    }
    return KAC_OK;
}

/* out = attention [N, T, heads · d]; kv [M, S, …] views of key and value. */
static kac_status attend(kac_ctx *c, const kac_mps *m, kac_tensor *out, kac_tensor q, kac_tensor k, kac_tensor v,
                         const int *row) {
    kac_tensor a = KAC_NONE, keys, values;
    const kac_attention_opt o = {.scale = 1 / sqrt((double)m->head_dim), .kv_row = row};
    KAC_TRY(for_all_heads(c, &keys, k, m->heads));
    KAC_TRY(for_all_heads(c, &values, v, m->heads));
    KAC_TRY(kac_attention(c, &a, kac_tensor_split(q, 2, m->heads), keys, values, o));
    *out = kac_tensor_reshape(a, q.shape[0], q.shape[1], m->heads * m->head_dim);
    return KAC_OK;
}

/* *x += m(y) */
static kac_status add_linear(kac_ctx *c, kac_tensor *x, const kac_nn_linear *m, kac_tensor y) {
    kac_tensor sum = kac_scope_reuse(c, *x);
    KAC_TRY(kac_nn_linear_run(c, &sum, m, y, KAC_ACT_NONE, *x));
    *x = sum;
    return KAC_OK;
}

/* x += to_out(attention(norm(x), text)) + ff(norm(x)). */
static kac_status run_cross(kac_ctx *c, const kac_mps *m, const kac_mps_block *b, kac_tensor *x, kac_tensor text) {
    const int zero[KAC_MPS_MAX] = {0};
    kac_tensor h = KAC_NONE, q = KAC_NONE, kv = KAC_NONE, a, inner = KAC_NONE, s;
    KAC_TRY(kac_nn_norm_run(c, &h, &b->norm, *x, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_run(c, &q, &b->q, h, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_nn_linear_run(c, &kv, &b->kv, kac_tensor_reshape(text, 1, text.shape[0], text.shape[1]), KAC_ACT_NONE,
                              KAC_NONE));
    KAC_TRY(attend(c, m, &a, q, kac_tensor_slice(kv, 2, 0, m->head_dim),
                   kac_tensor_slice(kv, 2, m->head_dim, m->head_dim), zero));
    KAC_TRY(add_linear(c, x, &b->out, a));
    KAC_TRY(kac_nn_linear_run(c, &inner, &b->ff_in, h, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(swiglu(c, &s, inner));
    return add_linear(c, x, &b->ff_out, s);
}

/* x += attn_out(attention of norm(x) to itself) + ff_out(…). */
static kac_status run_self(kac_ctx *c, const kac_mps *m, const kac_mps_block *b, kac_tensor *x) {
    const int64_t inner = m->heads * m->head_dim, d = m->head_dim;
    kac_tensor h = KAC_NONE, fused = KAC_NONE, q, k, a, s;
    KAC_TRY(kac_nn_norm_run(c, &h, &b->norm2, *x, KAC_ACT_NONE));
    KAC_TRY(kac_nn_linear_run(c, &fused, &b->fused, h, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(part_of(c, &q, fused, 0, inner));
    KAC_TRY(part_of(c, &k, fused, inner, d));
    KAC_TRY(rotate(c, m, &q, 0));
    KAC_TRY(rotate(c, m, &k, 1));
    KAC_TRY(attend(c, m, &a, q, k, kac_tensor_slice(fused, 2, inner + d, d), NULL));
    KAC_TRY(add_linear(c, x, &b->attn_out, a));
    KAC_TRY(swiglu(c, &s, kac_tensor_slice(fused, 2, inner + 2 * d, fused.shape[2] - inner - 2 * d)));
    return add_linear(c, x, &b->ff_out2, s);
}

kac_status kac_mps_features(kac_tensor *out, const kac_mps *m, kac_ctx *c, kac_tensor pixels, kac_tensor text) {
    if (pixels.shape[0] > KAC_MPS_MAX || text.rank != 2 || text.shape[1] != m->width)
        return KAC_FAIL(KAC_E_SHAPE, "MPS wants at most %d pictures and text tokens of width %lld", (int)KAC_MPS_MAX,
                        (long long)m->width);
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, pixels.shape[0], m->width));
    const size_t mark = kac_scope_open(c);
    kac_tensor x = KAC_NONE;
    KAC_TRY(kac_clip_image_tokens(&x, m->clip, c, pixels));
    for (int i = 0; i < m->n_blocks; i++) {
        const size_t inner = kac_scope_open(c);
        KAC_TRY(run_cross(c, m, &m->block[i], &x, text));
        KAC_TRY(run_self(c, m, &m->block[i], &x));
        kac_scope_close(c, inner);
        KAC_TRY(kac_tap(c, x, "cross_model.layers.%d.1", i));
    }
    kac_tensor first = kac_tensor_reshape(*out, x.shape[0], 1, m->width);
    KAC_TRY(kac_copy(c, &first, kac_tensor_slice(x, 1, 0, 1)));
    kac_scope_close(c, mark);
    return KAC_OK;
}
