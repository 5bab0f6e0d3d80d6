#include "run/tune_model.h"
#include "reward/clip_files.h"
#include "reward/judge.h"
#include "run/solver_options.h"
#include "run/tune_eval.h"
#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- what was asked for ---- */

enum { DEFAULT_EVAL = 16 };

/* Of the shipped list all, or `most` evenly spread over it. */
static kac_status add_shipped(kac_prompt_list *l, const char *weights_dir, const char *name, int most) {
    char *path = kac_format("%s/shapes-prompts/%s.tsv", weights_dir, name);
    kac_prompt_list all = {0};
    kac_status s = path == NULL ? KAC_E_MEMORY : kac_prompt_list_add_file(&all, path);
    const int n = KAC_MIN(all.n, most);
    for (int i = 0; i < n && s == KAC_OK; i++) s = kac_prompt_list_add(l, all.items[(int64_t)i * all.n / n]);
    kac_prompt_list_free(&all);
    kac_free(path);
    return s;
}

/* What an unconditional model is told. */
static kac_status add_nothing(kac_tune_wish *w) {
    w->n_train = w->n_eval = 1, w->unconditional = true;
    for (int i = 0; i < 2; i++) KAC_TRY(kac_prompt_list_add_empty(&w->prompts));
    return KAC_OK;
}

static kac_status read_prompts(kac_tune_wish *w, const char *weights_dir) {
    const kac_options *o = w->options;
    kac_prompt_list *l = &w->prompts;
    const char *file = kac_options_text(o, "prompts"), *eval = kac_options_text(o, "eval-prompts");
    const bool shipped = w->model == w->shipped;
    for (int i = 0; i < kac_options_count(o, "prompt"); i++)
        KAC_TRY(kac_prompt_list_add(l, kac_options_text_at(o, "prompt", i)));
    if (file != NULL) KAC_TRY(kac_prompt_list_add_file(l, file));
    const bool own = l->n > 0;
    if (!own && shipped) KAC_TRY(add_shipped(l, weights_dir, "train", INT_MAX));
    w->n_train = l->n;
    if (eval != NULL)
        KAC_TRY(kac_prompt_list_add_file(l, eval));
    else if (!own && shipped)
        KAC_TRY(add_shipped(l, weights_dir, "eval", DEFAULT_EVAL));
    else
        for (int i = 0; i < w->n_train && i < DEFAULT_EVAL; i++) KAC_TRY(kac_prompt_list_add(l, l->items[i]));
    w->n_eval = l->n - w->n_train;
    return l->n > 0 ? KAC_OK : add_nothing(w);
}

static kac_status add_text(char ***list, int *n, char *text) {
    char **more = text == NULL ? NULL : kac_realloc(*list, (size_t)(*n + 1) * sizeof *more);
    if (more == NULL) {
        kac_free(text);
        return KAC_E_MEMORY;
    }
    *list = more;
    more[(*n)++] = text;
    return KAC_OK;
}

/* Whether the judge of shapes can look at all that is watched. */
static bool are_shapes(const kac_tune_wish *w) {
    kac_scene_spec spec;
    bool all = w->n_eval > 0 && w->model == w->shipped;
    for (int i = 0; i < w->n_eval && all; i++) all = kac_scene_parse(&spec, w->prompts.items[w->n_train + i]);
    return all;
}

static kac_status read_rewards(kac_tune_wish *w, const char *weights_dir) {
    const kac_options *o = w->options;
    const int n = kac_options_count(o, "reward"), n_held = kac_options_count(o, "eval-reward");
    if (n > KAC_MAX_REWARDS || n_held > KAC_MAX_REWARDS)
        return KAC_FAIL(KAC_E_USAGE, "at most %d rewards of a kind", KAC_MAX_REWARDS);
    if (n == 0 && w->model != w->shipped)
        return KAC_FAIL(KAC_E_USAGE, "say what to tune for: --reward NAME; 'kac tune --help' lists them");
    for (int i = 0; i < KAC_MAX(n, 1); i++) {
        const char *spec = n > 0 ? kac_options_text_at(o, "reward", i) : "clip";
        KAC_TRY(add_text(&w->rewards, &w->n_rewards, kac_image_reward_expand(spec, weights_dir)));
    }
    for (int i = 0; i < n_held; i++)
        KAC_TRY(add_text(&w->held_out, &w->n_held_out,
                         kac_image_reward_expand(kac_options_text_at(o, "eval-reward", i), weights_dir)));
    static const char *const judges[] = {"shapes-judge", "shapes-share"};
    for (int i = 0; i < KAC_COUNT_OF(judges) && n_held == 0 && are_shapes(w); i++)
        KAC_TRY(add_text(&w->held_out, &w->n_held_out, kac_strdup(judges[i])));
    if (kac_options_int(o, "early-stop") > 0 && w->n_held_out == 0)
        return KAC_FAIL(KAC_E_USAGE, "--early-stop needs an --eval-reward to go by");
    if (kac_options_int(o, "early-stop") > 0 && kac_options_int(o, "eval-every") == 0)
        return KAC_FAIL(KAC_E_USAGE, "--early-stop needs evaluations on the way; --eval-every 0 has none");
    return KAC_OK;
}

