#include "train/chain.h"
#include "base/base.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

enum { WORK_OUT, WORK_X0, WORK_Z, WORK_G, N_WORK };

/* All samples of one row lie together, so a row acts on n · n_state numbers at once. */
static int64_t row_size(const kac_chain *ch) {
    return ch->n * ch->t->n_state;
}

static float *work_at(const kac_chain *ch, int i) {
    return ch->work + i * row_size(ch);
}

static float *states_at(const kac_chain *ch, int i_row) {
    return ch->x + i_row * row_size(ch);
}

const float *kac_chain_state(const kac_chain *ch, int i_row, int i) {
    return states_at(ch, i_row) + i * ch->t->n_state;
}

/* ---- open, close ---- */

static kac_status check_solver(const kac_solver *s) {
    if (s->threshold > 0.0)
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "no gradient goes through dynamic thresholding (thresholding true, dynamic_thresholding_ratio %g); set "
            "thresholding to false in the scheduler's configuration",
            s->threshold);
    if (s->learned != 0)
        return KAC_FAIL(
            KAC_E_UNSUPPORTED,
            "no gradient goes through a learned variance (variance_type learned or learned_range); use ddim, euler "
            "or another --sampling-method that does not read it");
    return KAC_OK;
}

static bool take_memory(kac_chain *ch) {
    const kac_solver *s = ch->t->solver;
    const size_t row = (size_t)row_size(ch), n_rows = (size_t)s->n_steps;
    ch->prompt = kac_alloc((size_t)ch->n * sizeof(int));
    ch->x = kac_alloc((n_rows + 1) * row * sizeof(float));
    ch->past = kac_alloc((size_t)(s->n_past + 1) * row * sizeof(float));
    ch->work = kac_alloc(N_WORK * row * sizeof(float));
    ch->level = kac_alloc(2 * (size_t)ch->t->batch * sizeof(double));
    if (s->clip > 0.0) ch->inside = kac_alloc(n_rows * row * sizeof(bool));
    return ch->prompt != NULL && ch->x != NULL && ch->past != NULL && ch->work != NULL && ch->level != NULL &&
           (s->clip <= 0.0 || ch->inside != NULL);
}

kac_status kac_chain_open(kac_chain *ch, kac_trainee *t, int n) {
    *ch = (kac_chain){.t = t, .n = n};
    KAC_ASSERT(n > 0 && t->batch > 0);
    KAC_TRY(check_solver(t->solver));
    if (take_memory(ch)) return KAC_OK;
    kac_chain_close(ch);
    return KAC_E_MEMORY;
}

void kac_chain_close(kac_chain *ch) {
    kac_free(ch->prompt);
    kac_free(ch->x);
    kac_free(ch->out);
    kac_free(ch->inside);
    kac_free(ch->past);
    kac_free(ch->work);
    kac_free(ch->level);
    *ch = (kac_chain){0};
}

/* ---- sampling ---- */

/* Samples first … first + n − 1 before row i_row, for one call of the network. */
static kac_denoise states_for_call(const kac_chain *ch, int i_row, int first, int n) {
    const kac_solver_row *row = &ch->t->solver->rows[i_row];
    for (int i = 0; i < n; i++) {
        ch->level[i] = row->timestep;
        ch->level[ch->t->batch + i] = row->c_in;
    }
    return (kac_denoise){.n = n,
                         .x = kac_chain_state(ch, i_row, first),
                         .timestep = ch->level,
                         .c_in = ch->level + ch->t->batch,
                         .prompt = ch->prompt + first,
                         .cfg_scale = ch->draw.cfg_scale};
}

static kac_status predict_row(kac_chain *ch, int i_row, float *out) {
    kac_trainee *t = ch->t;
    for (int first = 0; first < ch->n; first += t->batch) {
        const kac_denoise in = states_for_call(ch, i_row, first, KAC_MIN(t->batch, ch->n - first));
        KAC_TRY(t->predict(t, &in, out + first * t->n_state));
    }
    return KAC_OK;
}

