#include "base/base.h"
#include "base/json.h"
#include "samplers/schedule_betas.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { MAX_TRAIN_STEPS = 100000, MAX_CONFIG_BYTES = 16 << 20 };

/* Keys that a class knows. Others it ignores, as the reference does: files carry keys of the class they came from. */
enum {
    HAS_SPACING = 1,
    HAS_CLIP = 2, /* a class that knows no clip_sample never clips: latents are not bounded by 1 */
    HAS_THRESHOLD = 4,
    HAS_ZERO_SNR = 8,
    HAS_SPREAD = 16, /* karras, exponential, beta sigmas */
    HAS_LU = 32,
    HAS_FLOW = 64,       /* use_flow_sigmas and its shift */
    HAS_FINAL = 128,     /* final_sigmas_type */
    HAS_TYPES = 256,     /* Euler's interpolation_type and timestep_type */
    HAS_ORDER = 512,     /* solver_order, algorithm_type, … */
    HAS_LATENT = 1024,   /* betas from 0.00085 to 0.012 by default instead of 0.0001 to 0.02 */
    HAS_LINSPACE = 2048, /* spacing by default, else leading */
    DPM = HAS_SPREAD | HAS_THRESHOLD | HAS_FLOW | HAS_ORDER | HAS_LINSPACE,
    SIGMA = HAS_SPACING | HAS_LINSPACE,
    DISTILLED = HAS_CLIP | HAS_THRESHOLD | HAS_ZERO_SNR | HAS_LATENT
};

typedef struct class_facts {
    const char *name;
    kac_schedule_class kind;
    int has;
} class_facts;

static const class_facts classes[] = {
    {"DDIMScheduler", KAC_CLASS_DDIM, HAS_SPACING | HAS_CLIP | HAS_THRESHOLD | HAS_ZERO_SNR},
    {"DDPMScheduler", KAC_CLASS_DDPM, HAS_SPACING | HAS_CLIP | HAS_THRESHOLD | HAS_ZERO_SNR},
    {"PNDMScheduler", KAC_CLASS_PNDM, HAS_SPACING},
    {"LMSDiscreteScheduler", KAC_CLASS_LMS, SIGMA | HAS_SPREAD},
    {"EulerDiscreteScheduler", KAC_CLASS_EULER, SIGMA | HAS_SPREAD | HAS_ZERO_SNR | HAS_FINAL | HAS_TYPES},
    {"EulerAncestralDiscreteScheduler", KAC_CLASS_EULER_ANCESTRAL, SIGMA | HAS_ZERO_SNR},
    {"HeunDiscreteScheduler", KAC_CLASS_HEUN, SIGMA | HAS_SPREAD | HAS_CLIP | HAS_LATENT},
    {"KDPM2DiscreteScheduler", KAC_CLASS_KDPM2, SIGMA | HAS_SPREAD | HAS_LATENT},
    {"KDPM2AncestralDiscreteScheduler", KAC_CLASS_KDPM2_ANCESTRAL, SIGMA | HAS_SPREAD | HAS_LATENT},
    {"DPMSolverMultistepScheduler", KAC_CLASS_DPM_MULTISTEP, DPM | HAS_SPACING | HAS_LU | HAS_FINAL | HAS_ZERO_SNR},
    {"DPMSolverSinglestepScheduler", KAC_CLASS_DPM_SINGLESTEP, DPM | HAS_FINAL},
    {"DPMSolverSDEScheduler", KAC_CLASS_DPM_SDE, SIGMA | HAS_SPREAD | HAS_LATENT},
    {"DEISMultistepScheduler", KAC_CLASS_DEIS, DPM | HAS_SPACING},
    {"UniPCMultistepScheduler", KAC_CLASS_UNIPC, DPM | HAS_SPACING | HAS_FINAL | HAS_ZERO_SNR},
    {"LCMScheduler", KAC_CLASS_LCM, DISTILLED},
    {"TCDScheduler", KAC_CLASS_TCD, DISTILLED},
    {"FlowMatchEulerDiscreteScheduler", KAC_CLASS_FLOW_EULER, HAS_SPREAD},
    {"FlowMatchHeunDiscreteScheduler", KAC_CLASS_FLOW_HEUN, 0},
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
                                          {"fixed_large_log", KAC_VARIANCE_LARGE},
                                          {"learned", KAC_VARIANCE_LEARNED},
                                          {"learned_range", KAC_VARIANCE_LEARNED_RANGE},
                                          {NULL, 0}};
