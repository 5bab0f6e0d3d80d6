#include "samplers/mixture.h"
#include "base/base.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

enum {
    MAX_SLOTS = 1 << 24,
    MAX_FILE_BYTES = 256 << 20,
    COMPONENT_INDEX = 1024 /* a uniform beyond the normals of any d */
};

static kac_status prepare(kac_mixture *m, int i_step) {
    if (m->kernel_step == i_step) return KAC_OK;
    const int n = m->model.n_steps - i_step;
    m->kernel_step = -1;
    KAC_TRY(kac_kernel_prepare(&m->kernel, &m->model.prior, m->model.alpha_bar[n], m->model.alpha_bar[n - 1]));
    m->kernel_step = i_step;
    return KAC_OK;
}

/* Those that were given for the slot, once, or those of its key. */
static void take_normals(kac_mixture *m, float *z, int slot, kac_key key) {
    if (m->noised[slot])
        memcpy(z, m->noise + (size_t)slot * (size_t)m->d, (size_t)m->d * sizeof *z);
    else
        kac_rng_normal(z, m->d, key, (uint32_t)m->key[slot], 0);
    m->noised[slot] = false;
}

static kac_status mixture_start(kac_process *p, const int *slots, int n) {
    kac_mixture *m = p->self;
    KAC_TRY(prepare(m, 0));
    for (int i = 0; i < n; i++) {
        const uint64_t particle = m->key[slots[i]];
        const kac_key key = kac_key_of_particle((kac_key){m->seed, KAC_PURPOSE_INIT, 0}, particle);
        float z[KAC_GMM_MAX];
        double *x = kac_mixture_x(m, slots[i]);
        take_normals(m, z, slots[i], key);
        for (int j = 0; j < m->d; j++) x[j] = (double)z[j];
        if (!m->model.ddim) { /* the exact noised mixture: alpha mu_k + chol(P_k) z */
            const double u = kac_rng_uniform(key, (uint32_t)particle, COMPONENT_INDEX), alpha = sqrt(m->kernel.bar_t);
            int k = 0;
            for (double sum = m->model.prior.w[0]; k + 1 < m->k && sum <= u;) sum += m->model.prior.w[++k];
            const double *l = m->kernel.chol_p + k * m->d * m->d;
            for (int a = 0; a < m->d; a++) {
                x[a] = alpha * m->kernel.mean[k * m->d + a];
                for (int b = 0; b <= a; b++) x[a] += l[a * m->d + b] * (double)z[b];
            }
        }
        m->predicted[slots[i]] = -1;
        m->root[slots[i]] = m->next_root++;
    }
    return KAC_OK;
}

static void share_prediction(kac_mixture *m, int from, int to) {
    memcpy(kac_mixture_x0(m, to), kac_mixture_x0(m, from), (m->record - (size_t)m->d) * sizeof(double));
    m->predicted[to] = m->predicted[from];
}

static int *known_of(kac_mixture *m, int slot) {
    return &m->known[m->root[slot] % (uint64_t)m->n_slots];
}

static kac_status mixture_predict(kac_process *p, int i_step, const int *slots, int n) {
    kac_mixture *m = p->self;
    KAC_TRY(prepare(m, i_step));
    if (!p->stochastic) {
        for (int i = 0; i < m->n_slots; i++) m->known[i] = -1;
        for (int i = 0; i < n; i++)
            if (m->predicted[slots[i]] == i_step) *known_of(m, slots[i]) = slots[i];
    }
    for (int i = 0; i < n; i++) {
        const int slot = slots[i];
        if (m->predicted[slot] == i_step) continue;
        const int known = p->stochastic ? -1 : *known_of(m, slot);
        if (known >= 0 && m->root[known] == m->root[slot]) {
            share_prediction(m, known, slot);
            continue;
        }
        kac_kernel_posterior(&m->kernel, kac_mixture_x(m, slot), kac_mixture_log_w(m, slot),
                             kac_mixture_means(m, slot));
        kac_kernel_x0_hat(&m->kernel, kac_mixture_log_w(m, slot), kac_mixture_means(m, slot), kac_mixture_x0(m, slot));
        m->predicted[slot] = i_step;
        *known_of(m, slot) = slot;
        m->n_evaluations++;
    }
    return KAC_OK;
}

static double ddim_deviation(const kac_mixture *m, double a, double b) {
    return m->eta * sqrt((1.0 - b) / (1.0 - a) * (1.0 - a / b));
}

/* What multiplies eps in a DDIM step. */
static double ddim_rest(const kac_mixture *m, double a, double b) {
    const double s = ddim_deviation(m, a, b);
    return sqrt(fmax(1.0 - b - s * s, 0.0));
}