static void draw_noise(const kac_chain *ch, float *z, kac_purpose purpose, int i_row, int same) {
    const kac_key key = {ch->draw.seed, purpose, (uint32_t)i_row};
    for (int i = 0; i < ch->n; i++) {
        const int from = same > 1 ? i - i % same : i;
        kac_rng_normal(z + i * ch->t->n_state, ch->t->n_state, key, (uint32_t)(ch->draw.first_slot + from), 0);
    }
}

static void start(kac_chain *ch) {
    float *x = states_at(ch, ch->draw.begin);
    if (ch->draw.start != NULL) {
        memcpy(x, ch->draw.start, (size_t)row_size(ch) * sizeof(float));
        return;
    }
    draw_noise(ch, x, KAC_PURPOSE_INIT, 0, ch->draw.same_start);
    for (int64_t i = 0; i < row_size(ch); i++) x[i] = (float)(ch->t->solver->init_noise_sigma * x[i]);
}

/* x0-hat, clipped as the solver says, and where it was not. */
static void predict_x0(kac_chain *ch, int i_row, const float *out, float *x0) {
    const kac_solver *s = ch->t->solver;
    const kac_solver_row *row = &s->rows[i_row];
    const float *x = states_at(ch, i_row);
    for (int64_t i = 0; i < row_size(ch); i++) x0[i] = (float)(row->x0_x * x[i] + row->x0_out * out[i]);
    if (ch->inside == NULL) return;
    bool *inside = ch->inside + i_row * row_size(ch);
    for (int64_t i = 0; i < row_size(ch); i++) inside[i] = fabsf(x0[i]) <= (float)s->clip;
    kac_solver_clip(s, x0, row_size(ch), NULL);
}

static kac_status run_row(kac_chain *ch, int i_row) {
    const kac_solver *s = ch->t->solver;
    const kac_solver_row *row = &s->rows[i_row];
    const size_t n_bytes = (size_t)row_size(ch) * sizeof(float);
    float *out = ch->keep_out ? ch->out + i_row * row_size(ch) : work_at(ch, WORK_OUT);
    float *x0 = work_at(ch, WORK_X0), *z = work_at(ch, WORK_Z), *next = states_at(ch, i_row + 1);
    KAC_TRY(predict_row(ch, i_row, out));
    predict_x0(ch, i_row, out, x0);
    if (ch->draw.n_rows > 0 && i_row == ch->n_rows - 1) {
        memcpy(next, x0, n_bytes);
        return KAC_OK;
    }
    if (row->z != 0.0) draw_noise(ch, z, KAC_PURPOSE_STEP, i_row, 1);
    memcpy(next, states_at(ch, i_row), n_bytes);
    kac_solver_step(s, row, next, x0, out, ch->past, z, NULL, row_size(ch));
    return KAC_OK;
}

static kac_status check_draw(const kac_chain *ch) {
    const kac_chain_draw *d = &ch->draw;
    const kac_solver *s = ch->t->solver;
    KAC_ASSERT(d->n_rows >= 0 && d->n_rows <= s->n_steps && d->begin >= 0 && d->begin < ch->n_rows);
    KAC_ASSERT((d->begin == 0 || d->start != NULL) && d->first_slot >= 0);
    const bool one_x0 = d->n_rows > 0 && d->begin == d->n_rows - 1; /* x0-hat needs no history */
    if (d->begin > 0 && s->n_past > 0 && !one_x0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "a chain that begins at row %d needs a solver whose rows need no earlier ones; %s keeps some",
                        d->begin, kac_solver_name(s->kind));
    return KAC_OK;
}

static kac_status check_finite(const kac_chain *ch) {
    for (int64_t i = 0; i < row_size(ch); i++)
        if (!isfinite(ch->x0[i]))
            return KAC_FAIL(KAC_E_NONFINITE, "sample %d came out as %g", (int)(i / ch->t->n_state), (double)ch->x0[i]);
    return KAC_OK;
}

