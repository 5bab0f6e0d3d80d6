#include "run/solver_options.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

static bool asks_for_own(const kac_options *o) {
    return strcmp(kac_options_text(o, "sampling-method"), "model") == 0;
}

/* auto: the model's own solver where its steps draw noise, else the nearest one that does, so that every method of
 * steering works and all of them sample from the same chain. */
static kac_solver_kind solver_kind(const kac_options *o, const kac_schedule *schedule) {
    const char *name = kac_options_text(o, "sampling-method");
    if (strcmp(name, "auto") == 0) return kac_solver_noisy(schedule);
    return asks_for_own(o) ? kac_solver_own(schedule) : kac_solver_find(name);
}

static void set_spread(kac_schedule *schedule, const char *name) {
    static const struct {
        const char *name;
        kac_sigmas sigmas;
    } spreads[] = {{"karras", KAC_SIGMAS_KARRAS},
                   {"exponential", KAC_SIGMAS_EXPONENTIAL},
                   {"beta", KAC_SIGMAS_BETA},
                   {"lu", KAC_SIGMAS_LU}};
    for (int i = 0; i < KAC_COUNT_OF(spreads); i++)
        if (strcmp(name, spreads[i].name) == 0) schedule->sigmas = spreads[i].sigmas;
}

kac_status kac_solver_options_read(kac_solver_options *so, double timesteps[KAC_MAX_TIMESTEPS], kac_schedule *schedule,
                                   const kac_options *o) {
    set_spread(schedule, kac_options_text(o, "scheduler"));
    *so = (kac_solver_options){.n_steps = (int)kac_options_int(o, "steps"), .eta = NAN};
    so->kind = solver_kind(o, schedule);
    if (kac_options_given(o, "eta")) so->eta = kac_options_real(o, "eta");
    if (isnan(so->eta) && so->kind == KAC_SOLVER_DDIM && !asks_for_own(o)) so->eta = 1;
    const int n = kac_options_count(o, "timesteps");
    if (n > KAC_MAX_TIMESTEPS) return KAC_FAIL(KAC_E_USAGE, "--timesteps takes at most %d entries", KAC_MAX_TIMESTEPS);
    for (int i = 0; i < n; i++) timesteps[i] = (double)kac_options_int_at(o, "timesteps", i);
    if (n > 0) so->timesteps = timesteps, so->n_timesteps = n;
    return KAC_OK;
}
