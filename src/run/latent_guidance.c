/* The guidance of the latent process: from x0-hat back to the state through both network evaluations, and shifted steps. */
#include "run/latent_parts.h"
#include <math.h>
#include <string.h>

/* ---- x0-hat back to the state ---- */

/* Of a batch: its network inputs and outputs, and what is known of the loss's derivative by them. */
typedef struct pull_batch {
    const int *slots;
    int n, n_rows; /* states, network rows */
    const kac_solver_row *row;
    double x, x0, out; /* the derivative d is by x · state + x0 · x0-hat + out · network output; of x0-hat alone: 0, 1, 0 */
    kac_tensor in, raw, d_in, d_raw;
    float *d_x; /* [n, n_state] */
} pull_batch;

static float *numbers(kac_tensor t, int64_t at) {
    return (float *)t.data + at;
}

/* d_out = a g's derivative where a = share · std(c) / std(g) + 1 − share: of both outputs, u first (latent_process.c, guide). */
static void pull_rescaled(const kac_latent *l, const double *d, const float *u, const float *c, double *d_u,
                          double *d_c) {
    const int64_t n = kac_latent_state_count(l);
    const double s = l->o.cfg_scale, share = l->o.guidance_rescale;
    double mean_c = 0, mean_g = 0, var_c = 0, var_g = 0, along = 0;
    for (int64_t i = 0; i < n; i++) {
        const double g = (1 - s) * (double)u[i] + s * (double)c[i];
        mean_c += (double)c[i] / (double)n, mean_g += g / (double)n, along += d[i] * g;
    }
    for (int64_t i = 0; i < n; i++) {
        const double g = (1 - s) * (double)u[i] + s * (double)c[i];
        var_c += pow((double)c[i] - mean_c, 2) / (double)(n - 1), var_g += pow(g - mean_g, 2) / (double)(n - 1);
    }
    const double std_c = sqrt(var_c), std_g = sqrt(var_g), a = share * std_c / std_g + 1 - share;
    for (int64_t i = 0; i < n; i++) {
        const double g = (1 - s) * (double)u[i] + s * (double)c[i];
        const double d_g = a * d[i] - share * std_c / var_g * along * (g - mean_g) / ((double)(n - 1) * std_g);
        d_u[i] = (1 - s) * d_g;
        d_c[i] = s * d_g + share / std_g * along * ((double)c[i] - mean_c) / ((double)(n - 1) * std_c);
    }
}

/* d_raw from the derivative `from` of each state, and the part of d_x that does not go through the network. Where x0-hat was clipped
 * nothing pulls at it. */
static kac_status seed_batch(kac_latent *l, pull_batch *b, const float *const *from) {
    const int64_t n = kac_latent_state_count(l), channels = b->raw.shape[3];
    const bool doubled = b->n_rows > b->n, rescaled = doubled && l->o.guidance_rescale != 0;
    double *d = kac_arena_take(&l->c->scratch, (size_t)(3 * n) * sizeof *d), *d_u = d + n, *d_c = d_u + n;
    if (d == NULL) return KAC_E_MEMORY;
    if (kac_latent_is_plan(l)) return KAC_OK;
    memset(b->d_raw.data, 0, kac_tensor_bytes(b->d_raw));
    memset(b->d_in.data, 0, kac_tensor_bytes(b->d_in));
    for (int k = 0; k < b->n; k++) {
        const float *x0 = kac_latent_row(l->x0, b->slots[k]).data;
        float *d_x = b->d_x + k * n;
        const int64_t raw_row = n / l->channels * channels;
        const float *u = numbers(b->raw, k * raw_row), *c = numbers(b->raw, (b->n_rows - b->n + k) * raw_row);
        float *to_u = numbers(b->d_raw, k * raw_row), *to_c = numbers(b->d_raw, (b->n_rows - b->n + k) * raw_row);
        for (int64_t i = 0; i < n; i++) {
            const bool clipped = l->solver->clip > 0 && fabs((double)x0[i]) >= l->solver->clip;
            const double given = (double)from[k][i], pulled = clipped ? 0 : b->x0 * given;
            d_x[i] = (float)(b->row->x0_x * pulled + b->x * given);
            d[i] = b->row->x0_out * pulled + b->out * given;
            d_u[i] = (1 - l->o.cfg_scale) * d[i], d_c[i] = doubled ? l->o.cfg_scale * d[i] : d[i];
        }
        if (rescaled) pull_rescaled(l, d, u, c, d_u, d_c);
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = i / l->channels * channels + i % l->channels; /* a variance stands behind the channels */
            if (doubled) to_u[at] = (float)d_u[i];
            to_c[at] = (float)d_c[i];
        }
    }
    return KAC_OK;
}

static void collect_batch(const kac_latent *l, const pull_batch *b) {
    const int64_t n = kac_latent_state_count(l), channels = b->in.shape[3], pixels = n / l->channels;
    for (int k = 0; k < b->n_rows; k++) {
        const float *from = numbers(b->d_in, k * pixels * channels);
        float *to = b->d_x + (k % b->n) * n;
        for (int64_t i = 0; i < n; i++)
            to[i] += (float)b->row->c_in * from[i / l->channels * channels + i % l->channels];
    }
}

