/* The folder of a run, written so that a kill at any moment leaves it readable. Its layout is described in report/report.h. */
#ifndef KAC_RUN_FOLDER_H
#define KAC_RUN_FOLDER_H

#include "base/base.h"
#include "base/json.h"
#include <kac/events.h>

typedef struct kac_run_folder {
    char *path;
    const char *log; /* "events.jsonl": name of the file that events go to */
    int events_fd;
    double start_ms;
    double checkpoint_ms; /* when the last one was written */
    cJSON *run;           /* run.json as it stands */
    int resumed_step;     /* 0: fresh */
    bool stopped;         /* ended early on request, but with results */
} kac_run_folder;

/* A fresh folder (made with parents), with events in a file of the name `log`. KAC_E_USAGE when it holds a run already; KAC_E_IO. */
kac_status kac_run_folder_create(kac_run_folder *f, const char *path, const char *log);
/* One with an unfinished run: run.json is read. KAC_E_USAGE when there is none, or when it is finished and its
 * "anytime" is not true: searches can always go on. */
kac_status kac_run_folder_resume(kac_run_folder *f, const char *path, const char *log);
void kac_run_folder_close(kac_run_folder *f);

/* Puts `value` (owned by the document from now on) under `key` of run.json, in memory. */
kac_status kac_run_folder_set(kac_run_folder *f, const char *key, cJSON *value);
/* Writes run.json with this state ("running", …); error may be NULL. */
kac_status kac_run_folder_write(kac_run_folder *f, const char *state, const char *error);

/* Appends one event line; takes `event` over. */
kac_status kac_run_folder_event(kac_run_folder *f, const char *name, cJSON *event);
kac_status kac_run_folder_step(kac_run_folder *f, const kac_step_event *e, cJSON *counts);
/* The same event as an object; NULL when out of memory. */
cJSON *kac_run_step_json(const kac_step_event *e);

/* Bytes of the event file now; and back to so many, when what came later is done again. */
int64_t kac_run_folder_log_bytes(const kac_run_folder *f);
kac_status kac_run_folder_log_cut(kac_run_folder *f, int64_t n_bytes);

/* Saves blobs to go on with step i_step + 1; at most one every two seconds unless `now`. */
kac_status kac_run_folder_checkpoint(kac_run_folder *f, int i_step, const kac_blob *blobs, int n, bool now);
/* Fills blobs of the same names and sizes (those without data: of any size, allocated here) and sets *i_step to the step to go on with; 0
 * without a checkpoint. KAC_E_FORMAT when it does not belong to this run. */
kac_status kac_run_folder_restore(kac_run_folder *f, int *i_step, kac_blob *blobs, int n);
void kac_run_folder_checkpoint_remove(kac_run_folder *f);

/* path/name; caller frees. */
char *kac_run_folder_file(const kac_run_folder *f, const char *name);

/* A JSON number, null when not finite. */
cJSON *kac_json_number(double v);

#endif
