/* Whole tasks against diffusers: image to image, inpainting with four and with nine input channels, prompts with weights and in chunks, a
 * tiny autoencoder in its author's layout; and what masks promise about copies, stopping and batches. */
#include "check.h"
#include "run/latent_process.h"
#include "run/pipeline_text.h"
#include "util/golden.h"
#include "util/golden_weights.h"
#include "util/temp.h"
#include <stdio.h>
#include <string.h>

enum { WIDTH = 40, HEIGHT = 24 };

typedef struct fixture {
    golden g;
    kac_ctx ctx;
    kac_pipeline pipeline;
    uint8_t rgb[WIDTH * HEIGHT * 3], mask[WIDTH * HEIGHT];
    kac_solver solver;
    kac_latent *latent;
} fixture;

static double number(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key)->valuedouble;
}

static const char *text(const cJSON *o, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(o, key)->valuestring;
}

static bool truth(const cJSON *o, const char *key) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, key));
}

static bool fixture_open(fixture *f, const char *name) {
    *f = (fixture){0};
    if (!CHECK_OK(golden_open_pipeline(&f->g, name))) return false;
    golden_picture(f->rgb, "task", WIDTH, HEIGHT);
    CHECK(kac_crc32(f->rgb, sizeof f->rgb, 0) == (uint32_t)number(f->g.json.root, "picture"));
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            f->mask[y * WIDTH + x] = (x - 17) * (x - 17) + 2 * (y - 11) * (y - 11) < 170 ? 255 : 0;
    CHECK(kac_crc32(f->mask, sizeof f->mask, 0) == (uint32_t)number(f->g.json.root, "mask"));
    f->g.tolerance = 1e-4;
    return CHECK_OK(kac_ctx_open(&f->ctx, kac_cpu_ops(), KAC_F32, 2, NULL)) &&
           CHECK_OK(kac_pipeline_open(&f->pipeline, &f->ctx, f->g.dir, NULL));
}

static void fixture_close(fixture *f) {
    kac_pipeline_close(&f->pipeline);
    kac_ctx_close(&f->ctx);
    golden_close(&f->g);
}

/* Opens `n` particles of each prompt of the case as its run says, `start` and all. */
static bool open_run(fixture *f, const cJSON *run, int n, int batch, kac_latent_start start, double eta) {
    const cJSON *prompts = cJSON_GetObjectItemCaseSensitive(f->g.json.root, "prompts");
    const int n_prompts = cJSON_GetArraySize(prompts), n_steps = (int)number(run, "steps");
    const char *texts[2], *negatives[2];
    for (int i = 0; i < n_prompts && i < 2; i++) {
        texts[i] = cJSON_GetArrayItem(prompts, i)->valuestring;
        negatives[i] = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->g.json.root, "negative_prompt"));
    }
    const kac_solver_options so = {.kind = kac_solver_find(text(run, "sampling_method")),
                                   .n_steps = n_steps,
                                   .eta = eta,
                                   .begin = n_steps - (int)(n_steps * number(run, "strength"))};
    if (!CHECK_OK(kac_solver_init(&f->solver, &f->pipeline.schedule, &so))) return false;
    const kac_latent_options o = {.prompts = texts,
                                  .negative_prompts = negatives,
                                  .n_groups = n_prompts,
                                  .n_per_group = n,
                                  .width = WIDTH,
                                  .height = HEIGHT,
                                  .cfg_scale = number(run, "guidance_scale"),
                                  .seed = (uint64_t)number(f->g.json.root, "seed"),
                                  .batch = batch,
                                  .start = start};
    return CHECK_OK(kac_latent_open(&f->latent, &f->ctx, &f->pipeline, &f->solver, &o));
}

static void close_run(fixture *f) {
    kac_latent_close(f->latent);
    kac_solver_free(&f->solver);
    f->latent = NULL;
}

