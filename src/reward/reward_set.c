#include "reward/reward_set.h"
#include <string.h>

/* "clip=DIR" and "clip=DIR #2": what reports call them must differ. */
static kac_status number_twin(kac_reward_set *s, kac_image_reward *r) {
    int n_same = 1;
    for (int i = 0; i < s->n; i++) {
        const kac_reward_spec *other = &s->parts[i]->spec;
        const bool same_path = (other->path == NULL) == (r->spec.path == NULL) &&
                               (other->path == NULL || strcmp(other->path, r->spec.path) == 0);
        n_same += same_path && strcmp(other->name, r->spec.name) == 0;
    }
    if (n_same == 1) return KAC_OK;
    char *label = kac_format("%s #%d", r->spec.label, n_same);
    if (label == NULL) return KAC_E_MEMORY;
    kac_free(r->spec.label);
    r->spec.label = label, r->name = label;
    return KAC_OK;
}

kac_status kac_reward_set_open(kac_reward_set *s, kac_ctx *c, const char *const *texts, int n, const kac_options *o) {
    *s = (kac_reward_set){0};
    if (n > KAC_MAX_REWARDS) return KAC_FAIL(KAC_E_USAGE, "at most %d rewards can be combined", (int)KAC_MAX_REWARDS);
    kac_status status = KAC_OK;
    for (int i = 0; i < n && status == KAC_OK; i++) {
        kac_image_reward *r = NULL;
        status = kac_image_reward_open(&r, c, texts[i]);
        if (status != KAC_OK) break;
        r->timeout_ms = 1000 * kac_options_real(o, "reward-timeout");
        status = number_twin(s, r);
        s->specs[s->n] = &r->spec, s->parts[s->n++] = r;
    }
    if (status == KAC_OK && n > 0) status = kac_mix_open(&s->mix, s->specs, s->n, kac_options_text(o, "combine"));
    if (status != KAC_OK) kac_reward_set_close(s);
    return status;
}

void kac_reward_set_close(kac_reward_set *s) {
    kac_mix_close(s->mix);
    for (int i = 0; i < s->n; i++) kac_image_reward_close(s->parts[i]);
    *s = (kac_reward_set){0};
}

bool kac_reward_set_needs_prompt(const kac_reward_set *s) {
    for (int i = 0; i < s->n; i++)
        if (s->parts[i]->needs_prompt) return true;
    return false;
}

kac_status kac_reward_set_prepare(kac_reward_set *s, const char *const *prompts, int n_prompts) {
    for (int i = 0; i < s->n; i++) KAC_TRY(kac_image_reward_prepare(s->parts[i], prompts, n_prompts));
    return KAC_OK;
}

kac_status kac_reward_set_combine(kac_reward_set *s, double *values, int n) {
    const int n_row = s->n + 2;
    if (s->parts[0]->c->model.counting) return KAC_OK;
    for (int i = 0; i < n; i++) KAC_TRY(kac_mix_observe(s->mix, values + i * n_row, 1));
    for (int i = 0; i < n; i++) {
        double *row = values + i * n_row;
        KAC_TRY(kac_mix_total(s->mix, &row[s->n], &row[s->n + 1], row));
    }
    return KAC_OK;
}

bool kac_reward_set_is_plain(const kac_reward_set *s) {
    return s->n == 1 && s->specs[0]->weight == 1 && s->specs[0]->n_shapings == 0;
}
