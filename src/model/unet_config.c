/* config.json of UNet2DConditionModel and UNet2DModel. Source of the keys and defaults: diffusers. */
#include "model/config.h"
#include "model/unet.h"

#include <string.h>

enum { MAX_CHANNELS = 1 << 16, MAX_DEPTH = 64 };

static kac_status block_type(const kac_json *j, const char *key, const char *name, bool up, kac_unet_block_type *out,
                             bool *resnet) {
    static const struct {
        const char *down, *up;
        kac_unet_block_type type;
        bool resnet;
    } types[] = {{"DownBlock2D", "UpBlock2D", KAC_BLOCK_PLAIN, false},
                 {"CrossAttnDownBlock2D", "CrossAttnUpBlock2D", KAC_BLOCK_CROSS_ATTN, false},
                 {"AttnDownBlock2D", "AttnUpBlock2D", KAC_BLOCK_ATTN, false},
                 {"ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", KAC_BLOCK_PLAIN, true}};
    const char *bare = strncmp(name, "UNetRes", 7) == 0 ? name + 7 : name; /* spelling of the oldest files */
    for (int i = 0; i < KAC_COUNT_OF(types); i++) {
        if (strcmp(up ? types[i].up : types[i].down, bare) != 0) continue;
        *out = types[i].type, *resnet = types[i].resnet;
        return KAC_OK;
    }
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"%s\" holds \"%s\", which is not supported (%s, %s, %s, %s)", j->name, key,
                    name, up ? types[0].up : types[0].down, up ? types[1].up : types[1].down,
                    up ? types[2].up : types[2].down, up ? types[3].up : types[3].down);
}

/* The lists that fix the number of blocks. */
static kac_status read_blocks(kac_unet_config *cfg, const kac_json *j) {
    const char *name[KAC_UNET_MAX_BLOCKS];
    int n = 0;
    KAC_TRY(kac_json_texts(j, j->root, "down_block_types", name, KAC_UNET_MAX_BLOCKS, &n));
    if (n > 0) cfg->n_blocks = n;
    for (int i = 0; i < n; i++)
        KAC_TRY(block_type(j, "down_block_types", name[i], false, &cfg->down[i], &cfg->resnet_down[i]));
    int n_up = 0, n_channels = 0;
    KAC_TRY(kac_json_texts(j, j->root, "up_block_types", name, KAC_UNET_MAX_BLOCKS, &n_up));
    for (int i = 0; i < n_up; i++)
        KAC_TRY(block_type(j, "up_block_types", name[i], true, &cfg->up[i], &cfg->resnet_up[i]));
    KAC_TRY(kac_config_list(j, "block_out_channels", cfg->channels, KAC_UNET_MAX_BLOCKS, &n_channels, 1, MAX_CHANNELS));
    if (n == 0) n = 4;
    if (n_up == 0) n_up = 4;
    if (n_channels == 0) n_channels = 4;
    if (n != n_up || n != n_channels)
        return KAC_FAIL(KAC_E_FORMAT,
                        "%s: %d down_block_types, %d up_block_types and %d block_out_channels do not fit together",
                        j->name, n, n_up, n_channels);
    return KAC_OK;
}

static kac_status read_mid(kac_unet_config *cfg, const kac_json *j) {
    const char *name = NULL;
    if (kac_config_is_null(j, "mid_block_type")) cfg->mid = KAC_BLOCK_NONE;
    KAC_TRY(kac_json_text(j, j->root, "mid_block_type", &name));
    if (name == NULL) return KAC_OK;
    if (strcmp(name, "UNetMidBlock2D") == 0)
        cfg->mid = cfg->conditional ? KAC_BLOCK_PLAIN : KAC_BLOCK_ATTN;
    else if (strcmp(name, "UNetMidBlock2DCrossAttn") == 0 && cfg->conditional)
        cfg->mid = KAC_BLOCK_CROSS_ATTN;
    else
        return kac_config_unsupported(j, "mid_block_type", "UNetMidBlock2DCrossAttn, UNetMidBlock2D or null");
    return KAC_OK;
}

