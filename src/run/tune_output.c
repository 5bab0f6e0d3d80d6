#include "io/image.h"
#include "run/tune_job.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- grids ---- */

/* The grid's cells: whose picture each one is. */
static cJSON *cells_json(const kac_tune_job *j, const kac_tune_grid *g) {
    const kac_tune_eval *e = &j->eval;
    cJSON *cells = cJSON_CreateArray();
    for (int cell = 0; cell < g->columns * g->rows; cell++) {
        int prompt, sample;
        if (!kac_tune_grid_cell(g, e, cell, &prompt, &sample)) continue;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "prompt", j->wish.prompts.items[j->wish.n_train + prompt]);
        cJSON_AddNumberToObject(o, "particle", sample);
        cJSON_AddItemToObject(o, "reward", kac_json_number(e->totals[prompt * e->n_samples + sample]));
        cJSON_AddItemToArray(cells, o);
    }
    return cells;
}

/* The PNG's "kac" chunk: all that makes the pictures again. */
static char *settings_json(const kac_tune_job *j, const kac_tune_grid *g, int64_t round, double scale) {
    static const char *const keys[] = {"version", "tune", "options", "given", "model", "sampler", "n_steps"};
    cJSON *d = cJSON_CreateObject();
    cJSON_AddNumberToObject(d, "round", (double)round);
    cJSON_AddNumberToObject(d, "scale", scale);
    cJSON_AddNumberToObject(d, "seed", (double)j->eval.seed);
    cJSON_AddNumberToObject(d, "columns", g->columns);
    cJSON_AddItemToObject(d, "cells", cells_json(j, g));
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(j->folder.run, keys[i]);
        if (item != NULL) cJSON_AddItemToObject(d, keys[i], cJSON_Duplicate(item, true));
    }
    char *text = cJSON_PrintUnformatted(d), *copy = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text), cJSON_Delete(d);
    return copy;
}

/* The line that other image tools read. */
static char *settings_line(const kac_tune_job *j, int64_t round, double scale) {
    const kac_tune_model *m = &j->model;
    return kac_format("%d prompts\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %lldx%lld, Model: %s, "
                      "Tuned by: %s, Round: %lld, Scale: %g, Version: kac %s",
                      j->eval.n_prompts, m->solver.n_asked, kac_solver_name(m->solver.kind), m->cfg_scale,
                      (unsigned long long)j->eval.seed, (long long)m->width, (long long)m->height,
                      kac_path_base(j->wish.model), j->method->name, (long long)round, scale, KAC_VERSION);
}

static kac_status write_grid(kac_tune_job *j, const char *name, int64_t round, double scale) {
    const kac_tune_grid g = kac_tune_grid_of(&j->eval);
    uint8_t *rgb = NULL;
    KAC_TRY(kac_tune_grid_draw(&rgb, &g, &j->eval));
    char *path = kac_run_folder_file(&j->folder, name), *line = settings_line(j, round, scale),
         *json = settings_json(j, &g, round, scale);
    const kac_png_text texts[] = {{(char[]){"parameters"}, line}, {(char[]){"kac"}, json}};
    const kac_status s =
        path == NULL || line == NULL || json == NULL
            ? KAC_E_MEMORY
            : kac_png_save(path, rgb, g.columns * g.tile_width, g.rows * g.tile_height, texts, KAC_COUNT_OF(texts));
    kac_free(path), kac_free(line), kac_free(json), kac_free(rgb);
    return s;
}

/* ---- evaluations ---- */

static void grid_name(char *out, size_t n, const char *event, int64_t round, double scale) {
    if (strcmp(event, "sweep") == 0)
        snprintf(out, n, "grids/scale_%03.0f.png", 100 * scale);
    else
        snprintf(out, n, "grids/round_%06lld.png", (long long)round);
}

