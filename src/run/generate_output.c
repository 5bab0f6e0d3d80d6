#include "run/generate_output.h"
#include "io/image.h"
#include "reward/preprocess.h"
#include "run/adapters.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- previews ---- */

enum { PREVIEW_EDGE = 128, MAX_PREVIEWS = 2000 };

/* previews/step_07_particle_03.png, with several prompts previews/group_02_step_07_particle_03.png */
static void preview_name(char *out, size_t n, const kac_latent_run *r, int i_step, int slot) {
    const int group = slot / r->o.n_per_group, particle = slot % r->o.n_per_group;
    char prefix[32] = "";
    if (r->o.n_groups > 1) snprintf(prefix, sizeof prefix, "group_%02d_", group);
    snprintf(out, n, "previews/%sstep_%02d_particle_%02d.png", prefix, i_step, particle);
}

static kac_status write_preview(kac_recorded_reward *p, int slot, const uint8_t *rgb) {
    kac_latent_run *r = p->run;
    const int w = (int)r->o.width, h = (int)r->o.height, longest = KAC_MAX(w, h);
    const int pw = longest <= PREVIEW_EDGE ? w : KAC_MAX(1, w * PREVIEW_EDGE / longest);
    const int ph = longest <= PREVIEW_EDGE ? h : KAC_MAX(1, h * PREVIEW_EDGE / longest);
    const size_t mark = kac_arena_mark(&r->ctx.scratch);
    uint8_t *small = kac_arena_take(&r->ctx.scratch, (size_t)pw * (size_t)ph * 3);
    if (small == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_resize_u8(small, pw, ph, rgb, w, h, KAC_RESIZE_BILINEAR, &r->ctx.scratch));
    char name[96];
    const int i_step = kac_latent_i_step(r->latent);
    preview_name(name, sizeof name, r, i_step, slot);
    char *path = kac_run_folder_file(&p->job->folder, name);
    kac_status s = path == NULL ? KAC_E_MEMORY : kac_png_save(path, small, pw, ph, NULL, 0);
    kac_free(path);
    kac_arena_release(&r->ctx.scratch, mark);
    if (s != KAC_OK) return s;
    cJSON *line = cJSON_CreateObject();
    cJSON_AddNumberToObject(line, "i_step", i_step);
    cJSON_AddNumberToObject(line, "group", slot / r->o.n_per_group);
    cJSON_AddNumberToObject(line, "particle", slot % r->o.n_per_group);
    cJSON_AddStringToObject(line, "file", name);
    return kac_run_folder_event(&p->job->folder, "preview", line);
}

/* The single rewards, unless the score is one of them as it is. */
static kac_status record(kac_recorded_reward *p, const int *slots, int n) {
    const kac_latent_run *r = p->run;
    if (kac_reward_set_is_plain(&r->rewards) || p->job->method->anytime) return KAC_OK;
    const double **rows = kac_alloc((size_t)n * sizeof *rows);
    if (rows == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n; i++) rows[i] = kac_latent_reward_values(r->reward, slots[i]);
    const kac_status s =
        kac_job_record_rewards(p->job, r->rewards.specs, r->rewards.n, r->o.n_per_group, slots, n, rows);
    kac_free(rows);
    return s;
}

static kac_status store(kac_recorded_reward *p, const int *slots, int n, kac_stage stage) {
    KAC_TRY(record(p, slots, n));
    if (!p->previews) return KAC_OK;
    if (stage != KAC_STAGE_PREDICTED || p->n_written + n > MAX_PREVIEWS) return KAC_OK;
    p->n_written += n;
    for (int i = 0; i < n; i++) {
        const uint8_t *rgb;
        KAC_TRY(kac_latent_pictures(p->run->latent, slots + i, 1, stage, &rgb));
        KAC_TRY(write_preview(p, slots[i], rgb));
    }
    return KAC_OK;
}

static kac_status score_and_store(kac_reward *reward, kac_process *process, const int *slots, int n, kac_stage stage,
                                  double *out) {
    kac_recorded_reward *p = reward->self;
    KAC_TRY(p->inner->score(p->inner, process, slots, n, stage, out));
    return store(p, slots, n, stage);
}

static kac_status grad_and_store(kac_reward *reward, kac_process *process, const int *slots, int n, kac_stage stage,
                                 double *out, float *d_state) {
    kac_recorded_reward *p = reward->self;
    KAC_TRY(p->inner->grad(p->inner, process, slots, n, stage, out, d_state));
    return store(p, slots, n, stage);
}

