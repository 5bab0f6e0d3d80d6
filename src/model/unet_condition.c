/* What is computed once per prompt: keys and values of cross-attention, and rows for the time embedding. */
#include "model/unet_net.h"
#include "nn/scope.h"
#include <math.h>

/* ---- sinusoids and the layers behind them ---- */

/* [sin, cos] of 2π w log t (or of 2π w t), in double on the host. */
static kac_status fourier_wave(kac_ctx *c, kac_tensor *out, const kac_unet *u, const double *t, int n) {
    const kac_unet_config *cfg = &u->cfg;
    const int64_t dim = cfg->wave_dim, half = dim / 2;
    const bool cos_first = cfg->conditional && cfg->flip_sin_to_cos;
    float *values = kac_alloc((size_t)(n * dim) * sizeof *values);
    if (values == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < half; k++) {
            const double x = 2 * M_PI * (double)u->frequency[k] * (cfg->divide_by_time ? log(t[i]) : t[i]);
            values[i * dim + k + (cos_first ? half : 0)] = (float)sin(x);
            values[i * dim + k + (cos_first ? 0 : half)] = (float)cos(x);
        }
    const kac_status s = kac_copy(c, out, kac_tensor_make(values, KAC_F32, n, dim));
    kac_free(values);
    return s;
}

kac_status kac_unet_wave(kac_ctx *c, kac_tensor *out, const kac_unet *u, const double *t, int n) {
    const kac_unet_config *cfg = &u->cfg;
    KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, n, cfg->wave_dim));
    if (cfg->fourier) return fourier_wave(c, out, u, t, n);
    return kac_timestep_embedding(c, out, t, n, (int)cfg->wave_dim, cfg->flip_sin_to_cos, cfg->freq_shift, 1, 10000);
}

kac_status kac_unet_mlp_run(kac_ctx *c, kac_tensor *out, const kac_unet_mlp *m, kac_tensor x) {
    kac_tensor inner = KAC_NONE;
    KAC_TRY(kac_nn_linear_run(c, &inner, &m->in, x, m->act, KAC_NONE));
    return kac_nn_linear_run(c, out, &m->out, inner, m->post, KAC_NONE);
}

kac_status kac_unet_guidance(kac_tensor *out, const kac_unet *u, kac_ctx *c, const double *w, int n) {
    return kac_timestep_embedding(c, out, w, n, (int)u->cfg.time_cond_dim, false, 1, 1000, 10000);
}

/* ---- class labels ---- */

static kac_status check_rows(kac_tensor t, int64_t n, int64_t width, const char *name) {
    if (t.data != NULL && t.rank == 2 && t.shape[0] == n && t.shape[1] == width) return KAC_OK;
    if (t.data == NULL) return KAC_FAIL(KAC_E_USAGE, "this UNet needs %s", name);
    char text[96];
    return KAC_FAIL(KAC_E_SHAPE, "%s are %s, this UNet wants [%lld, %lld]", name, kac_tensor_text(t, text, sizeof text),
                    (long long)n, (long long)width);
}

