#include "model/ldm_names.h"
#include <stdio.h>
#include <string.h>

enum { MAX_LEVELS = 8, MAX_LAYERS = 8, MAX_BLOCKS = 96 };

/* One of input_blocks or output_blocks. */
typedef struct block {
    int level;    /* of the block, counted in the order of the list */
    int index;    /* of the resnet within its level */
    bool sampler; /* input_blocks: nothing but the downsampler */
    int depth;    /* transformer layers; 0: no attention */
} block;

typedef struct layout {
    block in[MAX_BLOCKS], out[MAX_BLOCKS];
    int n_in, n_out, n_levels;
    int64_t channels[MAX_LEVELS], layers[MAX_LEVELS];
    int mid_depth; /* −1: no middle block; 0: no attention in it */
    bool linear;
    int64_t cross_dim;
} layout;

static kac_status unknown(const kac_ldm_names *n, const char *name) {
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%.100s\" belongs to no UNet of Stable Diffusion 1, 2 or XL",
                    n->path, name);
}

static int depth_of(const kac_ldm_names *n, const char *module) {
    int depth = 0;
    if (kac_ldm_find(n, "%s.norm.weight", module) == NULL) return 0;
    while (depth < 64 && kac_ldm_find(n, "%s.transformer_blocks.%d.norm1.weight", module, depth) != NULL) depth++;
    return depth;
}

/* The first attention says how all are made. */
static void note_attention(const kac_ldm_names *n, layout *l, const char *module) {
    if (l->cross_dim > 0) return;
    const kac_weights_entry *proj = kac_ldm_find(n, "%s.proj_in.weight", module);
    l->linear = proj != NULL && proj->rank == 2;
    l->cross_dim = kac_ldm_size(n, 1, "%s.transformer_blocks.0.attn2.to_k.weight", module);
}

/* Block i of a list; false behind the last one. */
static bool read_block(const kac_ldm_names *n, layout *l, block *b, const char *list, int i) {
    char module[64];
    if (kac_ldm_find(n, "%s.%d.0.op.weight", list, i) != NULL) {
        b->sampler = true;
        return true;
    }
    if (kac_ldm_find(n, "%s.%d.0.in_layers.0.weight", list, i) == NULL) return false;
    snprintf(module, sizeof module, "%s.%d.1", list, i);
    b->depth = depth_of(n, module);
    if (b->depth > 0) note_attention(n, l, module);
    return true;
}

static kac_status read_down(const kac_ldm_names *n, layout *l) {
    int level = 0, index = 0;
    for (l->n_in = 1; l->n_in < MAX_BLOCKS; l->n_in++) {
        block *b = &l->in[l->n_in];
        if (!read_block(n, l, b, "input_blocks", l->n_in)) break;
        b->level = level;
        b->index = index;
        if (b->sampler) {
            level++;
            index = 0;
        } else {
            l->channels[level] = kac_ldm_size(n, 0, "input_blocks.%d.0.out_layers.3.weight", l->n_in);
            l->layers[level] = ++index;
        }
        if (level == MAX_LEVELS || index > MAX_LAYERS)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: its UNet has more than %d levels or %d layers in one", n->path,
                            MAX_LEVELS, MAX_LAYERS);
    }
    l->n_levels = level + 1;
    for (int i = 0; i < l->n_levels; i++)
        if (l->layers[i] == 0 || l->channels[i] == 0)
            return KAC_FAIL(KAC_E_FORMAT, "%s: its UNet's input_blocks are incomplete at level %d", n->path, i);
    return KAC_OK;
}

static kac_status read_up(const kac_ldm_names *n, layout *l) {
    int level = 0, index = 0;
    for (l->n_out = 0; l->n_out < MAX_BLOCKS; l->n_out++) {
        block *b = &l->out[l->n_out];
        if (level == l->n_levels || !read_block(n, l, b, "output_blocks", l->n_out)) break;
        b->level = level;
        b->index = index;
        if (++index > l->layers[l->n_levels - 1 - level]) level++, index = 0;
    }
    if (level != l->n_levels || kac_ldm_find(n, "output_blocks.%d.0.in_layers.0.weight", l->n_out) != NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: its UNet has %d output_blocks, which do not fit its input_blocks", n->path,
                        l->n_out);
    return KAC_OK;
}

