/* Every recorded run of the reference schedulers, against its dummy network x · t / (t + 1), and what must be refused.
 */
#include "base/base.h"
#include "base/json.h"
#include "check.h"
#include "samplers/solver.h"
#include <stdlib.h>

typedef struct data {
    char *text;
    kac_json json;
    float *values;
    size_t n_values;
} data;

static const float *values_of(const data *d, const cJSON *c, const char *key) {
    const cJSON *pair = cJSON_GetObjectItem(c, key);
    return pair == NULL ? NULL : d->values + (size_t)cJSON_GetArrayItem(pair, 0)->valuedouble;
}

static double relative_error(const float *a, const float *b, int n) {
    double difference = 0, size = 0;
    for (int i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / (size > 1e-12 ? size : 1e-12));
}

static double largest_error;

enum { MAX_N = 768 };

static void one_step(const kac_solver *s, const kac_solver_row *r, bool scaled, float *x, float *past, const float *z,
                     int n, int samples) {
    float x0[MAX_N], out[MAX_N], scratch[MAX_N];
    const float t = (float)r->timestep;
    for (int i = 0; i < n; i++) {
        out[i] = (scaled ? x[i] : (float)(r->c_in * x[i])) * t / (t + 1.0f);
        x0[i] = (float)(r->x0_x * x[i] + r->x0_out * out[i]);
    }
    for (int k = 0; k < samples; k++) kac_solver_clip(s, x0 + k * (n / samples), n / samples, scratch);
    kac_solver_step(s, r, x, x0, out, past, z, NULL, n);
}

/* Timesteps and noise levels as the reference lists them. Levels of methods with two calls a step are listed otherwise
 * there and follow from their samples. */
static bool levels_agree(const data *d, const cJSON *c, const kac_schedule *schedule, const kac_solver *s, int begin) {
    const float *timesteps = values_of(d, c, "timesteps"), *sigmas = values_of(d, c, "sigmas");
    const bool flow = schedule->sigmas == KAC_SIGMAS_FLOW || schedule->prediction == KAC_PREDICT_FLOW;
    const bool two_calls = s->kind == KAC_SOLVER_HEUN || s->kind == KAC_SOLVER_FLOW_HEUN;
    bool good = true;
    for (int i = 0; i < s->n_steps; i++) {
        const kac_solver_row *r = &s->rows[i];
        good &= CHECK_NEAR(r->timestep, timesteps[i], 1e-5 * fmax(1.0, fabs(timesteps[i])));
        const double level = flow ? r->sigma : r->sigma / r->alpha;
        if (sigmas != NULL) good &= CHECK_NEAR(level / sigmas[i + begin * (1 + two_calls)], 1.0, 1e-6);
    }
    return good;
}

static void run_case(const data *d, const cJSON *c, const kac_schedule *schedule) {
    const char *id = cJSON_GetObjectItem(c, "id")->valuestring;
    const cJSON *eta = cJSON_GetObjectItem(c, "eta");
    const bool scaled = cJSON_IsTrue(cJSON_GetObjectItem(c, "scaled_state"));
    const bool has_eta = schedule->class_kind == KAC_CLASS_DDIM || schedule->class_kind == KAC_CLASS_TCD;
    kac_solver_options o = {.n_steps = cJSON_GetObjectItem(c, "steps")->valueint,
                            .eta = has_eta && cJSON_IsNumber(eta) ? eta->valuedouble : NAN,
                            .mu = cJSON_GetObjectItem(c, "mu")->valuedouble,
                            .begin = cJSON_GetObjectItem(c, "begin")->valueint};
    kac_solver s;
    if (!CHECK_OK(kac_solver_init(&s, schedule, &o))) {
        printf("  in %s\n", id);
        return;
    }
    const int n = cJSON_GetObjectItem(c, "n")->valueint, samples = cJSON_GetObjectItem(c, "samples")->valueint;
    const float *noise = values_of(d, c, "noise"), *trajectory = values_of(d, c, "trajectory");
    float x[MAX_N], past[KAC_SOLVER_PAST * MAX_N] = {0};
    memcpy(x, values_of(d, c, "start"), (size_t)n * sizeof *x);
    const int n_rows = cJSON_GetArrayItem(cJSON_GetObjectItem(c, "timesteps"), 1)->valueint;
    if (!CHECK(s.n_steps == n_rows) || !levels_agree(d, c, schedule, &s, o.begin)) printf("  in %s\n", id);
    const double init = cJSON_GetObjectItem(c, "init_noise_sigma")->valuedouble;
    if (init > 0) CHECK_NEAR(s.init_noise_sigma / init, 1.0, 1e-6); /* flow classes have none */
    double worst = 0;
    for (int i = 0; i < s.n_steps && s.n_steps == n_rows; i++) {
        const kac_solver_row *r = &s.rows[i];
        /* Some of the reference's own tests go on with the network's scaled input as the state. */
        for (int k = 0; scaled && i > 0 && k < n; k++) x[k] *= (float)r->c_in;
        one_step(&s, r, scaled, x, past, r->z != 0.0 && noise ? noise : NULL, n, samples);
        CHECK(r->z == 0.0 || noise != NULL);
        if (r->z != 0.0 && noise) noise += n;
        if (trajectory) worst = fmax(worst, relative_error(x, trajectory + i * n, n));
    }
    worst = fmax(worst, relative_error(x, values_of(d, c, "final"), n));
    const cJSON *own_error = cJSON_GetObjectItem(c, "own_error"); /* the reference's float32 rounding */
    if (own_error == NULL) largest_error = fmax(largest_error, worst);
    if (!CHECK(worst <= 1e-5 + (own_error == NULL ? 0 : own_error->valuedouble)))
        printf("  in %s: relative error %.3g\n", id, worst);
    kac_solver_free(&s);
}

