/* Whole pipelines against diffusers' StableDiffusionPipeline: from given initial latents, the latents after every step and the picture; and
 * what the process promises about copies, batches and repeats. */
#include "check.h"
#include "run/latent_process.h"
#include "run/pipeline.h"
#include "util/golden.h"
#include <string.h>

typedef struct fixture {
    golden g;
    kac_ctx ctx;
    kac_pipeline pipeline;
} fixture;

static bool fixture_open(fixture *f) {
    if (!CHECK_OK(golden_open_pipeline(&f->g, "pipeline/tiny"))) return false;
    return CHECK_OK(kac_ctx_open(&f->ctx, kac_cpu_ops(), KAC_F32, 2, NULL)) &&
           CHECK_OK(kac_pipeline_open(&f->pipeline, &f->ctx, f->g.dir, NULL));
}

static void fixture_close(fixture *f) {
    kac_pipeline_close(&f->pipeline);
    kac_ctx_close(&f->ctx);
    golden_close(&f->g);
}

static double number(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key)->valuedouble;
}

static void test_run(fixture *f, const cJSON *run) {
    const char *name = cJSON_GetObjectItemCaseSensitive(run, "name")->valuestring;
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(f->g.json.root, "prompts");
    const char *texts[2] = {cJSON_GetArrayItem(prompts, 0)->valuestring, cJSON_GetArrayItem(prompts, 1)->valuestring};
    const char *negative = cJSON_GetObjectItemCaseSensitive(f->g.json.root, "negative_prompt")->valuestring,
               *negatives[2] = {negative, negative};
    kac_solver solver;
    const kac_solver_options so = {
        .kind = kac_solver_find(cJSON_GetObjectItemCaseSensitive(run, "sampling_method")->valuestring),
        .n_steps = (int)number(run, "steps"),
        .eta = NAN};
    if (!CHECK_OK(kac_solver_init(&solver, &f->pipeline.schedule, &so))) return;
    kac_tensor given;
    CHECK_OK(golden_input(&given, &f->g, &f->ctx, "latents"));
    const kac_latent_options o = {.prompts = texts,
                                  .negative_prompts = negatives,
                                  .n_groups = 2,
                                  .n_per_group = 1,
                                  .height = given.shape[1] * f->pipeline.factor,
                                  .width = given.shape[2] * f->pipeline.factor,
                                  .cfg_scale = number(run, "guidance_scale"),
                                  .guidance_rescale = number(run, "guidance_rescale"),
                                  .batch = 2};
    kac_latent *l;
    if (!CHECK_OK(kac_latent_open(&l, &f->ctx, &f->pipeline, &solver, &o))) return;
    kac_process *p = kac_latent_process(l);
    const int slots[2] = {0, 1};
    CHECK_OK(p->start(p, slots, 2));
    kac_tensor x = kac_latent_states(l);
    CHECK(given.shape[0] == 2 && kac_tensor_same_shape(given, x));
    CHECK_OK(kac_lincomb(&f->ctx, &x, 1, &given, &solver.init_noise_sigma, 1));
    f->g.tolerance = 5e-5;
    char tap[64];
    for (int i = 0; i < solver.n_steps; i++) {
        CHECK_OK(p->predict(p, i, slots, 2));
        CHECK_OK(p->step(p, i, slots, slots, 2));
        snprintf(tap, sizeof tap, "%s.latents.%d", name, i);
        CHECK(golden_output(&f->g, tap, x));
    }
    kac_tensor image = {0};
    CHECK_OK(kac_codec_decode_latents(&image, f->pipeline.codec, &f->ctx, x));
    snprintf(tap, sizeof tap, "%s.image", name);
    CHECK(golden_output(&f->g, tap, image));
    const int doubled = o.cfg_scale == 1 ? 1 : 2;
    CHECK(kac_latent_counts_of(l)->denoiser == 2 * doubled * solver.n_steps);
    kac_latent_close(l);
    kac_solver_free(&solver);
}

