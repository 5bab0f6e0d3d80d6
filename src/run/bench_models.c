#include "run/bench_models.h"
#include "run/backend.h"
#include "run/run_record.h"
#include "text/prompt.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ---- */

/* Prompts as rewards read them: without the markup of weights, where that is on. */
static kac_status set_plain(kac_bench_models *m, const kac_options *o, int n) {
    for (int i = 0; i < m->n_plain; i++) kac_free(m->owned[i]), m->owned[i] = NULL;
    m->n_plain = 0;
    for (int i = 0; i < n; i++) m->plain[i] = m->prompts[i];
    for (int i = 0; i < n && kac_options_bool(o, "prompt-weighting"); i++) {
        kac_prompt_pieces pieces;
        kac_status s = kac_prompt_parse(&pieces, m->prompts[i]);
        if (s == KAC_OK) m->plain[i] = m->owned[i] = kac_strdup(pieces.text);
        kac_prompt_pieces_free(&pieces);
        m->n_plain = i + 1;
        if (s == KAC_OK && m->owned[i] == NULL) s = KAC_E_MEMORY;
        KAC_TRY(s);
    }
    return KAC_OK;
}

static kac_status set_texts(kac_bench_models *m, const kac_options *o, const int *prompts, int n) {
    KAC_ASSERT(n <= m->plan->batch);
    const int n_negative = kac_options_count(o, "negative-prompt");
    if (n_negative > 1) return KAC_FAIL(KAC_E_USAGE, "one negative prompt is for all; there are %d", n_negative);
    for (int i = 0; i < n; i++) {
        m->prompts[i] = m->plan->unconditional ? "" : m->plan->prompts.items[prompts[i]];
        m->negatives[i] = n_negative == 0 ? NULL : kac_options_text_at(o, "negative-prompt", 0);
    }
    return set_plain(m, o, n);
}

/* ---- what a pass is made of ---- */

static bool is_guided(const kac_bench_way *w) {
    return w->method->needs_grad != NULL && w->method->needs_grad(w->options);
}

static kac_latent_setup setup_of(kac_bench_models *m, int way, int budget, int n) {
    const kac_bench_plan *p = m->plan;
    const kac_bench_way *w = &p->ways[way];
    kac_latent_setup s = {.options = w->options,
                          .model_dir = w->model,
                          .merges = m->merges,
                          .prompts = m->prompts,
                          .plain = m->plain,
                          .negatives = m->negatives,
                          .n_prompts = n,
                          .rewards = (const char *const *)p->rewards,
                          .n_rewards = p->n_rewards,
                          .judges = (const char *const *)p->judges,
                          .n_judges = p->n_judges,
                          .guided = is_guided(w)};
    snprintf(m->density_for, sizeof m->density_for, "%s", w->label);
    if (w->method->needs_density) s.density_for = m->density_for;
    if (w->method->nfe_beside != NULL) s.nfe_beside = w->method->nfe_beside(w->options);
    if (p->unit == KAC_UNIT_NFE && !w->method->anytime) s.nfe = (int64_t)p->budgets[budget];
    return s;
}

static kac_status set_budget(const kac_bench_plan *p, const kac_bench_way *w, int budget) {
    if (p->unit != KAC_UNIT_PARTICLES) return KAC_OK;
    char text[32];
    snprintf(text, sizeof text, "%.0f", p->budgets[budget]);
    return kac_options_set(w->options, "particles", text);
}

int kac_bench_particles(const kac_bench_models *m, int way, int budget) {
    const kac_bench_plan *p = m->plan;
    const double v = p->budgets[budget];
    if (p->ways[way].method->anytime)
        return p->unit == KAC_UNIT_NFE && v < (double)m->costs[way].least
                   ? 0
                   : (int)kac_options_int(p->ways[way].options, "particles");
    return p->unit == KAC_UNIT_PARTICLES ? (int)v : (int)KAC_MIN(v / (double)m->costs[way].least, 1e6);
}

double kac_bench_nfe(const kac_bench_models *m, int way, int budget) {
    const kac_bench_plan *p = m->plan;
    if (p->unit == KAC_UNIT_SECONDS) return 0;
    if (p->ways[way].method->anytime) return p->budgets[budget];
    return (double)kac_bench_particles(m, way, budget) * (double)m->costs[way].least;
}

/* ---- planning ---- */

