#include "run/run_record.h"
#include "tensor/ops.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

char *kac_run_folder_default(const char *what) {
    char when[32], slug[33] = "";
    const time_t now = time(NULL);
    struct tm local;
    strftime(when, sizeof when, "%Y%m%d-%H%M%S", localtime_r(&now, &local));
    size_t n = 0;
    for (const char *p = what; *p != '\0' && n < sizeof slug - 1; p++) {
        const bool plain = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9'), upper = *p >= 'A' && *p <= 'Z';
        if (plain || upper)
            slug[n++] = (char)(upper ? *p - 'A' + 'a' : *p);
        else if (n > 0 && slug[n - 1] != '-')
            slug[n++] = '-';
    }
    while (n > 0 && slug[n - 1] == '-') n--;
    slug[n] = '\0';
    for (int i = 1; i < 1000; i++) {
        char *path = i == 1 ? kac_format("runs/%s-%s", when, slug) : kac_format("runs/%s-%s-%d", when, slug, i);
        if (path == NULL || !kac_dir_exists(path)) return path;
        kac_free(path);
    }
    (void)KAC_FAIL(KAC_E_IO, "no free name for a run folder in runs/; give --output");
    return NULL;
}

cJSON *kac_run_options(const kac_options *o, cJSON *given) {
    cJSON *all = cJSON_CreateObject();
    const kac_option_spec *spec;
    for (int i = 0; (spec = kac_options_spec(o, i)) != NULL; i++) {
        if (kac_options_given(o, spec->name)) cJSON_AddItemToArray(given, cJSON_CreateString(spec->name));
        if (spec->repeatable) {
            const int n = kac_options_count(o, spec->name);
            cJSON *list = n == 0 ? NULL : cJSON_AddArrayToObject(all, spec->name);
            for (int k = 0; k < n; k++)
                cJSON_AddItemToArray(list, cJSON_CreateString(kac_options_text_at(o, spec->name, k)));
        } else if (kac_options_as_text(o, spec->name)[0] != '\0') {
            cJSON_AddStringToObject(all, spec->name, kac_options_as_text(o, spec->name));
        }
    }
    return all;
}

kac_status kac_run_same_options(const kac_run_folder *f, const cJSON *now, const char *const *free_names) {
    const cJSON *then = cJSON_GetObjectItemCaseSensitive(f->run, "options");
    for (const cJSON *a = now->child; a != NULL; a = a->next) {
        bool is_free = false;
        for (int i = 0; free_names[i] != NULL && !is_free; i++) is_free = strcmp(free_names[i], a->string) == 0;
        if (!is_free && !cJSON_Compare(a, cJSON_GetObjectItemCaseSensitive(then, a->string), true))
            return KAC_FAIL(KAC_E_USAGE, "--resume: the run in %s was started with another --%s", f->path, a->string);
    }
    return KAC_OK;
}

kac_status kac_run_folder_take(kac_run_folder *f, cJSON *facts) {
    while (facts != NULL && facts->child != NULL) {
        cJSON *item = cJSON_DetachItemViaPointer(facts, facts->child);
        char *key = kac_strdup(item->string);
        const kac_status s = key == NULL ? KAC_E_MEMORY : kac_run_folder_set(f, key, item);
        kac_free(key);
        if (s != KAC_OK) {
            cJSON_Delete(facts);
            return s;
        }
    }
    cJSON_Delete(facts);
    return KAC_OK;
}

kac_status kac_run_folder_finish(kac_run_folder *f, kac_status status, cJSON *facts, char **json) {
    char error[1024];
    snprintf(error, sizeof error, "%s", kac_error()); /* what failed first is what counts */
    const bool ended = status == KAC_OK && !f->stopped;
    const char *state = ended ? "finished" : status == KAC_OK || status == KAC_E_CANCELLED ? "interrupted" : "failed";
    kac_status s = kac_run_folder_take(f, facts);
    if (s == KAC_OK)
        s = kac_run_folder_write(f, state, status == KAC_OK || status == KAC_E_CANCELLED ? NULL : error);
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "state", state);
    const kac_status s2 = kac_run_folder_event(f, "end", line);
    const bool anytime = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(f->run, "anytime"));
    if (ended && !anytime && s == KAC_OK) kac_run_folder_checkpoint_remove(f);
    char *text = cJSON_Print(f->run);
    *json = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text);
    if (status != KAC_OK) return KAC_FAIL(status, "%s", error);
    return s != KAC_OK ? s : s2;
}

void kac_run_add_origin(cJSON *facts, const char *const *command, int n_command) {
    char when[32];
    const time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    cJSON_AddStringToObject(facts, "version", KAC_VERSION);
    cJSON_AddStringToObject(facts, "started", when);
    cJSON *list = cJSON_AddArrayToObject(facts, "command");
    for (int i = 0; i < n_command; i++) cJSON_AddItemToArray(list, cJSON_CreateString(command[i]));
}

cJSON *kac_run_model_facts(const char *model_path, const kac_pipeline *p, bool checksums) {
    const size_t quick_bytes = 64 << 20, n_model = strlen(model_path);
    cJSON *model = cJSON_CreateObject();
    cJSON_AddStringToObject(model, "path", model_path);
    cJSON *files = cJSON_AddArrayToObject(model, "files");
    for (int i = 0; i < p->n_files; i++) {
        const char *path = p->files[i];
        const bool inside = strncmp(path, model_path, n_model) == 0 && path[n_model] == '/';
        cJSON *f = cJSON_CreateObject();
        cJSON_AddStringToObject(f, "path", inside ? path + n_model + 1 : path);
        kac_map m;
        if (kac_map_open(&m, path) == KAC_OK) { /* --vae may name a folder */
            char hex[65];
            cJSON_AddNumberToObject(f, "bytes", (double)m.n);
            if (checksums && m.n <= quick_bytes) {
                kac_sha256(hex, m.data, m.n);
                cJSON_AddStringToObject(f, "sha256", hex);
            }
            kac_map_close(&m);
        }
        cJSON_AddItemToArray(files, f);
    }
    return model;
}

cJSON *kac_run_machine_facts(const kac_ctx *c) {
    cJSON *machine = cJSON_CreateObject();
    char cpu[128];
    kac_cpu_name(cpu, sizeof cpu);
    cJSON_AddStringToObject(machine, "backend", c->ops->name);
    cJSON_AddStringToObject(machine, "dtype", kac_dtype_name(c->dtype));
    cJSON_AddNumberToObject(machine, "threads", c->n_threads);
    cJSON_AddStringToObject(machine, "cpu", cpu);
    return machine;
}

size_t kac_run_available_bytes(const kac_options *o) {
    const size_t free_bytes = kac_memory_available_bytes();
    if (!kac_options_given(o, "memory-limit")) return free_bytes;
    return KAC_MIN(free_bytes, (size_t)(kac_options_real(o, "memory-limit") * (double)(1 << 30)));
}

void kac_run_say(void (*say)(void *self, const char *line), void *self, const char *format, va_list args) {
    if (say == NULL) return;
    char line[512];
    vsnprintf(line, sizeof line, format, args);
    say(self, line);
}
