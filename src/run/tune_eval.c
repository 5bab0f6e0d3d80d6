#include "run/tune_eval.h"
#include "reward/reward_files.h"
#include "run/latent_process.h"
#include <math.h>
#include <string.h>

/* ---- memory ---- */

static int n_pictures(const kac_tune_eval *e) {
    return e->n_prompts * e->n_samples;
}

static size_t picture_bytes(const kac_tune_eval *e) {
    return (size_t)(e->m->width * e->m->height * 3);
}

kac_status kac_tune_eval_open(kac_tune_eval *e, kac_tune_model *m) {
    const kac_options *o = m->wish->options;
    *e = (kac_tune_eval){.m = m,
                         .n_prompts = m->wish->n_eval,
                         .n_samples = (int)kac_options_int(o, "eval-samples"),
                         .seed = (uint64_t)kac_options_int(o, "eval-seed"),
                         .n_embed = m->clip == NULL ? 0 : kac_clip_config_of(m->clip)->projection};
    const size_t n = (size_t)n_pictures(e);
    if (n > 100000) return KAC_FAIL(KAC_E_USAGE, "%zu pictures in each evaluation are too many", n);
    e->base = kac_alloc((n * (size_t)e->n_embed + 1) * sizeof *e->base);
    e->embeds = kac_alloc((n * (size_t)e->n_embed + 1) * sizeof *e->embeds);
    e->rgb = kac_alloc(n * picture_bytes(e));
    e->totals = kac_alloc(n * sizeof *e->totals);
    e->values = kac_alloc(n * KAC_MAX_REWARDS * sizeof *e->values);
    if (e->base != NULL && e->embeds != NULL && e->rgb != NULL && e->totals != NULL && e->values != NULL) return KAC_OK;
    kac_tune_eval_close(e);
    return KAC_E_MEMORY;
}

void kac_tune_eval_close(kac_tune_eval *e) {
    kac_free(e->base), kac_free(e->embeds), kac_free(e->rgb), kac_free(e->totals), kac_free(e->values);
    *e = (kac_tune_eval){0};
}

/* ---- pictures ---- */

/* Every step of every particle, as the method "none". */
static kac_status walk(kac_tune_eval *e, kac_latent *l) {
    kac_process *p = kac_latent_process(l);
    const int n = n_pictures(e);
    const bool is_plan = e->m->ctx.model.counting;
    int *slots = kac_alloc((size_t)n * sizeof *slots);
    const uint8_t **rgb = kac_alloc((size_t)n * sizeof *rgb);
    kac_status s = slots == NULL || rgb == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++) slots[i] = i;
    if (s == KAC_OK) s = p->start(p, slots, n);
    for (int i = 0; i < (is_plan ? 1 : p->n_steps) && s == KAC_OK; i++) {
        s = p->predict(p, i, slots, is_plan ? KAC_MIN(n, e->m->trainee.batch) : n);
        if (s == KAC_OK) s = p->step(p, i, slots, slots, n);
    }
    if (s == KAC_OK) s = kac_latent_pictures(l, slots, n, KAC_STAGE_FINAL, rgb);
    for (int i = 0; i < n && s == KAC_OK && !is_plan; i++)
        memcpy(e->rgb + (size_t)i * picture_bytes(e), rgb[i], picture_bytes(e));
    kac_free(slots), kac_free(rgb);
    return s;
}

static kac_status sample(kac_tune_eval *e) {
    kac_tune_model *m = e->m;
    const kac_options *o = m->wish->options;
    const kac_latent_options lo = {.prompts = (const char *const *)m->wish->prompts.items + m->wish->n_train,
                                   .negative_prompts = m->negatives,
                                   .n_groups = e->n_prompts,
                                   .n_per_group = e->n_samples,
                                   .width = m->width,
                                   .height = m->height,
                                   .cfg_scale = m->cfg_scale,
                                   .seed = e->seed,
                                   .batch = KAC_MIN(m->trainee.batch, n_pictures(e)),
                                   .text = {.clip_skip = (int)kac_options_int(o, "clip-skip")}};
    const size_t mark = kac_arena_mark(&m->ctx.run);
    kac_latent *l;
    KAC_TRY(kac_latent_open(&l, &m->ctx, &m->pipeline, &m->solver, &lo));
    const kac_status s = walk(e, l);
    kac_latent_close(l);
    kac_arena_release(&m->ctx.run, mark);
    return s;
}

/* ---- rewards ---- */

