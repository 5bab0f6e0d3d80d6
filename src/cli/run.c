/* kac run COMPONENT: one part of a model on its own, from file to file, under the names and layouts of the reference implementation. */
#include "cli.h"
#include "run/backend.h"
#include "run/run_component.h"
#include "run/run_scheduler.h"
#include "text/tokenizer.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"model", 'm', KAC_OPT_TEXT, NULL, .meta = "DIR", .help = "a pipeline's folder, or the component's own"},
    {"in", 'i', KAC_OPT_TEXT, NULL, .meta = "FILE", .help = "safetensors file with the inputs"},
    {"out", 'o', KAC_OPT_TEXT, NULL, .meta = "FILE", .help = "safetensors file to write"},
    {"taps", 0, KAC_OPT_TEXT, NULL, .meta = "FILE",
     .help = "networks: also write every named intermediate result there"},
    {"grad", 0, KAC_OPT_BOOL, "false",
     .help = "networks: from grad.OUTPUT in the input file to grad.INPUT in the output file (vector-Jacobian product)"},
    {"dtype", 0, KAC_OPT_CHOICE, "f32", .choices = "f32|bf16", .help = "networks: arithmetic"},
    {"backend", 0, KAC_OPT_CHOICE, "cpu", .choices = KAC_BACKEND_CHOICES,
     .help = "networks: ref is slow, the formulas in plain C; onednn: products by oneDNN"},
    {"threads", 't', KAC_OPT_INT, "0", 0, 1024, .meta = "N", .help = "networks: 0: every CPU"},
    {"repeat", 0, KAC_OPT_INT, "1", 1, 1000000, .meta = "N", .help = "networks: the forward pass N times, timed"},
    {"lora", 0, KAC_OPT_TEXT, NULL, .meta = "FILE[:SCALE]", .repeatable = true, .help = "unet, text encoders: LoRA"},
    {"lora-merge", 0, KAC_OPT_BOOL, "false", .help = "add the LoRA to the weights while loading"},
    {"lora-partial", 0, KAC_OPT_BOOL, "false", .help = "go on when parts of a LoRA fit nothing in the network"},
    {"embedding", 0, KAC_OPT_TEXT, NULL, .meta = "FILE[:TOKEN]", .repeatable = true,
     .help = "text encoders: rows of textual inversions below the vocabulary's"},
    {"text", 0, KAC_OPT_TEXT, NULL, .meta = "TEXT", .help = "tokenizer: what to encode"},
    {"max-length", 0, KAC_OPT_INT, "0", 0, 65536, .meta = "N", .help = "tokenizer: cut and pad to N ids (0: neither)"},
    {"config", 0, KAC_OPT_TEXT, NULL, .meta = "FILE", .help = "scheduler: its scheduler_config.json"},
    {"steps", 0, KAC_OPT_INT, "50", 1, 10000, .meta = "K", .help = "scheduler: steps"},
    {"begin", 0, KAC_OPT_INT, "0", 0, 10000, .meta = "K",
     .help = "scheduler: first step to run, from a sample as noisy as that step expects"},
    {"mu", 0, KAC_OPT_REAL, "0", -100, 100, .meta = "MU",
     .help = "scheduler: of a flow model's use_dynamic_shifting, which follows the picture's size"},
    {"eta", 0, KAC_OPT_REAL, NULL, 0, 1, .meta = "ETA",
     .help = "scheduler: noise of ddim and euler-ancestral (default: the class's own)"},
    {"timesteps", 0, KAC_OPT_LIST, NULL, 0, 1e6, .meta = "LIST",
     .help = "scheduler: own descending timesteps instead of --steps"},
    {"sampling-method", 0, KAC_OPT_CHOICE, "auto", .choices = "auto|" KAC_SOLVER_CHOICES,
     .help = "scheduler: solver (auto: the class that the file names)"},
    {NULL},
};

/* The text of an option that this component cannot do without. */
static kac_status required(const char **out, const kac_cli *cli, const char *name) {
    *out = kac_options_text(cli->options, name);
    if (*out != NULL) return KAC_OK;
    return KAC_FAIL(KAC_E_USAGE, "%s needs --%s", cli->words[0], name);
}