static const choice interpolation_choices[] = {{"linear", false}, {"log_linear", true}, {NULL, 0}};
static const choice timestep_choices[] = {{"discrete", false}, {"continuous", true}, {NULL, 0}};
static const choice final_choices[] = {{"zero", false}, {"sigma_min", true}, {NULL, 0}};
static const choice algorithm_choices[] = {
    {"dpmsolver++", 0}, {"sde-dpmsolver++", 1}, {"dpmsolver", 2}, {"sde-dpmsolver", 3}, {"deis", 0}, {NULL, 0}};
enum { SOLVER_OTHER, SOLVER_HEUN, SOLVER_BH1 };
static const choice solver_choices[] = {{"midpoint", SOLVER_OTHER}, {"heun", SOLVER_HEUN}, {"logrho", SOLVER_OTHER},
                                        {"bh1", SOLVER_BH1},        {"bh2", SOLVER_OTHER}, {NULL, 0}};
static const choice shift_choices[] = {{"exponential", false}, {"linear", true}, {NULL, 0}};

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

static kac_status read_class(const kac_json *j, kac_schedule *s, kac_betas *b, int *has) {
    const char *name = NULL;
    KAC_TRY(kac_json_text(j, j->root, "_class_name", &name));
    if (name == NULL)
        return KAC_FAIL(KAC_E_FORMAT, "%s: _class_name is missing; it names the scheduler class", j->name);
    const class_facts *d = NULL;
    for (int i = 0; i < KAC_COUNT_OF(classes); i++)
        if (strcmp(classes[i].name, name) == 0) d = &classes[i];
    if (d == NULL)
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "%s: scheduler class \"%.60s\" is not supported; these are: DDIM, DDPM, PNDM, LMSDiscrete, "
            "EulerDiscrete, EulerAncestralDiscrete, HeunDiscrete, KDPM2Discrete, KDPM2AncestralDiscrete, "
            "DPMSolverMultistep, DPMSolverSinglestep, DPMSolverSDE, DEISMultistep, UniPCMultistep, LCM, TCD, "
            "FlowMatchEulerDiscrete, FlowMatchHeunDiscrete",
            j->name, name);
    memcpy(s->class_name, d->name, strlen(d->name) + 1);
    *has = d->has;
    s->class_kind = d->kind;
    s->spacing = d->has & HAS_LINSPACE ? KAC_SPACING_LINSPACE : KAC_SPACING_LEADING;
    s->set_alpha_to_one = d->kind != KAC_CLASS_PNDM;
    s->clip_sample = d->kind == KAC_CLASS_DDIM || d->kind == KAC_CLASS_DDPM;
    s->lower_order_final = d->kind != KAC_CLASS_DPM_SINGLESTEP;
    b->kind = (d->has & DISTILLED) == DISTILLED ? KAC_BETAS_SCALED_LINEAR : KAC_BETAS_LINEAR;
    b->start = d->has & HAS_LATENT ? 0.00085 : 0.0001;
    b->end = d->has & HAS_LATENT ? 0.012 : 0.02;
    return KAC_OK;
}

