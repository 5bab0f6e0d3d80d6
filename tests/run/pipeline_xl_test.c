/* Pipelines with two text encoders, sizes or scores beside the prompt, or a guidance embedding, against diffusers: latents after every
 * step from given initial ones. */
#include "check.h"
#include "run/latent_process.h"
#include "util/golden.h"
#include <math.h>
#include <string.h>

static const cJSON *item(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

static double number(const cJSON *o, const char *key) {
    return item(o, key)->valuedouble;
}

static void read_pair(int64_t out[2], const cJSON *run, const char *prefix, const char *key) {
    char name[64];
    snprintf(name, sizeof name, "%s%s", prefix, key);
    for (int i = 0; i < 2 && item(run, name) != NULL; i++)
        out[i] = (int64_t)cJSON_GetArrayItem(item(run, name), i)->valuedouble;
}

static kac_latent_sizes read_sizes(const cJSON *run, bool negative) {
    const char *prefix = negative ? "negative_" : "",
               *score = negative ? "negative_aesthetic_score" : "aesthetic_score";
    kac_latent_sizes s = {.score = negative ? 2.5 : 6};
    read_pair(s.original, run, prefix, "original_size");
    read_pair(s.target, run, prefix, "target_size");
    read_pair(s.crop, run, prefix, "crop");
    if (item(run, score) != NULL) s.score = number(run, score);
    return s;
}

static void check_steps(golden *g, kac_ctx *c, const kac_pipeline *p, kac_latent *l, const kac_solver *solver,
                        const cJSON *run) {
    const char *name = item(run, "name")->valuestring;
    const int slots[2] = {0, 1};
    kac_process *process = kac_latent_process(l);
    kac_tensor given, image = {0}, x = kac_latent_states(l);
    char tap[64];
    CHECK_OK(process->start(process, slots, 2));
    CHECK_OK(golden_input(&given, g, c, "latents"));
    CHECK_OK(kac_lincomb(c, &x, 1, &given, &solver->init_noise_sigma, 1));
    for (int i = 0; i < solver->n_steps; i++) {
        CHECK_OK(process->predict(process, i, slots, 2));
        CHECK_OK(process->step(process, i, slots, slots, 2));
        snprintf(tap, sizeof tap, "%s.latents.%d", name, i);
        CHECK(golden_output(g, tap, x));
    }
    snprintf(tap, sizeof tap, "%s.image", name);
    if (!golden_has_output(g, tap)) return;
    CHECK_OK(kac_codec_decode_latents(&image, p->codec, c, x));
    CHECK(golden_output(g, tap, image));
}

static void test_run(golden *g, kac_ctx *c, const kac_pipeline *p, const cJSON *run) {
    const cJSON *prompts = item(g->json.root, "prompts");
    const char *texts[2] = {cJSON_GetArrayItem(prompts, 0)->valuestring, cJSON_GetArrayItem(prompts, 1)->valuestring};
    const char *negative = cJSON_GetStringValue(item(run, "negative_prompt")), *negatives[2] = {negative, negative};
    kac_solver solver;
    const kac_solver_options so = {.kind = kac_solver_find(item(run, "sampling_method")->valuestring),
                                   .n_steps = (int)number(run, "steps"),
                                   .eta = strcmp(item(run, "sampling_method")->valuestring, "ddim") == 0 ? 0 : NAN};
    if (!CHECK_OK(kac_solver_init(&solver, &p->schedule, &so))) return;
    const kac_latent_options o = {.prompts = texts,
                                  .negative_prompts = negatives,
                                  .n_groups = 2,
                                  .n_per_group = 1,
                                  .height = p->height,
                                  .width = p->width,
                                  .cfg_scale = number(run, "guidance_scale"),
                                  .guidance_rescale = number(run, "guidance_rescale"),
                                  .batch = 2,
                                  .text.clip_skip = (int)number(run, "clip_skip"),
                                  .sizes = read_sizes(run, false),
                                  .negative_sizes = read_sizes(run, true)};
    kac_latent *l;
    if (CHECK_OK(kac_latent_open(&l, c, p, &solver, &o))) {
        const int doubled = o.cfg_scale <= 1 || kac_unet_config_of(p->unet)->time_cond_dim > 0 ? 1 : 2;
        check_steps(g, c, p, l, &solver, run);
        CHECK(kac_latent_counts_of(l)->denoiser == 2 * doubled * solver.n_steps);
        kac_latent_close(l);
    }
    kac_solver_free(&solver);
}

static void test_case(const char *name) {
    golden g;
    kac_ctx c;
    kac_pipeline p;
    if (!CHECK_OK(golden_open_pipeline(&g, name))) return;
    g.tolerance = 5e-5;
    CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 2, NULL));
    if (CHECK_OK(kac_pipeline_open(&p, &c, g.dir, NULL))) {
        const size_t model = c.model.used;
        const cJSON *run = NULL;
        cJSON_ArrayForEach(run, item(g.json.root, "runs")) test_run(&g, &c, &p, run);
        CHECK(golden_done(&g));
        CHECK(c.model.used == model); /* text encoders came and went */
        kac_pipeline_close(&p);
    }
    kac_ctx_close(&c);
    golden_close(&g);
}