/* DDIM: x' = sqrt(b) x0 + sqrt(1 − b − s²) eps + s z, s = eta sqrt((1 − b) / (1 − a) (1 − a / b)), a and b alpha-bar now and next. */
static void step_ddim(const kac_mixture *m, int from, int to, const float *z) {
    const double a = m->kernel.bar_t, b = m->kernel.bar_s, *x = kac_mixture_x(m, from), *x0 = kac_mixture_x0(m, from);
    const double s = ddim_deviation(m, a, b), rest = ddim_rest(m, a, b);
    double *next = kac_mixture_x(m, to);
    for (int i = 0; i < m->d; i++) {
        const double eps = (x[i] - sqrt(a) * x0[i]) / sqrt(1.0 - a);
        next[i] = sqrt(b) * x0[i] + rest * eps + (s > 0.0 ? s * (double)z[i] : 0.0);
    }
}

/* Moves the state that was just drawn into `to` from one at x, and leaves log p − log q. */
static void add_shift(kac_mixture *m, int from, int to, const double *x, const float *z) {
    const float *shift = m->shift + (size_t)from * (size_t)m->d;
    double *next = kac_mixture_x(m, to), before = 0.0;
    const double s = m->model.ddim ? ddim_deviation(m, m->kernel.bar_t, m->kernel.bar_s) : 0.0;
    double ratio = m->model.ddim && s == 0.0 ? NAN : 0.0;
    if (!m->model.ddim)
        before = kac_kernel_log_density(&m->kernel, x, kac_mixture_log_w(m, from), kac_mixture_means(m, from), next);
    for (int i = 0; i < m->d; i++) {
        const double d = (double)shift[i];
        if (s > 0.0) ratio -= (2.0 * s * (double)z[i] + d) * d / (2.0 * s * s);
        next[i] += d;
    }
    if (!m->model.ddim)
        ratio = kac_kernel_log_density(&m->kernel, x, kac_mixture_log_w(m, from), kac_mixture_means(m, from), next) -
                before;
    m->ratio[to] = ratio;
}

static kac_status mixture_step(kac_process *p, int i_step, const int *from, const int *to, int n) {
    kac_mixture *m = p->self;
    bool parted = false; /* copies of a state need not stay copies */
    KAC_TRY(prepare(m, i_step));
    for (int i = 0; i < n; i++) parted |= m->shifted[from[i]];
    for (int i = 0; i < n; i++) {
        const uint64_t particle = m->key[to[i]];
        const kac_key key = kac_key_of_particle((kac_key){m->seed, KAC_PURPOSE_STEP, (uint32_t)i_step}, particle);
        float z[KAC_GMM_MAX];
        double x[KAC_GMM_MAX];
        KAC_ASSERT(m->predicted[from[i]] == i_step);
        memcpy(x, kac_mixture_x(m, from[i]), (size_t)m->d * sizeof *x);
        if (p->stochastic) take_normals(m, z, to[i], key);
        if (m->model.ddim)
            step_ddim(m, from[i], to[i], z);
        else
            kac_kernel_draw(&m->kernel, x, kac_mixture_log_w(m, from[i]), kac_mixture_means(m, from[i]),
                            kac_rng_uniform(key, (uint32_t)particle, COMPONENT_INDEX), z, kac_mixture_x(m, to[i]));
        m->ratio[to[i]] = 0.0;
        m->root[to[i]] = p->stochastic || parted ? m->next_root++ : m->root[from[i]];
        if (m->shifted[from[i]]) add_shift(m, from[i], to[i], x, z);
    }
    for (int i = 0; i < n; i++) m->shifted[from[i]] = m->noised[to[i]] = false; /* also what was not read */
    for (int i = 0; i < n; i++) m->predicted[to[i]] = -1;
    return KAC_OK;
}

/* ---- guidance ---- */

static kac_status mixture_pull(kac_process *p, int i_step, const int *slots, int n, const float *d_x0, float *d_x) {
    kac_mixture *m = p->self;
    KAC_ASSERT(m->kernel_step == i_step);
    for (int i = 0; i < n; i++) {
        KAC_ASSERT(m->predicted[slots[i]] == i_step);
        kac_kernel_pull(&m->kernel, kac_mixture_log_w(m, slots[i]), kac_mixture_means(m, slots[i]), d_x0 + i * m->d,
                        d_x + i * m->d);
    }
    return KAC_OK;
}

