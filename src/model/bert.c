#include "model/bert.h"
#include "model/config.h"
#include "nn/scope.h"
#include <math.h>

typedef struct bert_layer {
    kac_nn_linear qkv, out, fc1, fc2, cross_q, cross_kv, cross_out;
    kac_nn_norm norm1, norm_cross, norm2; /* each behind its sum */
} bert_layer;

struct kac_bert {
    kac_bert_config cfg;
    kac_path path;
    kac_tensor token_table, position_table; /* c->dtype; the first token type is added to the positions */
    kac_nn_norm norm;
    bert_layer *layer;
};

/* ---- config ---- */

static const kac_weights_entry *matrix_of(const kac_weights *w, kac_path path) {
    const kac_weights_entry *e = kac_weights_entry_of(w, path.s);
    return e != NULL && e->rank == 2 ? e : NULL;
}

kac_status kac_bert_config_infer(kac_bert_config *cfg, const kac_weights *w, const char *prefix) {
    const kac_weights_entry *words = matrix_of(w, kac_path_of("%sembeddings.word_embeddings.weight", prefix)),
                            *places = matrix_of(w, kac_path_of("%sembeddings.position_embeddings.weight", prefix)),
                            *fc1 = matrix_of(w, kac_path_of("%sencoder.layer.0.intermediate.dense.weight", prefix)),
                            *cross =
                                matrix_of(w, kac_path_of("%sencoder.layer.0.crossattention.self.key.weight", prefix));
    if (words == NULL || places == NULL || fc1 == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s holds no BERT under %sembeddings.word_embeddings", w->path, prefix);
    *cfg = (kac_bert_config){.width = words->shape[1],
                             .inner = fc1->shape[0],
                             .heads = words->shape[1] % 64 == 0 ? words->shape[1] / 64 : 0,
                             .vocab_size = words->shape[0],
                             .max_tokens = places->shape[0],
                             .encoder_width = cross == NULL ? 0 : cross->shape[1],
                             .act = KAC_ACT_GELU,
                             .eps = 1e-12};
    while (cfg->layers < 256 &&
           matrix_of(w, kac_path_of("%sencoder.layer.%lld.intermediate.dense.weight", prefix, (long long)cfg->layers)))
        cfg->layers++;
    return KAC_OK;
}

kac_status kac_bert_config_read(kac_bert_config *cfg, const kac_json *j, const cJSON *obj) {
    KAC_TRY(kac_config_int(j, obj, "num_attention_heads", &cfg->heads, 1, 1 << 12));
    KAC_TRY(kac_config_act(j, obj, "hidden_act", &cfg->act, true));
    KAC_TRY(kac_json_real(j, obj, "layer_norm_eps", &cfg->eps));
    return cfg->eps > 0 ? KAC_OK : KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"layer_norm_eps\" must be positive", j->name);
}

static kac_status check_config(const kac_bert_config *cfg, const char *path) {
    const int64_t sizes[] = {cfg->width, cfg->inner, cfg->max_tokens, cfg->vocab_size};
    for (int i = 0; i < KAC_COUNT_OF(sizes); i++)
        if (sizes[i] < 1 || sizes[i] > 1 << 24)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the sizes of its BERT are out of range", path);
    if (cfg->heads < 1 || cfg->width % cfg->heads != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: %lld attention heads do not divide a width of %lld; its config must name another number",
                        path, (long long)cfg->heads, (long long)cfg->width);
    return KAC_OK;
}

/* ---- weights ---- */

static kac_status load_layer(bert_layer *m, const kac_loader *l, kac_path p, const kac_bert_config *cfg) {
    const int64_t width = cfg->width;
    const kac_path qkv[3] = {kac_path_of("%s.attention.self.query", p.s), kac_path_of("%s.attention.self.key", p.s),
                             kac_path_of("%s.attention.self.value", p.s)};
    KAC_TRY(kac_nn_linear_load_stack(l, &m->qkv, qkv, 3, width, width, true));
    KAC_TRY(kac_nn_linear_load(l, &m->out, kac_path_of("%s.attention.output.dense", p.s).s, width, width, true));
    KAC_TRY(kac_nn_layer_norm_load(l, &m->norm1, kac_path_of("%s.attention.output.LayerNorm", p.s).s, width, cfg->eps));
    KAC_TRY(kac_nn_linear_load(l, &m->fc1, kac_path_of("%s.intermediate.dense", p.s).s, width, cfg->inner, true));
    KAC_TRY(kac_nn_linear_load(l, &m->fc2, kac_path_of("%s.output.dense", p.s).s, cfg->inner, width, true));
    KAC_TRY(kac_nn_layer_norm_load(l, &m->norm2, kac_path_of("%s.output.LayerNorm", p.s).s, width, cfg->eps));
    if (cfg->encoder_width == 0) return KAC_OK;
    p = kac_path_of("%s.crossattention", p.s);
    const kac_path kv[2] = {kac_path_of("%s.self.key", p.s), kac_path_of("%s.self.value", p.s)};
    KAC_TRY(kac_nn_linear_load(l, &m->cross_q, kac_path_of("%s.self.query", p.s).s, width, width, true));
    KAC_TRY(kac_nn_linear_load_stack(l, &m->cross_kv, kv, 2, cfg->encoder_width, width, true));
    KAC_TRY(kac_nn_linear_load(l, &m->cross_out, kac_path_of("%s.output.dense", p.s).s, width, width, true));
    return kac_nn_layer_norm_load(l, &m->norm_cross, kac_path_of("%s.output.LayerNorm", p.s).s, width, cfg->eps);
}

