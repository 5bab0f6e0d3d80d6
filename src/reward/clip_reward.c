#include "reward/clip_reward.h"
#include "reward/clip_files.h"
#include "reward/network_reward.h"
#include <math.h>
#include <string.h>

enum { TEXT_BATCH = 64 };

typedef struct clip_reward {
    kac_network_reward net;
    kac_clip *clip;
    kac_tokenizer *tokenizer;
    kac_preprocess preprocess;
    double scale;     /* of the cosine */
    bool clamped;     /* below 0 is 0 */
    kac_tensor texts; /* [rows, E] f32 in c->run, normalised */
    int *row;         /* [P]: of prompt p; neighbours that are equal share one */
} clip_reward;

static void clip_close(kac_image_reward *r) {
    clip_reward *self = r->self;
    kac_clip_free(self->clip);
    kac_tokenizer_free(self->tokenizer);
    kac_free(self->row);
    kac_free(self);
}

/* ids [rows, tokens] of the distinct neighbours among the prompts. */
static kac_status encode(kac_image_reward *r, int32_t *ids, int64_t n_tokens, int *n_rows) {
    clip_reward *self = r->self;
    *n_rows = 0;
    for (int i = 0; i < r->n_prompts; i++) {
        const bool same = i > 0 && strcmp(r->prompts[i], r->prompts[i - 1]) == 0;
        self->row[i] = same ? *n_rows - 1 : *n_rows;
        if (same) continue;
        KAC_TRY(kac_tokenizer_encode(ids + *n_rows * n_tokens, (int)n_tokens, &(kac_tokens){0}, self->tokenizer,
                                     r->prompts[i], strlen(r->prompts[i])));
        ++*n_rows;
    }
    return KAC_OK;
}

static kac_status embed(kac_image_reward *r, const int32_t *ids, int64_t n_tokens, int n_rows) {
    clip_reward *self = r->self;
    kac_ctx *c = r->c;
    KAC_TRY(kac_take_make(&self->texts, &c->run, KAC_F32, n_rows, kac_clip_config_of(self->clip)->projection));
    for (int i = 0; i < n_rows; i += TEXT_BATCH) {
        const int n = KAC_MIN(TEXT_BATCH, n_rows - i);
        const size_t mark = kac_arena_mark(&c->scratch);
        kac_tensor embeds = {0}, rows = kac_tensor_slice(self->texts, 0, i, n);
        KAC_TRY(kac_clip_text_embeds(&embeds, self->clip, c, ids + i * n_tokens, n, n_tokens, true));
        KAC_TRY(kac_copy(c, &rows, embeds));
        kac_arena_release(&c->scratch, mark);
    }
    return KAC_OK;
}

static kac_status clip_prepare(kac_image_reward *r) {
    clip_reward *self = r->self;
    const int64_t n_tokens = kac_clip_config_of(self->clip)->max_tokens;
    kac_free(self->row);
    self->row = kac_alloc((size_t)r->n_prompts * sizeof *self->row);
    int32_t *ids = kac_alloc((size_t)(r->n_prompts * n_tokens) * sizeof *ids);
    int n_rows = 0;
    kac_status s = ids == NULL || self->row == NULL ? KAC_E_MEMORY : encode(r, ids, n_tokens, &n_rows);
    if (s == KAC_OK && n_rows > 0) s = embed(r, ids, n_tokens, n_rows);
    kac_free(ids);
    return s;
}

static kac_status clip_features(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt) {
    (void)prompt;
    return kac_clip_image_embeds(out, ((const clip_reward *)r->self)->clip, r->c, pixels, true);
}

static double clip_value(const kac_image_reward *r, const float *image, int64_t width, int prompt, float *d) {
    const clip_reward *self = r->self;
    const float *text = (const float *)self->texts.data + self->row[prompt] * width;
    double dot = 0;
    for (int64_t j = 0; j < width; j++) dot += (double)image[j] * text[j];
    const double scale = self->clamped && dot < 0 ? 0 : self->scale;
    for (int64_t j = 0; j < width && d != NULL; j++) d[j] = (float)(scale * text[j]);
    return scale * dot;
}

static kac_status clip_open(kac_image_reward *r, const char *path) {
    clip_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = clip_prepare, r->close = clip_close, r->needs_prompt = true;
    self->scale = 1;
    KAC_TRY(kac_clip_files_open(&self->clip, &self->preprocess, r->c, path));
    kac_network_reward_init(r, &(kac_network_reward){.preprocess = &self->preprocess,
                                                     .size = kac_clip_config_of(self->clip)->image_size,
                                                     .features = clip_features,
                                                     .value = clip_value});
    return kac_clip_files_tokenizer(&self->tokenizer, path);
}

kac_status kac_clip_reward_open(kac_image_reward *r, const char *path) {
    return clip_open(r, path);
}

kac_status kac_clip_logit_reward_open(kac_image_reward *r, const char *path) {
    KAC_TRY(clip_open(r, path));
    clip_reward *self = r->self;
    self->scale = kac_clip_config_of(self->clip)->logit_scale;
    return KAC_OK;
}

kac_status kac_clipscore_reward_open(kac_image_reward *r, const char *path) {
    KAC_TRY(clip_open(r, path));
    clip_reward *self = r->self;
    self->scale = 2.5, self->clamped = true;
    return KAC_OK;
}

kac_status kac_hps_reward_open(kac_image_reward *r, const char *path) {
    KAC_TRY(clip_open(r, path));
    clip_reward *self = r->self;
    self->preprocess = kac_preprocess_clip((int)kac_clip_config_of(self->clip)->image_size);
    self->preprocess.in_float = self->preprocess.longest = true;
    self->preprocess.crop_rule = KAC_CROP_EVEN;
    return KAC_OK;
}
