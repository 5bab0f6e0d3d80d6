#include "run/run_folder.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "report/report.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char checkpoint_name[] = "checkpoint.safetensors";

char *kac_run_folder_file(const kac_run_folder *f, const char *name) {
    return kac_path_join(f->path, name);
}

cJSON *kac_json_number(double v) {
    return isfinite(v) ? cJSON_CreateNumber(v) : cJSON_CreateNull();
}

/* Opens events.jsonl for appending; a line cut by a kill is ended first. */
static kac_status open_events(kac_run_folder *f) {
    char *path = kac_run_folder_file(f, f->log);
    if (path == NULL) return KAC_E_MEMORY;
    f->events_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    kac_status s = KAC_OK;
    if (f->events_fd < 0) s = KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(errno));
    char last;
    const off_t end = s == KAC_OK ? lseek(f->events_fd, 0, SEEK_END) : 0;
    if (end > 0 && pread(f->events_fd, &last, 1, end - 1) == 1 && last != '\n' && write(f->events_fd, "\n", 1) != 1)
        s = KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(errno));
    kac_free(path);
    return s;
}

static kac_status folder_open(kac_run_folder *f, const char *path, const char *log) {
    *f = (kac_run_folder){.path = kac_strdup(path), .log = log, .events_fd = -1, .start_ms = kac_now_ms()};
    return f->path == NULL ? KAC_E_MEMORY : KAC_OK;
}

kac_status kac_run_folder_create(kac_run_folder *f, const char *path, const char *log) {
    KAC_TRY(folder_open(f, path, log));
    char *run = kac_run_folder_file(f, "run.json"), *events = kac_run_folder_file(f, log);
    kac_status s = run == NULL || events == NULL ? KAC_E_MEMORY : KAC_OK;
    struct stat st; /* an empty log alone is what a kill at the very beginning leaves */
    if (s == KAC_OK && (access(run, F_OK) == 0 || (stat(events, &st) == 0 && st.st_size > 0)))
        s = KAC_FAIL(KAC_E_USAGE, "%s holds a run already; give another --output, or --resume to go on with it", path);
    if (s == KAC_OK) s = kac_dir_make(path);
    kac_free(run), kac_free(events);
    f->run = cJSON_CreateObject();
    if (s == KAC_OK && f->run == NULL) s = KAC_FAIL(KAC_E_MEMORY, "out of memory");
    if (s == KAC_OK) s = kac_run_folder_set(f, "kac_run", cJSON_CreateNumber(KAC_RUN_LAYOUT));
    if (s == KAC_OK) s = open_events(f);
    if (s != KAC_OK) kac_run_folder_close(f);
    return s;
}

kac_status kac_run_folder_resume(kac_run_folder *f, const char *path, const char *log) {
    KAC_TRY(folder_open(f, path, log));
    char *run = kac_run_folder_file(f, "run.json");
    kac_json j = {0};
    kac_status s = run == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && !kac_file_exists(run)) s = KAC_FAIL(KAC_E_USAGE, "%s holds no run to go on with", path);
    if (s == KAC_OK) s = kac_json_load(&j, run);
    const char *state = "";
    if (s == KAC_OK) s = kac_json_text(&j, j.root, "state", &state);
    const bool anytime = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j.root, "anytime"));
    if (s == KAC_OK && strcmp(state, "finished") == 0 && !anytime)
        s = KAC_FAIL(KAC_E_USAGE, "the run in %s is finished already", path);
    f->run = j.root, j.root = NULL;
    kac_json_free(&j), kac_free(run);
    if (s == KAC_OK) s = open_events(f);
    if (s != KAC_OK) kac_run_folder_close(f);
    return s;
}

void kac_run_folder_close(kac_run_folder *f) {
    if (f->events_fd >= 0) close(f->events_fd);
    cJSON_Delete(f->run);
    kac_free(f->path);
    *f = (kac_run_folder){.events_fd = -1};
}