kac_status kac_tune_evaluate(kac_tune_job *j, const char *event, const float *values, int64_t round, double scale) {
    char name[64];
    kac_tune_phase(j, "evaluating");
    const kac_status s = kac_tune_eval_run(&j->eval, &j->progress.after, values);
    if (s == KAC_E_NONFINITE) return kac_fail_prefix(s, "the evaluation after round %lld", (long long)round);
    KAC_TRY(s);
    j->progress.seconds = kac_tune_seconds(j);
    grid_name(name, sizeof name, event, round, scale);
    KAC_TRY(write_grid(j, name, round, scale));
    return kac_tune_log_scores(j, event, round, scale, &j->progress.after, name);
}

/* One scale of the sweep whose scores are known. */
static kac_status log_known(kac_tune_job *j, int64_t round, double scale, const kac_tune_scores *s, int64_t shown) {
    char name[64];
    grid_name(name, sizeof name, "eval", shown, 1);
    return kac_tune_log_scores(j, "sweep", round, scale, s, name);
}

kac_status kac_tune_sweep(kac_tune_job *j, const float *values, const kac_tune_scores *scores, int64_t round) {
    static const double scales[] = {0.25, 0.5, 0.75};
    const kac_tune_scores last = *scores;
    float *scaled = kac_alloc((size_t)j->model.trainee.n_values * sizeof *scaled);
    kac_status s = scaled == NULL ? KAC_E_MEMORY : log_known(j, round, 0, &j->progress.before, 0);
    for (int i = 0; i < KAC_COUNT_OF(scales) && s == KAC_OK; i++) {
        kac_parameters_scale(j->model.parameters, scaled, values, scales[i]);
        s = kac_tune_evaluate(j, "sweep", scaled, round, scales[i]);
    }
    kac_free(scaled);
    return s == KAC_OK ? log_known(j, round, 1, &last, round) : s;
}

/* ---- what is tuned, on disk ---- */

/* The whole configuration, for the file's metadata: what decides its numbers, so that the same run gives the same file. Caller frees. */
static char *describe(const kac_tune_job *j, int64_t round) {
    static const char *const keys[] = {"version", "tune", "options", "model", "rewards", "held_out"};
    cJSON *d = cJSON_CreateObject();
    cJSON_AddNumberToObject(d, "round", (double)round);
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(j->folder.run, keys[i]);
        if (item != NULL) cJSON_AddItemToObject(d, keys[i], cJSON_Duplicate(item, true));
    }
    cJSON *options = cJSON_GetObjectItemCaseSensitive(d, "options");
    for (int i = 0; kac_tune_free_options[i] != NULL; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(options, kac_tune_free_options[i]);
    char *text = cJSON_PrintUnformatted(d), *copy = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text), cJSON_Delete(d);
    return copy;
}

kac_status kac_tune_write_values(kac_tune_job *j, const char *name, const float *values, int64_t round) {
    const bool peft = strcmp(kac_options_text(j->options, "lora-format"), "peft") == 0;
    char *path = kac_run_folder_file(&j->folder, name), *what = describe(j, round);
    const char *const meta[] = {"kac_tune", what, NULL};
    const kac_status s =
        path == NULL || what == NULL
            ? KAC_E_MEMORY
            : kac_parameters_write(j->model.parameters, values, peft ? KAC_LORA_PEFT : KAC_LORA_KOHYA, path, meta);
    kac_free(path), kac_free(what);
    return s;
}

static char *kept_name(const kac_tune_job *j, int64_t round) {
    return kac_format("checkpoints/%s-%06lld.safetensors", kac_options_text(j->options, "name"), (long long)round);
}

kac_status kac_tune_keep(kac_tune_job *j) {
    const int64_t every = kac_options_int(j->options, "save-every"), keep = kac_options_int(j->options, "keep");
    const int64_t round = j->trainer.round;
    if (every == 0 || round % every != 0) return KAC_OK;
    char *name = kept_name(j, round), *old = kept_name(j, round - keep * every);
    char *old_path = old == NULL ? NULL : kac_run_folder_file(&j->folder, old);
    kac_status s = name == NULL || old_path == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) s = kac_tune_write_values(j, name, kac_trainer_values(&j->trainer), round);
    if (s == KAC_OK && keep > 0 && round > keep * every) unlink(old_path);
    kac_free(name), kac_free(old), kac_free(old_path);
    return s;
}