static void test_recorded_runs(void) {
    data d = {0};
    size_t n = 0;
    if (!CHECK_OK(kac_file_read((char **)&d.values, &n, "tests/samplers/data/schedulers.f32", 8 << 20))) return;
    if (!CHECK_OK(kac_file_read(&d.text, &n, "tests/samplers/data/schedulers.json", 8 << 20))) return;
    /* Configs hold -Infinity as Python writes it, which only the schedule's reader understands: each is cut out of the
     * text. */
    int n_cases = 0;
    for (char *line = strstr(d.text, "{\"id\""); line != NULL; line = strstr(line, "{\"id\"")) {
        char *config = strstr(line, "\"config\": {") + 10, *end = strchr(config, '}') + 1;
        kac_schedule schedule;
        if (CHECK_OK(kac_schedule_parse(&schedule, config, (size_t)(end - config), "config"))) {
            memset(config, ' ', (size_t)(end - config));
            memcpy(config, "{}", 2);
            cJSON *c = cJSON_ParseWithOpts(line, NULL, false);
            if (CHECK(c != NULL)) run_case(&d, c, &schedule);
            cJSON_Delete(c);
            kac_schedule_free(&schedule);
            n_cases++;
        }
        line = end;
    }
    printf("%d recorded runs, largest relative error %.3g\n", n_cases, largest_error);
    CHECK(n_cases == 122);
    kac_free(d.values);
    kac_free(d.text);
}

static kac_status parse(kac_schedule *s, const char *text) {
    return kac_schedule_parse(s, text, strlen(text), "test.json");
}

static void test_configs(void) {
    kac_schedule s;
    CHECK_FAILS(parse(&s, "{"), KAC_E_FORMAT, "test.json");
    CHECK_FAILS(parse(&s, "{}"), KAC_E_FORMAT, "_class_name");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"RePaintScheduler\"}"), KAC_E_UNSUPPORTED, "RePaint");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"exp\"}"), KAC_E_UNSUPPORTED,
                "exp");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 0}"), KAC_E_FORMAT,
                "num_train");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": \"x\"}"), KAC_E_FORMAT,
                "num_train");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"beta_end\": 2}"), KAC_E_FORMAT, "beta_end");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.1, 0.2]}"), KAC_E_FORMAT,
                "trained_betas");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DDPMScheduler\", \"variance_type\": \"wide\"}"), KAC_E_UNSUPPORTED,
                "wide");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"solver_order\": 4}"), KAC_E_FORMAT,
                "order");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"invert_sigmas\": true}"),
                KAC_E_UNSUPPORTED, "invert_sigmas");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"UniPCMultistepScheduler\", \"disable_corrector\": [0]}"),
                KAC_E_UNSUPPORTED, "disable_corrector");
    CHECK_FAILS(parse(&s, "{\"_class_name\": \"EulerDiscreteScheduler\", \"use_karras_sigmas\": true, "
                          "\"use_beta_sigmas\": true}"),
                KAC_E_FORMAT, "use_beta_sigmas");
    /* SD 1.5 as it is shipped */
    if (CHECK_OK(parse(
            &s, "{\"_class_name\": \"PNDMScheduler\", \"beta_end\": 0.012, \"beta_start\": 0.00085, \"beta_schedule\": "
                "\"scaled_linear\", \"skip_prk_steps\": true, \"steps_offset\": 1}"))) {
        CHECK(!s.clip_sample && !s.set_alpha_to_one);
        kac_solver solver;
        CHECK_OK(kac_solver_init(&solver, &s, &(kac_solver_options){.n_steps = 50, .eta = NAN}));
        CHECK(solver.kind == KAC_SOLVER_PNDM && solver.n_steps == 51 && solver.rows[0].timestep == 981 &&
              solver.rows[2].timestep == 961 && !solver.density && solver.clip == 0);
        kac_solver_free(&solver);
    }
    kac_schedule_free(&s);
    CHECK_OK(parse(
        &s, "{\"_class_name\": \"DDIMScheduler\", \"num_train_timesteps\": 3, \"trained_betas\": [0.1, 0.2, 0.5]}"));
    CHECK_NEAR(s.alphas_cumprod[2], 0.36, 1e-6);
    kac_schedule_free(&s);
}

