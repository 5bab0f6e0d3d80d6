#include "model/vit_classifier.h"
#include "model/config.h"
#include "nn/scope.h"
#include <string.h>

static kac_status read_config(kac_vit_config *cfg, const kac_json *j) {
    const char *type = NULL;
    KAC_TRY(kac_json_text(j, j->root, "model_type", &type));
    if (type != NULL && strcmp(type, "vit") != 0) return kac_config_unsupported(j, "model_type", "vit");
    KAC_TRY(kac_config_int(j, j->root, "num_attention_heads", &cfg->heads, 1, 1 << 12));
    KAC_TRY(
        kac_config_int(j, j->root, "image_size", &cfg->image_size, 1, 1 << 14)); /* may be no multiple of the patch */
    KAC_TRY(kac_config_act(j, j->root, "hidden_act", &cfg->act, true));
    KAC_TRY(kac_json_bool(j, j->root, "qkv_bias", &cfg->qkv_bias));
    KAC_TRY(kac_json_real(j, j->root, "layer_norm_eps", &cfg->eps));
    return cfg->eps > 0 ? KAC_OK : KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"layer_norm_eps\" must be positive", j->name);
}

kac_status kac_vit_classifier_load(kac_vit_classifier *m, kac_ctx *c, const kac_source *source) {
    *m = (kac_vit_classifier){0};
    const kac_loader l = kac_source_loader(source, c);
    kac_vit_config cfg;
    KAC_TRY(kac_vit_config_infer(&cfg, &source->weights, "vit.", &kac_vit_transformers));
    cfg.eps = 1e-12; /* this class's default */
    if (source->config.root != NULL) KAC_TRY(read_config(&cfg, &source->config));
    const kac_weights_entry *w = kac_weights_entry_of(&source->weights, "classifier.weight");
    m->n_out = w != NULL && w->rank == 2 && w->shape[0] > 0 ? w->shape[0] : 1;
    kac_status s = kac_vit_load(&m->vit, &l, "vit.", &kac_vit_transformers, cfg);
    if (s == KAC_OK) s = kac_nn_linear_load(&l, &m->classifier, "classifier", cfg.width, m->n_out, true);
    if (s != KAC_OK) kac_vit_classifier_free(m);
    return s;
}

void kac_vit_classifier_free(kac_vit_classifier *m) {
    kac_vit_free(&m->vit);
}

kac_status kac_vit_classifier_run(kac_tensor *out, const kac_vit_classifier *m, kac_ctx *c, kac_tensor pixels) {
    const int64_t n = pixels.shape[0];
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, n, m->n_out));
    const size_t mark = kac_scope_open(c);
    kac_tensor states = KAC_NONE, first, logits = KAC_NONE;
    KAC_TRY(kac_vit_run(&states, &m->vit, c, pixels));
    KAC_TRY(kac_take_make(&first, &c->scratch, c->dtype, n, 1, m->vit.cfg.width));
    KAC_TRY(kac_copy(c, &first, kac_tensor_slice(states, 1, 0, 1)));
    KAC_TRY(kac_nn_linear_run(c, &logits, &m->classifier, kac_tensor_reshape(first, n, m->vit.cfg.width), KAC_ACT_NONE,
                              KAC_NONE));
    KAC_TRY(kac_copy(c, out, logits));
    kac_scope_close(c, mark);
    return KAC_OK;
}