static kac_status through_network(kac_latent *l, pull_batch *b, int i_step, const float *const *from) {
    kac_ctx *c = l->c;
    KAC_TRY(kac_latent_fill_rows(l, &b->in, &b->n_rows, i_step, b->slots, b->n));
    KAC_TRY(kac_take(&b->d_in, &c->scratch, KAC_F32, 4, b->in.shape));
    KAC_TRY(kac_tape_watch(&l->tape, b->in, b->d_in));
    kac_tape_start(&l->tape);
    const kac_status s = kac_unet_forward(&b->raw, l->pipeline->unet, c, b->in, l->timesteps, l->cond,
                                          l->cond == NULL ? NULL : l->text_row);
    kac_tape_stop(&l->tape);
    KAC_TRY(s);
    KAC_TRY(kac_take(&b->d_raw, &c->scratch, KAC_F32, 4, b->raw.shape));
    const size_t mark = kac_arena_mark(&c->scratch);
    KAC_TRY(seed_batch(l, b, from));
    kac_arena_release(&c->scratch, mark);
    KAC_TRY(kac_tape_seed(&l->tape, b->raw, b->d_raw));
    KAC_TRY(kac_tape_replay(&l->tape));
    if (!kac_latent_is_plan(l)) collect_batch(l, b);
    l->counts.nfe += b->n;
    l->counts.denoiser_grad += b->n_rows;
    return KAC_OK;
}

/* The entry of list whose state and derivative are those of slots[i]; −1: none. */
static int find_same(const kac_latent *l, const int *slots, const int *list, int n, int i, const float *d_x0) {
    const size_t n_state = (size_t)kac_latent_state_count(l);
    for (int j = 0; j < n; j++)
        if (l->id[slots[list[j]]] == l->id[slots[i]] &&
            memcmp(d_x0 + (size_t)list[j] * n_state, d_x0 + (size_t)i * n_state, n_state * sizeof *d_x0) == 0)
            return j;
    return -1;
}

/* `how`: what the derivatives d are of. */
static kac_status pull_all(kac_latent *l, const pull_batch *how, int i_step, const int *slots, int n, const float *d,
                           float *d_x) {
    enum { MOST = KAC_UNET_MAX_BATCH / 2 };
    const double start_ms = kac_now_ms();
    const int64_t n_state = kac_latent_state_count(l);
    int *list = l->list, n_list = 0, batch_slots[MOST];
    const float *rows[MOST];
    if (l->solver->threshold > 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "guidance by gradient does not go through dynamic thresholding; another "
                                           "--sampling-method does without it");
    for (int i = 0; i < n; i++) { /* copies of a state share its derivative */
        KAC_ASSERT(kac_latent_is_plan(l) || l->predicted[slots[i]] == l->id[slots[i]]);
        const int same = find_same(l, slots, list, n_list, i, d);
        l->list2[i] = same >= 0 ? same : n_list;
        if (same < 0) list[n_list++] = i;
    }
    for (int i = 0; i < n_list; i += l->o.batch) {
        const size_t mark = kac_arena_mark(&l->c->scratch);
        pull_batch b = *how;
        b.slots = batch_slots, b.n = KAC_MIN(l->o.batch, n_list - i), b.row = &l->solver->rows[i_step];
        for (int k = 0; k < b.n; k++) batch_slots[k] = slots[list[i + k]], rows[k] = d + list[i + k] * n_state;
        b.d_x = d_x + i * n_state; /* entry list[i] lies at or behind it, and is moved there below */
        KAC_TRY(through_network(l, &b, i_step, rows));
        kac_arena_release(&l->c->scratch, mark);
    }
    for (int i = n - 1; i >= 0; i--)
        if (l->list2[i] != i) memcpy(d_x + i * n_state, d_x + l->list2[i] * n_state, (size_t)n_state * sizeof *d_x);
    l->counts.gradient_ms += kac_now_ms() - start_ms;
    return KAC_OK;
}

static kac_status latent_pull(kac_process *p, int i_step, const int *slots, int n, const float *d_x0, float *d_x) {
    return pull_all(p->self, &(pull_batch){.x0 = 1}, i_step, slots, n, d_x0, d_x);
}

/* ---- a whole step back ---- */

static kac_status check_step(const kac_latent *l) {
    const kac_solver *s = l->solver;
    if (s->n_past > 0)
        return KAC_FAIL(KAC_E_UNSUPPORTED,
                        "no gradient goes back through the history that %s keeps; ddim, euler and lcm keep none "
                        "(--sampling-method)",
                        kac_solver_name(s->kind));
    if (s->learned != 0 && s->stochastic)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "no gradient goes through a learned variance; --sampling-method ddim does not "
                                           "read it");
    return KAC_OK;
}

