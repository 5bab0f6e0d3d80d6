/* Gaussian mixtures under diffusion noise, exactly (double, small dense matrices, row-major).
 *
 * With alpha² = alpha-bar, sigma² = 1 − alpha-bar:
 *     p(x_t)       = Σ w_k N(alpha mu_k, P_k),  P_k = alpha² S_k + sigma² I
 *     p(x_0 | x_t) = Σ w_k(x_t) N(m_k, C_k),    m_k = mu_k + G_k (x_t − alpha mu_k),  G_k = alpha S_k P_k⁻¹
 *     p(x_s | x_t) = Σ w_k(x_t) N(A x_t + B m_k, v I + B² C_k)
 *         with a = alpha_t / alpha_s, v_ts = sigma_t² − a² sigma_s²:
 *         A = a sigma_s² / sigma_t², B = alpha_s v_ts / sigma_t², v = sigma_s² v_ts / sigma_t² */
#ifndef KAC_SAMPLERS_GAUSSIAN_H
#define KAC_SAMPLERS_GAUSSIAN_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>

enum { KAC_GMM_MAX = 64 }; /* components, dimensions */

typedef struct kac_gmm {
    int k, d;
    double *w;    /* [k] */
    double *mean; /* [k, d] */
    double *cov;  /* [k, d, d] */
} kac_gmm;

kac_status kac_gmm_init(kac_gmm *g, int k, int d);
void kac_gmm_free(kac_gmm *g);

/* Everything about one step t → s that does not depend on the state. */
typedef struct kac_kernel {
    int k, d;
    double bar_t, bar_s;
    double A, B, v;
    double *log_c;  /* [k]       log w_k − ½ log det P_k − d/2 log 2 pi */
    double *mean;   /* [k, d]    mu_k */
    double *chol_p; /* [k, d, d] */
    double *gain;   /* [k, d, d] G_k */
    double *cov;    /* [k, d, d] C_k */
    double *chol_v; /* [k, d, d] of v I + B² C_k */
} kac_kernel;

kac_status kac_kernel_init(kac_kernel *q, int k, int d);
void kac_kernel_free(kac_kernel *q);
/* bar_s in (bar_t, 1]; bar_s = 1 draws from the posterior itself. Fails with KAC_E_FORMAT when a matrix is singular. */
kac_status kac_kernel_prepare(kac_kernel *q, const kac_gmm *g, double bar_t, double bar_s);

/* log_w [k] normalised, means [k, d] of p(x_0 | x_t = x); returns log p(x_t). */
double kac_kernel_posterior(const kac_kernel *q, const double *x, double *log_w, double *means);
/* x0_hat [d] = Σ w_k m_k. */
void kac_kernel_x0_hat(const kac_kernel *q, const double *log_w, const double *means, double *x0_hat);
/* d_x [d] = (∂ x0_hat / ∂ x)ᵀ d_x0 = alpha / sigma² · Cov[x_0 | x_t = x] d_x0. */
void kac_kernel_pull(const kac_kernel *q, const double *log_w, const double *means, const float *d_x0, float *d_x);
/* to [d] ~ p(x_s | x_t = x) from its posterior, a uniform that picks the component, and d normals. */
void kac_kernel_draw(const kac_kernel *q, const double *x, const double *log_w, const double *means, double u,
                     const float *z, double *to);
/* log p(x_s = to | x_t = x). */
double kac_kernel_log_density(const kac_kernel *q, const double *x, const double *log_w, const double *means,
                              const double *to);

/* Lower Cholesky factor of a symmetric [d, d]; false when it is not positive definite. out may be a. */
bool kac_cholesky(double *out, const double *a, int d);
/* x := L⁻¹ x, and x := L⁻ᵀ x. */
void kac_solve_lower(const double *l, double *x, int d);
void kac_solve_lower_transposed(const double *l, double *x, int d);
/* log Σ exp(a_i); −infinity when all are. */
double kac_log_sum_exp(const double *a, int n);

#endif
