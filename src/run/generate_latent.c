/* A run over a pipeline: plan, open, steer, write. */
#include "run/adapters.h"
#include "run/backend.h"
#include "run/generate_output.h"
#include "run/run_record.h"
#include "text/prompt.h"
#include <stdio.h>
#include <string.h>

static cJSON *latent_counts(void *self) {
    const kac_latent_run *r = self;
    const kac_latent_counts *k = kac_latent_counts_of(r->latent);
    cJSON *counts = cJSON_CreateObject();
    cJSON_AddNumberToObject(counts, "nfe", (double)k->nfe);
    cJSON_AddNumberToObject(counts, "denoiser", (double)k->denoiser);
    cJSON_AddNumberToObject(counts, "denoiser_calls", (double)k->denoiser_calls);
    cJSON_AddNumberToObject(counts, "decoder", (double)k->decoder);
    if (k->denoiser_grad > 0) cJSON_AddNumberToObject(counts, "denoiser_grad", (double)k->denoiser_grad);
    if (k->denoiser_grad > 0)
        cJSON_AddNumberToObject(counts, "reward_grad", (double)kac_latent_reward_grad_count(r->reward));
    cJSON_AddNumberToObject(counts, "reward", r->reward == NULL ? 0 : (double)kac_latent_reward_count(r->reward));
    return counts;
}

static cJSON *run_facts(const kac_job *j, const kac_latent_run *r, const kac_latent_plan *plan) {
    cJSON *facts = cJSON_CreateObject();
    cJSON_AddItemToObject(facts, "model", kac_run_model_facts(j->model, &r->pipeline, false));
    cJSON_AddItemToObject(facts, "machine", kac_run_machine_facts(&r->ctx));
    cJSON_AddNumberToObject(facts, "n_steps", r->solver.n_steps);
    cJSON_AddNumberToObject(facts, "width", (double)r->o.width);
    cJSON_AddNumberToObject(facts, "height", (double)r->o.height);
    cJSON_AddStringToObject(facts, "sampler", kac_solver_name(r->solver.kind));
    cJSON_AddNumberToObject(facts, "plan_bytes", (double)plan->total_bytes);
    cJSON *start = kac_start_image_facts(&r->start, kac_pipeline_repaints(&r->pipeline));
    if (start != NULL) cJSON_AddItemToObject(facts, "start", start);
    cJSON_AddItemToObject(facts, "rewards", kac_job_reward_facts(r->rewards.specs, r->rewards.n));
    return facts;
}

static void add_end_facts(cJSON *facts, kac_job *j, kac_latent_run *r, double load_ms, double write_ms) {
    const kac_latent_counts *k = kac_latent_counts_of(r->latent);
    cJSON_AddItemToObject(facts, "model", kac_run_model_facts(j->model, &r->pipeline, true));
    cJSON_AddItemToObject(facts, "counts", latent_counts(r));
    cJSON *seconds = cJSON_AddObjectToObject(facts, "seconds");
    cJSON_AddNumberToObject(seconds, "load", load_ms / 1000);
    cJSON_AddNumberToObject(seconds, "text", k->text_ms / 1000);
    cJSON_AddNumberToObject(seconds, "denoiser", k->denoiser_ms / 1000);
    cJSON_AddNumberToObject(seconds, "decoder", k->decoder_ms / 1000);
    cJSON_AddNumberToObject(seconds, "reward", r->reward == NULL ? 0 : kac_latent_reward_ms(r->reward) / 1000);
    if (k->denoiser_grad > 0) {
        cJSON_AddNumberToObject(seconds, "denoiser_grad", k->gradient_ms / 1000);
        cJSON_AddNumberToObject(seconds, "reward_grad", kac_latent_reward_grad_ms(r->reward) / 1000);
    }
    cJSON_AddNumberToObject(seconds, "write", write_ms / 1000);
    cJSON_AddNumberToObject(seconds, "total", (kac_now_ms() - j->start_ms) / 1000);
    cJSON_AddNumberToObject(facts, "peak_bytes", (double)kac_memory_peak_bytes());
    cJSON_AddNumberToObject(facts, "flops", r->ctx.counts.flops);
}

