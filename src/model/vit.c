#include "model/vit.h"
#include "nn/scope.h"
#include <math.h>
#include <stdio.h>

const kac_vit_names kac_vit_timm = {.class_token = "cls_token",
                                    .positions = "pos_embed",
                                    .patch = "patch_embed.proj",
                                    .layer = "blocks.%d",
                                    .norm1 = "norm1",
                                    .qkv = "attn.qkv",
                                    .out = "attn.proj",
                                    .norm2 = "norm2",
                                    .fc1 = "mlp.fc1",
                                    .fc2 = "mlp.fc2",
                                    .norm = "norm"};
const kac_vit_names kac_vit_transformers = {.class_token = "embeddings.cls_token",
                                            .positions = "embeddings.position_embeddings",
                                            .patch = "embeddings.patch_embeddings.projection",
                                            .layer = "encoder.layer.%d",
                                            .norm1 = "layernorm_before",
                                            .q = "attention.attention.query",
                                            .k = "attention.attention.key",
                                            .v = "attention.attention.value",
                                            .out = "attention.output.dense",
                                            .norm2 = "layernorm_after",
                                            .fc1 = "intermediate.dense",
                                            .fc2 = "output.dense",
                                            .norm = "layernorm"};

static kac_path layer_path(const char *prefix, const kac_vit_names *names, int i) {
    char name[64];
    snprintf(name, sizeof name, names->layer, i); /* one of the texts above */
    return kac_path_of("%s%s", prefix, name);
}

/* NULL unless it has that rank. */
static const kac_weights_entry *entry_of(const kac_weights *w, kac_path path, int rank) {
    const kac_weights_entry *e = kac_weights_entry_of(w, path.s);
    return e != NULL && e->rank == rank ? e : NULL;
}

kac_status kac_vit_config_infer(kac_vit_config *cfg, const kac_weights *w, const char *prefix,
                                const kac_vit_names *names) {
    const kac_path first = layer_path(prefix, names, 0);
    const kac_weights_entry *patch = entry_of(w, kac_path_of("%s%s.weight", prefix, names->patch), 4),
                            *positions = entry_of(w, kac_path_of("%s%s", prefix, names->positions), 3),
                            *fc1 = entry_of(w, kac_path_of("%s.%s.weight", first.s, names->fc1), 2);
    if (patch == NULL || positions == NULL || fc1 == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s holds no vision transformer under %s%s", w->path, prefix, names->patch);
    if (positions->shape[1] < 1 || positions->shape[1] > 1 << 24 || patch->shape[2] > 1 << 12)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the sizes of its vision transformer are out of range", w->path);
    const int64_t side = (int64_t)floor(sqrt((double)(positions->shape[1] - 1)) + 0.5);
    *cfg = (kac_vit_config){.width = patch->shape[0],
                            .inner = fc1->shape[0],
                            .heads = patch->shape[0] % 64 == 0 ? patch->shape[0] / 64 : 0,
                            .channels = patch->shape[1],
                            .patch = patch->shape[2],
                            .image_size = side * patch->shape[2],
                            .act = KAC_ACT_GELU,
                            .eps = 1e-6,
                            .qkv_bias = true};
    for (;; cfg->layers++) {
        const kac_path layer = layer_path(prefix, names, (int)cfg->layers);
        if (cfg->layers == 256 || kac_weights_entry_of(w, kac_path_of("%s.%s.weight", layer.s, names->fc1).s) == NULL)
            return KAC_OK;
    }
}

static kac_status check(const kac_vit_config *cfg, const char *path) {
    const int64_t sizes[] = {cfg->width, cfg->inner, cfg->layers, cfg->channels, cfg->patch, cfg->image_size};
    for (int i = 0; i < KAC_COUNT_OF(sizes); i++)
        if (sizes[i] < 1 || sizes[i] > 1 << 17)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: the sizes of its vision transformer are out of range", path);
    if (cfg->layers > 256 || cfg->image_size > 1 << 14 || cfg->patch > cfg->image_size)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %lld layers, pictures of %lld, patches of %lld are not supported", path,
                        (long long)cfg->layers, (long long)cfg->image_size, (long long)cfg->patch);
    if (cfg->heads < 1 || cfg->width % cfg->heads != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: %lld attention heads do not divide a width of %lld; its config must name another number",
                        path, (long long)cfg->heads, (long long)cfg->width);
    return KAC_OK;
}

