#include "reward/clip_reward.h"
#include "model/clip.h"
#include "reward/preprocess.h"
#include "text/tokenizer.h"
#include <math.h>
#include <string.h>

typedef struct clip_reward {
    kac_clip *clip;
    kac_tokenizer *tokenizer;
    kac_preprocess preprocess;
    double scale;     /* of the cosine */
    bool clamped;     /* below 0 is 0 */
    kac_tensor texts; /* [P, E] f32 in c->run, normalised */
} clip_reward;

static void clip_close(kac_image_reward *r) {
    clip_reward *self = r->self;
    kac_clip_free(self->clip);
    kac_tokenizer_free(self->tokenizer);
    kac_free(self);
}

static kac_status clip_prepare(kac_image_reward *r) {
    clip_reward *self = r->self;
    const int64_t n_tokens = kac_clip_config_of(self->clip)->max_tokens;
    const size_t mark = kac_arena_mark(&r->c->scratch);
    int32_t *ids = kac_alloc((size_t)(r->n_prompts * n_tokens) * sizeof *ids);
    if (ids == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    for (int i = 0; i < r->n_prompts && s == KAC_OK; i++)
        s = kac_tokenizer_encode(ids + i * n_tokens, (int)n_tokens, &(kac_tokens){0}, self->tokenizer, r->prompts[i],
                                 strlen(r->prompts[i]));
    kac_tensor embeds = {0};
    if (s == KAC_OK) s = kac_clip_text_embeds(&embeds, self->clip, r->c, ids, r->n_prompts, n_tokens, true);
    if (s == KAC_OK) s = kac_take(&self->texts, &r->c->run, KAC_F32, embeds.rank, embeds.shape);
    if (s == KAC_OK) s = kac_copy(r->c, &self->texts, embeds);
    kac_arena_release(&r->c->scratch, mark);
    kac_free(ids);
    return s;
}

static kac_status clip_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    clip_reward *self = r->self;
    const bool plan = r->c->model.counting;
    const kac_clip_config *cfg = kac_clip_config_of(self->clip);
    kac_tensor pixels = {0}, embeds = {0};
    KAC_TRY(kac_take_make(&pixels, &r->c->scratch, KAC_F32, n, cfg->image_size, cfg->image_size, 3));
    const int64_t n_pixels = cfg->image_size * cfg->image_size * 3;
    for (int i = 0; i < n; i++) {
        int w, h;
        kac_preprocess_size(&self->preprocess, pictures[i].width, pictures[i].height, &w, &h);
        if (w != cfg->image_size || h != cfg->image_size)
            return KAC_FAIL(KAC_E_SHAPE, "%s: preprocessing gives %d × %d pictures, the model wants %lld × %lld",
                            r->name, w, h, (long long)cfg->image_size, (long long)cfg->image_size);
        if (!plan)
            KAC_TRY(kac_preprocess_apply((float *)pixels.data + i * n_pixels, &self->preprocess, pictures[i].rgb,
                                         pictures[i].width, pictures[i].height, &r->c->scratch));
    }
    KAC_TRY(kac_clip_image_embeds(&embeds, self->clip, r->c, pixels, true));
    const int64_t width = embeds.shape[1];
    for (int i = 0; i < n; i++) {
        const float *image = (const float *)embeds.data + i * width,
                    *text = (const float *)self->texts.data + pictures[i].prompt * width;
        double dot = 0;
        for (int64_t j = 0; j < width && !plan; j++) dot += (double)image[j] * text[j];
        out[i] = self->scale * (self->clamped ? fmax(dot, 0) : dot);
    }
    return KAC_OK;
}

static kac_status open_parts(clip_reward *self, kac_ctx *c, const char *dir) {
    KAC_TRY(kac_clip_load(&self->clip, c, dir));
    const kac_clip_config *cfg = kac_clip_config_of(self->clip);
    if (!cfg->has_text || !cfg->has_vision)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s is no CLIPModel with text and vision towers; a reward needs both", dir);
    KAC_TRY(kac_tokenizer_load(&self->tokenizer, dir));
    return kac_preprocess_load(&self->preprocess, dir, (int)cfg->image_size);
}

static kac_status clip_open(kac_image_reward *r, const char *dir, bool logit) {
    clip_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = clip_prepare, r->score = clip_score, r->close = clip_close, r->needs_prompt = true;
    KAC_TRY(open_parts(self, r->c, dir));
    self->scale = logit ? kac_clip_config_of(self->clip)->logit_scale : 1;
    return KAC_OK;
}

kac_status kac_clipscore_reward_open(kac_image_reward *r, const char *dir) {
    KAC_TRY(clip_open(r, dir, false));
    clip_reward *self = r->self;
    self->scale = 2.5, self->clamped = true;
    return KAC_OK;
}

kac_status kac_clip_reward_open(kac_image_reward *r, const char *dir) {
    return clip_open(r, dir, false);
}
kac_status kac_clip_logit_reward_open(kac_image_reward *r, const char *dir) {
    return clip_open(r, dir, true);
}
