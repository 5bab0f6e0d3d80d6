#include "model/open_clip.h"
#include "model/config.h"
#include "nn/loader.h"
#include <stdlib.h>
#include <string.h>

/* ---- finding ---- */

static const char conv1[] = "visual.conv1.weight";

/* What stands before "visual.conv1.weight", as a length; −1: no such tensor. */
static int prefix_length(const kac_weights *w, const char **name) {
    for (int i = 0; i < w->n_entries; i++) {
        const char *s = w->entries[i].name;
        const size_t n = strlen(s), n_end = sizeof conv1 - 1;
        if (n < n_end || strcmp(s + n - n_end, conv1) != 0 || (n > n_end && s[n - n_end - 1] != '.')) continue;
        *name = s;
        return (int)(n - n_end);
    }
    return -1;
}

bool kac_open_clip_is(const kac_weights *w) {
    const char *name;
    return prefix_length(w, &name) >= 0;
}

/* ---- configuration ---- */

typedef struct tower {
    int64_t width, inner, layers, heads;
} tower;

typedef struct translation {
    kac_source *s;
    kac_path visual, text; /* "module.visual.", "module." or "module.text." */
    tower vision, words;
    int64_t patch, image_size, channels, projection, vocab_size, max_tokens;
    kac_weights_entry *added;
    int n_added, cap;
} translation;

static const kac_weights_entry *find(const translation *t, kac_path path, int rank) {
    const kac_weights_entry *e = kac_weights_entry_of(&t->s->weights, path.s);
    return e != NULL && e->rank == rank ? e : NULL;
}

static kac_status missing(const translation *t, const char *what) {
    return KAC_FAIL(KAC_E_UNSUPPORTED,
                    "%s: its open_clip names lack %s: only plain transformer towers are supported (no ResNet, no timm, "
                    "no text tower of another library)",
                    t->s->path, what);
}

static kac_status read_tower(const translation *t, tower *out, kac_path path, const char *what) {
    const kac_weights_entry *fc1 = find(t, kac_path_of("%stransformer.resblocks.0.mlp.c_fc.weight", path.s), 2);
    if (fc1 == NULL) return missing(t, what);
    *out = (tower){.width = fc1->shape[1], .inner = fc1->shape[0]};
    while (out->layers < 256 &&
           find(t, kac_path_of("%stransformer.resblocks.%lld.mlp.c_fc.weight", path.s, (long long)out->layers), 2) !=
               NULL)
        out->layers++;
    out->heads = out->width >= 64 && out->width % (out->width / 64) == 0 ? out->width / 64
                                                                         : 0; /* rounded down, as open_clip does */
    return KAC_OK;
}

static kac_status read_shapes(translation *t) {
    const kac_weights_entry *patch = find(t, kac_path_of("%sconv1.weight", t->visual.s), 4),
                            *places = find(t, kac_path_of("%spositional_embedding", t->visual.s), 2),
                            *words = find(t, kac_path_of("%stoken_embedding.weight", t->text.s), 2),
                            *text_places = find(t, kac_path_of("%spositional_embedding", t->text.s), 2),
                            *projection = find(t, kac_path_of("%sproj", t->visual.s), 2);
    if (patch == NULL || places == NULL || projection == NULL ||
        find(t, kac_path_of("%sln_pre.weight", t->visual.s), 1) == NULL)
        return missing(t, "visual.proj, visual.ln_pre or visual.positional_embedding");
    if (words == NULL || text_places == NULL) return missing(t, "token_embedding");
    int64_t side = 1;
    while (side < 1 << 12 && (side + 1) * (side + 1) <= places->shape[0] - 1) side++;
    t->patch = patch->shape[2], t->channels = patch->shape[1], t->image_size = side * patch->shape[2];
    t->projection = projection->shape[1], t->vocab_size = words->shape[0], t->max_tokens = text_places->shape[0];
    KAC_TRY(read_tower(t, &t->vision, t->visual, "visual.transformer.resblocks"));
    const int64_t width = t->vision.width, head = width == 1280 ? 80 : width == 1408 ? 88 : width == 1664 ? 104 : 0;
    if (head > 0) t->vision.heads = width / head; /* ViT-H, -g, -bigG */
    return read_tower(t, &t->words, t->text, "transformer.resblocks");
}

