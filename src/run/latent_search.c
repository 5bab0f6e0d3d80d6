/* What the latent process offers to searches: other noise, states put by, states from outside; and its saved form. */
#include "run/latent_parts.h"
#include <string.h>

/* A state that was put by. `data` holds x, the solver's history and, if it was predicted, the network's output and its variance. */
typedef struct kac_latent_place {
    uint64_t id, origin;
    int predicted_at; /* −1: not predicted */
    float *data;
} kac_latent_place;

enum { ROWS_MOST = 3 + KAC_SOLVER_PAST };

static void latent_rekey(kac_process *p, const int *slots, int n, const uint64_t *keys) {
    kac_latent *l = p->self;
    for (int i = 0; i < n; i++) l->key[slots[i]] = (uint64_t)l->o.first_particle + keys[i];
}

/* ---- places ---- */

/* The rows of a slot that a place keeps, and how many. */
static int kept_rows(const kac_latent *l, int slot, bool predicted, float *rows[ROWS_MOST]) {
    int n = 0;
    rows[n++] = kac_latent_row(l->x, slot).data;
    for (int j = 0; j < l->solver->n_past; j++) rows[n++] = kac_latent_row(l->past[j], slot).data;
    if (predicted) rows[n++] = kac_latent_row(l->out, slot).data;
    if (predicted && l->variance.data != NULL) rows[n++] = kac_latent_row(l->variance, slot).data;
    return n;
}

static size_t place_floats(const kac_latent *l, bool predicted) {
    const int n = 1 + l->solver->n_past + (predicted ? 1 + (l->variance.data != NULL) : 0);
    return (size_t)n * (size_t)kac_latent_state_count(l);
}

static kac_status grow_places(kac_latent *l, int64_t n) {
    if (n > l->most_places) {
        const int64_t most = KAC_MAX(n, 2 * l->most_places);
        kac_latent_place *places = kac_realloc(l->places, (size_t)most * sizeof *places);
        if (places == NULL) return KAC_E_MEMORY;
        l->places = places, l->most_places = most;
    }
    for (; l->n_places < n; l->n_places++) l->places[l->n_places] = (kac_latent_place){.predicted_at = -1};
    return KAC_OK;
}

static kac_status reserve(kac_latent_place *place, size_t n_floats) {
    float *data = kac_realloc(place->data, n_floats * sizeof *data);
    if (data == NULL) return KAC_E_MEMORY;
    place->data = data;
    return KAC_OK;
}

static kac_status latent_store(kac_process *p, const int *slots, int n, const int64_t *places) {
    kac_latent *l = p->self;
    const size_t row = (size_t)kac_latent_state_count(l);
    for (int i = 0; i < n; i++) {
        const int slot = slots[i];
        const bool predicted = l->predicted[slot] == l->id[slot];
        float *rows[ROWS_MOST];
        KAC_TRY(grow_places(l, places[i] + 1));
        kac_latent_place *to = &l->places[places[i]];
        KAC_TRY(reserve(to, place_floats(l, predicted)));
        to->id = l->id[slot], to->origin = l->origin[slot], to->predicted_at = predicted ? l->predicted_at[slot] : -1;
        const int n_rows = kept_rows(l, slot, predicted, rows);
        for (int k = 0; k < n_rows; k++) memcpy(to->data + (size_t)k * row, rows[k], row * sizeof(float));
    }
    return KAC_OK;
}

