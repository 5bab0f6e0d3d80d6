/* Search over paths (Ma et al. 2025): N noises are denoised to a noise level s. Then, again and again: each is noised anew M times, up to
 * s + forward, these are denoised to s + forward − backward, the N of best reward of x0-hat go on, and s becomes that level. When s reaches 0
 * the N survivors are samples. Then the next N noises, until the budget is spent.
 *
 * A level is the share of noise sigma / (alpha + sigma): the time of a flow model, and the same signal-to-noise ratio elsewhere. States lie at
 * the process's own levels: the first that is not above what was asked. */
#include "base/base.h"
#include "samplers/methods.h"
#include "samplers/noise_search.h"
#include <math.h>

static const kac_option_spec options[] = {
    {"paths", 0, KAC_OPT_INT, "2", 1, 100000, NULL, "N", "noises that are followed side by side", false},
    {"branches", 0, KAC_OPT_INT, "4", 1, 100000, NULL, "M", "new paths from each of them in a round of choosing",
     false},
    {"level", 0, KAC_OPT_REAL, "0.11", 0, 1, NULL, "S", "share of noise where the search begins", false},
    {"forward", 0, KAC_OPT_REAL, "0.78", 0, 1, NULL, "D", "share of noise that each branch goes up", false},
    {"backward", 0, KAC_OPT_REAL, "0.81", 0, 1, NULL, "D",
     "share of noise that it then comes down; more than --forward", false},
    KAC_OPTION_ROUNDS("1", "searches of N noises"),
    KAC_OPTION_PRESET("paper", "of the paper"),
    KAC_OPTIONS_END};

static const kac_preset presets[] = {{"paper", "level=0.11 forward=0.78 backward=0.81"}, {NULL, NULL}};

typedef struct paths {
    kac_noise_search search;
    int n_paths, n_branches;
    double level, forward, backward;
    int i_begin;     /* step at which the search begins */
    uint64_t *keys;  /* [n] */
    int64_t *places; /* [n] */
    float *x, *z;    /* [n, n_state] */
    double *value;   /* [n_groups, n_paths · n_branches] reward of each branch's x0-hat */
    bool *chosen;    /* the same */
    int64_t *numbers;
    uint64_t drawn; /* noises since the start of the round */
    int64_t side;   /* survivors lie on side 0 or 1 of the method's places, branches behind them */
} paths;

static double share_at(const paths *m, int i_step) {
    double alpha, sigma;
    m->search.process->level(m->search.process, i_step, &alpha, &sigma);
    return sigma / (alpha + sigma);
}

/* The first step at which no more than that share is noise. */
static int step_of(const paths *m, double share) {
    const int n_steps = m->search.process->n_steps;
    int i = 0;
    while (i < n_steps && share_at(m, i) > share + 1e-9) i++;
    return i;
}

/* Survivor `i` of a group lies in its own places, [2, n_groups, n_paths]; branch `i` behind all of them. */
static int64_t survivor_place(const paths *m, int64_t side, int group, int i) {
    const kac_noise_search *s = &m->search;
    return s->n + (side * s->n_groups + group) * m->n_paths + i;
}
static int64_t branch_place(const paths *m, int group, int i) {
    const kac_noise_search *s = &m->search;
    return s->n + 2 * (int64_t)s->n_groups * m->n_paths + (int64_t)group * m->n_paths * m->n_branches + i;
}

/* Noise that no other draw of the run has: rounds, and draws in them, are numbered. */
static void fresh_keys(paths *m, int first, int n_each) {
    kac_noise_search *s = &m->search;
    for (int i = 0; i < s->n_groups * n_each; i++)
        m->keys[i] = ((uint64_t)s->round << 32) + m->drawn + (uint64_t)(first + i % n_each);
    s->process->rekey(s->process, s->slots, s->n_groups * n_each, m->keys);
}

static kac_status store_slots(paths *m, int first, int n_each, bool branches) {
    kac_noise_search *s = &m->search;
    for (int i = 0; i < s->n_groups * n_each; i++) {
        const int group = i / n_each, at = first + i % n_each;
        m->places[i] = branches ? branch_place(m, group, at) : survivor_place(m, m->side, group, at);
    }
    return s->process->store(s->process, s->slots, s->n_groups * n_each, m->places);
}

/* n_paths fresh noises, down to where the search begins. */
static kac_status begin(paths *m, int n_paths) {
    kac_noise_search *s = &m->search;
    for (int first = 0; first < n_paths; first += s->k) {
        const int n_each = KAC_MIN(s->k, n_paths - first), n = kac_noise_take_slots(s, n_each);
        fresh_keys(m, first, n_each);
        KAC_TRY(s->process->start(s->process, s->slots, n));
        KAC_TRY(kac_noise_rollout(s, n_each, 0, m->i_begin));
        if (s->stopped) return KAC_OK;
        KAC_TRY(store_slots(m, first, n_each, false));
    }
    m->drawn += (uint64_t)n_paths;
    return KAC_OK;
}