/* What the shapes do not say, from open_clip_config.json. */
static kac_status read_model_config(translation *t, bool *quick) {
    const kac_json *j = &t->s->config;
    const cJSON *model = j->root == NULL ? NULL : cJSON_GetObjectItemCaseSensitive(j->root, "model_cfg");
    if (model == NULL) return KAC_OK;
    const cJSON *vision = cJSON_GetObjectItemCaseSensitive(model, "vision_cfg"),
                *text = cJSON_GetObjectItemCaseSensitive(model, "text_cfg");
    int64_t head = 0;
    KAC_TRY(kac_json_bool(j, model, "quick_gelu", quick));
    if (cJSON_IsObject(vision)) KAC_TRY(kac_config_int(j, vision, "head_width", &head, 0, 1 << 12));
    if (head > 0) t->vision.heads = KAC_MAX(t->vision.width / head, 1);
    return cJSON_IsObject(text) ? kac_config_int(j, text, "heads", &t->words.heads, 1, 1 << 12) : KAC_OK;
}

static cJSON *add_tower(cJSON *config, const char *key, const tower *t, const char *act) {
    cJSON *o = cJSON_AddObjectToObject(config, key);
    cJSON_AddNumberToObject(o, "hidden_size", (double)t->width);
    cJSON_AddNumberToObject(o, "intermediate_size", (double)t->inner);
    cJSON_AddNumberToObject(o, "num_hidden_layers", (double)t->layers);
    cJSON_AddNumberToObject(o, "num_attention_heads", (double)t->heads);
    cJSON_AddStringToObject(o, "hidden_act", act);
    return o;
}