kac_status kac_chain_sample(kac_chain *ch, const kac_chain_draw *draw) {
    const kac_solver *s = ch->t->solver;
    ch->draw = *draw;
    ch->draw.prompt = ch->prompt;
    ch->n_rows = draw->n_rows > 0 ? draw->n_rows : s->n_steps;
    KAC_TRY(check_draw(ch));
    memcpy(ch->prompt, draw->prompt, (size_t)ch->n * sizeof(int));
    if (ch->keep_out && ch->out == NULL) {
        ch->out = kac_alloc((size_t)s->n_steps * (size_t)row_size(ch) * sizeof(float));
        if (ch->out == NULL) return KAC_E_MEMORY;
    }
    memset(ch->past, 0, (size_t)(s->n_past * row_size(ch)) * sizeof(float));
    start(ch);
    for (int i_row = draw->begin; i_row < ch->n_rows; i_row++) KAC_TRY(run_row(ch, i_row));
    ch->x0 = states_at(ch, ch->n_rows);
    return check_finite(ch);
}

kac_status kac_chain_reward(kac_chain *ch, double *totals, float *d_x0) {
    kac_trainee *t = ch->t;
    for (int first = 0; first < ch->n; first += t->batch) {
        float *d = d_x0 == NULL ? NULL : d_x0 + first * t->n_state;
        const int n = KAC_MIN(t->batch, ch->n - first);
        KAC_TRY(t->reward(t, ch->x0 + first * t->n_state, ch->prompt + first, n, totals + first, d));
    }
    for (int i = 0; i < ch->n; i++)
        if (!isfinite(totals[i])) return KAC_FAIL(KAC_E_NONFINITE, "the reward of sample %d is %g", i, totals[i]);
    return KAC_OK;
}

kac_status kac_chain_base(kac_chain *ch, float *out) {
    kac_trainee *t = ch->t;
    KAC_TRY(t->use(t, NULL));
    for (int i_row = ch->draw.begin; i_row < ch->n_rows; i_row++)
        KAC_TRY(predict_row(ch, i_row, out + i_row * row_size(ch)));
    return t->use(t, t->values);
}

/* ---- the way back ---- */

/* The gradients by what row i_row read: the state (in place of that by the next one, which g is), the network's output and past[].
 * The adjoint of kac_solver_step. */
static void pull_row(const kac_chain *ch, int i_row, float *g, float *g_out, float *g_past) {
    const kac_solver *s = ch->t->solver;
    const kac_solver_row *row = &s->rows[i_row];
    const bool ends = ch->draw.n_rows > 0 && i_row == ch->n_rows - 1;
    const kac_sum next = ends ? (kac_sum){.x0 = 1.0} : row->next;
    const bool *inside = ch->inside == NULL ? NULL : ch->inside + i_row * row_size(ch);
    const int64_t n = row_size(ch);
    for (int64_t i = 0; i < n; i++) {
        double before[KAC_SOLVER_PAST], x = next.x * g[i], x0 = next.x0 * g[i], out = next.out * g[i];
        for (int k = 0; k < s->n_past; k++) before[k] = next.past[k] * g[i];
        for (int j = 0; j < s->n_past; j++) {
            const double gj = g_past[j * n + i];
            x += row->past[j].x * gj;
            x0 += row->past[j].x0 * gj;
            out += row->past[j].out * gj;
            for (int k = 0; k < s->n_past; k++) before[k] += row->past[j].past[k] * gj;
        }
        if (inside != NULL && !inside[i]) x0 = 0.0;
        g[i] = (float)(x + row->x0_x * x0);
        g_out[i] = (float)(out + row->x0_out * x0);
        for (int k = 0; k < s->n_past; k++) g_past[k * n + i] = (float)before[k];
    }
}

typedef struct row_loss {
    const float *g_out, *base; /* [n, n_state] of the samples in this call; base NULL: without kl */
    int64_t n_state;
    double kl, sum;
} row_loss;

