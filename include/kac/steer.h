/* Steering methods: one file each in samplers/, one line each in samplers/list.c.
 *
 *     kac_options *o = kac_options_create(kac_method_find("fk")->options);
 *     kac_options_set(o, "lambda", "4");
 *     kac_particles result = {0};
 *     kac_method_find("fk")->run(&result, process, reward, events, o);
 */
#ifndef KAC_STEER_H
#define KAC_STEER_H

#include <kac/events.h>
#include <kac/options.h>
#include <kac/process.h>
#include <kac/reward.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Weighted particles at the end. Arrays have n_groups · n_per_group entries (log_z: n_groups), are owned by this struct
 * and freed by kac_particles_free. The states themselves are in the process's slots. */
typedef struct kac_particles {
    int n_groups, n_per_group;
    double *log_weights; /* not normalised, per slot */
    double *rewards;     /* final raw rewards r(x_0), per slot */
    double *log_z;       /* estimate of log E[exp(λ r(x_0))], per group; NAN: the method has none */
    int *eves;           /* root ancestor (particle index), per slot */
} kac_particles;

/* Frees the arrays and clears the struct; a cleared one is fine. */
void kac_particles_free(kac_particles *p);

/* Settings that were published with a method: what its option --preset stands for. */
typedef struct kac_preset {
    const char *name;     /* NULL ends a list */
    const char *settings; /* "lambda=2 steps=100": the method's own options and those of the program around it */
} kac_preset;

/* The law that a method's weighted samples stand for. */
typedef enum kac_target {
    KAC_TARGET_BASE,     /* the model's own */
    KAC_TARGET_TILTED,   /* base × exp(λ r), exact as the budget grows */
    KAC_TARGET_MODE,     /* no law: the highest reward among what the model could have drawn */
    KAC_TARGET_HEURISTIC /* moved towards base × exp(λ r), by what is not exact */
} kac_target;

typedef struct kac_method {
    const char *name;
    const char *summary;            /* one line for --help; says what the samples stand for */
    const kac_option_spec *options; /* ends with a NULL name */
    /* `reward` may be NULL for "none" (rewards are then NAN). `events` may be NULL. seed is the run's. */
    kac_status (*run)(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *options, uint64_t seed);
    kac_target target;  /* with default options */
    bool anytime;       /* goes on until the budget in events is spent; needs the process's search */
    bool needs_density; /* steps must draw noise, or copies of a particle would stay copies */
    /* Whether it will follow gradients under these options; the process and the reward need one then. NULL: never. */
    bool (*needs_grad)(const kac_options *options);
    const kac_preset *presets; /* of its option "preset"; NULL: none */
    /* Evaluations of each group, under these options, that are spent beside those of the particles' steps. NULL: none. */
    int64_t (*nfe_beside)(const kac_options *options);
} kac_method;

/* Gives every option that was not set, and that `options` has, what the preset says that its option "preset" names. Does nothing without
 * one. */
kac_status kac_method_preset(const kac_method *method, kac_options *options);

/* "base × exp(λ r), exact" and the like, for --help and the page. */
const char *kac_target_text(kac_target target);

/* NULL when there is none of that name. */
const kac_method *kac_method_find(const char *name);
/* All methods in the order of --help; ends with NULL. */
const kac_method *const *kac_method_list(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