static kac_status load_layer(kac_nn_encoder_layer *m, const kac_loader *l, kac_path p, const kac_vit *v) {
    const kac_vit_names *names = v->names;
    const kac_vit_config *cfg = &v->cfg;
    KAC_TRY(kac_nn_layer_norm_load(l, &m->norm1, kac_path_of("%s.%s", p.s, names->norm1).s, cfg->width, cfg->eps));
    if (names->qkv != NULL) {
        KAC_TRY(kac_nn_linear_load(l, &m->qkv, kac_path_of("%s.%s", p.s, names->qkv).s, cfg->width, 3 * cfg->width,
                                   cfg->qkv_bias));
    } else {
        const kac_path qkv[3] = {kac_path_of("%s.%s", p.s, names->q), kac_path_of("%s.%s", p.s, names->k),
                                 kac_path_of("%s.%s", p.s, names->v)};
        KAC_TRY(kac_nn_linear_load_stack(l, &m->qkv, qkv, 3, cfg->width, cfg->width, cfg->qkv_bias));
    }
    KAC_TRY(kac_nn_linear_load(l, &m->out, kac_path_of("%s.%s", p.s, names->out).s, cfg->width, cfg->width, true));
    KAC_TRY(kac_nn_layer_norm_load(l, &m->norm2, kac_path_of("%s.%s", p.s, names->norm2).s, cfg->width, cfg->eps));
    KAC_TRY(kac_nn_linear_load(l, &m->fc1, kac_path_of("%s.%s", p.s, names->fc1).s, cfg->width, cfg->inner, true));
    return kac_nn_linear_load(l, &m->fc2, kac_path_of("%s.%s", p.s, names->fc2).s, cfg->inner, cfg->width, true);
}

kac_status kac_vit_load(kac_vit *m, const kac_loader *l, const char *prefix, const kac_vit_names *names,
                        kac_vit_config cfg) {
    *m = (kac_vit){.cfg = cfg, .path = kac_path_of("%s", prefix), .names = names};
    KAC_TRY(check(&cfg, l->path));
    m->layer = kac_alloc((size_t)cfg.layers * sizeof *m->layer);
    if (m->layer == NULL) return KAC_E_MEMORY;
    const kac_path class_token = kac_path_of("%s%s", prefix, names->class_token),
                   positions = kac_path_of("%s%s", prefix, names->positions),
                   patch = kac_path_of("%s%s", prefix, names->patch);
    KAC_TRY(kac_nn_patches_load(l, &m->patches,
                                (kac_nn_patches_opt){.proj = patch.s,
                                                     .class_token = class_token.s,
                                                     .positions = positions.s,
                                                     .image_size = cfg.image_size,
                                                     .patch = cfg.patch,
                                                     .channels = cfg.channels,
                                                     .width = cfg.width,
                                                     .bias = true,
                                                     .leading = true}));
    for (int i = 0; i < (int)cfg.layers; i++) KAC_TRY(load_layer(&m->layer[i], l, layer_path(prefix, names, i), m));
    return kac_nn_layer_norm_load(l, &m->norm, kac_path_of("%s%s", prefix, names->norm).s, cfg.width, cfg.eps);
}

void kac_vit_free(kac_vit *m) {
    kac_free(m->layer);
    m->layer = NULL;
}

kac_status kac_vit_run(kac_tensor *out, const kac_vit *m, kac_ctx *c, kac_tensor pixels) {
    const kac_vit_config *cfg = &m->cfg;
    const int64_t side = m->patches.side, n = pixels.shape[0];
    if (pixels.rank != 4 || pixels.shape[1] != cfg->image_size || pixels.shape[2] != cfg->image_size ||
        pixels.shape[3] != cfg->channels || n < 1 || n > KAC_NN_MAX_PICTURES)
        return KAC_FAIL(KAC_E_SHAPE, "this vision transformer wants 1 to %d pictures of %lldx%lld with %lld channels",
                        (int)KAC_NN_MAX_PICTURES, (long long)cfg->image_size, (long long)cfg->image_size,
                        (long long)cfg->channels);
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, c->dtype, n, side * side + 1, cfg->width));
    const size_t mark = kac_scope_open(c);
    kac_tensor h = KAC_NONE;
    KAC_TRY(kac_nn_patches_run(c, &h, &m->patches, pixels));
    for (int i = 0; i < (int)cfg->layers; i++)
        KAC_TRY(kac_nn_encoder_layer_run(c, &m->layer[i], &h, cfg->heads, cfg->act, false,
                                         layer_path(m->path.s, m->names, i).s));
    KAC_TRY(kac_nn_norm_run(c, out, &m->norm, h, KAC_ACT_NONE));
    kac_scope_close(c, mark);
    return kac_tap(c, *out, "%s%s", m->path.s, m->names->norm);
}
