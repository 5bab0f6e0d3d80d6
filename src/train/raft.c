/* RAFT: Dong et al., Reward ranked fine-tuning for generative foundation model alignment, TMLR 2023.
 *
 * Of every n samples of one prompt the best by reward is kept, and the model is trained on the kept ones as on pictures: noised to random
 * levels of the sampler, mean squared error of the network's output against the one that would lead back,
 *     out* = (x0 − a x) / b   where   x0-hat = a x + b out
 * (the noise itself for an epsilon model), without guidance. Published (LMFlow): 10 samples a prompt, LoRA, learning rate 9e-6. */
#include "base/base.h"
#include "train/chain.h"
#include "train/methods.h"
#include "train/noised.h"

static const kac_option_spec options[] = {
    {"group", 0, KAC_OPT_INT, "4", 2, 10000, NULL, "N",
     "samples of a prompt of which the best is kept (published: 10); divides batch · accum", false},
    {"levels", 0, KAC_OPT_INT, "8", 1, 100000, NULL, "N", "noise levels at which each kept sample is trained on",
     false},
    KAC_TUNE_OPTIONS_END};

typedef struct raft {
    kac_chain chain;
    kac_noised noised;
    int n, group, n_levels;
    int *prompt;
    double *totals;
    float *base; /* outputs of the base model; only with kl */
    int first;   /* entry of the call in progress */
    double kl, loss, kl_sum;
} raft;

enum { STREAM_NOISE, STREAM_LEVEL };

static kac_status open(kac_trainer *tr) {
    raft *m = tr->self;
    m->n = (int)tr->n_round;
    m->group = (int)kac_options_int(tr->options, "group");
    m->n_levels = (int)kac_options_int(tr->options, "levels");
    m->kl = tr->kl;
    if (m->n % m->group != 0)
        return KAC_FAIL(KAC_E_USAGE, "--group %d does not divide the %d samples of a round (batch · accum)", m->group,
                        m->n);
    if ((int64_t)m->n / m->group * m->n_levels > 1 << 24)
        return KAC_FAIL(KAC_E_USAGE, "--levels %d of %d kept samples are too many", m->n_levels, m->n / m->group);
    const int n_entries = m->n / m->group * m->n_levels;
    m->prompt = kac_alloc((size_t)m->n * sizeof(int));
    m->totals = kac_alloc((size_t)m->n * sizeof(double));
    if (tr->kl > 0.0) m->base = kac_alloc((size_t)n_entries * (size_t)tr->t->n_state * sizeof(float));
    if (m->prompt == NULL || m->totals == NULL || (tr->kl > 0.0 && m->base == NULL)) return KAC_E_MEMORY;
    KAC_TRY(kac_noised_open(&m->noised, tr->t, n_entries));
    return kac_chain_open(&m->chain, tr->t, m->n);
}

static void close(kac_trainer *tr) {
    raft *m = tr->self;
    kac_chain_close(&m->chain);
    kac_noised_close(&m->noised);
    kac_free(m->prompt);
    kac_free(m->totals);
    kac_free(m->base);
}

/* Draws the round's samples and noises the best of each group. */
static kac_status draw(raft *m, kac_trainer *tr) {
    double kept = 0.0;
    for (int i = 0; i < m->n; i++) m->prompt[i] = kac_trainer_prompt(tr, i, m->group);
    const kac_chain_draw d = {
        .prompt = m->prompt, .seed = kac_trainer_seed(tr, STREAM_NOISE), .cfg_scale = tr->cfg_scale};
    KAC_TRY(kac_chain_sample(&m->chain, &d));
    KAC_TRY(kac_chain_reward(&m->chain, m->totals, NULL));
    kac_trainer_note_rewards(tr, m->totals, m->n);
    for (int g = 0; g < m->n / m->group; g++) {
        int best = g * m->group;
        for (int i = best; i < (g + 1) * m->group; i++)
            if (m->totals[i] > m->totals[best]) best = i;
        kept += m->totals[best];
        for (int l = 0; l < m->n_levels; l++) {
            const float *x0 = kac_chain_state(&m->chain, m->chain.n_rows, best);
            kac_noised_set(&m->noised, tr, STREAM_LEVEL, g * m->n_levels + l, x0, m->prompt[best], best);
        }
    }
    kac_trainer_note(tr, "kept_reward", kept * m->group / m->n);
    return KAC_OK;
}

static kac_status loss_of_call(void *self, const kac_denoise *in, const float *out, float *d_out) {
    raft *m = self;
    const kac_solver *s = m->noised.t->solver;
    const int64_t n_state = m->noised.t->n_state;
    const double share = 1.0 / ((double)m->noised.n * (double)n_state);
    for (int i = 0; i < in->n; i++) {
        const kac_solver_row *row = &s->rows[m->noised.row[m->first + i]];
        for (int64_t j = i * n_state; j < (i + 1) * n_state; j++) {
            const int64_t at = m->first * n_state + j;
            const double error = out[j] - (m->noised.x0[at] - row->x0_x * m->noised.x[at]) / row->x0_out;
            const double away = m->base == NULL ? 0.0 : (double)out[j] - m->base[at];
            m->loss += share * error * error;
            m->kl_sum += share * m->kl * away * away;
            d_out[j] = (float)(2.0 * share * (error + m->kl * away));
        }
    }
    return KAC_OK;
}

static kac_status run(kac_trainer *tr) {
    raft *m = tr->self;
    kac_trainee *t = tr->t;
    KAC_TRY(draw(m, tr));
    if (m->base != NULL) {
        KAC_TRY(t->use(t, NULL));
        KAC_TRY(kac_noised_predict(&m->noised, t, 1.0, m->base));
        KAC_TRY(t->use(t, t->values));
    }
    m->loss = m->kl_sum = 0.0;
    for (m->first = 0; m->first < m->noised.n; m->first += t->batch) {
        const kac_denoise in = kac_noised_call(&m->noised, m->first, KAC_MIN(t->batch, m->noised.n - m->first), 1.0);
        KAC_TRY(t->backward(t, &in, loss_of_call, m, NULL));
    }
    if (tr->kl > 0.0) kac_trainer_note(tr, "kl", m->kl_sum / tr->kl);
    return kac_trainer_update(tr, m->loss + m->kl_sum);
}

const kac_tune_method kac_tune_raft = {
    .name = "raft",
    .summary = "trains on the best of n samples of each prompt; the reward needs no gradient",
    .options = options,
    .n_self = sizeof(raft),
    .open = open,
    .round = run,
    .close = close};