/* The CLIP that a reward looks through, if one does. */
static kac_status read_diversity(kac_tune_wish *w, const char *weights_dir) {
    static const char *const names[] = {"clip", "clip-logit", "clipscore", "pickscore"};
    const char *asked = kac_options_text(w->options, "diversity-clip");
    if (asked != NULL && strcmp(asked, "none") == 0) return KAC_OK;
    if (asked != NULL) {
        w->diversity = kac_strdup(asked);
        return w->diversity == NULL ? KAC_E_MEMORY : KAC_OK;
    }
    for (int i = 0; i < w->n_rewards && w->diversity == NULL; i++) {
        kac_reward_spec spec;
        KAC_TRY(kac_reward_spec_parse(&spec, w->rewards[i]));
        bool is_clip = false;
        for (int k = 0; k < KAC_COUNT_OF(names); k++) is_clip |= strcmp(spec.name, names[k]) == 0;
        if (is_clip && spec.path != NULL) w->diversity = kac_strdup(spec.path);
        kac_reward_spec_free(&spec);
    }
    if (w->diversity == NULL && w->model == w->shipped) w->diversity = kac_path_join(weights_dir, "shapes-clip");
    return KAC_OK;
}

kac_status kac_tune_wish_read(kac_tune_wish *w, const kac_options *o, const char *weights_dir) {
    *w = (kac_tune_wish){.options = o, .model = kac_options_text(o, "model")};
    w->shipped = kac_path_join(weights_dir, "shapes-64");
    w->merges = kac_path_join(weights_dir, "clip-tokenizer/bpe_simple_vocab_16e6.txt.gz");
    if (w->shipped == NULL || w->merges == NULL) return KAC_E_MEMORY;
    if (w->model == NULL) w->model = w->shipped;
    KAC_TRY(read_prompts(w, weights_dir));
    KAC_TRY(read_rewards(w, weights_dir));
    return read_diversity(w, weights_dir);
}

void kac_tune_wish_free(kac_tune_wish *w) {
    for (int i = 0; i < w->n_rewards; i++) kac_free(w->rewards[i]);
    for (int i = 0; i < w->n_held_out; i++) kac_free(w->held_out[i]);
    kac_free(w->rewards), kac_free(w->held_out), kac_free(w->diversity), kac_free(w->shipped), kac_free(w->merges);
    kac_prompt_list_free(&w->prompts);
    *w = (kac_tune_wish){0};
}

/* ---- opening ---- */

static kac_status create_parameters(kac_tune_model *m, const kac_options *o) {
    const bool full = strcmp(kac_options_text(o, "train"), "full") == 0;
    const int rank = (int)kac_options_int(o, "rank");
    const kac_parameters_spec spec = {.kind = full ? KAC_PARAMETERS_FULL : KAC_PARAMETERS_LORA,
                                      .rank = rank,
                                      .alpha = kac_options_given(o, "alpha") ? kac_options_real(o, "alpha") : rank,
                                      .targets = full ? NULL : kac_options_text(o, "targets"),
                                      .init = strcmp(kac_options_text(o, "init"), "gaussian") == 0 ? KAC_LORA_GAUSSIAN
                                                                                                   : KAC_LORA_KAIMING,
                                      .seed = (uint64_t)kac_options_int(o, "seed")};
    static const char *const of_lora[] = {"rank", "alpha", "targets", "init", "lora-format"};
    for (int i = 0; i < KAC_COUNT_OF(of_lora) && full; i++)
        if (kac_options_given(o, of_lora[i]))
            return KAC_FAIL(KAC_E_USAGE, "--%s is about a LoRA; this run has --train full", of_lora[i]);
    return kac_parameters_create(&m->parameters, &spec);
}

