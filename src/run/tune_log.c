#include "run/tune_job.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- log.csv ---- */

static const char csv_columns[] = "round,update,seconds,reward,reward_std,samples,loss,grad_norm,lr,ms,denoiser,"
                                  "denoiser_grad,decoder,rewards,reward_grads";

static kac_status csv_write(kac_tune_job *j, const kac_text *line) {
    if (line->failed) return KAC_E_MEMORY;
    const ssize_t put = write(j->csv_fd, line->s, line->n); /* one call: a kill cuts at most this line */
    return put == (ssize_t)line->n
               ? KAC_OK
               : KAC_FAIL(KAC_E_IO, "cannot write %s/log.csv: %s", j->folder.path, strerror(put < 0 ? errno : ENOSPC));
}

static kac_status csv_open(kac_tune_job *j) {
    char *path = kac_run_folder_file(&j->folder, "log.csv");
    if (path == NULL) return KAC_E_MEMORY;
    j->csv_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND | O_NOFOLLOW | O_NONBLOCK, 0666);
    const kac_status s = j->csv_fd >= 0 ? KAC_OK : KAC_FAIL(KAC_E_IO, "cannot write %s: %s", path, strerror(errno));
    kac_free(path);
    return s;
}

/* The method's columns, as the first line has them; the file was cut back already. */
static void csv_read_extras(kac_tune_job *j) {
    char line[1024] = "";
    const ssize_t n = pread(j->csv_fd, line, sizeof line - 1, 0);
    const size_t fixed = strlen(csv_columns);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (strlen(line) > fixed) kac_text_add(&j->csv_extras, "%s", line + fixed);
}

static kac_status csv_begin(kac_tune_job *j, const kac_tune_report *r) {
    kac_text line = {0};
    for (int i = 0; i < r->n_extras; i++) kac_text_add(&j->csv_extras, ",%s", r->extra[i].name);
    kac_text_add(&line, "%s%s\n", csv_columns, j->csv_extras.s == NULL ? "" : j->csv_extras.s);
    const kac_status s = csv_write(j, &line);
    kac_text_free(&line);
    return s;
}

static kac_status csv_round(kac_tune_job *j, const kac_tune_report *r) {
    kac_text t = {0};
    kac_text_add(&t, "%lld,%lld,%.3f,%.9g,%.9g,%d,%.9g,%.9g,%.9g,%.1f,%lld,%lld,%lld,%lld,%lld", (long long)r->round,
                 (long long)r->update, j->progress.seconds, r->reward_mean, r->reward_std, r->n_rewards, r->loss,
                 r->grad_norm, r->lr, r->ms, (long long)r->counts.denoiser, (long long)r->counts.denoiser_grad,
                 (long long)r->counts.decoder, (long long)r->counts.reward, (long long)r->counts.reward_grad);
    for (const char *name = j->csv_extras.s; name != NULL; name = strchr(name + 1, ',')) {
        const size_t n = strcspn(name + 1, ",");
        kac_text_add(&t, ",");
        for (int i = 0; i < r->n_extras; i++)
            if (strlen(r->extra[i].name) == n && strncmp(r->extra[i].name, name + 1, n) == 0)
                kac_text_add(&t, "%.9g", r->extra[i].value);
    }
    kac_text_add(&t, "\n");
    const kac_status s = csv_write(j, &t);
    kac_text_free(&t);
    return s;
}

/* ---- both logs ---- */

kac_status kac_tune_log_open(kac_tune_job *j) {
    return csv_open(j);
}

void kac_tune_log_close(kac_tune_job *j) {
    if (j->csv_fd >= 0) close(j->csv_fd);
    j->csv_fd = -1;
    kac_text_free(&j->csv_extras);
}

cJSON *kac_tune_counts_json(const kac_trainee_counts *k) {
    cJSON *counts = cJSON_CreateObject();
    cJSON_AddNumberToObject(counts, "denoiser", (double)k->denoiser);
    cJSON_AddNumberToObject(counts, "denoiser_grad", (double)k->denoiser_grad);
    cJSON_AddNumberToObject(counts, "decoder", (double)k->decoder);
    cJSON_AddNumberToObject(counts, "reward", (double)k->reward);
    cJSON_AddNumberToObject(counts, "reward_grad", (double)k->reward_grad);
    return counts;
}

kac_status kac_tune_log_round(kac_tune_job *j, const kac_tune_report *r) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "round", (double)r->round);
    cJSON_AddNumberToObject(line, "update", (double)r->update);
    cJSON_AddItemToObject(line, "seconds", kac_json_number(j->progress.seconds));
    cJSON_AddItemToObject(line, "reward", kac_json_number(r->reward_mean));
    cJSON_AddItemToObject(line, "reward_std", kac_json_number(r->reward_std));
    cJSON_AddNumberToObject(line, "samples", r->n_rewards);
    cJSON_AddItemToObject(line, "loss", kac_json_number(r->loss));
    cJSON_AddItemToObject(line, "grad_norm", kac_json_number(r->grad_norm));
    cJSON_AddItemToObject(line, "lr", kac_json_number(r->lr));
    cJSON_AddItemToObject(line, "round_ms", kac_json_number(r->ms));
    cJSON *extras = cJSON_AddObjectToObject(line, "extras");
    for (int i = 0; i < r->n_extras; i++)
        cJSON_AddItemToObject(extras, r->extra[i].name, kac_json_number(r->extra[i].value));
    cJSON_AddItemToObject(line, "counts", kac_tune_counts_json(&r->counts));
    if (lseek(j->csv_fd, 0, SEEK_END) == 0) {
        const kac_status s = csv_begin(j, r);
        if (s != KAC_OK) {
            cJSON_Delete(line);
            return s;
        }
    }
    KAC_TRY(kac_run_folder_event(&j->folder, "round", line));
    return csv_round(j, r);
}

