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

typedef enum kac_sigmas {                   /* how noise levels are spread over the steps */
                          KAC_SIGMAS_PLAIN, /* by timestep */
                          KAC_SIGMAS_KARRAS,
                          KAC_SIGMAS_EXPONENTIAL,
                          KAC_SIGMAS_BETA,
                          KAC_SIGMAS_LU,
                          KAC_SIGMAS_FLOW
} kac_sigmas;

/* The classes whose solvers exist here, and everything else that is only a schedule. */
typedef enum kac_schedule_class {
    KAC_CLASS_DDIM,
    KAC_CLASS_DDPM,
    KAC_CLASS_EULER,
    KAC_CLASS_EULER_ANCESTRAL,
    KAC_CLASS_DPM_MULTISTEP,
    KAC_CLASS_OTHER /* PNDM, LMS, …: its schedule is used, its solver is replaced by ddim */
} kac_schedule_class;

typedef enum kac_variance { KAC_VARIANCE_SMALL, KAC_VARIANCE_SMALL_LOG, KAC_VARIANCE_LARGE } kac_variance;

typedef struct kac_schedule {
    char class_name[64]; /* as in the file */
    kac_schedule_class class_kind;
    int n_train;            /* training timesteps */
    double *alphas_cumprod; /* [n_train], owned; falls with the timestep */
    bool zero_snr;          /* betas were rescaled: alphas_cumprod[n_train − 1] = 0 */
    bool cosine;            /* squaredcos_cap_v2: timesteps of karras sigmas stay unrounded */

    kac_prediction prediction;
    kac_spacing spacing;
    int steps_offset;
    bool set_alpha_to_one; /* DDIM: alpha-bar after the last step is 1, else alphas_cumprod[0] */
    bool clip_sample;      /* DDIM, DDPM: x0 clamped to ± clip_sample_range */
    double clip_sample_range;
    bool thresholding;
    double dynamic_thresholding_ratio, sample_max_value;
    kac_variance variance; /* DDPM */

    kac_sigmas sigmas;
    double sigma_min, sigma_max; /* 0: from the schedule */
    bool log_linear;             /* Euler: sigmas interpolated in the log domain */
    bool continuous;             /* Euler with v-prediction: the network is told log(sigma) / 4 */
    bool final_sigma_min;        /* the last sigma is that of timestep 0, not 0 */

    int solver_order;   /* DPM-Solver: 1 or 2 */
    bool predict_noise; /* DPM-Solver: "dpmsolver" (noise) instead of "dpmsolver++" (data) */
    bool sde;           /* DPM-Solver: algorithm_type sde-… */
    bool heun;          /* DPM-Solver: solver_type heun instead of midpoint */
    bool lower_order_final, euler_at_final;
    double lambda_min_clipped, flow_shift;
} kac_schedule;

/* Reads scheduler_config.json. KAC_E_IO, KAC_E_FORMAT; KAC_E_UNSUPPORTED names the key, its value and what is
 * supported. */
kac_status kac_schedule_load(kac_schedule *s, const char *path);
/* The same from text; `name` is for messages. */
kac_status kac_schedule_parse(kac_schedule *s, const char *text, size_t n, const char *name);
void kac_schedule_free(kac_schedule *s);

#endif
