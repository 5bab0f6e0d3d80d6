/* Tuning, without what is around it: rounds of a method, the optimiser, what is measured on the way.
 *
 *     kac_trainer tr;
 *     KAC_TRY(kac_trainer_open(&tr, trainee, method, options, seed));       // options: kac_trainer_options and the method's
 *     while (tr.round < n_rounds) {
 *         KAC_TRY(kac_trainer_round(&tr, &report));                          // one round of the method
 *         … log the report, save kac_trainer_state, show samples …
 *     }
 *     kac_trainer_close(&tr);
 *
 * Everything random is a function of (seed, round, sample), so that a trainer with a restored state goes on to the same bits. */
#ifndef KAC_TRAINER_H
#define KAC_TRAINER_H

#include "train/trainee.h"
#include <kac/options.h>

typedef struct kac_trainer kac_trainer;

/* A method is one file in src/train/ and one line in src/train/list.c. */
typedef struct kac_tune_method {
    const char *name;               /* "alignprop" */
    const char *summary;            /* one line for --help */
    const kac_option_spec *options; /* its own; ends with a NULL name */
    bool needs_grad;                /* of the reward */
    bool needs_density;             /* a solver whose steps have a transition density */
    size_t n_self;                  /* bytes of its own structure, zeroed at open */
    /* Reads its options, takes memory. KAC_E_USAGE for options that do not fit together. */
    kac_status (*open)(kac_trainer *tr);
    /* Draws samples, adds up gradients, calls kac_trainer_update once or several times. */
    kac_status (*round)(kac_trainer *tr);
    void (*close)(kac_trainer *tr);
    /* What it must remember over rounds, of constant size after open; NULL: nothing. */
    void *(*state)(kac_trainer *tr, size_t *n_bytes);
} kac_tune_method;

const kac_tune_method *kac_tune_method_find(const char *name); /* NULL when there is none */
const kac_tune_method *const *kac_tune_method_list(void);      /* in the order of --help; ends with NULL */

enum { KAC_REPORT_EXTRAS = 8 };

/* What one round did. */
typedef struct kac_tune_report {
    int64_t round, update; /* counted from 1, after it */
    int n_rewards;         /* samples scored */
    double reward_mean, reward_std;
    double loss;      /* mean over the updates' losses, as the method defines it */
    double grad_norm; /* mean over updates, before clipping */
    double lr;        /* of the last update */
    double ms;
    kac_trainee_counts counts; /* since the beginning */
    struct {
        const char *name; /* static: "kl", "clip_fraction", … */
        double value;
    } extra[KAC_REPORT_EXTRAS];
    int n_extras;
} kac_tune_report;

struct kac_trainer {
    kac_trainee *t;
    const kac_tune_method *method;
    void *self; /* the method's */
    const kac_options *options;
    uint64_t seed;
    int64_t round, update; /* finished so far */
    int batch, accum;      /* samples drawn at once; how many times before an update */
    int64_t n_round;       /* samples of a round: batch · accum, or what the method's open put here */
    double
        cfg_scale; /* --cfg-scale where the command has it, else 1; may be changed between open and the first round */
    double kl, l2; /* weights of the regularisers: methods with a loss of their own add kl, the update adds l2 */
    struct kac_optimizer *optimizer; /* nn/optimizer.h */
    float *start;                    /* [n_values] θ at the beginning; NULL without l2 */
    int *order;             /* [n_prompts + 1] the pass over the prompts that is kept, and its prompts in order */
    kac_tune_report report; /* being filled in */
    double reward_sum, reward_sum2, loss_sum, norm_sum;
    int n_updates; /* in this round */
};

/* batch, accum, lr, weight-decay, betas, clip, warm-up, schedule, ema, kl, l2, …; the command adds what it needs beside them. A schedule
 * that decays ends at update lr-updates: a command that knows how many there will be sets it. */
extern const kac_option_spec kac_trainer_options[];

/* KAC_E_USAGE: a method that needs a gradient and a reward without one (names the methods that work), a solver without noise where the method
 * needs its density. Sets θ in use to t->values. */
kac_status kac_trainer_open(kac_trainer *tr, kac_trainee *t, const kac_tune_method *method, const kac_options *options,
                            uint64_t seed);
void kac_trainer_close(kac_trainer *tr); /* a zeroed one is fine */

/* KAC_E_NONFINITE names round and quantity; θ is then as after the last good update. */
kac_status kac_trainer_round(kac_trainer *tr, kac_tune_report *report);

/* ---- what methods call ---- */

/* Prompt of sample `i` of this round: shuffled passes over all prompts; with `group` > 1 that many neighbours share one. */
int kac_trainer_prompt(const kac_trainer *tr, int64_t i, int group);
/* A seed that belongs to (seed, round, stream): streams are numbered by the method. */
uint64_t kac_trainer_seed(const kac_trainer *tr, uint32_t stream);
/* Uniform on (0, 1), of (seed, round, stream, i). */
double kac_trainer_uniform(const kac_trainer *tr, uint32_t stream, int64_t i);
/* Optimiser step with t->grads (the gradient of `loss`, a mean over samples), which are zero afterwards; the new θ is in use. Adds the
 * regulariser l2 · |θ − start|². */
kac_status kac_trainer_update(kac_trainer *tr, double loss);
void kac_trainer_note_rewards(kac_trainer *tr, const double *totals, int n);
void kac_trainer_note(kac_trainer *tr, const char *name, double value); /* the last value of the round counts */

/* Pieces of memory that are the whole state between rounds: counters, θ, moments, averages, the method's. Each has constant size. */
typedef struct kac_trainer_piece {
    const char *name;
    void *data;
    size_t n_bytes;
} kac_trainer_piece;
enum { KAC_TRAINER_PIECES = 8 };
int kac_trainer_state(kac_trainer *tr, kac_trainer_piece pieces[KAC_TRAINER_PIECES]);
/* After the pieces were filled from a file: puts θ in use. */
kac_status kac_trainer_restored(kac_trainer *tr);
/* What is saved and shown: the moving average when there is one, else θ. */
const float *kac_trainer_values(const kac_trainer *tr);

#endif
