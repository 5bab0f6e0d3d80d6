/* One tiny pipeline under every scheduler class, against diffusers' own loop: from given first latents, with given noise,
 * the last latents and the picture. */
#include "check.h"
#include "run/latent_process.h"
#include "util/golden.h"
#include <string.h>

enum { MAX_ROWS = 48 };

typedef struct fixture {
    golden tiny, runs;
    kac_ctx ctx;
    kac_pipeline pipeline;
    kac_tensor latents, noise; /* [2, h, w, 4], [draws, 2, 4, h, w] */
} fixture;

static double number(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key)->valuedouble;
}

static bool fixture_open(fixture *f) {
    if (!CHECK_OK(golden_open_pipeline(&f->tiny, "pipeline/tiny"))) return false;
    if (!CHECK_OK(golden_open_data(&f->runs, "pipeline/schedulers"))) return false;
    f->runs.tolerance = 1e-4;
    return CHECK_OK(kac_ctx_open(&f->ctx, kac_cpu_ops(), KAC_F32, 1, NULL)) &&
           CHECK_OK(kac_pipeline_open(&f->pipeline, &f->ctx, f->tiny.dir, NULL)) &&
           CHECK_OK(golden_input(&f->latents, &f->tiny, &f->ctx, "latents")) &&
           CHECK_OK(golden_input(&f->noise, &f->runs, &f->ctx, "noise"));
}

static void fixture_close(fixture *f) {
    kac_pipeline_close(&f->pipeline);
    kac_ctx_close(&f->ctx);
    golden_close(&f->runs);
    golden_close(&f->tiny);
}

/* The reference draws in order; ours asks by row. NCHW to NHWC. */
static kac_status noise_of_rows(kac_tensor *out, fixture *f, const kac_solver *s) {
    const int64_t n = f->latents.shape[0], h = f->latents.shape[1], w = f->latents.shape[2], c = f->latents.shape[3];
    KAC_TRY(kac_take_make(out, &f->ctx.run, KAC_F32, MAX_ROWS, n, h, w, c));
    const int64_t n_each = n * h * w * c;
    const float *drawn = f->noise.data;
    float *to = out->data;
    for (int row = 0; row < s->n_steps; row++) {
        if (s->rows[row].z == 0) continue;
        for (int64_t i = 0; i < n_each; i++) {
            const int64_t k = i % c, pixel = i / c % (h * w), image = i / (c * h * w);
            to[row * n_each + i] = drawn[(image * c + k) * h * w + pixel];
        }
        drawn += n_each;
    }
    return KAC_OK;
}

static bool solver_of(kac_solver *s, const cJSON *run) {
    char *text = cJSON_Print(cJSON_GetObjectItemCaseSensitive(run, "scheduler"));
    kac_schedule schedule;
    bool good = CHECK_OK(kac_schedule_parse(&schedule, text, strlen(text), "scheduler"));
    if (good) {
        const kac_solver_kind own = kac_solver_own(&schedule);
        const bool has_eta = own == KAC_SOLVER_DDIM || own == KAC_SOLVER_TCD;
        good = CHECK_OK(kac_solver_init(
            s, &schedule,
            &(kac_solver_options){.n_steps = (int)number(run, "steps"), .eta = has_eta ? number(run, "eta") : NAN}));
        kac_schedule_free(&schedule);
    }
    cJSON_free(text);
    return good && CHECK(s->n_steps <= MAX_ROWS);
}

static void test_run(fixture *f, const cJSON *run) {
    const char *name = cJSON_GetObjectItemCaseSensitive(run, "name")->valuestring;
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(f->runs.json.root, "prompts");
    const char *negative = cJSON_GetObjectItemCaseSensitive(f->runs.json.root, "negative_prompt")->valuestring;
    const char *texts[2] = {cJSON_GetArrayItem(prompts, 0)->valuestring, cJSON_GetArrayItem(prompts, 1)->valuestring};
    const char *negatives[2] = {negative, negative};
    kac_solver solver;
    if (!solver_of(&solver, run)) return;
    kac_latent_options o = {.prompts = texts,
                            .negative_prompts = negatives,
                            .n_groups = 2,
                            .n_per_group = 1,
                            .height = f->latents.shape[1] * f->pipeline.factor,
                            .width = f->latents.shape[2] * f->pipeline.factor,
                            .cfg_scale = number(run, "guidance_scale"),
                            .batch = 2};
    if (solver.stochastic) CHECK_OK(noise_of_rows(&o.noise, f, &solver));
    kac_latent *l;
    if (!CHECK_OK(kac_latent_open(&l, &f->ctx, &f->pipeline, &solver, &o))) return;
    kac_process *p = kac_latent_process(l);
    const int slots[2] = {0, 1};
    CHECK_OK(p->start(p, slots, 2));
    kac_tensor x = kac_latent_states(l), image = {0};
    CHECK_OK(kac_lincomb(&f->ctx, &x, 1, &f->latents, &solver.init_noise_sigma, 1));
    for (int i = 0; i < solver.n_steps; i++) {
        CHECK_OK(p->predict(p, i, slots, 2));
        CHECK_OK(p->step(p, i, slots, slots, 2));
    }
    char tap[64];
    snprintf(tap, sizeof tap, "%s.latents", name);
    CHECK(golden_output(&f->runs, tap, x));
    CHECK_OK(kac_codec_decode_latents(&image, f->pipeline.codec, &f->ctx, x));
    snprintf(tap, sizeof tap, "%s.image", name);
    CHECK(golden_output(&f->runs, tap, image));
    kac_latent_close(l);
    kac_solver_free(&solver);
}

int main(void) {
    fixture f;
    if (!fixture_open(&f)) return check_done();
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(f.runs.json.root, "runs");
    CHECK(cJSON_GetArraySize(runs) >= 30);
    for (const cJSON *run = runs->child; run != NULL; run = run->next) test_run(&f, run);
    golden_done(&f.runs);
    fixture_close(&f);
    return check_done();
}
