/* A denoiser small enough for exact answers, behind the seam that tuning works with: of a state y = c_in · x of D numbers at timestep t
 *
 *     out(y, p) = A y + b_p + (t / 1000) c + bend · sin(y)      bend 0: the chain is linear, its samples Gaussian
 *     guided    = u + s (out_p − u), u with the bias b_none
 *     reward    = Σ_j  q_j (x0_j − goal_j)² + l_j x0_j
 *
 * θ = A, the biases of the prompts, b_none, c, in this order. Arithmetic in double, rounded once to f32. */
#ifndef KAC_TESTS_TOY_TRAINEE_H
#define KAC_TESTS_TOY_TRAINEE_H

#include "train/trainee.h"

enum { TOY_D = 3, TOY_PROMPTS = 4, TOY_VALUES = TOY_D * TOY_D + (TOY_PROMPTS + 2) * TOY_D };
enum { TOY_BIAS = TOY_D * TOY_D, TOY_NONE = TOY_BIAS + TOY_PROMPTS * TOY_D, TOY_TIME = TOY_NONE + TOY_D };

typedef struct toy {
    kac_trainee trainee;
    kac_schedule schedule;
    kac_solver solver;
    float values[TOY_VALUES], grads[TOY_VALUES], base[TOY_VALUES], used[TOY_VALUES];
    double bend, q[TOY_D], goal[TOY_D], l[TOY_D];
    int n_use, poison; /* calls of use; the reward with this number, counted from 1, is no number (0: none) */
    int64_t n_rewards;
} toy;

/* config: of the scheduler. The rest of o may be zero but for n_steps; eta NAN: the solver's own. The base model is a fixed draw of small
 * values; goal 0.5, q −1, l 0. */
kac_status toy_open(toy *m, const char *config, const kac_solver_options *o);
void toy_close(toy *m);

/* The guided output and its reward in double, for any parameters. */
void toy_out(const toy *m, const double *values, const double *x, double c_in, double timestep, int prompt,
             double cfg_scale, double *out);
double toy_reward(const toy *m, const double *x0);

#endif
