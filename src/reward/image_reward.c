#include "reward/image_reward.h"
#include "reward/aesthetic_reward.h"
#include "reward/blip_reward.h"
#include "reward/classifier_reward.h"
#include "reward/clip_reward.h"
#include "reward/color_reward.h"
#include "reward/jpeg_reward.h"
#include "reward/judge_reward.h"
#include "reward/mps_reward.h"
#include "reward/outside_reward.h"
#include "reward/plugin_reward.h"
#include <string.h>

typedef struct reward_kind {
    const char *name;
    const char *path;    /* what follows NAME=, for messages; [DIR]: or nothing; NULL: nothing may */
    const char *shipped; /* folder in weights/ that stands in for a missing path; NULL: none */
    kac_status (*open)(kac_image_reward *r, const char *path);
    const char *no_grad; /* why it has no gradient; NULL: it has one */
} reward_kind;

static const char counted[] = "it finds and counts shapes, which is all or nothing";
static const char outside[] = "what comes from outside is a number alone";
static const char jpeg_size[] = "jpeg-size";

static const reward_kind kinds[] = {
    {"clip", "DIR", "shapes-clip", kac_clip_reward_open, NULL},
    {"clip-logit", "DIR", "shapes-clip", kac_clip_logit_reward_open, NULL},
    {"clipscore", "DIR", "shapes-clip", kac_clipscore_reward_open, NULL},
    {"pickscore", "DIR", NULL, kac_clip_logit_reward_open, NULL},
    {"hpsv2", "FILE", NULL, kac_hps_reward_open, NULL},
    {"aesthetic", "CLIP+HEAD", NULL, kac_aesthetic_reward_open, NULL},
    {"image-reward", "DIR or FILE", NULL, kac_blip_reward_open, NULL},
    {"mps", "DIR", NULL, kac_mps_reward_open, NULL},
    {"classifier", "DIR:LABEL[+LABEL]", NULL, kac_classifier_reward_open, NULL},
    {"jpeg", "[DIR]", jpeg_size, kac_incompressibility_reward_open, NULL},
    {"incompressibility", "[DIR]", jpeg_size, kac_incompressibility_reward_open, NULL},
    {"compressibility", "[DIR]", jpeg_size, kac_compressibility_reward_open, NULL},
    {"brightness", "0…1", NULL, kac_brightness_reward_open, NULL},
    {"color", "#RRGGBB", NULL, kac_color_reward_open, NULL},
    {"shapes-judge", NULL, NULL, kac_judge_reward_open, counted},
    {"shapes-share", NULL, NULL, kac_judge_share_reward_open, counted},
    {"shapes-count", NULL, NULL, kac_judge_count_reward_open, counted},
    {"shapes-relation", NULL, NULL, kac_judge_relation_reward_open, counted},
    {"plugin", "FILE.so", NULL, kac_plugin_reward_open, outside},
    {"command", "PROGRAM…", NULL, kac_outside_reward_open, outside},
};

static kac_status find_kind(const reward_kind **out, const char *name) {
    const char *names[KAC_COUNT_OF(kinds) + 1] = {0};
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++) {
        names[i] = kinds[i].name;
        if (strcmp(kinds[i].name, name) == 0) return *out = &kinds[i], KAC_OK;
    }
    return kac_reward_spec_unknown(name, names);
}

static bool is_optional(const reward_kind *kind) {
    return kind->path != NULL && kind->path[0] == '[';
}

char *kac_image_reward_expand(const char *spec, const char *weights_dir) {
    const size_t n = strcspn(spec, ":=,");
    const reward_kind *kind = NULL;
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++)
        if (strlen(kinds[i].name) == n && strncmp(spec, kinds[i].name, n) == 0) kind = &kinds[i];
    if (kind == NULL || kind->shipped == NULL || spec[n] == '=') return kac_strdup(spec);
    char *folder = kac_path_join(weights_dir, kind->shipped);
    char *out = folder == NULL                                 ? NULL
                : is_optional(kind) && !kac_dir_exists(folder) ? kac_strdup(spec)
                                                               : kac_format("%s=%s%s", kind->name, folder, spec + n);
    kac_free(folder);
    return out;
}