static void add_means(cJSON *d, const char *key, const kac_reward_set *set, const double *means) {
    cJSON *o = cJSON_AddObjectToObject(d, key);
    for (int k = 0; k < set->n; k++) cJSON_AddItemToObject(o, set->specs[k]->label, kac_json_number(means[k]));
}

cJSON *kac_tune_scores_json(const kac_tune_job *j, const kac_tune_scores *s) {
    cJSON *d = cJSON_CreateObject();
    cJSON_AddNumberToObject(d, "pictures", s->n);
    cJSON_AddItemToObject(d, "reward", kac_json_number(s->reward));
    cJSON_AddItemToObject(d, "reward_std", kac_json_number(s->reward_std));
    cJSON_AddItemToObject(d, "reward_se", kac_json_number(s->reward_se));
    add_means(d, "rewards", &j->model.rewards, s->parts);
    add_means(d, "held_out", &j->model.held_out, s->held_out);
    add_means(d, "held_out_se", &j->model.held_out, s->held_out_se);
    cJSON_AddItemToObject(d, "diversity", kac_json_number(s->diversity));
    cJSON_AddItemToObject(d, "distance", kac_json_number(s->distance));
    return d;
}

kac_status kac_tune_log_scores(kac_tune_job *j, const char *event, int64_t round, double scale,
                               const kac_tune_scores *s, const char *grid) {
    cJSON *line = kac_tune_scores_json(j, s);
    cJSON_AddNumberToObject(line, "round", (double)round);
    cJSON_AddNumberToObject(line, "scale", scale);
    cJSON_AddItemToObject(line, "seconds", kac_json_number(j->progress.seconds));
    cJSON_AddStringToObject(line, "grid", grid);
    return kac_run_folder_event(&j->folder, event, line);
}

/* ---- checkpoints ---- */

enum { MAX_BLOBS = KAC_TRAINER_PIECES + 5 };

static int list_blobs(kac_tune_job *j, kac_blob out[MAX_BLOBS]) {
    kac_trainer_piece pieces[KAC_TRAINER_PIECES];
    const int n_pieces = kac_trainer_state(&j->trainer, pieces);
    const size_t n_values = (size_t)j->model.trainee.n_values * sizeof(float);
    int n = 0;
    for (int i = 0; i < n_pieces; i++) out[n++] = (kac_blob){pieces[i].name, pieces[i].data, pieces[i].n_bytes};
    out[n++] = (kac_blob){"tune.progress", &j->progress, sizeof j->progress};
    if (j->best != NULL) out[n++] = (kac_blob){"tune.best", j->best, n_values};
    out[n++] = (kac_blob){"tune.has_base", &j->eval.has_base, sizeof j->eval.has_base};
    if (j->eval.n_embed > 0)
        out[n++] = (kac_blob){"tune.base", j->eval.base,
                              (size_t)(j->eval.n_prompts * j->eval.n_samples * j->eval.n_embed) * sizeof(float)};
    size_t n_bytes = 0;
    void *means = kac_mix_state(j->model.rewards.mix, &n_bytes);
    if (means != NULL) out[n++] = (kac_blob){"tune.reward_means", means, n_bytes};
    return n;
}

kac_status kac_tune_checkpoint(kac_tune_job *j, bool now) {
    const double start_ms = kac_now_ms();
    if (!now && start_ms - j->checkpoint_ms < KAC_MAX(500, 20 * j->cost_ms)) return KAC_OK;
    j->progress.log_bytes = kac_run_folder_log_bytes(&j->folder);
    j->progress.csv_bytes = (int64_t)lseek(j->csv_fd, 0, SEEK_END);
    j->progress.counts = j->model.trainee.counts;
    kac_blob blobs[MAX_BLOBS];
    const int n = list_blobs(j, blobs);
    KAC_TRY(kac_run_folder_checkpoint(&j->folder, (int)j->trainer.round - 1, blobs, n, true));
    j->checkpoint_ms = kac_now_ms();
    j->cost_ms = j->checkpoint_ms - start_ms;
    return KAC_OK;
}

kac_status kac_tune_restore(kac_tune_job *j) {
    const kac_tune_progress fresh = j->progress;
    kac_blob blobs[MAX_BLOBS];
    int i_round;
    KAC_TRY(kac_run_folder_restore(&j->folder, &i_round, blobs, list_blobs(j, blobs)));
    char *path = kac_run_folder_file(&j->folder, "checkpoint.safetensors");
    if (path == NULL) return KAC_E_MEMORY;
    const bool found = kac_file_exists(path);
    kac_free(path);
    if (!found) j->progress = fresh;
    KAC_TRY(kac_run_folder_log_cut(&j->folder, j->progress.log_bytes));
    if (ftruncate(j->csv_fd, (off_t)j->progress.csv_bytes) != 0)
        return KAC_FAIL(KAC_E_IO, "cannot cut %s/log.csv: %s", j->folder.path, strerror(errno));
    j->from_ms = kac_now_ms() - 1000 * j->progress.seconds;
    j->folder.start_ms = j->from_ms;
    if (!found) {
        kac_tune_say(j, "no checkpoint yet: starting anew");
        return KAC_OK;
    }
    j->model.trainee.counts = j->progress.counts;
    csv_read_extras(j);
    kac_tune_say(j, "going on after round %lld", (long long)j->trainer.round);
    return kac_trainer_restored(&j->trainer);
}
