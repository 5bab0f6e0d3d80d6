/* D3PO: Yang et al., Using human feedback to fine-tune diffusion models without any reward model, CVPR 2024; here pairs come from a reward.
 *
 * Of every group of samples of one prompt the best w and the worst l by reward make a pair; for each row that draws noise
 *     loss = −log sigmoid(β (log ρ_w − log ρ_l)),   ρ = clamp(p_θ(x' | x) / p_base(x' | x), 1 ± c),
 * log p the mean over the state's numbers; the mean over pairs and rows is taken. A ratio that is clamped has no gradient. Released code: β =
 * 0.1, c = 0.1, groups of two that begin with the same noise, 20 steps of ddim with eta 1, guidance 5, learning rate 3e-5, LoRA. */
#include "base/base.h"
#include "train/density.h"
#include "train/gather.h"
#include "train/methods.h"
#include <math.h>

static const kac_option_spec options[] = {
    {"group", 0, KAC_OPT_INT, "2", 2, 10000, NULL, "N",
     "samples of a prompt, whose best and worst make a pair; divides batch · accum", false},
    {"beta", 0, KAC_OPT_REAL, "0.1", 1e-6, 1e6, NULL, "X", "weight of the likelihood ratios in the preference", false},
    {"clip-range", 0, KAC_OPT_REAL, "0.1", 1e-6, 0.999, NULL, "X", "ratios to the base model are clamped to 1 ± X",
     false},
    {"same-noise", 0, KAC_OPT_BOOL, "true", 0, 0, NULL, NULL, "samples of a group begin with the same noise", false},
    {"row-fraction", 0, KAC_OPT_REAL, "1", 0.001, 1, NULL, "X",
     "share of each pair's rows that is trained on, drawn at random", false},
    KAC_TUNE_OPTIONS_END};

typedef struct dpo {
    kac_chain chain;
    kac_gather gather;
    int n, group, n_rows, n_kept, n_pairs;
    double beta, range;
    bool same_noise;
    int *rows, *prompt, *pair, *win, *lose; /* pair: 0 … n_pairs − 1 */
    double *totals, *slope;                 /* slope [transitions]: d loss / d log ρ */
    float *base, *out;                      /* base [rows, n, n_state]; out [batch, n_state] */
    kac_transition *list;                   /* of pairs, then of samples: both of a pair are neighbours */
    const kac_transition *now;
    const double *now_slope;
    double loss, kl, kl_sum, share;
} dpo;

enum { STREAM_NOISE, STREAM_ROWS };

static kac_status take_memory(dpo *m, const kac_trainer *tr) {
    const size_t n = (size_t)m->n, n_steps = (size_t)tr->t->solver->n_steps, n_state = (size_t)tr->t->n_state;
    const size_t n_groups = n / (size_t)m->group;
    m->rows = kac_alloc(n_steps * sizeof(int));
    m->prompt = kac_alloc(n * sizeof(int));
    m->pair = kac_alloc(3 * n_groups * sizeof(int));
    m->totals = kac_alloc(n * sizeof(double));
    m->slope = kac_alloc(2 * n_groups * n_steps * sizeof(double));
    m->list = kac_alloc(3 * n_groups * n_steps * sizeof *m->list);
    m->base = kac_alloc(n_steps * n * n_state * sizeof(float));
    m->out = kac_alloc((size_t)tr->t->batch * n_state * sizeof(float));
    if (m->rows == NULL || m->prompt == NULL || m->pair == NULL || m->totals == NULL || m->slope == NULL ||
        m->list == NULL || m->base == NULL || m->out == NULL)
        return KAC_E_MEMORY;
    m->win = m->pair + n_groups;
    m->lose = m->win + n_groups;
    return KAC_OK;
}

static kac_status open(kac_trainer *tr) {
    dpo *m = tr->self;
    const kac_options *o = tr->options;
    KAC_TRY(kac_density_check(tr->t->solver, "dpo-online"));
    m->n = (int)tr->n_round;
    m->group = (int)kac_options_int(o, "group");
    m->beta = kac_options_real(o, "beta");
    m->range = kac_options_real(o, "clip-range");
    m->same_noise = kac_options_bool(o, "same-noise");
    m->kl = tr->kl;
    if (m->n % m->group != 0)
        return KAC_FAIL(KAC_E_USAGE, "--group %d does not divide the %d samples of a round (batch · accum)", m->group,
                        m->n);
    KAC_TRY(take_memory(m, tr));
    m->n_rows = kac_density_rows(tr->t->solver, m->rows);
    m->n_kept = KAC_MAX((int)(kac_options_real(o, "row-fraction") * m->n_rows), 1);
    KAC_TRY(kac_gather_open(&m->gather, tr->t));
    return kac_chain_open(&m->chain, tr->t, m->n);
}

static void close(kac_trainer *tr) {
    dpo *m = tr->self;
    kac_chain_close(&m->chain);
    kac_gather_close(&m->gather);
    kac_free(m->rows);
    kac_free(m->prompt);
    kac_free(m->pair);
    kac_free(m->totals);
    kac_free(m->slope);
    kac_free(m->list);
    kac_free(m->base);
    kac_free(m->out);
}

/* Groups whose rewards are all equal say nothing. */
static void choose_pairs(dpo *m) {
    m->n_pairs = 0;
    for (int g = 0; g < m->n; g += m->group) {
        int win = g, lose = g;
        for (int i = g; i < g + m->group; i++) {
            if (m->totals[i] > m->totals[win]) win = i;
            if (m->totals[i] < m->totals[lose]) lose = i;
        }
        if (win == lose) continue;
        m->pair[m->n_pairs] = m->n_pairs;
        m->win[m->n_pairs] = win;
        m->lose[m->n_pairs++] = lose;
    }
}

