/* DiffusionNFT: Zheng et al., DiffusionNFT: online diffusion reinforcement with forward process, arXiv 2509.16117, 2025.
 *
 * Samples of an old policy get a weight w in [0, 1] by their advantage, w = clamp(A / (2 A_max) + 1/2), and are noised again:
 *     out+ = (1 − β) old + β θ,   out− = (1 + β) old − β θ,   x̂± = x0-hat(x, out±)
 *     loss = A_max / β · mean over entries of  w |x̂+ − x0|² / s+  +  (1 − w) |x̂− − x0|² / s−  [+ kl |out_θ − out_base|²]
 * with |·|² the mean over the state and s± = mean |x̂± − x0|, a constant. Good samples pull θ towards themselves, bad ones push it away
 * through the mirrored prediction. No likelihoods, so any sampler will do.
 *
 * Derived for flow models, whose out is a velocity. For others: E_old[x0 | x] = w̄ E+ + (1 − w̄) E− holds for the posterior means of the
 * good and the bad part of the old policy, w̄ the chance of good at x, and the loss is least where x̂+ = E+ and x̂− = E−. At each level
 * x0-hat = a x + b out for epsilon, v, velocity and sample predictions alike, and the weights of old and θ in out± sum to 1; so the mixture
 * of outputs is the same mixture of x0-hats,
 *     x̂+ = (1 − β) x̂_old + β x̂_θ,   x̂− = (1 + β) x̂_old − β x̂_θ,
 * and what is learned does not depend on what the network predicts. d loss / d out = b · d loss / d x̂_θ.
 *
 * The old policy is a copy of θ that follows it by θ_old += (1 − d)(θ − θ_old), d = min(rise · round, most), after each round. Released code:
 * β = 1 (0.1 for OCR and mixed rewards), A_max = 5, kl 1e-4, d with 0.001 and 0.5, 24 samples of each prompt, no guidance, 10 steps of a
 * second-order solver, every level of each sample, LoRA of rank 32 at 3e-4. */
#include "base/base.h"
#include "train/advantage.h"
#include "train/chain.h"
#include "train/methods.h"
#include "train/noised.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"beta", 0, KAC_OPT_REAL, "1", 1e-4, 10, NULL, "X",
     "how far the positive prediction lies from the old one towards the new", false},
    {"levels", 0, KAC_OPT_INT, "4", 1, 100000, NULL, "N", "noise levels at which each sample is trained on", false},
    {"updates", 0, KAC_OPT_INT, "1", 1, 10000, NULL, "N", "updates of a round, each with batch · accum of its samples",
     false},
    {"group", 0, KAC_OPT_INT, "1", 1, 10000, NULL, "N", "neighbouring samples that share a prompt (published: 24)",
     false},
    {"old-rise", 0, KAC_OPT_REAL, "0.001", 0, 1, NULL, "X", "the old policy's decay grows by X a round from 0", false},
    {"old-most", 0, KAC_OPT_REAL, "0.5", 0, 0.9999, NULL, "X", "and no further than X", false},
    KAC_ADVANTAGE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef struct nft {
    kac_chain chain;
    kac_noised noised;
    kac_advantage advantage;
    int n, n_levels, n_updates, group;
    double beta, rise, most;
    int *prompt;
    double *totals, *advantages;
    float *old;             /* [n_values], in the advantages' block */
    float *out_old, *base;  /* [entries, n_state]; base only with kl */
    int first, n_of_update; /* entry of the call in progress; entries of its update */
    double kl, loss, kl_sum;
} nft;

enum { STREAM_NOISE, STREAM_LEVEL };

