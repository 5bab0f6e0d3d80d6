#include "model/ldm_write.h"
#include "model/clip.h"
#include "model/ldm_names.h"
#include "model/unet.h"
#include <stdio.h>
#include <string.h>

enum { MAX_MODULE = 96 };

/* What starts with `old` goes on as `now`. */
typedef struct rule {
    const char *old, *now;
} rule;

static const char *behind(const char *name, const char *start) {
    const size_t n = strlen(start);
    return strncmp(name, start, n) == 0 ? name + n : NULL;
}

/* true: one of the rules applied. */
static bool apply(char out[MAX_MODULE * 4], const char *name, const rule *rules, int n) {
    for (int i = 0; i < n; i++) {
        const char *rest = behind(name, rules[i].old);
        if (rest == NULL) continue;
        snprintf(out, MAX_MODULE * 4, "%s%s", rules[i].now, rest);
        return true;
    }
    return false;
}

static kac_status cannot(const kac_source *s, const char *name) {
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the tensor %.100s has no name in the original code", s->path, name);
}

/* ---- UNet ---- */

static const rule unet_outer[] = {{"conv_in.", "input_blocks.0.0."},
                                  {"time_embedding.linear_1.", "time_embed.0."},
                                  {"time_embedding.linear_2.", "time_embed.2."},
                                  {"time_embedding.cond_proj.", "time_embed.cond_proj."},
                                  {"add_embedding.linear_1.", "label_emb.0.0."},
                                  {"add_embedding.linear_2.", "label_emb.0.2."},
                                  {"conv_norm_out.", "out.0."},
                                  {"conv_out.", "out.2."},
                                  {"mid_block.attentions.0.", "middle_block.1."}},
                  unet_resnet[] = {{"norm1.", "in_layers.0."},          {"conv1.", "in_layers.2."},
                                   {"time_emb_proj.", "emb_layers.1."}, {"norm2.", "out_layers.0."},
                                   {"conv2.", "out_layers.3."},         {"conv_shortcut.", "skip_connection."}};

/* "down_blocks.1.resnets.0.conv1.weight" -> "input_blocks.4.0.in_layers.2.weight" */
static bool unet_block(char *out, const kac_unet_config *cfg, const kac_source *s, const char *name) {
    const bool up = name[0] == 'u';
    const char *rest = "";
    char attention[MAX_MODULE], inner[MAX_MODULE * 4];
    const int i = kac_ldm_number(name, 0, &rest);
    const int k = kac_ldm_number(rest, 0, NULL);
    if (i < 0 || i >= cfg->n_blocks || k < 0) return false;
    int at = up ? 0 : 1;
    for (int b = 0; b < i; b++) at += (int)cfg->layers[up ? cfg->n_blocks - 1 - b : b] + 1;
    const int layers = (int)cfg->layers[up ? cfg->n_blocks - 1 - i : i];
    const char *list = up ? "output_blocks" : "input_blocks", *tail;
    if ((tail = behind(rest, "downsamplers.0.conv.")) != NULL)
        snprintf(out, MAX_MODULE * 4, "%s.%d.0.op.%s", list, at + layers, tail);
    else if ((tail = behind(rest, "upsamplers.0.conv.")) != NULL) {
        snprintf(attention, sizeof attention, "up_blocks.%d.attentions.%d.norm.weight", i, layers);
        snprintf(out, MAX_MODULE * 4, "%s.%d.%d.conv.%s", list, at + layers,
                 kac_weights_entry_of(&s->weights, attention) != NULL ? 2 : 1, tail);
    } else if (behind(rest, "attentions.") != NULL) {
        kac_ldm_number(rest, 0, &tail);
        snprintf(out, MAX_MODULE * 4, "%s.%d.1.%s", list, at + k, tail);
    } else if (behind(rest, "resnets.") != NULL) {
        kac_ldm_number(rest, 0, &tail);
        if (!apply(inner, tail, unet_resnet, KAC_COUNT_OF(unet_resnet))) return false;
        snprintf(out, MAX_MODULE * 4, "%s.%d.0.%.300s", list, at + k, inner);
    } else
        return false;
    return true;
}

static bool unet_middle(char *out, const kac_source *s, const char *name) {
    const char *tail = "";
    char inner[MAX_MODULE * 4];
    const int k = kac_ldm_number(name, 0, &tail);
    const bool attention = kac_weights_entry_of(&s->weights, "mid_block.attentions.0.norm.weight") != NULL;
    if (!apply(inner, tail, unet_resnet, KAC_COUNT_OF(unet_resnet))) return false;
    snprintf(out, MAX_MODULE * 4, "middle_block.%d.%.300s", k == 0 ? 0 : attention ? 2 : 1, inner);
    return true;
}

