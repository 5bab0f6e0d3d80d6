/* kac report RUN: (re)builds the page of a run folder, or of a bench folder. */
#include "report/report.h"
#include "report/bench_data.h"
#include "report/bench_report.h"
#include "cli.h"
#include <stdio.h>

static kac_status run_bench(kac_cli *cli) {
    const char *folder = cli->words[0];
    kac_bench_report_info info;
    KAC_TRY(kac_bench_report_write(folder, &info));
    char *page = kac_path_join(folder, "index.html");
    if (page == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    if (cli->json) {
        cJSON *d = cJSON_CreateObject();
        cJSON_AddStringToObject(d, "page", page);
        cJSON_AddNumberToObject(d, "bytes", (double)info.n_bytes);
        cJSON_AddNumberToObject(d, "cells", info.n_cells);
        cJSON_AddNumberToObject(d, "done", info.n_done);
        cJSON_AddNumberToObject(d, "failed", info.n_failed);
        cJSON_AddNumberToObject(d, "images", info.n_images);
        cJSON_AddNumberToObject(d, "plots", info.n_plots);
        cJSON_AddNumberToObject(d, "views", info.n_views);
        s = kac_cli_print_json(d);
    } else {
        printf("%s: %d of %d cells finished, %d failed, %d plots, %d trees\n", page, info.n_done, info.n_cells,
               info.n_failed, info.n_plots, info.n_views);
    }
    kac_free(page);
    return s;
}

static kac_status run(kac_cli *cli) {
    const char *folder = cli->words[0];
    kac_report_info info;
    if (kac_bench_folder(folder)) return run_bench(cli);
    KAC_TRY(kac_report_write(folder, &info));
    char *page = kac_path_join(folder, "index.html");
    if (page == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    if (cli->json) {
        cJSON *d = cJSON_CreateObject();
        cJSON_AddStringToObject(d, "page", page);
        cJSON_AddNumberToObject(d, "bytes", (double)info.n_bytes);
        cJSON_AddNumberToObject(d, "groups", info.n_groups);
        cJSON_AddNumberToObject(d, "images", info.n_images);
        cJSON_AddNumberToObject(d, "previews", info.n_previews);
        cJSON_AddNumberToObject(d, "steps", info.n_steps);
        s = kac_cli_print_json(d);
    } else {
        printf("%s: %d pictures, %d on the way\n", page, info.n_images, info.n_previews);
    }
    kac_free(page);
    return s;
}

const kac_cli_command kac_cli_report = {
    .name = "report",
    .summary = "(Re)builds the page of a run folder or of a bench folder.",
    .words_usage = "RUN",
    .min_words = 1,
    .max_words = 1,
    .options = (const kac_option_spec[]){{NULL}},
    .run = run,
};