static kac_status read_sample_size(kac_unet_config *cfg, const kac_json *j) {
    int n = 0;
    KAC_TRY(kac_config_list(j, "sample_size", cfg->sample_size, 2, &n, 1, 1 << 14));
    if (n == 1) cfg->sample_size[1] = cfg->sample_size[0];
    return KAC_OK;
}

/* Keys that both classes have. */
static kac_status read_common(kac_unet_config *cfg, const kac_json *j) {
    KAC_TRY(read_blocks(cfg, j));
    KAC_TRY(read_mid(cfg, j));
    KAC_TRY(read_sample_size(cfg, j));
    KAC_TRY(kac_config_int(j, j->root, "in_channels", &cfg->in_channels, 1, 1024));
    KAC_TRY(kac_config_int(j, j->root, "out_channels", &cfg->out_channels, 1, 1024));
    KAC_TRY(kac_json_bool(j, j->root, "center_input_sample", &cfg->center_input));
    KAC_TRY(kac_json_bool(j, j->root, "flip_sin_to_cos", &cfg->flip_sin_to_cos));
    KAC_TRY(kac_json_real(j, j->root, "freq_shift", &cfg->freq_shift));
    KAC_TRY(kac_config_int(j, j->root, "downsample_padding", &cfg->down_pad, 0, 1));
    KAC_TRY(kac_json_real(j, j->root, "mid_block_scale_factor", &cfg->mid_scale));
    if (cfg->mid_scale == 0) return kac_config_unsupported(j, "mid_block_scale_factor", "it divides");
    KAC_TRY(kac_config_act(j, j->root, "act_fn", &cfg->act, false));
    if (kac_config_is_null(j, "norm_num_groups"))
        return kac_config_unsupported(j, "norm_num_groups", "a number is needed");
    KAC_TRY(kac_config_int(j, j->root, "norm_num_groups", &cfg->groups, 1, MAX_CHANNELS));
    KAC_TRY(kac_json_real(j, j->root, "norm_eps", &cfg->eps));
    const char *shift = "default";
    KAC_TRY(kac_json_text(j, j->root, "resnet_time_scale_shift", &shift));
    cfg->scale_shift = strcmp(shift, "scale_shift") == 0;
    if (!cfg->scale_shift && strcmp(shift, "default") != 0)
        return kac_config_unsupported(j, "resnet_time_scale_shift", "default or scale_shift");
    if (!(cfg->eps > 0)) return kac_config_unsupported(j, "norm_eps", "it must be positive");
    return KAC_OK;
}

/* The keys of the time embedding and of class labels. */
static kac_status read_time(kac_unet_config *cfg, const kac_json *j) {
    const char *type = "positional";
    KAC_TRY(kac_json_text(j, j->root, "time_embedding_type", &type));
    cfg->fourier = strcmp(type, "fourier") == 0;
    if (!cfg->fourier && strcmp(type, "positional") != 0)
        return kac_config_unsupported(j, "time_embedding_type", "positional or fourier");
    cfg->divide_by_time = cfg->fourier && !cfg->conditional;
    cfg->time_dim = (cfg->fourier && cfg->conditional ? 2 : 4) * cfg->channels[0];
    KAC_TRY(kac_config_int(j, j->root, "time_embedding_dim", &cfg->time_dim, 1, MAX_CHANNELS * 4));
    cfg->wave_dim = cfg->channels[0];
    if (cfg->fourier) cfg->wave_dim = cfg->conditional ? cfg->time_dim : 2 * cfg->channels[0];
    if (cfg->fourier && cfg->wave_dim % 2 != 0)
        return kac_config_unsupported(j, "time_embedding_dim", "it must be even");
    if (!cfg->fourier && (cfg->wave_dim < 2 || cfg->wave_dim / 2 - cfg->freq_shift == 0))
        return kac_config_unsupported(j, "freq_shift", "it leaves no time frequencies");
    return KAC_OK;
}