static void refused(const kac_schedule *schedule, kac_solver_options o, kac_status status, const char *text) {
    kac_solver s;
    CHECK_FAILS(kac_solver_init(&s, schedule, &o), status, text);
    kac_solver_free(&s);
}

static void test_options(void) {
    kac_schedule s;
    if (!CHECK_OK(parse(&s, "{\"_class_name\": \"DDPMScheduler\", \"clip_sample\": false}"))) return;
    refused(&s, (kac_solver_options){.n_steps = 0, .eta = NAN}, KAC_E_USAGE, "1 to 1000");
    refused(&s, (kac_solver_options){.n_steps = 1001, .eta = NAN}, KAC_E_USAGE, "1 to 1000");
    refused(&s, (kac_solver_options){.n_steps = 10, .eta = 1}, KAC_E_USAGE, "eta");
    refused(&s, (kac_solver_options){.kind = KAC_SOLVER_DDIM, .n_steps = 10, .eta = -1}, KAC_E_USAGE, "eta");
    refused(&s, (kac_solver_options){.kind = KAC_SOLVER_DDIM, .n_steps = 10, .eta = 3}, KAC_E_USAGE, "eta");
    refused(&s, (kac_solver_options){.n_steps = 10, .eta = NAN, .begin = 10}, KAC_E_USAGE, "start at step");
    const double rising[] = {100, 500}, falling[] = {999, 500, 100}, outside[] = {1000, 5}, broken[] = {500.5, 3};
    refused(&s, (kac_solver_options){.eta = NAN, .timesteps = rising, .n_timesteps = 2}, KAC_E_USAGE, "fall");
    refused(&s, (kac_solver_options){.eta = NAN, .timesteps = outside, .n_timesteps = 2}, KAC_E_USAGE, "1000");
    refused(&s, (kac_solver_options){.eta = NAN, .timesteps = broken, .n_timesteps = 2}, KAC_E_USAGE, "500.5");
    kac_solver own, plain;
    CHECK_OK(kac_solver_init(&own, &s, &(kac_solver_options){.eta = NAN, .timesteps = falling, .n_timesteps = 3}));
    CHECK(own.n_steps == 3 && own.rows[1].timestep == 500 && own.density);
    kac_solver_free(&own);
    /* DDIM goes from each given timestep to the next; given its own, to where it would have gone by itself */
    CHECK_OK(kac_solver_init(
        &own, &s, &(kac_solver_options){.kind = KAC_SOLVER_DDIM, .eta = NAN, .timesteps = falling, .n_timesteps = 3}));
    CHECK_NEAR(own.rows[0].next.x0, sqrt(s.alphas_cumprod[500]), 1e-12);
    CHECK_NEAR(own.rows[2].next.x0, 1.0, 0);
    kac_solver_free(&own);
    const double even[] = {666, 333, 0};
    CHECK_OK(kac_solver_init(
        &own, &s, &(kac_solver_options){.kind = KAC_SOLVER_DDIM, .eta = NAN, .timesteps = even, .n_timesteps = 3}));
    CHECK_OK(kac_solver_init(&plain, &s, &(kac_solver_options){.kind = KAC_SOLVER_DDIM, .n_steps = 3, .eta = NAN}));
    CHECK(memcmp(own.rows, plain.rows, 3 * sizeof *own.rows) == 0);
    kac_solver_free(&plain);
    /* DDIM with eta 1 and DDPM with fixed_small are the same chain */
    CHECK_OK(kac_solver_init(&plain, &s, &(kac_solver_options){.kind = KAC_SOLVER_DDIM, .n_steps = 10, .eta = 1}));
    kac_solver_free(&own);
    CHECK_OK(kac_solver_init(&own, &s, &(kac_solver_options){.n_steps = 10, .eta = NAN}));
    for (int i = 0; i < 9; i++) {
        const kac_solver_row *a = &own.rows[i], *b = &plain.rows[i];
        CHECK_NEAR(a->z, b->z, 1e-12);
        CHECK_NEAR(a->next.x + a->next.x0 * a->x0_x, b->next.x + b->next.x0 * b->x0_x, 1e-6);
        CHECK_NEAR(a->next.out + a->next.x0 * a->x0_out, b->next.out + b->next.x0 * b->x0_out, 1e-6);
    }
    kac_solver_free(&own);
    kac_solver_free(&plain);
    kac_schedule_free(&s);
    /* the noisiest state of a zero-SNR schedule holds nothing of the sample */
    CHECK_OK(parse(
        &s,
        "{\"_class_name\": \"DDIMScheduler\", \"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"}"));
    refused(&s, (kac_solver_options){.n_steps = 10, .eta = NAN}, KAC_E_UNSUPPORTED, "pure noise");
    kac_schedule_free(&s);
    CHECK_OK(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"flow_prediction\"}"));
    refused(&s, (kac_solver_options){.n_steps = 10, .eta = NAN}, KAC_E_UNSUPPORTED, "flow");
    kac_schedule_free(&s);
    CHECK_OK(parse(&s, "{\"_class_name\": \"DDIMScheduler\", \"steps_offset\": 1}"));
    refused(&s, (kac_solver_options){.n_steps = 1000, .eta = NAN}, KAC_E_USAGE, "steps_offset");
    kac_schedule_free(&s);
    CHECK(kac_solver_find("euler_a") == KAC_SOLVER_EULER_ANCESTRAL && kac_solver_find("heun") == KAC_SOLVER_HEUN &&
          kac_solver_find("x") == KAC_SOLVER_AUTO);
    CHECK_TEXT(kac_solver_name(KAC_SOLVER_DPMPP_2M_SDE), "dpm++2m-sde");
}

