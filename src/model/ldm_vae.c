#include "model/ldm_names.h"
#include <stdio.h>
#include <string.h>

enum { MAX_LEVELS = 8 };

typedef struct rule {
    const char *old, *now;
} rule;

/* Behind "encoder." or "decoder.". */
static const rule modules[] = {{"mid.block_1.", "mid_block.resnets.0."},
                               {"mid.block_2.", "mid_block.resnets.1."},
                               {"mid.attn_1.norm.", "mid_block.attentions.0.group_norm."},
                               {"mid.attn_1.q.", "mid_block.attentions.0.to_q."},
                               {"mid.attn_1.k.", "mid_block.attentions.0.to_k."},
                               {"mid.attn_1.v.", "mid_block.attentions.0.to_v."},
                               {"mid.attn_1.proj_out.", "mid_block.attentions.0.to_out.0."},
                               {"norm_out.", "conv_norm_out."},
                               {"conv_in.", "conv_in."},
                               {"conv_out.", "conv_out."}};

static kac_status unknown(const kac_ldm_names *n, const char *name) {
    return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%.100s\" belongs to no autoencoder of Stable Diffusion", n->path,
                    name);
}

/* down.I.block.J.rest, up.I.upsample.conv.rest; up blocks are counted from the inside in one, from the outside in the other. */
static kac_status put_level(kac_ldm_names *n, const kac_weights_entry *e, const char *half, const char *name,
                            int n_levels) {
    const bool up = name[0] == 'u';
    const char *rest = "", *way = up ? "up" : "down";
    const int i = kac_ldm_number(name, 0, &rest), level = up ? n_levels - 1 - i : i;
    if (i < 0 || i >= n_levels) return unknown(n, e->name);
    if (strncmp(rest, up ? "upsample.conv." : "downsample.conv.", up ? 14 : 16) == 0)
        return kac_ldm_put(n, e, "%s.%s_blocks.%d.%ssamplers.0.conv.%s", half, way, level, way, rest + (up ? 14 : 16));
    if (strncmp(rest, "block.", 6) != 0) return unknown(n, e->name);
    const int k = kac_ldm_number(rest, 0, &rest);
    const bool shortcut = strncmp(rest, "nin_shortcut.", 13) == 0;
    return kac_ldm_put(n, e, "%s.%s_blocks.%d.resnets.%d.%s%s", half, way, level, k, shortcut ? "conv_shortcut." : "",
                       rest + (shortcut ? 13 : 0));
}

/* 1×1 convolutions that are linear layers in the other names. */
static kac_weights_entry as_matrix(const kac_weights_entry *e) {
    kac_weights_entry flat = *e;
    if (e->rank == 4 && e->shape[2] == 1 && e->shape[3] == 1) flat.rank = 2;
    return flat;
}

static kac_status put_name(kac_ldm_names *n, const kac_weights_entry *e, const char *name, int n_levels) {
    const bool encoder = strncmp(name, "encoder.", 8) == 0, decoder = strncmp(name, "decoder.", 8) == 0;
    if (strncmp(name, "quant_conv.", 11) == 0 || strncmp(name, "post_quant_conv.", 16) == 0)
        return kac_ldm_put(n, e, "%s", name);
    if (!encoder && !decoder) return KAC_OK; /* the discriminator and averages of training */
    const char *half = encoder ? "encoder" : "decoder", *rest = name + 8;
    if (strncmp(rest, encoder ? "down." : "up.", encoder ? 5 : 3) == 0) return put_level(n, e, half, rest, n_levels);
    for (int i = 0; i < KAC_COUNT_OF(modules); i++) {
        const size_t length = strlen(modules[i].old);
        if (strncmp(rest, modules[i].old, length) != 0) continue;
        const kac_weights_entry flat = as_matrix(e);
        return kac_ldm_put(n, strncmp(rest, "mid.attn_1.", 11) == 0 ? &flat : e, "%s.%s%s", half, modules[i].now,
                           rest + length);
    }
    return unknown(n, e->name);
}

static void write_config(kac_ldm_names *n, const kac_ldm *m, const int64_t *channels, int n_levels, int64_t layers) {
    const char *down[MAX_LEVELS], *up[MAX_LEVELS];
    cJSON *config = n->config;
    for (int i = 0; i < n_levels; i++) down[i] = "DownEncoderBlock2D", up[i] = "UpDecoderBlock2D";
    cJSON_AddStringToObject(config, "_class_name", "AutoencoderKL");
    cJSON_AddNumberToObject(config, "in_channels", (double)KAC_MAX(kac_ldm_size(n, 1, "encoder.conv_in.weight"), 1));
    cJSON_AddNumberToObject(config, "out_channels", (double)kac_ldm_size(n, 0, "decoder.conv_out.weight"));
    cJSON_AddNumberToObject(config, "latent_channels", (double)kac_ldm_size(n, 1, "decoder.conv_in.weight"));
    kac_ldm_add_texts(config, "down_block_types", down, n_levels);
    kac_ldm_add_texts(config, "up_block_types", up, n_levels);
    kac_ldm_add_ints(config, "block_out_channels", channels, n_levels);
    cJSON_AddNumberToObject(config, "layers_per_block", (double)layers);
    cJSON_AddNumberToObject(config, "norm_num_groups", (double)kac_ldm_groups(channels, n_levels));
    const bool xl = m->family == KAC_LDM_XL || m->family == KAC_LDM_REFINER;
    cJSON_AddNumberToObject(config, "scaling_factor", xl ? 0.13025 : 0.18215);
    cJSON_AddNumberToObject(config, "sample_size", xl ? 1024 : 512);
    cJSON_AddBoolToObject(config, "use_quant_conv", kac_ldm_find(n, "quant_conv.weight") != NULL);
    cJSON_AddBoolToObject(config, "use_post_quant_conv", kac_ldm_find(n, "post_quant_conv.weight") != NULL);
    cJSON_AddBoolToObject(config, "mid_block_add_attention", kac_ldm_find(n, "decoder.mid.attn_1.q.weight") != NULL);
}

kac_status kac_ldm_vae(kac_ldm_names *n, const kac_ldm *m) {
    int64_t channels[MAX_LEVELS], layers = 0;
    int n_levels = 0;
    while (n_levels < MAX_LEVELS &&
           (channels[n_levels] = kac_ldm_size(n, 0, "decoder.up.%d.block.0.conv1.weight", n_levels)) > 0)
        n_levels++;
    while (kac_ldm_find(n, "decoder.up.0.block.%d.conv1.weight", (int)layers) != NULL) layers++;
    if (n_levels == 0 || layers < 2) return KAC_FAIL(KAC_E_FORMAT, "%s: its autoencoder is incomplete", n->path);
    const size_t length = strlen(n->prefix);
    for (int i = 0; i < n->in->n_entries; i++) {
        const kac_weights_entry *e = &n->in->entries[i];
        if (strncmp(e->name, n->prefix, length) == 0) KAC_TRY(put_name(n, e, e->name + length, n_levels));
    }
    write_config(n, m, channels, n_levels, layers - 1);
    return KAC_OK;
}
