/* ReNO (Eyring et al. 2024, Reward-based noise optimization): the first noise z is moved along the gradient of
 *
 *     loss = −λ r(x_0(z)) + reg · (|z|² / 2 − (d − 1) log |z|)          the second: minus the log-density of a Gaussian's length
 *
 * through the whole chain, by gradient descent with Nesterov's momentum and a clipped gradient; the iterate of best reward is the sample. Made
 * for models of one or a few steps; longer chains work and cost a gradient at each step. Steps that draw noise keep theirs.
 *
 * Every slot follows a noise of its own. After --iterations all begin anew, until the budget is spent; one iteration of K steps costs K
 * evaluations, and K more for its gradient. */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/noise_search.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"lambda", 0, KAC_OPT_REAL, "5", -1e6, 1e6, NULL, "X", "times the reward, beside the regularisation", false},
    {"iterations", 0, KAC_OPT_INT, "50", 1, 1000000, NULL, "N", "of each noise", false},
    {"learning-rate", 0, KAC_OPT_REAL, "5", 0, 1e9, NULL, "X", "of the descent", false},
    {"momentum", 0, KAC_OPT_REAL, "0.9", 0, 1, NULL, "X", "Nesterov's", false},
    {"gradient-clip", 0, KAC_OPT_REAL, "0.1", 0, 1e9, NULL, "C", "longest gradient; 0: no limit", false},
    {"regularization", 0, KAC_OPT_REAL, "0.01", 0, 1e9, NULL, "X", "keeps the noise as long as noise is", false},
    KAC_OPTION_ROUNDS("1", "beginnings of all noises"),
    KAC_OPTION_PRESET("paper|hypersd", "of the paper for one-step models; and for HyperSD, whose learning rate is 10"),
    KAC_OPTIONS_END};

#define PUBLISHED " iterations=50 momentum=0.9 gradient-clip=0.1 regularization=0.01 lambda=5 steps=1 cfg-scale=1"
static const kac_preset presets[] = {
    {"paper", "learning-rate=5" PUBLISHED}, {"hypersd", "learning-rate=10" PUBLISHED}, {NULL, NULL}};

typedef struct reno {
    kac_noise_search search;
    double lambda, rate, momentum, clip, regularization;
    int64_t n_iterations;
    struct {
        int64_t first;     /* number of the first noise of this beginning */
        int64_t iteration; /* 0: it is to begin */
        int64_t n_each;    /* noises of each group in it */
    } at;
    /* [n_groups · n_each, n_state]; with `at` saved in checkpoints: */
    float *z, *velocity;
    float *d, *d_next;
    uint64_t *keys;   /* [n] */
    int64_t *numbers; /* [k] */
    int64_t *places;  /* [n] */
} reno;

/* State of slot before step i_step, with its prediction. */
static void list_places(reno *m, int i_step, int n) {
    const kac_noise_search *s = &m->search;
    for (int i = 0; i < n; i++) m->places[i] = s->n + (int64_t)i_step * s->n + s->slots[i];
}

/* The states on the way are put by for the way back when `back`. */
static kac_status forward(reno *m, int n_each, bool back) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_each);
    p->rekey(p, s->slots, n, m->keys);
    KAC_TRY(p->noise(p, s->slots, n, m->z));
    KAC_TRY(p->start(p, s->slots, n));
    for (int i = 0; i < p->n_steps; i++) {
        KAC_TRY(kac_noise_check_stop(s));
        if (s->stopped) return KAC_OK;
        KAC_TRY(kac_noise_predict(s, i));
        if (back) {
            list_places(m, i, n);
            KAC_TRY(p->store(p, s->slots, n, m->places));
        }
        KAC_TRY(p->step(p, i, s->slots, s->slots, n));
    }
    return KAC_OK;
}

