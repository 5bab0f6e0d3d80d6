/* A run on an exact Gaussian mixture: results in samples.safetensors. */
#include "io/safetensors.h"
#include "reward/reward_spec.h"
#include "run/generate_job.h"
#include "run/latent_run.h"
#include <kac/mixture.h>
#include <string.h>

enum { MAX_RECORDED = 1000 }; /* larger swarms leave the combined reward alone in the events */

/* quadratic=FILE, one or several, combined. */
typedef struct mixture_rewards {
    kac_reward combined;
    kac_reward *parts[KAC_MAX_REWARDS];
    kac_reward_spec texts[KAC_MAX_REWARDS];
    const kac_reward_spec *specs[KAC_MAX_REWARDS];
    int n;
    kac_mix *mix;
    kac_job *job;
    int n_per_group;
    double *rows;         /* [n_per_group, n + 2] of the slots scored last */
    const double **heads; /* [n_per_group] */
    float *d_part;        /* [dimensions] */
} mixture_rewards;

static kac_status score_combined(kac_reward *reward, kac_process *p, const int *slots, int n, kac_stage stage,
                                 double *out) {
    mixture_rewards *r = reward->self;
    const int n_row = r->n + 2;
    KAC_ASSERT(n <= r->n_per_group);
    for (int i = 0; i < n; i++) {
        double *row = r->rows + i * n_row;
        r->heads[i] = row;
        for (int k = 0; k < r->n; k++) KAC_TRY(r->parts[k]->score(r->parts[k], p, slots + i, 1, stage, row + k));
        KAC_TRY(kac_mix_observe(r->mix, row, 1));
    }
    for (int i = 0; i < n; i++) {
        double *row = r->rows + i * n_row;
        const kac_status s = kac_mix_total(r->mix, &row[r->n], &row[r->n + 1], row);
        if (s != KAC_OK) return kac_fail_prefix(s, "particle %d", slots[i]);
        out[i] = row[r->n];
    }
    if (r->n_per_group > MAX_RECORDED) return KAC_OK;
    return kac_job_record_rewards(r->job, r->specs, r->n, r->n_per_group, slots, n, r->heads);
}

static kac_status grad_combined(kac_reward *reward, kac_process *p, const int *slots, int n, kac_stage stage,
                                double *out, float *d_state) {
    mixture_rewards *r = reward->self;
    KAC_TRY(score_combined(reward, p, slots, n, stage, out));
    memset(d_state, 0, (size_t)(n * p->n_state) * sizeof *d_state);
    for (int i = 0; i < n; i++) {
        double slope[KAC_MAX_REWARDS], value;
        KAC_TRY(kac_mix_grad(r->mix, slope, r->heads[i]));
        for (int k = 0; k < r->n; k++) {
            KAC_TRY(r->parts[k]->grad(r->parts[k], p, slots + i, 1, stage, &value, r->d_part));
            for (int64_t j = 0; j < p->n_state; j++)
                d_state[i * p->n_state + j] += (float)(slope[k] * (double)r->d_part[j]);
        }
    }
    return KAC_OK;
}

static kac_status open_reward(mixture_rewards *r, const char *text) {
    static const char *const names[] = {"quadratic", NULL};
    if (r->n == KAC_MAX_REWARDS)
        return KAC_FAIL(KAC_E_USAGE, "at most %d rewards can be combined", (int)KAC_MAX_REWARDS);
    kac_reward_spec *spec = &r->texts[r->n];
    KAC_TRY(kac_reward_spec_parse(spec, text));
    r->specs[r->n++] = spec; /* from here on closed with the others */
    if (strcmp(spec->name, names[0]) != 0)
        return kac_fail_prefix(kac_reward_spec_unknown(spec->name, names),
                               "a mixture is rewarded by quadratic=FILE alone");
    if (spec->path == NULL || spec->path[0] == '\0')
        return KAC_FAIL(KAC_E_USAGE, "reward \"quadratic\" needs a path: quadratic=FILE");
    return kac_quadratic_load(&r->parts[r->n - 1], spec->path);
}

static kac_status open_rewards(mixture_rewards *r, kac_job *j, int n_dims) {
    r->job = j, r->n_per_group = j->n_particles;
    r->combined = (kac_reward){.self = r, .name = "combined", .score = score_combined, .grad = grad_combined};
    for (int i = 0; i < j->n_rewards; i++) KAC_TRY(open_reward(r, j->rewards[i]));
    if (r->n == 0) return KAC_OK;
    r->rows = kac_alloc((size_t)r->n_per_group * (size_t)(r->n + 2) * sizeof *r->rows);
    r->heads = kac_alloc((size_t)r->n_per_group * sizeof *r->heads);
    r->d_part = kac_alloc((size_t)n_dims * sizeof *r->d_part);
    if (r->rows == NULL || r->heads == NULL || r->d_part == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_mix_open(&r->mix, r->specs, r->n, kac_options_text(j->options, "combine")));
    j->mix = r->mix;
    return KAC_OK;
}

static void close_rewards(mixture_rewards *r) {
    for (int k = 0; k < r->n; k++) {
        kac_quadratic_destroy(r->parts[k]);
        kac_reward_spec_free(&r->texts[k]);
    }
    kac_mix_close(r->mix);
    kac_free(r->rows), kac_free(r->heads), kac_free(r->d_part);
}

/* As it is, or combined with others. */
static kac_reward *reward_of(mixture_rewards *r) {
    if (r->n == 0) return NULL;
    return r->n == 1 && r->specs[0]->weight == 1 && r->specs[0]->n_shapings == 0 ? r->parts[0] : &r->combined;
}

