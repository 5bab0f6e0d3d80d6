#include "model/unet_net.h"

static kac_nn_resnet_opt resnet_opt(const kac_unet_config *cfg, int64_t n_in, int64_t n_out) {
    return (kac_nn_resnet_opt){.n_in = n_in,
                               .n_out = n_out,
                               .n_time = cfg->time_dim * (cfg->class_concat ? 2 : 1),
                               .groups = cfg->groups,
                               .eps = cfg->eps,
                               .out_scale = 1,
                               .act = cfg->act,
                               .scale_shift = cfg->scale_shift};
}

/* Those of ResnetDown/UpsampleBlock2D read two keys more. */
static kac_nn_resnet_opt block_opt(const kac_unet_config *cfg, const kac_unet_block *b, int64_t n_in) {
    kac_nn_resnet_opt o = resnet_opt(cfg, n_in, b->n_out);
    if (b->all_resnets) o.out_scale = cfg->resnet_out_scale, o.bare_time = cfg->skip_time_act;
    return o;
}

/* Attention i after resnet i, as the block's type has it. level counts down blocks; head_dim is for ATTN blocks, depth for CROSS_ATTN
 * blocks. */
static kac_status load_attention(kac_unet *u, const kac_loader *l, kac_unet_block *b, int i, int level,
                                 int64_t head_dim, int64_t depth) {
    const kac_unet_config *cfg = &u->cfg;
    const kac_path path = kac_path_of("%s.attentions.%d", b->path.s, i);
    if (b->type == KAC_BLOCK_PLAIN) return KAC_OK;
    b->n_attentions = i + 1;
    if (b->type == KAC_BLOCK_ATTN)
        return kac_nn_attention_load(l, &b->attention[i], path, b->n_out, head_dim, cfg->groups, cfg->eps, 1);
    const kac_nn_transformer_opt o = {.n = b->n_out,
                                      .heads = cfg->heads[level],
                                      .groups = cfg->groups,
                                      .cross_dim = cfg->cross_dim[level],
                                      .layers = depth,
                                      .only_cross = cfg->only_cross[level]};
    return kac_nn_transformer_load(l, &b->transformer[i], path, o, &u->n_kv);
}

static kac_status load_sampler(const kac_unet_config *cfg, const kac_loader *l, kac_unet_block *b, bool up) {
    b->has_sampler = true;
    b->sampler_is_resnet =
        b->all_resnets || (b->type == KAC_BLOCK_ATTN && (up ? cfg->resnet_samplers_up : cfg->resnet_samplers_down));
    b->sampler_path = kac_path_of("%s.%s.0", b->path.s, up ? "upsamplers" : "downsamplers");
    if (b->sampler_is_resnet) {
        kac_nn_resnet_opt o = block_opt(cfg, b, b->n_out);
        o.resample = up ? 1 : -1;
        return kac_nn_resnet_load(l, &b->sampler_resnet, b->sampler_path, o);
    }
    return kac_nn_conv_load(l, &b->sampler, kac_path_of("%s.conv", b->sampler_path.s).s, b->n_out, b->n_out, 3,
                            up ? 1 : 2, up ? 1 : (int)cfg->down_pad, true);
}

static kac_status load_down(kac_unet *u, const kac_loader *l, int i) {
    const kac_unet_config *cfg = &u->cfg;
    kac_unet_block *b = &u->down[i];
    b->path = kac_path_of("down_blocks.%d", i);
    b->type = cfg->down[i];
    b->all_resnets = cfg->resnet_down[i];
    b->n_out = cfg->channels[i];
    b->n_resnets = (int)cfg->layers[i];
    for (int k = 0; k < b->n_resnets; k++) {
        const int64_t n_in = k > 0 ? b->n_out : cfg->channels[i > 0 ? i - 1 : 0];
        KAC_TRY(
            kac_nn_resnet_load(l, &b->resnet[k], kac_path_of("%s.resnets.%d", b->path.s, k), block_opt(cfg, b, n_in)));
        KAC_TRY(load_attention(u, l, b, k, i, cfg->head_dim_down[i], cfg->depth_down[i][k]));
    }
    return i + 1 < cfg->n_blocks ? load_sampler(cfg, l, b, false) : KAC_OK;
}

