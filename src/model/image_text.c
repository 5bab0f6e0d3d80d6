#include "model/image_text.h"
#include "model/config.h"
#include "nn/scope.h"

/* How the two halves are named, most usual first. */
static const struct layout {
    const char *vision, *text;
    const kac_vit_names *names;
} layouts[] = {{"blip.visual_encoder.", "blip.text_encoder.", &kac_vit_timm},
               {"visual_encoder.", "text_encoder.", &kac_vit_timm}};

static const struct layout *layout_of(const kac_weights *w) {
    for (int i = 0; i < KAC_COUNT_OF(layouts); i++)
        if (kac_weights_entry_of(w, kac_path_of("%s%s", layouts[i].vision, layouts[i].names->class_token).s) != NULL)
            return &layouts[i];
    return NULL;
}

static kac_status read_config(kac_vit_config *vision, kac_bert_config *text, const kac_json *j) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j->root, "vision_config"),
                *t = cJSON_GetObjectItemCaseSensitive(j->root, "text_config");
    if (v != NULL) {
        KAC_TRY(kac_config_int(j, v, "num_attention_heads", &vision->heads, 1, 1 << 12));
        KAC_TRY(kac_config_act(j, v, "hidden_act", &vision->act, true));
        KAC_TRY(kac_json_real(j, v, "layer_norm_eps", &vision->eps));
        if (!(vision->eps > 0)) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"layer_norm_eps\" must be positive", j->name);
    }
    return t == NULL ? KAC_OK : kac_bert_config_read(text, j, t);
}

kac_status kac_image_text_load(kac_image_text *m, kac_ctx *c, const kac_source *source) {
    *m = (kac_image_text){0};
    const kac_loader l = kac_source_loader(source, c);
    const struct layout *layout = layout_of(&source->weights);
    if (layout == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s holds no BLIP (no blip.visual_encoder.cls_token in its weights)",
                        source->path);
    kac_vit_config vision;
    kac_bert_config text;
    KAC_TRY(kac_vit_config_infer(&vision, &source->weights, layout->vision, layout->names));
    KAC_TRY(kac_bert_config_infer(&text, &source->weights, layout->text));
    if (source->config.root != NULL) KAC_TRY(read_config(&vision, &text, &source->config));
    if (text.encoder_width != vision.width)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: cross-attention reads tokens of width %lld, the pictures' have %lld",
                        source->path, (long long)text.encoder_width, (long long)vision.width);
    kac_status s = kac_vit_load(&m->vision, &l, layout->vision, layout->names, vision);
    if (s == KAC_OK) s = kac_bert_load(&m->text, &l, layout->text, &text);
    if (s != KAC_OK) kac_image_text_free(m);
    return s;
}

void kac_image_text_free(kac_image_text *m) {
    kac_vit_free(&m->vision);
    kac_bert_free(m->text);
    *m = (kac_image_text){0};
}

kac_status kac_image_text_features(kac_tensor *out, const kac_image_text *m, kac_ctx *c, kac_tensor pixels,
                                   const int32_t *ids, int64_t n_tokens) {
    const int64_t n = pixels.shape[0];
    kac_tensor tokens = KAC_NONE, states = KAC_NONE;
    if (out->data == NULL) KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, n, kac_bert_config_of(m->text)->width));
    const size_t mark = kac_scope_open(c);
    KAC_TRY(kac_vit_run(&tokens, &m->vision, c, pixels));
    KAC_TRY(kac_bert_run(&states, m->text, c, ids, n, n_tokens, tokens));
    kac_tensor first = kac_tensor_slice(states, 1, 0, 1), wide = kac_tensor_reshape(*out, n, 1, out->shape[1]);
    KAC_TRY(kac_copy(c, &wide, first));
    kac_scope_close(c, mark);
    return KAC_OK;
}