/* values[i · KAC_MAX_REWARDS + k]: reward k of picture i. first_prompt: index of the first watched prompt in the set's list. */
static kac_status score(kac_tune_eval *e, kac_reward_set *set, int first_prompt) {
    const int n = n_pictures(e), batch = e->m->trainee.batch;
    kac_picture *pictures = kac_alloc((size_t)n * sizeof *pictures);
    double *column = kac_alloc((size_t)n * sizeof *column);
    kac_status s = pictures == NULL || column == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++)
        pictures[i] = (kac_picture){e->rgb + (size_t)i * picture_bytes(e), (int)e->m->width, (int)e->m->height,
                                    first_prompt + i / e->n_samples};
    for (int k = 0; k < set->n && s == KAC_OK; k++) {
        set->parts[k]->batch = KAC_MIN(batch, KAC_REWARD_BATCH); /* as large as what was rehearsed */
        s = kac_image_reward_score(set->parts[k], pictures, n, column);
        for (int i = 0; i < n && s == KAC_OK; i++) e->values[i * KAC_MAX_REWARDS + k] = column[i];
    }
    kac_free(pictures), kac_free(column);
    return s;
}

/* Mean over pictures of every `stride`-th number, and the standard error over prompts (NAN for one). */
static double mean_of(const kac_tune_eval *e, const double *v, int stride, double *se) {
    const int n = n_pictures(e);
    double sum = 0, between = 0;
    for (int i = 0; i < n; i++) sum += v[i * stride] / n;
    for (int p = 0; p < e->n_prompts; p++) {
        double mean = 0;
        for (int k = 0; k < e->n_samples; k++) mean += v[(p * e->n_samples + k) * stride] / e->n_samples;
        between += (mean - sum) * (mean - sum);
    }
    if (se != NULL) *se = e->n_prompts > 1 ? sqrt(between / (e->n_prompts - 1) / e->n_prompts) : NAN;
    return sum;
}

/* The combined reward; means and deviations that a "z" keeps are those of the tuning, which pictures that are only watched leave alone. */
static kac_status total(kac_tune_eval *e, kac_tune_scores *out) {
    const int n = n_pictures(e);
    double sum2 = 0;
    for (int i = 0; i < n; i++) {
        double uncertainty;
        KAC_TRY(kac_mix_total(e->m->rewards.mix, &e->totals[i], &uncertainty, e->values + i * KAC_MAX_REWARDS));
        sum2 += e->totals[i] * e->totals[i];
    }
    out->reward = mean_of(e, e->totals, 1, &out->reward_se);
    out->reward_std = sqrt(fmax(sum2 / n - out->reward * out->reward, 0));
    return KAC_OK;
}

/* ---- embeddings ---- */

static kac_status embed(kac_tune_eval *e) {
    kac_tune_model *m = e->m;
    kac_ctx *c = &m->ctx;
    kac_image_reward looker = {.c = c, .name = "--diversity-clip"};
    const int n = n_pictures(e), batch = KAC_MIN(m->trainee.batch, KAC_REWARD_BATCH);
    for (int i = 0; i < n; i += batch) {
        const int k = KAC_MIN(batch, n - i);
        const size_t mark = kac_arena_mark(&c->scratch);
        kac_picture pictures[KAC_REWARD_BATCH];
        for (int j = 0; j < k; j++)
            pictures[j] = (kac_picture){e->rgb + (size_t)(i + j) * picture_bytes(e), (int)m->width, (int)m->height, 0};
        kac_tensor pixels = {0}, out = {0};
        KAC_TRY(
            kac_reward_pixels(&pixels, &looker, &m->clip_pixels, kac_clip_config_of(m->clip)->image_size, pictures, k));
        KAC_TRY(kac_clip_image_embeds(&out, m->clip, c, pixels, true));
        if (!c->model.counting) memcpy(e->embeds + i * e->n_embed, out.data, kac_tensor_bytes(out));
        kac_arena_release(&c->scratch, mark);
    }
    return KAC_OK;
}

static double distance(const float *a, const float *b, int64_t n) {
    double dot = 0;
    for (int64_t i = 0; i < n; i++) dot += (double)a[i] * b[i];
    return fmax(0, 1 - dot); /* rounding aside, of unit vectors it never is less */
}

/* Over each two of `n` embeddings. */
static double spread(const kac_tune_eval *e, int first, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            sum += distance(e->embeds + (first + i) * e->n_embed, e->embeds + (first + k) * e->n_embed, e->n_embed);
    return sum / (0.5 * n * (n - 1));
}

static void compare(const kac_tune_eval *e, kac_tune_scores *out) {
    const int n = n_pictures(e);
    if (e->n_embed == 0) return;
    if (e->n_samples > 1) {
        out->diversity = 0;
        for (int p = 0; p < e->n_prompts; p++)
            out->diversity += spread(e, p * e->n_samples, e->n_samples) / e->n_prompts;
    } else if (n > 1) {
        out->diversity = spread(e, 0, n);
    }
    if (!e->has_base) return;
    out->distance = 0;
    for (int i = 0; i < n; i++)
        out->distance += distance(e->embeds + i * e->n_embed, e->base + i * e->n_embed, e->n_embed) / n;
}