/* Of a DDIM step: x' = wx x + w0 x0-hat(x) + noise, and start is the normals themselves. */
static kac_status mixture_pull_step(kac_process *p, int i_step, const int *slots, int n, const float *d_next,
                                    float *d_x) {
    const kac_mixture *m = p->self;
    memcpy(d_x, d_next, (size_t)(n * m->d) * sizeof *d_x);
    if (i_step < 0) return KAC_OK;
    KAC_ASSERT(m->kernel_step == i_step);
    const double a = m->kernel.bar_t, b = m->kernel.bar_s, wx = ddim_rest(m, a, b) / sqrt(1.0 - a),
                 w0 = sqrt(b) - wx * sqrt(a);
    for (int i = 0; i < n; i++) {
        float through[KAC_GMM_MAX];
        KAC_ASSERT(m->predicted[slots[i]] == i_step);
        kac_kernel_pull(&m->kernel, kac_mixture_log_w(m, slots[i]), kac_mixture_means(m, slots[i]), d_next + i * m->d,
                        through);
        for (int j = 0; j < m->d; j++)
            d_x[i * m->d + j] = (float)(wx * (double)d_next[i * m->d + j] + w0 * (double)through[j]);
    }
    return KAC_OK;
}

static kac_status mixture_shift(kac_process *p, int i_step, const int *slots, int n, const float *shift) {
    kac_mixture *m = p->self;
    (void)i_step;
    for (int i = 0; i < n; i++) {
        float *to = m->shift + (size_t)slots[i] * (size_t)m->d;
        memcpy(to, shift + i * m->d, (size_t)m->d * sizeof *to);
        m->shifted[slots[i]] = false;
        for (int j = 0; j < m->d; j++) m->shifted[slots[i]] |= to[j] != 0.0f;
    }
    return KAC_OK;
}

/* The exact kernel draws more than that: what is left of the posterior's spread comes on top. */
static double mixture_deviation(kac_process *p, int i_step) {
    const kac_mixture *m = p->self;
    const double a = m->model.alpha_bar[m->model.n_steps - i_step],
                 b = m->model.alpha_bar[m->model.n_steps - i_step - 1];
    if (m->model.ddim) return ddim_deviation(m, a, b);
    return sqrt((1.0 - b) * (1.0 - a / b) / (1.0 - a)); /* v_ts = 1 − a / b */
}

/* A unit of score moves x0-hat by sigma² / alpha, and eps by −sigma. */
static double mixture_gain(kac_process *p, int i_step) {
    const kac_mixture *m = p->self;
    const double a = m->model.alpha_bar[m->model.n_steps - i_step],
                 b = m->model.alpha_bar[m->model.n_steps - i_step - 1];
    const double weight = m->model.ddim ? sqrt(b) : sqrt(b) * (1.0 - a / b) / (1.0 - a); /* of x0-hat in the mean */
    return weight * (1.0 - a) / sqrt(a) - (m->model.ddim ? ddim_rest(m, a, b) * sqrt(1.0 - a) : 0.0);
}

static kac_status mixture_log_ratio(kac_process *p, const int *slots, int n, double *out) {
    const kac_mixture *m = p->self;
    for (int i = 0; i < n; i++) {
        out[i] = m->ratio[slots[i]];
        if (isnan(out[i]))
            return KAC_FAIL(KAC_E_UNSUPPORTED,
                            "a guided step without noise has no density; weigh only steps with noise");
    }
    return KAC_OK;
}

static kac_status mixture_copy(kac_process *p, const int *from, const int *to, int n) {
    kac_mixture *m = p->self;
    KAC_ASSERT(n <= m->n_slots);
    uint64_t *numbers = (uint64_t *)(m->spare + (size_t)m->n_slots * m->record); /* predicted and root of each source */
    for (int i = 0; i < n; i++) {
        memcpy(m->spare + (size_t)i * m->record, kac_mixture_x(m, from[i]), m->record * sizeof(double));
        numbers[2 * i] = (uint64_t)m->predicted[from[i]];
        numbers[2 * i + 1] = m->root[from[i]];
    }
    for (int i = 0; i < n; i++) {
        memcpy(kac_mixture_x(m, to[i]), m->spare + (size_t)i * m->record, m->record * sizeof(double));
        m->predicted[to[i]] = (int)numbers[2 * i];
        m->root[to[i]] = numbers[2 * i + 1];
    }
    return KAC_OK;
}

static kac_status allocate(kac_mixture *m) {
    const size_t n = (size_t)m->n_slots;
    m->record = (size_t)(2 * m->d + m->k + m->k * m->d);
    m->records = kac_alloc(n * m->record * sizeof(double));
    m->spare = kac_alloc(n * (m->record * sizeof(double) + 2 * sizeof(uint64_t)));
    m->predicted = kac_alloc(n * sizeof(int));
    m->root = kac_alloc(n * sizeof *m->root);
    m->known = kac_alloc(n * sizeof(int));
    m->shift = kac_alloc(n * (size_t)m->d * sizeof(float));
    m->shifted = kac_alloc(n * sizeof(bool));
    m->ratio = kac_alloc(n * sizeof(double));
    m->key = kac_alloc(n * sizeof *m->key);
    m->noise = kac_alloc(n * (size_t)m->d * sizeof(float));
    m->noised = kac_alloc(n * sizeof(bool));
    if (m->shift == NULL || m->shifted == NULL || m->ratio == NULL || m->key == NULL || m->noise == NULL ||
        m->noised == NULL)
        return KAC_E_MEMORY;
    for (size_t i = 0; i < n; i++) m->key[i] = i;
    if (m->records == NULL || m->spare == NULL || m->predicted == NULL || m->root == NULL || m->known == NULL)
        return KAC_E_MEMORY;
    return kac_kernel_init(&m->kernel, m->k, m->d);
}