static kac_status load_mid(kac_unet *u, const kac_loader *l) {
    const kac_unet_config *cfg = &u->cfg;
    kac_unet_block *b = &u->mid;
    b->path = kac_path_of("mid_block");
    b->type = cfg->mid;
    if (b->type == KAC_BLOCK_NONE) return KAC_OK;
    const int last = cfg->n_blocks - 1;
    b->n_out = cfg->channels[last];
    b->n_resnets = b->type == KAC_BLOCK_PLAIN ? 1 : 2;
    kac_nn_resnet_opt o = resnet_opt(cfg, b->n_out, b->n_out);
    o.out_scale = cfg->mid_scale;
    for (int k = 0; k < b->n_resnets; k++)
        KAC_TRY(kac_nn_resnet_load(l, &b->resnet[k], kac_path_of("mid_block.resnets.%d", k), o));
    const kac_path path = kac_path_of("mid_block.attentions.0");
    if (b->type == KAC_BLOCK_ATTN && cfg->head_dim_mid > 0) {
        b->n_attentions = 1;
        return kac_nn_attention_load(l, &b->attention[0], path, b->n_out, cfg->head_dim_mid, cfg->mid_attn_groups,
                                     cfg->eps, cfg->mid_scale);
    }
    if (b->type != KAC_BLOCK_CROSS_ATTN) return KAC_OK;
    b->n_attentions = 1;
    const kac_nn_transformer_opt t = {.n = b->n_out,
                                      .heads = cfg->heads[last],
                                      .groups = cfg->groups,
                                      .cross_dim = cfg->cross_dim[last],
                                      .layers = cfg->depth_mid};
    return kac_nn_transformer_load(l, &b->transformer[0], path, t, &u->n_kv);
}

static kac_status load_up(kac_unet *u, const kac_loader *l, int i) {
    const kac_unet_config *cfg = &u->cfg;
    const int last = cfg->n_blocks - 1, level = last - i;
    kac_unet_block *b = &u->up[i];
    b->path = kac_path_of("up_blocks.%d", i);
    b->type = cfg->up[i];
    b->all_resnets = cfg->resnet_up[i];
    b->n_out = cfg->channels[level];
    b->n_resnets = (int)cfg->layers[level] + 1;
    const int64_t n_before = cfg->channels[i > 0 ? level + 1 : last],
                  n_skip_last = cfg->channels[level > 0 ? level - 1 : 0];
    for (int k = 0; k < b->n_resnets; k++) {
        const int64_t n_in = (k == 0 ? n_before : b->n_out) + (k + 1 == b->n_resnets ? n_skip_last : b->n_out);
        KAC_TRY(
            kac_nn_resnet_load(l, &b->resnet[k], kac_path_of("%s.resnets.%d", b->path.s, k), block_opt(cfg, b, n_in)));
        KAC_TRY(load_attention(u, l, b, k, level, cfg->head_dim_up[i], cfg->depth_up[i][k]));
    }
    return i < last ? load_sampler(cfg, l, b, true) : KAC_OK;
}

/* ---- inputs ---- */

static kac_status load_mlp(const kac_loader *l, kac_unet_mlp *m, const char *path, int64_t n_in, int64_t n_out,
                           kac_act act) {
    m->act = act;
    KAC_TRY(kac_nn_linear_load(l, &m->in, kac_path_of("%s.linear_1", path).s, n_in, n_out, true));
    return kac_nn_linear_load(l, &m->out, kac_path_of("%s.linear_2", path).s, n_out, n_out, true);
}

static kac_status load_frequency(kac_unet *u, const kac_loader *l) {
    const int64_t n = u->cfg.wave_dim / 2;
    kac_tensor src, to;
    KAC_TRY(kac_loader_get(l, &src, "time_proj.weight", 1, &n));
    u->frequency = kac_alloc((size_t)n * sizeof *u->frequency);
    if (u->frequency == NULL) return KAC_E_MEMORY;
    to = kac_tensor_make(u->frequency, KAC_F32, n);
    return kac_copy(l->c, &to, src);
}

static kac_status load_text_pool(kac_unet *u, const kac_loader *l) {
    const kac_unet_config *cfg = &u->cfg;
    kac_unet_text_pool *m = &u->text_pool;
    const int64_t n = cfg->text_dim > 0 ? cfg->text_dim : cfg->cross_dim[0];
    const kac_path kv[2] = {kac_path_of("add_embedding.pool.k_proj"), kac_path_of("add_embedding.pool.v_proj")};
    KAC_TRY(kac_nn_layer_norm_load(l, &m->norm1, "add_embedding.norm1", n, 1e-5));
    KAC_TRY(kac_loader_table(l, &m->position, l->c->dtype, "add_embedding.pool.positional_embedding", 2,
                             (int64_t[]){1, n}));
    KAC_TRY(kac_nn_linear_load(l, &m->q, "add_embedding.pool.q_proj", n, n, true));
    KAC_TRY(kac_nn_linear_load_stack(l, &m->kv, kv, 2, n, n, true));
    KAC_TRY(kac_nn_linear_load(l, &m->proj, "add_embedding.proj", n, cfg->time_dim, true));
    return kac_nn_layer_norm_load(l, &m->norm2, "add_embedding.norm2", cfg->time_dim, 1e-5);
}

