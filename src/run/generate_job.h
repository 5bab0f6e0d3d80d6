/* What the two kinds of runs (latent diffusion, exact mixture) share: options read, the folder, the method, the record. */
#ifndef KAC_GENERATE_JOB_H
#define KAC_GENERATE_JOB_H

#include "reward/mix.h"
#include "run/generate.h"
#include "run/run_folder.h"
#include <kac/steer.h>

typedef struct kac_job {
    const kac_generate_args *args;
    kac_generate_result *result;
    const kac_options *options;
    const kac_method *method;
    const char *model;      /* folder or .json file */
    char **prompts;         /* owned */
    char **plain;           /* [n_prompts] prompts without the markup of weights, owned; NULL: they have none */
    const char **negatives; /* [n_prompts] of the options, NULL inside: none given */
    int n_prompts;
    char **rewards; /* NAME[=PATH][:WEIGHT], owned */
    int n_rewards;
    char *default_model;
    uint64_t seed;
    int64_t nfe;    /* budget of each group, 0: none. Of a method that is not anytime: what pays for its particles */
    double seconds; /* of an anytime method, 0: no limit */
    int n_particles; /* of each group; set by the kind of run before the folder is opened */
    kac_process *process;
    bool resume;
    bool stopped; /* an anytime method was asked to end early: it has handed over what it had */
    kac_run_folder folder; /* open from kac_job_folder_open on */
    double start_ms, best_reward;
    cJSON *(*counts)(void *self); /* of the process, for events; set with `counts_self` by the kind of run */
    void *counts_self;
    kac_mix *mix; /* whose running means belong to a checkpoint; NULL: none; set by the kind of run */
    int i_step;   /* the step now; n_steps at the end */
} kac_job;

void kac_job_say(const kac_job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void kac_job_phase(const kac_job *j, const char *name);

/* Makes or resumes the folder and writes run.json with what was asked. */
kac_status kac_job_folder_open(kac_job *j, cJSON *facts);

/* Runs the method with the folder and the hooks as sinks. */
kac_status kac_job_steer(kac_job *j, kac_particles *out, kac_process *p, kac_reward *r);

/* run.json's "rewards": name, weight and shapings of each. */
cJSON *kac_job_reward_facts(const kac_reward_spec *const *specs, int n);

/* Lines "rewards" in events.jsonl, one for each group: what stands behind the scores of these slots at this step. Each row [n + 2]: single
 * rewards, combined, uncertainty. */
kac_status kac_job_record_rewards(kac_job *j, const kac_reward_spec *const *specs, int n, int n_per_group,
                                  const int *slots, int n_slots, const double *const *rows);

/* --nfe and --time. KAC_E_USAGE for what the method cannot take. */
kac_status kac_job_read_budget(kac_job *j);
/* A finished anytime run goes on with a larger budget alone: KAC_E_USAGE otherwise. */
kac_status kac_job_check_more(const kac_job *j);
/* Sinks of searches: lines "search" and "tree" of events.jsonl, trees/group_00.json. */
kac_status kac_job_on_search(kac_events *e, const kac_search_event *event);
kac_status kac_job_on_tree(kac_events *e, const kac_tree_event *event);
/* The file of a tree, as report/report.h describes it. */
kac_status kac_tree_write(const char *path, const kac_tree_event *e, int n_steps);

/* Ends the record: run.json with the results in `facts` (members are moved into it), the state by `status`. Returns `status`, or the first failure
 * of writing. */
kac_status kac_job_finish(kac_job *j, kac_status status, cJSON *facts);

/* run.json's "log_z" and the normalised weight of every slot (exp of log-weight − LSE of its group); weights [n_slots]. */
void kac_job_weights(double *weights, const kac_particles *p);

/* The two kinds. */
kac_status kac_generate_latent(kac_job *j);
kac_status kac_generate_mixture(kac_job *j);

#endif