static kac_status draw(dpo *m, kac_trainer *tr) {
    for (int i = 0; i < m->n; i++) m->prompt[i] = kac_trainer_prompt(tr, i, m->group);
    const kac_chain_draw d = {.prompt = m->prompt,
                              .seed = kac_trainer_seed(tr, STREAM_NOISE),
                              .cfg_scale = tr->cfg_scale,
                              .same_start = m->same_noise ? m->group : 1};
    KAC_TRY(kac_chain_sample(&m->chain, &d));
    KAC_TRY(kac_chain_reward(&m->chain, m->totals, NULL));
    kac_trainer_note_rewards(tr, m->totals, m->n);
    choose_pairs(m);
    if (m->n_pairs == 0) return KAC_OK;
    kac_transition *pairs = m->list + 2 * m->n_pairs * m->n_kept;
    kac_gather_shuffle(pairs, m->pair, m->n_pairs, m->rows, m->n_rows, m->n_kept, kac_trainer_seed(tr, STREAM_ROWS));
    for (int i = 0; i < m->n_pairs * m->n_kept; i++) {
        m->list[2 * i] = (kac_transition){m->win[pairs[i].sample], pairs[i].row};
        m->list[2 * i + 1] = (kac_transition){m->lose[pairs[i].sample], pairs[i].row};
    }
    return kac_chain_base(&m->chain, m->base);
}

static const float *base_at(const dpo *m, kac_transition at) {
    return m->base + ((int64_t)at.row * m->n + at.sample) * m->chain.t->n_state;
}

/* log ρ of every transition, into slope. */
static kac_status measure(dpo *m, kac_trainee *t) {
    const kac_chain *ch = &m->chain;
    const int n_list = 2 * m->n_pairs * m->n_kept;
    for (int first = 0; first < n_list; first += t->batch) {
        const kac_denoise in = kac_gather_call(&m->gather, ch, m->list + first, KAC_MIN(t->batch, n_list - first));
        KAC_TRY(t->predict(t, &in, m->out));
        for (int i = 0; i < in.n; i++) {
            const kac_transition at = m->list[first + i];
            m->slope[first + i] = kac_density_log_ratio(t->solver, at.row, in.x + i * t->n_state,
                                                        kac_chain_state(ch, at.row + 1, at.sample),
                                                        m->out + i * t->n_state, base_at(m, at), t->n_state);
        }
    }
    return KAC_OK;
}

/* The loss, and log ρ replaced by the slope. Returns the share of transitions that prefer as the rewards do. */
static double weigh(dpo *m) {
    const double low = log1p(-m->range), high = log1p(m->range);
    int n_right = 0;
    m->loss = 0.0;
    for (int i = 0; i < 2 * m->n_pairs * m->n_kept; i += 2) {
        double *s = m->slope + i;
        const double w = fmin(fmax(s[0], low), high), l = fmin(fmax(s[1], low), high), h = m->beta * (w - l);
        const double slope = -m->share * m->beta / (1.0 + exp(h));
        m->loss += m->share * (h > 0.0 ? log1p(exp(-h)) : log1p(exp(h)) - h);
        n_right += h > 0.0;
        s[0] = s[0] == w ? slope : 0.0;
        s[1] = s[1] == l ? -slope : 0.0;
    }
    return n_right * m->share;
}

static kac_status loss_of_call(void *self, const kac_denoise *in, const float *out, float *d_out) {
    dpo *m = self;
    const kac_trainee *t = m->chain.t;
    const int64_t n_state = t->n_state;
    for (int i = 0; i < in->n; i++) {
        const kac_transition at = m->now[i];
        const float *mine = out + i * n_state, *base = base_at(m, at);
        float *d = d_out + i * n_state;
        kac_density_slope(t->solver, at.row, in->x + i * n_state, kac_chain_state(&m->chain, at.row + 1, at.sample),
                          mine, m->now_slope[i], d, n_state);
        const double weight = 0.5 * m->share * m->kl / (double)n_state;
        for (int64_t j = 0; m->kl > 0.0 && j < n_state; j++) {
            const double away = (double)mine[j] - base[j];
            m->kl_sum += weight * away * away;
            d[j] = (float)(d[j] + 2.0 * weight * away);
        }
    }
    return KAC_OK;
}

static kac_status run(kac_trainer *tr) {
    dpo *m = tr->self;
    kac_trainee *t = tr->t;
    KAC_TRY(draw(m, tr));
    kac_trainer_note(tr, "pairs", m->n_pairs);
    if (m->n_pairs == 0) return KAC_OK;
    const int n_list = 2 * m->n_pairs * m->n_kept;
    m->share = 2.0 / n_list;
    KAC_TRY(measure(m, t));
    kac_trainer_note(tr, "right", weigh(m));
    m->kl_sum = 0.0;
    for (int first = 0; first < n_list; first += t->batch) {
        m->now = m->list + first;
        m->now_slope = m->slope + first;
        const kac_denoise in = kac_gather_call(&m->gather, &m->chain, m->now, KAC_MIN(t->batch, n_list - first));
        KAC_TRY(t->backward(t, &in, loss_of_call, m, NULL));
    }
    if (tr->kl > 0.0) kac_trainer_note(tr, "kl", m->kl_sum / tr->kl);
    return kac_trainer_update(tr, m->loss + m->kl_sum);
}

const kac_tune_method kac_tune_dpo_online = {
    .name = "dpo-online",
    .summary = "preferences between samples of a prompt, by reward (D3PO); the reward needs no gradient",
    .options = options,
    .needs_density = true,
    .n_self = sizeof(dpo),
    .open = open,
    .round = run,
    .close = close};