static kac_status read_options(nft *m, kac_trainer *tr) {
    const kac_options *o = tr->options;
    m->beta = kac_options_real(o, "beta");
    m->rise = kac_options_real(o, "old-rise");
    m->most = kac_options_real(o, "old-most");
    m->n_levels = (int)kac_options_int(o, "levels");
    m->n_updates = (int)kac_options_int(o, "updates");
    m->group = (int)kac_options_int(o, "group");
    m->kl = tr->kl;
    tr->n_round *= m->n_updates;
    if (tr->n_round * m->n_levels > 1 << 24)
        return KAC_FAIL(KAC_E_USAGE, "--levels %d of %lld samples a round are too many", m->n_levels,
                        (long long)tr->n_round);
    if (tr->n_round % m->group != 0)
        return KAC_FAIL(KAC_E_USAGE, "--group %d does not divide the %lld samples of a round (batch · accum · updates)",
                        m->group, (long long)tr->n_round);
    m->n = (int)tr->n_round;
    return KAC_OK;
}

static kac_status open(kac_trainer *tr) {
    nft *m = tr->self;
    const kac_trainee *t = tr->t;
    KAC_TRY(read_options(m, tr));
    const size_t n = (size_t)m->n, n_out = n * (size_t)m->n_levels * (size_t)t->n_state;
    m->prompt = kac_alloc(n * sizeof(int));
    m->totals = kac_alloc(n * sizeof(double));
    m->advantages = kac_alloc(n * sizeof(double));
    m->out_old = kac_alloc(n_out * sizeof(float));
    if (tr->kl > 0.0) m->base = kac_alloc(n_out * sizeof(float));
    if (m->prompt == NULL || m->totals == NULL || m->advantages == NULL || m->out_old == NULL ||
        (tr->kl > 0.0 && m->base == NULL))
        return KAC_E_MEMORY;
    KAC_TRY(kac_advantage_open(&m->advantage, tr, (size_t)t->n_values * sizeof(float)));
    m->old = m->advantage.extra;
    memcpy(m->old, t->values, (size_t)t->n_values * sizeof(float));
    KAC_TRY(kac_noised_open(&m->noised, t, m->n * m->n_levels));
    return kac_chain_open(&m->chain, tr->t, m->n);
}

static void close(kac_trainer *tr) {
    nft *m = tr->self;
    kac_chain_close(&m->chain);
    kac_noised_close(&m->noised);
    kac_advantage_close(&m->advantage);
    kac_free(m->prompt);
    kac_free(m->totals);
    kac_free(m->advantages);
    kac_free(m->out_old);
    kac_free(m->base);
}

/* The round's samples by the old policy, noised, and what it and the base model say there. Leaves θ in use. */
static kac_status draw(nft *m, kac_trainer *tr) {
    kac_trainee *t = tr->t;
    for (int i = 0; i < m->n; i++) m->prompt[i] = kac_trainer_prompt(tr, i, m->group);
    const kac_chain_draw d = {
        .prompt = m->prompt, .seed = kac_trainer_seed(tr, STREAM_NOISE), .cfg_scale = tr->cfg_scale};
    KAC_TRY(t->use(t, m->old));
    KAC_TRY(kac_chain_sample(&m->chain, &d));
    KAC_TRY(kac_chain_reward(&m->chain, m->totals, NULL));
    kac_trainer_note_rewards(tr, m->totals, m->n);
    kac_advantage_take(&m->advantage, m->totals, m->prompt, m->n, m->advantages);
    for (int i = 0; i < m->n * m->n_levels; i++) {
        const int sample = i / m->n_levels;
        kac_noised_set(&m->noised, tr, STREAM_LEVEL, i, kac_chain_state(&m->chain, m->chain.n_rows, sample),
                       m->prompt[sample], sample);
    }
    KAC_TRY(kac_noised_predict(&m->noised, t, tr->cfg_scale, m->out_old));
    if (m->base != NULL) {
        KAC_TRY(t->use(t, NULL));
        KAC_TRY(kac_noised_predict(&m->noised, t, tr->cfg_scale, m->base));
    }
    return t->use(t, t->values);
}

