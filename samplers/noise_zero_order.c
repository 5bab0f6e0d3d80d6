/* Zero-order search over initial noise (Ma et al. 2025): from a pivot, N neighbours of its noise are sampled; the best of them becomes the pivot
 * if it is better. The first pivot is the best of N fresh noises. Where steps draw noise, all samples of a pivot and its successors draw the
 * same, so that a neighbour differs by its first noise alone.
 *
 * A neighbour of the noise x, with u = x / |x| and w a random direction at right angles to it:
 *     cosine     |x| (τ u + √(1 − τ²) w)    at the cosine τ, as in the released code for FLUX (tt-scale-flux)
 *     euclidean  x + δ |x| w'               w' any direction: at the distance δ |x|, off the sphere that noise lies on */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/noise_search.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"neighbors", 0, KAC_OPT_INT, "4", 1, 100000, NULL, "N", "sampled around each pivot in a round", false},
    {"pivots", 0, KAC_OPT_INT, "1", 1, 100000, NULL, "N", "searches side by side", false},
    {"metric", 0, KAC_OPT_CHOICE, "cosine", 0, 0, "cosine|euclidean", NULL, "what a neighbour's distance is", false},
    {"similarity", 0, KAC_OPT_REAL, "0.95", -1, 1, NULL, "TAU", "cosine between a pivot's noise and its neighbours'",
     false},
    {"distance", 0, KAC_OPT_REAL, "0.3", 0, 1000, NULL, "DELTA",
     "with --metric euclidean: of neighbours, by the length of the pivot's noise", false},
    {"patience", 0, KAC_OPT_INT, "0", 0, 1000000, NULL, "N",
     "begin with fresh noise after N rounds without a better neighbour; 0: never", false},
    KAC_OPTION_ROUNDS("8", "rounds of neighbours"),
    KAC_OPTION_PRESET("paper|tt-scale-flux", "of the paper's text-to-image runs, and of the released code for FLUX"),
    KAC_OPTIONS_END};

static const kac_preset presets[] = {{"paper", "neighbors=2 metric=cosine similarity=0.95 pivots=1 patience=0"},
                                     {"tt-scale-flux", "neighbors=4 metric=cosine similarity=0.95 pivots=1 patience=0"},
                                     {NULL, NULL}};

typedef struct zero_order {
    kac_noise_search search;
    int n_neighbors, n_pivots, n_items; /* n_items = n_pivots · n_neighbors, of each group in a round */
    bool cosine;
    double similarity, distance;
    int64_t patience;
    /* of pivot (group, pivot), saved with a checkpoint: */
    float *z;               /* [n_groups, n_pivots, n_state] */
    double *reward;         /* −infinity: none yet, its items are fresh noises */
    int64_t *stuck;         /* rounds without a better one */
    int64_t *search_number; /* fresh beginnings so far: whose step noise it draws */
    /* of this round: */
    float *items;        /* [n, n_state] noises of the slots */
    float *best_z;       /* as z */
    double *best_reward; /* as reward */
    uint64_t *keys;      /* [n] */
    int64_t *numbers;    /* [k] */
} zero_order;

static double dot(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

/* w, a draw of normals, becomes the neighbour of x that lies in its direction. */
static void make_neighbor(const zero_order *m, float *w, const float *x, int64_t n) {
    const double length = sqrt(dot(x, x, n));
    double along = m->cosine && length > 0 ? dot(w, x, n) / (length * length) : 0, off = 0;
    for (int64_t i = 0; i < n; i++) off += pow((double)w[i] - along * (double)x[i], 2);
    const double side = m->cosine ? sqrt(1 - m->similarity * m->similarity) : m->distance;
    const double keep = m->cosine ? m->similarity : 1, scale = off > 0 ? side * length / sqrt(off) : 0;
    for (int64_t i = 0; i < n; i++) w[i] = (float)(keep * (double)x[i] + scale * ((double)w[i] - along * (double)x[i]));
}

/* Items first … first + n_each − 1 of every group go to the slots. */
static kac_status start_items(zero_order *m, int first, int n_each) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_each);
    for (int i = 0; i < n; i++) {
        const int group = i / n_each, item = first + i % n_each, pivot = group * m->n_pivots + item / m->n_neighbors;
        float *z = m->items + i * p->n_state;
        kac_noise_draw(s, z, group, (uint64_t)(s->round * m->n_items + item));
        if (m->reward[pivot] > -INFINITY) make_neighbor(m, z, m->z + pivot * p->n_state, p->n_state);
        m->keys[i] = (uint64_t)(m->search_number[pivot] * m->n_pivots + item / m->n_neighbors);
        m->numbers[i % n_each] = s->round * m->n_items + item;
    }
    p->rekey(p, s->slots, n, m->keys);
    KAC_TRY(p->noise(p, s->slots, n, m->items));
    return p->start(p, s->slots, n);
}

static void note_items(zero_order *m, int first, int n_each) {
    const kac_noise_search *s = &m->search;
    const int64_t n_state = s->process->n_state;
    for (int i = 0; i < s->n_groups * n_each; i++) {
        const int pivot = i / n_each * m->n_pivots + (first + i % n_each) / m->n_neighbors;
        if (s->rewards[i] <= m->best_reward[pivot]) continue;
        m->best_reward[pivot] = s->rewards[i];
        memcpy(m->best_z + pivot * n_state, m->items + i * n_state, (size_t)n_state * sizeof(float));
    }
}

