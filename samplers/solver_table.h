/* What the solver families share; between solver.c and solver_*.c only. */
#ifndef KAC_SAMPLERS_SOLVER_TABLE_H
#define KAC_SAMPLERS_SOLVER_TABLE_H

#include "samplers/solver.h"

/* Noise levels and timesteps before they become rows: n steps, n + 1 levels. */
typedef struct kac_levels {
    int n;
    double *timestep; /* [n] */
    bool own;         /* timesteps given by the caller that are not the schedule's */
    double *sigma;    /* [n + 1] sigma/alpha of each state (flow: sigma); only for the sigma solvers */
} kac_levels;

/* sigma / alpha of training timestep t; zero-SNR schedules get the smallest positive alpha-bar that the reference gives
 * them. */
double kac_ratio_at(const kac_schedule *sch, int t);
/* The training timestep, between two whole ones, that has this sigma: linear in log sigma. */
double kac_timestep_of(const kac_schedule *sch, double sigma);
/* n sigmas by karras, exponential, … between two: ramp runs from 0 to 1. */
double kac_sigma_spread(kac_sigmas kind, double ramp, double low, double high);

/* Integer timesteps of DDIM and DDPM by the schedule's spacing (also Euler's, which are not rounded for linspace). */
void kac_levels_by_spacing(kac_levels *l, const kac_schedule *sch, bool rounded);
/* DPM-Solver's own: one step more than asked, the last left out, and the noisiest ones cut where lambda is clipped. */
void kac_levels_dpm(kac_levels *l, const kac_schedule *sch);
/* A subset of the steps that a consistency model was distilled at. */
kac_status kac_levels_distilled(kac_levels *l, const kac_schedule *sch, double strength);
/* sigma[] from the timesteps, or by karras, … , which then also set the timesteps. */
kac_status kac_levels_sigmas_euler(kac_levels *l, const kac_schedule *sch, kac_solver_kind kind);
kac_status kac_levels_sigmas_dpm(kac_levels *l, const kac_schedule *sch, kac_solver_kind kind, double mu);
/* Both of FlowMatchEuler and FlowMatchHeun. */
kac_status kac_levels_flow(kac_levels *l, const kac_schedule *sch, const kac_solver_options *o, kac_solver_kind kind);

/* Rows under construction. The reference keeps outputs and states between its steps; a family goes through them in
 * order, says what each step makes of (state, x0-hat, output, past) and what it keeps. */
typedef struct kac_build {
    kac_solver *s;
    const kac_schedule *sch;
    const kac_levels *l;
    int first; /* step at which the run starts: there is no history before it */
    double eta;
} kac_build;

/* The rows of one family. */
kac_status kac_rows_ddim(kac_build *b);
kac_status kac_rows_ddpm(kac_build *b);
kac_status kac_rows_pndm(kac_build *b);
kac_status kac_rows_lcm(kac_build *b);
kac_status kac_rows_tcd(kac_build *b);
kac_status kac_rows_lms(kac_build *b);
kac_status kac_rows_euler(kac_build *b);
kac_status kac_rows_heun(kac_build *b);
kac_status kac_rows_dpm2(kac_build *b);
kac_status kac_rows_dpm(kac_build *b);
kac_status kac_rows_dpm_single(kac_build *b);
kac_status kac_rows_deis(kac_build *b);
kac_status kac_rows_unipc(kac_build *b);
kac_status kac_rows_flow(kac_build *b);

/* Rows that n steps can need at most. */
int kac_rows_room(int n_steps);
/* The next row, filled but for next, z and past; noise = eps(x, out). KAC_E_UNSUPPORTED from pure noise. */
kac_status kac_row_add(kac_solver_row **row, kac_sum *eps, kac_build *b, double timestep, double alpha, double sigma);
/* The same in the scale x_0 + sigma · noise; eps follows from the clipped x0-hat. */
kac_status kac_row_add_sigma(kac_solver_row **row, kac_sum *eps, kac_build *b, double timestep, double sigma);

/* a += c · b */
void kac_sum_add(kac_sum *a, double c, const kac_sum *b);
/* past[j] as a sum. */
kac_sum kac_sum_past(int j);

/* A state of the sigma solvers on the unit circle (or, for flows, the line): lambda = log(alpha / sigma), infinite at
 * sigma 0. */
typedef struct kac_level {
    double alpha, sigma, lambda;
} kac_level;
kac_level kac_level_at(const kac_build *b, int i);
/* What a DPM-Solver, DEIS or UniPC integrates: x0-hat, or the noise that follows from it. */
kac_sum kac_row_data(const kac_build *b, const kac_solver_row *row, const kac_sum *eps, bool noise);

/* clip and threshold as the schedule has them. */
void kac_solver_set_clip(kac_build *b);
/* init_noise_sigma of the scale x_0 + sigma · noise. */
void kac_solver_set_sigma_max(kac_build *b);

#endif