/* The reference's own numbers for a network whose output is 0.9 x and a constant. */
static void test_learned_variance(void) {
    static const struct {
        const char *type;
        float said[2];
        double want[4][2];
    } cases[] = {{"learned_range",
                  {0.3f, -0.6f},
                  {{1.304503879336185, -1.2955714213795675},
                   {1.3476058426522717, -1.8073391214484307},
                   {1.11710592561231, -1.6553189928955803},
                   {0.5851446395707492, -0.8668787905217763}}},
                 {"learned",
                  {0.04f, 0.25f},
                  {{0.9078126145741225, -0.8029297384077325},
                   {0.7019970777872273, -1.0324461781289727},
                   {0.468004157054053, -1.0412337154415328},
                   {0.34509044671891864, -1.0452866898157909}}}};
    for (int c = 0; c < KAC_COUNT_OF(cases); c++) {
        char text[256];
        kac_schedule schedule;
        kac_solver s;
        snprintf(text, sizeof text,
                 "{\"_class_name\": \"DDPMScheduler\", \"clip_sample\": false, \"timestep_spacing\": "
                 "\"trailing\", \"variance_type\": \"%s\"}",
                 cases[c].type);
        if (!CHECK_OK(parse(&schedule, text))) return;
        CHECK_OK(kac_solver_init(&s, &schedule, &(kac_solver_options){.n_steps = 4, .eta = NAN}));
        CHECK(s.learned != 0 && s.density);
        float x[2] = {0.8f, -0.3f}, x0[2], out[2];
        const float z[2] = {0.5f, -1.0f};
        for (int i = 0; i < s.n_steps; i++) {
            for (int k = 0; k < 2; k++) {
                out[k] = 0.9f * x[k];
                x0[k] = (float)(s.rows[i].x0_x * x[k] + s.rows[i].x0_out * out[k]);
            }
            kac_solver_step(&s, &s.rows[i], x, x0, out, NULL, z, cases[c].said, 2);
            for (int k = 0; k < 2; k++) CHECK_NEAR(x[k], cases[c].want[i][k], 1e-5);
        }
        kac_solver_free(&s);
        kac_schedule_free(&schedule);
    }
}

