#include "io/inversion.h"
#include "model/clip_net.h"
#include "model/config.h"

#include <math.h>
#include <string.h>

/* ---- config ---- */

/* obj NULL: the section is missing, defaults stay. */
static kac_status read_tower(kac_clip_tower_config *t, const kac_json *j, const cJSON *obj) {
    KAC_TRY(kac_config_int(j, obj, "hidden_size", &t->width, 1, 1 << 15));
    KAC_TRY(kac_config_int(j, obj, "intermediate_size", &t->inner, 1, 1 << 17));
    KAC_TRY(kac_config_int(j, obj, "num_hidden_layers", &t->layers, 1, 256));
    KAC_TRY(kac_config_int(j, obj, "num_attention_heads", &t->heads, 1, 1 << 12));
    KAC_TRY(kac_config_act(j, obj, "hidden_act", &t->act, true));
    KAC_TRY(kac_json_real(j, obj, "layer_norm_eps", &t->eps));
    if (t->width % t->heads != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"num_attention_heads\" %lld does not divide \"hidden_size\" %lld",
                        j->name, (long long)t->heads, (long long)t->width);
    if (!(t->eps > 0)) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"layer_norm_eps\" must be positive", j->name);
    return KAC_OK;
}

static kac_status read_text(kac_clip_config *cfg, const kac_json *j, const cJSON *obj) {
    KAC_TRY(read_tower(&cfg->text, j, obj));
    KAC_TRY(kac_config_int(j, obj, "vocab_size", &cfg->vocab_size, 1, 1 << 24));
    KAC_TRY(kac_config_int(j, obj, "max_position_embeddings", &cfg->max_tokens, 1, 1 << 16));
    return kac_config_int(j, obj, "eos_token_id", &cfg->eos_id, 0, 1 << 24);
}

static kac_status read_vision(kac_clip_config *cfg, const kac_json *j, const cJSON *obj) {
    KAC_TRY(read_tower(&cfg->vision, j, obj));
    KAC_TRY(kac_config_int(j, obj, "image_size", &cfg->image_size, 1, 1 << 14));
    KAC_TRY(kac_config_int(j, obj, "patch_size", &cfg->patch, 1, 1 << 12));
    KAC_TRY(kac_config_int(j, obj, "num_channels", &cfg->image_channels, 1, 64));
    if (cfg->patch > cfg->image_size)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"patch_size\" %lld is larger than \"image_size\" %lld", j->name,
                        (long long)cfg->patch, (long long)cfg->image_size);
    return KAC_OK;
}

static kac_status section(const kac_json *j, const char *key, const cJSON **out) {
    *out = cJSON_GetObjectItemCaseSensitive(j->root, key);
    if (*out == NULL || cJSON_IsNull(*out))
        *out = NULL;
    else if (!cJSON_IsObject(*out))
        return KAC_FAIL(KAC_E_FORMAT, "%s: \"%s\" must be an object", j->name, key);
    return KAC_OK;
}

typedef kac_status (*section_reader)(kac_clip_config *cfg, const kac_json *j, const cJSON *obj);

/* X_config, unless the older X_config_dict is there: that one then stands alone, with the class defaults for what it leaves out. */
static kac_status read_section(kac_clip_config *cfg, const kac_json *j, const char *key, const char *old_key,
                               section_reader read) {
    const cJSON *now, *old;
    KAC_TRY(section(j, key, &now));
    KAC_TRY(section(j, old_key, &old));
    if (old != NULL) now = old;
    return now == NULL ? KAC_OK : read(cfg, j, now);
}

static bool has_architecture(const kac_json *j, const char *name) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(j->root, "architectures");
    for (const cJSON *item = list == NULL ? NULL : list->child; item != NULL; item = item->next)
        if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0) return true;
    return false;
}