/* As transformers' config.json; eos_token_id 2 stands for "the text ends at its largest id", which is open_clip's rule. */
static kac_status make_config(translation *t, bool quick) {
    const char *act = quick ? "quick_gelu" : "gelu";
    cJSON *config = cJSON_CreateObject();
    cJSON_AddStringToObject(config, "model_type", "clip");
    cJSON_AddNumberToObject(config, "projection_dim", (double)t->projection);
    cJSON *text = add_tower(config, "text_config", &t->words, act),
          *vision = add_tower(config, "vision_config", &t->vision, act);
    cJSON_AddNumberToObject(text, "vocab_size", (double)t->vocab_size);
    cJSON_AddNumberToObject(text, "max_position_embeddings", (double)t->max_tokens);
    cJSON_AddNumberToObject(text, "eos_token_id", 2);
    cJSON_AddNumberToObject(vision, "image_size", (double)t->image_size);
    cJSON_AddNumberToObject(vision, "patch_size", (double)t->patch);
    cJSON_AddNumberToObject(vision, "num_channels", (double)t->channels);
    kac_json_free(&t->s->config);
    t->s->config = (kac_json){.root = config, .name = kac_strdup(t->s->path)};
    return config == NULL || t->s->config.name == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* ---- names ---- */

/* A new entry over the same memory; the old ones stay, they may own it. */
static kac_status add(translation *t, kac_path name, kac_weights_entry e) {
    if (t->n_added == t->cap) {
        const int cap = t->cap > 0 ? 2 * t->cap : 256;
        kac_weights_entry *more = kac_realloc(t->added, (size_t)cap * sizeof *more);
        if (more == NULL) return KAC_E_MEMORY;
        t->added = more, t->cap = cap;
    }
    e.own_data = NULL;
    e.own_name = kac_strdup(name.s);
    if (e.own_name == NULL) return KAC_E_MEMORY;
    e.name = e.own_name;
    t->added[t->n_added++] = e;
    return KAC_OK;
}

/* The tensor `from`, whose first axis is cut in n_parts, as entries named after `to`. */
static kac_status rename_parts(translation *t, const kac_path *to, int n_parts, kac_path from) {
    const kac_weights_entry *old = kac_weights_entry_of(&t->s->weights, from.s);
    if (old == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: the weights lack %s", t->s->path, from.s);
    if (n_parts == 1) return add(t, to[0], *old);
    kac_tensor whole;
    KAC_TRY(kac_weights_view(&t->s->weights, old, &whole)); /* row-major from here on */
    kac_weights_entry e = *old;
    if (whole.rank < 1 || whole.shape[0] % n_parts != 0)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s does not hold q, k and v", t->s->path, from.s);
    e.shape[0] = whole.shape[0] / n_parts, e.n_bytes = old->n_bytes / (size_t)n_parts, e.strided = false;
    for (int i = 0; i < n_parts; i++) {
        e.data = (const uint8_t *)whole.data + (size_t)i * e.n_bytes;
        KAC_TRY(add(t, to[i], e));
    }
    return KAC_OK;
}

static kac_status rename_one(translation *t, kac_path to, kac_path from) {
    return rename_parts(t, &to, 1, from);
}

/* x W in open_clip, x Wᵀ in transformers. */
static kac_status rename_transposed(translation *t, kac_path to, kac_path from) {
    const kac_weights_entry *old = find(t, from, 2);
    if (old == NULL) return KAC_FAIL(KAC_E_FORMAT, "%s: the weights lack %s", t->s->path, from.s);
    kac_weights_entry e = *old;
    e.shape[0] = old->shape[1], e.shape[1] = old->shape[0];
    e.stride[0] = old->strided ? old->stride[1] : 1;
    e.stride[1] = old->strided ? old->stride[0] : old->shape[1];
    e.strided = true;
    return add(t, to, e);
}

static kac_status rename_layer(translation *t, kac_path to, kac_path from) {
    static const char *const names[][2] = {{"layer_norm1", "ln_1"},
                                           {"layer_norm2", "ln_2"},
                                           {"self_attn.out_proj", "attn.out_proj"},
                                           {"mlp.fc1", "mlp.c_fc"},
                                           {"mlp.fc2", "mlp.c_proj"}};
    static const char *const kinds[] = {"weight", "bias"};
    if (find(t, kac_path_of("%s.ls_1.gamma", from.s), 1) != NULL ||
        find(t, kac_path_of("%s.attn.ln.weight", from.s), 1) != NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %s has layer scales, which are not supported", t->s->path, from.s);
    for (int k = 0; k < 2; k++) {
        const kac_path qkv[3] = {kac_path_of("%s.self_attn.q_proj.%s", to.s, kinds[k]),
                                 kac_path_of("%s.self_attn.k_proj.%s", to.s, kinds[k]),
                                 kac_path_of("%s.self_attn.v_proj.%s", to.s, kinds[k])};
        KAC_TRY(rename_parts(t, qkv, 3, kac_path_of("%s.attn.in_proj_%s", from.s, kinds[k])));
        for (int i = 0; i < KAC_COUNT_OF(names); i++)
            KAC_TRY(rename_one(t, kac_path_of("%s.%s.%s", to.s, names[i][0], kinds[k]),
                               kac_path_of("%s.%s.%s", from.s, names[i][1], kinds[k])));
    }
    return KAC_OK;
}

static kac_status rename_norm(translation *t, const char *to, kac_path from) {
    KAC_TRY(rename_one(t, kac_path_of("%s.weight", to), kac_path_of("%s.weight", from.s)));
    return rename_one(t, kac_path_of("%s.bias", to), kac_path_of("%s.bias", from.s));
}

static kac_status rename_vision(translation *t) {
    const char *v = t->visual.s;
    KAC_TRY(
        rename_one(t, kac_path_of("vision_model.embeddings.patch_embedding.weight"), kac_path_of("%sconv1.weight", v)));
    KAC_TRY(rename_one(t, kac_path_of("vision_model.embeddings.class_embedding"), kac_path_of("%sclass_embedding", v)));
    KAC_TRY(rename_one(t, kac_path_of("vision_model.embeddings.position_embedding.weight"),
                       kac_path_of("%spositional_embedding", v)));
    KAC_TRY(rename_norm(t, "vision_model.pre_layrnorm", kac_path_of("%sln_pre", v)));
    KAC_TRY(rename_norm(t, "vision_model.post_layernorm", kac_path_of("%sln_post", v)));
    for (int i = 0; i < (int)t->vision.layers; i++)
        KAC_TRY(rename_layer(t, kac_path_of("vision_model.encoder.layers.%d", i),
                             kac_path_of("%stransformer.resblocks.%d", v, i)));
    return rename_transposed(t, kac_path_of("visual_projection.weight"), kac_path_of("%sproj", v));
}

static kac_status rename_text(translation *t) {
    const char *p = t->text.s;
    KAC_TRY(rename_one(t, kac_path_of("text_model.embeddings.token_embedding.weight"),
                       kac_path_of("%stoken_embedding.weight", p)));
    KAC_TRY(rename_one(t, kac_path_of("text_model.embeddings.position_embedding.weight"),
                       kac_path_of("%spositional_embedding", p)));
    KAC_TRY(rename_norm(t, "text_model.final_layer_norm", kac_path_of("%sln_final", p)));
    for (int i = 0; i < (int)t->words.layers; i++)
        KAC_TRY(rename_layer(t, kac_path_of("text_model.encoder.layers.%d", i),
                             kac_path_of("%stransformer.resblocks.%d", p, i)));
    /* A linear layer in the newer text towers, a bare matrix in the others. */
    const kac_path linear = kac_path_of("%stext_projection.weight", p);
    return find(t, linear, 2) != NULL
               ? rename_one(t, kac_path_of("text_projection.weight"), linear)
               : rename_transposed(t, kac_path_of("text_projection.weight"), kac_path_of("%stext_projection", p));
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const kac_weights_entry *)a)->name, ((const kac_weights_entry *)b)->name);
}

