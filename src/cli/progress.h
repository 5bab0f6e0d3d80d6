/* The bar on a terminal: phase, step or round, seconds for each, time left, reward, effective sample size. Silent elsewhere. */
#ifndef KAC_CLI_PROGRESS_H
#define KAC_CLI_PROGRESS_H

#include "run/bench.h"
#include "run/generate.h"
#include "run/tune.h"

typedef struct kac_cli_progress kac_cli_progress;

/* Also takes over Ctrl-C (and SIGTERM): the first asks the run to stop after its step, the second ends the program at once.
 * NULL when out of memory. */
kac_cli_progress *kac_cli_progress_open(const char *command);
/* Removes the bar. NULL allowed. */
void kac_cli_progress_close(kac_cli_progress *p);

kac_generate_hooks kac_cli_progress_hooks(kac_cli_progress *p);
kac_tune_hooks kac_cli_progress_tune_hooks(kac_cli_progress *p);
kac_bench_hooks kac_cli_progress_bench_hooks(kac_cli_progress *p);

#endif
