#include "reward/blip_reward.h"
#include "model/image_text.h"
#include "reward/affine_head.h"
#include "reward/network_reward.h"
#include "reward/reward_files.h"
#include "text/wordpiece.h"
#include <string.h>

/* Of the training set's scores; the released checkpoint's (ImageReward.py). */
static const double mean = 0.16717362830052426, deviation = 1.0333394966054072;

enum { MAX_TOKENS = 35 };

typedef struct blip_reward {
    kac_network_reward net;
    kac_image_text image_text;
    kac_affine_head head;
    kac_wordpiece *tokenizer;
    kac_preprocess preprocess;
    int32_t (*ids)[MAX_TOKENS]; /* [P] */
    int *n_tokens;              /* [P]; padding is left out: nothing looks at it */
} blip_reward;

static void blip_close(kac_image_reward *r) {
    blip_reward *self = r->self;
    kac_image_text_free(&self->image_text);
    kac_affine_head_free(&self->head);
    kac_wordpiece_free(self->tokenizer);
    kac_free(self->ids), kac_free(self->n_tokens);
    kac_free(self);
}

static kac_status blip_prepare(kac_image_reward *r) {
    blip_reward *self = r->self;
    kac_free(self->ids), kac_free(self->n_tokens);
    self->ids = kac_alloc((size_t)r->n_prompts * sizeof *self->ids);
    self->n_tokens = kac_alloc((size_t)r->n_prompts * sizeof *self->n_tokens);
    if (self->ids == NULL || self->n_tokens == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < r->n_prompts; i++) {
        kac_tokens used;
        KAC_TRY(kac_wordpiece_encode(self->ids[i], MAX_TOKENS, &used, self->tokenizer, r->prompts[i],
                                     strlen(r->prompts[i])));
        self->n_tokens[i] = used.n;
    }
    return KAC_OK;
}

static bool same_length(const kac_image_reward *r, int prompt, int other) {
    const blip_reward *self = r->self;
    return self->n_tokens[prompt] == self->n_tokens[other];
}

static kac_status blip_features(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt) {
    const blip_reward *self = r->self;
    const int n_tokens = self->n_tokens[prompt[0]];
    int32_t ids[KAC_REWARD_BATCH * MAX_TOKENS];
    for (int i = 0; i < (int)pixels.shape[0]; i++)
        memcpy(ids + i * n_tokens, self->ids[prompt[i]], (size_t)n_tokens * sizeof *ids);
    return kac_image_text_features(out, &self->image_text, r->c, pixels, ids, n_tokens);
}

static double blip_value(const kac_image_reward *r, const float *features, int64_t width, int prompt, float *d) {
    const blip_reward *self = r->self;
    (void)prompt;
    for (int64_t i = 0; i < width && d != NULL; i++) d[i] = (float)(self->head.w[i] / deviation);
    return (kac_affine_head_value(&self->head, features) - mean) / deviation;
}

static kac_status open_net(blip_reward *self, kac_ctx *c, const char *path) {
    kac_source source;
    KAC_TRY(kac_reward_source_open(&source, path));
    kac_status s = kac_image_text_load(&self->image_text, c, &source);
    if (s == KAC_OK) s = kac_affine_head_load(&self->head, &source.weights, "mlp.layers.");
    const int64_t width = s == KAC_OK ? kac_bert_config_of(self->image_text.text)->width : 0;
    if (s == KAC_OK && self->head.n != width)
        s = KAC_FAIL(KAC_E_FORMAT, "%s: the head reads %lld numbers, the text encoder gives %lld", path,
                     (long long)self->head.n, (long long)width);
    kac_source_close(&source);
    return s;
}

kac_status kac_blip_reward_open(kac_image_reward *r, const char *path) {
    blip_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = blip_prepare, r->close = blip_close, r->needs_prompt = true;
    KAC_TRY(open_net(self, r->c, path));
    char *folder = kac_reward_folder(path);
    if (folder == NULL) return KAC_E_MEMORY;
    const kac_status s = kac_wordpiece_load(&self->tokenizer, folder);
    kac_free(folder);
    KAC_TRY(s);
    self->preprocess = kac_preprocess_clip((int)self->image_text.vision.cfg.image_size);
    self->preprocess.crop_rule = KAC_CROP_EVEN;
    kac_network_reward_init(r, &(kac_network_reward){.preprocess = &self->preprocess,
                                                     .size = self->image_text.vision.cfg.image_size,
                                                     .features = blip_features,
                                                     .value = blip_value,
                                                     .together = same_length});
    const int64_t n_vocab = kac_bert_config_of(self->image_text.text)->vocab_size;
    if (kac_wordpiece_vocab_size(self->tokenizer) > n_vocab)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the tokenizer knows %d tokens, the network %lld", path,
                        kac_wordpiece_vocab_size(self->tokenizer), (long long)n_vocab);
    if (kac_bert_config_of(self->image_text.text)->max_tokens < MAX_TOKENS)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: its text encoder reads %lld tokens, ImageReward needs %d", path,
                        (long long)kac_bert_config_of(self->image_text.text)->max_tokens, (int)MAX_TOKENS);
    return KAC_OK;
}
