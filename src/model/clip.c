#include "model/clip_net.h"
#include "nn/scope.h"

enum { MAX_BATCH = 1024 };

/* Layers first … end − 1. */
static kac_status run_layers(kac_ctx *c, const kac_clip_tower *t, kac_tensor *h, int first, int end, bool causal) {
    for (int i = first; i < end; i++)
        KAC_TRY(kac_nn_encoder_layer_run(c, &t->layer[i], h, t->cfg.heads, t->cfg.act, causal,
                                         kac_path_of("%sencoder.layers.%d", t->path.s, i).s));
    return KAC_OK;
}

/* Where each row's text ends: the first end-of-text token, or, in the files of the old rule, the largest id. Without one: 0. */
static void find_ends(const kac_clip_config *cfg, const int32_t *ids, int n, int64_t n_tokens, int *row) {
    for (int i = 0; i < n; i++) {
        const int32_t *id = ids + i * n_tokens;
        int64_t at = 0;
        if (cfg->eos_id == 2) {
            for (int64_t t = 1; t < n_tokens; t++) /* tokens that were added are no ends, however large */
                if (id[t] > id[at] && id[t] < cfg->vocab_size) at = t;
        } else {
            while (at < n_tokens && id[at] != cfg->eos_id) at++;
            if (at == n_tokens) at = 0;
        }
        row[i] = (int)(i * n_tokens + at);
    }
}

static kac_status check_text(const kac_clip *m, const int32_t *ids, int64_t n, int64_t n_tokens, int clip_skip) {
    const kac_clip_config *cfg = &m->cfg;
    if (n < 1 || n > MAX_BATCH)
        return KAC_FAIL(KAC_E_SHAPE, "%lld texts at once; it must be between 1 and %d", (long long)n, MAX_BATCH);
    if (n_tokens < 1 || n_tokens > cfg->max_tokens)
        return KAC_FAIL(KAC_E_SHAPE, "%lld tokens; this text encoder reads 1 to %lld", (long long)n_tokens,
                        (long long)cfg->max_tokens);
    for (int64_t i = 0; i < n * n_tokens; i++)
        if (ids[i] < 0 || ids[i] >= m->token_table.shape[0])
            return KAC_FAIL(KAC_E_SHAPE, "token %d is outside this text encoder's vocabulary of %lld", ids[i],
                            (long long)m->token_table.shape[0]);
    if (clip_skip < 0 || clip_skip >= cfg->text.layers)
        return KAC_FAIL(KAC_E_USAGE, "clip skip %d; this text encoder has %lld layers", clip_skip,
                        (long long)cfg->text.layers);
    return KAC_OK;
}

/* out f32 = projection(pooled), of length 1 if asked. */
static kac_status project(kac_ctx *c, kac_tensor *out, const kac_nn_linear *projection, kac_tensor pooled,
                          bool normalized) {
    kac_tensor y = KAC_NONE, wide = normalized ? KAC_NONE : *out;
    KAC_TRY(kac_nn_linear_run(c, &y, projection, pooled, KAC_ACT_NONE, KAC_NONE));
    if (normalized) KAC_TRY(kac_take(&wide, &c->scratch, KAC_F32, out->rank, out->shape));
    KAC_TRY(kac_copy(c, &wide, y));
    return normalized ? kac_l2_normalize(c, out, wide) : KAC_OK;
}