kac_status kac_ldm_write_unet(kac_weights *out, const kac_source *s) {
    kac_ldm_names n = {.out = out, .path = s->path, .cap = out->n_entries};
    kac_unet_config cfg;
    KAC_TRY(kac_unet_config_read(&cfg, &s->config));
    for (int i = 0; i < s->weights.n_entries; i++) {
        const kac_weights_entry *e = &s->weights.entries[i];
        char name[MAX_MODULE * 4];
        bool known;
        if (behind(e->name, "down_blocks.") != NULL || behind(e->name, "up_blocks.") != NULL)
            known = unet_block(name, &cfg, s, e->name);
        else if (behind(e->name, "mid_block.resnets.") != NULL)
            known = unet_middle(name, s, e->name);
        else
            known = apply(name, e->name, unet_outer, KAC_COUNT_OF(unet_outer));
        if (!known) return cannot(s, e->name);
        KAC_TRY(kac_ldm_put(&n, e, "model.diffusion_model.%s", name));
    }
    return KAC_OK;
}

/* ---- autoencoder ---- */

static const rule vae_modules[] = {{"mid_block.resnets.0.", "mid.block_1."},
                                   {"mid_block.resnets.1.", "mid.block_2."},
                                   {"mid_block.attentions.0.group_norm.", "mid.attn_1.norm."},
                                   {"mid_block.attentions.0.to_q.", "mid.attn_1.q."},
                                   {"mid_block.attentions.0.to_k.", "mid.attn_1.k."},
                                   {"mid_block.attentions.0.to_v.", "mid.attn_1.v."},
                                   {"mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."},
                                   {"mid_block.attentions.0.query.", "mid.attn_1.q."},
                                   {"mid_block.attentions.0.key.", "mid.attn_1.k."},
                                   {"mid_block.attentions.0.value.", "mid.attn_1.v."},
                                   {"mid_block.attentions.0.proj_attn.", "mid.attn_1.proj_out."},
                                   {"conv_norm_out.", "norm_out."},
                                   {"conv_in.", "conv_in."},
                                   {"conv_out.", "conv_out."}};

/* Behind "encoder." or "decoder.". */
static bool vae_name(char *out, const char *name, int n_levels) {
    const bool up = behind(name, "up_blocks.") != NULL;
    const char *rest = "", *tail;
    if (!up && behind(name, "down_blocks.") == NULL) return apply(out, name, vae_modules, KAC_COUNT_OF(vae_modules));
    const int i = kac_ldm_number(name, 0, &rest), level = up ? n_levels - 1 - i : i;
    const char *way = up ? "up" : "down";
    if (i < 0 || level < 0) return false;
    if ((tail = behind(rest, up ? "upsamplers.0." : "downsamplers.0.")) != NULL) {
        snprintf(out, MAX_MODULE * 4, "%s.%d.%ssample.%s", way, level, way, tail);
        return true;
    }
    if (behind(rest, "resnets.") == NULL) return false;
    const int k = kac_ldm_number(rest, 0, &rest);
    tail = behind(rest, "conv_shortcut.");
    snprintf(out, MAX_MODULE * 4, "%s.%d.block.%d.%s%s", way, level, k, tail != NULL ? "nin_shortcut." : "",
             tail != NULL ? tail : rest);
    return true;
}

/* Linear layers that are 1×1 convolutions in the other names. */
static kac_weights_entry as_convolution(const kac_weights_entry *e, const char *name) {
    kac_weights_entry c = *e;
    if (strstr(name, "attentions.") != NULL && e->rank == 2) {
        c.rank = 4;
        c.shape[2] = c.shape[3] = 1;
        c.stride[2] = c.stride[3] = 1;
    }
    return c;
}

kac_status kac_ldm_write_vae(kac_weights *out, const kac_source *s) {
    kac_ldm_names n = {.out = out, .path = s->path, .cap = out->n_entries};
    const int n_levels = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(s->config.root, "block_out_channels"));
    for (int i = 0; i < s->weights.n_entries; i++) {
        const kac_weights_entry *e = &s->weights.entries[i], flat = as_convolution(e, e->name);
        char name[MAX_MODULE * 4];
        if (behind(e->name, "quant_conv.") != NULL || behind(e->name, "post_quant_conv.") != NULL) {
            KAC_TRY(kac_ldm_put(&n, e, "first_stage_model.%s", e->name));
            continue;
        }
        const bool encoder = behind(e->name, "encoder.") != NULL, decoder = behind(e->name, "decoder.") != NULL;
        if ((!encoder && !decoder) || !vae_name(name, e->name + 8, n_levels)) return cannot(s, e->name);
        KAC_TRY(kac_ldm_put(&n, &flat, "first_stage_model.%.8s%s", e->name, name));
    }
    return KAC_OK;
}

/* ---- text towers ---- */

