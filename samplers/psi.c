/* Psi-Sampler (Yoon et al. 2025): particles that begin where the reward of x0-hat is high. Markov chains on the first noise z, with pCNL
 * proposals and exact acceptance, draw from
 *
 *     N(z; 0, I) exp(lambda r(x0-hat(x_K(z))))
 *
 * and states of theirs, evenly spread over all after the burn-in, are the first states of guided particles (tds, das): those have the first
 * twist already, so their weights begin with 1. With chains that have converged the weighted particles stand for the target as those of tds
 * do; the chains themselves are only as good as they are long, and neighbours in a chain are alike. There is no estimate of Z: that of the
 * first law is not known. A run that is stopped during the chains begins them anew. */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/pcnl.h"
#include "samplers/twisted.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    KAC_OPTION_LAMBDA,
    {"chains", 0, KAC_OPT_INT, "5", 1, 100000, NULL, "N", "for the particles of a prompt", false},
    {"burn-in", 0, KAC_OPT_INT, "25", 0, 1000000, NULL, "N", "steps of each chain before its states are used", false},
    {"chain-steps", 0, KAC_OPT_INT, "25", 1, 1000000, NULL, "N", "steps of each chain after that", false},
    {"chain-size", 0, KAC_OPT_REAL, "0.5", 1e-9, 4, NULL, "EPSILON", "of a chain's step; 4 forgets where it was",
     false},
    KAC_OPTIONS_GUIDANCE("1", "variance"),
    KAC_OPTION_ESS_THRESHOLD("0.5"),
    KAC_OPTION_RESAMPLING("ssp"),
    KAC_OPTION_PRESET("aesthetic|layout", "for an aesthetic reward, and for the reward of a layout"),
    KAC_OPTIONS_END};

#define PUBLISHED                                                                                                      \
    " chains=5 chain-size=0.5 ess-threshold=0.5 resampling=ssp gradient-scale=1 gradient-form=variance "               \
    "gradient-clip=0 steps=25"
static const kac_preset presets[] = {{"aesthetic", "lambda=10 burn-in=25 chain-steps=25 particles=10" PUBLISHED},
                                     {"layout", "lambda=50 burn-in=50 chain-steps=50 particles=20" PUBLISHED},
                                     {NULL, NULL}};

/* A point of every chain of every group: phi = lambda r(x0-hat), slope = its gradient by z. */
typedef struct points {
    float *z, *slope; /* [n_groups · n_chains, n_state] */
    double *phi;
} points;

typedef struct psi {
    kac_twisted t;
    int n_chains, burn_in, n_after;
    double epsilon;
    points now, next;
    float *kept;    /* [n, n_state] first noise of every particle */
    int *kept_from; /* [n] the chain it is of */
    int *slots;     /* [n] of a call */
    uint64_t *keys;
    float *d, *d_x; /* [n, n_state] */
} psi;

/* ---- the chains ---- */

/* phi and slope of chains first … first + n_each − 1 of every group. */
static kac_status look_at(psi *m, points *at, int first, int n_each) {
    kac_swarm *s = &m->t.swarm;
    kac_process *p = s->process;
    kac_reward *r = s->reward;
    const size_t row = (size_t)p->n_state;
    const int n = s->n_groups * n_each;
    for (int i = 0; i < n; i++) {
        const int chain = i / n_each * m->n_chains + first + i % n_each;
        m->slots[i] = i / n_each * s->n_per_group + i % n_each;
        m->keys[i] = (uint64_t)(first + i % n_each);
        memcpy(m->d_x + (size_t)i * row, at->z + (size_t)chain * row, row * sizeof *m->d_x);
    }
    p->rekey(p, m->slots, n, m->keys);
    KAC_TRY(p->noise(p, m->slots, n, m->d_x));
    KAC_TRY(p->start(p, m->slots, n));
    KAC_TRY(p->predict(p, 0, m->slots, n));
    KAC_TRY(r->grad(r, p, m->slots, n, KAC_STAGE_PREDICTED, s->rewards, m->d));
    KAC_TRY(p->pull(p, 0, m->slots, n, m->d, m->d_x));
    KAC_TRY(p->pull_step(p, -1, m->slots, n, m->d_x, m->d));
    for (int i = 0; i < n; i++) {
        const int chain = i / n_each * m->n_chains + first + i % n_each;
        double norm2 = 0;
        at->phi[chain] = m->t.lambda * s->rewards[i];
        for (size_t j = 0; j < row; j++) {
            const double slope = m->t.lambda * (double)m->d[(size_t)i * row + j];
            at->slope[(size_t)chain * row + j] = (float)slope;
            norm2 += slope * slope;
        }
        if (!isfinite(at->phi[chain]) || !isfinite(norm2))
            return KAC_FAIL(KAC_E_NONFINITE, "the reward %s, %g, or its gradient is not finite in chain %d of group %d",
                            r->name != NULL ? r->name : "", s->rewards[i], chain % m->n_chains, chain / m->n_chains);
    }
    return KAC_OK;
}

