#include "reward/classifier_reward.h"
#include "model/cnn.h"
#include "model/config.h"
#include "model/vit_classifier.h"
#include "reward/network_reward.h"
#include "reward/reward_files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_LABELS = 64 };

typedef struct classifier_reward {
    kac_network_reward net;
    bool is_cnn;
    kac_cnn cnn;
    kac_vit_classifier vit;
    kac_preprocess preprocess;
    int64_t size, channels, n_out;
    int64_t label[MAX_LABELS];
    int n_labels;
} classifier_reward;

static void classifier_close(kac_image_reward *r) {
    classifier_reward *self = r->self;
    kac_vit_classifier_free(&self->vit);
    kac_free(self);
}

/* ---- score ---- */

/* Luma in place of three channels: out [n, size, size, 1]. */
static kac_status grey(kac_ctx *c, kac_tensor *out, kac_tensor pixels) {
    kac_tensor part[3];
    for (int i = 0; i < 3; i++) {
        KAC_TRY(kac_take_make(&part[i], &c->scratch, KAC_F32, pixels.shape[0], pixels.shape[1], pixels.shape[2], 1));
        KAC_TRY(kac_copy(c, &part[i], kac_tensor_slice(pixels, 3, i, 1)));
    }
    return kac_lincomb(c, out, 3, part, (double[]){0.299, 0.587, 0.114}, 1);
}

static kac_status classifier_features(kac_tensor *out, kac_image_reward *r, kac_tensor pixels, const int *prompt) {
    const classifier_reward *self = r->self;
    (void)prompt;
    kac_tensor luma = {0};
    if (self->channels == 1) KAC_TRY(grey(r->c, &luma, pixels));
    if (luma.data != NULL) pixels = luma;
    return self->is_cnn ? kac_cnn_run(out, &self->cnn, r->c, pixels)
                        : kac_vit_classifier_run(out, &self->vit, r->c, pixels);
}

/* The likeliest label's log-probability; its derivative by the logits is onehot − p. */
static double classifier_value(const kac_image_reward *r, const float *logits, int64_t n, int prompt, float *d) {
    const classifier_reward *self = r->self;
    (void)prompt;
    double top = logits[0], sum = 0;
    int64_t label = self->label[0];
    for (int i = 1; i < self->n_labels; i++)
        if (logits[self->label[i]] > logits[label]) label = self->label[i];
    for (int64_t i = 1; i < n; i++) top = fmax(top, logits[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(logits[i] - top);
    for (int64_t i = 0; i < n && d != NULL; i++) d[i] = (float)((i == label) - exp(logits[i] - top) / sum);
    return logits[label] - top - log(sum);
}

/* ---- label ---- */

/* Is `label` the text, or one of its parts between commas? */
static bool names(const char *text, const char *label) {
    const size_t n = strlen(label);
    if (strcasecmp(text, label) == 0) return true;
    for (const char *part = text; *part != '\0';) {
        part += strspn(part, ", ");
        const size_t n_part = strcspn(part, ",");
        if (n_part == n && n > 0 && strncasecmp(part, label, n) == 0) return true;
        part += n_part;
    }
    return false;
}

/* "labels": ["zero", …] or "id2label": {"0": "zero", …}. */
static kac_status find_label(const classifier_reward *self, int64_t *out, const kac_json *j, const char *label) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(j->root, self->is_cnn ? "labels" : "id2label"), *item;
    char some[160] = "";
    int64_t at = 0;
    char *end;
    cJSON_ArrayForEach(item, list) {
        const int64_t id = item->string == NULL ? at : strtoll(item->string, NULL, 10);
        at++;
        if (!cJSON_IsString(item) || id < 0 || id >= self->n_out) continue;
        if (names(item->valuestring, label)) return *out = id, KAC_OK;
        const size_t used = strlen(some);
        if (used < 100) snprintf(some + used, sizeof some - used, "%s%.40s", used > 0 ? ", " : "", item->valuestring);
    }
    *out = strtoll(label, &end, 10);
    if (*end == '\0' && end != label && *out >= 0 && *out < self->n_out) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "%s: there is no label \"%.60s\" among the %lld%s%s%s", j->name, label,
                    (long long)self->n_out, some[0] == '\0' ? "; write its number" : ": ", some,
                    at > 5 && some[0] != '\0' ? ", …" : "");
}

