/* What the solver families share; between solver.c and solver_*.c only. */
#ifndef KAC_SAMPLERS_SOLVER_TABLE_H
#define KAC_SAMPLERS_SOLVER_TABLE_H

#include "samplers/solver.h"

/* Noise levels and timesteps before they become rows: n steps, n + 1 levels. */
typedef struct kac_levels {
    int n;
    double *timestep; /* [n] */
    bool own;         /* timesteps given by the caller that are not the schedule's */
    double *sigma;    /* [n + 1] sigma/alpha of each state; only for the sigma solvers */
} kac_levels;

/* Integer timesteps of DDIM and DDPM by the schedule's spacing (also Euler's, which are not rounded for linspace). */
void kac_levels_by_spacing(kac_levels *l, const kac_schedule *sch, bool rounded);
/* DPM-Solver's own: one step more than asked, the last left out, and the noisiest ones cut where lambda is clipped. */
void kac_levels_dpm(kac_levels *l, const kac_schedule *sch);
/* sigma[] from the timesteps, or by karras, … , which then also set the timesteps. */
kac_status kac_levels_sigmas_euler(kac_levels *l, const kac_schedule *sch);
kac_status kac_levels_sigmas_dpm(kac_levels *l, const kac_schedule *sch);

/* The rows of one family; s->rows has room for l->n. */
kac_status kac_rows_ddim(kac_solver *s, const kac_schedule *sch, const kac_levels *l, double eta);
kac_status kac_rows_ddpm(kac_solver *s, const kac_schedule *sch, const kac_levels *l);
kac_status kac_rows_euler(kac_solver *s, const kac_schedule *sch, const kac_levels *l, double eta);
/* `first` is the row from which a run starts: there is no history before it. */
kac_status kac_rows_dpm(kac_solver *s, const kac_schedule *sch, const kac_levels *l, int first);

/* x0_x, x0_out of a row whose state is alpha · x_0 + sigma · noise, and noise = eps[0] · x + eps[1] · out. */
kac_status kac_row_predict(kac_solver_row *row, double eps[2], kac_prediction prediction);

#endif
