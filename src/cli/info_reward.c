/* What rewards a model can give: told by the names of its tensors. */
#include "info.h"
#include "model/clip.h"
#include "model/image_text.h"
#include "model/open_clip.h"
#include "reward/affine_head.h"
#include "reward/reward_files.h"
#include <string.h>

static void add_clip(cJSON *d, const kac_source *s) {
    kac_clip_config cfg;
    if (kac_clip_config_read(&cfg, &s->config) != KAC_OK) return;
    cJSON_AddNumberToObject(d, "picture_size", (double)cfg.image_size);
    cJSON_AddNumberToObject(d, "embedding", (double)cfg.projection);
    cJSON_AddStringToObject(d, "activation", cfg.vision.act == KAC_ACT_QUICK_GELU ? "quick_gelu" : "gelu");
}

static void add_head(cJSON *d, const kac_source *s) {
    static const char *const prefixes[] = {"mlp.layers.", "layers.", ""};
    for (int i = 0; i < KAC_COUNT_OF(prefixes); i++) {
        kac_affine_head head;
        if (kac_affine_head_load(&head, &s->weights, prefixes[i]) != KAC_OK) continue;
        cJSON_AddNumberToObject(d, "embedding", (double)head.n);
        kac_affine_head_free(&head);
        return;
    }
}

static void add_image_text(cJSON *d, const kac_source *s) {
    static const char *const prefixes[] = {"blip.visual_encoder.", "visual_encoder."};
    kac_vit_config cfg;
    for (int i = 0; i < KAC_COUNT_OF(prefixes); i++)
        if (kac_vit_config_infer(&cfg, &s->weights, prefixes[i], &kac_vit_timm) == KAC_OK) {
            cJSON_AddNumberToObject(d, "picture_size", (double)cfg.image_size);
            return;
        }
}

static void add_details(cJSON *d, kac_source *s, kac_reward_content content) {
    switch (content) {
    case KAC_CONTENT_OPEN_CLIP:
        if (kac_open_clip_translate(s, -1) == KAC_OK) add_clip(d, s);
        break;
    case KAC_CONTENT_CLIP:
    case KAC_CONTENT_MPS:
        if (s->config.root != NULL) add_clip(d, s);
        break;
    case KAC_CONTENT_HEAD:
        add_head(d, s);
        break;
    case KAC_CONTENT_IMAGE_REWARD:
        add_image_text(d, s);
        break;
    case KAC_CONTENT_CLASSIFIER:
    case KAC_CONTENT_JPEG_SIZE:
    case KAC_CONTENT_OTHER:
        break;
    }
}

bool kac_info_add_reward(cJSON *d, const char *path) {
    kac_source s;
    if (kac_reward_source_open(&s, path) != KAC_OK) return false;
    const kac_reward_content content = kac_reward_content_of(&s);
    if (content != KAC_CONTENT_OTHER) {
        cJSON_AddStringToObject(d, "reward", kac_reward_content_text(content));
        add_details(d, &s, content);
    }
    kac_source_close(&s);
    return content != KAC_CONTENT_OTHER;
}

kac_status kac_info_reward(cJSON *d, const char *dir) {
    kac_source s;
    KAC_TRY(kac_reward_source_open(&s, dir));
    double parameters = 0, bytes = 0;
    for (int i = 0; i < s.weights.n_entries; i++) {
        const kac_weights_entry *e = &s.weights.entries[i];
        double n = 1;
        for (int k = 0; k < KAC_MIN(e->rank, KAC_MAX_RANK); k++) n *= (double)e->shape[k];
        parameters += n;
        bytes += (double)e->n_bytes;
    }
    const kac_status status = kac_reward_content_of(&s) != KAC_CONTENT_OTHER
                                  ? KAC_OK
                                  : kac_reward_wrong_content(&s, "a model, a LoRA, a reward or a run folder");
    kac_source_close(&s);
    KAC_TRY(status);
    cJSON_AddStringToObject(d, "kind", "reward model");
    cJSON_AddStringToObject(d, "path", dir);
    kac_info_add_reward(d, dir);
    cJSON_AddNumberToObject(d, "parameters", parameters);
    cJSON_AddNumberToObject(d, "bytes", bytes);
    return KAC_OK;
}