static kac_status read_betas(const kac_json *j, kac_schedule *s, kac_betas *b, double *trained, int has) {
    int kind = (int)b->kind, n_trained = -1;
    KAC_TRY(read_choice(j, "beta_schedule", beta_choices, &kind));
    KAC_TRY(read_real(j, "beta_start", 0.0, 1.0, &b->start));
    KAC_TRY(read_real(j, "beta_end", 0.0, 1.0, &b->end));
    if (has & HAS_ZERO_SNR) KAC_TRY(kac_json_bool(j, j->root, "rescale_betas_zero_snr", &s->zero_snr));
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

static kac_status read_clipping(const kac_json *j, kac_schedule *s, int has) {
    if (has & HAS_CLIP) {
        KAC_TRY(kac_json_bool(j, j->root, "clip_sample", &s->clip_sample));
        KAC_TRY(read_real(j, "clip_sample_range", 1e-6, 1e6, &s->clip_sample_range));
    }
    if (has & HAS_THRESHOLD) {
        KAC_TRY(kac_json_bool(j, j->root, "thresholding", &s->thresholding));
        KAC_TRY(read_real(j, "dynamic_thresholding_ratio", 0.0, 1.0, &s->dynamic_thresholding_ratio));
        KAC_TRY(read_real(j, "sample_max_value", 1e-6, 1e6, &s->sample_max_value));
    }
    return KAC_OK;
}

static kac_status read_common(const kac_json *j, kac_schedule *s, int has) {
    int prediction = s->prediction, spacing = s->spacing, variance = s->variance;
    KAC_TRY(read_choice(j, "prediction_type", prediction_choices, &prediction));
    s->prediction = (kac_prediction)prediction;
    if (has & HAS_SPACING) {
        const char *given = NULL;
        KAC_TRY(kac_json_text(j, j->root, "timestep_spacing", &given));
        s->spacing_given = given != NULL;
        KAC_TRY(read_choice(j, "timestep_spacing", spacing_choices, &spacing));
        KAC_TRY(read_int(j, "steps_offset", 0, s->n_train - 1, &s->steps_offset));
    }
    s->spacing = (kac_spacing)spacing;
    KAC_TRY(kac_json_bool(j, j->root, "set_alpha_to_one", &s->set_alpha_to_one));
    KAC_TRY(kac_json_bool(j, j->root, "skip_prk_steps", &s->skip_prk_steps));
    if (s->class_kind == KAC_CLASS_DDPM || s->class_kind == KAC_CLASS_DPM_MULTISTEP ||
        s->class_kind == KAC_CLASS_DPM_SINGLESTEP)
        KAC_TRY(read_choice(j, "variance_type", variance_choices, &variance));
    s->variance = (kac_variance)variance;
    return read_clipping(j, s, has);
}

static kac_status read_sigmas(const kac_json *j, kac_schedule *s, int has) {
    static const struct {
        const char *key;
        kac_sigmas value;
        int has;
    } flags[] = {{"use_karras_sigmas", KAC_SIGMAS_KARRAS, HAS_SPREAD},
                 {"use_exponential_sigmas", KAC_SIGMAS_EXPONENTIAL, HAS_SPREAD},
                 {"use_beta_sigmas", KAC_SIGMAS_BETA, HAS_SPREAD},
                 {"use_lu_lambdas", KAC_SIGMAS_LU, HAS_LU},
                 {"use_flow_sigmas", KAC_SIGMAS_FLOW, HAS_FLOW}};
    for (int i = 0; i < KAC_COUNT_OF(flags); i++) {
        bool on = false;
        if ((has & flags[i].has) != 0) KAC_TRY(kac_json_bool(j, j->root, flags[i].key, &on));
        if (!on) continue;
        if (s->sigmas != KAC_SIGMAS_PLAIN)
            return KAC_FAIL(KAC_E_FORMAT, "%s: %s and another spacing of sigmas are both on; choose one", j->name,
                            flags[i].key);
        s->sigmas = flags[i].value;
    }
    if (has & HAS_SPREAD) {
        KAC_TRY(read_real(j, "sigma_min", 0.0, 1e6, &s->sigma_min));
        KAC_TRY(read_real(j, "sigma_max", 0.0, 1e6, &s->sigma_max));
    }
    if (has & HAS_TYPES) {
        KAC_TRY(read_flag(j, "interpolation_type", interpolation_choices, &s->log_linear));
        KAC_TRY(read_flag(j, "timestep_type", timestep_choices, &s->continuous));
    }
    if (has & HAS_FINAL) KAC_TRY(read_flag(j, "final_sigmas_type", final_choices, &s->final_sigma_min));
    return KAC_OK;
}

static kac_status read_shift(const kac_json *j, kac_schedule *s, const char *shift) {
    KAC_TRY(read_real(j, shift, 1e-6, 1e6, &s->flow_shift));
    KAC_TRY(kac_json_bool(j, j->root, "use_dynamic_shifting", &s->dynamic_shift));
    KAC_TRY(read_flag(j, "time_shift_type", shift_choices, &s->linear_time_shift));
    return read_real(j, "shift_terminal", 0.0, 0.999, &s->shift_terminal);
}

static kac_status read_flow(const kac_json *j, kac_schedule *s) {
    bool inverted = false;
    s->prediction = KAC_PREDICT_FLOW;
    KAC_TRY(read_shift(j, s, "shift"));
    if (s->class_kind == KAC_CLASS_FLOW_HEUN) {
        s->dynamic_shift = false, s->shift_terminal = 0.0;
        return KAC_OK;
    }
    KAC_TRY(read_real(j, "base_shift", -100.0, 100.0, &s->base_shift));
    KAC_TRY(read_real(j, "max_shift", -100.0, 100.0, &s->max_shift));
    KAC_TRY(read_real(j, "base_image_seq_len", 1.0, 1e9, &s->base_seq_len));
    KAC_TRY(read_real(j, "max_image_seq_len", 1.0, 1e9, &s->max_seq_len));
    KAC_TRY(kac_json_bool(j, j->root, "stochastic_sampling", &s->stochastic));
    KAC_TRY(kac_json_bool(j, j->root, "invert_sigmas", &inverted));
    if (inverted) return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: invert_sigmas true is not supported", j->name);
    return KAC_OK;
}

static kac_status read_unipc(const kac_json *j, kac_schedule *s, int solver) {
    bool predict_x0 = true;
    s->bh1 = solver == SOLVER_BH1;
    KAC_TRY(kac_json_bool(j, j->root, "predict_x0", &predict_x0));
    s->predict_noise = !predict_x0;
    const cJSON *disabled = cJSON_GetObjectItemCaseSensitive(j->root, "disable_corrector");
    if (cJSON_IsArray(disabled) && cJSON_GetArraySize(disabled) > 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: disable_corrector is supported as an empty list only", j->name);
    const cJSON *other = cJSON_GetObjectItemCaseSensitive(j->root, "solver_p");
    if (other != NULL && !cJSON_IsNull(other))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: solver_p is supported as null only", j->name);
    return KAC_OK;
}

static kac_status read_order(const kac_json *j, kac_schedule *s) {
    int algorithm = 0, solver = SOLVER_OTHER;
    KAC_TRY(read_int(j, "solver_order", 1, 3, &s->solver_order));
    KAC_TRY(read_choice(j, "solver_type", solver_choices, &solver));
    KAC_TRY(kac_json_bool(j, j->root, "lower_order_final", &s->lower_order_final));
    KAC_TRY(read_shift(j, s, "flow_shift"));
    if (s->class_kind == KAC_CLASS_UNIPC) return read_unipc(j, s, solver);
    s->shift_terminal = 0.0;
    if (s->class_kind == KAC_CLASS_DEIS) return KAC_OK;
    KAC_TRY(read_choice(j, "algorithm_type", algorithm_choices, &algorithm));
    s->heun = solver == SOLVER_HEUN;
    s->sde = (algorithm & 1) != 0;
    s->predict_noise = (algorithm & 2) != 0;
    if (s->class_kind == KAC_CLASS_DPM_MULTISTEP)
        KAC_TRY(kac_json_bool(j, j->root, "euler_at_final", &s->euler_at_final));
    const cJSON *clipped = cJSON_GetObjectItemCaseSensitive(j->root, "lambda_min_clipped");
    if (!cJSON_IsString(clipped) || strcmp(clipped->valuestring, "-inf") != 0)
        KAC_TRY(read_real(j, "lambda_min_clipped", -DBL_MAX, 1e6, &s->lambda_min_clipped));
    if (s->predict_noise && !s->final_sigma_min)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: algorithm_type dpmsolver needs final_sigmas_type \"sigma_min\"",
                        j->name);
    return KAC_OK;
}

static kac_status read_distilled(const kac_json *j, kac_schedule *s) {
    s->original_inference_steps = KAC_MIN(s->original_inference_steps, s->n_train);
    KAC_TRY(read_int(j, "original_inference_steps", 1, s->n_train, &s->original_inference_steps));
    return read_real(j, "timestep_scaling", 0.0, 1e6, &s->timestep_scaling);
}

static kac_status read_all(kac_schedule *s, const kac_json *j) {
    kac_betas betas = {0};
    int has = 0;
    *s = (kac_schedule){.n_train = 1000,
                        .clip_sample_range = 1.0,
                        .dynamic_thresholding_ratio = 0.995,
                        .sample_max_value = 1.0,
                        .solver_order = 2,
                        .lambda_min_clipped = -DBL_MAX,
                        .original_inference_steps = 50,
                        .timestep_scaling = 10.0,
                        .flow_shift = 1.0,
                        .base_shift = 0.5,
                        .max_shift = 1.15,
                        .base_seq_len = 256,
                        .max_seq_len = 4096};
    KAC_TRY(read_class(j, s, &betas, &has));
    KAC_TRY(read_int(j, "num_train_timesteps", 1, MAX_TRAIN_STEPS, &s->n_train));
    KAC_TRY(read_common(j, s, has));
    KAC_TRY(read_sigmas(j, s, has));
    KAC_TRY(read_distilled(j, s));
    if (has & HAS_ORDER) KAC_TRY(read_order(j, s));
    if (s->class_kind == KAC_CLASS_FLOW_EULER || s->class_kind == KAC_CLASS_FLOW_HEUN) return read_flow(j, s);
    double *trained = kac_alloc((size_t)s->n_train * sizeof(double));
    if (trained == NULL) return KAC_E_MEMORY;
    const kac_status status = read_betas(j, s, &betas, trained, has);
    kac_free(trained);
    return status;
}

double kac_schedule_mu(const kac_schedule *s, double n_tokens) {
    const double slope = (s->max_shift - s->base_shift) / fmax(s->max_seq_len - s->base_seq_len, 1.0);
    return s->base_shift + slope * (n_tokens - s->base_seq_len);
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