static kac_status clip_names(kac_ldm_names *n, const kac_source *s, const char *prefix) {
    for (int i = 0; i < s->weights.n_entries; i++) {
        const kac_weights_entry *e = &s->weights.entries[i];
        const bool bare = behind(e->name, "text_model.") == NULL;
        if (behind(e->name, "text_projection.") != NULL) return cannot(s, e->name);
        if (strstr(e->name, "position_ids") == NULL)
            KAC_TRY(kac_ldm_put(n, e, "%s%s%s", prefix, bare ? "text_model." : "", e->name));
    }
    return KAC_OK;
}

/* Some files leave "text_model." out. */
static bool has_outer(const kac_source *s) {
    return kac_weights_entry_of(&s->weights, "text_model.final_layer_norm.weight") != NULL;
}

/* q, k and v of one layer as one tensor with its own memory. */
static kac_status put_joined(kac_ldm_names *n, const kac_source *s, const char *prefix, int layer, const char *end) {
    static const char letters[] = "qkv";
    kac_tensor part[3];
    for (int i = 0; i < 3; i++) {
        char name[MAX_MODULE * 2];
        snprintf(name, sizeof name, "%sencoder.layers.%d.self_attn.%c_proj.%s", has_outer(s) ? "text_model." : "",
                 layer, letters[i], end);
        KAC_TRY(kac_weights_find(&s->weights, name, &part[i]));
        if (part[i].dtype != part[0].dtype || !kac_tensor_same_shape(part[i], part[0]) || part[i].rank < 1)
            return KAC_FAIL(KAC_E_SHAPE, "%s: %s is shaped unlike its neighbours", s->path, name);
    }
    const size_t n_bytes = kac_tensor_bytes(part[0]);
    kac_weights_entry e = {.dtype = (int)part[0].dtype,
                           .dtype_name = kac_dtype_name(part[0].dtype),
                           .rank = part[0].rank,
                           .n_bytes = 3 * n_bytes};
    memcpy(e.shape, part[0].shape, sizeof e.shape);
    e.shape[0] *= 3;
    KAC_TRY(kac_ldm_put(n, &e, "%stransformer.resblocks.%d.attn.in_proj_%s", prefix, layer, end));
    kac_weights_entry *own = &n->out->entries[n->out->n_entries - 1];
    own->own_data = kac_alloc(3 * n_bytes);
    if (own->own_data == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < 3; i++) memcpy((char *)own->own_data + (size_t)i * n_bytes, part[i].data, n_bytes);
    own->data = own->own_data;
    return KAC_OK;
}

static kac_status open_clip_names(kac_ldm_names *n, const kac_source *s, const char *prefix) {
    static const rule rules[] = {{"embeddings.token_embedding.weight", "token_embedding.weight"},
                                 {"embeddings.position_embedding.weight", "positional_embedding"},
                                 {"final_layer_norm.", "ln_final."}},
                      inner[] = {{"layer_norm1.", "ln_1."},
                                 {"layer_norm2.", "ln_2."},
                                 {"self_attn.out_proj.", "attn.out_proj."},
                                 {"mlp.fc1.", "mlp.c_fc."},
                                 {"mlp.fc2.", "mlp.c_proj."}};
    for (int i = 0; i < s->weights.n_entries; i++) {
        const kac_weights_entry *e = &s->weights.entries[i];
        const char *name = has_outer(s) ? behind(e->name, "text_model.") : e->name, *tail = "";
        char new_name[MAX_MODULE * 4];
        if (strcmp(e->name, "text_projection.weight") == 0) {
            char *to = kac_format("%stext_projection", prefix);
            const kac_status status = to == NULL ? KAC_E_MEMORY : kac_ldm_put_transposed(n, e, to);
            kac_free(to);
            KAC_TRY(status);
            continue;
        }
        if (name == NULL) return cannot(s, e->name);
        if (strstr(name, "position_ids") != NULL) continue;
        if (behind(name, "encoder.layers.") == NULL) {
            if (!apply(new_name, name, rules, KAC_COUNT_OF(rules))) return cannot(s, e->name);
            KAC_TRY(kac_ldm_put(n, e, "%s%s", prefix, new_name));
            continue;
        }
        const int layer = kac_ldm_number(name, 0, &tail);
        const char *joined = behind(tail, "self_attn.q_proj.");
        if (joined != NULL)
            KAC_TRY(put_joined(n, s, prefix, layer, joined));
        else if (behind(tail, "self_attn.k_proj.") == NULL && behind(tail, "self_attn.v_proj.") == NULL) {
            if (!apply(new_name, tail, inner, KAC_COUNT_OF(inner))) return cannot(s, e->name);
            KAC_TRY(kac_ldm_put(n, e, "%stransformer.resblocks.%d.%s", prefix, layer, new_name));
        }
    }
    return KAC_OK;
}

kac_status kac_ldm_write_text(kac_weights *out, const kac_source *s, const char *prefix, bool open) {
    kac_ldm_names n = {.out = out, .path = s->path, .cap = out->n_entries};
    return open ? open_clip_names(&n, s, prefix) : clip_names(&n, s, prefix);
}