kac_status kac_run_folder_set(kac_run_folder *f, const char *key, cJSON *value) {
    if (value == NULL) return KAC_FAIL(KAC_E_MEMORY, "out of memory while writing run.json");
    cJSON_DeleteItemFromObjectCaseSensitive(f->run, key);
    if (cJSON_AddItemToObject(f->run, key, value)) return KAC_OK;
    cJSON_Delete(value);
    return KAC_FAIL(KAC_E_MEMORY, "out of memory while writing run.json");
}

kac_status kac_run_folder_write(kac_run_folder *f, const char *state, const char *error) {
    KAC_TRY(kac_run_folder_set(f, "state", cJSON_CreateString(state)));
    if (error != NULL)
        KAC_TRY(kac_run_folder_set(f, "error", cJSON_CreateString(error)));
    else
        cJSON_DeleteItemFromObjectCaseSensitive(f->run, "error");
    char *text = cJSON_Print(f->run), *path = kac_run_folder_file(f, "run.json");
    const kac_status s = text == NULL || path == NULL ? KAC_FAIL(KAC_E_MEMORY, "out of memory while writing run.json")
                                                      : kac_file_write(path, text, strlen(text));
    cJSON_free(text), kac_free(path);
    return s;
}

kac_status kac_run_folder_event(kac_run_folder *f, const char *name, cJSON *event) {
    cJSON_AddStringToObject(event, "event", name);
    cJSON_AddNumberToObject(event, "ms", round(kac_now_ms() - f->start_ms));
    char *text = cJSON_PrintUnformatted(event);
    cJSON_Delete(event);
    char *line = text == NULL ? NULL : kac_format("%s\n", text);
    cJSON_free(text);
    if (line == NULL) return KAC_FAIL(KAC_E_MEMORY, "out of memory while writing %s", f->log);
    const size_t n = strlen(line);
    const ssize_t put = write(f->events_fd, line, n); /* one call: a kill cuts at most this line */
    const int error = errno;
    kac_free(line);
    return put == (ssize_t)n
               ? KAC_OK
               : KAC_FAIL(KAC_E_IO, "cannot write %s/%s: %s", f->path, f->log, strerror(put < 0 ? error : ENOSPC));
}

int64_t kac_run_folder_log_bytes(const kac_run_folder *f) {
    return (int64_t)lseek(f->events_fd, 0, SEEK_END);
}

kac_status kac_run_folder_log_cut(kac_run_folder *f, int64_t n_bytes) {
    if (n_bytes > kac_run_folder_log_bytes(f))
        return KAC_FAIL(KAC_E_FORMAT, "%s/%s is shorter than its checkpoint says", f->path, f->log);
    if (ftruncate(f->events_fd, (off_t)n_bytes) == 0) return KAC_OK;
    return KAC_FAIL(KAC_E_IO, "cannot cut %s/%s: %s", f->path, f->log, strerror(errno));
}

static void add_ints(cJSON *object, const char *key, const int *v, int n) {
    cJSON *list = cJSON_AddArrayToObject(object, key);
    for (int i = 0; v != NULL && i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateNumber(v[i]));
}

static void add_reals(cJSON *object, const char *key, const double *v, int n) {
    if (v == NULL) {
        cJSON_AddNullToObject(object, key);
        return;
    }
    cJSON *list = cJSON_AddArrayToObject(object, key);
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, kac_json_number(v[i]));
}

cJSON *kac_run_step_json(const kac_step_event *e) {
    cJSON *line = cJSON_CreateObject();
    if (line == NULL) return NULL;
    cJSON_AddNumberToObject(line, "i_step", e->i_step);
    cJSON_AddNumberToObject(line, "n_steps", e->n_steps);
    cJSON_AddNumberToObject(line, "group", e->group);
    cJSON_AddNumberToObject(line, "n_groups", e->n_groups);
    cJSON_AddBoolToObject(line, "scored", e->scored);
    cJSON_AddBoolToObject(line, "resampled", e->resampled);
    add_ints(line, "ancestors", e->ancestors, e->n_particles);
    add_ints(line, "eves", e->eves, e->n_particles);
    add_reals(line, "log_weights", e->log_weights, e->n_particles);
    add_reals(line, "rewards", e->scored ? e->rewards : NULL, e->n_particles);
    cJSON_AddItemToObject(line, "ess", kac_json_number(e->ess));
    cJSON_AddItemToObject(line, "log_z", kac_json_number(e->log_z));
    return line;
}

