#include "run/latent_run.h"
#include "run/adapters.h"
#include "run/backend.h"
#include "run/size_options.h"
#include "run/solver_options.h"
#include <math.h>
#include <string.h>

/* ---- opening ---- */

/* Where a picture's steps begin. Pipelines of consistency models take all their steps below the picture's noise level, the others leave
 * the first ones out. */
static kac_status open_start(kac_solver_options *so, const kac_pipeline *p, const kac_options *o, int n_timesteps) {
    const double strength = kac_start_image_strength(o);
    const bool distilled = so->kind == KAC_SOLVER_LCM || so->kind == KAC_SOLVER_TCD;
    if (p->consistency && distilled && n_timesteps == 0 && strength > 0 && kac_options_text(o, "mask") == NULL) {
        so->strength = strength;
        return KAC_OK;
    }
    return kac_start_image_begin(&so->begin, o, n_timesteps > 0 ? n_timesteps : so->n_steps);
}

static kac_status open_solver(kac_latent_run *r, const kac_options *o) {
    kac_solver_options so;
    double timesteps[KAC_MAX_TIMESTEPS];
    KAC_TRY(kac_solver_options_read(&so, timesteps, &r->pipeline.schedule, o));
    KAC_TRY(open_start(&so, &r->pipeline, o, so.n_timesteps));
    return kac_solver_init(&r->solver, &r->pipeline.schedule, &so);
}

kac_status kac_budget_particles(int *n, int64_t nfe, int64_t beside, int n_steps, bool guided) {
    enum { MOST = 1000000 };
    const int64_t each = (int64_t)n_steps * (guided ? 2 : 1);
    *n = (int)KAC_MIN(KAC_MAX(nfe - beside, 0) / each, MOST);
    if (*n > 0) return KAC_OK;
    if (beside > 0)
        return KAC_FAIL(KAC_E_USAGE,
                        "--nfe %lld is not enough for one particle: %d steps%s are %lld evaluations, and the method "
                        "spends %lld beside them",
                        (long long)nfe, n_steps, guided ? ", each with a gradient," : "", (long long)each,
                        (long long)beside);
    return KAC_FAIL(KAC_E_USAGE, "--nfe %lld is not enough for one particle: %d steps%s are %lld evaluations",
                    (long long)nfe, n_steps, guided ? ", each with a gradient," : "", (long long)each);
}

static kac_status fill_options(kac_latent_run *r, const kac_latent_setup *s, int batch) {
    const kac_options *o = s->options;
    int n_per_group = (int)kac_options_int(o, "particles");
    if (s->nfe > 0) KAC_TRY(kac_budget_particles(&n_per_group, s->nfe, s->nfe_beside, r->solver.n_steps, s->guided));
    const int64_t n_slots = (int64_t)s->n_prompts * n_per_group;
    if (n_slots > 10000000) return KAC_FAIL(KAC_E_USAGE, "%lld particles in all are too many", (long long)n_slots);
    r->o = (kac_latent_options){.prompts = s->prompts,
                                .negative_prompts = s->negatives,
                                .n_groups = s->n_prompts,
                                .n_per_group = n_per_group,
                                .width = r->pipeline.width,
                                .height = r->pipeline.height,
                                .cfg_scale = kac_options_real(o, "cfg-scale"),
                                .guidance_rescale = kac_options_real(o, "guidance-rescale"),
                                .seed = (uint64_t)kac_options_int(o, "seed"),
                                .first_particle = (int)kac_options_int(o, "first-particle"),
                                .batch = (int)KAC_MIN(batch, n_slots),
                                .guided = s->guided,
                                .text = {.clip_skip = (int)kac_options_int(o, "clip-skip"),
                                         .weighting = kac_options_bool(o, "prompt-weighting"),
                                         .chunks = kac_options_bool(o, "long-prompt")}};
    KAC_TRY(kac_size_options_read(&r->o, o));
    if (kac_options_given(o, "width")) r->o.width = kac_options_int(o, "width");
    if (kac_options_given(o, "height")) r->o.height = kac_options_int(o, "height");
    if (r->o.width == 0 || r->o.height == 0)
        return KAC_FAIL(KAC_E_USAGE, "the model does not say its size; give --width and --height");
    return kac_start_image_open(&r->start, &r->o, o);
}

static kac_status load(kac_latent_run *r, const kac_latent_setup *s) {
    KAC_TRY(kac_adapters_open(&r->lora, &r->embeddings, s->options));
    const kac_pipeline_options po = {.checkpoint = {.variant = kac_options_text(s->options, "variant"),
                                                    .prediction = kac_options_text(s->options, "prediction")},
                                     .vae = kac_options_text(s->options, "vae"),
                                     .preview = kac_options_text(s->options, "preview-decoder"),
                                     .merges = s->merges,
                                     .lora = r->lora,
                                     .embeddings = r->embeddings.n > 0 ? &r->embeddings : NULL};
    KAC_TRY(kac_pipeline_open(&r->pipeline, &r->ctx, s->model_dir, &po));
    KAC_TRY(kac_reward_set_open(&r->rewards, &r->ctx, s->rewards, s->n_rewards, s->options));
    KAC_TRY(kac_reward_set_open(&r->judges, &r->ctx, s->judges, s->n_judges, s->options));
    r->run_mark = kac_arena_mark(&r->ctx.run);
    return KAC_OK;
}

