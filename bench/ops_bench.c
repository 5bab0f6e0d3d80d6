/* The op rows of tests/cases/ops.h, timed on the CPU backend, or with oneDNN's products, against what the machine can do.
 *
 * usage: bench.ops [--backend cpu|onednn] [--dtype f32|bf16] [--threads N] [--all] [PART]
 *
 * Rows whose name contains PART; without --all only those with at least 20 million operations or a megabyte, since below that the call is
 * what is measured. Each row runs at least 5 times and 0.15 s; the minimum and the median are printed, and the share of the roofline:
 * max(flops / peak, bytes / bandwidth) ÷ minimum. Winograd does less arithmetic than is counted, so it may pass 100 %; so may data in cache. */
#include "bench/roofline.h"
#include "run/backend.h"
#include "tests/cases/ops.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RUNS = 1000 };

typedef struct settings {
    const char *backend;
    kac_dtype dtype;
    int n_threads;
    bool all;
    const char *part;
} settings;

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* One thread is timed by its own clock, so that the rows mean something on a busy machine too. */
static double now_ms(const kac_ctx *c) {
    return c->n_threads == 1 ? roofline_thread_ms() : kac_now_ms();
}

static kac_status time_row(kac_ctx *c, const op_case *row, const roofline *limit, const settings *set) {
    static double ms[MAX_RUNS];
    op_inputs in;
    int n = 0;
    kac_arena_release(&c->model, 0);
    kac_arena_release(&c->run, 0);
    kac_arena_release(&c->scratch, 0);
    KAC_TRY(op_case_prepare(c, row, &in));
    const size_t run_mark = kac_arena_mark(&c->run);
    double total = 0;
    for (int run = -1; n < MAX_RUNS && (n < 5 || total < 150); run++) { /* the first run warms up */
        kac_tensor out = {0};
        c->counts = (kac_counts){0};
        const double start = now_ms(c);
        KAC_TRY(op_case_call(c, row, &in, &out));
        const double took = now_ms(c) - start;
        kac_arena_release(&c->run, run_mark);
        kac_arena_release(&c->scratch, 0);
        const bool small = c->counts.flops < 2e7 && c->counts.bytes < 1e6;
        if (small && !set->all) return KAC_OK;
        if (run < 0) continue;
        ms[n++] = took;
        total += took;
    }
    qsort(ms, (size_t)n, sizeof ms[0], compare);
    const double ideal = 1e3 * KAC_MAX(c->counts.flops / limit->flops_per_s, c->counts.bytes / limit->bytes_per_s);
    printf("%-36s %9.3f %9.3f %9.1f %8.1f %7.0f %%\n", row->name, ms[0], ms[n / 2], c->counts.flops / ms[0] / 1e6,
           c->counts.bytes / ms[0] / 1e6, 100 * ideal / ms[0]);
    return KAC_OK;
}

static int wrong_usage(void) {
    fprintf(stderr, "usage: bench.ops [--backend cpu|onednn] [--dtype f32|bf16] [--threads N] [--all] [PART]\n");
    return 2;
}

int main(int n_args, char **args) {
    settings set = {.backend = "cpu", .dtype = KAC_F32, .part = ""};
    for (int i = 1; i < n_args; i++) {
        if (strcmp(args[i], "--all") == 0)
            set.all = true;
        else if (strcmp(args[i], "--dtype") == 0 && i + 1 < n_args)
            set.dtype = strcmp(args[++i], "bf16") == 0 ? KAC_BF16 : KAC_F32;
        else if (strcmp(args[i], "--backend") == 0 && i + 1 < n_args)
            set.backend = args[++i];
        else if (strcmp(args[i], "--threads") == 0 && i + 1 < n_args)
            set.n_threads = (int)strtol(args[++i], NULL, 10);
        else if (args[i][0] == '-')
            return wrong_usage();
        else
            set.part = args[i];
    }
    kac_ctx c;
    const struct kac_ops *ops;
    kac_status s = kac_backend_find(&ops, set.backend);
    if (s == KAC_OK) s = kac_ctx_open(&c, ops, set.dtype, set.n_threads, NULL);
    if (s != KAC_OK) {
        fprintf(stderr, "%s\n", kac_error());
        return 1;
    }
    const roofline limit = roofline_measure(c.n_threads);
    printf("%s, %d threads; this machine: %.1f GFLOP/s (f32), %.1f GB/s\n", set.dtype == KAC_F32 ? "f32" : "bf16",
           c.n_threads, limit.flops_per_s / 1e9, limit.bytes_per_s / 1e9);
    printf("%-36s %9s %9s %9s %8s %9s\n", "row", "min ms", "median", "GFLOP/s", "GB/s", "roofline");
    for (int i = 0; i < KAC_COUNT_OF(op_cases) && s == KAC_OK; i++)
        if (strstr(op_cases[i].name, set.part) != NULL) s = time_row(&c, &op_cases[i], &limit, &set);
    if (s != KAC_OK) fprintf(stderr, "%s\n", kac_error());
    kac_ctx_close(&c);
    return s != KAC_OK;
}
