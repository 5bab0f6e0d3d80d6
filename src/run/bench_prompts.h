/* The prompts of a bench (bench_plan.h). */
#ifndef KAC_RUN_BENCH_PROMPTS_H
#define KAC_RUN_BENCH_PROMPTS_H

#include "run/bench_plan.h"

/* Reads, filters and orders them, and applies the limit. */
kac_status kac_bench_prompts_read(kac_bench_plan *p, const kac_options *options);

/* A path of the description, relative to where we are; caller frees. */
char *kac_bench_path(const kac_bench_plan *p, const char *path);

#endif
