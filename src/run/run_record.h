/* What every kind of run writes down of itself, and how it finds its folder and its memory. */
#ifndef KAC_RUN_RECORD_H
#define KAC_RUN_RECORD_H

#include "run/pipeline.h"
#include "run/run_folder.h"
#include <kac/options.h>

/* runs/20260131-120000-a-red-circle, named after a text and made unique by a number; caller frees. NULL: a message is stored. */
char *kac_run_folder_default(const char *what);

/* Every option that has a value, as text, a repeatable one as a list; names of those that the user gave go to `given`. */
cJSON *kac_run_options(const kac_options *o, cJSON *given);

/* KAC_E_USAGE naming an option whose value `now` is not that of run.json; `free_names` (ends with NULL) may differ. */
kac_status kac_run_same_options(const kac_run_folder *f, const cJSON *now, const char *const *free_names);

/* Members of `facts` become members of run.json; facts is deleted. */
kac_status kac_run_folder_take(kac_run_folder *f, cJSON *facts);

/* Ends the record of a run that came to `status`, its message being kac_error(): `facts` taken, state and error in run.json, the line "end", the
 * checkpoint removed when all is well, unless the run is "anytime". *json: run.json's text, caller frees. Returns `status` with its message, or the first failure of writing. */
kac_status kac_run_folder_finish(kac_run_folder *f, kac_status status, cJSON *facts, char **json);

/* "version", "started", "command". */
void kac_run_add_origin(cJSON *facts, const char *const *command, int n_command);
/* {"path", "files"}, with checksums too as long as that costs no time worth speaking of. */
cJSON *kac_run_model_facts(const char *path, const kac_pipeline *p, bool checksums);
cJSON *kac_run_machine_facts(const kac_ctx *c);

/* A remark for the user through a hook (NULL: nobody listens), cut to one line of 511 bytes. */
void kac_run_say(void (*say)(void *self, const char *line), void *self, const char *format, va_list args);

/* A row of option tables. */
/* clang-format off */
#define KAC_OPTION_MEMORY_LIMIT                                                                                        \
    {"memory-limit", 0, KAC_OPT_REAL, NULL, 0.001, 1e6, .meta = "GIB",                                                 \
     .help = "refuse to start when more is needed (default: what is free)"}
/* clang-format on */
/* What --memory-limit and the machine allow. */
size_t kac_run_available_bytes(const kac_options *o);

#endif