kac_status kac_latent_run_load(kac_latent_run *r, const kac_latent_setup *s, const struct kac_ops *ops,
                               const kac_ctx_sizes *sizes) {
    *r = (kac_latent_run){0};
    const kac_dtype dtype = strcmp(kac_options_text(s->options, "dtype"), "bf16") == 0 ? KAC_BF16 : KAC_F32;
    KAC_TRY(kac_ctx_open(&r->ctx, ops, dtype, (int)kac_options_int(s->options, "threads"), sizes));
    const kac_status status = load(r, s);
    if (status != KAC_OK) kac_latent_run_close(r);
    return status;
}

static kac_status begin(kac_latent_run *r, const kac_latent_setup *s, int batch) {
    KAC_TRY(open_solver(r, s->options));
    if (s->density_for != NULL) KAC_TRY(kac_solver_need_density(&r->solver, s->density_for));
    KAC_TRY(fill_options(r, s, batch));
    KAC_TRY(kac_latent_open(&r->latent, &r->ctx, &r->pipeline, &r->solver, &r->o));
    KAC_TRY(kac_adapters_check(r->lora, s->options)); /* the text encoders were loaded just now */
    kac_latent_options o = r->o;
    o.prompts = s->plain;
    if (r->rewards.n > 0) KAC_TRY(kac_latent_reward_open(&r->reward, r->latent, &r->rewards, &o));
    return kac_reward_set_prepare(&r->judges, s->plain, s->n_prompts);
}

kac_status kac_latent_run_begin(kac_latent_run *r, const kac_latent_setup *s, int batch) {
    const kac_status status = begin(r, s, batch);
    if (status != KAC_OK) kac_latent_run_end(r);
    return status;
}

void kac_latent_run_end(kac_latent_run *r) {
    kac_latent_reward_close(r->reward);
    kac_latent_close(r->latent);
    kac_start_image_close(&r->start);
    kac_solver_free(&r->solver);
    r->reward = NULL, r->latent = NULL;
    if (r->ctx.ops != NULL) kac_arena_release(&r->ctx.run, r->run_mark);
}

kac_status kac_latent_run_open(kac_latent_run *r, const kac_latent_setup *s, const struct kac_ops *ops,
                               const kac_ctx_sizes *sizes, int batch) {
    KAC_TRY(kac_latent_run_load(r, s, ops, sizes));
    const kac_status status = kac_latent_run_begin(r, s, batch);
    if (status != KAC_OK) kac_latent_run_close(r);
    return status;
}

void kac_latent_run_close(kac_latent_run *r) {
    kac_latent_run_end(r);
    kac_reward_set_close(&r->judges);
    kac_reward_set_close(&r->rewards);
    kac_pipeline_close(&r->pipeline);
    kac_lora_set_close(r->lora);
    kac_inversion_set_close(&r->embeddings);
    if (r->ctx.ops != NULL) kac_ctx_close(&r->ctx);
    *r = (kac_latent_run){0};
}

/* ---- planning ---- */

static double flops_since(kac_latent_run *r, double *mark) {
    const double d = r->ctx.counts.flops - *mark;
    *mark = r->ctx.counts.flops;
    return d;
}

/* From the reward of n states back to them. */
static kac_status rehearse_gradient(kac_latent_run *r, const int *slots, int n, double *scores) {
    kac_process *p = kac_latent_process(r->latent);
    float *d = kac_alloc((size_t)n * (size_t)p->n_state * 2 * sizeof *d), *d_x = d + n * p->n_state;
    kac_status s = d == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int64_t i = 0; i < n * p->n_state && s == KAC_OK; i++) d[i] = (float)i; /* copies would be done once */
    kac_reward *reward = kac_latent_reward_of(r->reward);
    if (s == KAC_OK) s = reward->grad(reward, p, slots, n, KAC_STAGE_PREDICTED, scores, d_x);
    if (s == KAC_OK && r->pipeline.preview != NULL) s = reward->grad(reward, p, slots, n, KAC_STAGE_FINAL, scores, d_x);
    if (s == KAC_OK) s = p->pull(p, 0, slots, n, d, d_x);
    if (s == KAC_OK) s = p->shift(p, 0, slots, n, d_x);
    kac_free(d);
    return s;
}