kac_status kac_recorded_reward_init(kac_recorded_reward *p, kac_reward *inner, kac_job *j, kac_latent_run *r) {
    *p = (kac_recorded_reward){.inner = inner,
                               .job = j,
                               .run = r,
                               .previews = kac_options_bool(j->options, "previews") && !j->method->anytime};
    p->outer = (kac_reward){.self = p, .name = inner->name, .score = score_and_store};
    if (inner->grad != NULL) p->outer.grad = grad_and_store;
    if (!p->previews) return KAC_OK;
    char *folder = kac_run_folder_file(&j->folder, "previews");
    const kac_status s = folder == NULL ? KAC_E_MEMORY : kac_dir_make(folder);
    kac_free(folder);
    return s;
}

/* ---- final pictures ---- */

typedef struct output {
    kac_job *job;
    kac_latent_run *run;
    const kac_particles *particles;
    double *weights; /* [n_slots] */
    int *rank;       /* [n_slots] 0: best of its group */
} output;

/* The group's particles by falling reward (then by weight, then by number). */
static void rank_group(output *o, int group) {
    const kac_particles *p = o->particles;
    const int n = p->n_per_group, first = group * n;
    for (int i = 0; i < n; i++) {
        int better = 0;
        for (int k = 0; k < n; k++) {
            const double a = p->rewards[first + k], b = p->rewards[first + i];
            const double wa = o->weights[first + k], wb = o->weights[first + i];
            better += a > b || (!(a < b) && (wa > wb || (wa == wb && k < i)));
        }
        o->rank[first + i] = better;
    }
}

/* The line that other image tools read and write. */
static char *settings_line(const output *o, int slot) {
    const kac_job *j = o->job;
    const kac_latent_run *r = o->run;
    const int group = slot / r->o.n_per_group;
    const char *negative = j->negatives[group];
    char reward[48] = "";
    if (isfinite(o->particles->rewards[slot]))
        snprintf(reward, sizeof reward, ", Reward: %.6g", o->particles->rewards[slot]);
    char strength[40] = "";
    if (r->start.rgb != NULL) snprintf(strength, sizeof strength, ", Denoising strength: %g", r->start.strength);
    const bool has_negative = negative != NULL && negative[0] != '\0';
    char *lora = kac_adapters_line(r->lora);
    if (lora == NULL) return NULL;
    char *line =
        kac_format("%s\n%s%s%sSteps: %d, Sampler: %s, CFG scale: %g, Seed: %llu, Size: %lldx%lld%s, Model: %s, Steer: "
                   "%s, Particles: %d, "
                   "Particle: %d%s%s, Version: kac %s",
                   j->n_prompts > 0 ? j->prompts[group] : "", has_negative ? "Negative prompt: " : "",
                   has_negative ? negative : "", has_negative ? "\n" : "", r->solver.n_asked,
                   kac_solver_name(r->solver.kind), r->o.cfg_scale, (unsigned long long)r->o.seed,
                   (long long)r->o.width, (long long)r->o.height, strength, kac_path_base(j->model), j->method->name,
                   r->o.n_per_group, r->o.first_particle + slot % r->o.n_per_group, reward, lora, KAC_VERSION);
    kac_free(lora);
    return line;
}

/* What run.json says of a picture. */
static cJSON *image_facts(const output *o, int slot, const char *file) {
    const kac_latent_run *r = o->run;
    const kac_particles *p = o->particles;
    cJSON *image = cJSON_CreateObject();
    cJSON_AddStringToObject(image, "file", file);
    cJSON_AddNumberToObject(image, "group", slot / r->o.n_per_group);
    cJSON_AddNumberToObject(image, "particle", r->o.first_particle + slot % r->o.n_per_group);
    cJSON_AddNumberToObject(image, "rank", o->rank[slot]);
    cJSON_AddItemToObject(image, "reward", kac_json_number(p->rewards[slot]));
    const double *values = r->reward == NULL ? NULL : kac_latent_reward_values(r->reward, slot);
    cJSON *rewards = cJSON_AddObjectToObject(image, "rewards");
    for (int k = 0; k < r->rewards.n && values != NULL; k++)
        cJSON_AddItemToObject(rewards, r->rewards.specs[k]->label, kac_json_number(values[k]));
    if (values != NULL && kac_mix_has_uncertainty(r->rewards.mix))
        cJSON_AddItemToObject(image, "uncertainty", kac_json_number(values[r->rewards.n + 1]));
    cJSON_AddItemToObject(image, "log_weight", kac_json_number(p->log_weights[slot]));
    cJSON_AddItemToObject(image, "weight", kac_json_number(o->weights[slot]));
    cJSON_AddNumberToObject(image, "eve", p->eves[slot]);
    cJSON_AddNumberToObject(image, "seed", (double)r->o.seed);
    return image;
}