/* One label, or several with + between them; a label that has a + itself is one all the same. */
static kac_status find_labels(classifier_reward *self, const kac_json *j, char *text) {
    self->n_labels = 1;
    if (strchr(text, '+') == NULL || find_label(self, &self->label[0], j, text) == KAC_OK)
        return find_label(self, &self->label[0], j, text);
    self->n_labels = 0;
    for (char *part = text, *next; part != NULL; part = next) {
        next = strchr(part, '+');
        if (next != NULL) *next++ = '\0';
        if (self->n_labels == MAX_LABELS)
            return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: more than %d labels at once", j->name, (int)MAX_LABELS);
        KAC_TRY(find_label(self, &self->label[self->n_labels++], j, part));
    }
    return KAC_OK;
}

/* ---- opening ---- */

static kac_status read_input(kac_preprocess *p, const kac_json *j, int64_t size) {
    const cJSON *input = cJSON_GetObjectItemCaseSensitive(j->root, "input");
    const char *filter = "bilinear";
    int n = 0;
    *p = kac_preprocess_clip((int)size);
    p->crop_rule = KAC_CROP_EVEN;
    for (int i = 0; i < 3; i++) p->mean[i] = 0, p->std[i] = 1;
    KAC_TRY(kac_json_text(j, input, "filter", &filter));
    KAC_TRY(kac_json_reals(j, input, "mean", p->mean, 3, &n));
    if (n == 1) p->mean[1] = p->mean[2] = p->mean[0];
    KAC_TRY(kac_json_reals(j, input, "std", p->std, 3, &n));
    if (n == 1) p->std[1] = p->std[2] = p->std[0];
    p->filter = strcmp(filter, "bicubic") == 0 ? KAC_RESIZE_BICUBIC : KAC_RESIZE_BILINEAR;
    if (strcmp(filter, "bicubic") != 0 && strcmp(filter, "bilinear") != 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: \"filter\" is \"%.40s\"; bilinear and bicubic are supported", j->name,
                        filter);
    for (int i = 0; i < 3; i++)
        if (!(p->std[i] > 0)) return KAC_FAIL(KAC_E_FORMAT, "%s: \"std\" must be positive", j->name);
    return KAC_OK;
}

static kac_status load(classifier_reward *self, kac_ctx *c, const kac_source *s, const char *folder) {
    if (kac_reward_content_of(s) != KAC_CONTENT_CLASSIFIER)
        return kac_reward_wrong_content(s,
                                        "a classifier (ViTForImageClassification, or a config.json with \"layers\")");
    self->is_cnn = cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(s->config.root, "layers"));
    if (self->is_cnn) {
        KAC_TRY(kac_cnn_load(&self->cnn, c, s));
        self->size = self->cnn.size, self->channels = self->cnn.channels, self->n_out = self->cnn.n_out;
        return read_input(&self->preprocess, &s->config, self->size);
    }
    if (s->config.root == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s has no config.json, which a classifier needs", folder);
    KAC_TRY(kac_vit_classifier_load(&self->vit, c, s));
    self->size = self->vit.vit.cfg.image_size, self->channels = self->vit.vit.cfg.channels,
    self->n_out = self->vit.n_out;
    if (self->channels != 3)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: pictures of %lld channels are not supported", folder,
                        (long long)self->channels);
    return kac_preprocess_load(&self->preprocess, folder, (int)self->size);
}

static kac_status open_parts(classifier_reward *self, kac_ctx *c, char *path) {
    char *colon = strrchr(path, ':');
    if (colon == NULL || colon[1] == '\0')
        return KAC_FAIL(KAC_E_USAGE,
                        "classifier=%s names no label: write classifier=DIR:LABEL, a number as classifier=\"DIR:3\"",
                        path);
    *colon = '\0';
    kac_source s;
    KAC_TRY(kac_reward_source_open(&s, path));
    char *folder = kac_reward_folder(path);
    kac_status status = folder == NULL ? KAC_E_MEMORY : load(self, c, &s, folder);
    if (status == KAC_OK) status = find_labels(self, &s.config, colon + 1);
    kac_free(folder);
    kac_source_close(&s);
    return status;
}

kac_status kac_classifier_reward_open(kac_image_reward *r, const char *path) {
    classifier_reward *self = kac_alloc(sizeof *self);
    if (self == NULL) return KAC_E_MEMORY;
    r->self = self, r->close = classifier_close;
    char *copy = kac_strdup(path);
    const kac_status s = copy == NULL ? KAC_E_MEMORY : open_parts(self, r->c, copy);
    kac_free(copy);
    KAC_TRY(s);
    kac_network_reward_init(r, &(kac_network_reward){.preprocess = &self->preprocess,
                                                     .size = self->size,
                                                     .features = classifier_features,
                                                     .value = classifier_value});
    return KAC_OK;
}