static void read_middle(const kac_ldm_names *n, layout *l) {
    l->mid_depth = kac_ldm_find(n, "middle_block.0.in_layers.0.weight") == NULL ? -1 : depth_of(n, "middle_block.1");
    if (l->mid_depth > 0) note_attention(n, l, "middle_block.1");
}

/* ---- config ---- */

/* Depths of one level as a number or, when they differ, a list. */
static cJSON *depth_item(const block *blocks, int n_blocks, int level, int otherwise, bool *differ) {
    int first = -1;
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n_blocks; i++) {
        if (blocks[i].level != level || blocks[i].sampler) continue;
        cJSON_AddItemToArray(list, cJSON_CreateNumber(blocks[i].depth));
        if (first >= 0 && blocks[i].depth != first) *differ = true;
        if (first < 0) first = blocks[i].depth;
    }
    if (*differ) return list;
    cJSON_Delete(list);
    return cJSON_CreateNumber(first > 0 ? first : otherwise);
}

static void add_depths(cJSON *config, const layout *l) {
    bool differ = false;
    const int last = l->n_levels - 1, mid = KAC_MAX(l->mid_depth, 1);
    cJSON *down = cJSON_AddArrayToObject(config, "transformer_layers_per_block"), *up = cJSON_CreateArray();
    for (int i = 0; i <= last; i++) {
        bool here = false, above = false;
        cJSON_AddItemToArray(down, depth_item(l->in + 1, l->n_in - 1, i, i == last ? mid : 1, &here));
        cJSON_AddItemToArray(up, depth_item(l->out, l->n_out, i, i == 0 ? mid : 1, &above));
        differ |= here || above;
    }
    for (int i = 0; i <= last; i++) {
        const cJSON *a = cJSON_GetArrayItem(down, i), *b = cJSON_GetArrayItem(up, last - i);
        if (cJSON_IsNumber(a) && cJSON_IsNumber(b) && a->valuedouble != b->valuedouble && a->valuedouble != 1 &&
            b->valuedouble != 1)
            differ = true;
    }
    if (differ)
        cJSON_AddItemToObject(config, "reverse_transformer_layers_per_block", up);
    else
        cJSON_Delete(up);
}