static void check_kind(const char *config, const char *own, const char *noisy, bool density) {
    kac_schedule s;
    kac_solver solver;
    if (!CHECK_OK(parse(&s, config))) return;
    CHECK_TEXT(kac_solver_name(kac_solver_own(&s)), own);
    CHECK_TEXT(kac_solver_name(kac_solver_noisy(&s)), noisy);
    CHECK_OK(kac_solver_init(&solver, &s, &(kac_solver_options){.n_steps = 8, .eta = NAN}));
    CHECK(solver.density == density);
    if (density)
        CHECK_OK(kac_solver_need_density(&solver, "fk"));
    else
        CHECK_FAILS(kac_solver_need_density(&solver, "fk"), KAC_E_USAGE, own);
    kac_solver_free(&solver);
    const kac_solver_kind kind = kac_solver_noisy(&s);
    CHECK_OK(kac_solver_init(
        &solver, &s, &(kac_solver_options){.kind = kind, .n_steps = 8, .eta = kind == KAC_SOLVER_DDIM ? 1 : NAN}));
    CHECK(solver.density);
    kac_solver_free(&solver);
    kac_schedule_free(&s);
}

/* Which classes have a transition density, and what takes the place of those that have none. */
static void test_density(void) {
    check_kind("{\"_class_name\": \"DDIMScheduler\"}", "ddim", "ddim", false);
    check_kind("{\"_class_name\": \"DDPMScheduler\"}", "ddpm", "ddpm", true);
    check_kind("{\"_class_name\": \"PNDMScheduler\"}", "pndm", "ddim", false);
    check_kind("{\"_class_name\": \"LMSDiscreteScheduler\"}", "lms", "euler-ancestral", false);
    check_kind("{\"_class_name\": \"EulerDiscreteScheduler\"}", "euler", "euler-ancestral", false);
    check_kind("{\"_class_name\": \"EulerAncestralDiscreteScheduler\"}", "euler-ancestral", "euler-ancestral", true);
    check_kind("{\"_class_name\": \"HeunDiscreteScheduler\"}", "heun", "euler-ancestral", false);
    check_kind("{\"_class_name\": \"KDPM2DiscreteScheduler\"}", "dpm2", "dpm2-ancestral", false);
    check_kind("{\"_class_name\": \"KDPM2AncestralDiscreteScheduler\"}", "dpm2-ancestral", "dpm2-ancestral", true);
    check_kind("{\"_class_name\": \"DPMSolverMultistepScheduler\"}", "dpm++2m", "dpm++2m-sde", false);
    check_kind("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"sde-dpmsolver++\"}",
               "dpm++2m-sde", "dpm++2m-sde", true);
    check_kind("{\"_class_name\": \"DPMSolverSinglestepScheduler\"}", "dpm++2s", "dpm++2s-sde", false);
    check_kind("{\"_class_name\": \"DPMSolverSDEScheduler\"}", "dpm++2m-sde", "dpm++2m-sde", true);
    check_kind("{\"_class_name\": \"DEISMultistepScheduler\"}", "deis", "dpm++2m-sde", false);
    check_kind("{\"_class_name\": \"UniPCMultistepScheduler\"}", "unipc", "dpm++2m-sde", false);
    check_kind("{\"_class_name\": \"LCMScheduler\"}", "lcm", "lcm", true);
    check_kind("{\"_class_name\": \"TCDScheduler\"}", "tcd", "tcd", true);
    check_kind("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}", "flow-euler", "flow-euler-sde", false);
    check_kind("{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"stochastic_sampling\": true}",
               "flow-euler-sde", "flow-euler-sde", true);
    check_kind("{\"_class_name\": \"FlowMatchHeunDiscreteScheduler\"}", "flow-heun", "flow-euler-sde", false);
    kac_schedule s;
    kac_solver one;
    CHECK_OK(parse(&s, "{\"_class_name\": \"LCMScheduler\"}"));
    CHECK_OK(kac_solver_init(&one, &s, &(kac_solver_options){.n_steps = 1, .eta = NAN}));
    CHECK_FAILS(kac_solver_need_density(&one, "fk"), KAC_E_USAGE, "single step");
    kac_solver_free(&one);
    refused(&s, (kac_solver_options){.n_steps = 51, .eta = NAN}, KAC_E_USAGE, "original_inference_steps");
    refused(&s, (kac_solver_options){.kind = KAC_SOLVER_FLOW_EULER, .n_steps = 5, .eta = NAN}, KAC_E_UNSUPPORTED,
            "flow");
    kac_schedule_free(&s);
}

