/* Whole runs on the shipped models: files, counts, stopping and going on, repeats, and what is refused. */
#include "check.h"
#include "io/image.h"
#include "io/weights.h"
#include "run/generate.h"
#include "run/generate_options.h"
#include "util/temp.h"
#include <kac/steer.h>
#include <stdlib.h>
#include <string.h>

typedef struct setting {
    const char *name, *value;
} setting;

enum { MAX_SETTINGS = 16, PARTICLES = 3, STEPS = 4 };

static int stop_after_step = -1, n_steps_seen;

static void count_step(void *self, const kac_step_event *e, double best) {
    (void)self, (void)best;
    n_steps_seen = e->i_step;
}

static bool stop_now(void *self) {
    (void)self;
    return stop_after_step >= 0 && n_steps_seen >= stop_after_step;
}

/* Runs with small defaults, then `more` (NULL-terminated). */
static kac_status run(kac_generate_result *result, const char *method, const setting *more) {
    static const setting small[] = {{"steps", "4"}, {"particles", "3"}, {"seed", "7"}, {"steer", ""}, {NULL}};
    kac_options *o = kac_options_create(kac_generate_options);
    kac_status s = kac_options_add(o, kac_method_find(method)->options);
    for (const setting *p = small; p->name != NULL && s == KAC_OK; p++)
        s = kac_options_set(o, p->name, strcmp(p->name, "steer") == 0 ? method : p->value);
    for (const setting *p = more; p->name != NULL && s == KAC_OK; p++) s = kac_options_set(o, p->name, p->value);
    const char *command[] = {"kac", "generate"};
    const kac_generate_args args = {.options = o,
                                    .command = command,
                                    .n_command = 2,
                                    .weights_dir = "weights",
                                    .hooks = {.step = count_step, .cancelled = stop_now}};
    n_steps_seen = 0;
    *result = (kac_generate_result){0};
    if (s == KAC_OK) s = kac_generate(result, &args);
    kac_options_destroy(o);
    return s;
}

static bool same_pictures(const char *folder_a, const char *folder_b, int n) {
    bool same = true;
    for (int i = 0; i < n; i++) {
        char *a = kac_format("%s/particle_%02d.png", folder_a, i), *b = kac_format("%s/particle_%02d.png", folder_b, i);
        kac_image x = {0}, y = {0};
        same = same && kac_image_load(&x, a) == KAC_OK && kac_image_load(&y, b) == KAC_OK && x.width == y.width &&
               memcmp(x.rgb, y.rgb, (size_t)x.width * (size_t)x.height * 3) == 0;
        kac_image_free(&x), kac_image_free(&y), kac_free(a), kac_free(b);
    }
    return same;
}

static double count_of(const kac_generate_result *r, const char *name) {
    kac_json j;
    if (!CHECK_OK(kac_json_parse(&j, r->json, strlen(r->json), "run.json"))) return -1;
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(j.root, "counts"), name);
    const double count = v == NULL ? -1 : v->valuedouble;
    kac_json_free(&j);
    return count;
}

static double mean_reward(const kac_generate_result *r) {
    kac_json j;
    if (!CHECK_OK(kac_json_parse(&j, r->json, strlen(r->json), "run.json"))) return NAN;
    const cJSON *images = cJSON_GetObjectItemCaseSensitive(j.root, "images");
    double sum = 0;
    for (const cJSON *i = images->child; i != NULL; i = i->next)
        sum += cJSON_GetObjectItemCaseSensitive(i, "reward")->valuedouble / cJSON_GetArraySize(images);
    kac_json_free(&j);
    return sum;
}