static kac_status done(const kac_cli *cli, const char *out_path) {
    if (!cli->json) return KAC_OK;
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "out", out_path);
    return kac_cli_print_json(d);
}

/* dir/name when there is such a folder, else dir. Caller frees. */
static char *subfolder(const char *dir, const char *name) {
    char *path = kac_path_join(dir, name);
    if (path == NULL || kac_dir_exists(path)) return path;
    kac_free(path);
    return kac_strdup(dir);
}

static kac_status print_ids(const kac_cli *cli, const int32_t *ids, int n) {
    if (!cli->json) {
        for (int i = 0; i < n; i++) printf(i + 1 < n ? "%d " : "%d\n", (int)ids[i]);
        return KAC_OK;
    }
    cJSON *d = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(d, "input_ids");
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(ids[i]));
    return kac_cli_print_json(d);
}

static kac_status run_tokenizer(kac_cli *cli) {
    const char *model, *text;
    KAC_TRY(required(&model, cli, "model"));
    KAC_TRY(required(&text, cli, "text"));
    const int max_length = (int)kac_options_int(cli->options, "max-length");
    const int room = max_length > 0 ? KAC_MAX(max_length, 2) : (int)KAC_MIN(strlen(text), 1 << 20) * 4 + 2;
    char *path = subfolder(model, "tokenizer");
    int32_t *ids = kac_alloc((size_t)room * sizeof *ids);
    kac_tokenizer *tokenizer = NULL;
    kac_tokens used = {0};
    kac_status s = path == NULL || ids == NULL ? KAC_E_MEMORY : kac_tokenizer_load(&tokenizer, path);
    if (s == KAC_OK) s = kac_tokenizer_encode(ids, room, &used, tokenizer, text, strlen(text));
    if (s == KAC_OK) s = print_ids(cli, ids, max_length > 0 ? room : used.n);
    kac_tokenizer_free(tokenizer);
    kac_free(ids);
    kac_free(path);
    return s;
}

/* --config, or the scheduler of --model. Caller frees. */
static kac_status scheduler_config(char **out, const kac_cli *cli) {
    const char *config = kac_options_text(cli->options, "config"), *model = kac_options_text(cli->options, "model");
    if (config == NULL && model == NULL) return KAC_FAIL(KAC_E_USAGE, "scheduler needs --config or --model");
    char *folder = config == NULL ? subfolder(model, "scheduler") : NULL;
    *out = config != NULL ? kac_strdup(config) : folder == NULL ? NULL : kac_path_join(folder, "scheduler_config.json");
    kac_free(folder);
    return *out == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status run_scheduler(kac_cli *cli) {
    const kac_options *o = cli->options;
    const bool given = kac_options_given(o, "timesteps");
    kac_run_scheduler_args args = {.options = {.kind = kac_solver_find(kac_options_text(o, "sampling-method")),
                                               .n_steps = (int)kac_options_int(o, "steps"),
                                               .n_timesteps = given ? kac_options_count(o, "timesteps") : 0,
                                               .mu = kac_options_real(o, "mu"),
                                               .begin = (int)kac_options_int(o, "begin"),
                                               .eta = kac_options_given(o, "eta") ? kac_options_real(o, "eta") : NAN}};
    KAC_TRY(required(&args.in_path, cli, "in"));
    KAC_TRY(required(&args.out_path, cli, "out"));
    char *config = NULL;
    KAC_TRY(scheduler_config(&config, cli));
    double *timesteps = kac_alloc((size_t)(args.options.n_timesteps + 1) * sizeof *timesteps);
    kac_status s = timesteps == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < args.options.n_timesteps && s == KAC_OK; i++)
        timesteps[i] = (double)kac_options_int_at(o, "timesteps", i);
    args.config_path = config;
    args.options.timesteps = given ? timesteps : NULL;
    if (s == KAC_OK) s = kac_run_scheduler(&args);
    if (s == KAC_OK) s = done(cli, args.out_path);
    kac_free(timesteps);
    kac_free(config);
    return s;
}

