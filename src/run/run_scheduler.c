#include "run/run_scheduler.h"
#include "base/base.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include <string.h>

typedef struct loop {
    const kac_solver *solver;
    bool begins_noisy;        /* the sample is the state of a later step, not unit noise */
    kac_tensor sample, noise; /* noise.data is NULL when the file has none */
    int64_t n, n_draws;       /* elements of the sample; entries of the noise */
    float *x, *x0, *out, *past, *scratch, *trajectory;
    double *timesteps;
} loop;

static void network(float *out, const float *x, double c_in, double timestep, int64_t n) {
    const float t = (float)timestep, scale = (float)c_in;
    for (int64_t i = 0; i < n; i++) out[i] = scale * x[i] * t / (t + 1.0f);
}

static void one_step(loop *l, const kac_solver_row *r, const float *z) {
    network(l->out, l->x, r->c_in, r->timestep, l->n);
    for (int64_t i = 0; i < l->n; i++) l->x0[i] = (float)(r->x0_x * l->x[i] + r->x0_out * l->out[i]);
    const int64_t n_samples = l->sample.rank > 0 ? l->sample.shape[0] : 1, n_each = l->n / KAC_MAX(n_samples, 1);
    for (int64_t k = 0; k < n_samples; k++) kac_solver_clip(l->solver, l->x0 + k * n_each, n_each, l->scratch);
    kac_solver_step(l->solver, r, l->x, l->x0, l->out, l->past, z, NULL, l->n);
}

static kac_status run_loop(loop *l) {
    const kac_solver *s = l->solver;
    int64_t n_drawn = 0;
    const float scale = l->begins_noisy ? 1.0f : (float)s->init_noise_sigma;
    for (int64_t i = 0; i < l->n; i++) l->x[i] = ((const float *)l->sample.data)[i] * scale;
    for (int i = 0; i < s->n_steps; i++) {
        const kac_solver_row *r = &s->rows[i];
        const bool draws = r->z != 0.0;
        if (draws && n_drawn == l->n_draws)
            return KAC_FAIL(KAC_E_SHAPE, "step %d draws noise for the %lld. time; the file's noise has %lld entries", i,
                            (long long)n_drawn + 1, (long long)l->n_draws);
        one_step(l, r, draws ? (const float *)l->noise.data + n_drawn * l->n : NULL);
        n_drawn += draws;
        memcpy(l->trajectory + i * l->n, l->x, (size_t)l->n * sizeof(float));
        l->timesteps[i] = r->timestep;
    }
    return KAC_OK;
}

static kac_status find_inputs(loop *l, const kac_weights *in, const char *path) {
    KAC_TRY(kac_weights_find(in, "sample", &l->sample));
    if (l->sample.dtype != KAC_F32 || l->sample.rank >= KAC_MAX_RANK)
        return KAC_FAIL(KAC_E_SHAPE, "%s: sample must be F32 with at most %d axes", path, KAC_MAX_RANK - 1);
    l->n = kac_tensor_count(l->sample);
    if (l->n == 0) return KAC_FAIL(KAC_E_SHAPE, "%s: sample has no elements", path);
    if (kac_weights_entry_of(in, "noise") == NULL) return KAC_OK;
    KAC_TRY(kac_weights_find(in, "noise", &l->noise));
    bool fits = l->noise.dtype == KAC_F32 && l->noise.rank == l->sample.rank + 1;
    for (int i = 0; fits && i < l->sample.rank; i++) fits = l->noise.shape[i + 1] == l->sample.shape[i];
    if (!fits) return KAC_FAIL(KAC_E_SHAPE, "%s: noise must be F32 with one axis before those of sample", path);
    l->n_draws = l->noise.shape[0];
    return KAC_OK;
}

static kac_status write_results(const loop *l, const char *path) {
    int64_t shape[KAC_MAX_RANK] = {l->solver->n_steps};
    memcpy(shape + 1, l->sample.shape, (size_t)l->sample.rank * sizeof *shape);
    const kac_st_item items[] = {
        {"sample", kac_tensor_of(l->x, KAC_F32, l->sample.rank, l->sample.shape)},
        {"trajectory", kac_tensor_of(l->trajectory, KAC_F32, l->sample.rank + 1, shape)},
        {"timesteps", kac_tensor_of(l->timesteps, KAC_F64, 1, shape)},
    };
    return kac_st_write(path, items, KAC_COUNT_OF(items), NULL, 0);
}

static kac_status run_on_file(loop *l, const kac_weights *in, const kac_run_scheduler_args *a) {
    KAC_TRY(find_inputs(l, in, a->in_path));
    const size_t n = (size_t)l->n, n_steps = (size_t)l->solver->n_steps;
    const size_t n_parts = n_steps + 4 + KAC_SOLVER_PAST;
    if (n > SIZE_MAX / sizeof(float) / n_parts) return KAC_FAIL(KAC_E_MEMORY, "%s: sample is too large", a->in_path);
    float *block = kac_alloc(n_parts * n * sizeof(float));
    l->timesteps = kac_alloc(n_steps * sizeof(double));
    kac_status status = block != NULL && l->timesteps != NULL ? KAC_OK : KAC_E_MEMORY;
    if (status == KAC_OK) {
        l->x = block;
        l->x0 = block + n;
        l->out = block + 2 * n;
        l->scratch = block + 3 * n;
        l->past = block + 4 * n;
        l->trajectory = block + (4 + KAC_SOLVER_PAST) * n;
        status = run_loop(l);
    }
    if (status == KAC_OK) status = write_results(l, a->out_path);
    kac_free(block);
    kac_free(l->timesteps);
    return status;
}

kac_status kac_run_scheduler(const kac_run_scheduler_args *a) {
    kac_schedule schedule;
    kac_solver solver = {0};
    kac_weights in = {0};
    KAC_TRY(kac_schedule_load(&schedule, a->config_path));
    kac_status status = kac_solver_init(&solver, &schedule, &a->options);
    if (status == KAC_OK && solver.learned != 0)
        status = KAC_FAIL(KAC_E_UNSUPPORTED, "%s: variance_type learned needs a network; the dummy one has no variance",
                          a->config_path);
    if (status == KAC_OK) status = kac_weights_open(&in, a->in_path);
    if (status == KAC_OK) {
        loop l = {.solver = &solver, .begins_noisy = a->options.begin > 0};
        status = run_on_file(&l, &in, a);
    }
    kac_weights_close(&in);
    kac_solver_free(&solver);
    kac_schedule_free(&schedule);
    return status;
}
