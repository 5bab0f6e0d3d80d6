/* An exact diffusion without a network: a Gaussian mixture, whose denoiser, reverse kernel and reward-tilted law are known in
 * closed form. Every steering method can be tried on it in milliseconds and compared with the exact answer.
 *
 *     kac_mixture *m;
 *     KAC_TRY(kac_mixture_load(&m, "mixture.json", &(kac_mixture_options){.n_groups = 1, .n_per_group = 64, .eta = 1}));
 *     kac_particles result = {0};
 *     KAC_TRY(kac_method_find("fk")->run(&result, kac_mixture_process(m), &reward, NULL, options, seed));
 *     const double *x = kac_mixture_point(kac_mixture_process(m), 0, KAC_STAGE_FINAL);
 *
 * The file: {"_class_name": "GaussianMixture", "weights": [k], "means": [k][d], "covariances": [k][d][d],
 *            "schedule": {"alphas_cumprod": [K]}, "kernel": "exact" | "ddim"}
 * Entry n − 1 of alphas_cumprod belongs to step n = 1 … K, least noisy first; alpha-bar_0 = 1;
 * x_n = sqrt(alpha-bar_n) x_0 + sqrt(1 − alpha-bar_n) z. States are doubles. */
#ifndef KAC_MIXTURE_H
#define KAC_MIXTURE_H

#include <kac/process.h>
#include <kac/reward.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct kac_mixture kac_mixture;

typedef struct kac_mixture_options {
    int n_groups, n_per_group;
    uint64_t seed; /* noise is keyed by (seed, step, slot): groups are independent repeats */
    double eta;    /* kernel "ddim" only: 0 deterministic … 1 ancestral; "exact" does not read it */
} kac_mixture_options;

/* KAC_E_IO, KAC_E_FORMAT (weights not positive or not summing to 1, covariances not symmetric positive definite, alpha-bar not
 * falling within (0, 1), …), KAC_E_USAGE for options. d and k are at most 64, K at most 10000. */
kac_status kac_mixture_load(kac_mixture **out, const char *path, const kac_mixture_options *options);
kac_status kac_mixture_parse(kac_mixture **out, const char *text, size_t n, const char *name,
                             const kac_mixture_options *options);
void kac_mixture_destroy(kac_mixture *m); /* NULL allowed */

/* Kernel "exact" starts from the exact noised mixture and draws from the exact reverse kernel p(x_{n−1} | x_n): no
 * discretisation error. "ddim" starts from N(0, I) and takes DDIM steps on the exact x0-hat; its last step is
 * deterministic. Owned by the mixture. */
kac_process *kac_mixture_process(kac_mixture *m);
int kac_mixture_dim(const kac_mixture *m);

/* The point [d] that a reward of this stage looks at: x0-hat of a predicted state, or the state itself. Valid until the slot
 * changes. `p` must be a mixture's process. */
const double *kac_mixture_point(const kac_process *p, int slot, kac_stage stage);
/* NULL when the process is not a mixture's. */
kac_mixture *kac_mixture_of(const kac_process *p);
/* Denoiser evaluations so far. */
int64_t kac_mixture_evaluations(const kac_mixture *m);

/* r(x) = −½ (x − a)' A (x − a) + b' x + c from {"A": [d][d], "a": [d], "b": [d], "c": c}; a, b, c are 0 when missing. A
 * quadratic reward tilts a mixture into another mixture, so everything about the target is known. The reward names itself
 * quadratic=<path>; it scores mixtures only (others: KAC_E_USAGE). */
kac_status kac_quadratic_load(kac_reward **out, const char *path);
kac_status kac_quadratic_parse(kac_reward **out, const char *text, size_t n, const char *name);
void kac_quadratic_destroy(kac_reward *r); /* NULL allowed */

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
