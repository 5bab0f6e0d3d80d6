#include "train/gather.h"
#include "base/base.h"
#include <kac/rng.h>
#include <string.h>

kac_status kac_gather_open(kac_gather *g, const kac_trainee *t) {
    const size_t n = (size_t)t->batch;
    g->x = kac_alloc(n * (size_t)t->n_state * sizeof(float));
    g->timestep = kac_alloc(n * sizeof(double));
    g->c_in = kac_alloc(n * sizeof(double));
    g->prompt = kac_alloc(n * sizeof(int));
    return g->x != NULL && g->timestep != NULL && g->c_in != NULL && g->prompt != NULL ? KAC_OK : KAC_E_MEMORY;
}

void kac_gather_close(kac_gather *g) {
    kac_free(g->x);
    kac_free(g->timestep);
    kac_free(g->c_in);
    kac_free(g->prompt);
}

kac_denoise kac_gather_call(kac_gather *g, const kac_chain *ch, const kac_transition *list, int n) {
    const kac_trainee *t = ch->t;
    KAC_ASSERT(n >= 1 && n <= t->batch);
    for (int i = 0; i < n; i++) {
        const kac_solver_row *row = &t->solver->rows[list[i].row];
        memcpy(g->x + i * t->n_state, kac_chain_state(ch, list[i].row, list[i].sample),
               (size_t)t->n_state * sizeof(float));
        g->timestep[i] = row->timestep;
        g->c_in[i] = row->c_in;
        g->prompt[i] = ch->prompt[list[i].sample];
    }
    return (kac_denoise){.n = n,
                         .x = g->x,
                         .timestep = g->timestep,
                         .c_in = g->c_in,
                         .prompt = g->prompt,
                         .cfg_scale = ch->draw.cfg_scale};
}

static void swap(kac_transition *list, int i, int j) {
    const kac_transition t = list[i];
    list[i] = list[j];
    list[j] = t;
}

void kac_gather_shuffle(kac_transition *list, const int *samples, int n, const int *rows, int n_rows, int n_kept,
                        uint64_t seed) {
    const kac_key key = {seed, KAC_PURPOSE_DATA, 0};
    for (int i = 0; i < n; i++) { /* selection sampling (Knuth, algorithm S): each subset of n_kept rows alike */
        int n_taken = 0;
        for (int r = 0; r < n_rows && n_taken < n_kept; r++)
            if (kac_rng_uniform(key, (uint32_t)i, r) * (n_rows - r) < n_kept - n_taken)
                list[i * n_kept + n_taken++] = (kac_transition){samples[i], rows[r]};
    }
    for (int i = n * n_kept - 1; i > 0; i--) swap(list, i, (int)(kac_rng_uniform(key, UINT32_MAX, i) * (i + 1)));
}