/* mean of (x0-hat − x0)² over mean |x0-hat − x0|, where x0-hat = x̂_old + gain (x̂ − x̂_old), and its slope by out, added to d_out. */
static double side(const kac_solver_row *r, const float *x, const float *x0, const float *out, const float *old,
                   double gain, double weight, float *d_out, int64_t n) {
    double square = 0.0, size = 0.0;
    for (int64_t j = 0; j < n; j++) {
        const double mixed = old[j] + gain * ((double)out[j] - old[j]),
                     error = r->x0_x * x[j] + r->x0_out * mixed - x0[j];
        square += error * error / (double)n;
        size += fabs(error) / (double)n;
    }
    size = fmax(size, 1e-5); /* as released */
    for (int64_t j = 0; j < n; j++) {
        const double mixed = old[j] + gain * ((double)out[j] - old[j]),
                     error = r->x0_x * x[j] + r->x0_out * mixed - x0[j];
        d_out[j] = (float)(d_out[j] + weight * 2.0 * error * r->x0_out * gain / ((double)n * size));
    }
    return weight * square / size;
}

static kac_status loss_of_call(void *self, const kac_denoise *in, const float *out, float *d_out) {
    nft *m = self;
    const int64_t n_state = m->noised.t->n_state;
    const double share = 1.0 / m->n_of_update, most = m->advantage.clip;
    memset(d_out, 0, (size_t)(in->n * n_state) * sizeof(float));
    for (int i = 0; i < in->n; i++) {
        const int entry = m->first + i;
        const int64_t at = entry * n_state;
        const kac_solver_row *row = &m->noised.t->solver->rows[m->noised.row[entry]];
        const double w = fmin(fmax(m->advantages[m->noised.sample[entry]] / (2.0 * most) + 0.5, 0.0), 1.0);
        const float *x = m->noised.x + at, *x0 = m->noised.x0 + at, *old = m->out_old + at, *mine = out + i * n_state;
        float *d = d_out + i * n_state;
        const double scale = share * most / m->beta;
        m->loss += side(row, x, x0, mine, old, m->beta, scale * w, d, n_state);
        m->loss += side(row, x, x0, mine, old, -m->beta, scale * (1.0 - w), d, n_state);
        for (int64_t j = 0; m->base != NULL && j < n_state; j++) {
            const double away = (double)mine[j] - m->base[at + j], weight = share * m->kl / (double)n_state;
            m->kl_sum += weight * away * away;
            d[j] = (float)(d[j] + 2.0 * weight * away);
        }
    }
    return KAC_OK;
}

static void *state(kac_trainer *tr, size_t *n_bytes) {
    return kac_advantage_state(&((nft *)tr->self)->advantage, n_bytes);
}

static void follow(nft *m, const kac_trainer *tr) {
    const float decay = (float)fmin(m->rise * (double)(tr->round + 1), m->most);
    for (int64_t i = 0; i < tr->t->n_values; i++) m->old[i] += (1.0f - decay) * (tr->t->values[i] - m->old[i]);
}

static kac_status run(kac_trainer *tr) {
    nft *m = tr->self;
    kac_trainee *t = tr->t;
    KAC_TRY(draw(m, tr));
    m->n_of_update = m->n / m->n_updates * m->n_levels;
    m->first = 0;
    for (int update = 1; update <= m->n_updates; update++) {
        m->loss = m->kl_sum = 0.0;
        for (const int end = update * m->n_of_update; m->first < end;) {
            const kac_denoise in =
                kac_noised_call(&m->noised, m->first, KAC_MIN(t->batch, end - m->first), tr->cfg_scale);
            KAC_TRY(t->backward(t, &in, loss_of_call, m, NULL));
            m->first += in.n;
        }
        if (tr->kl > 0.0) kac_trainer_note(tr, "kl", m->kl_sum / tr->kl);
        KAC_TRY(kac_trainer_update(tr, m->loss + m->kl_sum));
    }
    follow(m, tr);
    return KAC_OK;
}

const kac_tune_method kac_tune_nft = {
    .name = "nft",
    .summary = "forward process, good and bad samples of an old policy; the reward needs no gradient",
    .options = options,
    .n_self = sizeof(nft),
    .open = open,
    .round = run,
    .close = close,
    .state = state};