kac_status kac_clip_config_read(kac_clip_config *cfg, const kac_json *j) {
    *cfg = (kac_clip_config){.has_text = true,
                             .text = {512, 2048, 12, 8, KAC_ACT_QUICK_GELU, 1e-5},
                             .vision = {768, 3072, 12, 12, KAC_ACT_QUICK_GELU, 1e-5},
                             .vocab_size = 49408,
                             .max_tokens = 77,
                             .eos_id = 49407,
                             .image_size = 224,
                             .patch = 32,
                             .image_channels = 3,
                             .projection = 512};
    const char *type = NULL;
    KAC_TRY(kac_json_text(j, j->root, "model_type", &type));
    KAC_TRY(kac_config_int(j, j->root, "projection_dim", &cfg->projection, 1, 1 << 15));
    const bool sections = cJSON_HasObjectItem(j->root, "text_config") ||
                          cJSON_HasObjectItem(j->root, "vision_config") ||
                          cJSON_HasObjectItem(j->root, "text_config_dict");
    cfg->has_vision = sections || has_architecture(j, "CLIPModel") || (type != NULL && strcmp(type, "clip") == 0);
    if (!cfg->has_vision) {
        if (type != NULL && strcmp(type, "clip_text_model") != 0)
            return kac_config_unsupported(j, "model_type", "clip or clip_text_model");
        cfg->has_projection = has_architecture(j, "CLIPTextModelWithProjection");
        return read_text(cfg, j, j->root);
    }
    cfg->has_projection = true;
    KAC_TRY(read_section(cfg, j, "text_config", "text_config_dict", read_text));
    return read_section(cfg, j, "vision_config", "vision_config_dict", read_vision);
}

kac_status kac_clip_config_load(kac_clip_config *cfg, const char *dir) {
    kac_json j;
    KAC_TRY(kac_config_open(&j, dir));
    const kac_status s = kac_clip_config_read(cfg, &j);
    kac_json_free(&j);
    return s;
}

/* ---- weights ---- */

static kac_status load_tower(kac_clip_tower *t, const kac_loader *l, kac_path path, kac_clip_tower_config cfg) {
    t->cfg = cfg;
    t->path = path;
    t->layer = kac_alloc((size_t)cfg.layers * sizeof *t->layer);
    if (t->layer == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < (int)cfg.layers; i++) {
        kac_nn_encoder_layer *m = &t->layer[i];
        const kac_path p = kac_path_of("%sencoder.layers.%d", path.s, i);
        const kac_path qkv[3] = {kac_path_of("%s.self_attn.q_proj", p.s), kac_path_of("%s.self_attn.k_proj", p.s),
                                 kac_path_of("%s.self_attn.v_proj", p.s)};
        KAC_TRY(kac_nn_layer_norm_load(l, &m->norm1, kac_path_of("%s.layer_norm1", p.s).s, cfg.width, cfg.eps));
        KAC_TRY(kac_nn_linear_load_stack(l, &m->qkv, qkv, 3, cfg.width, cfg.width, true));
        KAC_TRY(
            kac_nn_linear_load(l, &m->out, kac_path_of("%s.self_attn.out_proj", p.s).s, cfg.width, cfg.width, true));
        KAC_TRY(kac_nn_layer_norm_load(l, &m->norm2, kac_path_of("%s.layer_norm2", p.s).s, cfg.width, cfg.eps));
        KAC_TRY(kac_nn_linear_load(l, &m->fc1, kac_path_of("%s.mlp.fc1", p.s).s, cfg.width, cfg.inner, true));
        KAC_TRY(kac_nn_linear_load(l, &m->fc2, kac_path_of("%s.mlp.fc2", p.s).s, cfg.inner, cfg.width, true));
    }
    return KAC_OK;
}

/* The vocabulary's rows, and below them the vectors of textual inversions in the order of the set: token vocab_size is the first. */
static kac_status load_tokens(kac_clip *m, const kac_loader *l, const kac_source *source, const char *name) {
    const kac_clip_config *cfg = &m->cfg;
    const int64_t width = cfg->text.width;
    const kac_inversion_set *set = source->embeddings;
    const int encoder = source->lora_part == KAC_LORA_TEXT_2;
    kac_tensor rows, part;
    if (set != NULL) KAC_TRY(kac_inversion_set_check(set, encoder, KAC_INVERSION_MAX_ENCODERS, width));
    KAC_TRY(kac_loader_get(l, &rows, name, 2, (int64_t[]){cfg->vocab_size, width}));
    KAC_TRY(kac_take_make(&m->token_table, &l->c->model, l->c->dtype,
                          cfg->vocab_size + (set == NULL ? 0 : kac_inversion_set_count(set)), width));
    part = kac_tensor_slice(m->token_table, 0, 0, cfg->vocab_size);
    KAC_TRY(kac_copy(l->c, &part, rows));
    int64_t at = cfg->vocab_size;
    for (int i = 0; set != NULL && i < set->n; i++) {
        const kac_inversion *e = &set->list[i];
        part = kac_tensor_slice(m->token_table, 0, at, e->n);
        KAC_TRY(kac_copy(l->c, &part, e->rows[encoder]));
        at += e->n;
    }
    return KAC_OK;
}