/* The slots' steps from `first` on; with copy_at ≥ 0 slot 1 becomes a copy of slot 0 before that step. */
static void walk(fixture *f, int n_slots, int first, int end, int copy_at) {
    kac_process *p = kac_latent_process(f->latent);
    int slots[8];
    for (int i = 0; i < n_slots; i++) slots[i] = i;
    if (first == 0) CHECK_OK(p->start(p, slots, n_slots));
    for (int k = first; k < end; k++) {
        if (k == copy_at) CHECK_OK(p->copy(p, (int[]){0}, (int[]){1}, 1));
        CHECK_OK(p->predict(p, k, slots, n_slots));
        CHECK_OK(p->step(p, k, slots, slots, n_slots));
    }
}

static void compare(fixture *f, const char *name) {
    char output[64];
    const kac_tensor x = kac_latent_states(f->latent);
    kac_tensor image = {0};
    snprintf(output, sizeof output, "%s.latents", name);
    CHECK(golden_output(&f->g, output, x));
    CHECK_OK(kac_codec_decode_latents(&image, f->pipeline.codec, &f->ctx, x));
    snprintf(output, sizeof output, "%s.image", name);
    CHECK(golden_output(&f->g, output, image));
}

static void test_runs(const char *name, bool masked) {
    fixture f;
    if (!fixture_open(&f, name)) return;
    const cJSON *run = NULL;
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs")) {
        const kac_latent_start start = {.rgb = f.rgb,
                                        .mask = masked ? f.mask : NULL,
                                        .mean = truth(run, "mean"),
                                        .from_noise = masked && number(run, "strength") == 1};
        if (!open_run(&f, run, 1, 2, start, NAN)) continue;
        const int n_steps =
            (int)(number(run, "steps") * number(run, "strength")); /* some take more than one row for one */
        CHECK(f.solver.n_steps >= n_steps && f.solver.n_steps < 2 * n_steps);
        walk(&f, 2, 0, f.solver.n_steps, -1);
        compare(&f, text(run, "name"));
        close_run(&f);
    }
    CHECK(golden_done(&f.g));
    fixture_close(&f);
}

/* Networks without autoencoder: the states are the pixels. */
static void test_pixels(void) {
    fixture f;
    if (!fixture_open(&f, "task/pixel")) return;
    const cJSON *run = NULL;
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs")) {
        const bool masked = strcmp(text(run, "name"), "masked") == 0;
        char output[64];
        snprintf(output, sizeof output, "%s.latents", text(run, "name"));
        if (!open_run(&f, run, 1, 1, (kac_latent_start){.rgb = f.rgb, .mask = masked ? f.mask : NULL}, 0)) continue;
        walk(&f, 1, 0, f.solver.n_steps, -1);
        CHECK(golden_output(&f.g, output, kac_latent_states(f.latent)));
        close_run(&f);
    }
    CHECK(golden_done(&f.g));
    fixture_close(&f);
}

/* ---- prompts with weights and in chunks ---- */

static void test_text(fixture *f, const cJSON *run) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(f->g.json.root, "texts");
    const char *negative = text(f->g.json.root, "negative_prompt"), *negatives[2] = {negative, negative};
    const char *texts[2] = {cJSON_GetArrayItem(list, 0)->valuestring, cJSON_GetArrayItem(list, 1)->valuestring};
    const kac_encode_options encode = {.clip_skip = (int)number(run, "clip_skip"),
                                       .weighting = truth(run, "weighting"),
                                       .chunks = truth(run, "chunks")};
    char output[64];
    int n_cut = 0;
    kac_conditioning got;
    snprintf(output, sizeof output, "%s.embeds", text(run, "name"));
    CHECK_OK(kac_pipeline_encode(&got, &f->pipeline, &f->ctx, (kac_prompt_text[]){{texts[0]}, {texts[1]}}, 2, encode,
                                 &n_cut));
    CHECK(golden_output(&f->g, output, got.tokens));
    CHECK(n_cut == (encode.chunks ? 0 : encode.weighting ? 1 : 2));
    const kac_solver_options so = {.kind = KAC_SOLVER_DDIM, .n_steps = (int)number(run, "steps"), .eta = 0};
    if (!CHECK_OK(kac_solver_init(&f->solver, &f->pipeline.schedule, &so))) return;
    const kac_latent_options o = {.prompts = texts,
                                  .negative_prompts = negatives,
                                  .n_groups = 2,
                                  .n_per_group = 1,
                                  .width = WIDTH,
                                  .height = HEIGHT,
                                  .cfg_scale = number(run, "guidance_scale"),
                                  .seed = (uint64_t)number(f->g.json.root, "seed"),
                                  .batch = 2,
                                  .text = encode};
    if (!CHECK_OK(kac_latent_open(&f->latent, &f->ctx, &f->pipeline, &f->solver, &o))) return;
    walk(f, 2, 0, f->solver.n_steps, -1);
    snprintf(output, sizeof output, "%s.latents", text(run, "name"));
    CHECK(golden_output(&f->g, output, kac_latent_states(f->latent)));
    close_run(f);
}

