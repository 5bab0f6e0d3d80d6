/* Demon (Yeh et al. 2024, Training-free diffusion model alignment with sampling demons): at every step a sample's noise is put together from
 * `candidates` draws z_j, by what reward the state that each leads to promises:
 *
 *     z* = √d · Σ w_j z_j / |Σ w_j z_j|,   w_j = tanh((r_j − mean) / τ) | softmax(r_j / τ) | r_j
 *
 * and the step is taken with z*. r_j is the reward of x0-hat after the step (of x_0 after the last). The paper completes every candidate by
 * a short deterministic chain or a consistency model instead: the same with a sharper x0-hat, at a multiple of the cost.
 *
 * A step without noise, and one from a state with less noise than --until, is taken as ever. One sample of K steps costs 1 + Σ (candidates + 1)
 * evaluations; samples are made one after another until the budget is spent, as many at a time as their candidates fit into the slots. */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/noise_search.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"candidates", 0, KAC_OPT_INT, "16", 1, 100000, NULL, "K", "draws of each step's noise", false},
    {"weights", 0, KAC_OPT_CHOICE, "tanh", 0, 0, "tanh|softmax|reward", NULL, "how draws are weighed by their reward",
     false},
    {"temperature", 0, KAC_OPT_REAL, "0", 0, 1e9, NULL, "TAU",
     "what rewards are divided by; 0: their deviation over the draws of a step", false},
    {"until", 0, KAC_OPT_REAL, "0", 0, 1e9, NULL, "SIGMA", "no choosing below this noise level sigma / alpha", false},
    KAC_OPTION_ROUNDS(NULL, "times that samples are begun (default: until there are as many as particles)"),
    KAC_OPTION_PRESET("paper", "of its tanh demon"),
    KAC_OPTIONS_END};

static const kac_preset presets[] = {
    {"paper", "candidates=16 weights=tanh temperature=0 until=0.11 steps=64 cfg-scale=2"}, {NULL, NULL}};

typedef enum weighing { TANH, SOFTMAX, REWARD } weighing;

typedef struct demon {
    kac_noise_search search;
    int n_candidates, n_chains; /* n_chains samples of each group at a time */
    weighing kind;
    double temperature, until;
    float *z;        /* [n, n_state] noises of the slots */
    double *sum;     /* [n_state] */
    double *value;   /* [n_groups, n_chains, n_candidates] rewards, then weights */
    uint64_t *keys;  /* [n] */
    int64_t *places; /* [n] */
    int64_t *numbers;
} demon;

/* Sample `chain` of a group in this round lies there, with its prediction. */
static int64_t chain_place(const demon *m, int group, int chain) {
    return m->search.n + (int64_t)group * m->n_chains + chain;
}

/* Normals of a candidate; the same whenever they are asked for. */
static void draw_candidate(demon *m, float *z, int group, int chain, int i_step, int candidate) {
    const kac_noise_search *s = &m->search;
    const uint64_t number = (uint64_t)(s->n_samples + chain), n_steps = (uint64_t)s->process->n_steps;
    kac_noise_draw(s, z, group,
                   (number * n_steps + (uint64_t)i_step) * (uint64_t)m->n_candidates + (uint64_t)candidate);
}

/* Whether the step has noise to choose. */
static bool chooses(const demon *m, int i_step) {
    kac_process *p = m->search.process;
    double alpha, sigma;
    p->level(p, i_step, &alpha, &sigma);
    return p->deviation(p, i_step) > 0 && sigma >= m->until * alpha;
}

static int64_t cost_of_sample(const demon *m) {
    int64_t cost = 1;
    for (int i = 0; i + 1 < m->search.process->n_steps; i++) cost += chooses(m, i) ? m->n_candidates + 1 : 1;
    return cost;
}

/* Slots in use become the samples in chains first … ; `each` slots in a row are of one. */
static kac_status fetch_chains(demon *m, int first, int each) {
    kac_noise_search *s = &m->search;
    const int n = s->n_groups * s->n_each;
    for (int i = 0; i < n; i++) {
        const int chain = (first + i % s->n_each) / each;
        m->places[i] = chain_place(m, i / s->n_each, chain);
        m->keys[i] = (uint64_t)(s->n_samples + chain);
    }
    s->process->rekey(s->process, s->slots, n, m->keys);
    return s->process->fetch(s->process, m->places, s->slots, n);
}