static void move_pivots(zero_order *m) {
    const int64_t n_state = m->search.process->n_state;
    for (int i = 0; i < m->search.n_groups * m->n_pivots; i++) {
        if (m->best_reward[i] > m->reward[i]) {
            m->reward[i] = m->best_reward[i], m->stuck[i] = 0;
            memcpy(m->z + i * n_state, m->best_z + i * n_state, (size_t)n_state * sizeof(float));
        } else if (++m->stuck[i] == m->patience) {
            m->reward[i] = -INFINITY, m->stuck[i] = 0;
            m->search_number[i]++;
        }
    }
}

enum { N_OWN = 4 };

static void list_own(zero_order *m, kac_blob own[N_OWN]) {
    const size_t n = (size_t)(m->search.n_groups * m->n_pivots);
    own[0] = (kac_blob){"pivots", m->z, n * (size_t)m->search.process->n_state * sizeof *m->z};
    own[1] = (kac_blob){"pivot_rewards", m->reward, n * sizeof *m->reward};
    own[2] = (kac_blob){"pivot_stuck", m->stuck, n * sizeof *m->stuck};
    own[3] = (kac_blob){"pivot_searches", m->search_number, n * sizeof *m->search_number};
}

/* The last round may be smaller: what the budget still pays. */
static kac_status run_round(zero_order *m, int n_items, const kac_blob *own) {
    kac_noise_search *s = &m->search;
    for (int i = 0; i < s->n_groups * m->n_pivots; i++) m->best_reward[i] = -INFINITY;
    for (int first = 0; first < n_items; first += s->k) {
        const int n_each = KAC_MIN(s->k, n_items - first);
        KAC_TRY(start_items(m, first, n_each));
        KAC_TRY(kac_noise_rollout(s, n_each, 0, s->process->n_steps));
        if (s->stopped) return KAC_OK;
        KAC_TRY(kac_noise_score(s, n_each, KAC_STAGE_FINAL));
        note_items(m, first, n_each);
        KAC_TRY(kac_noise_keep(s, n_each, m->numbers));
    }
    move_pivots(m);
    return kac_noise_end_round(s, own, N_OWN);
}

static kac_status prepare(zero_order *m, const kac_options *o) {
    const kac_noise_search *s = &m->search;
    m->n_neighbors = (int)kac_options_int(o, "neighbors");
    m->n_pivots = (int)kac_options_int(o, "pivots");
    m->cosine = strcmp(kac_options_text(o, "metric"), "cosine") == 0;
    m->similarity = kac_options_real(o, "similarity");
    m->distance = kac_options_real(o, "distance");
    m->patience = kac_options_int(o, "patience");
    if (m->n_pivots > 1000000 / m->n_neighbors)
        return KAC_FAIL(KAC_E_USAGE, "--pivots %d times --neighbors %d is more than 1000000", m->n_pivots,
                        m->n_neighbors);
    m->n_items = m->n_pivots * m->n_neighbors;
    const size_t n = (size_t)(s->n_groups * m->n_pivots), row = (size_t)s->process->n_state * sizeof(float);
    m->z = kac_alloc(n * row), m->best_z = kac_alloc(n * row), m->items = kac_alloc((size_t)s->n * row);
    m->reward = kac_alloc(n * sizeof *m->reward), m->best_reward = kac_alloc(n * sizeof *m->best_reward);
    m->stuck = kac_alloc(n * sizeof *m->stuck), m->search_number = kac_alloc(n * sizeof *m->search_number);
    m->keys = kac_alloc((size_t)s->n * sizeof *m->keys), m->numbers = kac_alloc((size_t)s->k * sizeof *m->numbers);
    if (m->z == NULL || m->best_z == NULL || m->items == NULL || m->reward == NULL || m->best_reward == NULL ||
        m->stuck == NULL || m->search_number == NULL || m->keys == NULL || m->numbers == NULL)
        return KAC_E_MEMORY;
    for (size_t i = 0; i < n; i++) m->reward[i] = -INFINITY;
    return KAC_OK;
}

static kac_status sample(zero_order *m, kac_particles *out) {
    kac_noise_search *s = &m->search;
    const int n_steps = s->process->n_steps;
    kac_blob own[N_OWN];
    list_own(m, own);
    KAC_TRY(kac_noise_check_budget(s, n_steps));
    KAC_TRY(kac_noise_start(s, own, N_OWN));
    while (kac_noise_goes_on(s, n_steps))
        KAC_TRY(run_round(m, (int)KAC_MIN(m->n_items, kac_noise_room(s) / n_steps), own));
    return kac_noise_finish(s, own, N_OWN, out);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    zero_order m = {0};
    const int64_t rounds = kac_options_int(o, "rounds");
    kac_status status = kac_noise_open(&m.search, "noise-zero-order", process, reward, events, seed, rounds);
    if (status == KAC_OK) status = prepare(&m, o);
    if (status == KAC_OK) status = sample(&m, out);
    kac_noise_close(&m.search);
    void *const all[] = {m.z, m.best_z, m.items, m.reward, m.best_reward, m.stuck, m.search_number, m.keys, m.numbers};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

const kac_method kac_method_noise_zero_order = {
    .name = "noise-zero-order",
    .summary = "neighbours of the best noise so far, over and over; the best samples are kept",
    .options = options,
    .target = KAC_TARGET_MODE,
    .run = run,
    .anytime = true,
    .presets = presets};