static kac_status latent_fetch(kac_process *p, const int64_t *places, const int *slots, int n) {
    kac_latent *l = p->self;
    const size_t row = (size_t)kac_latent_state_count(l), mark = kac_arena_mark(&l->c->scratch);
    kac_tensor clip_scratch = {0};
    if (l->solver->threshold > 0) KAC_TRY(kac_take_make(&clip_scratch, &l->c->scratch, KAC_F32, (int64_t)row));
    for (int i = 0; i < n; i++) {
        const int slot = slots[i];
        if (places[i] < 0 || places[i] >= l->n_places || l->places[places[i]].data == NULL)
            return KAC_FAIL(KAC_E_FORMAT, "no state was put by at place %lld", (long long)places[i]);
        const kac_latent_place *from = &l->places[places[i]];
        float *rows[ROWS_MOST];
        const int n_rows = kept_rows(l, slot, from->predicted_at >= 0, rows);
        for (int k = 0; k < n_rows; k++) memcpy(rows[k], from->data + (size_t)k * row, row * sizeof(float));
        l->id[slot] = from->id, l->origin[slot] = from->origin;
        l->predicted[slot] = from->predicted_at >= 0 ? from->id : 0, l->predicted_at[slot] = from->predicted_at;
        if (from->predicted_at >= 0) KAC_TRY(kac_latent_denoised(l, from->predicted_at, slot, clip_scratch.data));
    }
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* ---- states from outside ---- */

static kac_status latent_read(kac_process *p, const int *slots, int n, float *x) {
    const kac_latent *l = p->self;
    const size_t row = (size_t)kac_latent_state_count(l);
    for (int i = 0; i < n; i++) memcpy(x + (size_t)i * row, kac_latent_row(l->x, slots[i]).data, row * sizeof *x);
    return KAC_OK;
}

static kac_status latent_write(kac_process *p, const int *slots, int n, const float *x) {
    kac_latent *l = p->self;
    const size_t row = (size_t)kac_latent_state_count(l);
    for (int i = 0; i < n; i++) {
        memcpy(kac_latent_row(l->x, slots[i]).data, x + (size_t)i * row, row * sizeof *x);
        l->origin[slots[i]] = l->key[slots[i]];
        l->id[slots[i]] = ++l->next_id;
    }
    return KAC_OK;
}

static kac_status latent_noise(kac_process *p, const int *slots, int n, const float *z) {
    kac_latent *l = p->self;
    const size_t row = (size_t)kac_latent_state_count(l);
    if (l->noise == NULL) {
        l->noise = kac_alloc((size_t)l->n_slots * row * sizeof *l->noise);
        l->noised = kac_alloc((size_t)l->n_slots * sizeof *l->noised);
        if (l->noise == NULL || l->noised == NULL) return KAC_E_MEMORY;
    }
    for (int i = 0; i < n; i++) {
        memcpy(l->noise + (size_t)slots[i] * row, z + (size_t)i * row, row * sizeof *z);
        l->noised[slots[i]] = true;
    }
    return KAC_OK;
}

static void latent_level(kac_process *p, int i_step, double *alpha, double *sigma) {
    const kac_latent *l = p->self;
    const bool last = i_step == l->solver->n_steps;
    *alpha = last ? 1 : l->solver->rows[i_step].alpha;
    *sigma = last ? 0 : l->solver->rows[i_step].sigma;
}

/* ---- saving ---- */

enum { N_SAVED = 5 + KAC_SOLVER_PAST };

typedef struct saved {
    void *data;
    size_t n_bytes;
} saved;

/* Between steps nothing but x, past, the ids, keys and origins matters: out and x0 are computed anew, pictures too. */
static void list_saved(kac_latent *l, saved list[N_SAVED]) {
    const size_t n = (size_t)l->n_slots;
    list[0] = (saved){&l->next_id, sizeof l->next_id};
    list[1] = (saved){l->id, n * sizeof *l->id};
    list[2] = (saved){l->origin, n * sizeof *l->origin};
    list[3] = (saved){l->key, n * sizeof *l->key};
    list[4] = (saved){l->x.data, kac_tensor_bytes(l->x)};
    for (int j = 0; j < KAC_SOLVER_PAST; j++)
        list[5 + j] = (saved){l->past[j].data, j < l->solver->n_past ? kac_tensor_bytes(l->x) : 0};
}

/* A place in a saved state: this, then its data. */
typedef struct place_head {
    uint64_t id, origin;
    int64_t predicted_at;
} place_head;

static size_t slots_bytes(kac_latent *l) {
    saved list[N_SAVED];
    size_t n = 0;
    list_saved(l, list);
    for (int i = 0; i < N_SAVED; i++) n += list[i].n_bytes;
    return n;
}

static int64_t latent_state_bytes(kac_process *p) {
    kac_latent *l = p->self;
    size_t n = slots_bytes(l);
    for (int64_t i = 0; i < l->n_places; i++) {
        const kac_latent_place *place = &l->places[i];
        n += sizeof(place_head);
        if (place->data != NULL) n += place_floats(l, place->predicted_at >= 0) * sizeof *place->data;
    }
    return (int64_t)n;
}

static kac_status latent_state_save(kac_process *p, void *out) {
    kac_latent *l = p->self;
    saved list[N_SAVED];
    char *to = out;
    list_saved(l, list);
    for (int i = 0; i < N_SAVED; to += list[i++].n_bytes)
        if (list[i].n_bytes > 0) memcpy(to, list[i].data, list[i].n_bytes);
    for (int64_t i = 0; i < l->n_places; i++) {
        const kac_latent_place *place = &l->places[i];
        const place_head head = {place->id, place->origin, place->data == NULL ? -2 : place->predicted_at};
        const size_t n_bytes = place->data == NULL ? 0 : place_floats(l, head.predicted_at >= 0) * sizeof *place->data;
        memcpy(to, &head, sizeof head);
        if (n_bytes > 0) memcpy(to + sizeof head, place->data, n_bytes);
        to += sizeof head + n_bytes;
    }
    return KAC_OK;
}

static kac_status load_place(kac_latent *l, const char **at, const char *end) {
    place_head head;
    bool good = (size_t)(end - *at) >= sizeof head;
    if (good) memcpy(&head, *at, sizeof head);
    good = good && head.predicted_at >= -2 && head.predicted_at < l->solver->n_steps;
    const size_t n_floats = good && head.predicted_at >= -1 ? place_floats(l, head.predicted_at >= 0) : 0;
    if (!good || (size_t)(end - *at) - sizeof head < n_floats * sizeof(float))
        return KAC_FAIL(KAC_E_FORMAT, "the saved states are damaged; start again without --resume");
    KAC_TRY(grow_places(l, l->n_places + 1));
    kac_latent_place *place = &l->places[l->n_places - 1];
    place->id = head.id, place->origin = head.origin, place->predicted_at = KAC_MAX((int)head.predicted_at, -1);
    *at += sizeof head;
    if (n_floats == 0) return KAC_OK;
    KAC_TRY(reserve(place, n_floats));
    memcpy(place->data, *at, n_floats * sizeof(float));
    *at += n_floats * sizeof(float);
    return KAC_OK;
}

static void forget_places(kac_latent *l) {
    for (int64_t i = 0; i < l->n_places; i++) kac_free(l->places[i].data);
    l->n_places = 0;
}

static kac_status latent_state_load(kac_process *p, const void *in, size_t n_bytes) {
    kac_latent *l = p->self;
    saved list[N_SAVED];
    const char *from = in, *end = from + n_bytes;
    if (n_bytes < slots_bytes(l))
        return KAC_FAIL(KAC_E_FORMAT, "the saved states are too short; start again without --resume");
    const uint64_t most_id = l->next_id; /* no id comes again for another state: others may remember what they know of it */
    list_saved(l, list);
    for (int i = 0; i < N_SAVED; from += list[i++].n_bytes)
        if (list[i].n_bytes > 0) memcpy(list[i].data, from, list[i].n_bytes);
    l->next_id = KAC_MAX(l->next_id, most_id);
    forget_places(l);
    while (from < end) KAC_TRY(load_place(l, &from, end));
    memset(l->predicted, 0, (size_t)l->n_slots * sizeof *l->predicted);
    memset(l->picture_id, 0, (size_t)l->n_slots * sizeof *l->picture_id);
    return KAC_OK;
}

void kac_latent_search_open(kac_latent *l) {
    kac_process *p = &l->process;
    p->rekey = latent_rekey, p->store = latent_store, p->fetch = latent_fetch;
    p->read = latent_read, p->write = latent_write, p->noise = latent_noise, p->level = latent_level;
    p->state_bytes = latent_state_bytes, p->state_save = latent_state_save, p->state_load = latent_state_load;
}

void kac_latent_search_close(kac_latent *l) {
    forget_places(l);
    kac_free(l->places), kac_free(l->noise), kac_free(l->noised);
}