static kac_status read_class_embed(kac_unet_config *cfg, const kac_json *j) {
    static const struct {
        const char *name;
        kac_unet_class_embed kind;
    } kinds[] = {{"timestep", KAC_CLASS_EMBED_TIMESTEP},
                 {"identity", KAC_CLASS_EMBED_IDENTITY},
                 {"projection", KAC_CLASS_EMBED_PROJECTION},
                 {"simple_projection", KAC_CLASS_EMBED_SIMPLE}};
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "class_embed_type", &name));
    KAC_TRY(kac_config_optional(j, "num_class_embeds", &cfg->n_classes, 1, 1 << 24));
    KAC_TRY(kac_json_bool(j, j->root, "class_embeddings_concat", &cfg->class_concat));
    if (name == NULL) cfg->class_embed = cfg->n_classes > 0 ? KAC_CLASS_EMBED_TABLE : KAC_CLASS_EMBED_NONE;
    for (int i = 0; i < (cfg->conditional ? 4 : 2) && name != NULL; i++)
        if (strcmp(kinds[i].name, name) == 0) cfg->class_embed = kinds[i].kind;
    if (name != NULL && cfg->class_embed == KAC_CLASS_EMBED_NONE)
        return kac_config_unsupported(j, "class_embed_type",
                                      cfg->conditional ? "timestep, identity, projection, simple_projection"
                                                       : "timestep or identity");
    cfg->class_dim = cfg->time_dim;
    if (cfg->class_embed == KAC_CLASS_EMBED_PROJECTION || cfg->class_embed == KAC_CLASS_EMBED_SIMPLE) {
        cfg->class_dim = 0;
        KAC_TRY(kac_config_optional(j, "projection_class_embeddings_input_dim", &cfg->class_dim, 1, MAX_CHANNELS));
        if (cfg->class_dim == 0)
            return kac_config_unsupported(j, "projection_class_embeddings_input_dim", "class_embed_type needs it");
    }
    if (cfg->class_concat && cfg->class_embed == KAC_CLASS_EMBED_NONE)
        return kac_config_unsupported(j, "class_embeddings_concat", "there is no class embedding");
    return KAC_OK;
}

static kac_status read_addition(kac_unet_config *cfg, const kac_json *j) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "addition_embed_type", &name));
    if (name == NULL) return KAC_OK;
    if (strcmp(name, "text") == 0)
        cfg->addition = KAC_ADDITION_TEXT;
    else if (strcmp(name, "text_time") == 0)
        cfg->addition = KAC_ADDITION_TEXT_TIME;
    else
        return kac_config_unsupported(j, "addition_embed_type", "text or text_time");
    if (cfg->class_concat)
        return kac_config_unsupported(j, "addition_embed_type", "class_embeddings_concat makes the widths differ");
    if (cfg->addition == KAC_ADDITION_TEXT) {
        const int64_t width = cfg->text_dim > 0 ? cfg->text_dim : cfg->cross_dim[0];
        cfg->addition_heads = 64;
        KAC_TRY(kac_config_int(j, j->root, "addition_embed_type_num_heads", &cfg->addition_heads, 1, MAX_CHANNELS));
        return width % cfg->addition_heads == 0
                   ? KAC_OK
                   : kac_config_unsupported(j, "addition_embed_type_num_heads", "it does not divide the text's width");
    }
    KAC_TRY(kac_config_optional(j, "projection_class_embeddings_input_dim", &cfg->addition_dim, 1, MAX_CHANNELS));
    KAC_TRY(kac_config_optional(j, "addition_time_embed_dim", &cfg->addition_time_dim, 1, MAX_CHANNELS));
    if (cfg->addition_dim == 0)
        return kac_config_unsupported(j, "projection_class_embeddings_input_dim", "text_time needs it");
    return cfg->addition_time_dim >= 2 && cfg->addition_time_dim / 2 - cfg->freq_shift != 0
               ? KAC_OK
               : kac_config_unsupported(j, "addition_time_embed_dim", "text_time needs it, two at least");
}

static kac_status read_text(kac_unet_config *cfg, const kac_json *j) {
    KAC_TRY(kac_config_refuse(j, "encoder_hid_dim_type", "text_proj"));
    KAC_TRY(kac_config_optional(j, "encoder_hid_dim", &cfg->text_dim, 1, MAX_CHANNELS));
    if (cfg->text_dim == 0 && cJSON_IsString(cJSON_GetObjectItemCaseSensitive(j->root, "encoder_hid_dim_type")))
        return kac_config_unsupported(j, "encoder_hid_dim_type", "encoder_hid_dim is missing");
    for (int i = 1; i < cfg->n_blocks && cfg->text_dim > 0; i++)
        if (cfg->cross_dim[i] != cfg->cross_dim[0])
            return kac_config_unsupported(j, "cross_attention_dim", "one number is needed beside encoder_hid_dim");
    return kac_config_optional(j, "time_cond_proj_dim", &cfg->time_cond_dim, 1, MAX_CHANNELS);
}