/* ---- plan ---- */

static kac_status print_plan(kac_job *j, const kac_latent_plan *p) {
    cJSON *plan = cJSON_CreateObject(), *bytes = cJSON_AddObjectToObject(plan, "bytes"),
          *flops = cJSON_AddObjectToObject(plan, "flops");
    const double batches = (double)((p->n_slots + p->batch - 1) / p->batch);
    cJSON_AddNumberToObject(bytes, "model", (double)p->sizes.model);
    cJSON_AddNumberToObject(bytes, "run", (double)p->sizes.run);
    cJSON_AddNumberToObject(bytes, "scratch", (double)p->sizes.scratch);
    if (p->tape_bytes > 0) cJSON_AddNumberToObject(bytes, "gradients", (double)p->tape_bytes);
    cJSON_AddNumberToObject(bytes, "total", (double)p->total_bytes);
    cJSON_AddNumberToObject(flops, "denoiser_call", p->denoise_flops);
    cJSON_AddNumberToObject(flops, "decoder_batch", p->decode_flops);
    cJSON_AddNumberToObject(flops, "reward_batch", p->reward_flops);
    if (p->gradient_flops > 0) cJSON_AddNumberToObject(flops, "gradient_batch", p->gradient_flops);
    cJSON_AddNumberToObject(flops, "denoiser_total", p->denoise_flops * batches * p->n_steps);
    cJSON_AddNumberToObject(plan, "batch", p->batch);
    cJSON_AddNumberToObject(plan, "particles", p->n_slots);
    cJSON_AddNumberToObject(plan, "steps", p->n_steps);
    cJSON_AddNumberToObject(plan, "bytes_moved_per_call", p->step_bytes);
    char *text = cJSON_Print(plan);
    j->result->json = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text);
    cJSON_Delete(plan);
    return j->result->json == NULL ? KAC_E_MEMORY : KAC_OK;
}

/* ---- run ---- */

static kac_status steer_and_write(kac_job *j, kac_latent_run *r, cJSON *end, double *write_ms) {
    kac_particles particles = {0};
    kac_recorded_reward recorded;
    kac_reward *reward = r->reward == NULL ? NULL : &recorded.outer;
    if (reward != NULL) KAC_TRY(kac_recorded_reward_init(&recorded, kac_latent_reward_of(r->reward), j, r));
    kac_status s = kac_job_steer(j, &particles, kac_latent_process(r->latent), reward);
    const double start_ms = kac_now_ms();
    kac_job_phase(j, "writing");
    if (s == KAC_OK) s = kac_generate_write_images(j, r, &particles, end);
    *write_ms = kac_now_ms() - start_ms;
    kac_particles_free(&particles);
    return s;
}

/* Brackets with numbers are mostly meant as weights. */
static void say_of_weights(const kac_job *j) {
    bool meant = false;
    for (int i = 0; i < j->n_prompts; i++) meant |= kac_prompt_has_weights(j->prompts[i]);
    if (meant && !kac_options_bool(j->options, "prompt-weighting"))
        kac_job_say(j, "the prompt holds weights like (word:1.3); they are words until --prompt-weighting is given");
}

