/* The first seam: what is being sampled.
 *
 * A reverse-time Markov chain x_K → x_0 over the slots of a state pool. i_step counts 0 → K−1 in sampling order: before
 * step i_step a slot holds x_{K−i_step}; after the last step it holds x_0. Steering methods are host code that sees
 * only this, the reward and the events, so one method runs on images, text and exact mixtures alike.
 *
 *     start(all)                                   x_K ~ p_K
 *     for i_step in 0 … K−1:
 *         predict(i_step, all)                     x0-hat(x) beside every state
 *         … reward->score(predicted) … resample: copy(from, to) …
 *         step(i_step, all → all)                  x' ~ p(· | x)
 *     reward->score(final)
 */
#ifndef KAC_PROCESS_H
#define KAC_PROCESS_H

#include <kac/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Slots are numbered 0 … n_slots−1, group by group: slot = group · n_per_group + particle. A group is one prompt. */
typedef struct kac_process kac_process;
struct kac_process {
    void *self;
    int n_steps;     /* K */
    int n_groups;    /* prompts */
    int n_per_group; /* particles of each */
    /* Groups draw the same noise. What a method draws itself must not depend on a group's number then either (kac_process_group_key): a
     * prompt's result is the same whichever others run beside it. false: groups are independent repeats. */
    bool groups_alike;
    bool stochastic; /* false: step is a function of the state, so copies stay copies (e.g. DDIM with eta 0) */
    bool history;    /* steps read what earlier ones of the same state left behind (multistep solvers) */

    /* Draws x_K into the slots, with the key of each slot's own particle. */
    kac_status (*start)(kac_process *p, const int *slots, int n);

    /* Leaves x0-hat beside each state. One network evaluation per DISTINCT state: a slot that is an unchanged copy of
     * one already predicted at this i_step shares its result. Calling it again for the same states costs nothing. */
    kac_status (*predict)(kac_process *p, int i_step, const int *slots, int n);

    /* Draws the next state of from[i] into to[i], with the noise key of slot to[i] at this i_step. Every from[i] must
     * have been predicted at i_step. from and to may be the same list (in place) but must not overlap otherwise. */
    kac_status (*step)(kac_process *p, int i_step, const int *from, const int *to, int n);

    /* to[i] becomes a copy of from[i]: state, x0-hat, solver history and every cached result, through one gather list.
     * Sources are read as they were before the call, so a permutation is allowed. */
    kac_status (*copy)(kac_process *p, const int *from, const int *to, int n);

    int64_t n_state; /* numbers in a state: the rows of the f32 arrays below, one for each slot */

    /* Guidance, for methods that follow a gradient; all but deviation and gain NULL: the process has none.
     * pull: d_x[i] = (∂ x0-hat / ∂ x)ᵀ d_x0[i] at the states of slots, which were predicted at i_step.
     * shift: the next step from slots[i] draws around a mean that is moved by shift[i]; forgotten after it, and not taken along by copy.
     * Solvers that draw no noise take it too, but then log_ratio fails with KAC_E_UNSUPPORTED.
     * deviation: of the noise that the step at i_step draws, the same in every direction.
     * gain: how far the step's mean moves for each unit that is added to the score ∇ log p(x) of its state; in the limit of small
     * steps of a diffusion that draws all its noise it is deviation². */
    kac_status (*pull)(kac_process *p, int i_step, const int *slots, int n, const float *d_x0, float *d_x);
    /* The same for a whole step, with the noise that it draws as a constant: d_x[i] = (∂ x' / ∂ x)ᵀ d_next[i]. i_step −1: of start, by the
     * standard normals it draws. NULL: steps are no smooth functions of the state. KAC_E_UNSUPPORTED names what stands in the way, such as
     * a solver with history. */
    kac_status (*pull_step)(kac_process *p, int i_step, const int *slots, int n, const float *d_next, float *d_x);
    kac_status (*shift)(kac_process *p, int i_step, const int *slots, int n, const float *shift);
    double (*deviation)(kac_process *p, int i_step);
    double (*gain)(kac_process *p, int i_step);

    /* log p(x') − log q(x') of the step just drawn, per slot, when the process proposes from q ≠ p (guidance). NULL:
     * always 0. */
    kac_status (*log_ratio)(kac_process *p, const int *slots, int n, double *out);

    /* Search, for methods that come back to a state or draw more samples than there are slots; all NULL: the process has none.
     * rekey: from now on slots[i] draws what start and step draw as particle keys[i] of its group would, instead of its own number; other
     * keys are independent noise. copy and fetch leave a slot's key alone.
     * store: place places[i] keeps the state of slots[i], with its prediction if it has one; places count from 0, belong to no group and
     * are overwritten. fetch: slots[i] becomes what the place keeps, at the step where it was stored; a kept prediction is not made
     * again; KAC_E_FORMAT for a place that keeps nothing. Memory grows with the places in use, and is part of state_save.
     * read: the states themselves. write: slots[i] holds state x[i] from now on, without a past; only before steps whose solver needs
     * none, as before the first (see history).
     * noise: the next start of slots[i], or step into it, uses the standard normals z[i] instead of drawing them.
     * level: before step i_step a state is alpha · x_0 + sigma · noise; i_step = n_steps: 1 and 0. */
    void (*rekey)(kac_process *p, const int *slots, int n, const uint64_t *keys);
    kac_status (*store)(kac_process *p, const int *slots, int n, const int64_t *places);
    kac_status (*fetch)(kac_process *p, const int64_t *places, const int *slots, int n);
    kac_status (*read)(kac_process *p, const int *slots, int n, float *x);
    kac_status (*write)(kac_process *p, const int *slots, int n, const float *x);
    kac_status (*noise)(kac_process *p, const int *slots, int n, const float *z);
    void (*level)(kac_process *p, int i_step, double *alpha, double *sigma);

    /* The process's whole state as one flat block, so that a run can be stopped and continued to the same bits.
     * state_bytes changes only with what is stored. state_load: KAC_E_FORMAT when n_bytes are not such a block. NULL: cannot be saved. */
    int64_t (*state_bytes)(kac_process *p);
    kac_status (*state_save)(kac_process *p, void *out);
    kac_status (*state_load)(kac_process *p, const void *in, size_t n_bytes);
};

/* What stands for a group in the keys of a method's own random numbers. */
static inline uint32_t kac_process_group_key(const kac_process *p, int group) {
    return p->groups_alike ? 0 : (uint32_t)group;
}

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
