#include "base/base.h"
#include "base/json.h"
#include "samplers/schedule_betas.h"
#include <float.h>
#include <string.h>

enum { MAX_TRAIN_STEPS = 100000, MAX_CONFIG_BYTES = 16 << 20 };

/* Defaults that differ between classes. A class that knows no clip_sample never clips: latents are not bounded by 1. */
typedef struct class_defaults {
    const char *name;
    kac_schedule_class kind;
    kac_spacing spacing;
    bool set_alpha_to_one, clip_sample;
    bool latent_betas; /* 0.00085 … 0.012 instead of 0.0001 … 0.02 */
} class_defaults;

static const class_defaults classes[] = {
    {"DDIMScheduler", KAC_CLASS_DDIM, KAC_SPACING_LEADING, true, true, false},
    {"DDPMScheduler", KAC_CLASS_DDPM, KAC_SPACING_LEADING, true, true, false},
    {"EulerDiscreteScheduler", KAC_CLASS_EULER, KAC_SPACING_LINSPACE, true, false, false},
    {"EulerAncestralDiscreteScheduler", KAC_CLASS_EULER_ANCESTRAL, KAC_SPACING_LINSPACE, true, false, false},
    {"DPMSolverMultistepScheduler", KAC_CLASS_DPM_MULTISTEP, KAC_SPACING_LINSPACE, true, false, false},
    {"PNDMScheduler", KAC_CLASS_OTHER, KAC_SPACING_LEADING, false, false, false},
    {"LMSDiscreteScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, false},
    {"HeunDiscreteScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, true},
    {"KDPM2DiscreteScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, true},
    {"KDPM2AncestralDiscreteScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, true},
    {"DPMSolverSinglestepScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, false},
    {"DPMSolverSDEScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, true},
    {"DEISMultistepScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, false},
    {"UniPCMultistepScheduler", KAC_CLASS_OTHER, KAC_SPACING_LINSPACE, true, false, false},
};

typedef struct choice {
    const char *name;
    int value;
} choice;

static const choice prediction_choices[] = {
    {"epsilon", KAC_PREDICT_EPSILON},        {"sample", KAC_PREDICT_SAMPLE},        {"v_prediction", KAC_PREDICT_V},
    {"original_sample", KAC_PREDICT_SAMPLE}, {"flow_prediction", KAC_PREDICT_FLOW}, {NULL, 0}};
static const choice spacing_choices[] = {{"leading", KAC_SPACING_LEADING},
                                         {"trailing", KAC_SPACING_TRAILING},
                                         {"linspace", KAC_SPACING_LINSPACE},
                                         {NULL, 0}};
static const choice beta_choices[] = {{"linear", KAC_BETAS_LINEAR},
                                      {"scaled_linear", KAC_BETAS_SCALED_LINEAR},
                                      {"squaredcos_cap_v2", KAC_BETAS_COSINE},
                                      {"sigmoid", KAC_BETAS_SIGMOID},
                                      {"laplace", KAC_BETAS_LAPLACE},
                                      {NULL, 0}};
static const choice variance_choices[] = {{"fixed_small", KAC_VARIANCE_SMALL},
                                          {"fixed_small_log", KAC_VARIANCE_SMALL_LOG},
                                          {"fixed_large", KAC_VARIANCE_LARGE},
                                          {NULL, 0}};
static const choice interpolation_choices[] = {{"linear", false}, {"log_linear", true}, {NULL, 0}};
static const choice timestep_choices[] = {{"discrete", false}, {"continuous", true}, {NULL, 0}};
static const choice final_choices[] = {{"zero", false}, {"sigma_min", true}, {NULL, 0}};
static const choice algorithm_choices[] = {
    {"dpmsolver++", 0}, {"sde-dpmsolver++", 1}, {"dpmsolver", 2}, {"sde-dpmsolver", 3}, {"deis", 0}, {NULL, 0}};
static const choice solver_choices[] = {{"midpoint", false}, {"heun", true}, {"logrho", false},
                                        {"bh1", false},      {"bh2", false}, {NULL, 0}};

/* Leaves *out alone when the key is missing. */
static kac_status read_choice(const kac_json *j, const char *key, const choice *choices, int *out) {
    const char *text = NULL;
    KAC_TRY(kac_json_text(j, j->root, key, &text));
    if (text == NULL) return KAC_OK;
    kac_text all = {0};
    for (const choice *c = choices; c->name != NULL; c++) {
        if (strcmp(c->name, text) == 0) {
            *out = c->value;
            kac_text_free(&all);
            return KAC_OK;
        }
        kac_text_add(&all, "%s%s", c == choices ? "" : ", ", c->name);
    }
    KAC_FAIL(KAC_E_UNSUPPORTED, "%s: %s \"%.60s\" is not supported; these are: %s", j->name, key, text, all.s);
    kac_text_free(&all);
    return KAC_E_UNSUPPORTED;
}

static kac_status read_flag(const kac_json *j, const char *key, const choice *choices, bool *out) {
    int value = *out;
    KAC_TRY(read_choice(j, key, choices, &value));
    *out = value != 0;
    return KAC_OK;
}

static kac_status read_int(const kac_json *j, const char *key, int min, int max, int *out) {
    int64_t value = *out;
    KAC_TRY(kac_json_int(j, j->root, key, &value));
    if (value < min || value > max)
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s is %lld; it must lie between %d and %d", j->name, key, (long long)value,
                        min, max);
    *out = (int)value;
    return KAC_OK;
}

static kac_status read_real(const kac_json *j, const char *key, double min, double max, double *out) {
    double value = *out;
    KAC_TRY(kac_json_real(j, j->root, key, &value));
    if (!(value >= min && value <= max))
        return KAC_FAIL(KAC_E_FORMAT, "%s: %s is %g; it must lie between %g and %g", j->name, key, value, min, max);
    *out = value;
    return KAC_OK;
}

static kac_status read_class(const kac_json *j, kac_schedule *s, kac_betas *b) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "_class_name", &name));
    if (name == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: _class_name is missing; it names the scheduler class", j->name);
    const class_defaults *d = NULL;
    for (int i = 0; i < KAC_COUNT_OF(classes); i++)
        if (strcmp(classes[i].name, name) == 0) d = &classes[i];
    if (d == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "%s: scheduler class \"%.60s\" is not supported; these are: DDIM, DDPM, EulerDiscrete, "
                        "EulerAncestralDiscrete, DPMSolverMultistep, and as noise schedules PNDM, LMS, Heun, KDPM2, "
                        "DPMSolverSinglestep, DPMSolverSDE, DEIS, UniPC",
                        j->name, name);
    memcpy(s->class_name, d->name, strlen(d->name) + 1);
    s->class_kind = d->kind;
    s->spacing = d->spacing;
    s->set_alpha_to_one = d->set_alpha_to_one;
    s->clip_sample = d->clip_sample;
    b->kind = KAC_BETAS_LINEAR;
    b->start = d->latent_betas ? 0.00085 : 0.0001;
    b->end = d->latent_betas ? 0.012 : 0.02;
    return KAC_OK;
}

static kac_status read_betas(const kac_json *j, kac_schedule *s, kac_betas *b, double *trained) {
    int kind = (int)b->kind, n_trained = -1;
    KAC_TRY(read_choice(j, "beta_schedule", beta_choices, &kind));
    KAC_TRY(read_real(j, "beta_start", 0.0, 1.0, &b->start));
    KAC_TRY(read_real(j, "beta_end", 0.0, 1.0, &b->end));
    KAC_TRY(kac_json_bool(j, j->root, "rescale_betas_zero_snr", &s->zero_snr));
    s->cosine = kind == KAC_BETAS_COSINE;
    KAC_TRY(kac_json_reals(j, j->root, "trained_betas", trained, s->n_train, &n_trained));
    if (n_trained >= 0) {
        if (n_trained != s->n_train)
            return KAC_FAIL(KAC_E_FORMAT, "%s: trained_betas has %d values, num_train_timesteps is %d", j->name,
                            n_trained, s->n_train);
        kind = KAC_BETAS_TRAINED;
        b->trained = trained;
    }
    b->kind = (kac_betas_kind)kind;
    return kac_schedule_betas(s, b) == KAC_OK ? KAC_OK : kac_fail_prefix(KAC_E_FORMAT, "%s", j->name);
}

static kac_status read_common(const kac_json *j, kac_schedule *s) {
    int prediction = s->prediction, spacing = s->spacing;
    KAC_TRY(read_choice(j, "prediction_type", prediction_choices, &prediction));
    KAC_TRY(read_choice(j, "timestep_spacing", spacing_choices, &spacing));
    s->prediction = (kac_prediction)prediction;
    s->spacing = (kac_spacing)spacing;
    KAC_TRY(read_int(j, "steps_offset", 0, s->n_train - 1, &s->steps_offset));
    KAC_TRY(kac_json_bool(j, j->root, "set_alpha_to_one", &s->set_alpha_to_one));
    KAC_TRY(kac_json_bool(j, j->root, "clip_sample", &s->clip_sample));
    KAC_TRY(read_real(j, "clip_sample_range", 1e-6, 1e6, &s->clip_sample_range));
    KAC_TRY(kac_json_bool(j, j->root, "thresholding", &s->thresholding));
    KAC_TRY(read_real(j, "dynamic_thresholding_ratio", 0.0, 1.0, &s->dynamic_thresholding_ratio));
    KAC_TRY(read_real(j, "sample_max_value", 1e-6, 1e6, &s->sample_max_value));
    int variance = s->variance;
    KAC_TRY(read_choice(j, "variance_type", variance_choices, &variance));
    s->variance = (kac_variance)variance;
    return KAC_OK;
}

static kac_status read_sigmas(const kac_json *j, kac_schedule *s) {
    static const struct {
        const char *key;
        kac_sigmas value;
    } flags[] = {{"use_karras_sigmas", KAC_SIGMAS_KARRAS},
                 {"use_exponential_sigmas", KAC_SIGMAS_EXPONENTIAL},
                 {"use_beta_sigmas", KAC_SIGMAS_BETA},
                 {"use_lu_lambdas", KAC_SIGMAS_LU},
                 {"use_flow_sigmas", KAC_SIGMAS_FLOW}};
    for (int i = 0; i < KAC_COUNT_OF(flags); i++) {
        bool on = false;
        KAC_TRY(kac_json_bool(j, j->root, flags[i].key, &on));
        if (!on) continue;
        if (s->sigmas != KAC_SIGMAS_PLAIN)
            return KAC_FAIL(KAC_E_FORMAT, "%s: %s and another spacing of sigmas are both on; choose one", j->name,
                            flags[i].key);
        s->sigmas = flags[i].value;
    }
    KAC_TRY(read_real(j, "sigma_min", 0.0, 1e6, &s->sigma_min));
    KAC_TRY(read_real(j, "sigma_max", 0.0, 1e6, &s->sigma_max));
    KAC_TRY(read_flag(j, "interpolation_type", interpolation_choices, &s->log_linear));
    KAC_TRY(read_flag(j, "timestep_type", timestep_choices, &s->continuous));
    KAC_TRY(read_flag(j, "final_sigmas_type", final_choices, &s->final_sigma_min));
    return KAC_OK;
}

static kac_status read_dpm(const kac_json *j, kac_schedule *s) {
    int algorithm = 0;
    KAC_TRY(read_choice(j, "algorithm_type", algorithm_choices, &algorithm));
    s->sde = (algorithm & 1) != 0;
    s->predict_noise = (algorithm & 2) != 0;
    KAC_TRY(read_flag(j, "solver_type", solver_choices, &s->heun));
    KAC_TRY(kac_json_bool(j, j->root, "lower_order_final", &s->lower_order_final));
    KAC_TRY(kac_json_bool(j, j->root, "euler_at_final", &s->euler_at_final));
    const cJSON *clipped = cJSON_GetObjectItemCaseSensitive(j->root, "lambda_min_clipped");
    if (!cJSON_IsString(clipped) || strcmp(clipped->valuestring, "-inf") != 0)
        KAC_TRY(read_real(j, "lambda_min_clipped", -DBL_MAX, 1e6, &s->lambda_min_clipped));
    KAC_TRY(read_real(j, "flow_shift", 1e-6, 1e6, &s->flow_shift));
    bool dynamic = false;
    KAC_TRY(kac_json_bool(j, j->root, "use_dynamic_shifting", &dynamic));
    if (dynamic) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: use_dynamic_shifting is not supported", j->name);
    KAC_TRY(read_int(j, "solver_order", 1, 3, &s->solver_order));
    if (s->solver_order > 2)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: solver_order 3 is not supported; set it to 2 or 1", j->name);
    if (s->predict_noise && !s->final_sigma_min)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: algorithm_type dpmsolver needs final_sigmas_type \"sigma_min\"",
                        j->name);
    return KAC_OK;
}

static kac_status read_all(kac_schedule *s, const kac_json *j) {
    kac_betas betas = {0};
    *s = (kac_schedule){.n_train = 1000,
                        .clip_sample_range = 1.0,
                        .dynamic_thresholding_ratio = 0.995,
                        .sample_max_value = 1.0,
                        .solver_order = 2,
                        .lower_order_final = true,
                        .lambda_min_clipped = -DBL_MAX,
                        .flow_shift = 1.0};
    KAC_TRY(read_class(j, s, &betas));
    KAC_TRY(read_int(j, "num_train_timesteps", 1, MAX_TRAIN_STEPS, &s->n_train));
    KAC_TRY(read_common(j, s));
    KAC_TRY(read_sigmas(j, s));
    if (s->class_kind == KAC_CLASS_DPM_MULTISTEP) KAC_TRY(read_dpm(j, s));
    double *trained = kac_alloc((size_t)s->n_train * sizeof(double));
    if (trained == NULL) return KAC_E_MEMORY;
    const kac_status status = read_betas(j, s, &betas, trained);
    kac_free(trained);
    return status;
}

/* Python writes -Infinity (lambda_min_clipped has it by default), which is no JSON: the longest number that fits stands
 * for it. */
static void replace_infinity(char *text, size_t n) {
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\' && quoted) {
            i++;
        } else if (text[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && n - i >= 9 && memcmp(text + i, "-Infinity", 9) == 0) {
            memcpy(text + i, "-1.7e308 ", 9);
        }
    }
}

kac_status kac_schedule_parse(kac_schedule *s, const char *text, size_t n, const char *name) {
    memset(s, 0, sizeof *s);
    char *copy = kac_alloc(n + 1);
    if (copy == NULL) return KAC_E_MEMORY;
    memcpy(copy, text, n);
    replace_infinity(copy, n);
    kac_json j = {0};
    kac_status status = kac_json_parse(&j, copy, n, name);
    if (status == KAC_OK) {
        status = read_all(s, &j);
        kac_json_free(&j);
    }
    if (status != KAC_OK) kac_schedule_free(s);
    kac_free(copy);
    return status;
}

kac_status kac_schedule_load(kac_schedule *s, const char *path) {
    char *text = NULL;
    size_t n = 0;
    memset(s, 0, sizeof *s);
    KAC_TRY(kac_file_read(&text, &n, path, MAX_CONFIG_BYTES));
    const kac_status status = kac_schedule_parse(s, text, n, path);
    kac_free(text);
    return status;
}