/* Options that loading reads. */
static const char *const load_options[] = {
    "variant",         "prediction", "lora",    "lora-merge", "lora-partial", "embedding",    "vae",
    "preview-decoder", "dtype",      "backend", "threads",    "combine",      "memory-limit", "reward-timeout"};

static bool same_value(const kac_options *a, const kac_options *b, const char *name) {
    const int n = kac_options_count(a, name);
    if (n != kac_options_count(b, name)) return false;
    for (int i = 0; i < n; i++)
        if (strcmp(kac_options_text_at(a, name, i), kac_options_text_at(b, name, i)) != 0) return false;
    return true;
}

static bool same_load(const kac_bench_way *a, const kac_bench_way *b) {
    if (strcmp(a->model, b->model) != 0) return false;
    for (int i = 0; i < KAC_COUNT_OF(load_options); i++) {
        const bool many = strcmp(load_options[i], "lora") == 0 || strcmp(load_options[i], "embedding") == 0;
        char value[256];
        if (many) {
            if (!same_value(a->options, b->options, load_options[i])) return false;
            continue;
        }
        snprintf(value, sizeof value, "%s", kac_options_as_text(a->options, load_options[i]));
        if (strcmp(value, kac_options_as_text(b->options, load_options[i])) != 0) return false;
    }
    return true;
}

static int model_of(kac_bench_models *m, int way) {
    const kac_bench_way *w = &m->plan->ways[way];
    for (int i = 0; i < m->n_models; i++)
        if (same_load(m->models[i].way, w)) return i;
    m->models[m->n_models].way = w;
    return m->n_models++;
}

/* The longest prompts that differ: no pass needs more room for texts. */
static int longest_prompts(const kac_bench_plan *p, int *out) {
    int n = 0;
    const int most = KAC_MIN(p->batch, p->n_prompts);
    for (int i = 0; i < p->n_prompts && !p->unconditional; i++) {
        const char *text = p->prompts.items[i];
        int at = n, twin = 0;
        for (int k = 0; k < n; k++) twin |= strcmp(p->prompts.items[out[k]], text) == 0;
        if (twin) continue;
        while (at > 0 && strlen(p->prompts.items[out[at - 1]]) < strlen(text)) at--;
        if (at == most) continue;
        n = KAC_MIN(n + 1, most);
        memmove(out + at + 1, out + at, (size_t)(n - 1 - at) * sizeof *out);
        out[at] = i;
    }
    for (int i = 0; n < most; i = (i + 1) % KAC_MAX(1, n), n++) out[n] = p->unconditional ? 0 : out[i];
    return most;
}

static kac_status check_texts(const kac_bench_models *m, const kac_bench_way *w) {
    kac_latent_run r;
    const kac_latent_setup s = {.options = w->options, .model_dir = w->model, .merges = m->merges};
    KAC_TRY(kac_latent_run_load(&r, &s, &kac_plan_ops, NULL));
    const bool texts = r.pipeline.n_texts > 0;
    kac_latent_run_close(&r);
    if (texts && m->plan->unconditional)
        return KAC_FAIL(KAC_E_USAGE, "%s: \"prompts\" is missing: %s wants some", m->plan->file.name, w->model);
    if (!texts && !m->plan->unconditional)
        return KAC_FAIL(KAC_E_USAGE, "%s: \"prompts\": %s is unconditional and takes none", m->plan->file.name,
                        w->model);
    return KAC_OK;
}

/* The first budget that pays for a particle decides whether there are any; the largest how much room is needed. */
static kac_status plan_way(kac_bench_models *m, int way, const int *prompts, int n) {
    const kac_bench_plan *p = m->plan;
    const kac_bench_way *w = &p->ways[way];
    kac_latent_plan plan;
    KAC_TRY(check_texts(m, w));
    KAC_TRY(set_texts(m, w->options, prompts, n));
    KAC_TRY(set_budget(p, w, p->n_budgets - 1));
    const kac_latent_setup setup = setup_of(m, way, p->n_budgets - 1, n);
    KAC_TRY(kac_latent_plan_run(&plan, &setup, m->available));
    kac_bench_cost *c = &m->costs[way];
    const double states = plan.batch;
    *c = (kac_bench_cost){.model = model_of(m, way),
                          .n_steps = plan.n_steps,
                          .guided = setup.guided,
                          .batch = plan.batch,
                          .least = (int64_t)plan.n_steps * (setup.guided ? 2 : 1),
                          .nfe_flops = plan.denoise_flops / states};
    if (setup.guided) c->nfe_flops = (plan.denoise_flops + plan.gradient_flops) / (2 * states);
    kac_bench_model *model = &m->models[c->model];
    model->sizes.model = KAC_MAX(model->sizes.model, plan.sizes.model);
    model->sizes.run = KAC_MAX(model->sizes.run, plan.sizes.run);
    model->sizes.scratch = KAC_MAX(model->sizes.scratch, plan.sizes.scratch);
    model->tape_bytes = KAC_MAX(model->tape_bytes, plan.tape_bytes);
    model->total_bytes = model->sizes.model + model->sizes.run + model->sizes.scratch + model->tape_bytes;
    return KAC_OK;
}

