#include "reward/mps_reward.h"
#include "model/mps.h"
#include "reward/clip_files.h"
#include "reward/network_reward.h"
#include "reward/reward_files.h"
#include <math.h>
#include <string.h>

static const char condition[] =
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, "
    "instance, texture, quantity, attributes, position, number, location, word, things.";
/* A text token is looked at when its likeness to the condition is above this share of the best one's. */
static const double threshold = 0.3;

typedef struct mps_reward {
    kac_network_reward net;
    kac_mps mps;
    kac_tokenizer *tokenizer;
    kac_preprocess preprocess;
    kac_tensor *text;  /* [P]: [S, E] of c->dtype in c->run: the tokens that are looked at */
    kac_tensor embeds; /* [P, E] f32 in c->run, of length 1 */
} mps_reward;

static void mps_close(kac_image_reward *r) {
    mps_reward *self = r->self;
    kac_mps_free(&self->mps);
    kac_tokenizer_free(self->tokenizer);
    kac_free(self->text);
    kac_free(self);
}

/* ---- prompts ---- */

/* All tokens of a text projected: [1, T, E] in scratch. */
static kac_status project(kac_tensor *tokens, kac_image_reward *r, const char *text, int32_t *ids, int64_t n_tokens) {
    mps_reward *self = r->self;
    *tokens = (kac_tensor){0};
    KAC_TRY(kac_tokenizer_encode(ids, (int)n_tokens, NULL, self->tokenizer, text, strlen(text)));
    return kac_clip_text_tokens(tokens, self->mps.clip, r->c, ids, 1, n_tokens);
}

/* Indices of the tokens whose greatest product with a token of the condition is above the threshold. In a plan run: all. */
static kac_status choose(int *kept, int *n_kept, kac_image_reward *r, kac_tensor text, kac_tensor wanted) {
    const int n_tokens = (int)text.shape[1];
    const bool plan = r->c->model.counting;
    kac_tensor products = {0};
    KAC_TRY(kac_matmul_t(r->c, &products, text, wanted, 1)); /* [1, T, T'] */
    kac_tensor wide;
    KAC_TRY(kac_take(&wide, &r->c->scratch, KAC_F32, 3, products.shape));
    KAC_TRY(kac_copy(r->c, &wide, products));
    double *likeness = kac_alloc((size_t)n_tokens * sizeof *likeness), best = -INFINITY;
    if (likeness == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n_tokens; i++) {
        likeness[i] = -INFINITY;
        for (int64_t j = 0; j < wide.shape[2] && !plan; j++)
            likeness[i] = fmax(likeness[i], (double)((const float *)wide.data)[i * wide.shape[2] + j]);
        best = fmax(best, likeness[i]);
    }
    *n_kept = 0;
    for (int i = 0; i < n_tokens; i++)
        if (plan || likeness[i] / best > threshold) kept[(*n_kept)++] = i;
    kac_free(likeness);
    return *n_kept > 0 ? KAC_OK : KAC_FAIL(KAC_E_NONFINITE, "%s: no token of a prompt is like the condition", r->name);
}

static kac_status prepare_one(kac_image_reward *r, int i, const char *prompt, int32_t *ids, int *kept,
                              int64_t n_tokens) {
    mps_reward *self = r->self;
    kac_ctx *c = r->c;
    const size_t mark = kac_arena_mark(&c->scratch);
    kac_tensor wanted, text, one = kac_tensor_slice(self->embeds, 0, i, 1);
    int n_kept;
    KAC_TRY(project(&wanted, r, condition, ids, n_tokens));
    KAC_TRY(project(&text, r, prompt, ids, n_tokens));
    KAC_TRY(kac_clip_text_embeds(&one, self->mps.clip, c, ids, 1, n_tokens, true));
    KAC_TRY(choose(kept, &n_kept, r, text, wanted));
    KAC_TRY(kac_take_make(&self->text[i], &c->run, c->dtype, n_kept, text.shape[2]));
    KAC_TRY(kac_gather(c, &self->text[i], kac_tensor_reshape(text, n_tokens, text.shape[2]), kept, n_kept));
    kac_arena_release(&c->scratch, mark);
    return KAC_OK;
}

