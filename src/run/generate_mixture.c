/* A run on an exact Gaussian mixture: results in samples.safetensors. */
#include "io/safetensors.h"
#include "reward/reward_spec.h"
#include "run/generate_job.h"
#include <kac/mixture.h>
#include <string.h>

/* quadratic=FILE[:WEIGHT], one or several. */
typedef struct mixture_rewards {
    kac_reward sum;
    kac_reward *parts[16];
    double weights[16];
    int n;
} mixture_rewards;

static kac_status score_sum(kac_reward *r, kac_process *p, const int *slots, int n, kac_stage stage, double *out) {
    const mixture_rewards *m = r->self;
    for (int i = 0; i < n; i++) {
        out[i] = 0;
        for (int k = 0; k < m->n; k++) {
            double v;
            KAC_TRY(m->parts[k]->score(m->parts[k], p, slots + i, 1, stage, &v));
            out[i] += m->weights[k] * v;
        }
    }
    return KAC_OK;
}

static kac_status open_reward(mixture_rewards *m, const char *text) {
    static const char *const names[] = {"quadratic", NULL};
    if (m->n == KAC_COUNT_OF(m->parts))
        return KAC_FAIL(KAC_E_USAGE, "at most %d rewards can be added", KAC_COUNT_OF(m->parts));
    kac_reward_spec spec;
    KAC_TRY(kac_reward_spec_parse(&spec, text));
    kac_status s = KAC_OK;
    if (strcmp(spec.name, names[0]) != 0)
        s = kac_fail_prefix(kac_reward_spec_unknown(spec.name, names), "a mixture is rewarded by quadratic=FILE alone");
    else if (spec.path == NULL || spec.path[0] == '\0')
        s = KAC_FAIL(KAC_E_USAGE, "reward \"quadratic\" needs a path: quadratic=FILE");
    else
        s = kac_quadratic_load(&m->parts[m->n], spec.path);
    if (s == KAC_OK) m->weights[m->n++] = spec.weight;
    kac_reward_spec_free(&spec);
    return s;
}

static void close_rewards(mixture_rewards *m) {
    for (int k = 0; k < m->n; k++) kac_quadratic_destroy(m->parts[k]);
}

static cJSON *mixture_counts(void *self) {
    cJSON *counts = cJSON_CreateObject();
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

static kac_status run_mixture(kac_job *j, kac_mixture *m, kac_reward *reward) {
    cJSON *facts = cJSON_CreateObject(), *model = cJSON_AddObjectToObject(facts, "model");
    cJSON_AddStringToObject(model, "path", j->model);
    cJSON_AddStringToObject(model, "class", "GaussianMixture");
    cJSON_AddNumberToObject(facts, "n_steps", kac_mixture_process(m)->n_steps);
    KAC_TRY(kac_job_folder_open(j, facts));
    j->counts = mixture_counts, j->counts_self = m;
    kac_particles particles = {0};
    const double start_ms = kac_now_ms();
    kac_status s = kac_job_steer(j, &particles, kac_mixture_process(m), reward);
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

kac_status kac_generate_mixture(kac_job *j) {
    if (j->n_prompts > 0) return KAC_FAIL(KAC_E_USAGE, "a mixture takes no prompt (\"%s\")", j->prompts[0]);
    if (kac_options_text(j->options, "init-img") != NULL || kac_options_text(j->options, "mask") != NULL)
        return KAC_FAIL(KAC_E_USAGE, "a mixture starts from no picture; --init-img and --mask are for networks");
    if (kac_options_bool(j->options, "plan"))
        return KAC_FAIL(KAC_E_USAGE, "--plan is for networks; a mixture needs next to nothing");
    const kac_mixture_options mo = {.n_groups = 1,
                                    .n_per_group = (int)kac_options_int(j->options, "particles"),
                                    .seed = j->seed,
                                    .eta = kac_options_real(j->options, "eta")};
    mixture_rewards rewards = {.sum = {.self = &rewards, .name = "sum", .score = score_sum}};
    kac_mixture *m = NULL;
    kac_status s = kac_mixture_load(&m, j->model, &mo);
    for (int i = 0; i < j->n_rewards && s == KAC_OK; i++) s = open_reward(&rewards, j->rewards[i]);
    kac_reward *reward = rewards.n == 0                              ? NULL
                         : rewards.n == 1 && rewards.weights[0] == 1 ? rewards.parts[0]
                                                                     : &rewards.sum;
    if (s == KAC_OK) s = run_mixture(j, m, reward);
    close_rewards(&rewards);
    kac_mixture_destroy(m);
    return s;
}