static kac_status load_text(kac_clip *m, const kac_loader *l, const kac_source *source) {
    const kac_clip_config *cfg = &m->cfg;
    const int64_t width = cfg->text.width;
    /* Some files leave the prefix out. */
    const bool bare = !kac_loader_has(l, "text_model.embeddings.token_embedding.weight") &&
                      kac_loader_has(l, "embeddings.token_embedding.weight");
    const kac_path path = kac_path_of("%s", bare ? "" : "text_model.");
    KAC_TRY(load_tokens(m, l, source, kac_path_of("%sembeddings.token_embedding.weight", path.s).s));
    KAC_TRY(kac_loader_table(l, &m->position_table, l->c->dtype,
                             kac_path_of("%sembeddings.position_embedding.weight", path.s).s, 2,
                             (int64_t[]){cfg->max_tokens, width}));
    KAC_TRY(load_tower(&m->text, l, path, cfg->text));
    KAC_TRY(
        kac_nn_layer_norm_load(l, &m->final_norm, kac_path_of("%sfinal_layer_norm", path.s).s, width, cfg->text.eps));
    return cfg->has_projection
               ? kac_nn_linear_load(l, &m->text_projection, "text_projection", width, cfg->projection, false)
               : KAC_OK;
}

static kac_status load_vision(kac_clip *m, const kac_loader *l) {
    kac_clip_config *cfg = &m->cfg;
    const int64_t width = cfg->vision.width;
    KAC_TRY(kac_nn_patches_load(l, &m->patches,
                                (kac_nn_patches_opt){.proj = "vision_model.embeddings.patch_embedding",
                                                     .class_token = "vision_model.embeddings.class_embedding",
                                                     .positions = "vision_model.embeddings.position_embedding.weight",
                                                     .image_size = cfg->image_size,
                                                     .patch = cfg->patch,
                                                     .channels = cfg->image_channels,
                                                     .width = width}));
    KAC_TRY(kac_nn_layer_norm_load(l, &m->pre_norm, "vision_model.pre_layrnorm", width, cfg->vision.eps));
    KAC_TRY(load_tower(&m->vision, l, kac_path_of("vision_model."), cfg->vision));
    KAC_TRY(kac_nn_layer_norm_load(l, &m->post_norm, "vision_model.post_layernorm", width, cfg->vision.eps));
    KAC_TRY(kac_nn_linear_load(l, &m->visual_projection, "visual_projection", width, cfg->projection, false));
    double log_scale = 0;
    KAC_TRY(kac_loader_number(l, &log_scale, "logit_scale"));
    cfg->logit_scale = exp(log_scale);
    return isfinite(cfg->logit_scale) ? KAC_OK : KAC_FAIL(KAC_E_NONFINITE, "%s: logit_scale is not finite", l->path);
}

kac_status kac_clip_load_from(kac_clip **out, kac_ctx *c, const kac_source *source) {
    *out = NULL;
    kac_clip *m = kac_alloc(sizeof *m);
    if (m == NULL) return KAC_E_MEMORY;
    const kac_loader l = kac_source_loader(source, c);
    kac_status s = kac_clip_config_read(&m->cfg, &source->config);
    /* Old files do not say which class they are of. */
    if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(source->config.root, "architectures")) &&
        kac_loader_has(&l, "text_projection.weight"))
        m->cfg.has_projection = true;
    if (s == KAC_OK) s = load_text(m, &l, source);
    if (s == KAC_OK && m->cfg.has_vision) s = load_vision(m, &l);
    if (s == KAC_OK)
        *out = m;
    else
        kac_clip_free(m);
    return s;
}

kac_status kac_clip_load(kac_clip **out, kac_ctx *c, const char *dir) {
    kac_source source;
    *out = NULL;
    KAC_TRY(kac_source_open_dir(&source, dir, "model"));
    const kac_status s = kac_clip_load_from(out, c, &source);
    kac_source_close(&source);
    return s;
}

void kac_clip_free(kac_clip *m) {
    if (m == NULL) return;
    kac_free(m->text.layer);
    kac_free(m->vision.layer);
    kac_free(m);
}

const kac_clip_config *kac_clip_config_of(const kac_clip *m) {
    return &m->cfg;
}
