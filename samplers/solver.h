/* Solvers: one reverse-time integrator, laid out as a table with one row per step, so that the device work of a step is
 * one network call and one linear combination.
 *
 *     kac_schedule schedule;                                     KAC_TRY(kac_schedule_load(&schedule, path));
 *     kac_solver solver;                                         KAC_TRY(kac_solver_init(&solver, &schedule,
 * &options)); x = solver.init_noise_sigma · z for row in solver.rows: out  = network(row.c_in · x, row.timestep) x0   =
 * row.x0_x · x + row.x0_out · out                 then clipped as solver.clip / solver.threshold say x'   = row.x · x +
 * row.x0 · x0 + row.out · out + row.prev · prev + row.z · z,  z ~ N(0, 1) prev = row.prev_x · x + row.prev_x0 · x0 +
 * row.prev_out · out      only when solver.history
 *
 * Coefficients are doubles. Noise levels, timesteps and rounding are those of the diffusers class that the schedule
 * names. */
#ifndef KAC_SAMPLERS_SOLVER_H
#define KAC_SAMPLERS_SOLVER_H

#include "samplers/schedule.h"

typedef struct kac_solver_row {
    double timestep;                  /* what the network is told; not always an integer */
    double c_in;                      /* scale of the network's input */
    double x0_x, x0_out;              /* x0-hat from the state and the network's output */
    double x, x0, out, prev, z;       /* the next state; z = 0: no noise is drawn in this step */
    double prev_x, prev_x0, prev_out; /* what the next step reads as prev */
    double alpha, sigma;              /* the state is alpha · x_0 + sigma · noise */
} kac_solver_row;

typedef enum kac_solver_kind {
    KAC_SOLVER_AUTO, /* the schedule's own class */
    KAC_SOLVER_DDIM,
    KAC_SOLVER_DDPM,
    KAC_SOLVER_EULER,
    KAC_SOLVER_EULER_ANCESTRAL,
    KAC_SOLVER_DPMPP_2M,
    KAC_SOLVER_DPMPP_2M_SDE
} kac_solver_kind;

/* For --sampling-method; the order is that of the enum without AUTO. */
#define KAC_SOLVER_CHOICES "ddim|ddpm|euler|euler-ancestral|dpm++2m|dpm++2m-sde"

typedef struct kac_solver_options {
    kac_solver_kind kind;
    int n_steps; /* 1 … the schedule's training steps; not read when timesteps are given */
    double eta; /* DDIM: 0 deterministic … 1 ancestral. Euler ancestral: scales the fresh noise. NAN: the method's own
                   (0; 1) */
    const double
        *timesteps; /* own descending timesteps, not with karras and the like; NULL: by the schedule's spacing */
    int n_timesteps;
    int begin; /* first row to keep: 0, or later to start from a partly noised sample; histories start there */
} kac_solver_options;

typedef struct kac_solver {
    kac_solver_kind kind; /* never AUTO */
    int n_steps;
    kac_solver_row *rows;    /* [n_steps] */
    double init_noise_sigma; /* x_K = init_noise_sigma · z */
    double clip;             /* > 0: x0 is clamped to [−clip, clip] */
    double threshold;        /* > 0: dynamic thresholding: q = this quantile of |x0| of one sample, clamped to [1,
                                threshold_max]; */
    double threshold_max;    /*      x0 = clamp(x0, −q, q) / q. Then clip is 0. */
    bool stochastic;         /* some row draws noise */
    bool history;            /* some row reads prev */
} kac_solver;

/* "euler-ancestral" for the enum value; AUTO: "auto". */
const char *kac_solver_name(kac_solver_kind kind);
/* AUTO when there is none of that name. "euler_a" and the like, as other tools write them, are understood. */
kac_solver_kind kac_solver_find(const char *name);

/* Fills the table; kac_solver_free frees it. KAC_E_USAGE: steps, eta or timesteps that this class cannot take.
 * KAC_E_UNSUPPORTED: a combination without a meaning, e.g. noise prediction from pure noise. */
kac_status kac_solver_init(kac_solver *s, const kac_schedule *schedule, const kac_solver_options *options);
void kac_solver_free(kac_solver *s);

/* x0 of one sample of n elements clipped in place as the solver says; scratch: n floats (NULL allowed without
 * thresholding). The host version of the step between x0 and x'. */
void kac_solver_clip(const kac_solver *s, float *x0, int64_t n, float *scratch);

#endif