/* How many transformer layers the attentions of one block have: a number for all, or one for each. */
static kac_status read_depth(const kac_json *j, const char *key, const cJSON *item, int n, int64_t *depth) {
    const bool list = cJSON_IsArray(item);
    if (list && cJSON_GetArraySize(item) < n)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" has a list of %d numbers for a block of %d attentions", j->name, key,
                        cJSON_GetArraySize(item), n);
    for (int i = 0; i < n; i++) {
        const cJSON *v = list ? cJSON_GetArrayItem(item, i) : item;
        if (!cJSON_IsNumber(v) || v->valuedouble != (int)v->valuedouble || v->valuedouble < 0 ||
            v->valuedouble > MAX_DEPTH)
            return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must hold whole numbers from 0 to %d", j->name, key, MAX_DEPTH);
        depth[i] = (int64_t)v->valuedouble;
    }
    return KAC_OK;
}

/* transformer_layers_per_block for the way down and the middle; the way up mirrors it or has a list of its own. */
static kac_status read_depths(kac_unet_config *cfg, const kac_json *j) {
    static const char *const down_key = "transformer_layers_per_block", *const up_key =
                                                                            "reverse_transformer_layers_per_block";
    const cJSON one = {.type = cJSON_Number, .valuedouble = 1},
                *down = cJSON_GetObjectItemCaseSensitive(j->root, down_key),
                *up = cJSON_GetObjectItemCaseSensitive(j->root, up_key);
    const int n = cfg->n_blocks;
    if (down == NULL || cJSON_IsNull(down)) down = &one;
    if (cJSON_IsNull(up)) up = NULL;
    if (cJSON_IsArray(down) && cJSON_GetArraySize(down) != n)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" has %d entries for %d blocks", j->name, down_key,
                        cJSON_GetArraySize(down), n);
    if (up != NULL && (!cJSON_IsArray(up) || cJSON_GetArraySize(up) != n))
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must be a list of %d entries", j->name, up_key, n);
    for (int i = 0; i < n; i++) {
        const cJSON *here = cJSON_IsArray(down) ? cJSON_GetArrayItem(down, i) : down;
        const cJSON *above = up != NULL ? cJSON_GetArrayItem(up, n - 1 - i) : here;
        if (up == NULL && cJSON_IsArray(here))
            return KAC_FAIL(KAC_E_FORMAT, "%s: lists inside \"%s\" need \"%s\" beside them", j->name, down_key, up_key);
        KAC_TRY(read_depth(j, down_key, here, (int)cfg->layers[i], cfg->depth_down[i]));
        KAC_TRY(
            read_depth(j, up != NULL ? up_key : down_key, above, (int)cfg->layers[i] + 1, cfg->depth_up[n - 1 - i]));
        if (i == n - 1) KAC_TRY(read_depth(j, down_key, here, 1, &cfg->depth_mid));
    }
    return KAC_OK;
}

/* true, false, or one per block. */
static kac_status read_only_cross(kac_unet_config *cfg, const kac_json *j) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, "only_cross_attention");
    if (!cJSON_IsArray(v)) {
        bool all = false;
        KAC_TRY(kac_json_bool(j, j->root, "only_cross_attention", &all));
        for (int i = 0; i < cfg->n_blocks; i++) cfg->only_cross[i] = all;
        return KAC_OK;
    }
    if (cJSON_GetArraySize(v) != cfg->n_blocks)
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"only_cross_attention\" has %d entries for %d blocks", j->name,
                        cJSON_GetArraySize(v), cfg->n_blocks);
    int i = 0;
    for (const cJSON *item = v->child; item != NULL; item = item->next, i++) {
        if (!cJSON_IsBool(item))
            return KAC_FAIL(KAC_E_FORMAT, "%s: \"only_cross_attention\" must hold true or false", j->name);
        cfg->only_cross[i] = cJSON_IsTrue(item);
    }
    return KAC_OK;
}