/* Branches first … of every group, at step i_up, from survivors at step i_at: x √(alpha ratio) and the noise that is missing. */
static kac_status noise_up(paths *m, int first, int n_each, int i_at, int i_up) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    double alpha, sigma, alpha_up, sigma_up;
    p->level(p, i_at, &alpha, &sigma), p->level(p, i_up, &alpha_up, &sigma_up);
    const double ratio = alpha_up / alpha, add = sqrt(fmax(sigma_up * sigma_up - ratio * ratio * sigma * sigma, 0.0));
    const int n = kac_noise_take_slots(s, n_each);
    fresh_keys(m, first, n_each);
    for (int i = 0; i < n; i++) {
        const int group = i / n_each;
        m->places[i] = survivor_place(m, m->side, group, (first + i % n_each) / m->n_branches);
        kac_noise_draw(s, m->z + i * p->n_state, group, m->keys[i]);
    }
    KAC_TRY(p->fetch(p, m->places, s->slots, n));
    KAC_TRY(p->read(p, s->slots, n, m->x));
    for (int64_t i = 0; i < n * p->n_state; i++) m->x[i] = (float)(ratio * (double)m->x[i] + add * (double)m->z[i]);
    return p->write(p, s->slots, n, m->x);
}

/* The best branches of every group become its survivors, in their order. */
static kac_status choose(paths *m, int n_paths, int n_branches) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    const int64_t next = 1 - m->side;
    for (int g = 0; g < s->n_groups; g++) {
        const double *value = m->value + g * n_branches;
        for (int i = 0; i < n_branches; i++) m->chosen[i] = false;
        for (int j = 0; j < n_paths; j++) {
            int best = -1;
            for (int i = 0; i < n_branches; i++)
                if (!m->chosen[i] && (best < 0 || value[i] > value[best])) best = i;
            m->chosen[best] = true;
            const int slot = g * s->k;
            const int64_t from = branch_place(m, g, best), to = survivor_place(m, next, g, j);
            KAC_TRY(p->fetch(p, &from, &slot, 1));
            KAC_TRY(p->store(p, &slot, 1, &to));
        }
    }
    m->side = next;
    return KAC_OK;
}

/* All survivors branch out at i_up and the best ones are left at i_down. */
static kac_status branch(paths *m, int n_paths, int i_at, int i_up, int i_down) {
    kac_noise_search *s = &m->search;
    const int n_branches = n_paths * m->n_branches;
    for (int first = 0; first < n_branches; first += s->k) {
        const int n_each = KAC_MIN(s->k, n_branches - first);
        KAC_TRY(noise_up(m, first, n_each, i_at, i_up));
        KAC_TRY(kac_noise_rollout(s, n_each, i_up, i_down));
        if (s->stopped) return KAC_OK;
        KAC_TRY(kac_noise_predict(s, i_down));
        KAC_TRY(kac_noise_score(s, n_each, KAC_STAGE_PREDICTED));
        for (int i = 0; i < s->n_groups * n_each; i++)
            m->value[i / n_each * n_branches + first + i % n_each] = s->rewards[i];
        KAC_TRY(store_slots(m, first, n_each, true));
    }
    m->drawn += (uint64_t)n_branches;
    return choose(m, n_paths, n_branches);
}

/* Survivors become samples. `predicted`: their first prediction is there already. */
static kac_status complete(paths *m, int n_paths, int i_at, bool predicted) {
    kac_noise_search *s = &m->search;
    kac_process *p = s->process;
    for (int first = 0; first < n_paths; first += s->k) {
        const int n_each = KAC_MIN(s->k, n_paths - first), n = kac_noise_take_slots(s, n_each);
        fresh_keys(m, first, n_each);
        for (int i = 0; i < n; i++) m->places[i] = survivor_place(m, m->side, i / n_each, first + i % n_each);
        KAC_TRY(p->fetch(p, m->places, s->slots, n));
        if (predicted && i_at < p->n_steps) {
            KAC_TRY(p->predict(p, i_at, s->slots, n)); /* costs nothing */
            KAC_TRY(p->step(p, i_at, s->slots, s->slots, n));
        }
        KAC_TRY(kac_noise_rollout(s, n_each, predicted ? KAC_MIN(i_at + 1, p->n_steps) : i_at, p->n_steps));
        if (s->stopped) return KAC_OK;
        KAC_TRY(kac_noise_score(s, n_each, KAC_STAGE_FINAL));
        for (int i = 0; i < n_each; i++) m->numbers[i] = s->round * m->n_paths + first + i;
        KAC_TRY(kac_noise_keep(s, n_each, m->numbers));
    }
    return KAC_OK;
}

