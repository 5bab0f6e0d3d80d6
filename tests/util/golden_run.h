/* Runs every golden case of a family on every backend and dtype. */
#ifndef KAC_TESTS_GOLDEN_RUN_H
#define KAC_TESTS_GOLDEN_RUN_H

#include "tensor/ops.h"
#include "util/golden.h"

/* One case on one context: loads the network from g->dir, runs it, checks outputs. False when something failed (printed). */
typedef bool (*golden_case)(golden *g, kac_ctx *c);

/* f32 within 1e-5 on ref and cpu, bf16 on cpu within golden_bf16_tolerance. Returns the number of failed runs. */
int golden_run(const char *family, golden_case run);

#endif
