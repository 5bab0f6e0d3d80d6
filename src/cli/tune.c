/* kac tune: a LoRA (or a whole network) that raises a reward, with a run folder and its page; and LoRA files mixed. */
#include "run/tune.h"
#include "cli.h"
#include "io/lora.h"
#include "progress.h"
#include "reward/reward_set.h"
#include "run/lora_mix.h"
#include "run/tune_options.h"
#include "show.h"
#include "weights.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool method_at(kac_cli_method *out, int i) {
    const kac_tune_method *m = kac_tune_method_list()[i];
    if (m != NULL) *out = (kac_cli_method){m->name, m->summary, m->options};
    return m != NULL;
}

static const kac_cli_methods methods = {.option = "method",
                                        .what = "tuning method",
                                        .at = method_at,
                                        .shared = kac_trainer_options,
                                        .shared_title = "of every method:"};

/* ---- tuning ---- */

static double number_of(const cJSON *run, const char *object, const char *key) {
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(run, object), key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

static void print_result(const kac_cli *cli, const kac_tune_result *r, const char *page) {
    cJSON *run = r->json == NULL ? NULL : cJSON_Parse(r->json);
    printf("tuned    ");
    kac_cli_print_text(r->file);
    if (strcmp(kac_options_text(cli->options, "train"), "full") == 0)
        printf("  (a whole network: takes the place of unet/diffusion_pytorch_model.safetensors)");
    printf("\nreward   %.4g before, %.4g after", number_of(run, "before", "reward"), number_of(run, "after", "reward"));
    const cJSON *held = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(run, "after"), "held_out"),
                *v;
    cJSON_ArrayForEach(v, held) {
        const cJSON *before =
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(run, "before"), "held_out");
        before = cJSON_GetObjectItemCaseSensitive(before, v->string);
        printf("; ");
        kac_cli_print_text(v->string);
        printf(" %.4g, %.4g", cJSON_IsNumber(before) ? before->valuedouble : NAN, v->valuedouble);
    }
    printf("\npage     ");
    kac_cli_print_text(page);
    printf("\n");
    cJSON_Delete(run);
}

static kac_status print_json(const kac_tune_result *r, const char *page) {
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "folder", r->folder);
    cJSON_AddStringToObject(d, "file", r->file);
    cJSON_AddStringToObject(d, "page", page);
    cJSON *run = r->json == NULL ? NULL : cJSON_Parse(r->json);
    if (run != NULL) cJSON_AddItemToObject(d, "run", run);
    return kac_cli_print_json(d);
}

/* Prints what came out; the page is made of what is there, also of a run that stopped. */
static kac_status finish(const kac_cli *cli, const kac_tune_result *r, kac_status status) {
    if (status == KAC_OK && kac_options_bool(cli->options, "plan"))
        return r->json == NULL ? KAC_E_MEMORY : kac_cli_show(cli, cJSON_Parse(r->json));
    if (r->folder == NULL) return status;
    char *page = NULL;
    status = kac_cli_end_run(&page, cli, r->folder, status, NULL, "LoRA");
    if (status == KAC_OK && cli->json)
        status = print_json(r, page);
    else if (status == KAC_OK)
        print_result(cli, r, page);
    kac_free(page);
    return status;
}

static kac_status tune(kac_cli *cli) {
    char *weights = kac_cli_weights_dir();
    kac_cli_progress *progress = kac_cli_progress_open("tune");
    if (weights == NULL || progress == NULL) return KAC_E_MEMORY;
    cli->argv[0] = (char[]){"kac"};
    const kac_tune_args args = {.options = cli->options,
                                .command = (const char *const *)cli->argv,
                                .n_command = cli->argc,
                                .weights_dir = weights,
                                .hooks = kac_cli_progress_tune_hooks(progress)};
    kac_tune_result result = {0};
    kac_status s = kac_tune(&result, &args);
    kac_cli_progress_close(progress);
    s = finish(cli, &result, s);
    kac_tune_result_free(&result);
    kac_free(weights);
    return s;
}

/* ---- mixing ---- */

static bool is_number(const char *word, double *out) {
    char *end;
    *out = strtod(word, &end);
    return end != word && *end == '\0' && isfinite(*out) && strspn(word, "+-.0123456789eE") == strlen(word);
}

