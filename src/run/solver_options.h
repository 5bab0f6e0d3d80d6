/* --sampling-method, --scheduler, --steps, --eta, --timesteps. */
#ifndef KAC_SOLVER_OPTIONS_H
#define KAC_SOLVER_OPTIONS_H

#include "samplers/solver.h"
#include <kac/options.h>

enum { KAC_MAX_TIMESTEPS = 1000 };

/* A row of option tables. */
/* clang-format off */
#define KAC_OPTION_SCHEDULER                                                                                           \
    {"scheduler", 0, KAC_OPT_CHOICE, "default", .choices = "default|karras|exponential|beta|lu",                       \
     .help = "how noise levels are spread"}
/* clang-format on */

/* Fills *so, whose timesteps point into the buffer, and the schedule's spread of noise levels. KAC_E_USAGE. */
kac_status kac_solver_options_read(kac_solver_options *so, double timesteps[KAC_MAX_TIMESTEPS], kac_schedule *schedule,
                                   const kac_options *o);

#endif
