/* What tests of searches over noise share: a sink with a budget that can save, restore and stop; a process that counts and remembers; a mixture
 * of sixteen dimensions, so that a neighbour has room to lie in. */
#ifndef KAC_TESTS_SAMPLERS_NOISE_SINK_H
#define KAC_TESTS_SAMPLERS_NOISE_SINK_H

#include "exact.h"
#include <stdlib.h>

enum { MOST = 4096 };

typedef struct sink {
    kac_events events;
    kac_process process, *inner;
    int64_t n_predicted, n_pulled, n_events, nfe, n_samples, stop_after, rewards_told;
    double best[64]; /* of each group, as told last */
    bool rising;     /* and never less than before */
    kac_blob *saved;
    int n_saved, saved_step;
    bool restore;
    float *noises; /* everything given to process->noise, rows of n_state */
    int n_noises, most_noises;
} sink;

static inline kac_status on_step(kac_events *e, const kac_step_event *v) {
    (void)e, (void)v;
    return KAC_OK;
}

static inline kac_status on_search(kac_events *e, const kac_search_event *v) {
    sink *s = e->self;
    if (v->n_samples > v->n_rewards && v->group < 64) s->rising = s->rising && v->best_reward >= s->best[v->group];
    if (v->group < 64) s->best[v->group] = v->best_reward;
    CHECK(e->nfe == 0 || v->nfe <= e->nfe);
    CHECK(v->nfe_budget == e->nfe);
    for (int i = 0; i < v->n_rewards; i++) CHECK(v->rewards[i] <= v->best_reward);
    s->rewards_told += v->n_rewards;
    s->nfe = v->nfe, s->n_samples = v->n_samples;
    s->n_events++;
    return KAC_OK;
}

static inline void forget(sink *s) {
    for (int i = 0; i < s->n_saved; i++) kac_free(s->saved[i].data), kac_free((void *)s->saved[i].name);
    kac_free(s->saved);
    s->saved = NULL, s->n_saved = 0;
}

static inline kac_status on_checkpoint(kac_events *e, int i_step, const kac_blob *blobs, int n) {
    sink *s = e->self;
    forget(s);
    s->saved = kac_alloc((size_t)n * sizeof *s->saved);
    for (int i = 0; i < n; i++) {
        s->saved[i] = (kac_blob){kac_strdup(blobs[i].name), kac_alloc(blobs[i].n_bytes + 1), blobs[i].n_bytes};
        memcpy(s->saved[i].data, blobs[i].data, blobs[i].n_bytes);
    }
    s->n_saved = n, s->saved_step = i_step;
    return KAC_OK;
}

static inline kac_status on_restore(kac_events *e, int *i_step, kac_blob *blobs, int n) {
    sink *s = e->self;
    *i_step = 0;
    if (!s->restore) return KAC_OK;
    CHECK(n == s->n_saved);
    for (int i = 0; i < n; i++) {
        CHECK_TEXT(blobs[i].name, s->saved[i].name);
        if (blobs[i].data == NULL) {
            blobs[i].data = kac_alloc(s->saved[i].n_bytes);
            blobs[i].n_bytes = s->saved[i].n_bytes;
        }
        CHECK(blobs[i].n_bytes == s->saved[i].n_bytes);
        memcpy(blobs[i].data, s->saved[i].data, s->saved[i].n_bytes);
    }
    *i_step = s->saved_step + 1;
    return KAC_OK;
}

static inline bool cancelled(kac_events *e) {
    const sink *s = e->self;
    return s->stop_after > 0 && s->n_predicted >= s->stop_after;
}

static inline sink *sink_of(kac_process *p) {
    return (sink *)((char *)p - offsetof(sink, process));
}

static inline kac_status count_predict(kac_process *p, int i_step, const int *slots, int n) {
    sink_of(p)->n_predicted += n;
    return sink_of(p)->inner->predict(sink_of(p)->inner, i_step, slots, n);
}

static inline kac_status count_pull_step(kac_process *p, int i_step, const int *slots, int n, const float *d_next,
                                         float *d_x) {
    sink_of(p)->n_pulled += i_step >= 0 ? n : 0;
    return sink_of(p)->inner->pull_step(sink_of(p)->inner, i_step, slots, n, d_next, d_x);
}

static inline kac_status count_noise(kac_process *p, const int *slots, int n, const float *z) {
    sink *s = sink_of(p);
    for (int i = 0; i < n && s->n_noises < MOST; i++, s->n_noises++)
        memcpy(s->noises + s->n_noises * p->n_state, z + i * p->n_state, (size_t)p->n_state * sizeof *z);
    return s->inner->noise(s->inner, slots, n, z);
}

static inline sink *make_sink(kac_process *p, int64_t nfe) {
    sink *s = kac_alloc(sizeof *s);
    *s = (sink){.process = *p, .inner = p, .rising = true};
    s->noises = kac_alloc(MOST * (size_t)p->n_state * sizeof *s->noises);
    s->process.predict = count_predict, s->process.noise = count_noise;
    if (p->pull_step != NULL) s->process.pull_step = count_pull_step;
    s->events = (kac_events){.self = s,
                             .on_step = on_step,
                             .on_search = on_search,
                             .on_checkpoint = on_checkpoint,
                             .on_restore = on_restore,
                             .cancelled = cancelled,
                             .nfe = nfe};
    for (int i = 0; i < 64; i++) s->best[i] = -INFINITY;
    return s;
}

static inline void free_sink(sink *s) {
    forget(s);
    kac_free(s->noises);
    kac_free(s);
}

static inline kac_mixture *wide_mixture(const char *kernel, double eta, int n_steps, int n_groups, int k) {
    kac_text t = {0};
    kac_text_add(&t, "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.6, 0.4], \"means\": [");
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 16; i++) kac_text_add(&t, "%s%g", i == 0 ? (c ? "], [" : "[") : ", ", c ? 0.5 : -0.2 * i);
    kac_text_add(&t, "]], \"covariances\": [");
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 16; j++)
                kac_text_add(&t, "%s%s%g",
                             j > 0   ? ", "
                             : i > 0 ? "], ["
                             : c > 0 ? "]], [["
                                     : "[[",
                             "", i == j ? 1 + 0.1 * c : 0.3 * (abs(i - j) == 1));
    kac_text_add(&t, "]]], \"kernel\": \"%s\", \"schedule\": {\"alphas_cumprod\": [", kernel);
    for (int n = 1; n <= n_steps; n++)
        kac_text_add(&t, "%s%.17g", n > 1 ? ", " : "", exp(-0.1 * n / n_steps - 6.0 * n * n / n_steps / n_steps));
    kac_text_add(&t, "]}}");
    kac_mixture *m = NULL;
    CHECK_OK(kac_mixture_parse(&m, t.s, t.n, "wide", &(kac_mixture_options){n_groups, k, 41, eta}));
    kac_text_free(&t);
    return m;
}

static inline kac_reward *wide_reward(void) {
    kac_text t = {0};
    kac_text_add(&t, "{\"A\": [");
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) kac_text_add(&t, "%s%d", j > 0 ? ", " : i > 0 ? "], [" : "[", i == j);
    kac_text_add(&t, "]], \"a\": [");
    for (int i = 0; i < 16; i++) kac_text_add(&t, "%s%g", i > 0 ? ", " : "", 0.3 * (i % 3));
    kac_text_add(&t, "]}");
    kac_reward *r = NULL;
    CHECK_OK(kac_quadratic_parse(&r, t.s, t.n, "wide"));
    kac_text_free(&t);
    return r;
}

#endif
