#include "train/noised.h"
#include "base/base.h"
#include <kac/rng.h>
#include <string.h>

kac_status kac_noised_open(kac_noised *m, const kac_trainee *t, int n) {
    const size_t n_bytes = (size_t)n * (size_t)t->n_state * sizeof(float);
    *m = (kac_noised){.t = t, .n = n};
    m->x = kac_alloc(n_bytes);
    m->x0 = kac_alloc(n_bytes);
    m->timestep = kac_alloc((size_t)n * sizeof(double));
    m->c_in = kac_alloc((size_t)n * sizeof(double));
    m->row = kac_alloc((size_t)n * sizeof(int));
    m->prompt = kac_alloc((size_t)n * sizeof(int));
    m->sample = kac_alloc((size_t)n * sizeof(int));
    return m->x != NULL && m->x0 != NULL && m->timestep != NULL && m->c_in != NULL && m->row != NULL &&
                   m->prompt != NULL && m->sample != NULL
               ? KAC_OK
               : KAC_E_MEMORY;
}

void kac_noised_close(kac_noised *m) {
    kac_free(m->x);
    kac_free(m->x0);
    kac_free(m->timestep);
    kac_free(m->c_in);
    kac_free(m->row);
    kac_free(m->prompt);
    kac_free(m->sample);
}

void kac_noised_set(kac_noised *m, const kac_trainer *tr, uint32_t stream, int i, const float *x0, int prompt,
                    int sample) {
    const kac_solver *s = m->t->solver;
    const int64_t n_state = m->t->n_state;
    const int i_row = (int)(kac_trainer_uniform(tr, stream, i) * s->n_steps);
    const kac_solver_row *row = &s->rows[i_row];
    float *x = m->x + i * n_state;
    memcpy(m->x0 + i * n_state, x0, (size_t)n_state * sizeof(float));
    kac_rng_normal(x, n_state, (kac_key){kac_trainer_seed(tr, stream), KAC_PURPOSE_DATA, 0}, (uint32_t)i, 0);
    for (int64_t j = 0; j < n_state; j++) x[j] = (float)(row->alpha * x0[j] + row->sigma * x[j]);
    m->timestep[i] = row->timestep;
    m->c_in[i] = row->c_in;
    m->row[i] = i_row;
    m->prompt[i] = prompt;
    m->sample[i] = sample;
}

kac_denoise kac_noised_call(const kac_noised *m, int first, int n, double cfg_scale) {
    return (kac_denoise){.n = n,
                         .x = m->x + first * m->t->n_state,
                         .timestep = m->timestep + first,
                         .c_in = m->c_in + first,
                         .prompt = m->prompt + first,
                         .cfg_scale = cfg_scale};
}

kac_status kac_noised_predict(const kac_noised *m, kac_trainee *t, double cfg_scale, float *out) {
    for (int first = 0; first < m->n; first += t->batch) {
        const kac_denoise in = kac_noised_call(m, first, KAC_MIN(t->batch, m->n - first), cfg_scale);
        KAC_TRY(t->predict(t, &in, out + first * t->n_state));
    }
    return KAC_OK;
}
