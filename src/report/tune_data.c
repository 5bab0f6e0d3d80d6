#include "tune_data.h"
#include <math.h>
#include <string.h>

static void read_held_out(kac_tune_data *d, const kac_run_data *run) {
    const cJSON *v;
    cJSON_ArrayForEach(v, kac_run_at(run->run.root, "held_out")) {
        const char *name = kac_run_text(v, "name", NULL);
        if (name != NULL && d->n_held_out < KAC_TUNE_MAX_HELD) d->held_out[d->n_held_out++] = name;
    }
}

static kac_tune_round_row round_of(const cJSON *line) {
    return (kac_tune_round_row){.round = kac_run_number(line, "round"),
                                .seconds = kac_run_number(line, "seconds"),
                                .reward = kac_run_number(line, "reward"),
                                .reward_std = kac_run_number(line, "reward_std"),
                                .loss = kac_run_number(line, "loss"),
                                .grad_norm = kac_run_number(line, "grad_norm")};
}

static kac_tune_eval_row eval_of(const kac_tune_data *d, const cJSON *line) {
    kac_tune_eval_row row = {.round = kac_run_number(line, "round"),
                             .seconds = kac_run_number(line, "seconds"),
                             .scale = kac_run_number(line, "scale"),
                             .reward = kac_run_number(line, "reward"),
                             .reward_se = kac_run_number(line, "reward_se"),
                             .diversity = kac_run_number(line, "diversity"),
                             .distance = kac_run_number(line, "distance"),
                             .grid = kac_run_inner_path(line, "grid")};
    const cJSON *held = kac_run_at(line, "held_out"), *se = kac_run_at(line, "held_out_se");
    for (int k = 0; k < d->n_held_out; k++) {
        row.held_out[k] = kac_run_number(held, d->held_out[k]);
        row.held_out_se[k] = kac_run_number(se, d->held_out[k]);
    }
    return row;
}

static void take_line(kac_tune_data *d, const cJSON *line) {
    const char *event = kac_run_text(line, "event", "");
    const double round = kac_run_number(line, "round");
    if (!(round >= 0) || round > 1e9) return;
    if (strcmp(event, "round") == 0) {
        while (d->n_rounds > 0 && d->rounds[d->n_rounds - 1].round >= round) d->n_rounds--; /* done again */
        d->rounds[d->n_rounds++] = round_of(line);
    } else if (strcmp(event, "eval") == 0) {
        while (d->n_evals > 0 && d->evals[d->n_evals - 1].round >= round) d->n_evals--;
        d->evals[d->n_evals++] = eval_of(d, line);
    } else if (strcmp(event, "sweep") == 0) {
        const kac_tune_eval_row row = eval_of(d, line);
        while (d->n_sweep > 0 && !(d->sweep[d->n_sweep - 1].scale < row.scale)) d->n_sweep--;
        if (row.scale >= 0 && row.scale <= 1e6) d->sweep[d->n_sweep++] = row;
    }
}

kac_status kac_tune_data_load(kac_tune_data *d, const kac_run_data *run) {
    *d = (kac_tune_data){0};
    char *path = kac_path_join(run->folder, "log.jsonl");
    kac_status s = path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK && kac_file_exists(path)) s = kac_run_lines(&d->lines, &d->n_bad_lines, path);
    kac_free(path);
    KAC_TRY(s);
    read_held_out(d, run);
    const size_t n = (size_t)(d->lines == NULL ? 0 : cJSON_GetArraySize(d->lines)) + 1;
    d->rounds = kac_alloc(n * sizeof *d->rounds);
    d->evals = kac_alloc(n * sizeof *d->evals);
    d->sweep = kac_alloc(n * sizeof *d->sweep);
    if (d->rounds == NULL || d->evals == NULL || d->sweep == NULL) return KAC_E_MEMORY;
    const cJSON *line;
    cJSON_ArrayForEach(line, d->lines) take_line(d, line);
    return KAC_OK;
}

void kac_tune_data_free(kac_tune_data *d) {
    kac_free(d->rounds), kac_free(d->evals), kac_free(d->sweep);
    cJSON_Delete(d->lines);
    *d = (kac_tune_data){0};
}

int kac_tune_hacked(const kac_tune_data *d, int k) {
    int best = -1;
    for (int i = 0; i < d->n_evals; i++)
        if (isfinite(d->evals[i].held_out[k]) && (best < 0 || d->evals[i].held_out[k] >= d->evals[best].held_out[k]))
            best = i;
    if (best < 0 || best == d->n_evals - 1) return -1;
    const kac_tune_eval_row *top = &d->evals[best], *last = &d->evals[d->n_evals - 1];
    const double se = isfinite(top->held_out_se[k]) ? top->held_out_se[k] : 0;
    return last->reward > top->reward && last->held_out[k] < top->held_out[k] - 2 * se ? best : -1;
}