static kac_status mps_prepare(kac_image_reward *r) {
    mps_reward *self = r->self;
    const kac_clip_config *cfg = kac_clip_config_of(self->mps.clip);
    kac_free(self->text);
    self->text = kac_alloc((size_t)r->n_prompts * sizeof *self->text);
    int32_t *ids = kac_alloc((size_t)cfg->max_tokens * sizeof *ids);
    int *kept = kac_alloc((size_t)cfg->max_tokens * sizeof *kept);
    kac_status s = ids == NULL || kept == NULL || self->text == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) s = kac_take_make(&self->embeds, &r->c->run, KAC_F32, r->n_prompts, cfg->projection);
    for (int i = 0; i < r->n_prompts && s == KAC_OK; i++) {
        const bool same = i > 0 && strcmp(r->prompts[i], r->prompts[i - 1]) == 0;
        kac_tensor to = kac_tensor_slice(self->embeds, 0, i, 1);
        if (same) self->text[i] = self->text[i - 1];
        s = same ? kac_copy(r->c, &to, kac_tensor_slice(self->embeds, 0, i - 1, 1))
                 : prepare_one(r, i, r->prompts[i], ids, kept, cfg->max_tokens);
    }
    kac_free(ids), kac_free(kept);
    return s;
}

/* ---- pictures ---- */

static bool same_prompt(const kac_image_reward *r, int prompt, int other) {
    (void)r;
    return prompt == other;
}

static kac_status mps_features(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt) {
    const mps_reward *self = r->self;
    return kac_mps_features(out, &self->mps, r->c, pixels, self->text[prompt[0]]);
}

/* scale · cos(x, t), t of length 1; its derivative by x is scale (t − cos x / |x|) / |x|. */
static double mps_value(const kac_image_reward *r, const float *x, int64_t width, int prompt, float *d) {
    const mps_reward *self = r->self;
    const double scale = kac_clip_config_of(self->mps.clip)->logit_scale;
    const float *t = (const float *)self->embeds.data + prompt * width;
    double dot = 0, square = 0;
    for (int64_t i = 0; i < width; i++) dot += (double)x[i] * t[i], square += (double)x[i] * x[i];
    const double length = sqrt(square), cosine = dot / length;
    for (int64_t i = 0; i < width && d != NULL; i++) d[i] = (float)(scale * (t[i] - cosine * x[i] / length) / length);
    return scale * cosine;
}

static kac_status open_net(mps_reward *self, kac_ctx *c, const char *path) {
    kac_source s;
    KAC_TRY(kac_reward_source_open(&s, path));
    kac_status status = KAC_OK;
    if (kac_reward_content_of(&s) != KAC_CONTENT_MPS)
        status = kac_reward_wrong_content(&s, "the weights of MPS (cross_model.…)");
    else if (s.config.root == NULL)
        status = KAC_FAIL(KAC_E_FORMAT,
                          "%s has no config.json: put that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K there", path);
    if (status == KAC_OK) status = kac_mps_load(&self->mps, c, &s);
    kac_source_close(&s);
    return status;
}

kac_status kac_mps_reward_open(kac_image_reward *r, const char *path) {
    mps_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->prepare = mps_prepare, r->close = mps_close, r->needs_prompt = true;
    KAC_TRY(open_net(self, r->c, path));
    KAC_TRY(kac_clip_files_tokenizer(&self->tokenizer, path));
    char *folder = kac_reward_folder(path);
    if (folder == NULL) return KAC_E_MEMORY;
    const kac_status s =
        kac_preprocess_load(&self->preprocess, folder, (int)kac_clip_config_of(self->mps.clip)->image_size);
    kac_free(folder);
    kac_network_reward_init(r, &(kac_network_reward){.preprocess = &self->preprocess,
                                                     .size = kac_clip_config_of(self->mps.clip)->image_size,
                                                     .features = mps_features,
                                                     .value = mps_value,
                                                     .together = same_prompt});
    return s;
}
