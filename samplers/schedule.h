/* Noise schedules: what a diffusers scheduler_config.json says, with the class's own defaults for missing keys.
 *
 * alphas_cumprod are the reference's numbers, its float32 roundings included: a network was trained with these.
 * Everything computed from them is in double. */
#ifndef KAC_SAMPLERS_SCHEDULE_H
#define KAC_SAMPLERS_SCHEDULE_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kac_prediction {
    KAC_PREDICT_EPSILON, /* out = noise */
    KAC_PREDICT_SAMPLE,  /* out = x_0 */
    KAC_PREDICT_V,       /* out = alpha · noise − sigma · x_0 */
    KAC_PREDICT_FLOW     /* out = noise − x_0 */
} kac_prediction;

typedef enum kac_spacing { KAC_SPACING_LEADING, KAC_SPACING_TRAILING, KAC_SPACING_LINSPACE } kac_spacing;

/* How noise levels are spread over the steps. */
typedef enum kac_sigmas {
    KAC_SIGMAS_PLAIN, /* by timestep */
    KAC_SIGMAS_KARRAS,
    KAC_SIGMAS_EXPONENTIAL,
    KAC_SIGMAS_BETA,
    KAC_SIGMAS_LU,
    KAC_SIGMAS_FLOW
} kac_sigmas;

/* The diffusers classes. */
typedef enum kac_schedule_class {
    KAC_CLASS_DDIM,
    KAC_CLASS_DDPM,
    KAC_CLASS_PNDM,
    KAC_CLASS_LMS,
    KAC_CLASS_EULER,
    KAC_CLASS_EULER_ANCESTRAL,
    KAC_CLASS_HEUN,
    KAC_CLASS_KDPM2,
    KAC_CLASS_KDPM2_ANCESTRAL,
    KAC_CLASS_DPM_MULTISTEP,
    KAC_CLASS_DPM_SINGLESTEP,
    KAC_CLASS_DPM_SDE, /* its schedule is used; its solver, on Brownian paths, is replaced by dpm++2m-sde */
    KAC_CLASS_DEIS,
    KAC_CLASS_UNIPC,
    KAC_CLASS_LCM,
    KAC_CLASS_TCD,
    KAC_CLASS_FLOW_EULER,
    KAC_CLASS_FLOW_HEUN
} kac_schedule_class;

typedef enum kac_variance {
    KAC_VARIANCE_SMALL,
    KAC_VARIANCE_SMALL_LOG,
    KAC_VARIANCE_LARGE,
    KAC_VARIANCE_LEARNED,      /* by the second half of the network's output */
    KAC_VARIANCE_LEARNED_RANGE /* the same, between SMALL and LARGE */
} kac_variance;

typedef struct kac_schedule {
    char class_name[64]; /* as in the file */
    kac_schedule_class class_kind;
    int n_train;            /* training timesteps */
    double *alphas_cumprod; /* [n_train], owned; falls with the timestep */
    bool zero_snr;          /* betas were rescaled: alphas_cumprod[n_train − 1] = 0 */
    bool cosine;            /* squaredcos_cap_v2: timesteps of karras sigmas stay unrounded */

    kac_prediction prediction;
    kac_spacing spacing;
    bool spacing_given; /* else it is the class's own */
    int steps_offset;
    bool set_alpha_to_one; /* DDIM, PNDM: alpha-bar after the last step is 1, else alphas_cumprod[0] */
    bool clip_sample;      /* x0 clamped to ± clip_sample_range */
    double clip_sample_range;
    bool thresholding;
    double dynamic_thresholding_ratio, sample_max_value;
    kac_variance variance; /* DDPM; of DPM-Solver that the network's second half is not read */

    kac_sigmas sigmas;
    double sigma_min, sigma_max; /* 0: from the schedule */
    bool log_linear;             /* Euler: sigmas interpolated in the log domain */
    bool continuous;             /* Euler with v-prediction: the network is told log(sigma) / 4 */
    bool final_sigma_min;        /* the last sigma is that of timestep 0, not 0 */

    int solver_order;   /* DPM-Solver, DEIS, UniPC: 1 to 3 */
    bool predict_noise; /* DPM-Solver: "dpmsolver" (noise) instead of "dpmsolver++" (data); UniPC: not predict_x0 */
    bool sde;           /* DPM-Solver: algorithm_type sde-… */
    bool heun;          /* DPM-Solver: solver_type heun instead of midpoint */
    bool bh1;           /* UniPC: solver_type bh1 instead of bh2 */
    bool lower_order_final, euler_at_final;
    double lambda_min_clipped;
    bool skip_prk_steps;          /* PNDM: no Runge–Kutta start */
    int original_inference_steps; /* LCM, TCD: steps that the model was distilled at */
    double timestep_scaling;      /* LCM */

    double flow_shift;  /* flow sigmas: s' = shift s / (1 + (shift − 1) s) */
    bool dynamic_shift; /* or with exp(mu) (linear: mu) for the shift, mu by the picture's size */
    bool linear_time_shift;
    double base_shift, max_shift, base_seq_len, max_seq_len;
    double shift_terminal; /* > 0: levels stretched so that the last before 0 is this */
    bool stochastic;       /* FlowMatchEuler: stochastic_sampling */
} kac_schedule;

/* Reads scheduler_config.json. KAC_E_IO, KAC_E_FORMAT; KAC_E_UNSUPPORTED names the key, its value and what is
 * supported. */
kac_status kac_schedule_load(kac_schedule *s, const char *path);
/* The same from text; `name` is for messages. */
kac_status kac_schedule_parse(kac_schedule *s, const char *text, size_t n, const char *name);
void kac_schedule_free(kac_schedule *s);

/* mu of a dynamic shift for a picture of n_tokens tokens: linear from base_shift to max_shift. */
double kac_schedule_mu(const kac_schedule *s, double n_tokens);

#endif