static kac_status look_up_classes(kac_tensor *out, const kac_unet *u, kac_ctx *c, const double *label, int64_t n) {
    int *row = kac_alloc((size_t)n * sizeof *row);
    if (row == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    for (int64_t i = 0; i < n && s == KAC_OK; i++) {
        row[i] = (int)label[i];
        if (!(label[i] >= 0 && label[i] < (double)u->cfg.n_classes) || row[i] != label[i])
            s = KAC_FAIL(KAC_E_SHAPE, "class label %g; this UNet has the classes 0 to %lld", label[i],
                         (long long)u->cfg.n_classes - 1);
    }
    if (s == KAC_OK) s = kac_gather(c, out, u->class_table, row, (int)n);
    kac_free(row);
    return s;
}

static kac_status embed_classes(kac_tensor *out, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in, int64_t n) {
    const kac_unet_class_embed kind = u->cfg.class_embed;
    kac_tensor rows = in->label_rows;
    if (kind == KAC_CLASS_EMBED_TABLE || kind == KAC_CLASS_EMBED_TIMESTEP) {
        if (in->labels == NULL) return KAC_FAIL(KAC_E_USAGE, "this UNet needs class labels");
        if (kind == KAC_CLASS_EMBED_TABLE) return look_up_classes(out, u, c, in->labels, n);
        KAC_TRY(kac_unet_wave(c, &rows, u, in->labels, (int)n));
        return kac_unet_mlp_run(c, out, &u->class_mlp, rows);
    }
    KAC_TRY(check_rows(rows, n, u->cfg.class_dim, "class labels"));
    KAC_TRY(kac_nn_cast(c, &rows));
    if (kind == KAC_CLASS_EMBED_PROJECTION) return kac_unet_mlp_run(c, out, &u->class_mlp, rows);
    if (kind == KAC_CLASS_EMBED_SIMPLE)
        return kac_nn_linear_run(c, out, &u->class_simple, rows, KAC_ACT_NONE, KAC_NONE);
    *out = rows;
    return KAC_OK;
}

/* ---- additions ---- */

static kac_status text_and_sizes(kac_tensor *out, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in, int64_t n) {
    const kac_unet_config *cfg = &u->cfg;
    kac_tensor pooled = in->pooled, waves = KAC_NONE, both = KAC_NONE;
    if (in->time_ids == NULL || in->n_time_ids < 1)
        return KAC_FAIL(KAC_E_USAGE, "this UNet needs time_ids (sizes and crop)");
    const int64_t width = cfg->addition_dim - in->n_time_ids * cfg->addition_time_dim;
    if (width < 1)
        return KAC_FAIL(KAC_E_SHAPE,
                        "%d time_ids of %lld numbers leave no room for text_embeds in the %lld of "
                        "projection_class_embeddings_input_dim",
                        in->n_time_ids, (long long)cfg->addition_time_dim, (long long)cfg->addition_dim);
    KAC_TRY(check_rows(pooled, n, width, "text_embeds"));
    KAC_TRY(kac_nn_cast(c, &pooled));
    KAC_TRY(kac_take_make(&waves, &c->scratch, c->dtype, n * in->n_time_ids, cfg->addition_time_dim));
    KAC_TRY(kac_timestep_embedding(c, &waves, in->time_ids, (int)(n * in->n_time_ids), (int)cfg->addition_time_dim,
                                   cfg->flip_sin_to_cos, cfg->freq_shift, 1, 10000));
    KAC_TRY(kac_concat(c, &both, pooled, kac_tensor_reshape(waves, n, in->n_time_ids * cfg->addition_time_dim), 1));
    return kac_unet_mlp_run(c, out, &u->addition, both);
}

/* One query, the mean of the tokens, looks at itself and at all of them. */
static kac_status pool_text(kac_tensor *out, const kac_unet *u, kac_ctx *c, kac_tensor tokens) {
    const kac_unet_text_pool *m = &u->text_pool;
    const int64_t n = tokens.shape[0], width = tokens.shape[2], heads = u->cfg.addition_heads;
    const int64_t n_all = tokens.shape[1] + 1;
    kac_tensor x = KAC_NONE, zero = KAC_NONE, first = KAC_NONE, all = KAC_NONE, q = KAC_NONE, kv = KAC_NONE,
               a = KAC_NONE, y = KAC_NONE;
    KAC_TRY(kac_nn_norm_run(c, &x, &m->norm1, tokens, KAC_ACT_NONE));
    /* The mean is what a query of zeros sees. */
    KAC_TRY(kac_take_make(&first, &c->scratch, c->dtype, n, 1, width));
    KAC_TRY(kac_copy(c, &first, kac_tensor_slice(x, 1, 0, 1)));
    KAC_TRY(kac_lincomb(c, &zero, 1, &first, (double[]){0}, 1));
    const kac_tensor split = kac_tensor_split(x, 2, heads);
    KAC_TRY(kac_attention(c, &a, kac_tensor_split(zero, 2, heads), split, split, (kac_attention_opt){.scale = 1}));
    int *rows = kac_alloc((size_t)n * sizeof *rows);
    if (rows == NULL) return KAC_E_MEMORY;
    kac_tensor position = KAC_NONE, mean = KAC_NONE;
    kac_status s = kac_gather(c, &position, m->position, rows, (int)n); /* row 0 for everybody */
    kac_free(rows);
    KAC_TRY(s);
    KAC_TRY(kac_add(c, &mean, kac_tensor_reshape(a, n, 1, width), kac_tensor_reshape(position, n, 1, width)));
    KAC_TRY(kac_concat(c, &all, mean, x, 1));
    KAC_TRY(kac_nn_linear_run(c, &q, &m->q, mean, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_nn_linear_run(c, &kv, &m->kv, all, KAC_ACT_NONE, KAC_NONE));
    KAC_ASSERT(kv.shape[1] == n_all);
    kac_tensor pooled = KAC_NONE;
    KAC_TRY(kac_attention(c, &pooled, kac_tensor_split(q, 2, heads),
                          kac_tensor_split(kac_tensor_slice(kv, 2, 0, width), 2, heads),
                          kac_tensor_split(kac_tensor_slice(kv, 2, width, width), 2, heads),
                          (kac_attention_opt){.scale = 1 / sqrt((double)(width / heads))}));
    KAC_TRY(kac_nn_linear_run(c, &y, &m->proj, kac_tensor_reshape(pooled, n, width), KAC_ACT_NONE, KAC_NONE));
    return kac_nn_norm_run(c, out, &m->norm2, y, KAC_ACT_NONE);
}

/* ---- the whole ---- */

/* What a prompt adds to the time embedding, and stands beside it. */
static kac_status condition_time(kac_unet_cond *cond, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in) {
    const kac_unet_config *cfg = &u->cfg;
    kac_tensor class_rows = KAC_NONE, added = KAC_NONE;
    if (cfg->time_cond_dim > 0 && in->timestep_cond.data != NULL) {
        kac_tensor guidance = in->timestep_cond;
        KAC_TRY(check_rows(guidance, cond->n, cfg->time_cond_dim, "timestep_cond"));
        KAC_TRY(kac_nn_cast(c, &guidance));
        KAC_TRY(kac_nn_linear_run(c, &cond->wave_add, &u->time_cond, guidance, KAC_ACT_NONE, KAC_NONE));
    }
    if (cfg->class_embed != KAC_CLASS_EMBED_NONE) {
        KAC_TRY(embed_classes(&class_rows, u, c, in, cond->n));
        KAC_TRY(kac_tap(c, class_rows, "class_embedding"));
    }
    if (cfg->addition != KAC_ADDITION_NONE) {
        KAC_TRY(cfg->addition == KAC_ADDITION_TEXT ? pool_text(&added, u, c, in->tokens)
                                                   : text_and_sizes(&added, u, c, in, cond->n));
        KAC_TRY(kac_tap(c, added, "add_embedding"));
    }
    kac_tensor *to = cfg->class_concat ? &cond->time_more : &cond->time_add;
    if (class_rows.data != NULL && added.data != NULL) return kac_add(c, to, class_rows, added);
    if (class_rows.data != NULL || added.data != NULL)
        return kac_copy(c, to, class_rows.data != NULL ? class_rows : added);
    return KAC_OK;
}

static kac_status condition_block(kac_ctx *c, const kac_unet_block *b, kac_unet_cond *cond, kac_tensor tokens) {
    if (b->type != KAC_BLOCK_CROSS_ATTN) return KAC_OK;
    for (int i = 0; i < b->n_attentions; i++)
        KAC_TRY(kac_nn_transformer_condition(c, &b->transformer[i], cond->kv, tokens));
    return KAC_OK;
}

static kac_status condition_attention(kac_unet_cond *cond, const kac_unet *u, kac_ctx *c, kac_tensor tokens) {
    if (u->cfg.text_dim > 0) {
        kac_tensor projected = KAC_NONE;
        KAC_TRY(kac_nn_linear_run(c, &projected, &u->text_projection, tokens, KAC_ACT_NONE, KAC_NONE));
        KAC_TRY(kac_tap(c, projected, "encoder_hid_proj"));
        tokens = projected;
    }
    for (int i = 0; i < u->cfg.n_blocks; i++) KAC_TRY(condition_block(c, &u->down[i], cond, tokens));
    KAC_TRY(condition_block(c, &u->mid, cond, tokens));
    for (int i = 0; i < u->cfg.n_blocks; i++) KAC_TRY(condition_block(c, &u->up[i], cond, tokens));
    return KAC_OK;
}

/* Room in c->run for the rows that condition_time leaves. */
static kac_status take_rows(kac_unet_cond *cond, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in) {
    const kac_unet_config *cfg = &u->cfg;
    if (cfg->time_cond_dim > 0 && in->timestep_cond.data != NULL)
        KAC_TRY(kac_take_make(&cond->wave_add, &c->run, c->dtype, cond->n, cfg->wave_dim));
    if (cfg->class_embed == KAC_CLASS_EMBED_NONE && cfg->addition == KAC_ADDITION_NONE) return KAC_OK;
    return kac_take_make(cfg->class_concat ? &cond->time_more : &cond->time_add, &c->run, c->dtype, cond->n,
                         cfg->time_dim);
}

static kac_status condition_all(kac_unet_cond *cond, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in) {
    kac_unet_inputs own = *in;
    KAC_TRY(take_rows(cond, u, c, in));
    if (own.tokens.data != NULL) KAC_TRY(kac_nn_cast(c, &own.tokens));
    KAC_TRY(condition_time(cond, u, c, &own));
    return u->n_kv > 0 ? condition_attention(cond, u, c, own.tokens) : KAC_OK;
}

static kac_status check_tokens(const kac_unet *u, kac_tensor tokens) {
    const kac_unet_config *cfg = &u->cfg;
    if (u->n_kv == 0 && cfg->addition != KAC_ADDITION_TEXT && tokens.data == NULL) return KAC_OK;
    if (tokens.rank != 3 || tokens.shape[0] < 1 || tokens.shape[1] < 1)
        return KAC_FAIL(KAC_E_SHAPE, "the prompt's hidden states must be [prompts, tokens, width]");
    for (int i = 0; i < cfg->n_blocks; i++) {
        const int64_t want = cfg->text_dim > 0 ? cfg->text_dim : cfg->cross_dim[i];
        if ((u->n_kv > 0 || cfg->addition == KAC_ADDITION_TEXT) && tokens.shape[2] != want)
            return KAC_FAIL(KAC_E_SHAPE, "the prompt's hidden states are %lld wide, this UNet wants %s %lld",
                            (long long)tokens.shape[2], cfg->text_dim > 0 ? "encoder_hid_dim" : "cross_attention_dim",
                            (long long)want);
    }
    return KAC_OK;
}

kac_status kac_unet_condition(kac_unet_cond **out, const kac_unet *u, kac_ctx *c, const kac_unet_inputs *in) {
    *out = NULL;
    KAC_TRY(check_tokens(u, in->tokens));
    const int64_t n = in->tokens.data != NULL ? in->tokens.shape[0] : in->n;
    if (n < 1) return KAC_FAIL(KAC_E_SHAPE, "no rows to condition on");
    kac_unet_cond *cond = kac_alloc(sizeof *cond + (size_t)u->n_kv * sizeof cond->kv[0]);
    if (cond == NULL) return KAC_E_MEMORY;
    cond->n = n;
    cond->n_kv = u->n_kv;
    const size_t mark = kac_scope_open(c);
    const kac_status s = condition_all(cond, u, c, in);
    kac_scope_close(c, mark);
    if (s == KAC_OK)
        *out = cond;
    else
        kac_free(cond);
    return s;
}

void kac_unet_cond_free(kac_unet_cond *cond) {
    kac_free(cond);
}

int64_t kac_unet_cond_count(const kac_unet_cond *cond) {
    return cond->n;
}