static void test_texts(void) {
    fixture f;
    if (!fixture_open(&f, "task/text")) return;
    const cJSON *run = NULL;
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs")) test_text(&f, run);
    CHECK(golden_done(&f.g));
    fixture_close(&f);
}

/* ---- what masks promise ---- */

static void final_states(float *out, fixture *f, int n, int batch, kac_latent_start start, double eta, int copy_at) {
    const cJSON *run = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(f->g.json.root, "runs"), 1);
    if (!open_run(f, run, n, batch, start, eta)) return;
    walk(f, 2 * n, 0, f->solver.n_steps, copy_at);
    memcpy(out, kac_latent_states(f->latent).data, kac_tensor_bytes(kac_latent_states(f->latent)));
}

static void test_promises(void) {
    enum { ONE = 6 * 10 * 4 };
    static float a[4 * ONE], b[4 * ONE];
    fixture f;
    if (!fixture_open(&f, "task/inpaint4")) return;
    const kac_latent_start masked = {.rgb = f.rgb, .mask = f.mask, .paste = true};
    final_states(a, &f, 2, 4, masked, 1, -1);
    const uint8_t *rgb;
    bool kept = true, changed = false;
    CHECK_OK(kac_latent_pictures(f.latent, (int[]){1}, 1, KAC_STAGE_FINAL, &rgb));
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
        if (f.mask[i / 3] == 0)
            kept &= rgb[i] == f.rgb[i];
        else
            changed |= rgb[i] != f.rgb[i];
    CHECK(kept && changed);
    close_run(&f);
    final_states(b, &f, 2, 1, masked, 1, -1); /* batches change nothing */
    CHECK(memcmp(a, b, sizeof a) == 0);
    close_run(&f);
    CHECK(memcmp(a, a + ONE, ONE * sizeof *a) != 0); /* particles differ */

    /* Without fresh noise copies stay copies, also of the noise under what the mask keeps: their calls are shared. */
    final_states(b, &f, 2, 4, masked, 0, 1);
    CHECK(memcmp(b, b + ONE, ONE * sizeof *b) == 0);
    const int n = f.solver.n_steps;
    CHECK(kac_latent_counts_of(f.latent)->denoiser == 2 * (4 + 3 * (n - 1)));
    close_run(&f);

    /* Saved after a copy and loaded into another process, the rest is the same to the bit. */
    const cJSON *run = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs"), 1);
    if (open_run(&f, run, 2, 4, masked, 0)) {
        kac_process *p = kac_latent_process(f.latent);
        walk(&f, 4, 0, 1, -1);
        CHECK_OK(p->copy(p, (int[]){0}, (int[]){1}, 1));
        void *saved = kac_alloc((size_t)p->state_bytes(p));
        CHECK_OK(p->state_save(p, saved));
        close_run(&f);
        CHECK(open_run(&f, run, 2, 4, masked, 0));
        p = kac_latent_process(f.latent);
        CHECK_OK(p->state_load(p, saved, (size_t)p->state_bytes(p)));
        walk(&f, 4, 1, f.solver.n_steps, -1);
        CHECK(memcmp(b, kac_latent_states(f.latent).data, sizeof b) == 0);
        kac_free(saved);
        close_run(&f);
    }

    /* A mask that is white everywhere keeps nothing: the plain sample, to the bit. */
    memset(f.mask, 255, sizeof f.mask);
    final_states(a, &f, 2, 4, (kac_latent_start){.rgb = f.rgb, .mask = f.mask, .from_noise = true}, 1, -1);
    close_run(&f);
    final_states(b, &f, 2, 4, (kac_latent_start){0}, 1, -1);
    close_run(&f);
    CHECK(memcmp(a, b, sizeof a) == 0);
    fixture_close(&f);
}