static void test_steered(void) {
    kac_generate_result fk, again, none;
    const char *folder = temp_path("fk");
    char *copy = kac_strdup(folder);
    const setting settings[] = {
        {"prompt", "a red circle"}, {"output", folder}, {"lambda", "1"}, {"score-steps", "1,2"}, {NULL}};
    if (!CHECK_OK(run(&fk, "fk", settings))) return;
    CHECK(fk.n_images == PARTICLES && fk.best != NULL && kac_file_exists(fk.best));
    CHECK(count_of(&fk, "denoiser") == 2 * STEPS * PARTICLES);
    CHECK(count_of(&fk, "decoder") == 3 * PARTICLES && count_of(&fk, "reward") == 3 * PARTICLES);
    kac_png_texts texts;
    CHECK_OK(kac_png_texts_read(&texts, fk.best));
    CHECK(strstr(kac_png_texts_get(&texts, "parameters"), "a red circle\nSteps: 4, Sampler: ddim, CFG scale: 3") !=
          NULL);
    CHECK(strstr(kac_png_texts_get(&texts, "kac"), "\"reward\"") != NULL);
    kac_png_texts_free(&texts);
    CHECK_FAILS(run(&again, "fk", settings), KAC_E_USAGE, "holds a run already");
    kac_generate_result_free(&again);

    /* lambda 0 changes nothing: the same pictures as without steering; another batch and one thread neither. */
    const setting zero[] = {{"prompt", "a red circle"},
                            {"output", temp_path("zero")},
                            {"lambda", "0"},
                            {"batch-size", "1"},
                            {"threads", "1"},
                            {NULL}};
    const setting plain[] = {{"prompt", "a red circle"}, {"output", temp_path("none")}, {NULL}};
    if (CHECK_OK(run(&again, "fk", zero)) && CHECK_OK(run(&none, "none", plain))) {
        CHECK(same_pictures(again.folder, none.folder, PARTICLES));
        CHECK(count_of(&none, "reward") == 0);
        kac_generate_result_free(&none);
    }
    kac_generate_result_free(&again);
    kac_generate_result_free(&fk);
    kac_free(copy);
}

/* Guidance raises the reward of every particle, whatever the batch; a reward without a gradient is refused before anything runs. */
static void test_guided(void) {
    kac_generate_result all, single, none;
    const setting together[] = {{"prompt", "a red circle above a blue square"},
                                {"output", temp_path("dps")},
                                {"gradient-form", "direction"},
                                {"gradient-scale", "0.1"},
                                {NULL}};
    const setting alone[] = {{"prompt", "a red circle above a blue square"},
                             {"output", temp_path("dps-alone")},
                             {"gradient-form", "direction"},
                             {"gradient-scale", "0.1"},
                             {"batch-size", "1"},
                             {"threads", "1"},
                             {NULL}};
    const setting off[] = {{"prompt", "a red circle above a blue square"},
                           {"output", temp_path("dps-off")},
                           {"gradient-scale", "0"},
                           {NULL}};
    const setting judged[] = {{"prompt", "a red circle above a blue square"},
                              {"output", temp_path("dps-judge")},
                              {"reward", "shapes-judge"},
                              {NULL}};
    if (!CHECK_OK(run(&all, "dps", together))) return;
    CHECK(count_of(&all, "denoiser") == 2 * STEPS * PARTICLES && count_of(&all, "reward_grad") == STEPS * PARTICLES);
    CHECK(count_of(&all, "denoiser_grad") == 2 * STEPS * PARTICLES && count_of(&all, "reward") == PARTICLES);
    if (CHECK_OK(run(&single, "dps", alone))) {
        CHECK(same_pictures(all.folder, single.folder, PARTICLES));
        kac_generate_result_free(&single);
    }
    if (CHECK_OK(run(&none, "dps", off))) {
        printf("mean reward %g, guided %g\n", mean_reward(&none), mean_reward(&all));
        CHECK(mean_reward(&all) > mean_reward(&none) + 0.05 && count_of(&none, "denoiser_grad") == -1);
        kac_generate_result_free(&none);
    }
    kac_generate_result_free(&all);
    CHECK_FAILS(run(&none, "dps", judged), KAC_E_UNSUPPORTED, "shapes-judge has no gradient");
    CHECK(strstr(kac_error(), "these have one: clip") != NULL);
    kac_generate_result_free(&none);
}

/* Particle 2 alone is particle 2 of the run. */
static void test_alone(void) {
    kac_generate_result all, one;
    const setting plain[] = {{"prompt", "two green stars"}, {"output", temp_path("all")}, {NULL}};
    const setting alone[] = {{"prompt", "two green stars"},
                             {"output", temp_path("one")},
                             {"first-particle", "2"},
                             {"particles", "1"},
                             {NULL}};
    if (!CHECK_OK(run(&all, "none", plain)) || !CHECK_OK(run(&one, "none", alone))) return;
    char *a = kac_path_join(all.folder, "particle_02.png"), *b = kac_path_join(one.folder, "particle_02.png");
    kac_image x = {0}, y = {0};
    CHECK_OK(kac_image_load(&x, a));
    CHECK_OK(kac_image_load(&y, b));
    CHECK(x.rgb != NULL && y.rgb != NULL && memcmp(x.rgb, y.rgb, (size_t)(x.width * x.height * 3)) == 0);
    kac_image_free(&x), kac_image_free(&y), kac_free(a), kac_free(b);
    kac_generate_result_free(&all), kac_generate_result_free(&one);
}