/* What is measured is the same with and without its folder: reports call it by its name alone. */
static kac_status label_by_name(kac_image_reward *r) {
    char *label = kac_strdup(r->spec.name);
    if (label == NULL) return KAC_E_MEMORY;
    kac_free(r->spec.label);
    r->spec.label = label, r->name = label;
    return KAC_OK;
}

static kac_status open_kind(kac_image_reward *r) {
    const kac_reward_spec *spec = &r->spec;
    const reward_kind *kind = NULL;
    KAC_TRY(find_kind(&kind, spec->name));
    if (is_optional(kind)) KAC_TRY(label_by_name(r));
    if (kind->path != NULL && (spec->path != NULL || !is_optional(kind)) &&
        (spec->path == NULL || spec->path[0] == '\0'))
        return KAC_FAIL(KAC_E_USAGE, "reward \"%s\" needs a path: %s=%s", spec->name, spec->name, kind->path);
    if (kind->path == NULL && spec->path != NULL)
        return KAC_FAIL(KAC_E_USAGE, "reward \"%s\" takes no path", spec->name);
    return kind->open(r, spec->path);
}

kac_status kac_image_reward_open(kac_image_reward **out, kac_ctx *c, const char *spec) {
    kac_image_reward *r = kac_alloc(sizeof *r);
    if (r == NULL) return KAC_E_MEMORY;
    r->c = c;
    kac_status s = kac_reward_spec_parse(&r->spec, spec);
    r->name = r->spec.label, r->weight = r->spec.weight;
    if (s == KAC_OK) s = open_kind(r);
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
    kac_reward_spec_free(&r->spec);
    kac_free(r);
}

kac_status kac_image_reward_prepare(kac_image_reward *r, const char *const *prompts, int n_prompts) {
    r->prompts = prompts, r->n_prompts = n_prompts;
    return r->prepare == NULL ? KAC_OK : r->prepare(r);
}

static int batch_of(const kac_image_reward *r) {
    return r->batch > 0 ? KAC_MIN(r->batch, KAC_REWARD_BATCH) : KAC_REWARD_BATCH;
}

/* "reward x has no gradient: why; those that have one: …". */
static kac_status refuse_grad(const kac_image_reward *r) {
    const char *why = "it was opened without the folder of its network";
    kac_text all = {0};
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].name, r->spec.name) == 0 && kinds[i].no_grad != NULL) why = kinds[i].no_grad;
        if (kinds[i].no_grad == NULL) kac_text_add(&all, "%s%s", all.n == 0 ? "" : ", ", kinds[i].name);
    }
    const kac_status s = KAC_FAIL(KAC_E_UNSUPPORTED, "reward %s has no gradient: %s; these have one: %s", r->name, why,
                                  all.s == NULL ? "" : all.s);
    kac_text_free(&all);
    return s;
}

kac_status kac_image_reward_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                                 kac_tensor d_images) {
    if (r->grad == NULL) return refuse_grad(r);
    const int batch = batch_of(r);
    for (int64_t i = 0; i < images.shape[0]; i += batch) {
        const int64_t n = KAC_MIN(batch, images.shape[0] - i);
        const size_t mark = kac_arena_mark(&r->c->scratch);
        KAC_TRY(
            r->grad(r, kac_tensor_slice(images, 0, i, n), prompt + i, out + i, kac_tensor_slice(d_images, 0, i, n)));
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}

kac_status kac_image_reward_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const int batch = batch_of(r);
    for (int i = 0; i < n; i += batch) {
        const size_t mark = kac_arena_mark(&r->c->scratch);
        KAC_TRY(r->score(r, pictures + i, KAC_MIN(batch, n - i), out + i));
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}