static kac_status look_at_all(psi *m, points *at) {
    const kac_swarm *s = &m->t.swarm;
    for (int first = 0; first < m->n_chains; first += s->n_per_group)
        KAC_TRY(look_at(m, at, first, KAC_MIN(s->n_per_group, m->n_chains - first)));
    if (s->events != NULL && s->events->cancelled != NULL && s->events->cancelled(s->events))
        return KAC_FAIL(KAC_E_CANCELLED, "stopped in the chains before the first step");
    return KAC_OK;
}

/* The key of what a chain draws for its step, and the slot that goes with it. */
static kac_key key_of(const psi *m, int chain, int step, uint32_t *slot) {
    const kac_swarm *s = &m->t.swarm;
    const uint64_t number = (uint64_t)step * (uint64_t)m->n_chains + (uint64_t)(chain % m->n_chains);
    const uint32_t group = kac_process_group_key(s->process, chain / m->n_chains);
    *slot = (uint32_t)number;
    return kac_key_of_particle((kac_key){s->seed, KAC_PURPOSE_SEARCH, group}, number);
}

static void draw(const psi *m, float *z, int chain, int step) {
    uint32_t slot;
    const kac_key key = key_of(m, chain, step, &slot);
    kac_rng_normal(z, m->t.swarm.process->n_state, key, slot, 0);
}

static void accept(psi *m, int chain, int step) {
    const int64_t n = m->t.swarm.process->n_state;
    float *x = m->now.z + chain * n, *slope = m->now.slope + chain * n;
    const float *next = m->next.z + chain * n, *next_slope = m->next.slope + chain * n;
    uint32_t slot;
    const kac_key key = key_of(m, chain, step, &slot);
    const double u = kac_rng_uniform(key, slot, n + 16); /* beyond the normals */
    const double log_ratio =
        kac_pcnl_log_ratio(x, slope, m->now.phi[chain], next, next_slope, m->next.phi[chain], n, m->epsilon);
    if (!(log(u) < log_ratio)) return;
    m->now.phi[chain] = m->next.phi[chain];
    memcpy(x, next, (size_t)n * sizeof *x);
    memcpy(slope, next_slope, (size_t)n * sizeof *slope);
}

/* After the burn-in: particle j has state (2j + 1) / 2k of all states of all chains, step by step. */
static void keep(psi *m, int after) {
    const kac_swarm *s = &m->t.swarm;
    const size_t row = (size_t)s->process->n_state;
    for (int i = 0; i < s->n; i++) {
        const int64_t k = s->n_per_group, j = i % k, all = (int64_t)m->n_after * m->n_chains,
                      at = (2 * j + 1) * all / (2 * k);
        if (at / m->n_chains != after) continue;
        const int64_t chain = i / k * m->n_chains + at % m->n_chains;
        m->kept_from[i] = (int)(at % m->n_chains);
        memcpy(m->kept + (size_t)i * row, m->now.z + (size_t)chain * row, row * sizeof *m->kept);
    }
}

static kac_status run_chains(psi *m) {
    const int n = m->t.swarm.n_groups * m->n_chains;
    const int64_t n_state = m->t.swarm.process->n_state;
    for (int chain = 0; chain < n; chain++) draw(m, m->now.z + chain * n_state, chain, 0);
    KAC_TRY(look_at_all(m, &m->now));
    for (int step = 1; step <= m->burn_in + m->n_after; step++) {
        for (int chain = 0; chain < n; chain++) {
            float *next = m->next.z + chain * n_state;
            draw(m, next, chain, step);
            kac_pcnl_propose(next, m->now.z + chain * n_state, m->now.slope + chain * n_state, n_state, m->epsilon);
        }
        KAC_TRY(look_at_all(m, &m->next));
        for (int chain = 0; chain < n; chain++) accept(m, chain, step);
        if (step > m->burn_in) keep(m, step - m->burn_in - 1);
    }
    return KAC_OK;
}

