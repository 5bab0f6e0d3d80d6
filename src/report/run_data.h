/* A run folder, read: run.json and events.jsonl as far as they are there and make sense. Nothing in them is trusted. */
#ifndef KAC_REPORT_RUN_DATA_H
#define KAC_REPORT_RUN_DATA_H

#include "base/base.h"
#include "base/json.h"

/* One step of one group. Arrays have n entries; rewards may be NULL. */
typedef struct kac_run_step {
    int i_step, group, n;
    int line; /* where in the file: of two for one step the later counts */
    bool resampled;
    double ess, log_z;
    int *ancestors, *eves;
    double *log_weights, *rewards; /* NAN where the file has null */
} kac_run_step;

/* A picture: on the way (i_step ≥ 0) or final (i_step −1). */
typedef struct kac_run_picture {
    int i_step, group, particle;
    int rank, eve;                     /* final ones; eve −1: unknown */
    double reward, log_weight, weight; /* final ones; NAN: unknown */
    const char *file;                  /* relative, checked */
    const cJSON *entry;                /* of run.json's images; NULL: only known from events */
} kac_run_picture;

typedef struct kac_run_data {
    char *folder;
    kac_json run;    /* root NULL: no readable run.json */
    cJSON *events;   /* array of the lines that could be parsed */
    int n_bad_lines; /* lines that could not */
    int n_groups, n_steps;
    kac_run_step *steps; /* sorted by group, then i_step; the last of each pair that was written */
    int n_step_events;
    kac_run_picture *finals; /* by group, then rank */
    int n_finals;
    kac_run_picture *previews; /* by group, i_step, particle */
    int n_previews;
} kac_run_data;

/* KAC_E_IO when the folder holds neither file, KAC_E_MEMORY. The caller ends with kac_run_data_free, also on failure. */
kac_status kac_run_data_load(kac_run_data *d, const char *folder);
/* Only a file of events, as of one run. KAC_E_IO, KAC_E_MEMORY; ends with kac_run_data_free, too. */
kac_status kac_run_data_load_events(kac_run_data *d, const char *path);
void kac_run_data_free(kac_run_data *d);

/* Getters for what may be missing: the value of a key of `object` (NULL allowed), or the default. */
const char *kac_run_text(const cJSON *object, const char *key, const char *or_else);
double kac_run_number(const cJSON *object, const char *key); /* NAN */
const cJSON *kac_run_at(const cJSON *object, const char *key);
/* A path that stays inside the folder; NULL: none. */
const char *kac_run_inner_path(const cJSON *object, const char *key);

/* A file of JSON lines: an array of the objects, and how many lines were none (cut by a kill). */
kac_status kac_run_lines(cJSON **out, int *n_bad, const char *path);

#endif