/* d becomes d r / d z. */
static kac_status backward(reno *m, int n_each) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int n = kac_noise_take_slots(s, n_each);
    for (int i = p->n_steps - 1; i >= -1; i--) {
        float *d = m->d;
        m->d = m->d_next, m->d_next = d;
        if (i >= 0) {
            KAC_TRY(kac_noise_check_stop(s));
            if (s->stopped) return KAC_OK;
            list_places(m, i, n);
            KAC_TRY(p->fetch(p, m->places, s->slots, n));
            KAC_TRY(p->predict(p, i, s->slots, n)); /* kept: costs nothing */
            s->spent += n_each;
        }
        KAC_TRY(p->pull_step(p, i, s->slots, n, m->d_next, m->d));
    }
    return KAC_OK;
}

/* One step of the descent of one noise, along d = d r / d z. */
static kac_status descend(reno *m, int i, int n_each) {
    const int64_t n = m->search.process->n_state;
    float *z = m->z + i * n, *v = m->velocity + i * n, *d = m->d + i * n;
    double length2 = 0, norm2 = 0;
    for (int64_t j = 0; j < n; j++) length2 += (double)z[j] * (double)z[j];
    for (int64_t j = 0; j < n; j++) {
        const double radial = length2 > 0 ? 1 - (double)(n - 1) / length2 : 0;
        d[j] = (float)(m->regularization * radial * (double)z[j] - m->lambda * (double)d[j]);
        norm2 += (double)d[j] * (double)d[j];
    }
    if (!isfinite(norm2))
        return KAC_FAIL(KAC_E_NONFINITE, "the gradient by the noise of particle %d of group %d is not finite",
                        i % n_each, i / n_each);
    const double scale = m->clip > 0 && norm2 > m->clip * m->clip ? m->clip / sqrt(norm2) : 1;
    for (int64_t j = 0; j < n; j++) {
        const double g = scale * (double)d[j];
        v[j] = (float)(m->momentum * (double)v[j] + g);
        z[j] = (float)((double)z[j] - m->rate * (g + m->momentum * (double)v[j]));
    }
    return KAC_OK;
}

enum { N_OWN = 3 };

/* Draws the noises of a beginning, as many as there is room for. */
static void begin(reno *m) {
    kac_noise_search *s = &m->search;
    const int64_t n_state = s->process->n_state;
    const int n_each = (int)KAC_MIN(s->k, kac_noise_room(s) / s->process->n_steps);
    m->at.n_each = n_each;
    for (int i = 0; i < s->n_groups * n_each; i++)
        kac_noise_draw(s, m->z + i * n_state, i / n_each, (uint64_t)(m->at.first + i % n_each));
    memset(m->velocity, 0, (size_t)(s->n * n_state) * sizeof *m->velocity);
}

/* One iteration. It goes back only where the budget then pays for another. */
static kac_status run_round(reno *m, const kac_blob *own) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    if (m->at.iteration == 0) begin(m);
    const int n_each = (int)m->at.n_each, n = s->n_groups * n_each;
    const bool back = m->at.iteration + 1 < m->n_iterations && kac_noise_room(s) >= 3 * (int64_t)n_each * p->n_steps;
    for (int i = 0; i < n_each; i++) m->numbers[i] = m->at.first + i;
    for (int i = 0; i < n; i++) m->keys[i] = (uint64_t)m->numbers[i % n_each];
    KAC_TRY(forward(m, n_each, back));
    if (s->stopped) return KAC_OK;
    if (back) KAC_TRY(s->reward->grad(s->reward, p, s->slots, n, KAC_STAGE_FINAL, s->rewards, m->d));
    KAC_TRY(kac_noise_score(s, n_each, KAC_STAGE_FINAL));
    KAC_TRY(kac_noise_keep(s, n_each, m->numbers));
    if (back) KAC_TRY(backward(m, n_each));
    if (s->stopped) return KAC_OK;
    for (int i = 0; i < n && back; i++) KAC_TRY(descend(m, i, n_each));
    m->at.iteration++;
    if (!back) m->at.first += n_each, m->at.iteration = 0;
    return kac_noise_end_round(s, own, N_OWN);
}

