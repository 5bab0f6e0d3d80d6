#include "reward/judge_reward.h"
#include "reward/judge.h"
#include "reward/preprocess.h"

typedef double (*scene_score)(const kac_scene *seen, const kac_scene_spec *want);

typedef struct judge_reward {
    kac_judge judge;
    kac_scene_spec *wanted; /* [n_prompts] */
    scene_score value;
} judge_reward;

static double right(const kac_scene *seen, const kac_scene_spec *want) {
    return kac_scene_clean(seen) && kac_scene_satisfies(seen, want);
}

static void judge_close(kac_image_reward *r) {
    judge_reward *self = r->self;
    kac_judge_free(&self->judge);
    kac_free(self->wanted);
    kac_free(self);
}

static kac_status judge_prepare(kac_image_reward *r) {
    judge_reward *self = r->self;
    kac_free(self->wanted);
    self->wanted = kac_alloc((size_t)r->n_prompts * sizeof *self->wanted);
    if (self->wanted == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < r->n_prompts; i++) {
        if (!kac_scene_parse(&self->wanted[i], r->prompts[i]))
            return KAC_FAIL(KAC_E_USAGE,
                            "%s finds no shape in the prompt \"%s\"; it knows circle, square, triangle, "
                            "star, heart, cross, diamond, ring",
                            r->name, r->prompts[i]);
        if (self->value == kac_scene_relation_share &&
            (self->wanted[i].n_objects != 2 || self->wanted[i].relation == KAC_REL_NONE))
            return KAC_FAIL(KAC_E_USAGE,
                            "%s needs a prompt that says where one of two shapes stands (above, below, left, "
                            "right), not \"%s\"",
                            r->name, r->prompts[i]);
    }
    return KAC_OK;
}

static kac_status judge_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    judge_reward *self = r->self;
    uint8_t rgb[KAC_JUDGE_EDGE * KAC_JUDGE_EDGE * 3];
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        if (r->c->model.counting) continue;
        KAC_TRY(kac_resize_u8(rgb, KAC_JUDGE_EDGE, KAC_JUDGE_EDGE, pictures[i].rgb, pictures[i].width,
                              pictures[i].height, KAC_RESIZE_BICUBIC, &r->c->scratch));
        kac_scene seen;
        kac_judge_detect(&seen, &self->judge, rgb);
        out[i] = self->value(&seen, &self->wanted[pictures[i].prompt]);
    }
    return KAC_OK;
}

static kac_status judge_open(kac_image_reward *r, scene_score value) {
    judge_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    self->value = value;
    r->self = self, r->prepare = judge_prepare, r->score = judge_score, r->close = judge_close, r->needs_prompt = true;
    return kac_judge_init(&self->judge);
}

kac_status kac_judge_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    return judge_open(r, right);
}

kac_status kac_judge_share_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    return judge_open(r, kac_scene_share);
}

kac_status kac_judge_count_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    return judge_open(r, kac_scene_count_share);
}

kac_status kac_judge_relation_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    return judge_open(r, kac_scene_relation_share);
}