/* Every particle begins as the chain's state did, and draws its steps by itself. */
static kac_status begin(void *self) {
    psi *m = self;
    kac_swarm *s = &m->t.swarm;
    kac_process *p = s->process;
    KAC_TRY(run_chains(m));
    for (int i = 0; i < s->n; i++) m->keys[i] = (uint64_t)m->kept_from[i];
    p->rekey(p, s->slots, s->n, m->keys);
    KAC_TRY(p->noise(p, s->slots, s->n, m->kept));
    KAC_TRY(p->start(p, s->slots, s->n));
    for (int i = 0; i < s->n; i++) m->keys[i] = (uint64_t)(i % s->n_per_group);
    p->rekey(p, s->slots, s->n, m->keys);
    return KAC_OK;
}

/* ---- the method ---- */

static kac_status take_points(points *at, size_t n, size_t n_state) {
    at->z = kac_alloc(n * n_state * sizeof *at->z);
    at->slope = kac_alloc(n * n_state * sizeof *at->slope);
    at->phi = kac_alloc(n * sizeof *at->phi);
    return at->z == NULL || at->slope == NULL || at->phi == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status prepare(psi *m, const kac_options *o) {
    kac_swarm *s = &m->t.swarm;
    const kac_process *p = s->process;
    m->n_chains = (int)kac_options_int(o, "chains");
    m->burn_in = (int)kac_options_int(o, "burn-in");
    m->n_after = (int)kac_options_int(o, "chain-steps");
    m->epsilon = kac_options_real(o, "chain-size");
    if (p->pull_step == NULL || p->pull == NULL || p->noise == NULL || p->rekey == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "psi needs the gradient by the first noise; this process has none (of a "
                                           "mixture, take the kernel ddim)");
    if (s->reward->grad == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "the reward %s has no gradient to follow",
                        s->reward->name == NULL ? "" : s->reward->name);
    const size_t n = (size_t)s->n, n_state = (size_t)p->n_state, n_all = (size_t)s->n_groups * (size_t)m->n_chains;
    KAC_TRY(take_points(&m->now, n_all, n_state));
    KAC_TRY(take_points(&m->next, n_all, n_state));
    m->kept = kac_alloc(n * n_state * sizeof *m->kept), m->kept_from = kac_alloc(n * sizeof *m->kept_from);
    m->slots = kac_alloc(n * sizeof *m->slots), m->keys = kac_alloc(n * sizeof *m->keys);
    m->d = kac_alloc(n * n_state * sizeof *m->d), m->d_x = kac_alloc(n * n_state * sizeof *m->d_x);
    return m->kept == NULL || m->kept_from == NULL || m->slots == NULL || m->keys == NULL || m->d == NULL ||
                   m->d_x == NULL
               ? KAC_E_MEMORY
               : KAC_OK;
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    psi m = {0};
    kac_status status = kac_twisted_init(&m.t, "psi", process, reward, events, o, seed);
    if (status == KAC_OK) status = prepare(&m, o);
    m.t.drawn = true, m.t.swarm.begin = begin, m.t.swarm.begin_self = &m;
    if (status == KAC_OK) status = kac_twisted_sample(&m.t);
    for (int g = 0; status == KAC_OK && g < m.t.swarm.n_groups; g++) m.t.swarm.running_log_z[g] = NAN;
    status = kac_twisted_finish(&m.t, out, status);
    void *const all[] = {m.now.z, m.now.slope, m.now.phi, m.next.z, m.next.slope, m.next.phi,
                         m.kept,  m.kept_from, m.slots,   m.keys,   m.d,          m.d_x};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

static bool always(const kac_options *o) {
    (void)o;
    return true;
}

/* Every state of a chain costs an evaluation and its gradient another. */
static int64_t nfe_beside(const kac_options *o) {
    return 2 * kac_options_int(o, "chains") * (1 + kac_options_int(o, "burn-in") + kac_options_int(o, "chain-steps"));
}

const kac_method kac_method_psi = {
    .name = "psi",
    .summary = "guided particles that begin where Markov chains on the first noise have found good rewards",
    .options = options,
    .target = KAC_TARGET_TILTED,
    .run = run,
    .needs_density = true,
    .needs_grad = always,
    .presets = presets,
    .nfe_beside = nfe_beside};