static kac_status print_times(const kac_cli *cli, const char *out_path, const double *ms, int n) {
    if (!cli->json) {
        for (int i = 0; i < n && n > 1; i++) printf("%.3f ms\n", ms[i]);
        return KAC_OK;
    }
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "out", out_path);
    cJSON *list = cJSON_AddArrayToObject(d, "repeat_ms");
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(ms[i]));
    return kac_cli_print_json(d);
}

static kac_status run_network(kac_cli *cli) {
    const kac_options *o = cli->options;
    kac_run_component_args args = {.component = cli->words[0],
                                   .options = o,
                                   .taps_path = kac_options_text(o, "taps"),
                                   .grad = kac_options_bool(o, "grad"),
                                   .dtype = strcmp(kac_options_text(o, "dtype"), "bf16") == 0 ? KAC_BF16 : KAC_F32,
                                   .n_threads = (int)kac_options_int(o, "threads"),
                                   .n_repeat = (int)kac_options_int(o, "repeat")};
    KAC_TRY(required(&args.model_dir, cli, "model"));
    KAC_TRY(required(&args.in_path, cli, "in"));
    KAC_TRY(required(&args.out_path, cli, "out"));
    KAC_TRY(kac_backend_find(&args.ops, kac_options_text(o, "backend")));
    args.repeat_ms = kac_alloc((size_t)args.n_repeat * sizeof *args.repeat_ms);
    kac_status s = args.repeat_ms == NULL ? KAC_E_MEMORY : kac_run_component(&args);
    if (s == KAC_OK) s = print_times(cli, args.out_path, args.repeat_ms, args.n_repeat);
    kac_free(args.repeat_ms);
    return s;
}

static const struct {
    const char *name;
    kac_status (*run)(kac_cli *cli);
} components[] = {{"tokenizer", run_tokenizer}, {"text_encoder", run_network}, {"text_encoder_2", run_network},
                  {"unet", run_network},        {"vae.encode", run_network},   {"vae.decode", run_network},
                  {"clip", run_network},        {"scheduler", run_scheduler}};

static kac_status run(kac_cli *cli) {
    const char *name = cli->words[0], *names[KAC_COUNT_OF(components) + 1] = {NULL};
    for (int i = 0; i < KAC_COUNT_OF(components); i++) {
        if (strcmp(components[i].name, name) == 0) return components[i].run(cli);
        names[i] = components[i].name;
    }
    const char *nearest = kac_nearest(name, names);
    if (nearest != NULL) return KAC_FAIL(KAC_E_USAGE, "unknown component '%.60s'; did you mean %s?", name, nearest);
    return KAC_FAIL(KAC_E_USAGE, "unknown component '%.60s'; 'kac run --help' lists them", name);
}

const kac_cli_command kac_cli_run = {
    .name = "run",
    .summary = "One part of a model alone, from file to file: tokenizer, text_encoder, text_encoder_2, unet, "
               "vae.encode, vae.decode, "
               "clip, scheduler.",
    .words_usage = "COMPONENT",
    .min_words = 1,
    .max_words = 1,
    .options = options,
    .notes = "Tensors have the names and layouts of the reference implementation's forward arguments and outputs:\n"
             "  unet          sample, timestep, encoder_hidden_states -> sample\n"
             "  text_encoder  input_ids -> last_hidden_state, pooler_output (text_encoder_2 likewise)\n"
             "  clip          pixel_values, input_ids -> image_embeds, text_embeds, logits_per_image\n"
             "  vae.encode    sample -> moments\n"
             "  vae.decode    z -> sample\n"
             "  scheduler     sample, noise -> sample, trajectory, timesteps (one loop against a dummy network)\n"
             "\nexamples:\n"
             "  kac run tokenizer --model weights/shapes-64 --text \"two green stars\" --json\n"
             "  kac run unet --model weights/shapes-64 --in a.safetensors --out b.safetensors\n"
             "  kac run scheduler --config scheduler_config.json --in x.safetensors --out y.safetensors --steps 10\n",
    .run = run,
};