static kac_status refuse_conditional(const kac_json *j) {
    KAC_TRY(kac_config_refuse(j, "dual_cross_attention", NULL));
    KAC_TRY(kac_config_refuse(j, "num_attention_heads", NULL));
    return kac_config_refuse(j, "attention_type", "default");
}

static kac_status read_conditional(kac_unet_config *cfg, const kac_json *j) {
    const kac_unet_block_type cross = KAC_BLOCK_CROSS_ATTN, plain = KAC_BLOCK_PLAIN;
    *cfg = (kac_unet_config){.conditional = true,
                             .in_channels = 4,
                             .out_channels = 4,
                             .flip_sin_to_cos = true,
                             .n_blocks = 4,
                             .down = {cross, cross, cross, plain},
                             .mid = cross,
                             .up = {plain, cross, cross, cross},
                             .channels = {320, 640, 1280, 1280},
                             .down_pad = 1,
                             .mid_scale = 1,
                             .act = KAC_ACT_SILU,
                             .groups = 32,
                             .eps = 1e-5,
                             .resnet_out_scale = 1,
                             .conv_in_kernel = 3,
                             .conv_out_kernel = 3};
    KAC_TRY(refuse_conditional(j));
    KAC_TRY(read_common(cfg, j));
    for (int i = 0; i < cfg->n_blocks; i++) {
        cfg->layers[i] = 2;
        cfg->heads[i] = 8;
        cfg->cross_dim[i] = 1280;
    }
    KAC_TRY(kac_config_per_block(j, "layers_per_block", cfg->layers, cfg->n_blocks, 1, KAC_UNET_MAX_LAYERS));
    KAC_TRY(read_depths(cfg, j));
    KAC_TRY(kac_config_per_block(j, "attention_head_dim", cfg->heads, cfg->n_blocks, 1, MAX_CHANNELS));
    KAC_TRY(kac_config_per_block(j, "cross_attention_dim", cfg->cross_dim, cfg->n_blocks, 1, MAX_CHANNELS));
    KAC_TRY(read_only_cross(cfg, j));
    /* In Attn blocks the same key is a true head size, and the list is not turned round for the up blocks. */
    for (int i = 0; i < cfg->n_blocks; i++) cfg->head_dim_down[i] = cfg->head_dim_up[i] = cfg->heads[i];
    KAC_TRY(kac_json_bool(j, j->root, "use_linear_projection", &cfg->linear_projection));
    KAC_TRY(kac_config_int(j, j->root, "conv_in_kernel", &cfg->conv_in_kernel, 1, 15));
    KAC_TRY(kac_config_int(j, j->root, "conv_out_kernel", &cfg->conv_out_kernel, 1, 15));
    if (cfg->conv_in_kernel % 2 == 0) return kac_config_unsupported(j, "conv_in_kernel", "it must be odd");
    if (cfg->conv_out_kernel % 2 == 0) return kac_config_unsupported(j, "conv_out_kernel", "it must be odd");
    KAC_TRY(kac_json_real(j, j->root, "resnet_out_scale_factor", &cfg->resnet_out_scale));
    if (cfg->resnet_out_scale == 0) return kac_config_unsupported(j, "resnet_out_scale_factor", "it divides");
    KAC_TRY(kac_json_bool(j, j->root, "resnet_skip_time_act", &cfg->skip_time_act));
    KAC_TRY(read_time(cfg, j));
    KAC_TRY(read_text(cfg, j));
    KAC_TRY(read_class_embed(cfg, j));
    KAC_TRY(read_addition(cfg, j));
    cfg->head_act = cfg->act;
    KAC_TRY(kac_config_act(j, j->root, "timestep_post_act", &cfg->time_mlp_post, false));
    return kac_config_act(j, j->root, "time_embedding_act_fn", &cfg->time_post, false);
}

