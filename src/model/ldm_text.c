#include "model/ldm_names.h"
#include <stdio.h>
#include <string.h>

/* The towers have heads of 64; a small one that cannot has 4. */
static double heads_of(int64_t width) {
    return (double)(width % 64 == 0 ? width / 64 : width % 4 == 0 ? 4 : 1);
}

static void write_config(kac_ldm_names *n, const char *architecture, int64_t vocab, int64_t width, int64_t n_tokens,
                         int64_t inner, int n_layers, const char *act) {
    cJSON *config = n->config;
    kac_ldm_add_texts(config, "architectures", &architecture, 1);
    cJSON_AddStringToObject(config, "model_type", "clip_text_model");
    cJSON_AddNumberToObject(config, "vocab_size", (double)vocab);
    cJSON_AddNumberToObject(config, "hidden_size", (double)width);
    cJSON_AddNumberToObject(config, "intermediate_size", (double)inner);
    cJSON_AddNumberToObject(config, "max_position_embeddings", (double)n_tokens);
    cJSON_AddNumberToObject(config, "num_hidden_layers", n_layers);
    cJSON_AddNumberToObject(config, "num_attention_heads", heads_of(width));
    cJSON_AddStringToObject(config, "hidden_act", act);
    cJSON_AddNumberToObject(config, "layer_norm_eps", 1e-5);
    cJSON_AddNumberToObject(config, "eos_token_id", 2); /* pool at the largest id, as the files of these families say */
}

/* transformers' names with a prefix; the oldest files lack "text_model.". */
static kac_status clip_names(kac_ldm_names *n) {
    const bool bare = kac_ldm_find(n, "text_model.embeddings.token_embedding.weight") == NULL;
    const char *inner = bare ? "" : "text_model.";
    const size_t length = strlen(n->prefix);
    int n_layers = 0;
    for (int i = 0; i < n->in->n_entries; i++) {
        const kac_weights_entry *e = &n->in->entries[i];
        if (strncmp(e->name, n->prefix, length) != 0 || strstr(e->name, "position_ids") != NULL) continue;
        KAC_TRY(kac_ldm_put(n, e, "%s%s", bare ? "text_model." : "", e->name + length));
    }
    while (kac_ldm_find(n, "%sencoder.layers.%d.layer_norm1.weight", inner, n_layers) != NULL) n_layers++;
    write_config(n, "CLIPTextModel", kac_ldm_size(n, 0, "%sembeddings.token_embedding.weight", inner),
                 kac_ldm_size(n, 1, "%sembeddings.token_embedding.weight", inner),
                 kac_ldm_size(n, 0, "%sembeddings.position_embedding.weight", inner),
                 kac_ldm_size(n, 0, "%sencoder.layers.0.mlp.fc1.weight", inner), n_layers, "quick_gelu");
    return KAC_OK;
}

/* transformer.resblocks.I.rest */
static kac_status put_open_layer(kac_ldm_names *n, const kac_weights_entry *e, int layer, const char *rest) {
    static const struct {
        const char *old, *now;
    } rules[] = {{"ln_1.", "layer_norm1."},
                 {"ln_2.", "layer_norm2."},
                 {"attn.out_proj.", "self_attn.out_proj."},
                 {"mlp.c_fc.", "mlp.fc1."},
                 {"mlp.c_proj.", "mlp.fc2."}};
    static const char *const parts = "qkv";
    for (int i = 0; i < KAC_COUNT_OF(rules); i++) {
        const size_t length = strlen(rules[i].old);
        if (strncmp(rest, rules[i].old, length) == 0)
            return kac_ldm_put(n, e, "text_model.encoder.layers.%d.%s%s", layer, rules[i].now, rest + length);
    }
    if (strncmp(rest, "attn.in_proj_", 13) != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: tensor \"%.100s\" belongs to no text tower of OpenCLIP", n->path,
                        e->name);
    for (int i = 0; i < 3; i++)
        KAC_TRY(kac_ldm_put_part(n, e, i, 3, "text_model.encoder.layers.%d.self_attn.%c_proj.%s", layer, parts[i],
                                 rest + 13));
    return KAC_OK;
}

/* OpenCLIP's names. SD 2 reads the state before the last of 24 layers, so that one is left out, as its folder does. */
static kac_status open_clip_names(kac_ldm_names *n, bool projected) {
    static const struct {
        const char *old, *now;
    } rules[] = {{"token_embedding.weight", "text_model.embeddings.token_embedding.weight"},
                 {"positional_embedding", "text_model.embeddings.position_embedding.weight"},
                 {"ln_final.weight", "text_model.final_layer_norm.weight"},
                 {"ln_final.bias", "text_model.final_layer_norm.bias"}};
    const size_t length = strlen(n->prefix);
    int n_layers = 0;
    while (kac_ldm_find(n, "transformer.resblocks.%d.ln_1.weight", n_layers) != NULL) n_layers++;
    if (!projected && n_layers == 24) n_layers--;
    for (int i = 0; i < n->in->n_entries; i++) {
        const kac_weights_entry *e = &n->in->entries[i];
        const char *name = e->name + length, *rest = "";
        if (strncmp(e->name, n->prefix, length) != 0) continue;
        if (strncmp(name, "transformer.resblocks.", 22) == 0) {
            const int layer = kac_ldm_number(name, 0, &rest);
            if (layer >= 0 && layer < n_layers) KAC_TRY(put_open_layer(n, e, layer, rest));
        }
        if (projected && strcmp(name, "text_projection") == 0)
            KAC_TRY(kac_ldm_put_transposed(n, e, "text_projection.weight"));
        for (int k = 0; k < KAC_COUNT_OF(rules); k++)
            if (strcmp(name, rules[k].old) == 0) KAC_TRY(kac_ldm_put(n, e, "%s", rules[k].now));
    }
    write_config(n, projected ? "CLIPTextModelWithProjection" : "CLIPTextModel",
                 kac_ldm_size(n, 0, "token_embedding.weight"), kac_ldm_size(n, 1, "token_embedding.weight"),
                 kac_ldm_size(n, 0, "positional_embedding"),
                 kac_ldm_size(n, 0, "transformer.resblocks.0.mlp.c_fc.weight"), n_layers, "gelu");
    const int64_t projection = kac_ldm_size(n, 1, "text_projection");
    if (projection > 0) cJSON_AddNumberToObject(n->config, "projection_dim", (double)projection);
    return KAC_OK;
}

kac_status kac_ldm_text(kac_ldm_names *n, const kac_ldm *m, bool second) {
    if (second || m->family == KAC_LDM_SD2) return open_clip_names(n, second);
    return clip_names(n);
}
