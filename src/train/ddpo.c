/* DDPO: Black et al., Training diffusion models with reinforcement learning, arXiv 2305.13301, 2023 (its importance-sampling form).
 *
 * Every step of the sampler that draws noise is an action with density N(x'; mean(x, out), z²). Samples of a round are drawn once and
 * used for several updates, which minimise the mean over samples and rows of
 *     max(−A ρ, −A clamp(ρ, 1 − c, 1 + c)),   ρ = exp(log p_θ(x' | x) − log p_old(x' | x)),
 * A the advantage of the sample's reward, log p the mean over the state's numbers. Guidance is part of the policy, in training too. A last row
 * without noise is left out: where alpha-bar ends at alphas_cumprod[0] (set_alpha_to_one false) it has some, as in the released code.
 * Released code: 50 steps of ddim with eta 1, guidance 5, c = 1e-4, A from the last 16 or 32 rewards of the prompt, clamped to ± 5, 256
 * samples a round, 2 or 4 updates, learning rate 3e-4, LoRA of rank 4. */
#include "base/base.h"
#include "train/advantage.h"
#include "train/density.h"
#include "train/gather.h"
#include "train/methods.h"
#include <math.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"updates", 0, KAC_OPT_INT, "2", 1, 10000, NULL, "N",
     "updates of a pass over a round's samples, each with batch · accum of them", false},
    {"passes", 0, KAC_OPT_INT, "1", 1, 10000, NULL, "N", "passes over the samples of a round (inner epochs)", false},
    {"clip-range", 0, KAC_OPT_REAL, "1e-4", 1e-9, 1, NULL, "X", "likelihood ratios beyond 1 ± X have no gradient",
     false},
    {"row-fraction", 0, KAC_OPT_REAL, "1", 0.001, 1, NULL, "X",
     "share of each sample's rows that is trained on, drawn at random", false},
    {"group", 0, KAC_OPT_INT, "1", 1, 10000, NULL, "N", "neighbouring samples that share a prompt", false},
    KAC_ADVANTAGE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef struct ddpo {
    kac_chain chain; /* of all samples of a round */
    kac_gather gather;
    kac_advantage advantage;
    int n, n_updates, n_passes, group, n_rows, n_kept;
    double range;
    int *rows, *order, *prompt;
    double *totals, *advantages;
    float *base; /* [rows, n, n_state]; only with kl */
    kac_transition *list;
    const kac_transition *now; /* of the call in progress */
    double share, kl;          /* weight of a transition in the loss, and of its distance to the base model */
    double loss, kl_sum, ratio_sum;
    int64_t n_clipped, n_seen;
} ddpo;

enum { STREAM_NOISE, STREAM_ORDER, STREAM_ROWS };

static kac_status take_memory(ddpo *m, const kac_trainer *tr) {
    const size_t n = (size_t)m->n, n_steps = (size_t)tr->t->solver->n_steps, n_state = (size_t)tr->t->n_state;
    m->rows = kac_alloc(n_steps * sizeof(int));
    m->order = kac_alloc(n * sizeof(int));
    m->prompt = kac_alloc(n * sizeof(int));
    m->totals = kac_alloc(n * sizeof(double));
    m->advantages = kac_alloc(n * sizeof(double));
    m->list = kac_alloc((size_t)(tr->batch * tr->accum) * n_steps * sizeof *m->list);
    if (tr->kl > 0.0) m->base = kac_alloc(n_steps * n * n_state * sizeof(float));
    if (m->rows == NULL || m->order == NULL || m->prompt == NULL || m->totals == NULL || m->advantages == NULL ||
        m->list == NULL || (tr->kl > 0.0 && m->base == NULL))
        return KAC_E_MEMORY;
    return KAC_OK;
}

static kac_status open(kac_trainer *tr) {
    ddpo *m = tr->self;
    const kac_options *o = tr->options;
    KAC_TRY(kac_density_check(tr->t->solver, "ddpo"));
    m->n_updates = (int)kac_options_int(o, "updates");
    m->n_passes = (int)kac_options_int(o, "passes");
    m->group = (int)kac_options_int(o, "group");
    m->range = kac_options_real(o, "clip-range");
    tr->n_round *= m->n_updates;
    if (tr->n_round > 1 << 24)
        return KAC_FAIL(KAC_E_USAGE, "%lld samples a round are too many", (long long)tr->n_round);
    if (tr->n_round % m->group != 0)
        return KAC_FAIL(KAC_E_USAGE, "--group %d does not divide the %lld samples of a round (batch · accum · updates)",
                        m->group, (long long)tr->n_round);
    m->n = (int)tr->n_round;
    KAC_TRY(take_memory(m, tr));
    m->n_rows = kac_density_rows(tr->t->solver, m->rows);
    m->n_kept = KAC_MAX((int)(kac_options_real(o, "row-fraction") * m->n_rows), 1);
    KAC_TRY(kac_advantage_open(&m->advantage, tr, 0));
    KAC_TRY(kac_gather_open(&m->gather, tr->t));
    KAC_TRY(kac_chain_open(&m->chain, tr->t, m->n));
    m->chain.keep_out = true;
    return KAC_OK;
}

static void close(kac_trainer *tr) {
    ddpo *m = tr->self;
    kac_chain_close(&m->chain);
    kac_gather_close(&m->gather);
    kac_advantage_close(&m->advantage);
    kac_free(m->rows);
    kac_free(m->order);
    kac_free(m->prompt);
    kac_free(m->totals);
    kac_free(m->advantages);
    kac_free(m->list);
    kac_free(m->base);
}

