#include "model/open_clip.h"
#include "reward/reward_files.h"
#include <string.h>

static bool has(const kac_source *s, const char *name) {
    return kac_weights_entry_of(&s->weights, name) != NULL;
}

static bool has_ending(const kac_source *s, const char *end) {
    const size_t n_end = strlen(end);
    for (int i = 0; i < s->weights.n_entries; i++) {
        const size_t n = strlen(s->weights.entries[i].name);
        if (n >= n_end && strcmp(s->weights.entries[i].name + n - n_end, end) == 0) return true;
    }
    return false;
}

/* Nothing but weights and biases of linear layers. */
static bool is_head(const kac_weights *w) {
    int n_matrices = 0;
    for (int i = 0; i < w->n_entries; i++) {
        if (w->entries[i].rank > 2) return false;
        n_matrices += w->entries[i].rank == 2;
    }
    const kac_weights_entry *last = kac_weights_entry_of(w, "weight");
    return n_matrices > 0 && w->n_entries == 2 * n_matrices &&
           (last != NULL || kac_weights_entry_of(w, "layers.0.weight") != NULL ||
            kac_weights_entry_of(w, "mlp.layers.0.weight") != NULL);
}

kac_reward_content kac_reward_content_of(const kac_source *s) {
    if (cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(s->config.root, "layers"))) return KAC_CONTENT_CLASSIFIER;
    if (has_ending(s, "cross_model.layers.0.0.fn.to_q.weight")) return KAC_CONTENT_MPS;
    if (has(s, "visual_projection.weight") && has(s, "text_projection.weight")) return KAC_CONTENT_CLIP;
    if (kac_open_clip_is(&s->weights)) return KAC_CONTENT_OPEN_CLIP;
    if (has_ending(s, "visual_encoder.cls_token") && has(s, "mlp.layers.0.weight")) return KAC_CONTENT_IMAGE_REWARD;
    if (has(s, "sign.weight") && has(s, "dct.y.weight")) return KAC_CONTENT_JPEG_SIZE;
    if (has(s, "classifier.weight") && has_ending(s, "embeddings.cls_token")) return KAC_CONTENT_CLASSIFIER;
    return is_head(&s->weights) ? KAC_CONTENT_HEAD : KAC_CONTENT_OTHER;
}

const char *kac_reward_content_text(kac_reward_content content) {
    static const char *const texts[] = {
        [KAC_CONTENT_OTHER] = "no reward model",
        [KAC_CONTENT_CLIP] = "a CLIP (rewards clip, clip-logit, clipscore, pickscore; with a head aesthetic)",
        [KAC_CONTENT_OPEN_CLIP] = "a CLIP in open_clip's names (rewards clip, clip-logit, clipscore, hpsv2)",
        [KAC_CONTENT_IMAGE_REWARD] = "ImageReward (reward image-reward)",
        [KAC_CONTENT_HEAD] = "the head of a predictor on embeddings (reward aesthetic, behind a CLIP and '+')",
        [KAC_CONTENT_CLASSIFIER] = "a classifier (reward classifier)",
        [KAC_CONTENT_JPEG_SIZE] = "sizes of JPEGs (gradients of rewards compressibility, incompressibility, jpeg)",
        [KAC_CONTENT_MPS] = "the multi-dimensional preference score (reward mps)"};
    return texts[content];
}

kac_status kac_reward_wrong_content(const kac_source *s, const char *wanted) {
    const kac_reward_content content = kac_reward_content_of(s);
    char shown[96];
    if (content != KAC_CONTENT_OTHER)
        return KAC_FAIL(KAC_E_FORMAT, "%s is %s; wanted is %s", s->path, kac_reward_content_text(content), wanted);
    const char *type = NULL, *first = s->weights.n_entries > 0 ? s->weights.entries[0].name : "nothing";
    if (s->config.root != NULL && kac_json_text(&s->config, s->config.root, "model_type", &type) != KAC_OK) type = NULL;
    return KAC_FAIL(KAC_E_FORMAT, "%s is no reward model: it holds %d tensors such as %s%s%s; wanted is %s", s->path,
                    s->weights.n_entries, kac_weights_shown(first, shown), type == NULL ? "" : ", model_type ",
                    type == NULL ? "" : type, wanted);
}
