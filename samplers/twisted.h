/* Twisted particles: guided steps with their weights, on the way to base × exp(lambda r). Shared by tds, das and is.
 *
 *     twist of a state at i_step:  ψ = temper[i_step] · lambda · r(x0-hat(x));  of x_0: lambda r(x_0)
 *     weight of a step:            p(x' | x) / q(x' | x) · exp(ψ' − ψ),  the first: exp(ψ)
 *     proposal q:                  the step shifted along temper[i_step + 1] · lambda · ∇ r(x0-hat(x))
 *
 * The product of the weights is exp(lambda r(x_0)) times p / q of the whole path whatever temper and the shifts are, so target and unbiased
 * estimate of Z are those of fk; only the variance differs. */
#ifndef KAC_SAMPLERS_TWISTED_H
#define KAC_SAMPLERS_TWISTED_H

#include "samplers/guidance.h"

typedef struct kac_twisted {
    kac_swarm swarm;
    kac_guidance guidance;
    double lambda, threshold;
    kac_scheme scheme;
    double *temper; /* [n_steps + 1], the last 1 */
    bool late;      /* weights at the end alone: nothing is scored on the way */
    bool drawn;     /* swarm.begin draws x_K by its twist: the first weight is in the states already, and Z is not known */
} kac_twisted;

/* From the options of the method: lambda, ess-threshold and resampling where it has them, guidance. temper is 1 everywhere until the caller
 * changes it. KAC_E_USAGE without a reward; `who` needs one. */
kac_status kac_twisted_init(kac_twisted *t, const char *who, kac_process *process, kac_reward *reward,
                            kac_events *events, const kac_options *options, uint64_t seed);
kac_status kac_twisted_sample(kac_twisted *t);
/* Hands the particles over if status is fine, frees the rest; returns status. */
kac_status kac_twisted_finish(kac_twisted *t, kac_particles *out, kac_status status);

/* Rows of option tables, as fk has them. */
#define KAC_OPTION_ESS_THRESHOLD(value)                                                                                \
    {                                                                                                                  \
        "ess-threshold", 0, KAC_OPT_REAL, value, 0, 1, NULL, "X",                                                      \
            "resample below X times the particles in effective size; 0 never, 1 always", false                         \
    }
#define KAC_OPTION_RESAMPLING(value)                                                                                   \
    { "resampling", 0, KAC_OPT_CHOICE, value, 0, 0, KAC_RESAMPLE_CHOICES, NULL, "how ancestors are drawn", false }

#endif