static kac_status load_tables(kac_bert *m, const kac_loader *l) {
    kac_ctx *c = l->c;
    const kac_bert_config *cfg = &m->cfg;
    const kac_path types = kac_path_of("%sembeddings.token_type_embeddings.weight", m->path.s);
    const int64_t places[2] = {cfg->max_tokens, cfg->width};
    KAC_TRY(kac_loader_table(l, &m->token_table, c->dtype,
                             kac_path_of("%sembeddings.word_embeddings.weight", m->path.s).s, 2,
                             (int64_t[]){cfg->vocab_size, cfg->width}));
    KAC_TRY(kac_take(&m->position_table, &c->model, c->dtype, 2, places));
    kac_tensor source, type;
    KAC_TRY(kac_loader_get(l, &source, kac_path_of("%sembeddings.position_embeddings.weight", m->path.s).s, 2, places));
    const kac_weights_entry *entry = matrix_of(l->weights, types);
    if (entry == NULL) return kac_copy(c, &m->position_table, source);
    KAC_TRY(kac_loader_get(l, &type, types.s, 2, (int64_t[]){entry->shape[0], cfg->width}));
    const size_t mark = kac_arena_mark(&c->scratch);
    kac_tensor wide, rows, sum = KAC_NONE;
    KAC_TRY(kac_take(&wide, &c->scratch, KAC_F32, 2, places));
    KAC_TRY(kac_take(&rows, &c->scratch, KAC_F32, 2, places));
    KAC_TRY(kac_copy(c, &wide, source));
    type = kac_tensor_slice(type, 0, 0, 1);
    for (int64_t i = 0; i < cfg->max_tokens; i++) {
        kac_tensor row = kac_tensor_slice(rows, 0, i, 1);
        KAC_TRY(kac_copy(c, &row, type));
    }
    KAC_TRY(kac_add(c, &sum, wide, rows));
    KAC_TRY(kac_copy(c, &m->position_table, sum));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

static kac_status load(kac_bert *m, const kac_loader *l) {
    const kac_bert_config *cfg = &m->cfg;
    KAC_TRY(check_config(cfg, l->path));
    m->layer = kac_alloc((size_t)KAC_MAX(cfg->layers, 1) * sizeof *m->layer);
    if (m->layer == NULL) return KAC_E_MEMORY;
    KAC_TRY(load_tables(m, l));
    KAC_TRY(
        kac_nn_layer_norm_load(l, &m->norm, kac_path_of("%sembeddings.LayerNorm", m->path.s).s, cfg->width, cfg->eps));
    for (int i = 0; i < (int)cfg->layers; i++)
        KAC_TRY(load_layer(&m->layer[i], l, kac_path_of("%sencoder.layer.%d", m->path.s, i), cfg));
    return KAC_OK;
}

kac_status kac_bert_load(kac_bert **out, const kac_loader *l, const char *prefix, const kac_bert_config *cfg) {
    *out = NULL;
    kac_bert *m = kac_alloc(sizeof *m);
    if (m == NULL) return KAC_E_MEMORY;
    m->cfg = *cfg;
    m->path = kac_path_of("%s", prefix);
    const kac_status s = load(m, l);
    if (s == KAC_OK)
        *out = m;
    else
        kac_bert_free(m);
    return s;
}

void kac_bert_free(kac_bert *m) {
    if (m == NULL) return;
    kac_free(m->layer);
    kac_free(m);
}

const kac_bert_config *kac_bert_config_of(const kac_bert *m) {
    return &m->cfg;
}

/* ---- run ---- */

/* *h = norm(*h + out(attention(q, k, v))). */
static kac_status attend(kac_ctx *c, const kac_bert *m, kac_tensor *h, const kac_nn_linear *out,
                         const kac_nn_norm *norm, kac_tensor q, kac_tensor k, kac_tensor v) {
    const int64_t heads = m->cfg.heads, width = m->cfg.width;
    kac_tensor a = KAC_NONE, sum = kac_scope_reuse(c, *h);
    const kac_attention_opt o = {.scale = 1 / sqrt((double)(width / heads))};
    KAC_TRY(kac_attention(c, &a, kac_tensor_split(q, 2, heads), kac_tensor_split(k, 2, heads),
                          kac_tensor_split(v, 2, heads), o));
    KAC_TRY(kac_nn_linear_run(c, &sum, out, kac_tensor_reshape(a, h->shape[0], h->shape[1], width), KAC_ACT_NONE, *h));
    *h = kac_scope_reuse(c, sum);
    return kac_nn_norm_run(c, h, norm, sum, KAC_ACT_NONE);
}

static kac_status run_layer(kac_ctx *c, const kac_bert *m, const bert_layer *layer, kac_tensor *h, kac_tensor encoder) {
    const size_t mark = kac_scope_open(c);
    const int64_t width = m->cfg.width;
    kac_tensor qkv = KAC_NONE, q = KAC_NONE, kv = KAC_NONE, inner = KAC_NONE;
    KAC_TRY(kac_nn_linear_run(c, &qkv, &layer->qkv, *h, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(attend(c, m, h, &layer->out, &layer->norm1, kac_tensor_slice(qkv, 2, 0, width),
                   kac_tensor_slice(qkv, 2, width, width), kac_tensor_slice(qkv, 2, 2 * width, width)));
    if (m->cfg.encoder_width > 0) {
        KAC_TRY(kac_nn_linear_run(c, &q, &layer->cross_q, *h, KAC_ACT_NONE, KAC_NONE));
        KAC_TRY(kac_nn_linear_run(c, &kv, &layer->cross_kv, encoder, KAC_ACT_NONE, KAC_NONE));
        KAC_TRY(attend(c, m, h, &layer->cross_out, &layer->norm_cross, q, kac_tensor_slice(kv, 2, 0, width),
                       kac_tensor_slice(kv, 2, width, width)));
    }
    KAC_TRY(kac_nn_linear_run(c, &inner, &layer->fc1, *h, m->cfg.act, KAC_NONE));
    kac_tensor sum = kac_scope_reuse(c, *h);
    KAC_TRY(kac_nn_linear_run(c, &sum, &layer->fc2, inner, KAC_ACT_NONE, *h));
    *h = kac_scope_reuse(c, sum);
    KAC_TRY(kac_nn_norm_run(c, h, &layer->norm2, sum, KAC_ACT_NONE));
    kac_scope_close(c, mark);
    return KAC_OK;
}

static kac_status check_inputs(const kac_bert *m, const int32_t *ids, int64_t n, int64_t n_tokens, kac_tensor encoder) {
    const kac_bert_config *cfg = &m->cfg;
    if (n < 1 || n_tokens < 1 || n_tokens > cfg->max_tokens)
        return KAC_FAIL(KAC_E_SHAPE, "%lld texts of %lld tokens; this BERT reads 1 to %lld tokens", (long long)n,
                        (long long)n_tokens, (long long)cfg->max_tokens);
    for (int64_t i = 0; i < n * n_tokens; i++)
        if (ids[i] < 0 || ids[i] >= cfg->vocab_size)
            return KAC_FAIL(KAC_E_SHAPE, "token %d is outside this BERT's vocabulary of %lld", ids[i],
                            (long long)cfg->vocab_size);
    const bool fits = encoder.rank == 3 && encoder.shape[0] == n && encoder.shape[2] == cfg->encoder_width;
    if (cfg->encoder_width > 0 ? !fits : encoder.rank != 0)
        return KAC_FAIL(KAC_E_SHAPE, "this BERT wants the tokens of %lld pictures, %lld wide", (long long)n,
                        (long long)cfg->encoder_width);
    return KAC_OK;
}

kac_status kac_bert_run(kac_tensor *out, const kac_bert *m, kac_ctx *c, const int32_t *ids, int64_t n, int64_t n_tokens,
                        kac_tensor encoder) {
    KAC_TRY(check_inputs(m, ids, n, n_tokens, encoder));
    kac_tensor h = KAC_NONE, x = KAC_NONE;
    const kac_tensor id = kac_tensor_make((void *)(uintptr_t)ids, KAC_I32, n, n_tokens);
    KAC_TRY(kac_take_make(&h, &c->scratch, c->dtype, n, n_tokens, m->cfg.width));
    KAC_TRY(kac_embedding(c, &h, id, m->token_table, kac_tensor_slice(m->position_table, 0, 0, n_tokens)));
    x = kac_scope_reuse(c, h);
    KAC_TRY(kac_nn_norm_run(c, &x, &m->norm, h, KAC_ACT_NONE));
    KAC_TRY(kac_tap(c, x, "%sembeddings", m->path.s));
    for (int i = 0; i < (int)m->cfg.layers; i++) {
        KAC_TRY(run_layer(c, m, &m->layer[i], &x, encoder));
        KAC_TRY(kac_tap(c, x, "%sencoder.layer.%d", m->path.s, i));
    }
    *out = x;
    return KAC_OK;
}