kac_status kac_bench_models_plan(kac_bench_models *m, const kac_bench_plan *p, const char *weights_dir) {
    *m = (kac_bench_models){.plan = p, .available = kac_run_available_bytes(p->ways[0].options)};
    const size_t n = (size_t)p->batch;
    m->merges = kac_path_join(weights_dir, "clip-tokenizer/bpe_simple_vocab_16e6.txt.gz");
    m->prompts = kac_alloc(n * sizeof *m->prompts), m->plain = kac_alloc(n * sizeof *m->plain);
    m->negatives = kac_alloc(n * sizeof *m->negatives), m->owned = kac_alloc(n * sizeof *m->owned);
    int *list = kac_alloc(n * sizeof *list);
    kac_status s = m->merges == NULL || m->prompts == NULL || m->plain == NULL || m->negatives == NULL ||
                           m->owned == NULL || list == NULL
                       ? KAC_E_MEMORY
                       : KAC_OK;
    const int n_longest = s == KAC_OK ? longest_prompts(p, list) : 0;
    for (int i = 0; i < p->n_ways && s == KAC_OK; i++) {
        if (!p->chosen[i]) continue;
        s = plan_way(m, i, list, n_longest);
        if (s != KAC_OK && s != KAC_E_MEMORY) s = kac_fail_prefix(s, "method %s", p->ways[i].label);
    }
    kac_free(list);
    return s;
}

/* ---- running ---- */

/* What was not used longest gives way. */
static void make_room(kac_bench_models *m, const kac_bench_model *wanted) {
    for (;;) {
        size_t sum = wanted->total_bytes;
        kac_bench_model *oldest = NULL;
        for (int i = 0; i < m->n_models; i++) {
            kac_bench_model *other = &m->models[i];
            if (!other->open || other == wanted) continue;
            sum += other->total_bytes;
            if (oldest == NULL || other->used < oldest->used) oldest = other;
        }
        if (oldest == NULL || sum <= m->available) return;
        kac_latent_run_close(&oldest->run);
        oldest->open = false;
    }
}

static kac_status open_model(kac_bench_models *m, kac_bench_model *model, const kac_latent_setup *setup) {
    model->used = ++m->clock;
    if (model->open) return KAC_OK;
    const struct kac_ops *ops;
    KAC_TRY(kac_backend_find(&ops, kac_options_text(setup->options, "backend")));
    make_room(m, model);
    KAC_TRY(kac_latent_run_load(&model->run, setup, ops, &model->sizes));
    model->open = true;
    return KAC_OK;
}

kac_status kac_bench_models_begin(kac_latent_run **run, kac_bench_models *m, int way, int budget, int64_t seed,
                                  const int *prompts, int n) {
    const kac_bench_way *w = &m->plan->ways[way];
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)seed);
    KAC_TRY(kac_options_set(w->options, "seed", text));
    KAC_TRY(set_budget(m->plan, w, budget));
    KAC_TRY(set_texts(m, w->options, prompts, n));
    const kac_latent_setup setup = setup_of(m, way, budget, n);
    kac_bench_model *model = &m->models[m->costs[way].model];
    KAC_TRY(open_model(m, model, &setup));
    KAC_TRY(kac_latent_run_begin(&model->run, &setup, m->costs[way].batch));
    *run = &model->run;
    return KAC_OK;
}

void kac_bench_models_close(kac_bench_models *m) {
    for (int i = 0; i < m->n_models; i++)
        if (m->models[i].open) kac_latent_run_close(&m->models[i].run);
    for (int i = 0; i < m->n_plain; i++) kac_free(m->owned[i]);
    kac_free(m->prompts), kac_free(m->plain), kac_free(m->negatives), kac_free(m->owned), kac_free(m->merges);
    *m = (kac_bench_models){0};
}
