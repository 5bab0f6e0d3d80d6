/* kac generate PROMPT: one steered run and its page. */
#include "run/generate.h"
#include "cli.h"
#include "progress.h"
#include "reward/reward_set.h"
#include "run/generate_options.h"
#include "show.h"
#include "weights.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static kac_status print_json(const kac_generate_result *r, const char *page) {
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "folder", r->folder);
    cJSON_AddStringToObject(d, "page", page);
    if (r->best != NULL) cJSON_AddStringToObject(d, "best", r->best);
    if (isfinite(r->best_reward)) cJSON_AddNumberToObject(d, "best_reward", r->best_reward);
    cJSON *run = r->json == NULL ? NULL : cJSON_Parse(r->json);
    if (run != NULL) cJSON_AddItemToObject(d, "run", run);
    return kac_cli_print_json(d);
}

static void print_result(const kac_generate_result *r, const char *page) {
    if (r->best != NULL) {
        printf("best     ");
        kac_cli_print_text(r->best);
        if (isfinite(r->best_reward)) printf("  (reward %.4g)", r->best_reward);
        printf("\n");
    }
    if (r->n_images > 1) {
        printf("all %-4d ", r->n_images);
        kac_cli_print_text(r->folder);
        printf("\n");
    }
    printf("page     ");
    kac_cli_print_text(page);
    printf("\n");
}

/* Prints what came out; the page is made of what is there, also of a run that stopped. */
static kac_status finish(const kac_cli *cli, const kac_generate_result *r, kac_status status) {
    if (status == KAC_OK && kac_options_bool(cli->options, "plan"))
        return r->json == NULL ? KAC_E_MEMORY : kac_cli_show(cli, cJSON_Parse(r->json));
    if (r->folder == NULL) return status;
    char *page = NULL;
    status = kac_cli_end_run(&page, cli, r->folder, status, "stopped", "pictures");
    if (status == KAC_OK && cli->json)
        status = print_json(r, page);
    else if (status == KAC_OK)
        print_result(r, page);
    if (status == KAC_OK && r->stopped) {
        char *line = kac_format("the search was stopped; 'kac generate --resume -o %s' goes on with it", r->folder);
        kac_cli_complain("generate", line == NULL ? "the search was stopped" : line);
        kac_free(line);
    }
    kac_free(page);
    return status;
}

static kac_status run(kac_cli *cli) {
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away ends no run */
    char *weights = kac_cli_weights_dir();
    kac_cli_progress *progress = kac_cli_progress_open("generate");
    if (weights == NULL || progress == NULL) return KAC_E_MEMORY;
    cli->argv[0] = (char[]){"kac"};
    const kac_generate_args args = {.options = cli->options,
                                    .command = (const char *const *)cli->argv,
                                    .n_command = cli->argc,
                                    .weights_dir = weights,
                                    .hooks = kac_cli_progress_hooks(progress)};
    kac_generate_result result = {0};
    kac_status s = kac_generate(&result, &args);
    kac_cli_progress_close(progress);
    s = finish(cli, &result, s);
    kac_generate_result_free(&result);
    kac_free(weights);
    return s;
}

static bool method_at(kac_cli_method *out, int i) {
    const kac_method *m = kac_method_list()[i];
    if (m != NULL) *out = (kac_cli_method){m->name, m->summary, m->options, kac_target_text(m->target)};
    return m != NULL;
}

static kac_status settle(kac_options *o, const char *method) {
    return kac_method_preset(kac_method_find(method), o);
}

static const kac_cli_methods methods = {
    .option = "steer", .what = "steering method", .at = method_at, .settle = settle};

const kac_cli_command kac_cli_generate = {
    .name = "generate",
    .summary = "Steered pictures from prompts, with a run folder and its page.",
    .words_usage = "PROMPT...",
    .max_words = -1,
    .words_option = "prompt",
    .options = kac_generate_options,
    .methods = &methods,
    .notes = KAC_REWARD_NOTES
    "\nexamples:\n"
    "  kac generate \"a red circle above a blue square\" --particles 16\n"
    "  kac generate \"two green stars\" --steer best-of-n --reward clip:1 --reward jpeg:-0.01 -o stars\n"
    "  kac generate --resume -o stars\n",
    .run = run,
};