/* Stopped after every step in turn and continued: the same pictures, with a reward whose running mean is part of the state. */
static void test_resume(void) {
    kac_generate_result whole, part;
    const setting settings[] = {
        {"prompt", "a blue star"}, {"output", temp_path("whole")}, {"lambda", "2"}, {"score-every", "1"},
        {"ess-threshold", "1"},    {"reward", "clip,z"},           {NULL}};
    if (!CHECK_OK(run(&whole, "fk", settings))) return;
    for (int step = 0; step < STEPS; step++) {
        char name[32];
        snprintf(name, sizeof name, "part%d", step);
        setting again[] = {
            {"prompt", "a blue star"}, {"output", temp_path(name)}, {"lambda", "2"}, {"score-every", "1"},
            {"ess-threshold", "1"},    {"reward", "clip,z"},        {NULL},          {NULL}};
        stop_after_step = step;
        CHECK_FAILS(run(&part, "fk", again), KAC_E_CANCELLED, "stopped");
        CHECK(part.json != NULL && strstr(part.json, "\"interrupted\"") != NULL);
        kac_generate_result_free(&part);
        stop_after_step = -1;
        again[6] = (setting){"resume", "true"};
        if (step == 1) {
            again[2].value = "3";
            CHECK_FAILS(run(&part, "fk", again), KAC_E_USAGE, "another --lambda");
            kac_generate_result_free(&part);
            again[2].value = "2";
        }
        if (!CHECK_OK(run(&part, "fk", again))) break;
        CHECK(same_pictures(whole.folder, part.folder, PARTICLES));
        kac_generate_result_free(&part);
    }
    kac_generate_result_free(&whole);
}

/* The same from a picture with a mask: what the mask keeps goes on under the same noise. Another picture under the old name is refused. */
static void test_start(void) {
    enum { SIDE = 64 };
    static uint8_t rgb[SIDE * SIDE * 3], mask[SIDE * SIDE * 3];
    for (int i = 0; i < SIDE * SIDE * 3; i++) rgb[i] = (uint8_t)(i % 251), mask[i] = i % (SIDE * 3) < 90 ? 255 : 0;
    char start[512], black[512], folder[512];
    snprintf(start, sizeof start, "%s", temp_path("start.png")),
        snprintf(black, sizeof black, "%s", temp_path("mask.png"));
    snprintf(folder, sizeof folder, "%s", temp_path("start_part"));
    CHECK_OK(kac_png_save(start, rgb, SIDE, SIDE, NULL, 0));
    CHECK_OK(kac_png_save(black, mask, SIDE, SIDE, NULL, 0));
    setting settings[] = {{"prompt", "a (blue:1.2) star"},
                          {"output", temp_path("start_whole")},
                          {"init-img", start},
                          {"mask", black},
                          {"strength", "0.75"},
                          {"ess-threshold", "1"},
                          {"score-every", "1"},
                          {"prompt-weighting", "true"},
                          {NULL},
                          {NULL}};
    kac_generate_result whole, part;
    if (!CHECK_OK(run(&whole, "fk", settings))) return;
    CHECK(count_of(&whole, "denoiser") == 2 * 3 * PARTICLES);
    CHECK(strstr(whole.json, "mask_sha256") != NULL);
    settings[1].value = folder;
    stop_after_step = 1;
    CHECK_FAILS(run(&part, "fk", settings), KAC_E_CANCELLED, "stopped");
    kac_generate_result_free(&part);
    stop_after_step = -1;
    settings[8] = (setting){"resume", "true"};
    rgb[0] ^= 1;
    CHECK_OK(kac_png_save(start, rgb, SIDE, SIDE, NULL, 0));
    CHECK_FAILS(run(&part, "fk", settings), KAC_E_USAGE, "--init-img has changed");
    kac_generate_result_free(&part);
    rgb[0] ^= 1;
    CHECK_OK(kac_png_save(start, rgb, SIDE, SIDE, NULL, 0));
    if (CHECK_OK(run(&part, "fk", settings))) CHECK(same_pictures(whole.folder, part.folder, PARTICLES));
    kac_generate_result_free(&part);
    kac_generate_result_free(&whole);
}

/* More particles than one batch: every network and reward stays within what was rehearsed. */
static void test_small_batches(void) {
    const char *const sizes[] = {"1", "3", "20"};
    kac_generate_result first = {0}, r;
    for (int i = 0; i < 3; i++) {
        const setting settings[] = {{"prompt", "a red star"}, {"output", temp_path(sizes[i])},
                                    {"batch-size", sizes[i]}, {"particles", "20"},
                                    {"steps", "2"},           {"score-every", "1"},
                                    {"previews", "false"},    {NULL}};
        if (!CHECK_OK(run(&r, "fk", settings))) break;
        if (i > 0) CHECK(same_pictures(first.folder, r.folder, 20));
        if (i > 0) kac_generate_result_free(&r);
        if (i == 0) first = r;
    }
    kac_generate_result_free(&first);
}

