/* Solvers: one reverse-time integrator, laid out as a table with one row per network call, so that the device work of a
 * row is that call and a few linear combinations.
 *
 *     kac_schedule schedule;
 *     KAC_TRY(kac_schedule_load(&schedule, path));
 *     kac_solver solver;
 *     KAC_TRY(kac_solver_init(&solver, &schedule, &options));
 *     x = solver.init_noise_sigma · z
 *     for row in solver.rows:
 *         out = network(row.c_in · x, row.timestep)
 *         x0  = row.x0_x · x + row.x0_out · out          then clipped as solver.clip / solver.threshold say
 *         x, past[] = row.next(x, x0, out, past) + row.z · z,  row.past[](x, x0, out, past)          z ~ N(0, 1)
 *
 * next and past[] are linear (kac_sum); past[] is what later rows still need of earlier ones: outputs of a multistep
 * method, the state and slopes of a step that takes several network calls. It belongs to the state, so whoever copies
 * a state copies it too. Methods of several calls a step (heun, dpm2, dpm++2s, the start of pndm) have one row per call;
 * n_steps counts rows.
 *
 * Coefficients are doubles. Noise levels, timesteps and rounding are those of the diffusers class that the schedule
 * names. */
#ifndef KAC_SAMPLERS_SOLVER_H
#define KAC_SAMPLERS_SOLVER_H

#include "samplers/schedule.h"

enum { KAC_SOLVER_PAST = 5 };

/* x · state + x0 · x0-hat + out · network output + past[j] · past[j] */
typedef struct kac_sum {
    double x, x0, out, past[KAC_SOLVER_PAST];
} kac_sum;

typedef struct kac_solver_row {
    double timestep;               /* what the network is told; not always an integer */
    double c_in;                   /* scale of the network's input */
    double x0_x, x0_out;           /* x0-hat from the state and the network's output */
    kac_sum next;                  /* the next state */
    double z;                      /* of fresh noise in it; 0: none is drawn */
    double log_min, log_max;       /* with solver.learned: z is not read, see there */
    kac_sum past[KAC_SOLVER_PAST]; /* what the next row reads as past[j] */
    double alpha, sigma;           /* the state is alpha · x_0 + sigma · noise */
} kac_solver_row;

typedef enum kac_solver_kind {
    KAC_SOLVER_AUTO, /* the schedule's own class */
    KAC_SOLVER_DDIM,
    KAC_SOLVER_DDPM,
    KAC_SOLVER_PNDM,
    KAC_SOLVER_LMS,
    KAC_SOLVER_EULER,
    KAC_SOLVER_EULER_ANCESTRAL,
    KAC_SOLVER_HEUN,
    KAC_SOLVER_DPM2, /* KDPM2 */
    KAC_SOLVER_DPM2_ANCESTRAL,
    KAC_SOLVER_DPMPP_2M, /* DPM-Solver multistep, orders 1 to 3 */
    KAC_SOLVER_DPMPP_2M_SDE,
    KAC_SOLVER_DPMPP_2S, /* DPM-Solver singlestep, orders 1 to 3 */
    KAC_SOLVER_DPMPP_2S_SDE,
    KAC_SOLVER_DEIS,
    KAC_SOLVER_UNIPC,
    KAC_SOLVER_LCM,
    KAC_SOLVER_TCD,
    KAC_SOLVER_FLOW_EULER,
    KAC_SOLVER_FLOW_EULER_SDE, /* FlowMatchEuler with stochastic_sampling */
    KAC_SOLVER_FLOW_HEUN
} kac_solver_kind;

/* For --sampling-method; the order is that of the enum without AUTO. */
#define KAC_SOLVER_CHOICES                                                                                             \
    "ddim|ddpm|pndm|lms|euler|euler-ancestral|heun|dpm2|dpm2-ancestral|dpm++2m|dpm++2m-sde|dpm++2s|dpm++2s-sde|deis|"  \
    "unipc|lcm|tcd|flow-euler|flow-euler-sde|flow-heun"