static kac_status rehearse_judges(kac_latent_run *r, const uint8_t *const *rgb, int n) {
    kac_picture *pictures = kac_alloc((size_t)n * sizeof *pictures);
    double *values = kac_alloc((size_t)n * sizeof *values);
    kac_status s = pictures == NULL || values == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++)
        pictures[i] = (kac_picture){.rgb = rgb[i], .width = (int)r->o.width, .height = (int)r->o.height};
    for (int k = 0; k < r->judges.n && s == KAC_OK; k++)
        s = kac_image_reward_score(r->judges.parts[k], pictures, n, values);
    kac_free(pictures), kac_free(values);
    return s;
}

/* One of everything that a run does, at its largest. */
static kac_status rehearse(kac_latent_run *r, kac_latent_plan *plan) {
    kac_process *p = kac_latent_process(r->latent);
    const int n_slots = r->o.n_groups * r->o.n_per_group, n = KAC_MIN(r->o.batch, n_slots);
    int *slots = kac_alloc((size_t)n_slots * 2 * sizeof *slots);
    double *scores = kac_alloc((size_t)n * sizeof *scores);
    const uint8_t **rgb = kac_alloc((size_t)n * sizeof *rgb);
    if (slots == NULL || scores == NULL || rgb == NULL) {
        kac_free(slots), kac_free(scores), kac_free(rgb);
        return KAC_E_MEMORY;
    }
    for (int i = 0; i < n_slots; i++) slots[i] = i, slots[n_slots + i] = (i + 1) % n_slots;
    kac_status s = p->start(p, slots, n_slots);
    double mark = r->ctx.counts.flops, bytes = r->ctx.counts.bytes;
    if (s == KAC_OK) s = p->predict(p, 0, slots, n);
    plan->denoise_flops = flops_since(r, &mark), plan->step_bytes = r->ctx.counts.bytes - bytes;
    if (s == KAC_OK) s = p->copy(p, slots + n_slots, slots, n_slots);
    if (s == KAC_OK) s = p->step(p, 0, slots, slots, n);
    mark = r->ctx.counts.flops;
    if (s == KAC_OK) s = kac_latent_pictures(r->latent, slots, n, KAC_STAGE_PREDICTED, rgb);
    if (s == KAC_OK) s = kac_latent_pictures(r->latent, slots, n, KAC_STAGE_FINAL, rgb);
    plan->decode_flops = flops_since(r, &mark) / 2;
    if (s == KAC_OK && r->reward != NULL) {
        s = kac_latent_reward_of(r->reward)->score(kac_latent_reward_of(r->reward), p, slots, n, KAC_STAGE_FINAL,
                                                   scores);
        plan->reward_flops = flops_since(r, &mark);
    }
    if (s == KAC_OK) s = rehearse_judges(r, rgb, n);
    if (s == KAC_OK && r->reward != NULL && r->o.guided) {
        s = rehearse_gradient(r, slots, n, scores);
        plan->gradient_flops = flops_since(r, &mark);
    }
    kac_free(slots), kac_free(scores), kac_free(rgb);
    return s;
}

static kac_status plan_with(kac_latent_plan *plan, const kac_latent_setup *s, int batch) {
    kac_latent_run r;
    KAC_TRY(kac_latent_run_open(&r, s, &kac_plan_ops, NULL, batch));
    kac_status status = rehearse(&r, plan);
    const size_t spare = (size_t)1 << 20; /* pictures being resized for a reward's network are not rehearsed */
    plan->sizes = (kac_ctx_sizes){r.ctx.model.peak, r.ctx.run.peak, r.ctx.scratch.peak + spare};
    plan->tape_bytes = r.ctx.gradients_peak;
    plan->total_bytes = plan->sizes.model + plan->sizes.run + plan->sizes.scratch + plan->tape_bytes;
    plan->batch = r.o.batch, plan->n_steps = r.solver.n_steps;
    plan->n_per_group = r.o.n_per_group, plan->n_slots = r.o.n_groups * r.o.n_per_group;
    kac_latent_run_close(&r);
    return status;
}

kac_status kac_latent_plan_run(kac_latent_plan *plan, const kac_latent_setup *s, size_t available) {
    enum { LARGEST = 16 };
    const int64_t wanted = kac_options_int(s->options, "batch-size");
    int batch = wanted > 0 ? (int)KAC_MIN(wanted, KAC_UNET_MAX_BATCH / 2) : LARGEST;
    for (;; batch = (plan->batch + 1) / 2) {
        *plan = (kac_latent_plan){0};
        KAC_TRY(plan_with(plan, s, batch));
        if (plan->total_bytes <= available) return KAC_OK;
        if (wanted > 0 || plan->batch == 1) break;
    }
    return KAC_FAIL(KAC_E_MEMORY,
                    "this run needs %.2f GB (%.2f weights, %.2f particles, %.2f working space, %.2f gradients), %.2f "
                    "GB are there; %s",
                    (double)plan->total_bytes / 1e9, (double)plan->sizes.model / 1e9, (double)plan->sizes.run / 1e9,
                    (double)plan->sizes.scratch / 1e9, (double)plan->tape_bytes / 1e9, (double)available / 1e9,
                    wanted > 1 ? "lower --batch-size, --particles or the size" : "lower --particles or the size");
}