/* Every class's schedule with every solver at awkward numbers of steps and starts: a finite table or a clear refusal. */
static void test_every_combination(void) {
    static const char *const classes[] = {"DDIM",
                                          "DDPM",
                                          "PNDM",
                                          "LMSDiscrete",
                                          "EulerDiscrete",
                                          "EulerAncestralDiscrete",
                                          "HeunDiscrete",
                                          "KDPM2Discrete",
                                          "KDPM2AncestralDiscrete",
                                          "DPMSolverMultistep",
                                          "DPMSolverSinglestep",
                                          "DPMSolverSDE",
                                          "DEISMultistep",
                                          "UniPCMultistep",
                                          "LCM",
                                          "TCD",
                                          "FlowMatchEulerDiscrete",
                                          "FlowMatchHeunDiscrete"};
    static const char *const keys[] = {"",
                                       ", \"num_train_timesteps\": 7",
                                       ", \"num_train_timesteps\": 1",
                                       ", \"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"",
                                       ", \"use_karras_sigmas\": true, \"prediction_type\": \"v_prediction\"",
                                       ", \"use_beta_sigmas\": true, \"solver_order\": 3, \"lower_order_final\": false",
                                       ", \"use_flow_sigmas\": true, \"prediction_type\": \"flow_prediction\"",
                                       ", \"predict_x0\": false, \"final_sigmas_type\": \"sigma_min\"",
                                       ", \"shift_terminal\": 0.1, \"use_dynamic_shifting\": true",
                                       ", \"skip_prk_steps\": true, \"original_inference_steps\": 4",
                                       ", \"lambda_min_clipped\": 100.0, \"timestep_spacing\": \"trailing\""};
    static const int steps[][2] = {{1, 0}, {2, 0}, {2, 1}, {3, 0}, {4, 3}, {5, 2}, {7, 0}, {13, 0}, {13, 5}, {60, 0}};
    int n_tables = 0, n_refused = 0;
    for (int c = 0; c < KAC_COUNT_OF(classes) * KAC_COUNT_OF(keys); c++) {
        char text[256];
        kac_schedule schedule;
        const char *name = classes[c % KAC_COUNT_OF(classes)], *more = keys[c / KAC_COUNT_OF(classes)];
        snprintf(text, sizeof text, "{\"_class_name\": \"%sScheduler\"%s}", name, more);
        if (parse(&schedule, text) != KAC_OK) continue;
        for (int k = 0; k < KAC_COUNT_OF(steps) * (KAC_SOLVER_FLOW_HEUN + 1); k++) {
            const int *n = steps[k % KAC_COUNT_OF(steps)];
            const kac_solver_options o = {
                .kind = (kac_solver_kind)(k / KAC_COUNT_OF(steps)), .n_steps = n[0], .begin = n[1], .eta = NAN};
            kac_solver s;
            const kac_status status = kac_solver_init(&s, &schedule, &o);
            if (status != KAC_OK) {
                n_refused++;
                CHECK(status == KAC_E_USAGE || status == KAC_E_UNSUPPORTED || status == KAC_E_FORMAT);
                continue;
            }
            n_tables++;
            CHECK(s.n_steps >= 1 && s.n_steps <= 2 * n[0] + 8 && s.n_past <= KAC_SOLVER_PAST);
            for (int j = 0; j < KAC_SOLVER_PAST; j++) /* a run starts without past */
                if (!CHECK(s.rows[0].next.past[j] == 0))
                    printf("  %s %s with %s\n", name, more, kac_solver_name(s.kind));
            kac_solver_free(&s);
        }
        kac_schedule_free(&schedule);
    }
    printf("%d tables, %d refused\n", n_tables, n_refused);
    CHECK(n_tables > 10000);
}

int main(void) {
    test_recorded_runs();
    test_configs();
    test_options();
    test_learned_variance();
    test_density();
    test_every_combination();
    return check_done();
}