static kac_status load_class_embed(kac_unet *u, const kac_loader *l) {
    const kac_unet_config *cfg = &u->cfg;
    if (cfg->class_embed == KAC_CLASS_EMBED_TABLE)
        return kac_loader_table(l, &u->class_table, l->c->dtype, "class_embedding.weight", 2,
                                (int64_t[]){cfg->n_classes, cfg->time_dim});
    if (cfg->class_embed == KAC_CLASS_EMBED_TIMESTEP)
        return load_mlp(l, &u->class_mlp, "class_embedding", cfg->wave_dim, cfg->time_dim, cfg->head_act);
    if (cfg->class_embed == KAC_CLASS_EMBED_PROJECTION)
        return load_mlp(l, &u->class_mlp, "class_embedding", cfg->class_dim, cfg->time_dim, KAC_ACT_SILU);
    if (cfg->class_embed == KAC_CLASS_EMBED_SIMPLE)
        return kac_nn_linear_load(l, &u->class_simple, "class_embedding", cfg->class_dim, cfg->time_dim, true);
    return KAC_OK;
}

static kac_status load_inputs(kac_unet *u, const kac_loader *l) {
    const kac_unet_config *cfg = &u->cfg;
    if (cfg->fourier) KAC_TRY(load_frequency(u, l));
    KAC_TRY(load_mlp(l, &u->time, "time_embedding", cfg->wave_dim, cfg->time_dim, cfg->head_act));
    u->time.post = cfg->time_mlp_post;
    if (cfg->time_cond_dim > 0)
        KAC_TRY(
            kac_nn_linear_load(l, &u->time_cond, "time_embedding.cond_proj", cfg->time_cond_dim, cfg->wave_dim, false));
    if (cfg->text_dim > 0)
        KAC_TRY(kac_nn_linear_load(l, &u->text_projection, "encoder_hid_proj", cfg->text_dim, cfg->cross_dim[0], true));
    KAC_TRY(load_class_embed(u, l));
    if (cfg->addition == KAC_ADDITION_TEXT) return load_text_pool(u, l);
    if (cfg->addition == KAC_ADDITION_TEXT_TIME)
        return load_mlp(l, &u->addition, "add_embedding", cfg->addition_dim, cfg->time_dim, KAC_ACT_SILU);
    return KAC_OK;
}

static kac_status load_center(kac_unet *u, const kac_loader *l) {
    const int64_t n = u->cfg.in_channels;
    float *values = kac_alloc((size_t)(2 * n) * sizeof *values);
    if (values == NULL) return KAC_E_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        values[i] = 2;
        values[n + i] = -1;
    }
    kac_status s = kac_loader_constant(l, &u->center_scale, values, n);
    if (s == KAC_OK) s = kac_loader_constant(l, &u->center_shift, values + n, n);
    kac_free(values);
    return s;
}

static kac_status load_all(kac_unet *u, const kac_loader *l) {
    const kac_unet_config *cfg = &u->cfg;
    if (cfg->center_input) KAC_TRY(load_center(u, l));
    KAC_TRY(kac_nn_conv_load(l, &u->conv_in, "conv_in", cfg->in_channels, cfg->channels[0], (int)cfg->conv_in_kernel, 1,
                             -1, true));
    KAC_TRY(load_inputs(u, l));
    for (int i = 0; i < cfg->n_blocks; i++) KAC_TRY(load_down(u, l, i));
    KAC_TRY(load_mid(u, l));
    for (int i = 0; i < cfg->n_blocks; i++) KAC_TRY(load_up(u, l, i));
    KAC_TRY(kac_nn_group_norm_load(l, &u->norm_out, "conv_norm_out", cfg->channels[0], cfg->groups, cfg->eps));
    return kac_nn_conv_load(l, &u->conv_out, "conv_out", cfg->channels[0], cfg->out_channels, (int)cfg->conv_out_kernel,
                            1, -1, true);
}

kac_status kac_unet_load_from(kac_unet **out, kac_ctx *c, const kac_source *source) {
    *out = NULL;
    kac_unet *u = kac_alloc(sizeof *u);
    if (u == NULL) return KAC_E_MEMORY;
    const kac_loader l = kac_source_loader(source, c);
    kac_status s = kac_unet_config_read(&u->cfg, &source->config);
    if (s == KAC_OK) s = load_all(u, &l);
    if (s == KAC_OK)
        *out = u;
    else
        kac_unet_free(u);
    return s;
}

kac_status kac_unet_load(kac_unet **out, kac_ctx *c, const char *dir) {
    kac_source source;
    *out = NULL;
    KAC_TRY(kac_source_open_dir(&source, dir, "diffusion_pytorch_model"));
    const kac_status s = kac_unet_load_from(out, c, &source);
    kac_source_close(&source);
    return s;
}

static void free_block(kac_unet_block *b) {
    for (int i = 0; i < KAC_COUNT_OF(b->transformer); i++) kac_nn_transformer_free(&b->transformer[i]);
}

void kac_unet_free(kac_unet *u) {
    if (u == NULL) return;
    for (int i = 0; i < KAC_UNET_MAX_BLOCKS; i++) {
        free_block(&u->down[i]);
        free_block(&u->up[i]);
    }
    free_block(&u->mid);
    kac_free(u->frequency);
    kac_free(u);
}

const kac_unet_config *kac_unet_config_of(const kac_unet *u) {
    return &u->cfg;
}
