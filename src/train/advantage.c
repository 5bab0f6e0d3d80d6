#include "train/advantage.h"
#include "base/base.h"
#include <math.h>

static double *seen_of(const kac_advantage *a, int prompt) {
    return a->seen + (size_t)prompt * (size_t)(2 + a->size);
}

void *kac_advantage_state(const kac_advantage *a, size_t *n_bytes) {
    *n_bytes = a->n_bytes;
    return a->seen;
}

kac_status kac_advantage_open(kac_advantage *a, const kac_trainer *tr, size_t extra_bytes) {
    a->n_prompts = tr->t->n_prompts;
    a->size = (int)kac_options_int(tr->options, "track");
    a->least = (int)kac_options_int(tr->options, "track-least");
    a->clip = kac_options_real(tr->options, "advantage-clip");
    if (a->size > 0 && a->least > a->size)
        return KAC_FAIL(KAC_E_USAGE, "--track-least %d is more than --track %d keeps", a->least, a->size);
    const size_t n_seen = (size_t)a->n_prompts * (size_t)(2 + a->size);
    a->n_bytes = n_seen * sizeof(double) + extra_bytes;
    a->seen = kac_alloc(a->n_bytes);
    if (a->seen == NULL) return KAC_E_MEMORY;
    a->extra = a->seen + n_seen;
    return KAC_OK;
}

void kac_advantage_close(kac_advantage *a) {
    kac_free(a->seen);
}

static void moments(const double *r, int n, double *mean, double *deviation) {
    double sum = 0.0, square = 0.0;
    for (int i = 0; i < n; i++) sum += r[i];
    *mean = sum / n;
    for (int i = 0; i < n; i++) square += (r[i] - *mean) * (r[i] - *mean);
    *deviation = sqrt(square / n);
}

static void remember(kac_advantage *a, int prompt, double reward) {
    double *s = seen_of(a, prompt);
    s[2 + (int)s[1]] = reward;
    s[1] = (int)(s[1] + 1) % a->size;
    s[0] = fmin(s[0] + 1, a->size);
}

void kac_advantage_take(kac_advantage *a, const double *rewards, const int *prompt, int n, double *advantages) {
    double mean, deviation;
    for (int i = 0; i < n && a->size > 0; i++) remember(a, prompt[i], rewards[i]);
    for (int i = 0; i < n; i++) {
        const double *s = seen_of(a, prompt[i]);
        if (a->size > 0 && s[0] >= a->least)
            moments(s + 2, (int)s[0], &mean, &deviation);
        else
            moments(rewards, n, &mean, &deviation);
        const double v = (rewards[i] - mean) / (deviation + 1e-6);
        advantages[i] = fmin(fmax(v, -a->clip), a->clip);
    }
}