/* Files, then their weights; of two files one weight is enough: that of the first, the second has the rest. */
static kac_status read_mix(const kac_cli *cli, const char **files, double *weights, int *n) {
    int n_weights = 0;
    double v;
    *n = 0;
    for (int i = 0; i < cli->n_words; i++) {
        const bool number = is_number(cli->words[i], &v);
        if (!number && n_weights > 0)
            return KAC_FAIL(KAC_E_USAGE, "'%.100s' stands behind a weight: files come first", cli->words[i]);
        if ((number ? n_weights : *n) == KAC_LORA_MIX_MAX)
            return KAC_FAIL(KAC_E_USAGE, "at most %d files can be mixed", KAC_LORA_MIX_MAX);
        if (number)
            weights[n_weights++] = v;
        else
            files[(*n)++] = cli->words[i];
    }
    if (*n == 2 && n_weights == 1) weights[n_weights++] = 1 - weights[0];
    if (*n >= 1 && n_weights == *n) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE,
                    "--mix takes files and then their weights, A.safetensors B.safetensors 0.5; there are %d "
                    "files and %d weights",
                    *n, n_weights);
}

static kac_status mix(kac_cli *cli) {
    const char *files[KAC_LORA_MIX_MAX], *out = kac_options_text(cli->options, "output");
    double weights[KAC_LORA_MIX_MAX + 1];
    int n;
    KAC_TRY(read_mix(cli, files, weights, &n));
    if (out == NULL) out = "mix.safetensors";
    if (kac_file_exists(out) || kac_dir_exists(out))
        return KAC_FAIL(KAC_E_USAGE, "%s exists; give another --output", out);
    const bool factors = strcmp(kac_options_text(cli->options, "mix-by"), "factors") == 0;
    const bool peft = strcmp(kac_options_text(cli->options, "lora-format"), "peft") == 0;
    const kac_lora_mix_args args = {.files = files,
                                    .weights = weights,
                                    .n = n,
                                    .factors = factors,
                                    .format = peft ? KAC_LORA_PEFT : KAC_LORA_KOHYA,
                                    .out = out};
    kac_lora_mix_result r;
    KAC_TRY(kac_lora_mix(&r, &args));
    if (cli->json) {
        cJSON *d = cJSON_CreateObject();
        cJSON_AddStringToObject(d, "file", out);
        cJSON_AddStringToObject(d, "by", factors ? "factors" : "change");
        cJSON_AddNumberToObject(d, "modules", r.n_modules);
        cJSON_AddNumberToObject(d, "shared", r.n_shared);
        cJSON_AddNumberToObject(d, "rank_min", (double)r.rank_min);
        cJSON_AddNumberToObject(d, "rank_max", (double)r.rank_max);
        return kac_cli_print_json(d);
    }
    kac_cli_print_text(out);
    printf(": %s of %d files, %d layers, rank %lld", factors ? "averaged factors" : "the exact sum of the changes", n,
           r.n_modules, (long long)r.rank_min);
    if (r.rank_max != r.rank_min) printf(" to %lld", (long long)r.rank_max);
    printf("\n");
    return KAC_OK;
}

static kac_status run(kac_cli *cli) {
    signal(SIGPIPE, SIG_IGN); /* a reader that goes away ends no run */
    return kac_options_bool(cli->options, "mix") ? mix(cli) : tune(cli);
}

const kac_cli_command kac_cli_tune = {
    .name = "tune",
    .summary = "Tunes a model to a reward: a LoRA, with a run folder and its page. Or mixes LoRA files.",
    .words_usage = "[PROMPT...]",
    .max_words = -1,
    .words_option = "prompt",
    .options = kac_tune_options,
    .methods = &methods,
    .notes = KAC_REWARD_NOTES
    "\nexamples:\n"
    "  kac tune --time 600 -o better\n"
    "  kac tune --method draft-k --reward color=#2040ff --prompts animals.txt --model sd15 --rounds 200 --rank 4\n"
    "  kac tune --resume -o better\n"
    "  kac generate \"a red circle\" --lora better/tuned.safetensors\n"
    "  kac tune --mix better/tuned.safetensors blue/tuned.safetensors 0.5 -o both.safetensors\n",
    .run = run,
};