static kac_status check_options(const kac_mixture_options *o, bool ddim) {
    if (o->n_groups < 1 || o->n_per_group < 1 || o->n_groups > MAX_SLOTS / o->n_per_group)
        return KAC_FAIL(KAC_E_USAGE, "%d groups of %d particles; there must be 1 to %d particles in all", o->n_groups,
                        o->n_per_group, MAX_SLOTS);
    if (ddim && !(o->eta >= 0.0 && o->eta <= 1.0))
        return KAC_FAIL(KAC_E_USAGE, "eta is %g; it must lie between 0 and 1", o->eta);
    return KAC_OK;
}

static kac_status mixture_init(kac_mixture *m, const char *text, size_t n, const char *name,
                               const kac_mixture_options *o) {
    KAC_TRY(kac_mixture_model_parse(&m->model, text, n, name));
    KAC_TRY(check_options(o, m->model.ddim));
    m->k = m->model.prior.k;
    m->d = m->model.prior.d;
    m->n_slots = o->n_groups * o->n_per_group;
    m->seed = o->seed;
    m->eta = o->eta;
    m->kernel_step = -1;
    m->process = (kac_process){.self = m,
                               .n_steps = m->model.n_steps,
                               .n_groups = o->n_groups,
                               .n_per_group = o->n_per_group,
                               .stochastic = !m->model.ddim || m->eta > 0.0,
                               .start = mixture_start,
                               .predict = mixture_predict,
                               .step = mixture_step,
                               .copy = mixture_copy,
                               .n_state = m->d,
                               .pull = mixture_pull,
                               .pull_step = m->model.ddim ? mixture_pull_step : NULL, /* exact draws choose a component */
                               .shift = mixture_shift,
                               .deviation = mixture_deviation,
                               .gain = mixture_gain,
                               .log_ratio = mixture_log_ratio};
    kac_mixture_search_open(m);
    return allocate(m);
}

kac_status kac_mixture_parse(kac_mixture **out, const char *text, size_t n, const char *name,
                             const kac_mixture_options *o) {
    *out = NULL;
    kac_mixture *m = kac_alloc(sizeof *m);
    if (m == NULL) return KAC_E_MEMORY;
    const kac_status status = mixture_init(m, text, n, name, o);
    if (status != KAC_OK) {
        kac_mixture_destroy(m);
        return status;
    }
    *out = m;
    return KAC_OK;
}

kac_status kac_mixture_load(kac_mixture **out, const char *path, const kac_mixture_options *o) {
    char *text = NULL;
    size_t n = 0;
    *out = NULL;
    KAC_TRY(kac_file_read(&text, &n, path, MAX_FILE_BYTES));
    const kac_status status = kac_mixture_parse(out, text, n, path, o);
    kac_free(text);
    return status;
}

void kac_mixture_destroy(kac_mixture *m) {
    if (m == NULL) return;
    kac_mixture_model_free(&m->model);
    kac_kernel_free(&m->kernel);
    kac_free(m->records);
    kac_free(m->spare);
    kac_free(m->predicted);
    kac_free(m->root);
    kac_free(m->known);
    kac_free(m->shift);
    kac_free(m->shifted);
    kac_free(m->ratio);
    kac_free(m->key);
    kac_free(m->noise);
    kac_free(m->noised);
    kac_mixture_search_close(m);
    kac_free(m);
}

kac_process *kac_mixture_process(kac_mixture *m) {
    return &m->process;
}

int kac_mixture_dim(const kac_mixture *m) {
    return m->d;
}

kac_mixture *kac_mixture_of(const kac_process *p) {
    return p->start == mixture_start ? p->self : NULL;
}

const double *kac_mixture_point(const kac_process *p, int slot, kac_stage stage) {
    const kac_mixture *m = kac_mixture_of(p);
    KAC_ASSERT(m != NULL && slot >= 0 && slot < m->n_slots);
    return stage == KAC_STAGE_FINAL ? kac_mixture_x(m, slot) : kac_mixture_x0(m, slot);
}

int64_t kac_mixture_evaluations(const kac_mixture *m) {
    return m->n_evaluations;
}