/* In bf16 the same calls fit together; how near it comes is the networks' tests' business. */
static void test_bf16(const char *name) {
    golden g;
    kac_ctx c;
    kac_pipeline p;
    if (!CHECK_OK(golden_open_pipeline(&g, name))) return;
    g.tolerance = 0.1;
    CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_BF16, 2, NULL));
    if (CHECK_OK(kac_pipeline_open(&p, &c, g.dir, NULL))) {
        test_run(&g, &c, &p, item(g.json.root, "runs")->child);
        CHECK(golden_done(&g));
        kac_pipeline_close(&p);
    }
    kac_ctx_close(&c);
    golden_close(&g);
}

/* model_index.json as it is, with `from` replaced. */
static void change_index(const golden *g, const char *from, const char *to) {
    char path[256], changed[4096], *text = cJSON_PrintUnformatted(item(g->json.root, "model_index"));
    const char *at = strstr(text, from);
    if (CHECK(at != NULL)) {
        const int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
        snprintf(path, sizeof path, "%s/model_index.json", g->dir);
        CHECK(n > 0 && n < (int)sizeof changed);
        CHECK_OK(kac_file_write(path, changed, (size_t)n));
    }
    cJSON_free(text);
}

static void test_refusals(void) {
    static const struct {
        const char *name, *from, *to;
        kac_status status;
        const char *message;
    } cases[] = {
        {"pipeline/xl", "\"StableDiffusionXLPipeline\"", "\"StableDiffusion3Pipeline\"", KAC_E_UNSUPPORTED,
         "class StableDiffusion3Pipeline"},
        {"pipeline/xl", "[\"transformers\",\"CLIPTextModelWithProjection\"]", "[null,null]", KAC_E_FORMAT,
         "states of width 32, the network wants 72"},
        {"pipeline/xl", "\"force_zeros_for_empty_prompt\":true", "\"force_zeros_for_empty_prompt\":1", KAC_E_FORMAT,
         "force_zeros_for_empty_prompt"},
        {"pipeline/guided", "\"text_encoder\":", "\"text_encoder_3\":", KAC_E_FORMAT, "wants a text encoder"},
    };
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        golden g;
        kac_ctx c;
        kac_pipeline p;
        if (!CHECK_OK(golden_open_pipeline(&g, cases[i].name))) return;
        CHECK_OK(kac_ctx_open(&c, &kac_plan_ops, KAC_F32, 1, NULL));
        change_index(&g, cases[i].from, cases[i].to);
        const kac_status s = kac_pipeline_open(&p, &c, g.dir, NULL);
        CHECK_FAILS(s, cases[i].status, cases[i].message);
        if (s == KAC_OK) kac_pipeline_close(&p);
        kac_ctx_close(&c);
        golden_close(&g);
    }
}

int main(void) {
    test_refusals();
    test_bf16("pipeline/xl");
    test_bf16("pipeline/guided");
    test_case("pipeline/xl");
    test_case("pipeline/refiner");
    test_case("pipeline/guided");
    return check_done();
}