static kac_status open_pipeline(kac_tune_model *m, const kac_options *o) {
    const char *prediction = kac_options_text(o, "prediction");
    const kac_pipeline_options po = {
        .checkpoint = {.variant = kac_options_text(o, "variant"), .prediction = prediction},
        .vae = kac_options_text(o, "vae"),
        .merges = m->wish->merges,
        .parameters = m->parameters};
    KAC_TRY(kac_pipeline_open(&m->pipeline, &m->ctx, m->wish->model, &po));
    const bool unconditional = m->pipeline.n_texts == 0;
    if (m->wish->unconditional && !unconditional) return KAC_FAIL(KAC_E_USAGE, "say what to tune on: --prompts FILE");
    if (!m->wish->unconditional && unconditional)
        return KAC_FAIL(KAC_E_USAGE, "this model is unconditional: it takes no prompts");
    m->width = kac_options_given(o, "width") ? kac_options_int(o, "width") : m->pipeline.width;
    m->height = kac_options_given(o, "height") ? kac_options_int(o, "height") : m->pipeline.height;
    if (m->width < 1 || m->height < 1)
        return KAC_FAIL(KAC_E_USAGE, "the model does not say its size; give --width and --height");
    m->cfg_scale = kac_options_real(o, "cfg-scale");
    kac_solver_options so;
    double timesteps[KAC_MAX_TIMESTEPS];
    KAC_TRY(kac_solver_options_read(&so, timesteps, &m->pipeline.schedule, o));
    return kac_solver_init(&m->solver, &m->pipeline.schedule, &so);
}

static kac_status open_rewards(kac_tune_model *m, const kac_options *o) {
    const kac_tune_wish *w = m->wish;
    const char *const *eval = (const char *const *)w->prompts.items + w->n_train;
    KAC_TRY(kac_reward_set_open(&m->rewards, &m->ctx, (const char *const *)w->rewards, w->n_rewards, o));
    if (w->n_held_out > 0) {
        KAC_TRY(kac_reward_set_open(&m->held_out, &m->ctx, (const char *const *)w->held_out, w->n_held_out, o));
        KAC_TRY(kac_reward_set_prepare(&m->held_out, eval, w->n_eval));
    }
    return w->diversity == NULL ? KAC_OK : kac_clip_files_open(&m->clip, &m->clip_pixels, &m->ctx, w->diversity);
}

static kac_status open_trainee(kac_tune_model *m, const kac_options *o, int batch) {
    const kac_tune_wish *w = m->wish;
    const char *negative = kac_options_text(o, "negative-prompt");
    if (negative != NULL) {
        m->negatives = kac_alloc((size_t)w->prompts.n * sizeof *m->negatives);
        if (m->negatives == NULL) return KAC_E_MEMORY;
        for (int i = 0; i < w->prompts.n; i++) m->negatives[i] = negative;
    }
    const kac_latent_trainee_options to = {
        .prompts = (const char *const *)w->prompts.items,
        .negatives = m->negatives,
        .n_prompts = w->prompts.n,
        .text = {.encode = {.clip_skip = (int)kac_options_int(o, "clip-skip")}, .width = m->width, .height = m->height},
        .batch = batch,
        .balance = strcmp(kac_options_text(o, "balance"), "norm") == 0 ? KAC_BALANCE_NORM : KAC_BALANCE_PLAIN};
    KAC_TRY(kac_latent_trainee_open(&m->trainee, &m->ctx, &m->pipeline, &m->solver, m->parameters, &m->rewards, &to));
    m->trainee.n_prompts = w->n_train;
    const char *init = kac_options_text(o, "init-lora");
    if (init == NULL || m->ctx.model.counting) return KAC_OK;
    return kac_parameters_read(m->parameters, m->trainee.values, init);
}

static kac_status open_all(kac_tune_model *m, int batch) {
    const kac_options *o = m->wish->options;
    KAC_TRY(create_parameters(m, o));
    KAC_TRY(open_pipeline(m, o));
    KAC_TRY(open_rewards(m, o));
    return open_trainee(m, o, batch);
}

kac_status kac_tune_model_open(kac_tune_model *m, const kac_tune_wish *w, const struct kac_ops *ops,
                               const kac_tune_plan *plan) {
    *m = (kac_tune_model){.wish = w};
    const kac_dtype dtype = strcmp(kac_options_text(w->options, "dtype"), "bf16") == 0 ? KAC_BF16 : KAC_F32;
    KAC_TRY(kac_ctx_open(&m->ctx, ops, dtype, (int)kac_options_int(w->options, "threads"), &plan->sizes));
    m->ctx.keep_all = plan->keep_all;
    const kac_status s = open_all(m, plan->batch);
    if (s != KAC_OK) kac_tune_model_close(m);
    return s;
}