/* Distilled models spread all their steps below the picture's noise level; numbers of LCMScheduler.set_timesteps. */
static void test_distilled(void) {
    static const char config[] = "{\"_class_name\": \"LCMScheduler\"}";
    static const double want[] = {499, 379, 259, 139};
    kac_schedule schedule;
    kac_solver solver;
    if (!CHECK_OK(kac_schedule_parse(&schedule, config, sizeof config - 1, "lcm"))) return;
    kac_solver_options o = {.kind = KAC_SOLVER_LCM, .n_steps = 4, .eta = NAN, .strength = 0.5};
    if (CHECK_OK(kac_solver_init(&solver, &schedule, &o))) {
        CHECK(solver.n_steps == 4);
        for (int i = 0; i < 4; i++) CHECK(solver.rows[i].timestep == want[i]);
        kac_solver_free(&solver);
    }
    o.strength = 0.05;
    CHECK_FAILS(kac_solver_init(&solver, &schedule, &o), KAC_E_USAGE, "at 2");
    kac_schedule_free(&schedule);
}

static void test_refused(void) {
    fixture f;
    if (!fixture_open(&f, "task/inpaint9")) return;
    const cJSON *run = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(f.g.json.root, "runs"), 0);
    const char *texts[1] = {"a"};
    kac_solver solver;
    kac_latent *l = NULL;
    const kac_solver_options so = {.kind = KAC_SOLVER_DDIM, .n_steps = (int)number(run, "steps"), .eta = 0};
    CHECK_OK(kac_solver_init(&solver, &f.pipeline.schedule, &so));
    kac_latent_options o = {.prompts = texts,
                            .n_groups = 1,
                            .n_per_group = 1,
                            .width = WIDTH,
                            .height = HEIGHT,
                            .cfg_scale = 1,
                            .batch = 1};
    CHECK_FAILS(kac_latent_open(&l, &f.ctx, &f.pipeline, &solver, &o), KAC_E_USAGE, "--mask");
    o.start.rgb = f.rgb;
    CHECK_FAILS(kac_latent_open(&l, &f.ctx, &f.pipeline, &solver, &o), KAC_E_USAGE, "--mask");
    kac_solver_free(&solver);
    fixture_close(&f);

    golden edit;
    kac_ctx c;
    kac_pipeline p;
    if (!CHECK_OK(golden_open_pipeline(&edit, "task/edit8"))) return;
    CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 1, NULL));
    CHECK_FAILS(kac_pipeline_open(&p, &c, edit.dir, NULL), KAC_E_UNSUPPORTED, "InstructPix2Pix");
    kac_ctx_close(&c);
    golden_close(&edit);
}

/* ---- a tiny autoencoder in its author's layout ---- */