static cJSON *mixture_counts(void *self) {
    cJSON *counts = cJSON_CreateObject();
    cJSON_AddNumberToObject(counts, "nfe", (double)kac_mixture_evaluations(self));
    cJSON_AddNumberToObject(counts, "denoiser", (double)kac_mixture_evaluations(self));
    return counts;
}

static kac_status write_samples(kac_job *j, kac_mixture *m, kac_particles *p) {
    const int64_t n = (int64_t)p->n_groups * p->n_per_group, d = kac_mixture_dim(m);
    double *x = kac_alloc((size_t)(n * d) * sizeof *x);
    char *path = kac_run_folder_file(&j->folder, "samples.safetensors");
    kac_status s = x == NULL || path == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int64_t i = 0; i < n && s == KAC_OK; i++)
        memcpy(x + i * d, kac_mixture_point(kac_mixture_process(m), (int)i, KAC_STAGE_FINAL), (size_t)d * sizeof *x);
    const kac_st_item items[] = {{"x", kac_tensor_make(x, KAC_F64, n, d)},
                                 {"log_weights", kac_tensor_make(p->log_weights, KAC_F64, n)},
                                 {"rewards", kac_tensor_make(p->rewards, KAC_F64, n)},
                                 {"log_z", kac_tensor_make(p->log_z, KAC_F64, p->n_groups)}};
    if (s == KAC_OK) s = kac_st_write(path, items, KAC_COUNT_OF(items), NULL, 0);
    if (s == KAC_OK)
        j->result->best = path;
    else
        kac_free(path);
    kac_free(x);
    return s;
}

static kac_status run_mixture(kac_job *j, kac_mixture *m, mixture_rewards *rewards) {
    cJSON *facts = cJSON_CreateObject(), *model = cJSON_AddObjectToObject(facts, "model");
    cJSON_AddStringToObject(model, "path", j->model);
    cJSON_AddStringToObject(model, "class", "GaussianMixture");
    cJSON_AddNumberToObject(facts, "n_steps", kac_mixture_process(m)->n_steps);
    cJSON_AddItemToObject(facts, "rewards", kac_job_reward_facts(rewards->specs, rewards->n));
    KAC_TRY(kac_job_folder_open(j, facts));
    j->counts = mixture_counts, j->counts_self = m;
    kac_particles particles = {0};
    const double start_ms = kac_now_ms();
    kac_status s = kac_job_steer(j, &particles, kac_mixture_process(m), reward_of(rewards));
    cJSON *end = cJSON_CreateObject(), *seconds = cJSON_AddObjectToObject(end, "seconds");
    cJSON_AddNumberToObject(seconds, "total", (kac_now_ms() - start_ms) / 1000);
    if (s == KAC_OK) s = write_samples(j, m, &particles);
    if (s == KAC_OK) {
        cJSON_AddStringToObject(end, "samples", "samples.safetensors");
        cJSON *log_z = cJSON_AddArrayToObject(end, "log_z");
        for (int g = 0; g < particles.n_groups; g++) cJSON_AddItemToArray(log_z, kac_json_number(particles.log_z[g]));
    }
    cJSON_AddItemToObject(end, "counts", mixture_counts(m));
    kac_particles_free(&particles);
    return kac_job_finish(j, s, end);
}

/* As many as --particles says, or as --nfe pays for: the number of steps stands in the file. */
static kac_status read_particles(kac_job *j) {
    j->n_particles = (int)kac_options_int(j->options, "particles");
    if (j->nfe == 0 || j->method->anytime) return KAC_OK;
    kac_mixture *m;
    KAC_TRY(kac_mixture_load(&m, j->model, &(kac_mixture_options){.n_groups = 1, .n_per_group = 1, .eta = 1}));
    const int n_steps = kac_mixture_process(m)->n_steps;
    kac_mixture_destroy(m);
    const bool guided = j->n_rewards > 0 && j->method->needs_grad != NULL && j->method->needs_grad(j->options);
    const int64_t beside = j->method->nfe_beside == NULL ? 0 : j->method->nfe_beside(j->options);
    return kac_budget_particles(&j->n_particles, j->nfe, beside, n_steps, guided);
}

kac_status kac_generate_mixture(kac_job *j) {
    if (j->n_prompts > 0) return KAC_FAIL(KAC_E_USAGE, "a mixture takes no prompt (\"%s\")", j->prompts[0]);
    if (kac_options_text(j->options, "init-img") != NULL || kac_options_text(j->options, "mask") != NULL)
        return KAC_FAIL(KAC_E_USAGE, "a mixture starts from no picture; --init-img and --mask are for networks");
    if (kac_options_bool(j->options, "plan"))
        return KAC_FAIL(KAC_E_USAGE, "--plan is for networks; a mixture needs next to nothing");
    KAC_TRY(read_particles(j));
    const kac_mixture_options mo = {.n_groups = 1,
                                    .n_per_group = j->n_particles,
                                    .seed = j->seed,
                                    .eta =
                                        kac_options_given(j->options, "eta") ? kac_options_real(j->options, "eta") : 1};
    mixture_rewards rewards = {0};
    kac_mixture *m = NULL;
    kac_status s = kac_mixture_load(&m, j->model, &mo);
    if (s == KAC_OK) s = open_rewards(&rewards, j, kac_mixture_dim(m));
    if (s == KAC_OK) s = run_mixture(j, m, &rewards);
    close_rewards(&rewards);
    kac_mixture_destroy(m);
    return s;
}