static kac_status loss_of_row(void *self, const kac_denoise *in, const float *out, float *d_out) {
    row_loss *l = self;
    const int64_t n = in->n * l->n_state;
    const double kl = l->kl / (double)l->n_state;
    memcpy(d_out, l->g_out, (size_t)n * sizeof(float));
    if (l->base == NULL) return KAC_OK;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)out[i] - l->base[i];
        l->sum += kl * d * d;
        d_out[i] = (float)(d_out[i] + 2.0 * kl * d);
    }
    return KAC_OK;
}

/* Through the network at this row: θ, and g += by the state that it read. */
static kac_status pull_network(kac_chain *ch, int i_row, const kac_chain_plan *plan, const float *g_out,
                               const float *base, float *g, double *kl_sum) {
    kac_trainee *t = ch->t;
    float *d_x = plan->stop_input ? NULL : work_at(ch, WORK_X0);
    for (int first = 0; first < ch->n; first += t->batch) {
        const int64_t at = first * t->n_state;
        const kac_denoise in = states_for_call(ch, i_row, first, KAC_MIN(t->batch, ch->n - first));
        row_loss loss = {g_out + at, base == NULL ? NULL : base + at, t->n_state, plan->kl, 0.0};
        KAC_TRY(t->backward(t, &in, loss_of_row, &loss, d_x == NULL ? NULL : d_x + at));
        if (kl_sum != NULL) *kl_sum += loss.sum;
    }
    for (int64_t i = 0; d_x != NULL && i < row_size(ch); i++) g[i] += d_x[i];
    return KAC_OK;
}

static kac_status pull_all(kac_chain *ch, const kac_chain_plan *plan, const float *d_x0, int lowest, const float *base,
                           double *kl_sum) {
    const int n_past = ch->t->solver->n_past;
    float *g = work_at(ch, WORK_G), *g_out = work_at(ch, WORK_OUT);
    memcpy(g, d_x0, (size_t)row_size(ch) * sizeof(float));
    memset(ch->past, 0, (size_t)(n_past * row_size(ch)) * sizeof(float));
    for (int i_row = ch->n_rows - 1; i_row >= lowest; i_row--) {
        pull_row(ch, i_row, g, g_out, ch->past);
        if (!plan->keep[i_row]) continue;
        KAC_TRY(pull_network(ch, i_row, plan, g_out, base, g, kl_sum));
        if (base != NULL) base += row_size(ch);
    }
    return KAC_OK;
}

/* What the base model says at the kept rows, from the last one down. */
static kac_status predict_base(kac_chain *ch, const kac_chain_plan *plan, int lowest, float *base) {
    kac_trainee *t = ch->t;
    KAC_TRY(t->use(t, NULL));
    for (int i_row = ch->n_rows - 1; i_row >= lowest; i_row--) {
        if (!plan->keep[i_row]) continue;
        KAC_TRY(predict_row(ch, i_row, base));
        base += row_size(ch);
    }
    return t->use(t, t->values);
}

kac_status kac_chain_backward(kac_chain *ch, const kac_chain_plan *plan, const float *d_x0, double *kl_sum) {
    int lowest = ch->n_rows, n_kept = 0;
    for (int i_row = ch->n_rows - 1; i_row >= KAC_MAX(plan->first, ch->draw.begin); i_row--) {
        if (plan->keep[i_row]) lowest = i_row, n_kept++;
    }
    if (n_kept == 0) return KAC_OK;
    if (plan->kl == 0.0) return pull_all(ch, plan, d_x0, lowest, NULL, kl_sum);
    float *base = kac_alloc((size_t)n_kept * (size_t)row_size(ch) * sizeof(float));
    if (base == NULL) return KAC_E_MEMORY;
    kac_status status = predict_base(ch, plan, lowest, base);
    if (status == KAC_OK) status = pull_all(ch, plan, d_x0, lowest, base, kl_sum);
    kac_free(base);
    return status;
}
