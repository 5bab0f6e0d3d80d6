#include "reward/image_reward.h"
#include "reward/clip_reward.h"
#include "reward/jpeg_reward.h"
#include "reward/judge_reward.h"
#include <kac/options.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reward_kind {
    const char *name;
    bool needs_path;
    kac_status (*open)(kac_image_reward *r, const char *path);
} reward_kind;

static const reward_kind kinds[] = {{"clip", true, kac_clip_reward_open},
                                    {"clip-logit", true, kac_clip_logit_reward_open},
                                    {"jpeg", false, kac_jpeg_reward_open},
                                    {"shapes-judge", false, kac_judge_reward_open}};

const char *kac_image_reward_names(void) {
    return "clip, clip-logit, jpeg, shapes-judge";
}

static const reward_kind *find_kind(const char *name) {
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}

static kac_status no_such_reward(const char *name) {
    const char *names[KAC_COUNT_OF(kinds) + 1] = {0};
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++) names[i] = kinds[i].name;
    const char *nearest = kac_nearest(name, names);
    return KAC_FAIL(KAC_E_USAGE, "there is no reward \"%s\"%s%s%s; rewards are %s", name,
                    nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
                    nearest == NULL ? "" : "\"?", kac_image_reward_names());
}

char *kac_image_reward_expand(const char *spec, const char *weights_dir) {
    const size_t n = strcspn(spec, ":=");
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++)
        if (kinds[i].needs_path && spec[n] != '=' && strlen(kinds[i].name) == n && strncmp(spec, kinds[i].name, n) == 0)
            return kac_format("%s=%s/shapes-clip%s", kinds[i].name, weights_dir, spec + n);
    return kac_strdup(spec);
}

/* Cuts a trailing ":NUMBER" off `text`. A path may hold colons: only a number counts. */
static double cut_weight(char *text) {
    char *colon = strrchr(text, ':'), *end;
    if (colon == NULL || colon[1] == '\0') return 1;
    const double weight = strtod(colon + 1, &end);
    if (*end != '\0') return 1;
    *colon = '\0';
    return weight;
}

kac_status kac_image_reward_open(kac_image_reward **out, kac_ctx *c, const char *spec) {
    kac_image_reward *r = kac_alloc(sizeof *r);
    char *name = kac_strdup(spec);
    if (r == NULL || name == NULL) {
        kac_free(r), kac_free(name);
        return KAC_E_MEMORY;
    }
    *r = (kac_image_reward){.name = name, .c = c, .weight = cut_weight(name)};
    char *path = strchr(name, '=');
    if (path != NULL) *path++ = '\0';
    const reward_kind *kind = find_kind(name);
    kac_status s = KAC_OK;
    if (kind == NULL)
        s = no_such_reward(name);
    else if (!isfinite(r->weight) || r->weight == 0)
        s = KAC_FAIL(KAC_E_USAGE, "the weight of reward \"%s\" must be a number other than 0", spec);
    else if (kind->needs_path && (path == NULL || *path == '\0'))
        s = KAC_FAIL(KAC_E_USAGE, "reward \"%s\" needs a model folder: %s=DIR", name, name);
    else if (!kind->needs_path && path != NULL)
        s = KAC_FAIL(KAC_E_USAGE, "reward \"%s\" takes no path", name);
    else
        s = kind->open(r, path);
    if (path != NULL) path[-1] = '='; /* the whole is its name in reports */
    if (s != KAC_OK) {
        kac_image_reward_close(r);
        return s;
    }
    *out = r;
    return KAC_OK;
}

void kac_image_reward_close(kac_image_reward *r) {
    if (r == NULL) return;
    if (r->close != NULL) r->close(r);
    kac_free(r->name);
    kac_free(r);
}

kac_status kac_image_reward_prepare(kac_image_reward *r, const char *const *prompts, int n_prompts) {
    r->prompts = prompts, r->n_prompts = n_prompts;
    return r->prepare == NULL ? KAC_OK : r->prepare(r);
}

kac_status kac_image_reward_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    enum { BATCH = 16 };
    for (int i = 0; i < n; i += BATCH) {
        const size_t mark = kac_arena_mark(&r->c->scratch);
        KAC_TRY(r->score(r, pictures + i, KAC_MIN(BATCH, n - i), out + i));
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}
