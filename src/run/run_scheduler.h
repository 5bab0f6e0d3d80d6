/* `kac run scheduler`: one solver loop against a dummy network, so that schedules can be checked from outside.
 *
 *     x = sample · init_noise_sigma
 *     for t in timesteps: x = step(network(c_in · x, t), t, x),  network(x, t) = x · t / (t + 1) */
#ifndef KAC_RUN_SCHEDULER_H
#define KAC_RUN_SCHEDULER_H

#include "samplers/solver.h"

/* Reads F32 `sample` [N, …] and, where the solver draws noise, F32 `noise` [n, N, …], one entry per draw in their order.
 * Writes `sample`, `trajectory` [steps, N, …] (the state after every step) and F64 `timesteps` [steps]. Arithmetic in float32 with
 * coefficients in double. */
typedef struct kac_run_scheduler_args {
    const char *config_path; /* scheduler_config.json */
    const char *in_path, *out_path;
    kac_solver_options options;
} kac_run_scheduler_args;

/* KAC_E_SHAPE when sample and noise do not fit or the noise does not suffice. */
kac_status kac_run_scheduler(const kac_run_scheduler_args *a);

#endif