/* All entries, sorted. */
static kac_status merge(translation *t) {
    kac_weights *w = &t->s->weights;
    kac_weights_entry *all = kac_realloc(w->entries, (size_t)(w->n_entries + t->n_added) * sizeof *all);
    if (all == NULL) return KAC_E_MEMORY;
    memcpy(all + w->n_entries, t->added, (size_t)t->n_added * sizeof *all);
    w->entries = all, w->n_entries += t->n_added, t->n_added = 0;
    qsort(all, (size_t)w->n_entries, sizeof *all, by_name);
    return KAC_OK;
}

static kac_status translate(translation *t, int quick_gelu) {
    const char *name = NULL;
    const int n_prefix = prefix_length(&t->s->weights, &name);
    if (n_prefix < 0 || n_prefix > 32) return missing(t, conv1);
    t->visual = kac_path_of("%.*svisual.", n_prefix, name);
    t->text = kac_path_of("%.*stext.", n_prefix, name);
    if (find(t, kac_path_of("%stoken_embedding.weight", t->text.s), 2) == NULL)
        t->text = kac_path_of("%.*s", n_prefix, name);
    const kac_path scale = kac_path_of("%.*slogit_scale", n_prefix, name);
    bool quick = false;
    KAC_TRY(read_shapes(t));
    KAC_TRY(read_model_config(t, &quick));
    if (t->vision.heads == 0 || t->words.heads == 0)
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "%s: widths of %lld and %lld do not tell the heads; an open_clip_config.json beside it must name the heads",
            t->s->path, (long long)t->vision.width, (long long)t->words.width);
    KAC_TRY(make_config(t, quick_gelu >= 0 ? quick_gelu == 1 : quick));
    KAC_TRY(rename_vision(t));
    KAC_TRY(rename_text(t));
    if (n_prefix > 0) KAC_TRY(rename_one(t, kac_path_of("logit_scale"), scale));
    return merge(t);
}

kac_status kac_open_clip_translate(kac_source *s, int quick_gelu) {
    translation t = {.s = s};
    const kac_status status = translate(&t, quick_gelu);
    for (int i = 0; i < t.n_added; i++) kac_free(t.added[i].own_name);
    kac_free(t.added);
    return status;
}
