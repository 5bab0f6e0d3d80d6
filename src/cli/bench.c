/* kac bench DESCRIPTION: methods × budgets × prompts × seeds, and the page that compares them. */
#include "run/bench.h"
#include "cli.h"
#include "progress.h"
#include "report/bench_report.h"
#include "show.h"
#include "weights.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

static kac_status print_json(const kac_bench_result *r, const char *page) {
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "folder", r->folder);
    cJSON_AddStringToObject(d, "page", page);
    cJSON_AddNumberToObject(d, "cells", (double)r->n_cells);
    cJSON_AddNumberToObject(d, "done", (double)r->n_done);
    cJSON_AddNumberToObject(d, "failed", (double)r->n_failed);
    cJSON_AddNumberToObject(d, "elsewhere", (double)r->n_elsewhere);
    cJSON_AddBoolToObject(d, "stopped", r->stopped);
    return kac_cli_print_json(d);
}

static void print_result(const kac_bench_result *r, const char *page) {
    printf("cells    %lld of %lld", (long long)r->n_done, (long long)r->n_cells);
    if (r->n_failed > 0) printf(", %lld failed", (long long)r->n_failed);
    if (r->n_elsewhere > 0) printf(", %lld with other processes", (long long)r->n_elsewhere);
    if (r->stopped) printf(" (out of time; the same command goes on)");
    printf("\npage     ");
    kac_cli_print_text(page);
    printf("\n");
}

/* The page is made of what is there, also when it was stopped; what failed first is what counts. */
static kac_status finish(const kac_cli *cli, const kac_bench_result *r, kac_status status) {
    if (status == KAC_OK && kac_options_bool(cli->options, "plan"))
        return r->json == NULL ? KAC_E_MEMORY : kac_cli_show(cli, cJSON_Parse(r->json));
    if (r->folder == NULL) return status;
    char *error = status == KAC_OK ? NULL : kac_strdup(kac_error()), *page = kac_path_join(r->folder, "index.html");
    const kac_status page_status = kac_bench_report_write(r->folder, NULL);
    if (status == KAC_E_CANCELLED)
        status = KAC_FAIL(status, "stopped; finished cells are kept, the same command goes on with the others");
    else if (status != KAC_OK)
        status = KAC_FAIL(status, "%s", error == NULL ? "failed" : error);
    else
        status = page == NULL ? KAC_E_MEMORY : page_status;
    if (status == KAC_OK && cli->json)
        status = print_json(r, page);
    else if (status == KAC_OK)
        print_result(r, page);
    kac_free(error), kac_free(page);
    return status;
}

static kac_status run(kac_cli *cli) {
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away ends nothing */
    char *weights = kac_cli_weights_dir();
    kac_cli_progress *progress = kac_cli_progress_open("bench");
    if (weights == NULL || progress == NULL) return KAC_E_MEMORY;
    cli->argv[0] = (char[]){"kac"};
    const kac_bench_args args = {.description = cli->words[0],
                                 .options = cli->options,
                                 .command = (const char *const *)cli->argv,
                                 .n_command = cli->argc,
                                 .weights_dir = weights,
                                 .hooks = kac_cli_progress_bench_hooks(progress)};
    kac_bench_result result;
    kac_status s = kac_bench(&result, &args);
    kac_cli_progress_close(progress);
    s = finish(cli, &result, s);
    kac_bench_result_free(&result);
    kac_free(weights);
    return s;
}

const kac_cli_command kac_cli_bench = {
    .name = "bench",
    .summary = "Compares steering methods over budgets, prompts and seeds, with a page; goes on where it stopped.",
    .words_usage = "DESCRIPTION.json",
    .min_words = 1,
    .max_words = 1,
    .options = kac_bench_options,
    .notes = "The description is a JSON object; paths in it are relative to its file:\n"
             "  {\"model\": \"DIR\", \"rewards\": [\"clip\"], \"judges\": [\"shapes-judge\"], \"prompts\": "
             "\"PartiPrompts.tsv\",\n"
             "   \"options\": {\"steps\": 25}, \"budgets\": [25, 50, 100], \"unit\": \"nfe\", \"seeds\": [0, 1, 2],\n"
             "   \"methods\": [{\"method\": \"best-of-n\"}, {\"label\": \"fk-4\", \"method\": \"fk\", \"options\": "
             "{\"lambda\": 4}}]}\n"
             "  model      missing: the shipped one; a method may have its own \"model\" and \"lora\"\n"
             "  prompts    a file (text, .tsv, .jsonl, .json), or a list of texts, of {\"prompt\", \"category\", "
             "\"id\"} and of\n"
             "             {\"file\", \"category\"}; \"categories\": [..] chooses, \"limit\": N takes the first, "
             "categories in turn\n"
             "  unit       nfe: evaluations of states by the network; seconds: of methods that search; particles: of "
             "the others\n"
             "  judges     rewards that no method sees, of the final pictures\n"
             "\nexamples:\n"
             "  kac bench steering.json --plan\n"
             "  kac bench steering.json -o results --time-limit 3600\n",
    .run = run,
};