void kac_tune_model_close(kac_tune_model *m) {
    if (m->ctx.ops == NULL) return;
    kac_latent_trainee_close(&m->trainee);
    kac_clip_free(m->clip);
    kac_reward_set_close(&m->held_out), kac_reward_set_close(&m->rewards);
    kac_solver_free(&m->solver);
    kac_pipeline_close(&m->pipeline);
    kac_parameters_free(m->parameters);
    kac_free(m->negatives);
    kac_ctx_close(&m->ctx);
    *m = (kac_tune_model){0};
}

/* ---- planning ---- */

static kac_status rehearse(kac_tune_model *m, kac_tune_plan *plan) {
    kac_latent_trainee_bytes bytes;
    kac_tune_eval eval;
    kac_tune_scores scores;
    KAC_TRY(kac_latent_trainee_rehearse(&m->trainee, &bytes));
    KAC_TRY(kac_tune_eval_open(&eval, m));
    const kac_status s = kac_tune_eval_run(&eval, &scores, NULL);
    kac_tune_eval_close(&eval);
    KAC_TRY(s);
    const size_t spare = (size_t)1 << 20; /* pictures being resized for a reward's network are not rehearsed */
    plan->sizes = (kac_ctx_sizes){m->ctx.model.peak, m->ctx.run.peak, m->ctx.scratch.peak + spare};
    plan->gradients_bytes = bytes.gradients;
    plan->host_bytes = bytes.host;
    return KAC_OK;
}

/* Numbers on the host besides: the optimiser's moments, averages, states of all rows of a batch. */
static size_t host_bytes(const kac_tune_model *m) {
    const kac_options *o = m->wish->options;
    const size_t n = (size_t)kac_options_int(o, "batch") * (size_t)(m->solver.n_steps + 4) * (size_t)m->trainee.n_state;
    return (n + 4 * (size_t)m->trainee.n_values) * sizeof(float);
}

static kac_status plan_with(kac_tune_plan *plan, const kac_tune_wish *w, int batch, bool keep_all) {
    kac_tune_model m;
    *plan = (kac_tune_plan){.batch = batch, .keep_all = keep_all};
    KAC_TRY(kac_tune_model_open(&m, w, &kac_plan_ops, plan));
    const kac_status s = rehearse(&m, plan);
    plan->host_bytes += host_bytes(&m);
    plan->total_bytes =
        plan->sizes.model + plan->sizes.run + plan->sizes.scratch + plan->gradients_bytes + plan->host_bytes;
    plan->n_values = kac_parameters_count(m.parameters), plan->n_layers = kac_parameters_layers(m.parameters);
    kac_tune_model_close(&m);
    return s;
}

/* Everything kept, where that leaves half of what is free. */
static kac_status try_kept(kac_tune_plan *plan, const kac_tune_wish *w, size_t room) {
    kac_tune_plan kept;
    KAC_TRY(plan_with(&kept, w, plan->batch, true));
    if (kept.total_bytes <= room / 2) *plan = kept;
    return KAC_OK;
}

kac_status kac_tune_plan_run(kac_tune_plan *plan, const kac_tune_wish *w, int batch, size_t available, size_t room) {
    enum { LARGEST = 16 };
    const int64_t asked = kac_options_int(w->options, "batch-size"), drawn = kac_options_int(w->options, "batch");
    const bool fixed = batch > 0 || asked > 0;
    if (batch == 0) batch = (int)KAC_MIN(asked > 0 ? asked : KAC_MIN(drawn, LARGEST), KAC_UNET_MAX_BATCH / 2);
    const char *how = kac_options_text(w->options, "checkpointing");
    const bool off = strcmp(how, "off") == 0;
    for (;; batch = (batch + 1) / 2) {
        KAC_TRY(plan_with(plan, w, batch, off));
        if (plan->total_bytes <= available) return off || strcmp(how, "on") == 0 ? KAC_OK : try_kept(plan, w, room);
        if (fixed || batch == 1) break;
    }
    return KAC_FAIL(
        KAC_E_MEMORY,
        "tuning needs %.2f GB (%.2f weights, %.2f prompts and pictures, %.2f working space, %.2f gradients, "
        "%.2f on the host), %.2f GB are there; lower --batch-size, the size or --rank",
        (double)plan->total_bytes / 1e9, (double)plan->sizes.model / 1e9, (double)plan->sizes.run / 1e9,
        (double)plan->sizes.scratch / 1e9, (double)plan->gradients_bytes / 1e9, (double)plan->host_bytes / 1e9,
        (double)available / 1e9);
}
