/* Guidance: the next step's mean is moved along the gradient of the reward by the state, g = ∇_x r(x0-hat(x)).
 *
 *     kac_guidance g;
 *     KAC_TRY(kac_guidance_init(&g, &swarm, options, weighted));
 *     for each step, after kac_swarm_predict:
 *         if (kac_guidance_wants(&g, i_step)) KAC_TRY(kac_guidance_score(&g, i_step));   // swarm.rewards, and d r / d x0-hat
 *         … weigh, kac_swarm_resample …
 *         KAC_TRY(kac_guidance_shift(&g, i_step, lambda));                             // only the survivors go through the network
 *
 * The shift d of a step that draws s z, with gain G (process.h) and scale c, by --gradient-form:
 *     score      c λ G g       as if λ g were added to the score of the state: what classifier guidance does; any solver
 *     variance   c λ s² g      the same in the limit of small steps, by the noise that is drawn (DAS); nothing without noise
 *     residual   c g / √(−r)   the published step of DPS (Chung et al. 2023) for r = −‖y − A(x0-hat)‖²; λ is not read
 *     direction  c s √n g/|g|  a step of c noise lengths along the gradient (Yang et al. 2024); λ is not read */
#ifndef KAC_SAMPLERS_GUIDANCE_H
#define KAC_SAMPLERS_GUIDANCE_H

#include "samplers/swarm.h"

typedef enum kac_guidance_form {
    KAC_GUIDE_SCORE,
    KAC_GUIDE_VARIANCE,
    KAC_GUIDE_RESIDUAL,
    KAC_GUIDE_DIRECTION
} kac_guidance_form;

typedef struct kac_guidance {
    kac_swarm *swarm;
    kac_guidance_form form;
    double scale, clip;
    double start, end; /* shares of the steps */
    bool weighted;     /* the steps will be weighed by p / q: none without noise are guided */
    float *d_x0, *d_x; /* [n, n_state] */
    int scored;        /* step whose gradients d_x0 holds; −1: none */
} kac_guidance;

/* Rows of a method's option table; the defaults are text. */
/* clang-format off */
#define KAC_OPTIONS_GUIDANCE(scale, form)                                                                        \
    {"gradient-scale", 0, KAC_OPT_REAL, scale, 0, 1e9, NULL, "C",                                                      \
     "times the shift along the reward's gradient; 0: none", false},                                                   \
    {"gradient-form", 0, KAC_OPT_CHOICE, form, 0, 0, "score|variance|residual|direction", NULL,                        \
     "length of the shift: by λ and the noise level (score), by λ and the step's noise (variance), as published for "  \
     "DPS (residual: the reward must be minus a squared error), or fixed (direction)", false},                         \
    {"gradient-clip", 0, KAC_OPT_REAL, NULL, 0, 1e9, NULL, "C",                                                        \
     "shift, as a vector, at most C times the deviation of the step's noise, whose own length is √n for states of n "   \
     "numbers; 0: no limit (default of dps: 0.15 √n, of weighted methods: 1)", false},                      \
    {"gradient-start", 0, KAC_OPT_REAL, "0", 0, 1, NULL, "SHARE", "guide from this share of the steps on", false},     \
    {"gradient-end", 0, KAC_OPT_REAL, "1", 0, 1, NULL, "SHARE", "guide up to this share of the steps", false}
/* clang-format on */

/* KAC_E_UNSUPPORTED when the process or the reward has no gradient and the scale is not 0. */
kac_status kac_guidance_init(kac_guidance *g, kac_swarm *swarm, const kac_options *options, bool weighted);
void kac_guidance_free(kac_guidance *g); /* a cleared one is fine */

/* Whether the step will be guided. */
bool kac_guidance_wants(const kac_guidance *g, int i_step);
/* kac_swarm_score of the predicted states, with gradients. KAC_E_NONFINITE names particle and step. */
kac_status kac_guidance_score(kac_guidance *g, int i_step);
/* Shifts the next step of every particle; the gradients follow the ancestors that kac_swarm_resample drew. Scores first, if that has not
 * been done. Does nothing at steps that are not guided. */
kac_status kac_guidance_shift(kac_guidance *g, int i_step, double lambda);

/* For kac_method.needs_grad of methods with these options. */
bool kac_guidance_asked(const kac_options *options);

#endif
