#include "reward/blip_reward.h"
#include "model/image_text.h"
#include "reward/affine_head.h"
#include "reward/preprocess.h"
#include "reward/reward_files.h"
#include "text/wordpiece.h"
#include <string.h>

/* Of the training set's scores; the released checkpoint's (ImageReward.py). */
static const double mean = 0.16717362830052426, deviation = 1.0333394966054072;

enum { MAX_TOKENS = 35 };

typedef struct blip_reward {
    kac_image_text net;
    kac_affine_head head;
    kac_wordpiece *tokenizer;
    kac_preprocess preprocess;
    int32_t (*ids)[MAX_TOKENS]; /* [P] */
    int *n_tokens;              /* [P]; padding is left out: nothing looks at it */
} blip_reward;

static void blip_close(kac_image_reward *r) {
    blip_reward *self = r->self;
    kac_image_text_free(&self->net);
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

/* Pictures whose prompts have the same number of tokens, from `first` on: one batch. */
static int same_length(const blip_reward *self, const kac_picture *pictures, int n) {
    int k = 1;
    while (k < n && self->n_tokens[pictures[k].prompt] == self->n_tokens[pictures[0].prompt]) k++;
    return k;
}

static kac_status score_batch(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const blip_reward *self = r->self;
    const int64_t edge = self->net.vision.cfg.image_size;
    const int n_tokens = self->n_tokens[pictures[0].prompt];
    int32_t ids[KAC_REWARD_BATCH * MAX_TOKENS];
    for (int i = 0; i < n; i++)
        memcpy(ids + i * n_tokens, self->ids[pictures[i].prompt], (size_t)n_tokens * sizeof *ids);
    kac_tensor pixels = {0}, features = {0};
    KAC_TRY(kac_reward_pixels(&pixels, r, &self->preprocess, edge, pictures, n));
    KAC_TRY(kac_image_text_features(&features, &self->net, r->c, pixels, ids, n_tokens));
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        if (r->c->model.counting) continue;
        const double value = kac_affine_head_value(&self->head, (const float *)features.data + i * self->head.n);
        out[i] = (value - mean) / deviation;
    }
    return KAC_OK;
}

static kac_status blip_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const blip_reward *self = r->self;
    for (int i = 0, k; i < n; i += k) {
        k = same_length(self, pictures + i, n - i);
        const size_t mark = kac_arena_mark(&r->c->scratch);
        KAC_TRY(score_batch(r, pictures + i, k, out + i));
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}

static kac_status open_net(blip_reward *self, kac_ctx *c, const char *path) {
    kac_source source;
    KAC_TRY(kac_reward_source_open(&source, path));
    kac_status s = kac_image_text_load(&self->net, c, &source);
    if (s == KAC_OK) s = kac_affine_head_load(&self->head, &source.weights, "mlp.layers.");
    const int64_t width = s == KAC_OK ? kac_bert_config_of(self->net.text)->width : 0;
    if (s == KAC_OK && self->head.n != width)
        s = KAC_FAIL(KAC_E_FORMAT, "%s: the head reads %lld numbers, the text encoder gives %lld", path,
                     (long long)self->head.n, (long long)width);
    kac_source_close(&source);
    return s;
}

kac_status kac_blip_reward_open(kac_image_reward *r, const char *path) {
    blip_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = blip_prepare, r->score = blip_score, r->close = blip_close, r->needs_prompt = true;
    KAC_TRY(open_net(self, r->c, path));
    char *folder = kac_reward_folder(path);
    if (folder == NULL) return KAC_E_MEMORY;
    const kac_status s = kac_wordpiece_load(&self->tokenizer, folder);
    kac_free(folder);
    KAC_TRY(s);
    self->preprocess = kac_preprocess_clip((int)self->net.vision.cfg.image_size);
    self->preprocess.crop_rule = KAC_CROP_EVEN;
    const int64_t n_vocab = kac_bert_config_of(self->net.text)->vocab_size;
    if (kac_wordpiece_vocab_size(self->tokenizer) > n_vocab)
        return KAC_FAIL(KAC_E_FORMAT, "%s: the tokenizer knows %d tokens, the network %lld", path,
                        kac_wordpiece_vocab_size(self->tokenizer), (long long)n_vocab);
    if (kac_bert_config_of(self->net.text)->max_tokens < MAX_TOKENS)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: its text encoder reads %lld tokens, ImageReward needs %d", path,
                        (long long)kac_bert_config_of(self->net.text)->max_tokens, (int)MAX_TOKENS);
    return KAC_OK;
}
