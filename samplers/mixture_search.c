/* What a mixture offers to searches: other noise, states put by, states from outside; and its saved form. */
#include "base/base.h"
#include "samplers/mixture.h"
#include <math.h>
#include <string.h>

enum { BEHIND = 2 }; /* doubles behind the record of a place: predicted and root */

static void mixture_rekey(kac_process *p, const int *slots, int n, const uint64_t *keys) {
    kac_mixture *m = p->self;
    /* groups are independent repeats, whose own particles are numbered on */
    for (int i = 0; i < n; i++) {
        const uint64_t group = (uint64_t)(slots[i] / p->n_per_group), k = (uint64_t)p->n_per_group;
        m->key[slots[i]] = keys[i] < k ? group * k + keys[i] : keys[i] + group * 0xD1B54A32D192ED03u;
    }
}

/* ---- places ---- */

static double *place_at(const kac_mixture *m, int64_t place) {
    return m->places + (size_t)place * (m->record + BEHIND);
}

static kac_status grow_places(kac_mixture *m, int64_t n) {
    if (n > m->most_places) {
        const int64_t most = KAC_MAX(n, 2 * m->most_places);
        double *places = kac_realloc(m->places, (size_t)most * (m->record + BEHIND) * sizeof *places);
        if (places == NULL) return KAC_E_MEMORY;
        m->places = places, m->most_places = most;
    }
    if (n > m->n_places)
        memset(place_at(m, m->n_places), 0, (size_t)(n - m->n_places) * (m->record + BEHIND) * sizeof *m->places);
    m->n_places = KAC_MAX(m->n_places, n);
    return KAC_OK;
}

static kac_status mixture_store(kac_process *p, const int *slots, int n, const int64_t *places) {
    kac_mixture *m = p->self;
    for (int i = 0; i < n; i++) {
        KAC_TRY(grow_places(m, places[i] + 1));
        double *to = place_at(m, places[i]);
        memcpy(to, kac_mixture_x(m, slots[i]), m->record * sizeof *to);
        to[m->record] = m->predicted[slots[i]];
        memcpy(&to[m->record + 1], &m->root[slots[i]], sizeof *m->root);
    }
    return KAC_OK;
}

static kac_status mixture_fetch(kac_process *p, const int64_t *places, const int *slots, int n) {
    kac_mixture *m = p->self;
    for (int i = 0; i < n; i++) {
        if (places[i] < 0 || places[i] >= m->n_places)
            return KAC_FAIL(KAC_E_FORMAT, "no state was put by at place %lld", (long long)places[i]);
        const double *from = place_at(m, places[i]);
        memcpy(kac_mixture_x(m, slots[i]), from, m->record * sizeof *from);
        m->predicted[slots[i]] = (int)from[m->record];
        memcpy(&m->root[slots[i]], &from[m->record + 1], sizeof *m->root);
    }
    return KAC_OK;
}

/* ---- states from outside ---- */

static kac_status mixture_read(kac_process *p, const int *slots, int n, float *x) {
    const kac_mixture *m = p->self;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m->d; j++) x[i * m->d + j] = (float)kac_mixture_x(m, slots[i])[j];
    return KAC_OK;
}

static kac_status mixture_write(kac_process *p, const int *slots, int n, const float *x) {
    kac_mixture *m = p->self;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < m->d; j++) kac_mixture_x(m, slots[i])[j] = (double)x[i * m->d + j];
        m->predicted[slots[i]] = -1;
        m->root[slots[i]] = m->next_root++;
    }
    return KAC_OK;
}

static kac_status mixture_noise(kac_process *p, const int *slots, int n, const float *z) {
    kac_mixture *m = p->self;
    for (int i = 0; i < n; i++) {
        memcpy(m->noise + (size_t)slots[i] * (size_t)m->d, z + i * m->d, (size_t)m->d * sizeof *z);
        m->noised[slots[i]] = true;
    }
    return KAC_OK;
}

static void mixture_level(kac_process *p, int i_step, double *alpha, double *sigma) {
    const kac_mixture *m = p->self;
    const double bar = m->model.alpha_bar[m->model.n_steps - i_step];
    *alpha = sqrt(bar), *sigma = sqrt(1.0 - bar);
}

/* ---- saving ---- */

/* next_root; x, root and key of every slot: at the end of a step nothing else is left of a state; the places as they are. */
static size_t slot_bytes(const kac_mixture *m) {
    return (size_t)m->d * sizeof(double) + sizeof *m->root + sizeof *m->key;
}

static int64_t mixture_state_bytes(kac_process *p) {
    const kac_mixture *m = p->self;
    return (int64_t)(sizeof m->next_root + (size_t)m->n_slots * slot_bytes(m) +
                     (size_t)m->n_places * (m->record + BEHIND) * sizeof *m->places);
}

static void put(char **at, const void *from, size_t n_bytes) {
    memcpy(*at, from, n_bytes);
    *at += n_bytes;
}

static void get(void *to, const char **at, size_t n_bytes) {
    memcpy(to, *at, n_bytes);
    *at += n_bytes;
}

static kac_status mixture_state_save(kac_process *p, void *out) {
    const kac_mixture *m = p->self;
    char *at = out;
    put(&at, &m->next_root, sizeof m->next_root);
    for (int i = 0; i < m->n_slots; i++) put(&at, kac_mixture_x(m, i), (size_t)m->d * sizeof(double));
    put(&at, m->root, (size_t)m->n_slots * sizeof *m->root);
    put(&at, m->key, (size_t)m->n_slots * sizeof *m->key);
    if (m->n_places > 0) put(&at, m->places, (size_t)m->n_places * (m->record + BEHIND) * sizeof *m->places);
    return KAC_OK;
}

static kac_status mixture_state_load(kac_process *p, const void *in, size_t n_bytes) {
    kac_mixture *m = p->self;
    const size_t slots = sizeof m->next_root + (size_t)m->n_slots * slot_bytes(m),
                 place = (m->record + BEHIND) * sizeof *m->places;
    if (n_bytes < slots || (n_bytes - slots) % place != 0)
        return KAC_FAIL(KAC_E_FORMAT, "the saved state of the mixture is damaged; start again without --resume");
    const char *at = in;
    get(&m->next_root, &at, sizeof m->next_root);
    for (int i = 0; i < m->n_slots; i++) {
        get(kac_mixture_x(m, i), &at, (size_t)m->d * sizeof(double));
        m->predicted[i] = -1;
    }
    get(m->root, &at, (size_t)m->n_slots * sizeof *m->root);
    get(m->key, &at, (size_t)m->n_slots * sizeof *m->key);
    m->n_places = 0;
    KAC_TRY(grow_places(m, (int64_t)((n_bytes - slots) / place)));
    if (m->n_places > 0) get(m->places, &at, n_bytes - slots);
    for (int64_t i = 0; i < m->n_places; i++) {
        const double step = place_at(m, i)[m->record];
        if (!(step >= -1 && step < m->model.n_steps && step == floor(step)))
            return KAC_FAIL(KAC_E_FORMAT, "the saved state of the mixture is damaged; start again without --resume");
    }
    return KAC_OK;
}

void kac_mixture_search_open(kac_mixture *m) {
    kac_process *p = &m->process;
    p->rekey = mixture_rekey, p->store = mixture_store, p->fetch = mixture_fetch;
    p->read = mixture_read, p->write = mixture_write, p->noise = mixture_noise, p->level = mixture_level;
    p->state_bytes = mixture_state_bytes, p->state_save = mixture_state_save, p->state_load = mixture_state_load;
}

void kac_mixture_search_close(kac_mixture *m) {
    kac_free(m->places);
}
