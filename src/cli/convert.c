/* kac convert IN OUT: checkpoints from one layout and dtype to another. */
#include "run/convert.h"
#include "cli.h"
#include "run/convert_lora.h"
#include "weights.h"
#include <kac/tensor.h>
#include <stdio.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"dtype", 0, KAC_OPT_CHOICE, "keep", .choices = "keep|f32|f16|bf16", .help = "what floating-point tensors become"},
    {"variant", 0, KAC_OPT_TEXT, NULL, .meta = "NAME", .help = "of a folder's weights: fp16, non_ema"},
    {"lora-format", 0, KAC_OPT_CHOICE, "kohya", .choices = "kohya|peft|diffusers|processor",
     .help = "names of the keys when IN is a LoRA"},
    {"overwrite", 0, KAC_OPT_BOOL, "false", .help = "replace what is at OUT"},
    {NULL},
};

static int dtype_of(const char *name) {
    static const struct {
        const char *name;
        int dtype;
    } names[] = {{"f32", KAC_F32}, {"f16", KAC_F16}, {"bf16", KAC_BF16}};
    for (int i = 0; i < KAC_COUNT_OF(names); i++)
        if (strcmp(names[i].name, name) == 0) return names[i].dtype;
    return -1;
}

static kac_status print_result(const kac_cli *cli, const kac_convert_result *r, const char *out) {
    char bytes[32];
    if (!cli->json) {
        printf("%s: %s, %d tensors, %s\n", out, r->kind, r->n_tensors, kac_cli_bytes(r->bytes, bytes));
        return KAC_OK;
    }
    cJSON *d = cJSON_CreateObject();
    cJSON_AddStringToObject(d, "out", out);
    cJSON_AddStringToObject(d, "kind", r->kind);
    cJSON_AddNumberToObject(d, "tensors", r->n_tensors);
    cJSON_AddNumberToObject(d, "bytes", r->bytes);
    return kac_cli_print_json(d);
}

static kac_status convert_lora(kac_cli *cli) {
    kac_convert_lora_args a = {
        .in = cli->words[0], .out = cli->words[1], .dtype = dtype_of(kac_options_text(cli->options, "dtype"))};
    for (int i = 0; i < KAC_LORA_N_FORMATS; i++)
        if (strcmp(kac_options_text(cli->options, "lora-format"), kac_lora_format_name((kac_lora_format)i)) == 0)
            a.format = (kac_lora_format)i;
    if (kac_file_exists(a.out) && !kac_options_bool(cli->options, "overwrite"))
        return KAC_FAIL(KAC_E_USAGE, "%s exists; --overwrite replaces it", a.out);
    kac_lora_written r;
    KAC_TRY(kac_convert_lora(&r, &a));
    return print_result(
        cli, &(kac_convert_result){.kind = "LoRA", .n_tensors = r.n_tensors, .bytes = (double)r.n_bytes}, a.out);
}

static kac_status run(kac_cli *cli) {
    if (kac_convert_is_lora(cli->words[0])) return convert_lora(cli);
    if (kac_options_given(cli->options, "lora-format"))
        return KAC_FAIL(KAC_E_USAGE, "%s is no LoRA: --lora-format says nothing about it", cli->words[0]);
    char *weights = kac_cli_weights_dir(),
         *merges = weights == NULL ? NULL : kac_path_join(weights, "clip-tokenizer/bpe_simple_vocab_16e6.txt.gz");
    const kac_convert_args args = {.in = cli->words[0],
                                   .out = cli->words[1],
                                   .dtype = dtype_of(kac_options_text(cli->options, "dtype")),
                                   .variant = kac_options_text(cli->options, "variant"),
                                   .overwrite = kac_options_bool(cli->options, "overwrite"),
                                   .merges = merges};
    kac_convert_result r;
    kac_status s = merges == NULL ? KAC_E_MEMORY : kac_convert(&r, &args);
    if (s == KAC_OK) s = print_result(cli, &r, args.out);
    kac_free(merges);
    kac_free(weights);
    return s;
}

const kac_cli_command kac_cli_convert = {
    .name = "convert",
    .summary = "Checkpoints from one layout and dtype to another; safetensors out.",
    .words_usage = "IN OUT",
    .min_words = 2,
    .max_words = 2,
    .options = options,
    .notes = "IN is a model folder, a network's folder, or a file: .safetensors, .bin, .pt, .pth, .ckpt.\n"
             "OUT is a file when it ends in .safetensors, else a folder.\n"
             "  folder -> file     all networks under the original (LDM) names\n"
             "  file -> folder     the reverse: a diffusers folder\n"
             "  file -> file       the same names\n"
             "  folder -> folder   each network's weights in one file\n"
             "  LoRA -> file       other names of the keys, scales kept (kohya) or multiplied in\n"
             "\nexamples:\n"
             "  kac convert model.ckpt model.safetensors --dtype f16\n"
             "  kac convert sd15.safetensors sd15\n"
             "  kac convert pytorch_lora_weights.safetensors style.safetensors --lora-format kohya\n"
             "  kac convert weights/shapes-64 shapes.safetensors\n",
    .run = run,
};