/* hidden = the states before the last n_skip layers, normed or not. */
static kac_status text_states(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                              int64_t n_tokens, int n_skip, bool normed) {
    const int64_t width = m->cfg.text.width;
    const int n_layers = (int)m->cfg.text.layers;
    const bool is_last = normed && n_skip == 0;
    int end[MAX_BATCH];
    kac_tensor h = KAC_NONE, last = KAC_NONE;
    const kac_tensor id = kac_tensor_make((void *)(uintptr_t)ids, KAC_I32, n, n_tokens);
    KAC_TRY(kac_take_make(&h, &c->scratch, c->dtype, n, n_tokens, width));
    KAC_TRY(kac_embedding(c, &h, id, m->token_table, kac_tensor_slice(m->position_table, 0, 0, n_tokens)));
    KAC_TRY(kac_tap(c, h, "%sembeddings", m->text.path.s));
    KAC_TRY(run_layers(c, &m->text, &h, 0, n_layers - n_skip, true));
    if (!normed) KAC_TRY(kac_copy(c, &out->hidden, h));
    if (normed && !is_last) KAC_TRY(kac_nn_norm_run(c, &out->hidden, &m->final_norm, h, KAC_ACT_NONE));
    KAC_TRY(run_layers(c, &m->text, &h, n_layers - n_skip, n_layers, true));
    last = is_last ? out->hidden : KAC_NONE;
    KAC_TRY(kac_nn_norm_run(c, &last, &m->final_norm, h, KAC_ACT_NONE));
    KAC_TRY(kac_tap(c, last, "%sfinal_layer_norm", m->text.path.s));
    find_ends(&m->cfg, ids, (int)n, n_tokens, end);
    KAC_TRY(kac_gather(c, &out->pooled, kac_tensor_reshape(last, n * n_tokens, width), end, (int)n));
    if (out->embeds.data == NULL) return KAC_OK;
    KAC_TRY(project(c, &out->embeds, &m->text_projection, out->pooled, false));
    return kac_tap(c, out->embeds, "text_projection");
}

static kac_status run_text(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                           int64_t n_tokens, int n_skip, bool normed) {
    *out = (kac_clip_text_out){0};
    KAC_TRY(kac_take_make(&out->hidden, &c->scratch, c->dtype, n, n_tokens, m->cfg.text.width));
    KAC_TRY(kac_take_make(&out->pooled, &c->scratch, c->dtype, n, m->cfg.text.width));
    if (m->cfg.has_projection) KAC_TRY(kac_take_make(&out->embeds, &c->scratch, KAC_F32, n, m->cfg.projection));
    const size_t mark = kac_scope_open(c);
    const kac_status s = text_states(out, m, c, ids, n, n_tokens, n_skip, normed);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_clip_text(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                         int64_t n_tokens, int clip_skip) {
    KAC_TRY(check_text(m, ids, n, n_tokens, clip_skip));
    return run_text(out, m, c, ids, n, n_tokens, clip_skip, true);
}

kac_status kac_clip_text_penultimate(kac_clip_text_out *out, const kac_clip *m, kac_ctx *c, const int32_t *ids,
                                     int64_t n, int64_t n_tokens, int clip_skip) {
    KAC_TRY(check_text(m, ids, n, n_tokens, clip_skip));
    return run_text(out, m, c, ids, n, n_tokens, clip_skip + 1, false);
}

kac_status kac_clip_text_embeds(kac_tensor *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                                int64_t n_tokens, bool normalized) {
    if (!m->cfg.has_projection) return KAC_FAIL(KAC_E_UNSUPPORTED, "this text encoder has no projection to embeddings");
    KAC_TRY(check_text(m, ids, n, n_tokens, 0));
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, n, m->cfg.projection));
    const size_t mark = kac_scope_open(c);
    kac_clip_text_out states;
    kac_status s = run_text(&states, m, c, ids, n, n_tokens, 0, true);
    if (s == KAC_OK) s = normalized ? kac_l2_normalize(c, out, states.embeds) : kac_copy(c, out, states.embeds);
    kac_scope_close(c, mark);
    return s;
}

/* The vision tower's last states, without a norm behind them. */
static kac_status run_vision(const kac_clip *m, kac_ctx *c, kac_tensor *x, kac_tensor pixels) {
    kac_tensor h = KAC_NONE;
    KAC_TRY(kac_nn_patches_run(c, &h, &m->patches, pixels));
    KAC_TRY(kac_tap(c, h, "vision_model.embeddings"));
    *x = kac_scope_reuse(c, h);
    KAC_TRY(kac_nn_norm_run(c, x, &m->pre_norm, h, KAC_ACT_NONE));
    KAC_TRY(kac_tap(c, *x, "vision_model.pre_layrnorm"));
    return run_layers(c, &m->vision, x, 0, (int)m->cfg.vision.layers, false);
}