/* Rewards of what all candidates of a step lead to. */
static kac_status try_candidates(demon *m, int n_chains, int i_step) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n_items = n_chains * m->n_candidates;
    const bool last = i_step + 1 == p->n_steps;
    for (int first = 0; first < n_items; first += s->k) {
        const int n_each = KAC_MIN(s->k, n_items - first), n = kac_noise_take_slots(s, n_each);
        KAC_TRY(kac_noise_check_stop(s));
        if (s->stopped) return KAC_OK;
        KAC_TRY(fetch_chains(m, first, m->n_candidates));
        for (int i = 0; i < n; i++) {
            const int item = first + i % n_each;
            draw_candidate(m, m->z + i * p->n_state, i / n_each, item / m->n_candidates, i_step,
                           item % m->n_candidates);
        }
        KAC_TRY(p->predict(p, i_step, s->slots, n)); /* kept with the place: costs nothing */
        KAC_TRY(p->noise(p, s->slots, n, m->z));
        KAC_TRY(p->step(p, i_step, s->slots, s->slots, n));
        if (!last) KAC_TRY(kac_noise_predict(s, i_step + 1));
        KAC_TRY(kac_noise_score(s, n_each, last ? KAC_STAGE_FINAL : KAC_STAGE_PREDICTED));
        for (int i = 0; i < n; i++)
            m->value[(int64_t)(i / n_each) * m->n_chains * m->n_candidates + first + i % n_each] = s->rewards[i];
    }
    return KAC_OK;
}

/* Rewards become weights. */
static void weigh(const demon *m, double *w) {
    const int n = m->n_candidates;
    double mean = 0, variance = 0, top = -INFINITY;
    for (int i = 0; i < n; i++) mean += w[i] / n, top = fmax(top, w[i]);
    for (int i = 0; i < n; i++) variance += (w[i] - mean) * (w[i] - mean) / n;
    const double tau = m->temperature > 0 ? m->temperature : sqrt(variance);
    for (int i = 0; i < n; i++) {
        if (m->kind == TANH) w[i] = tau > 0 ? tanh((w[i] - mean) / tau) : 0;
        if (m->kind == SOFTMAX) w[i] = tau > 0 ? exp((w[i] - top) / tau) : 1;
    }
}

/* z* of a sample. Where no draw weighs anything it is the first. */
static void combine(demon *m, float *z, int group, int chain, int i_step) {
    const int64_t n = m->search.process->n_state;
    double *w = m->value + ((int64_t)group * m->n_chains + chain) * m->n_candidates, norm2 = 0;
    weigh(m, w);
    memset(m->sum, 0, (size_t)n * sizeof *m->sum);
    for (int j = 0; j < m->n_candidates; j++) {
        draw_candidate(m, z, group, chain, i_step, j);
        for (int64_t i = 0; i < n; i++) m->sum[i] += w[j] * (double)z[i];
    }
    for (int64_t i = 0; i < n; i++) norm2 += m->sum[i] * m->sum[i];
    if (norm2 == 0) draw_candidate(m, z, group, chain, i_step, 0);
    for (int64_t i = 0; i < n && norm2 > 0; i++) z[i] = (float)(sqrt((double)n / norm2) * m->sum[i]);
}

/* All samples of the round take a step; `chosen`: with the noise put together from their candidates. */
static kac_status take_step(demon *m, int n_chains, int i_step, bool chosen) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_chains);
    KAC_TRY(kac_noise_check_stop(s));
    if (s->stopped) return KAC_OK;
    KAC_TRY(fetch_chains(m, 0, 1));
    for (int i = 0; i < n && chosen; i++) combine(m, m->z + i * p->n_state, i / n_chains, i % n_chains, i_step);
    KAC_TRY(p->predict(p, i_step, s->slots, n));
    if (chosen) KAC_TRY(p->noise(p, s->slots, n, m->z));
    KAC_TRY(p->step(p, i_step, s->slots, s->slots, n));
    if (i_step + 1 == p->n_steps) return KAC_OK;
    KAC_TRY(kac_noise_predict(s, i_step + 1));
    return p->store(p, s->slots, n, m->places);
}