/* ---- all of it ---- */

static kac_status look(kac_tune_eval *e, kac_tune_scores *out, bool is_base) {
    kac_tune_model *m = e->m;
    const bool is_plan = m->ctx.model.counting;
    KAC_TRY(sample(e));
    KAC_TRY(score(e, &m->held_out, 0));
    for (int k = 0; k < m->held_out.n; k++)
        out->held_out[k] = mean_of(e, e->values + k, KAC_MAX_REWARDS, &out->held_out_se[k]);
    KAC_TRY(score(e, &m->rewards, m->wish->n_train));
    for (int k = 0; k < m->rewards.n; k++) out->parts[k] = mean_of(e, e->values + k, KAC_MAX_REWARDS, NULL);
    if (!is_plan) KAC_TRY(total(e, out));
    if (e->n_embed > 0) KAC_TRY(embed(e));
    if (is_base && !is_plan) {
        memcpy(e->base, e->embeds, (size_t)(n_pictures(e) * e->n_embed) * sizeof *e->base);
        e->has_base = 1;
    }
    if (!is_plan) compare(e, out);
    return KAC_OK;
}

kac_status kac_tune_eval_run(kac_tune_eval *e, kac_tune_scores *out, const float *values) {
    kac_trainee *t = &e->m->trainee;
    *out = (kac_tune_scores){.n = n_pictures(e), .reward_se = NAN, .diversity = NAN, .distance = NAN};
    KAC_TRY(t->use(t, values));
    KAC_TRY(look(e, out, values == NULL));
    return t->use(t, t->values);
}

/* ---- grids ---- */

enum { MAX_COLUMNS = 8, MAX_ROWS = 4, MAX_TILE = 192 };

kac_tune_grid kac_tune_grid_of(const kac_tune_eval *e) {
    const int64_t longest = KAC_MAX(e->m->width, e->m->height), tile = KAC_MIN(longest, MAX_TILE);
    kac_tune_grid g = {.columns = KAC_MIN(e->n_prompts, (int)MAX_COLUMNS),
                       .tile_width = (int)KAC_MAX(1, e->m->width * tile / longest),
                       .tile_height = (int)KAC_MAX(1, e->m->height * tile / longest),
                       .by_sample = e->n_prompts <= MAX_COLUMNS};
    const int wanted = g.by_sample ? e->n_samples : (e->n_prompts + g.columns - 1) / g.columns;
    g.rows = KAC_MIN(wanted, (int)MAX_ROWS);
    return g;
}

bool kac_tune_grid_cell(const kac_tune_grid *g, const kac_tune_eval *e, int cell, int *prompt, int *sample) {
    *prompt = g->by_sample ? cell % g->columns : cell;
    *sample = g->by_sample ? cell / g->columns : 0;
    return *prompt < e->n_prompts && *sample < e->n_samples;
}

kac_status kac_tune_grid_draw(uint8_t **rgb, const kac_tune_grid *g, const kac_tune_eval *e) {
    const size_t row_bytes = (size_t)g->columns * (size_t)g->tile_width * 3, tile_row = (size_t)g->tile_width * 3;
    kac_arena *scratch = &e->m->ctx.scratch;
    uint8_t *all = kac_alloc(row_bytes * (size_t)(g->rows * g->tile_height)),
            *tile = kac_alloc(tile_row * (size_t)g->tile_height);
    kac_status s = all == NULL || tile == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int cell = 0; cell < g->columns * g->rows && s == KAC_OK; cell++) {
        int prompt, sample;
        if (!kac_tune_grid_cell(g, e, cell, &prompt, &sample)) continue;
        const uint8_t *from = e->rgb + (size_t)(prompt * e->n_samples + sample) * picture_bytes(e);
        s = kac_resize_u8(tile, g->tile_width, g->tile_height, from, (int)e->m->width, (int)e->m->height,
                          KAC_RESIZE_BILINEAR, scratch);
        uint8_t *to =
            all + (size_t)(cell / g->columns * g->tile_height) * row_bytes + (size_t)(cell % g->columns) * tile_row;
        for (int y = 0; y < g->tile_height && s == KAC_OK; y++)
            memcpy(to + (size_t)y * row_bytes, tile + (size_t)y * tile_row, tile_row);
    }
    kac_free(tile);
    if (s == KAC_OK)
        *rgb = all;
    else
        kac_free(all);
    return s;
}