/* The PNG's "kac" chunk: the same facts, and all that makes the picture again. */
static char *settings_json(const output *o, int slot, const char *file) {
    cJSON *all = image_facts(o, slot, file);
    const cJSON *run = o->job->folder.run;
    static const char *const keys[] = {"version",     "options", "given",  "model", "steer", "sampler",   "n_steps",
                                       "n_particles", "width",   "height", "start", "lora",  "embeddings"};
    cJSON *group = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(run, "groups"), slot / o->run->o.n_per_group);
    for (const cJSON *item = group == NULL ? NULL : group->child; item != NULL; item = item->next)
        cJSON_AddItemToObject(all, item->string, cJSON_Duplicate(item, true));
    for (int i = 0; i < KAC_COUNT_OF(keys); i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(run, keys[i]);
        if (item != NULL) cJSON_AddItemToObject(all, keys[i], cJSON_Duplicate(item, true));
    }
    char *text = cJSON_PrintUnformatted(all), *copy = text == NULL ? NULL : kac_strdup(text);
    cJSON_free(text);
    cJSON_Delete(all);
    return copy;
}

static kac_status write_image(output *o, int slot, const uint8_t *rgb, cJSON *images) {
    const kac_latent_run *r = o->run;
    const int group = slot / r->o.n_per_group, particle = r->o.first_particle + slot % r->o.n_per_group;
    char name[64];
    if (r->o.n_groups > 1)
        snprintf(name, sizeof name, "group_%02d_particle_%02d.png", group, particle);
    else
        snprintf(name, sizeof name, "particle_%02d.png", particle);
    char *path = kac_run_folder_file(&o->job->folder, name), *line = settings_line(o, slot),
         *json = settings_json(o, slot, name);
    const kac_png_text texts[] = {{(char[]){"parameters"}, line}, {(char[]){"kac"}, json}};
    kac_status s = path == NULL || line == NULL || json == NULL
                       ? KAC_E_MEMORY
                       : kac_png_save(path, rgb, (int)r->o.width, (int)r->o.height, texts, KAC_COUNT_OF(texts));
    if (s == KAC_OK) {
        cJSON_AddItemToArray(images, image_facts(o, slot, name));
        cJSON *event = cJSON_CreateObject();
        cJSON_AddNumberToObject(event, "group", group);
        cJSON_AddNumberToObject(event, "particle", particle);
        cJSON_AddStringToObject(event, "file", name);
        s = kac_run_folder_event(&o->job->folder, "image", event);
        o->job->result->n_images++;
    }
    if (s == KAC_OK && group == 0 && o->rank[slot] == 0)
        o->job->result->best = path;
    else
        kac_free(path);
    kac_free(line), kac_free(json);
    return s;
}

static kac_status write_all(output *o, cJSON *images) {
    const int n_slots = o->particles->n_groups * o->particles->n_per_group;
    enum { CHUNK = 64 };
    for (int i = 0; i < n_slots; i += CHUNK) {
        int slots[CHUNK];
        const uint8_t *rgb[CHUNK];
        const int n = KAC_MIN((int)CHUNK, n_slots - i);
        for (int k = 0; k < n; k++) slots[k] = i + k;
        KAC_TRY(kac_latent_pictures(o->run->latent, slots, n, KAC_STAGE_FINAL, rgb));
        for (int k = 0; k < n; k++) KAC_TRY(write_image(o, i + k, rgb[k], images));
    }
    return KAC_OK;
}

kac_status kac_generate_write_images(kac_job *j, kac_latent_run *r, const kac_particles *p, cJSON *facts) {
    const size_t n_slots = (size_t)(p->n_groups * p->n_per_group);
    output o = {.job = j,
                .run = r,
                .particles = p,
                .weights = kac_alloc(n_slots * sizeof *o.weights),
                .rank = kac_alloc(n_slots * sizeof *o.rank)};
    kac_status s = o.weights == NULL || o.rank == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) {
        kac_job_weights(o.weights, p);
        for (int g = 0; g < p->n_groups; g++) rank_group(&o, g);
        s = write_all(&o, cJSON_AddArrayToObject(facts, "images"));
    }
    cJSON *log_z = cJSON_AddArrayToObject(facts, "log_z");
    for (int g = 0; g < p->n_groups; g++) cJSON_AddItemToArray(log_z, kac_json_number(p->log_z[g]));
    kac_free(o.weights), kac_free(o.rank);
    return s;
}