static void check_tiny(golden *g, const char *path) {
    kac_ctx c;
    kac_codec *codec;
    if (!CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 2, NULL))) return;
    if (CHECK_OK(kac_codec_load(&codec, &c, path))) {
        const kac_codec_config *cfg = kac_codec_config_of(codec);
        CHECK(cfg->tiny && cfg->latent_channels == 6 && cfg->factor == 4 && cfg->has_encoder);
        kac_tensor image, z, latents = {0}, sample = {0};
        uint8_t rgb[24 * 16 * 3];
        golden_picture(rgb, "tiny", 24, 16);
        CHECK_OK(kac_take_make(&image, &c.run, KAC_F32, 1, 16, 24, 3));
        for (int i = 0; i < KAC_COUNT_OF(rgb); i++) ((float *)image.data)[i] = rgb[i] / 127.5f - 1;
        CHECK_OK(kac_codec_encode_latents(&latents, codec, &c, image));
        CHECK(golden_output(g, "latents", latents));
        CHECK_OK(golden_input(&z, g, &c, "z"));
        CHECK_OK(kac_codec_decode_latents(&sample, codec, &c, z));
        CHECK(golden_output(g, "sample", sample));
        kac_codec_free(codec);
    }
    kac_ctx_close(&c);
}

static void test_tiny(void) {
    golden g;
    kac_codec *codec;
    kac_ctx c;
    if (!CHECK_OK(golden_open_data(&g, "task/tiny"))) return;
    const char *dir = temp_path("tiny");
    CHECK_OK(kac_dir_make(dir));
    const cJSON *part = NULL;
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(g.json.root, "parts")) {
        CHECK_OK(golden_write_model(&g.json, part, dir));
    }
    CHECK(remove(temp_path("tiny/config.json")) == 0);
    g.tolerance = 1e-5;
    check_tiny(&g, temp_path("tiny"));
    check_tiny(&g, temp_path("tiny/tae_decoder.safetensors"));
    CHECK(golden_done(&g));
    golden_close(&g);

    if (!CHECK_OK(kac_ctx_open(&c, kac_cpu_ops(), KAC_F32, 1, NULL))) return;
    CHECK(remove(temp_path("tiny/tae_encoder.safetensors")) == 0);
    if (CHECK_OK(kac_codec_load(&codec, &c, temp_path("tiny")))) CHECK(!kac_codec_config_of(codec)->has_encoder);
    kac_codec_free(codec);
    CHECK(rename(temp_path("tiny/tae_decoder.safetensors"), temp_path("tiny/tae_encoder.safetensors")) == 0);
    CHECK_FAILS(kac_codec_load(&codec, &c, temp_path("tiny")), KAC_E_IO, "no autoencoder");
    CHECK_FAILS(kac_codec_load(&codec, &c, temp_path("tiny/tae_encoder.safetensors")), KAC_E_IO, "decoder");
    CHECK(rename(temp_path("tiny/tae_encoder.safetensors"), temp_path("tiny/x.safetensors")) == 0);
    CHECK_OK(kac_codec_load(&codec, &c, temp_path("tiny/x.safetensors"))); /* any name will do for a decoder */
    kac_codec_free(codec);
    CHECK_FAILS(kac_codec_load(&codec, &c, "weights/shapes-64/text_encoder/model.safetensors"), KAC_E_FORMAT,
                "tiny autoencoder");

    /* In place of a model's own: latents must fit, the scale is the other's. */
    kac_pipeline p;
    if (CHECK_OK(golden_open_pipeline(&g, "task/inpaint4"))) {
        CHECK_FAILS(kac_pipeline_open(&p, &c, g.dir, &(kac_pipeline_options){.vae = temp_path("tiny/x.safetensors")}),
                    KAC_E_USAGE, "latents of 6 channels");
        if (CHECK_OK(kac_pipeline_open(&p, &c, g.dir, &(kac_pipeline_options){.vae = "weights/shapes-64/vae"}))) {
            CHECK(kac_codec_config_of(p.codec)->scaling != 0.7 && p.channels == 4);
            kac_pipeline_close(&p);
        }
        golden_close(&g);
    }
    kac_ctx_close(&c);
}

int main(void) {
    test_runs("task/img2img", false);
    test_runs("task/inpaint4", true);
    test_runs("task/inpaint9", true);
    test_pixels();
    test_texts();
    test_promises();
    test_refused();
    test_distilled();
    test_tiny();
    return check_done();
}
