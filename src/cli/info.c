/* kac info [PATH]: what a model (folder or file), a file of weights, a picture or a run folder is; without a path, what this program and machine
 * are. */
#include "info.h"
#include "show.h"
#include "train/trainer.h"
#include "weights.h"
#include <stdio.h>
#include <string.h>

static const char *cpu_name(char buffer[128]) {
    char line[512];
    snprintf(buffer, 128, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (f == NULL) return buffer;
    while (fgets(line, sizeof line, f) != NULL) {
        const char *value = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (value == NULL) continue;
        value += 1 + strspn(value + 1, " \t");
        snprintf(buffer, 128, "%.*s", (int)KAC_MIN(strcspn(value, "\n"), 127), value);
        break;
    }
    fclose(f);
    return buffer;
}

static void add_features(cJSON *list) {
#if defined(__x86_64__)
#define FEATURE(name)                                                                                                  \
    if (__builtin_cpu_supports(name)) cJSON_AddItemToArray(list, cJSON_CreateString(name))
    FEATURE("avx2");
    FEATURE("fma");
    FEATURE("avx512f");
    FEATURE("avx512bw");
    FEATURE("avx512vl");
    FEATURE("avx512bf16");
#undef FEATURE
#else
    (void)list;
#endif
}

static kac_status describe_machine(cJSON *d) {
    char name[128];
    cJSON_AddStringToObject(d, "kac", KAC_VERSION);
    cJSON_AddStringToObject(d, "cpu", cpu_name(name));
    add_features(cJSON_AddArrayToObject(d, "features"));
    cJSON_AddNumberToObject(d, "threads", kac_cpu_count());
    cJSON_AddNumberToObject(d, "free_bytes", (double)kac_memory_available_bytes());
    cJSON *backends = cJSON_AddArrayToObject(d, "backends");
    cJSON_AddItemToArray(backends, cJSON_CreateString("cpu"));
    cJSON_AddItemToArray(backends, cJSON_CreateString("ref"));
    if (strcmp(KAC_ONEDNN_VERSION, "none") != 0) cJSON_AddItemToArray(backends, cJSON_CreateString("onednn"));
    cJSON_AddStringToObject(d, "onednn", KAC_ONEDNN_VERSION);
    char *weights = kac_cli_weights_dir();
    if (weights == NULL) return KAC_E_MEMORY;
    cJSON_AddStringToObject(d, "weights", weights);
    kac_free(weights);
    cJSON *methods = cJSON_AddArrayToObject(d, "steering");
    for (const kac_method *const *m = kac_method_list(); *m != NULL; m++)
        cJSON_AddItemToArray(methods, cJSON_CreateString((*m)->name));
    methods = cJSON_AddArrayToObject(d, "tuning");
    for (const kac_tune_method *const *m = kac_tune_method_list(); *m != NULL; m++)
        cJSON_AddItemToArray(methods, cJSON_CreateString((*m)->name));
    return KAC_OK;
}

static kac_status describe_folder(cJSON *d, const char *path) {
    const struct {
        const char *file;
        kac_status (*describe)(cJSON *, const char *);
    } kinds[] = {
        {"run.json", kac_info_run},
        {"events.jsonl", kac_info_run},
        {"log.jsonl", kac_info_run},
        {"model_index.json", kac_info_pipeline},
        {"config.json", kac_info_component},
        {"adapter_config.json", kac_info_lora},
        {"pytorch_lora_weights.safetensors", kac_info_lora},
    };
    for (int i = 0; i < KAC_COUNT_OF(kinds); i++) {
        char *file = kac_path_join(path, kinds[i].file);
        if (file == NULL) return KAC_E_MEMORY;
        const bool here = kac_file_exists(file);
        kac_free(file);
        if (!here) continue;
        KAC_TRY(kinds[i].describe(d, path));
        if (kinds[i].describe == kac_info_component) kac_info_add_reward(d, path);
        return KAC_OK;
    }
    if (kac_info_reward(d, path) == KAC_OK) return KAC_OK;
    char *why = kac_strdup(kac_error());
    const kac_status s =
        KAC_FAIL(KAC_E_FORMAT,
                 "%s is neither a model (model_index.json, config.json) nor a run folder (run.json) nor a reward (%s)",
                 path, why == NULL ? "" : why);
    kac_free(why);
    return s;
}

static kac_status describe_file(cJSON *d, const char *path) {
    unsigned char head[9] = {0};
    FILE *f = fopen(path, "rbe");
    if (f == NULL) return KAC_FAIL(KAC_E_IO, "%s cannot be read", path);
    const size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    if (n >= 8 && memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0) return kac_info_png(d, path);
    if (kac_info_is_lora(path)) return kac_info_lora(d, path);
    KAC_TRY(kac_info_weights(d, path));
    kac_info_add_reward(d, path);
    return KAC_OK;
}

static kac_status run(kac_cli *cli) {
    const char *path = cli->n_words > 0 ? cli->words[0] : NULL;
    cJSON *d = cJSON_CreateObject();
    kac_status s;
    if (path == NULL)
        s = describe_machine(d);
    else if (kac_dir_exists(path))
        s = describe_folder(d, path);
    else if (kac_file_exists(path))
        s = describe_file(d, path);
    else
        s = KAC_FAIL(KAC_E_IO, "%s: there is no such file or folder", path);
    if (s == KAC_OK) return kac_cli_show(cli, d);
    cJSON_Delete(d);
    return s;
}

const kac_cli_command kac_cli_info = {
    .name = "info",
    .summary = "What a model (folder or file), a file of weights, a picture or a run folder is; without a path, this "
               "program and machine.",
    .words_usage = "[PATH]",
    .max_words = 1,
    .options = (const kac_option_spec[]){{NULL}},
    .run = run,
};