static kac_status sampler_type(const kac_json *j, const char *key, bool *resnet) {
    const char *name = "conv";
    KAC_TRY(kac_json_text(j, j->root, key, &name));
    *resnet = strcmp(name, "resnet") == 0;
    return *resnet || strcmp(name, "conv") == 0 ? KAC_OK : kac_config_unsupported(j, key, "conv or resnet");
}

static kac_status read_unconditional(kac_unet_config *cfg, const kac_json *j) {
    const kac_unet_block_type attn = KAC_BLOCK_ATTN, plain = KAC_BLOCK_PLAIN;
    *cfg = (kac_unet_config){.in_channels = 3,
                             .out_channels = 3,
                             .flip_sin_to_cos = true,
                             .n_blocks = 4,
                             .down = {plain, attn, attn, attn},
                             .mid = attn,
                             .up = {attn, attn, attn, plain},
                             .channels = {224, 448, 672, 896},
                             .down_pad = 1,
                             .mid_scale = 1,
                             .act = KAC_ACT_SILU,
                             .head_act = KAC_ACT_SILU,
                             .groups = 32,
                             .eps = 1e-5,
                             .resnet_out_scale = 1,
                             .conv_in_kernel = 3,
                             .conv_out_kernel = 3};
    KAC_TRY(read_common(cfg, j));
    for (int i = 0; i < cfg->n_blocks; i++)
        if (cfg->down[i] == KAC_BLOCK_CROSS_ATTN || cfg->up[i] == KAC_BLOCK_CROSS_ATTN)
            return kac_config_unsupported(j,
                                          cfg->down[i] == KAC_BLOCK_CROSS_ATTN ? "down_block_types" : "up_block_types",
                                          "an unconditional network has no prompt to attend to");
    int64_t layers = 2, head_dim = 8;
    KAC_TRY(kac_config_int(j, j->root, "layers_per_block", &layers, 1, KAC_UNET_MAX_LAYERS));
    KAC_TRY(kac_config_int(j, j->root, "attention_head_dim", &head_dim, 1, MAX_CHANNELS));
    const bool one_head = kac_config_is_null(j, "attention_head_dim");
    const int n = cfg->n_blocks;
    for (int i = 0; i < n; i++) {
        cfg->layers[i] = layers;
        cfg->head_dim_down[i] = one_head ? cfg->channels[i] : head_dim;
        cfg->head_dim_up[i] = one_head ? cfg->channels[n - 1 - i] : head_dim;
    }
    cfg->head_dim_mid = one_head ? cfg->channels[n - 1] : head_dim;
    /* Without the key the middle attention has a norm only where the time embedding is added, not where it scales. */
    cfg->mid_attn_groups = cfg->scale_shift ? 0 : cfg->groups;
    KAC_TRY(kac_config_int(j, j->root, "attn_norm_num_groups", &cfg->mid_attn_groups, 0, MAX_CHANNELS));
    bool add_attention = true;
    KAC_TRY(kac_json_bool(j, j->root, "add_attention", &add_attention));
    if (!add_attention && cfg->mid == KAC_BLOCK_ATTN) cfg->head_dim_mid = 0;
    KAC_TRY(read_time(cfg, j));
    KAC_TRY(read_class_embed(cfg, j));
    KAC_TRY(sampler_type(j, "downsample_type", &cfg->resnet_samplers_down));
    return sampler_type(j, "upsample_type", &cfg->resnet_samplers_up);
}

kac_status kac_unet_config_read(kac_unet_config *cfg, const kac_json *j) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "_class_name", &name));
    if (name == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s lacks \"_class_name\": is this the folder of a UNet?", j->name);
    if (strcmp(name, "UNet2DConditionModel") == 0 || strcmp(name, "FlaxUNet2DConditionModel") == 0)
        return read_conditional(cfg, j);
    if (strcmp(name, "UNet2DModel") == 0) return read_unconditional(cfg, j);
    return kac_config_unsupported(j, "_class_name", "UNet2DConditionModel or UNet2DModel");
}

kac_status kac_unet_config_load(kac_unet_config *cfg, const char *dir) {
    kac_json j;
    KAC_TRY(kac_config_open(&j, dir));
    const kac_status s = kac_unet_config_read(cfg, &j);
    kac_json_free(&j);
    return s;
}
