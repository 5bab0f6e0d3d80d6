#include "reward/aesthetic_reward.h"
#include "reward/affine_head.h"
#include "reward/clip_files.h"
#include "reward/network_reward.h"
#include "reward/reward_files.h"
#include <string.h>

typedef struct aesthetic_reward {
    kac_network_reward net;
    kac_clip *clip;
    kac_preprocess preprocess;
    kac_affine_head head;
} aesthetic_reward;

static void aesthetic_close(kac_image_reward *r) {
    aesthetic_reward *self = r->self;
    kac_clip_free(self->clip);
    kac_affine_head_free(&self->head);
    kac_free(self);
}

static kac_status aesthetic_features(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt) {
    (void)prompt;
    return kac_clip_image_embeds(out, ((const aesthetic_reward *)r->self)->clip, r->c, pixels, true);
}

static double aesthetic_value(const kac_image_reward *r, const float *features, int64_t width, int prompt, float *d) {
    const aesthetic_reward *self = r->self;
    (void)prompt;
    for (int64_t i = 0; i < width && d != NULL; i++) d[i] = (float)self->head.w[i];
    return kac_affine_head_value(&self->head, features);
}

static kac_status open_head(kac_affine_head *head, const char *path) {
    kac_source s;
    KAC_TRY(kac_reward_source_open(&s, path));
    const bool wrapped = kac_weights_entry_of(&s.weights, "mlp.layers.0.weight") != NULL;
    const bool named = kac_weights_entry_of(&s.weights, "layers.0.weight") != NULL;
    const kac_status status = kac_reward_content_of(&s) == KAC_CONTENT_HEAD
                                  ? kac_affine_head_load(head, &s.weights,
                                                         wrapped ? "mlp.layers."
                                                         : named ? "layers."
                                                                 : "")
                                  : kac_reward_wrong_content(&s, "the head of an aesthetic predictor");
    kac_source_close(&s);
    return status;
}

/* At the last '+' behind which a file is; NULL: no head named. ('+' is part of the published file's own name.) */
static char *find_head(char *path) {
    for (char *plus = path; (plus = strchr(plus, '+')) != NULL; plus++) {
        *plus = '\0';
        const bool split = (kac_file_exists(path) || kac_dir_exists(path)) && plus[1] != '\0';
        if (split) return plus + 1;
        *plus = '+';
    }
    return NULL;
}

static kac_status open_parts(aesthetic_reward *self, kac_ctx *c, char *path) {
    const char *head = find_head(path);
    if (head == NULL)
        return KAC_FAIL(KAC_E_USAGE, "aesthetic=%s: name a CLIP and a head: aesthetic=DIR+HEAD.pth", path);
    KAC_TRY(open_head(&self->head, head));
    KAC_TRY(kac_clip_files_open(&self->clip, &self->preprocess, c, path));
    const int64_t width = kac_clip_config_of(self->clip)->projection;
    if (self->head.n != width)
        return KAC_FAIL(KAC_E_SHAPE, "%s reads embeddings of %lld numbers, %s gives %lld: it was made for another CLIP",
                        head, (long long)self->head.n, path, (long long)width);
    return KAC_OK;
}

kac_status kac_aesthetic_reward_open(kac_image_reward *r, const char *path) {
    aesthetic_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->close = aesthetic_close;
    char *copy = kac_strdup(path);
    const kac_status s = copy == NULL ? KAC_E_MEMORY : open_parts(self, r->c, copy);
    kac_free(copy);
    KAC_TRY(s);
    kac_network_reward_init(r, &(kac_network_reward){.preprocess = &self->preprocess,
                                                     .size = kac_clip_config_of(self->clip)->image_size,
                                                     .features = aesthetic_features,
                                                     .value = aesthetic_value});
    return KAC_OK;
}