static void test_refused(void) {
    static const struct {
        setting a, b;
        kac_status status;
        const char *text;
    } cases[] = {
        {{"prompt", ""}, {NULL}, KAC_E_USAGE, "the prompt is empty"},
        {{"prompt", "a \xff red"}, {NULL}, KAC_E_USAGE, "not valid UTF-8"},
        {{"prompt", "x"}, {"width", "60.5"}, KAC_E_USAGE, "width"},
        {{"prompt", "x"}, {"width", "66"}, KAC_E_USAGE, "multiples of"},
        {{"prompt", "x"}, {"model", "/nonexistent"}, KAC_E_IO, "no model folder"},
        {{"prompt", "x"}, {"model", "tests"}, KAC_E_IO, "no model_index.json"},
        {{"prompt", "x"}, {"reward", "clap=x"}, KAC_E_USAGE, "did you mean \"clip\""},
        {{"prompt", "x"}, {"reward", "clip="}, KAC_E_USAGE, "needs a path: clip=DIR"},
        {{"prompt", "x"}, {"reward", "jpeg:0"}, KAC_E_USAGE, "weight"},
        {{"prompt", "a cat"}, {"reward", "shapes-judge"}, KAC_E_USAGE, "no shape in the prompt"},
        {{"prompt", "x"}, {"memory-limit", "0.001"}, KAC_E_MEMORY, "needs"},
        {{"prompt", "x"}, {"timesteps", "1,2"}, KAC_E_USAGE, NULL},
        {{"prompt", "x"}, {"particles", "0"}, KAC_E_USAGE, "particles"},
        {{"prompt", "x"}, {"particles", "1000000000"}, KAC_E_USAGE, "particles"},
    };
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        kac_generate_result r = {0};
        const char *folder = temp_path("refused");
        const setting settings[] = {{"output", folder}, cases[i].a, cases[i].b, {NULL}};
        CHECK_FAILS(run(&r, "fk", settings), cases[i].status, cases[i].text);
        CHECK(!kac_dir_exists(folder));
        kac_generate_result_free(&r);
    }
}

static void test_plan(void) {
    kac_generate_result r;
    const setting settings[] = {{"prompt", "x"}, {"output", temp_path("plan")}, {"plan", "true"}, {NULL}};
    CHECK_OK(run(&r, "fk", settings));
    CHECK(r.json != NULL && strstr(r.json, "\"scratch\"") != NULL && strstr(r.json, "\"denoiser_total\"") != NULL);
    CHECK(!kac_dir_exists(temp_path("plan")));
    kac_generate_result_free(&r);
}

static void test_mixture(void) {
    static const char mixture[] =
        "{\"_class_name\": \"GaussianMixture\", \"weights\": [0.5, 0.5], \"means\": [[-1], [1]], "
        "\"covariances\": [[[0.1]], [[0.1]]], \"schedule\": {\"alphas_cumprod\": [0.9, 0.5, 0.1]}, \"kernel\": "
        "\"exact\"}";
    static const char quadratic[] = "{\"A\": [[1]], \"a\": [1]}";
    kac_generate_result r;
    const char *model = temp_write("m.json", mixture, sizeof mixture - 1),
               *file = temp_write("q.json", quadratic, sizeof quadratic - 1);
    char *reward = kac_format("quadratic=%s", file);
    const setting settings[] = {{"model", model},    {"reward", reward}, {"output", temp_path("mixture")},
                                {"particles", "64"}, {"lambda", "1"},    {NULL}};
    if (CHECK_OK(run(&r, "fk", settings))) {
        kac_weights st;
        kac_tensor x, log_z;
        CHECK_OK(kac_weights_open(&st, r.best));
        CHECK_OK(kac_weights_find(&st, "x", &x));
        CHECK_OK(kac_weights_find(&st, "log_z", &log_z));
        CHECK(x.rank == 2 && x.shape[0] == 64 && x.shape[1] == 1 && log_z.shape[0] == 1);
        kac_weights_close(&st);
    }
    kac_generate_result_free(&r);
    kac_free(reward);
}

int main(void) {
    test_refused();
    test_plan();
    test_mixture();
    test_steered();
    test_guided();
    test_alone();
    test_resume();
    test_start();
    test_small_batches();
    return check_done();
}