kac_status kac_run_folder_step(kac_run_folder *f, const kac_step_event *e, cJSON *counts) {
    cJSON *line = kac_run_step_json(e);
    if (line == NULL) {
        cJSON_Delete(counts);
        return KAC_FAIL(KAC_E_MEMORY, "out of memory while writing events.jsonl");
    }
    cJSON_AddItemToObject(line, "counts", counts);
    return kac_run_folder_event(f, "step", line);
}

/* ---- checkpoints ---- */

kac_status kac_run_folder_checkpoint(kac_run_folder *f, int i_step, const kac_blob *blobs, int n, bool now) {
    const double every_ms = 2000;
    if (!now && kac_now_ms() - KAC_MAX(f->checkpoint_ms, f->start_ms) < every_ms) return KAC_OK;
    kac_st_item *items = kac_alloc((size_t)n * sizeof *items);
    char *path = kac_run_folder_file(f, checkpoint_name), step[16];
    snprintf(step, sizeof step, "%d", i_step + 1);
    const kac_st_pair pair = {"next_step", step};
    kac_status s = items == NULL || path == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++)
        items[i] = (kac_st_item){blobs[i].name, kac_tensor_make(blobs[i].data, KAC_U8, (int64_t)blobs[i].n_bytes)};
    if (s == KAC_OK) s = kac_st_write(path, items, n, &pair, 1);
    kac_free(items), kac_free(path);
    f->checkpoint_ms = kac_now_ms();
    return s;
}

static kac_status fill_blobs(const kac_weights *st, int *i_step, kac_blob *blobs, int n) {
    const char *next = kac_weights_metadata(st, "next_step");
    char *end;
    const long step = next == NULL ? -1 : strtol(next, &end, 10);
    if (step < 0 || step > 1000000 || *end != '\0') return KAC_FAIL(KAC_E_FORMAT, "%s names no step", st->path);
    for (int i = 0; i < n; i++) {
        kac_tensor t;
        KAC_TRY(kac_weights_find(st, blobs[i].name, &t));
        if (blobs[i].data == NULL) {
            blobs[i].n_bytes = kac_tensor_bytes(t);
            blobs[i].data = kac_alloc(KAC_MAX(blobs[i].n_bytes, 1));
            if (blobs[i].data == NULL) return KAC_E_MEMORY;
        }
        if (kac_tensor_bytes(t) != blobs[i].n_bytes)
            return KAC_FAIL(KAC_E_FORMAT, "%s: %s has %zu bytes, this run wants %zu", st->path, blobs[i].name,
                            kac_tensor_bytes(t), blobs[i].n_bytes);
        memcpy(blobs[i].data, t.data, blobs[i].n_bytes);
    }
    *i_step = (int)step;
    return KAC_OK;
}

kac_status kac_run_folder_restore(kac_run_folder *f, int *i_step, kac_blob *blobs, int n) {
    *i_step = 0;
    char *path = kac_run_folder_file(f, checkpoint_name);
    if (path == NULL) return KAC_E_MEMORY;
    kac_status s = KAC_OK;
    if (kac_file_exists(path)) {
        kac_weights st;
        s = kac_weights_open(&st, path);
        if (s == KAC_OK) {
            s = fill_blobs(&st, i_step, blobs, n);
            kac_weights_close(&st);
        }
    }
    kac_free(path);
    f->resumed_step = *i_step;
    return s;
}

void kac_run_folder_checkpoint_remove(kac_run_folder *f) {
    char *path = kac_run_folder_file(f, checkpoint_name);
    if (path != NULL) unlink(path);
    kac_free(path);
}