static kac_status run_round(demon *m, int n_chains) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_chains);
    for (int i = 0; i < n; i++) {
        m->numbers[i % n_chains] = s->n_samples + i % n_chains;
        m->keys[i] = (uint64_t)m->numbers[i % n_chains];
        m->places[i] = chain_place(m, i / n_chains, i % n_chains);
    }
    p->rekey(p, s->slots, n, m->keys);
    KAC_TRY(p->start(p, s->slots, n));
    KAC_TRY(kac_noise_predict(s, 0));
    KAC_TRY(p->store(p, s->slots, n, m->places));
    for (int i = 0; i < p->n_steps && !s->stopped; i++) {
        const bool choose = chooses(m, i);
        if (choose) KAC_TRY(try_candidates(m, n_chains, i));
        if (!s->stopped) KAC_TRY(take_step(m, n_chains, i, choose));
    }
    if (s->stopped) return KAC_OK;
    KAC_TRY(kac_noise_score(s, n_chains, KAC_STAGE_FINAL));
    KAC_TRY(kac_noise_keep(s, n_chains, m->numbers));
    return kac_noise_end_round(s, NULL, 0);
}

static kac_status prepare(demon *m, const kac_options *o) {
    const kac_noise_search *s = &m->search;
    const char *kind = kac_options_text(o, "weights");
    if (!s->process->stochastic || s->process->deviation == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "demon chooses the noise of the steps, and these draw none; take another "
                                           "--sampling-method or --eta");
    m->kind = strcmp(kind, "tanh") == 0 ? TANH : strcmp(kind, "softmax") == 0 ? SOFTMAX : REWARD;
    m->temperature = kac_options_real(o, "temperature");
    m->until = kac_options_real(o, "until");
    const size_t n = (size_t)s->n, n_state = (size_t)s->process->n_state;
    m->z = kac_alloc(n * n_state * sizeof *m->z);
    m->sum = kac_alloc(n_state * sizeof *m->sum);
    m->value = kac_alloc((size_t)s->n_groups * (size_t)m->n_chains * (size_t)m->n_candidates * sizeof *m->value);
    m->keys = kac_alloc(n * sizeof *m->keys), m->places = kac_alloc(n * sizeof *m->places);
    m->numbers = kac_alloc((size_t)s->k * sizeof *m->numbers);
    return m->z == NULL || m->sum == NULL || m->value == NULL || m->keys == NULL || m->places == NULL ||
                   m->numbers == NULL
               ? KAC_E_MEMORY
               : KAC_OK;
}

static kac_status sample(demon *m, kac_particles *out) {
    kac_noise_search *s = &m->search;
    const int64_t cost = cost_of_sample(m);
    KAC_TRY(kac_noise_check_budget(s, cost));
    KAC_TRY(kac_noise_start(s, NULL, 0));
    while (kac_noise_goes_on(s, cost)) KAC_TRY(run_round(m, (int)KAC_MIN(m->n_chains, kac_noise_room(s) / cost)));
    return kac_noise_finish(s, NULL, 0, out);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    demon m = {.n_candidates = (int)kac_options_int(o, "candidates")};
    m.n_chains = KAC_MAX(1, process->n_per_group / m.n_candidates);
    const bool given = kac_options_given(o, "rounds");
    const int64_t rounds = given ? kac_options_int(o, "rounds") : (process->n_per_group + m.n_chains - 1) / m.n_chains;
    kac_status status = kac_noise_open(&m.search, "demon", process, reward, events, seed, rounds);
    if (status == KAC_OK) status = prepare(&m, o);
    if (status == KAC_OK) status = sample(&m, out);
    kac_noise_close(&m.search);
    void *const all[] = {m.z, m.sum, m.value, m.keys, m.places, m.numbers};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

const kac_method kac_method_demon = {
    .name = "demon",
    .summary = "steps whose noise is put together from many draws, by the reward they promise",
    .options = options,
    .target = KAC_TARGET_MODE,
    .run = run,
    .anytime = true,
    .needs_density = true,
    .presets = presets};