/* Runs n particles; `batch` states per call; returns the final states. With `copy_at` ≥ 0 slot 1 becomes a copy of slot 0 there. */
static void run_plain(fixture *f, float *out, int n, int first, int batch, double eta, int copy_at,
                      kac_latent_counts *counts) {
    const char *texts[1] = {"two green stars"};
    kac_solver solver;
    const kac_solver_options so = {.kind = KAC_SOLVER_DDIM, .n_steps = 4, .eta = eta};
    CHECK_OK(kac_solver_init(&solver, &f->pipeline.schedule, &so));
    const kac_latent_options o = {.prompts = texts,
                                  .n_groups = 1,
                                  .n_per_group = n,
                                  .width = 16 * f->pipeline.factor,
                                  .height = 8 * f->pipeline.factor,
                                  .cfg_scale = 2,
                                  .seed = 5,
                                  .first_particle = first,
                                  .batch = batch};
    kac_latent *l;
    if (!CHECK_OK(kac_latent_open(&l, &f->ctx, &f->pipeline, &solver, &o))) return;
    kac_process *p = kac_latent_process(l);
    int slots[8];
    for (int i = 0; i < n; i++) slots[i] = i;
    CHECK_OK(p->start(p, slots, n));
    for (int k = 0; k < solver.n_steps; k++) {
        CHECK_OK(p->predict(p, k, slots, n));
        CHECK_OK(p->predict(p, k, slots, n)); /* costs nothing */
        if (k == copy_at) CHECK_OK(p->copy(p, (int[]){0}, (int[]){1}, 1));
        CHECK_OK(p->step(p, k, slots, slots, n));
    }
    const uint8_t *rgb[8];
    CHECK_OK(kac_latent_pictures(l, slots, n, KAC_STAGE_FINAL, rgb));
    CHECK_OK(kac_latent_pictures(l, slots, n, KAC_STAGE_FINAL, rgb));
    memcpy(out, kac_latent_states(l).data, kac_tensor_bytes(kac_latent_states(l)));
    *counts = *kac_latent_counts_of(l);
    kac_latent_close(l);
    kac_solver_free(&solver);
}

static void test_promises(fixture *f) {
    enum { N = 5, ONE = 16 * 8 * 4 };
    static float a[N * ONE], b[N * ONE], c[ONE];
    kac_latent_counts counts;
    run_plain(f, a, N, 0, 4, 1, -1, &counts);
    CHECK(counts.denoiser == 2 * N * 4 && counts.decoder == N);
    run_plain(f, b, N, 0, 1, 1, -1, &counts);
    CHECK(memcmp(a, b, sizeof a) == 0);
    f->ctx.n_threads = 1;
    run_plain(f, c, 1, 3, 1, 1, -1, &counts);
    f->ctx.n_threads = 2;
    CHECK(memcmp(c, a + 3 * ONE, sizeof c) == 0);
    /* Without noise a copy stays a copy: its network calls and its picture are shared. */
    run_plain(f, b, 2, 0, 2, 0, 0, &counts);
    CHECK(memcmp(b, b + ONE, ONE * sizeof *b) == 0);
    CHECK(counts.denoiser == 2 * (2 + 1 + 1 + 1) && counts.decoder == 1);
    /* With noise copies part at the next step. */
    run_plain(f, b, 2, 0, 2, 1, 0, &counts);
    CHECK(memcmp(b, b + ONE, ONE * sizeof *b) != 0);
    CHECK(counts.denoiser == 2 * 2 * 4 && counts.decoder == 2);
}

int main(void) {
    fixture f;
    if (!fixture_open(&f)) return check_done();
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs");
    CHECK(cJSON_GetArraySize(runs) >= 4);
    for (const cJSON *run = runs->child; run != NULL; run = run->next) test_run(&f, run);
    golden_done(&f.g);
    test_promises(&f);
    fixture_close(&f);
    return check_done();
}