static void add_blocks(cJSON *config, const layout *l) {
    const char *down[MAX_LEVELS], *up[MAX_LEVELS];
    for (int i = 0; i < l->n_levels; i++) down[i] = "DownBlock2D", up[i] = "UpBlock2D";
    for (int i = 1; i < l->n_in; i++)
        if (l->in[i].depth > 0) down[l->in[i].level] = "CrossAttnDownBlock2D";
    for (int i = 0; i < l->n_out; i++)
        if (l->out[i].depth > 0) up[l->out[i].level] = "CrossAttnUpBlock2D";
    kac_ldm_add_texts(config, "down_block_types", down, l->n_levels);
    kac_ldm_add_texts(config, "up_block_types", up, l->n_levels);
    if (l->mid_depth < 0)
        cJSON_AddNullToObject(config, "mid_block_type");
    else
        cJSON_AddStringToObject(config, "mid_block_type",
                                l->mid_depth > 0 ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D");
    kac_ldm_add_ints(config, "block_out_channels", l->channels, l->n_levels);
    bool even = true;
    for (int i = 1; i < l->n_levels; i++) even &= l->layers[i] == l->layers[0];
    kac_ldm_add_ints(config, "layers_per_block", l->layers, even ? 1 : l->n_levels);
    if (even) {
        cJSON *list = cJSON_DetachItemFromObject(config, "layers_per_block");
        cJSON_AddItemToObject(config, "layers_per_block", cJSON_DetachItemFromArray(list, 0));
        cJSON_Delete(list);
    }
}

/* SD 1 has 8 heads everywhere, the families with linear projections heads of 64; shapes do not say it. */
static void add_heads(cJSON *config, const layout *l) {
    int64_t heads[MAX_LEVELS];
    bool by_64 = l->linear, all_8 = true;
    for (int i = 0; i < l->n_levels; i++) {
        by_64 &= l->channels[i] % 64 == 0;
        all_8 &= l->channels[i] % 8 == 0;
    }
    for (int i = 0; i < l->n_levels; i++) heads[i] = by_64 ? l->channels[i] / 64 : all_8 ? 8 : 1;
    if (by_64)
        kac_ldm_add_ints(config, "attention_head_dim", heads, l->n_levels);
    else
        cJSON_AddNumberToObject(config, "attention_head_dim", (double)heads[0]);
}

/* SDXL: pooled text and 6 sizes (refiner: 4 and a score) of equal width, all together label_emb's input. */
static kac_status add_addition(const kac_ldm_names *n, const kac_ldm *m, cJSON *config) {
    const int64_t width = kac_ldm_size(n, 1, "label_emb.0.0.weight");
    if (width == 0) return KAC_OK;
    const bool refiner = m->family == KAC_LDM_REFINER;
    const kac_ldm_names text = {.in = n->in, .prefix = m->has_text_2 ? m->text_2 : ""};
    const int64_t pooled = m->has_text_2 ? kac_ldm_size(&text, 1, "text_projection") : 1280, sizes = refiner ? 5 : 6;
    if (pooled <= 0 || width <= pooled || (width - pooled) % (2 * sizes) != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: label_emb reads %lld numbers, which is not a text embedding of %lld and %lld sizes",
                        n->path, (long long)width, (long long)pooled, (long long)sizes);
    cJSON_AddStringToObject(config, "addition_embed_type", "text_time");
    cJSON_AddNumberToObject(config, "addition_time_embed_dim", (double)((width - pooled) / sizes));
    cJSON_AddNumberToObject(config, "projection_class_embeddings_input_dim", (double)width);
    return KAC_OK;
}

static kac_status write_config(kac_ldm_names *n, const kac_ldm *m, const layout *l) {
    cJSON *config = n->config;
    const int64_t time_cond = kac_ldm_size(n, 1, "time_embed.cond_proj.weight");
    cJSON_AddStringToObject(config, "_class_name", "UNet2DConditionModel");
    cJSON_AddNumberToObject(config, "sample_size",
                            m->family == KAC_LDM_XL || m->family == KAC_LDM_REFINER ? 128
                            : m->family == KAC_LDM_SD2 && m->v_prediction           ? 96
                                                                                    : 64);
    cJSON_AddNumberToObject(config, "in_channels", (double)kac_ldm_size(n, 1, "input_blocks.0.0.weight"));
    cJSON_AddNumberToObject(config, "out_channels", (double)kac_ldm_size(n, 0, "out.2.weight"));
    add_blocks(config, l);
    add_depths(config, l);
    add_heads(config, l);
    cJSON_AddNumberToObject(config, "norm_num_groups", (double)kac_ldm_groups(l->channels, l->n_levels));
    if (l->cross_dim > 0) cJSON_AddNumberToObject(config, "cross_attention_dim", (double)l->cross_dim);
    cJSON_AddBoolToObject(config, "use_linear_projection", l->linear);
    if (time_cond > 0) cJSON_AddNumberToObject(config, "time_cond_proj_dim", (double)time_cond);
    return add_addition(n, m, config);
}

/* ---- names ---- */

static const struct {
    const char *old, *now;
} outer[] = {{"input_blocks.0.0.", "conv_in."},
             {"time_embed.0.", "time_embedding.linear_1."},
             {"time_embed.2.", "time_embedding.linear_2."},
             {"time_embed.cond_proj.", "time_embedding.cond_proj."},
             {"label_emb.0.0.", "add_embedding.linear_1."},
             {"label_emb.0.2.", "add_embedding.linear_2."},
             {"out.0.", "conv_norm_out."},
             {"out.2.", "conv_out."}},
  resnet[] = {{"in_layers.0.", "norm1."},  {"in_layers.2.", "conv1."},  {"emb_layers.1.", "time_emb_proj."},
              {"out_layers.0.", "norm2."}, {"out_layers.3.", "conv2."}, {"skip_connection.", "conv_shortcut."}};

static kac_status put_resnet(kac_ldm_names *n, const kac_weights_entry *e, const char *module, const char *rest) {
    for (int i = 0; i < KAC_COUNT_OF(resnet); i++) {
        const size_t length = strlen(resnet[i].old);
        if (strncmp(rest, resnet[i].old, length) == 0)
            return kac_ldm_put(n, e, "%s.%s%s", module, resnet[i].now, rest + length);
    }
    return unknown(n, e->name);
}

/* input_blocks.I.K.rest, output_blocks.I.K.rest */
static kac_status put_block(kac_ldm_names *n, const layout *l, const kac_weights_entry *e, const char *name, bool up) {
    const char *rest = "";
    const int i = kac_ldm_number(name, 0, NULL), k = kac_ldm_number(name, 1, &rest);
    if (i < (up ? 0 : 1) || k < 0 || i >= (up ? l->n_out : l->n_in)) return unknown(n, e->name);
    const block *b = up ? &l->out[i] : &l->in[i];
    const char *way = up ? "up" : "down";
    char module[64];
    if (b->sampler && k == 0 && strncmp(rest, "op.", 3) == 0)
        return kac_ldm_put(n, e, "down_blocks.%d.downsamplers.0.conv.%s", b->level, rest + 3);
    if (up && k > 0 && strncmp(rest, "conv.", 5) == 0)
        return kac_ldm_put(n, e, "up_blocks.%d.upsamplers.0.conv.%s", b->level, rest + 5);
    if (k == 1) return kac_ldm_put(n, e, "%s_blocks.%d.attentions.%d.%s", way, b->level, b->index, rest);
    snprintf(module, sizeof module, "%s_blocks.%d.resnets.%d", way, b->level, b->index);
    return k == 0 ? put_resnet(n, e, module, rest) : unknown(n, e->name);
}

static kac_status put_middle(kac_ldm_names *n, const layout *l, const kac_weights_entry *e, const char *name) {
    const char *rest = "";
    const int k = kac_ldm_number(name, 0, &rest);
    if (l->mid_depth > 0 && k == 1) return kac_ldm_put(n, e, "mid_block.attentions.0.%s", rest);
    return put_resnet(n, e, k == 0 ? "mid_block.resnets.0" : "mid_block.resnets.1", rest);
}

static kac_status put_name(kac_ldm_names *n, const layout *l, const kac_weights_entry *e, const char *name) {
    for (int i = 0; i < KAC_COUNT_OF(outer); i++) {
        const size_t length = strlen(outer[i].old);
        if (strncmp(name, outer[i].old, length) == 0) return kac_ldm_put(n, e, "%s%s", outer[i].now, name + length);
    }
    if (strncmp(name, "input_blocks.", 13) == 0) return put_block(n, l, e, name, false);
    if (strncmp(name, "output_blocks.", 14) == 0) return put_block(n, l, e, name, true);
    if (strncmp(name, "middle_block.", 13) == 0) return put_middle(n, l, e, name);
    return unknown(n, e->name);
}

kac_status kac_ldm_unet(kac_ldm_names *n, const kac_ldm *m) {
    layout l = {0};
    const size_t length = strlen(n->prefix);
    KAC_TRY(read_down(n, &l));
    KAC_TRY(read_up(n, &l));
    read_middle(n, &l);
    for (int i = 0; i < n->in->n_entries; i++) {
        const kac_weights_entry *e = &n->in->entries[i];
        if (strncmp(e->name, n->prefix, length) == 0) KAC_TRY(put_name(n, &l, e, e->name + length));
    }
    return write_config(n, m, &l);
}