static kac_status image_states(const kac_clip *m, kac_ctx *c, kac_tensor *out, kac_tensor pixels, bool normalized) {
    kac_tensor x = KAC_NONE, pooled = KAC_NONE;
    KAC_TRY(run_vision(m, c, &x, pixels));
    const int64_t n = x.shape[0], width = x.shape[2];
    kac_tensor first = KAC_NONE;
    KAC_TRY(kac_take_make(&first, &c->scratch, c->dtype, n, 1, width));
    KAC_TRY(kac_copy(c, &first, kac_tensor_slice(x, 1, 0, 1)));
    KAC_TRY(kac_nn_norm_run(c, &pooled, &m->post_norm, kac_tensor_reshape(first, n, width), KAC_ACT_NONE));
    KAC_TRY(kac_tap(c, pooled, "vision_model.post_layernorm"));
    return project(c, out, &m->visual_projection, pooled, normalized);
}

static kac_status check_pixels(const kac_clip *m, kac_tensor pixels) {
    const kac_clip_config *cfg = &m->cfg;
    if (!cfg->has_vision) return KAC_FAIL(KAC_E_UNSUPPORTED, "this CLIP has no vision part");
    if (pixels.rank != 4 || pixels.shape[1] != cfg->image_size || pixels.shape[2] != cfg->image_size ||
        pixels.shape[3] != cfg->image_channels)
        return KAC_FAIL(KAC_E_SHAPE, "this CLIP wants images of %lldx%lld with %lld channels",
                        (long long)cfg->image_size, (long long)cfg->image_size, (long long)cfg->image_channels);
    const int64_t n = pixels.shape[0];
    return n >= 1 && n <= MAX_BATCH
               ? KAC_OK
               : KAC_FAIL(KAC_E_SHAPE, "%lld images at once; it must be between 1 and %d", (long long)n, MAX_BATCH);
}

kac_status kac_clip_image_embeds(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor pixels, bool normalized) {
    KAC_TRY(check_pixels(m, pixels));
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, pixels.shape[0], m->cfg.projection));
    const size_t mark = kac_scope_open(c);
    const kac_status s = image_states(m, c, out, pixels, normalized);
    kac_scope_close(c, mark);
    return s;
}

kac_status kac_clip_image_tokens(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor pixels) {
    KAC_TRY(check_pixels(m, pixels));
    const int64_t side = m->patches.side;
    kac_tensor x = KAC_NONE;
    if (out->data == NULL)
        KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, pixels.shape[0], 1 + side * side, m->cfg.projection));
    const size_t mark = kac_scope_open(c);
    KAC_TRY(run_vision(m, c, &x, pixels));
    KAC_TRY(kac_nn_linear_run(c, out, &m->visual_projection, x, KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_clip_text_tokens(kac_tensor *out, const kac_clip *m, kac_ctx *c, const int32_t *ids, int64_t n,
                                int64_t n_tokens) {
    if (!m->cfg.has_projection) return KAC_FAIL(KAC_E_UNSUPPORTED, "this text encoder has no projection to embeddings");
    KAC_TRY(check_text(m, ids, n, n_tokens, 0));
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, n, n_tokens, m->cfg.projection));
    const size_t mark = kac_scope_open(c);
    kac_clip_text_out states;
    KAC_TRY(run_text(&states, m, c, ids, n, n_tokens, 0, true));
    KAC_TRY(kac_nn_linear_run(c, out, &m->text_projection, states.hidden, KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark);
    return KAC_OK;
}

kac_status kac_clip_logits(kac_tensor *out, const kac_clip *m, kac_ctx *c, kac_tensor image, kac_tensor text) {
    return kac_matmul_t(c, out, image, text, m->cfg.logit_scale);
}