/* Of start: x_K = scale · z, with or without a picture. */
static void pull_start(const kac_latent *l, int n, const float *d_next, float *d_x) {
    const bool from_picture = l->o.start.rgb != NULL && !l->o.start.from_noise;
    const double scale = from_picture ? l->solver->rows[0].sigma : l->solver->init_noise_sigma;
    for (int64_t i = 0; i < n * kac_latent_state_count(l); i++) d_x[i] = (float)(scale * (double)d_next[i]);
}

static kac_status latent_pull_step(kac_process *p, int i_step, const int *slots, int n, const float *d_next,
                                   float *d_x) {
    kac_latent *l = p->self;
    const int64_t n_state = kac_latent_state_count(l);
    KAC_TRY(check_step(l));
    if (i_step < 0) {
        pull_start(l, n, d_next, d_x);
        return KAC_OK;
    }
    const kac_sum *next = &l->solver->rows[i_step].next;
    const pull_batch how = {.x = next->x, .x0 = next->x0, .out = next->out};
    const float *mask = l->mask.data; /* what it keeps is put there after the step */
    float *moved = NULL;
    if (mask != NULL) {
        moved = kac_alloc((size_t)(n * n_state) * sizeof *moved);
        if (moved == NULL) return KAC_E_MEMORY;
        for (int64_t i = 0; i < n * n_state; i++) moved[i] = d_next[i] * mask[i % n_state];
    }
    const kac_status status = pull_all(l, &how, i_step, slots, n, moved == NULL ? d_next : moved, d_x);
    kac_free(moved);
    return status;
}

/* ---- shifted steps ---- */

static kac_status latent_shift(kac_process *p, int i_step, const int *slots, int n, const float *shift) {
    kac_latent *l = p->self;
    const int64_t n_state = kac_latent_state_count(l);
    const float *mask = l->mask.data; /* what the mask keeps is put back after the step: nothing to move there */
    (void)i_step;
    for (int i = 0; i < n && !kac_latent_is_plan(l); i++) {
        float *to = kac_latent_row(l->shift, slots[i]).data;
        bool moves = false;
        for (int64_t j = 0; j < n_state; j++) {
            to[j] = mask == NULL ? shift[i * n_state + j] : shift[i * n_state + j] * mask[j];
            moves |= to[j] != 0;
        }
        l->shifted[slots[i]] = moves;
    }
    return KAC_OK;
}

void kac_latent_shift_state(kac_latent *l, kac_tensor next, int i_step, int from, int to, kac_tensor z) {
    const kac_solver_row *row = &l->solver->rows[i_step];
    const float *shift = kac_latent_row(l->shift, from).data, *noise = z.data;
    const float *variance = l->variance.data == NULL ? NULL : kac_latent_row(l->variance, from).data;
    float *x = next.data;
    double ratio = row->z == 0 ? NAN : 0;
    for (int64_t i = 0; i < kac_latent_state_count(l); i++) {
        const double d = (double)shift[i];
        x[i] += shift[i];
        if (row->z == 0) continue;
        const double s = variance == NULL ? row->z : kac_solver_learned_deviation(l->solver, row, (double)variance[i]);
        ratio -= (2 * row->z * (double)noise[i] + d) * d / (2 * s * s);
    }
    l->ratio[to] = ratio;
}

static double latent_deviation(kac_process *p, int i_step) {
    const kac_latent *l = p->self;
    return fabs(l->solver->rows[i_step].z);
}

/* A unit of score moves x0-hat by sigma² / alpha, and the network's output with it. */
static double latent_gain(kac_process *p, int i_step) {
    const kac_latent *l = p->self;
    const kac_solver_row *row = &l->solver->rows[i_step];
    if (row->alpha == 0) return 0; /* pure noise says nothing of x_0 */
    return (row->next.x0 + row->next.out / row->x0_out) * row->sigma * row->sigma / row->alpha;
}

static kac_status latent_log_ratio(kac_process *p, const int *slots, int n, double *out) {
    const kac_latent *l = p->self;
    for (int i = 0; i < n; i++) {
        out[i] = l->ratio[slots[i]];
        if (isnan(out[i]))
            return KAC_FAIL(KAC_E_UNSUPPORTED,
                            "a guided step without noise has no density; weigh only steps with noise");
    }
    return KAC_OK;
}

kac_status kac_latent_guidance_open(kac_latent *l) {
    kac_process *p = &l->process;
    p->deviation = latent_deviation, p->gain = latent_gain;
    if (!l->o.guided) return KAC_OK;
    p->pull = latent_pull, p->pull_step = latent_pull_step, p->shift = latent_shift, p->log_ratio = latent_log_ratio;
    l->shifted = kac_alloc((size_t)l->n_slots * sizeof *l->shifted);
    l->ratio = kac_alloc((size_t)l->n_slots * sizeof *l->ratio);
    if (l->shifted == NULL || l->ratio == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_take_make(&l->shift, &l->c->run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    return kac_tape_open(&l->tape, l->c, 0);
}

void kac_latent_guidance_close(kac_latent *l) {
    kac_tape_close(&l->tape);
    kac_free(l->shifted), kac_free(l->ratio);
}