static kac_status draw(ddpo *m, kac_trainer *tr) {
    for (int i = 0; i < m->n; i++) m->prompt[i] = kac_trainer_prompt(tr, i, m->group);
    const kac_chain_draw d = {
        .prompt = m->prompt, .seed = kac_trainer_seed(tr, STREAM_NOISE), .cfg_scale = tr->cfg_scale};
    KAC_TRY(kac_chain_sample(&m->chain, &d));
    KAC_TRY(kac_chain_reward(&m->chain, m->totals, NULL));
    kac_trainer_note_rewards(tr, m->totals, m->n);
    kac_advantage_take(&m->advantage, m->totals, m->prompt, m->n, m->advantages);
    return m->base == NULL ? KAC_OK : kac_chain_base(&m->chain, m->base);
}

static void add_kl(ddpo *m, const float *out, const float *base, float *d_out, int64_t n_state) {
    for (int64_t j = 0; j < n_state; j++) {
        const double d = (double)out[j] - base[j], weight = m->share * m->kl / (double)n_state;
        m->kl_sum += weight * d * d;
        d_out[j] = (float)(d_out[j] + 2.0 * weight * d);
    }
}

static kac_status loss_of_call(void *self, const kac_denoise *in, const float *out, float *d_out) {
    ddpo *m = self;
    const kac_chain *ch = &m->chain;
    const kac_solver *s = ch->t->solver;
    const int64_t n_state = ch->t->n_state;
    for (int i = 0; i < in->n; i++) {
        const int sample = m->now[i].sample, row = m->now[i].row;
        const int64_t at = ((int64_t)row * m->n + sample) * n_state;
        const float *x = in->x + i * n_state, *next = kac_chain_state(ch, row + 1, sample), *mine = out + i * n_state;
        const double ratio = exp(kac_density_log_ratio(s, row, x, next, mine, ch->out + at, n_state));
        const double a = m->advantages[sample], clamped = fmin(fmax(ratio, 1.0 - m->range), 1.0 + m->range);
        const bool free = -a * ratio >= -a * clamped; /* the larger of the two; a clamped one has no slope */
        m->loss += m->share * (free ? -a * ratio : -a * clamped);
        m->ratio_sum += ratio;
        m->n_clipped += fabs(ratio - 1.0) > m->range;
        m->n_seen++;
        kac_density_slope(s, row, x, next, mine, free ? -a * ratio * m->share : 0.0, d_out + i * n_state, n_state);
        if (m->base != NULL) add_kl(m, mine, m->base + at, d_out + i * n_state, n_state);
    }
    return KAC_OK;
}

/* One update by the samples order[first …]. */
static kac_status update(ddpo *m, kac_trainer *tr, int first, uint64_t seed) {
    kac_trainee *t = tr->t;
    const int n = tr->batch * tr->accum, n_list = n * m->n_kept;
    kac_gather_shuffle(m->list, m->order + first, n, m->rows, m->n_rows, m->n_kept, seed);
    m->share = 1.0 / n_list;
    m->kl = tr->kl;
    m->loss = m->kl_sum = 0.0;
    for (int i = 0; i < n_list; i += t->batch) {
        m->now = m->list + i;
        const kac_denoise in = kac_gather_call(&m->gather, &m->chain, m->now, KAC_MIN(t->batch, n_list - i));
        KAC_TRY(t->backward(t, &in, loss_of_call, m, NULL));
    }
    if (tr->kl > 0.0) kac_trainer_note(tr, "kl", m->kl_sum / tr->kl);
    return kac_trainer_update(tr, m->loss + m->kl_sum);
}

static void shuffle_samples(ddpo *m, const kac_trainer *tr, int pass) {
    for (int i = 0; i < m->n; i++) {
        const int j = (int)(kac_trainer_uniform(tr, STREAM_ORDER, (int64_t)pass * m->n + i) * (i + 1));
        m->order[i] = m->order[j];
        m->order[j] = i;
    }
}

static kac_status run(kac_trainer *tr) {
    ddpo *m = tr->self;
    m->ratio_sum = 0.0;
    m->n_clipped = m->n_seen = 0;
    KAC_TRY(draw(m, tr));
    for (int pass = 0; pass < m->n_passes; pass++) {
        shuffle_samples(m, tr, pass);
        for (int i = 0; i < m->n_updates; i++) {
            const uint32_t stream = (uint32_t)(STREAM_ROWS + pass * m->n_updates + i);
            KAC_TRY(update(m, tr, i * tr->batch * tr->accum, kac_trainer_seed(tr, stream)));
            if (pass == 0 && i == 0) kac_trainer_note(tr, "first_ratio", m->ratio_sum / (double)m->n_seen);
        }
    }
    kac_trainer_note(tr, "ratio", m->ratio_sum / (double)m->n_seen);
    kac_trainer_note(tr, "clip_fraction", (double)m->n_clipped / (double)m->n_seen);
    return KAC_OK;
}

static void *state(kac_trainer *tr, size_t *n_bytes) {
    return kac_advantage_state(&((ddpo *)tr->self)->advantage, n_bytes);
}

const kac_tune_method kac_tune_ddpo = {
    .name = "ddpo",
    .summary = "policy gradients by clipped likelihood ratios; the reward needs no gradient",
    .options = options,
    .needs_density = true,
    .n_self = sizeof(ddpo),
    .open = open,
    .round = run,
    .close = close,
    .state = state};