/* One search of n_paths noises; a stage of choosing begins only if the budget pays for it and for what then comes. */
static kac_status run_round(paths *m, int n_paths) {
    kac_noise_search *s = &m->search;
    const int n_steps = s->process->n_steps;
    int i_at = m->i_begin;
    bool predicted = false;
    m->drawn = 0, m->side = 0;
    KAC_TRY(begin(m, n_paths));
    for (double at = share_at(m, i_at); i_at < n_steps && !s->stopped;) {
        const int i_up = step_of(m, at + m->forward);
        int i_down = KAC_MAX(step_of(m, at + m->forward - m->backward), i_at + 1);
        if (i_down >= n_steps) i_down = n_steps - 1; /* x_0 has no x0-hat beside it: what is left are the last steps */
        const int64_t cost =
            (int64_t)n_paths * m->n_branches * (i_down - i_up + 1) + (int64_t)n_paths * (n_steps - i_down - 1);
        if (i_down <= i_at || kac_noise_room(s) < cost) break;
        KAC_TRY(branch(m, n_paths, i_at, i_up, i_down));
        i_at = i_down, predicted = true;
        at = share_at(m, i_at);
    }
    if (!s->stopped) KAC_TRY(complete(m, n_paths, i_at, predicted));
    return s->stopped ? KAC_OK : kac_noise_end_round(s, NULL, 0);
}

static kac_status prepare(paths *m, const kac_options *o) {
    const kac_noise_search *s = &m->search;
    m->n_paths = (int)kac_options_int(o, "paths");
    m->n_branches = (int)kac_options_int(o, "branches");
    m->level = kac_options_real(o, "level");
    m->forward = kac_options_real(o, "forward");
    m->backward = kac_options_real(o, "backward");
    if (m->n_paths > 1000000 / m->n_branches)
        return KAC_FAIL(KAC_E_USAGE, "--paths %d times --branches %d is more than 1000000", m->n_paths, m->n_branches);
    if (m->backward <= m->forward)
        return KAC_FAIL(KAC_E_USAGE, "--backward %g must be more than --forward %g, or the search never ends",
                        m->backward, m->forward);
    if (s->process->write == NULL || s->process->read == NULL || s->process->history)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "noise-paths goes back to noisier states, and this solver's steps need the ones before them; "
                        "take ddim, euler or another --sampling-method without history");
    m->i_begin = step_of(m, m->level);
    const size_t n = (size_t)s->n, row = (size_t)s->process->n_state * sizeof(float),
                 branches = (size_t)(m->n_paths * m->n_branches);
    m->keys = kac_alloc(n * sizeof *m->keys), m->places = kac_alloc(n * sizeof *m->places);
    m->x = kac_alloc(n * row), m->z = kac_alloc(n * row);
    m->value = kac_alloc((size_t)s->n_groups * branches * sizeof *m->value);
    m->chosen = kac_alloc(branches * sizeof *m->chosen);
    m->numbers = kac_alloc((size_t)s->k * sizeof *m->numbers);
    return m->keys == NULL || m->places == NULL || m->x == NULL || m->z == NULL || m->value == NULL ||
                   m->chosen == NULL || m->numbers == NULL
               ? KAC_E_MEMORY
               : KAC_OK;
}

static kac_status sample(paths *m, kac_particles *out) {
    kac_noise_search *s = &m->search;
    const int n_steps = s->process->n_steps;
    KAC_TRY(kac_noise_check_budget(s, n_steps));
    KAC_TRY(kac_noise_start(s, NULL, 0));
    while (kac_noise_goes_on(s, n_steps)) KAC_TRY(run_round(m, (int)KAC_MIN(m->n_paths, kac_noise_room(s) / n_steps)));
    return kac_noise_finish(s, NULL, 0, out);
}

static kac_status run(kac_particles *out, kac_process *process, kac_reward *reward, kac_events *events,
                      const kac_options *o, uint64_t seed) {
    paths m = {0};
    const int64_t rounds = kac_options_int(o, "rounds");
    kac_status status = kac_noise_open(&m.search, "noise-paths", process, reward, events, seed, rounds);
    if (status == KAC_OK) status = prepare(&m, o);
    if (status == KAC_OK) status = sample(&m, out);
    kac_noise_close(&m.search);
    void *const all[] = {m.keys, m.places, m.x, m.z, m.value, m.chosen, m.numbers};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_free(all[i]);
    return status;
}

const kac_method kac_method_noise_paths = {
    .name = "noise-paths",
    .summary = "samples noised up and denoised again in many ways, of which the best go on",
    .options = options,
    .target = KAC_TARGET_MODE,
    .run = run,
    .anytime = true,
    .presets = presets};