typedef struct kac_solver_options {
    kac_solver_kind kind;
    int n_steps; /* 1 … the schedule's training steps; not read when timesteps or sigmas are given */
    double eta;  /* DDIM: 0 deterministic … 1 ancestral. Euler and DPM2 ancestral: scales the fresh noise. TCD: its
                    gamma. NAN: the method's own (0; 1; 0.3) */
    const double *timesteps; /* own descending timesteps, not with karras and the like; NULL: by the spacing */
    int n_timesteps;
    const double *sigmas; /* flow solvers: own falling noise levels in (0, 1], before the schedule's shift */
    int n_sigmas;
    double mu; /* of a schedule with dynamic_shift: kac_schedule_mu of the picture's size */
    int begin; /* first step to keep: 0, or later to start from a partly noised sample; histories start there */
    double
        strength; /* lcm, tcd: the steps are spread over this share of the distillation's, from its clean end; 0: over all */
} kac_solver_options;

typedef struct kac_solver {
    kac_solver_kind kind;    /* never AUTO */
    int n_steps;             /* rows */
    int n_asked;             /* steps as a user counts them, those before `begin` included */
    kac_solver_row *rows;    /* [n_steps] */
    int n_past;              /* past[] in use */
    double init_noise_sigma; /* x_K = init_noise_sigma · z */
    double clip;             /* > 0: x0 is clamped to [−clip, clip] */
    double threshold;        /* > 0: dynamic thresholding: q = this quantile of |x0| of one sample, clamped to [1,
                                threshold_max]; x0 = clamp(x0, −q, q) / q. Then clip is 0. */
    double threshold_max;
    kac_variance learned; /* LEARNED, LEARNED_RANGE: the network's second half v is the noise's variance where z ≠ 0:
                             v, or exp of (1 + v) / 2 of the way from row.log_min to row.log_max. Else SMALL. */
    bool stochastic;      /* some row draws noise */
    bool density;         /* every step but the last draws Gaussian noise, so that x' has a density given x (and past):
                             copies of a state part at once. False for what is deterministic at these settings. */
} kac_solver;

/* "euler-ancestral" for the enum value; AUTO: "auto". */
const char *kac_solver_name(kac_solver_kind kind);
/* AUTO when there is none of that name. "euler_a" and the like, as other tools write them, are understood. */
kac_solver_kind kac_solver_find(const char *name);
/* The solver of the schedule's class. */
kac_solver_kind kac_solver_own(const kac_schedule *schedule);
/* The one with a transition density that is nearest to it: itself, or its stochastic sibling on the same noise levels
 * (ddim is meant with an eta above 0). */
kac_solver_kind kac_solver_noisy(const kac_schedule *schedule);
/* KAC_E_USAGE with the reason and the alternatives when the solver has no transition density; `who` needs it. */
kac_status kac_solver_need_density(const kac_solver *s, const char *who);

/* Fills the table; kac_solver_free frees it. KAC_E_USAGE: steps, eta or timesteps that this class cannot take.
 * KAC_E_UNSUPPORTED: a combination without a meaning, e.g. noise prediction from pure noise. */
kac_status kac_solver_init(kac_solver *s, const kac_schedule *schedule, const kac_solver_options *options);
void kac_solver_free(kac_solver *s);

/* x0 of one sample of n elements clipped in place as the solver says; scratch: n floats (NULL allowed without
 * thresholding). The host version of the step between x0 and x'. */
void kac_solver_clip(const kac_solver *s, float *x0, int64_t n, float *scratch);

/* The host version of a row after the network: x [n] and past [n_past, n] are replaced. z [n] or NULL when the row draws
 * none; variance [n]: the network's second half, only with solver.learned. */
void kac_solver_step(const kac_solver *s, const kac_solver_row *row, float *x, const float *x0, const float *out,
                     float *past, const float *z, const float *variance, int64_t n);
/* The standard deviation of a learned variance. */
double kac_solver_learned_deviation(const kac_solver *s, const kac_solver_row *row, double v);

#endif