static kac_status run_latent(kac_job *j, kac_latent_run *r, const kac_latent_plan *plan, double load_ms) {
    if (kac_latent_n_truncated(r->latent) > 0)
        kac_job_say(j,
                    "%d of the texts are longer than the text encoder's context; the rest of them is not seen "
                    "(--long-prompt reads it)",
                    kac_latent_n_truncated(r->latent));
    say_of_weights(j);
    if (r->start.note[0] != '\0') kac_job_say(j, "%s", r->start.note);
    const kac_solver_kind own = kac_solver_own(&r->pipeline.schedule);
    if (r->solver.kind != own && !kac_options_given(j->options, "sampling-method"))
        kac_job_say(j,
                    "%s draws noise and takes the place of the model's own %s, on the same noise levels; "
                    "--sampling-method model keeps that",
                    kac_solver_name(r->solver.kind), kac_solver_name(own));
    cJSON *facts = run_facts(j, r, plan);
    const kac_status recorded = kac_adapters_facts(facts, r->lora, &r->embeddings);
    if (recorded != KAC_OK) {
        cJSON_Delete(facts);
        return recorded;
    }
    j->n_particles = r->o.n_per_group;
    KAC_TRY(kac_job_folder_open(j, facts));
    j->counts = latent_counts, j->counts_self = r, j->mix = r->rewards.mix;
    cJSON *end = cJSON_CreateObject();
    double write_ms = 0;
    const kac_status s = steer_and_write(j, r, end, &write_ms);
    add_end_facts(end, j, r, load_ms, write_ms);
    return kac_job_finish(j, s, end);
}

static kac_status generate(kac_job *j, const kac_latent_setup *setup) {
    const struct kac_ops *ops;
    KAC_TRY(kac_backend_find(&ops, kac_options_text(j->options, "backend")));
    kac_job_phase(j, "loading");
    kac_latent_plan plan;
    KAC_TRY(kac_latent_plan_run(&plan, setup,
                                kac_options_bool(j->options, "plan") ? SIZE_MAX : kac_run_available_bytes(j->options)));
    if (kac_options_bool(j->options, "plan")) return print_plan(j, &plan);
    kac_latent_run r;
    KAC_TRY(kac_latent_run_open(&r, setup, ops, &plan.sizes, plan.batch));
    kac_status s = KAC_OK;
    if (j->n_prompts == 0 && r.pipeline.n_texts > 0)
        s = KAC_FAIL(KAC_E_USAGE, "this model wants a prompt: kac generate --model %s \"…\"", j->model);
    if (j->n_prompts > 0 && r.pipeline.n_texts == 0)
        s = KAC_FAIL(KAC_E_USAGE, "this model is unconditional: it takes no prompt");
    if (s == KAC_OK) s = run_latent(j, &r, &plan, kac_now_ms() - j->start_ms);
    kac_latent_run_close(&r);
    return s;
}

kac_status kac_generate_latent(kac_job *j) {
    if (j->n_prompts == 0 && j->default_model != NULL)
        return KAC_FAIL(KAC_E_USAGE, "say what to make: kac generate \"a red circle\"");
    const char *nothing = "";
    kac_latent_setup setup = {.options = j->options,
                              .model_dir = j->model,
                              .prompts = (const char *const *)j->prompts,
                              .plain = (const char *const *)(j->plain == NULL ? j->prompts : j->plain),
                              .negatives = j->negatives,
                              .n_prompts = j->n_prompts,
                              .rewards = (const char *const *)j->rewards,
                              .n_rewards = j->n_rewards};
    char density_for[64];
    snprintf(density_for, sizeof density_for, "--steer %s", j->method->name);
    if (j->method->needs_density) setup.density_for = density_for;
    if (!j->method->anytime) setup.nfe = j->nfe;
    if (j->method->nfe_beside != NULL) setup.nfe_beside = j->method->nfe_beside(j->options);
    setup.guided = j->n_rewards > 0 && j->method->needs_grad != NULL && j->method->needs_grad(j->options);
    if (j->n_prompts == 0) setup.prompts = setup.plain = &nothing, setup.n_prompts = 1;
    char *merges = kac_path_join(j->args->weights_dir, "clip-tokenizer/bpe_simple_vocab_16e6.txt.gz");
    if (merges == NULL) return KAC_E_MEMORY;
    setup.merges = merges;
    const kac_status s = generate(j, &setup);
    kac_free(merges);
    return s;
}