static kac_status prepare(reno *m, const kac_options *o) {
    const kac_noise_search *s = &m->search;
    const kac_process *p = s->process;
    if (p->pull_step == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "reno needs steps that are smooth functions of the state; this process has none (of a mixture, "
                        "take the kernel ddim)");
    if (s->reward->grad == NULL)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "the reward %s has no gradient to follow",
                        s->reward->name == NULL ? "" : s->reward->name);
    m->lambda = kac_options_real(o, "lambda");
    m->rate = kac_options_real(o, "learning-rate");
    m->momentum = kac_options_real(o, "momentum");
    m->clip = kac_options_real(o, "gradient-clip");
    m->regularization = kac_options_real(o, "regularization");
    const size_t n = (size_t)s->n, row = (size_t)p->n_state * sizeof(float);
    m->z = kac_alloc(n * row), m->velocity = kac_alloc(n * row);
    m->d = kac_alloc(n * row), m->d_next = kac_alloc(n * row);
    m->keys = kac_alloc(n * sizeof *m->keys), m->places = kac_alloc(n * sizeof *m->places);
    m->numbers = kac_alloc((size_t)s->k * sizeof *m->numbers);
    return m->z == NULL || m->velocity == NULL || m->d == NULL || m->d_next == NULL || m->keys == NULL ||
                   m->places == NULL || m->numbers == NULL
               ? KAC_E_MEMORY
               : KAC_OK;
}

/* What a checkpoint of another run, or another budget, cannot be followed in. */
static kac_status check_restored(reno *m) {
    const kac_noise_search *s = &m->search;
    if (m->at.first < 0 || m->at.iteration < 0 || m->at.iteration >= m->n_iterations || m->at.n_each < 0 ||
        m->at.n_each > s->k || (m->at.iteration > 0 && m->at.n_each == 0))
        return KAC_FAIL(KAC_E_FORMAT,
                        "the checkpoint does not belong to this run or is damaged; start again without --resume");
    if (m->at.iteration > 0 && kac_noise_room(s) < m->at.n_each * s->process->n_steps)
        m->at.first += m->at.n_each, m->at.iteration = 0;
    return KAC_OK;
}

static kac_status sample(reno *m, kac_particles *out) {
    kac_noise_search *s = &m->search;
    const size_t n_bytes = (size_t)s->n * (size_t)s->process->n_state * sizeof(float);
    const kac_blob own[N_OWN] = {
        {"noises", m->z, n_bytes}, {"velocities", m->velocity, n_bytes}, {"reno", &m->at, sizeof m->at}};
    KAC_TRY(kac_noise_check_budget(s, s->process->n_steps));
    KAC_TRY(kac_noise_start(s, own, N_OWN));
    KAC_TRY(check_restored(m));
    while (kac_noise_goes_on(s, s->process->n_steps)) KAC_TRY(run_round(m, own));
    return kac_noise_finish(s, own, N_OWN, out);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    reno m = {.n_iterations = kac_options_int(o, "iterations")};
    const int64_t rounds = kac_options_int(o, "rounds") * m.n_iterations;
    kac_status status = kac_noise_open(&m.search, "reno", process, reward, events, seed, rounds);
    if (status == KAC_OK) status = prepare(&m, o);
    if (status == KAC_OK) status = sample(&m, out);
    kac_noise_close(&m.search);
    void *const all[] = {m.z, m.velocity, m.d, m.d_next, m.keys, m.places, m.numbers};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

static bool always(const kac_options *o) {
    (void)o;
    return true;
}

const kac_method kac_method_reno = {.name = "reno",
                                    .summary = "gradient descent on the first noise, for models of one or a few steps",
                                    .options = options,
                                    .target = KAC_TARGET_MODE,
                                    .run = run,
                                    .anytime = true,
                                    .needs_grad = always,
                                    .presets = presets};
