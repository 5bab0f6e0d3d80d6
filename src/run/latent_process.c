#include "run/latent_parts.h"
#include <string.h>

static kac_latent *self_of(kac_process *p) {
    return p->self;
}

/* ---- start ---- */

static kac_status latent_start(kac_process *p, const int *slots, int n) {
    kac_latent *l = self_of(p);
    for (int i = 0; i < n; i++) {
        const int slot = slots[i];
        kac_tensor x = kac_latent_row(l->x, slot);
        l->origin[slot] = l->key[slot];
        KAC_TRY(kac_latent_start_state(l, &x, kac_latent_given_noise(l, slot), l->origin[slot]));
        l->id[slot] = ++l->next_id;
        if (l->noised != NULL) l->noised[slot] = false;
    }
    return KAC_OK;
}

/* ---- predict ---- */

/* The guided output of `n` states: u + s (c − u), then rescaled to the standard deviation of c in the share guidance_rescale (Lin et
 * al. 2024, eq. 15 and 16). both: [2n, …], unconditional first. */
static kac_status guide(kac_latent *l, kac_tensor *guided, kac_tensor both, int n) {
    const kac_tensor u = kac_tensor_slice(both, 0, 0, n), c = kac_tensor_slice(both, 0, n, n);
    const double s = l->o.cfg_scale;
    KAC_TRY(kac_lincomb(l->c, guided, 2, (kac_tensor[]){u, c}, (double[]){1 - s, s}, 1));
    const double share = l->o.guidance_rescale;
    if (share == 0 || kac_latent_is_plan(l)) return KAC_OK;
    kac_tensor stats_c = {0}, stats_g = {0};
    KAC_TRY(kac_row_stats(l->c, &stats_c, c));
    KAC_TRY(kac_row_stats(l->c, &stats_g, *guided));
    double *coef = kac_arena_take(&l->c->scratch, (size_t)n * sizeof *coef);
    if (coef == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n; i++)
        coef[i] =
            share * ((const float *)stats_c.data)[2 * i + 1] / ((const float *)stats_g.data)[2 * i + 1] + 1 - share;
    return kac_lincomb(l->c, guided, 1, guided, coef, n);
}

/* One row of the network's input: the scaled state, and behind its channels what an inpainting network reads. */
static kac_status fill_input(kac_latent *l, kac_tensor to, kac_tensor x, double c_in) {
    if (l->extra.data == NULL) return kac_lincomb(l->c, &to, 1, &x, &c_in, 1);
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor scaled = {0}, first = kac_tensor_slice(to, 3, 0, l->channels),
               rest = kac_tensor_slice(to, 3, l->channels, l->channels + 1);
    KAC_TRY(kac_lincomb(l->c, &scaled, 1, &x, &c_in, 1));
    KAC_TRY(kac_copy(l->c, &first, scaled));
    KAC_TRY(kac_copy(l->c, &rest, l->extra));
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* A network that predicts its variance has it in the second half of its channels; that of the conditional rows is kept. */
static kac_status split_variance(kac_latent *l, kac_tensor *raw, const int *slots, int n) {
    if (raw->shape[3] == l->channels) return KAC_OK;
    const kac_tensor variance = kac_tensor_slice(*raw, 3, l->channels, l->channels);
    kac_tensor mean = {0};
    KAC_TRY(kac_take_make(&mean, &l->c->scratch, KAC_F32, raw->shape[0], l->h, l->w, l->channels));
    KAC_TRY(kac_copy(l->c, &mean, kac_tensor_slice(*raw, 3, 0, l->channels)));
    for (int i = 0; i < n && l->variance.data != NULL; i++) {
        kac_tensor to = kac_latent_row(l->variance, slots[i]);
        KAC_TRY(kac_copy(l->c, &to, kac_latent_row(variance, (int)raw->shape[0] - n + i)));
    }
    *raw = mean;
    return KAC_OK;
}

kac_status kac_latent_fill_rows(kac_latent *l, kac_tensor *in, int *n_rows, int i_step, const int *slots, int n) {
    const kac_solver_row *row = &l->solver->rows[i_step];
    const bool doubled = kac_latent_doubles(l);
    *n_rows = doubled ? 2 * n : n;
    KAC_TRY(kac_take_make(in, &l->c->scratch, KAC_F32, *n_rows, l->h, l->w,
                          kac_unet_config_of(l->pipeline->unet)->in_channels));
    for (int i = 0; i < *n_rows; i++) {
        const int slot = slots[i % n], group = slot / l->o.n_per_group;
        KAC_TRY(fill_input(l, kac_latent_row(*in, i), kac_latent_row(l->x, slot), row->c_in));
        l->timesteps[i] = row->timestep;
        l->text_row[i] = doubled && i < n ? l->uncond_row[group] : l->cond_row[group];
    }
    return KAC_OK;
}

static kac_status call_network(kac_latent *l, kac_tensor *guided, int i_step, const int *slots, int n) {
    kac_tensor in = {0}, raw = {0};
    int n_rows;
    KAC_TRY(kac_latent_fill_rows(l, &in, &n_rows, i_step, slots, n));
    KAC_TRY(kac_unet_forward(&raw, l->pipeline->unet, l->c, in, l->timesteps, l->cond,
                             l->cond == NULL ? NULL : l->text_row));
    l->counts.nfe += n;
    l->counts.denoiser += n_rows;
    l->counts.denoiser_calls++;
    KAC_TRY(split_variance(l, &raw, slots, n));
    if (n_rows > n) return guide(l, guided, raw, n);
    *guided = raw;
    return KAC_OK;
}

kac_status kac_latent_denoised(kac_latent *l, int i_step, int slot, float *clip_scratch) {
    const kac_solver_row *row = &l->solver->rows[i_step];
    const kac_tensor x = kac_latent_row(l->x, slot), out = kac_latent_row(l->out, slot);
    kac_tensor x0 = kac_latent_row(l->x0, slot);
    KAC_TRY(kac_lincomb(l->c, &x0, 2, (kac_tensor[]){x, out}, (double[]){row->x0_x, row->x0_out}, 1));
    if ((l->solver->clip > 0 || l->solver->threshold > 0) && !kac_latent_is_plan(l))
        kac_solver_clip(l->solver, x0.data, kac_latent_state_count(l), clip_scratch);
    return KAC_OK;
}

static kac_status predict_batch(kac_latent *l, int i_step, const int *slots, int n) {
    kac_tensor guided = {0}, clip_scratch = {0};
    KAC_TRY(call_network(l, &guided, i_step, slots, n));
    if (l->solver->threshold > 0)
        KAC_TRY(kac_take_make(&clip_scratch, &l->c->scratch, KAC_F32, kac_latent_state_count(l)));
    for (int i = 0; i < n; i++) {
        const kac_tensor g = kac_latent_row(guided, i);
        kac_tensor out = kac_latent_row(l->out, slots[i]);
        KAC_TRY(kac_lincomb(l->c, &out, 1, &g, (double[]){1}, 1));
        KAC_TRY(kac_latent_denoised(l, i_step, slots[i], clip_scratch.data));
        l->predicted[slots[i]] = l->id[slots[i]], l->predicted_at[slots[i]] = i_step;
    }
    return KAC_OK;
}

static kac_status copy_row(kac_latent *l, kac_tensor t, int from, int to) {
    kac_tensor target = kac_latent_row(t, to);
    return kac_copy(l->c, &target, kac_latent_row(t, from));
}

static kac_status latent_predict(kac_process *p, int i_step, const int *slots, int n) {
    kac_latent *l = self_of(p);
    const double start_ms = kac_now_ms();
    int n_new = 0;
    l->i_step = i_step;
    for (int i = 0; i < n; i++)
        if (l->predicted[slots[i]] != l->id[slots[i]] && kac_latent_find_state(l, l->list, n_new, l->id[slots[i]]) < 0)
            l->list[n_new++] = slots[i];
    for (int i = 0; i < n_new; i += l->o.batch) {
        const size_t mark = kac_arena_mark(&l->c->scratch);
        KAC_TRY(predict_batch(l, i_step, l->list + i, KAC_MIN(l->o.batch, n_new - i)));
        kac_arena_release(&l->c->scratch, mark);
    }
    for (int i = 0; i < n; i++) { /* copies of a state share its result */
        const int slot = slots[i];
        if (l->predicted[slot] == l->id[slot]) continue;
        const int source = kac_latent_find_state(l, l->list, n_new, l->id[slot]);
        KAC_TRY(copy_row(l, l->out, source, slot));
        KAC_TRY(copy_row(l, l->x0, source, slot));
        if (l->variance.data != NULL) KAC_TRY(copy_row(l, l->variance, source, slot));
        l->predicted[slot] = l->id[slot], l->predicted_at[slot] = i_step;
    }
    l->counts.denoiser_ms += kac_now_ms() - start_ms;
    return KAC_OK;
}

/* ---- step ---- */

/* sum + z · noise of slot `from`'s parts; a part without weight is left out. */
static kac_status weigh(kac_latent *l, kac_tensor *to, const kac_sum *sum, int from, const kac_tensor *noise,
                        double z) {
    kac_tensor terms[4 + KAC_SOLVER_PAST] = {kac_latent_row(l->x, from), kac_latent_row(l->x0, from),
                                             kac_latent_row(l->out, from)};
    double coef[4 + KAC_SOLVER_PAST] = {sum->x, sum->x0, sum->out};
    int n = 3;
    for (int j = 0; j < l->solver->n_past; j++)
        if (sum->past[j] != 0) terms[n] = kac_latent_row(l->past[j], from), coef[n++] = sum->past[j];
    if (z != 0) terms[n] = *noise, coef[n++] = z;
    return kac_lincomb(l->c, to, n, terms, coef, 1);
}

static kac_status draw_noise(kac_latent *l, kac_tensor *z, int i_step, int slot) {
    const int64_t shape[] = {1, l->h, l->w, l->channels}, n = kac_latent_state_count(l);
    float *given = kac_latent_given_noise(l, slot);
    if (given == NULL && l->o.noise.data != NULL)
        given = (float *)l->o.noise.data + ((int64_t)i_step * l->n_slots + slot) * n;
    if (given != NULL) return kac_copy(l->c, z, kac_tensor_of(given, KAC_F32, 4, shape));
    const kac_key key = {.seed = l->o.seed, .purpose = KAC_PURPOSE_STEP, .step = (uint32_t)i_step};
    const int particle = (int)(uint32_t)l->key[slot];
    return kac_randn(l->c, z, kac_key_of_particle(key, l->key[slot]), &particle);
}

/* The deviation that the network predicts, in units of the row's own. */
static void scale_noise(kac_latent *l, kac_tensor z, const kac_solver_row *row, int from) {
    const float *variance = kac_latent_row(l->variance, from).data;
    float *noise = z.data;
    for (int64_t i = 0; i < kac_latent_state_count(l) && !kac_latent_is_plan(l); i++)
        noise[i] *= (float)(kac_solver_learned_deviation(l->solver, row, variance[i]) / row->z);
}

/* x' and past[] of one state, from slot `from` into scratch rows and then to slot `to`, which may be the same. */
static kac_status step_one(kac_latent *l, int i_step, int from, int to) {
    const kac_solver_row *row = &l->solver->rows[i_step];
    const int n_past = l->solver->n_past;
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor z = {0}, next[1 + KAC_SOLVER_PAST];
    if (l->solver->stochastic) KAC_TRY(kac_take_make(&z, &l->c->scratch, KAC_F32, 1, l->h, l->w, l->channels));
    if (row->z != 0) KAC_TRY(draw_noise(l, &z, i_step, to));
    if (row->z != 0 && l->variance.data != NULL) scale_noise(l, z, row, from);
    for (int j = 0; j <= n_past; j++) {
        KAC_TRY(kac_take_make(&next[j], &l->c->scratch, KAC_F32, 1, l->h, l->w, l->channels));
        KAC_TRY(weigh(l, &next[j], j == 0 ? &row->next : &row->past[j - 1], from, &z, j == 0 ? row->z : 0));
    }
    if (l->ratio != NULL) l->ratio[to] = 0;
    if (kac_latent_is_shifted(l, from)) kac_latent_shift_state(l, next[0], i_step, from, to, z);
    for (int j = 0; j <= n_past; j++) {
        kac_tensor target = kac_latent_row(j == 0 ? l->x : l->past[j - 1], to);
        KAC_TRY(kac_copy(l->c, &target, next[j]));
    }
    kac_tensor target = kac_latent_row(l->x, to);
    l->origin[to] = l->origin[from];
    KAC_TRY(kac_latent_start_keep(l, &target, i_step, l->origin[to]));
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

static kac_status latent_step(kac_process *p, int i_step, const int *from, const int *to, int n) {
    kac_latent *l = self_of(p);
    const bool draws = l->solver->rows[i_step].z != 0;
    const size_t mark = kac_arena_mark(&l->c->scratch);
    uint64_t *old_id = kac_arena_take(&l->c->scratch, (size_t)n * sizeof *old_id);
    if (old_id == NULL) return KAC_E_MEMORY;
    if (!kac_latent_is_plan(l))
        for (int i = 0; i < n; i++) {
            old_id[i] = l->id[from[i]];
            KAC_ASSERT(l->predicted[from[i]] == old_id[i]);
        }
    for (int i = 0; i < n; i++) {
        int twin = -1; /* without noise the step is a function of the state: copies stay copies */
        const bool moves = draws || kac_latent_is_shifted(l, from[i]);
        for (int j = 0; j < i && !moves && twin < 0 && !kac_latent_is_plan(l); j++)
            if (old_id[j] == old_id[i] && !kac_latent_is_shifted(l, from[j])) twin = j;
        if (twin >= 0) {
            KAC_TRY(copy_row(l, l->x, to[twin], to[i]));
            for (int j = 0; j < l->solver->n_past; j++) KAC_TRY(copy_row(l, l->past[j], to[twin], to[i]));
            l->origin[to[i]] = l->origin[to[twin]];
            if (l->ratio != NULL) l->ratio[to[i]] = 0;
        } else {
            KAC_TRY(step_one(l, i_step, from[i], to[i]));
        }
        l->id[to[i]] = twin >= 0 ? l->id[to[twin]] : ++l->next_id;
    }
    for (int i = 0; i < n && l->shifted != NULL; i++) l->shifted[from[i]] = false;
    for (int i = 0; i < n && l->noised != NULL; i++) l->noised[to[i]] = false;
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* ---- copy ---- */

static kac_status gather_rows(kac_latent *l, kac_tensor t, const int *from, const int *to, int n) {
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor rows = {0};
    KAC_TRY(kac_gather(l->c, &rows, t, from, n));
    for (int i = 0; i < n; i++) {
        kac_tensor target = kac_latent_row(t, to[i]);
        KAC_TRY(kac_copy(l->c, &target, kac_latent_row(rows, i)));
    }
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

static kac_status latent_copy(kac_process *p, const int *from, const int *to, int n) {
    kac_latent *l = self_of(p);
    int n_moves = 0;
    for (int i = 0; i < n; i++) /* of two slots with one state, one alone may have been predicted */
        if (l->id[from[i]] != l->id[to[i]] || l->predicted[from[i]] != l->predicted[to[i]])
            l->list[n_moves] = from[i], l->list2[n_moves++] = to[i];
    if (n_moves == 0) return KAC_OK;
    KAC_TRY(gather_rows(l, l->x, l->list, l->list2, n_moves));
    KAC_TRY(gather_rows(l, l->out, l->list, l->list2, n_moves));
    KAC_TRY(gather_rows(l, l->x0, l->list, l->list2, n_moves));
    if (l->variance.data != NULL) KAC_TRY(gather_rows(l, l->variance, l->list, l->list2, n_moves));
    for (int j = 0; j < l->solver->n_past; j++) KAC_TRY(gather_rows(l, l->past[j], l->list, l->list2, n_moves));
    const size_t mark = kac_arena_mark(&l->c->scratch);
    uint64_t *ids = kac_arena_take(&l->c->scratch, (size_t)n_moves * 5 * sizeof *ids);
    uint8_t *pictures = kac_arena_take(&l->c->scratch, (size_t)n_moves * kac_latent_picture_bytes(l));
    if (ids == NULL || pictures == NULL) return KAC_E_MEMORY;
    for (int i = 0; i < n_moves && !kac_latent_is_plan(l); i++) {
        const int s = l->list[i];
        ids[5 * i] = l->id[s], ids[5 * i + 1] = l->predicted[s], ids[5 * i + 3] = l->origin[s];
        ids[5 * i + 4] = (uint64_t)l->predicted_at[s];
        ids[5 * i + 2] = l->picture_id[s] == l->id[s] ? (uint64_t)l->picture_stage[s] + 1 : 0;
        if (ids[5 * i + 2] != 0)
            memcpy(pictures + (size_t)i * kac_latent_picture_bytes(l),
                   l->pictures + (size_t)s * kac_latent_picture_bytes(l), kac_latent_picture_bytes(l));
    }
    for (int i = 0; i < n_moves && !kac_latent_is_plan(l); i++) {
        const int t = l->list2[i];
        l->id[t] = ids[5 * i], l->predicted[t] = ids[5 * i + 1], l->origin[t] = ids[5 * i + 3];
        l->predicted_at[t] = (int)ids[5 * i + 4];
        l->picture_id[t] = ids[5 * i + 2] != 0 ? ids[5 * i] : 0;
        if (ids[5 * i + 2] == 0) continue;
        l->picture_stage[t] = (uint8_t)(ids[5 * i + 2] - 1);
        memcpy(l->pictures + (size_t)t * kac_latent_picture_bytes(l),
               pictures + (size_t)i * kac_latent_picture_bytes(l), kac_latent_picture_bytes(l));
    }
    kac_arena_release(&l->c->scratch, mark);
    return KAC_OK;
}

/* ---- opening ---- */

static kac_status take_states(kac_latent *l) {
    kac_arena *run = &l->c->run;
    KAC_TRY(kac_take_make(&l->x, run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    KAC_TRY(kac_take_make(&l->out, run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    KAC_TRY(kac_take_make(&l->x0, run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    if (l->solver->learned != 0)
        KAC_TRY(kac_take_make(&l->variance, run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    for (int j = 0; j < l->solver->n_past; j++)
        KAC_TRY(kac_take_make(&l->past[j], run, KAC_F32, l->n_slots, l->h, l->w, l->channels));
    l->pictures = kac_arena_take(run, (size_t)l->n_slots * kac_latent_picture_bytes(l));
    return l->pictures == NULL ? KAC_E_MEMORY : KAC_OK;
}

static kac_status latent_init(kac_latent *l) {
    const size_t n = (size_t)l->n_slots;
    l->id = kac_alloc(n * sizeof *l->id), l->predicted = kac_alloc(n * sizeof *l->predicted);
    l->predicted_at = kac_alloc(n * sizeof *l->predicted_at);
    l->picture_id = kac_alloc(n * sizeof *l->picture_id), l->picture_stage = kac_alloc(n);
    l->origin = kac_alloc(n * sizeof *l->origin), l->key = kac_alloc(n * sizeof *l->key);
    l->list = kac_alloc(n * sizeof *l->list), l->list2 = kac_alloc(n * sizeof *l->list2);
    l->cond_row = kac_alloc((size_t)l->o.n_groups * sizeof *l->cond_row);
    l->uncond_row = kac_alloc((size_t)l->o.n_groups * sizeof *l->uncond_row);
    l->timesteps = kac_alloc((size_t)l->o.batch * 2 * sizeof *l->timesteps);
    l->text_row = kac_alloc((size_t)l->o.batch * 2 * sizeof *l->text_row);
    if (l->timesteps == NULL || l->text_row == NULL || l->id == NULL || l->predicted == NULL ||
        l->predicted_at == NULL || l->picture_id == NULL ||
        l->picture_stage == NULL || l->origin == NULL || l->key == NULL || l->list == NULL || l->list2 == NULL ||
        l->cond_row == NULL || l->uncond_row == NULL)
        return KAC_E_MEMORY;
    for (int i = 0; i < l->n_slots; i++) l->key[i] = (uint64_t)(l->o.first_particle + i % l->o.n_per_group);
    KAC_TRY(take_states(l));
    KAC_TRY(kac_latent_guidance_open(l));
    KAC_TRY(kac_latent_start_open(l));
    return kac_latent_open_texts(l);
}

kac_status kac_latent_open(kac_latent **out, kac_ctx *c, const kac_pipeline *p, const kac_solver *solver,
                           const kac_latent_options *o) {
    KAC_ASSERT(o->n_groups >= 1 && o->n_per_group >= 1 && o->batch >= 1 && 2 * o->batch <= KAC_UNET_MAX_BATCH);
    if (o->width < 1 || o->height < 1 || o->width % p->factor != 0 || o->height % p->factor != 0)
        return KAC_FAIL(KAC_E_USAGE, "width and height must be multiples of %lld for this model, not %lld × %lld",
                        (long long)p->factor, (long long)o->width, (long long)o->height);
    kac_latent *l = kac_alloc(sizeof *l);
    if (l == NULL) return KAC_E_MEMORY;
    *l = (kac_latent){.c = c, .pipeline = p, .solver = solver, .o = *o, .n_slots = o->n_groups * o->n_per_group};
    l->h = o->height / p->factor, l->w = o->width / p->factor, l->channels = p->channels;
    l->process = (kac_process){.self = l,
                               .n_steps = solver->n_steps,
                               .n_groups = o->n_groups,
                               .n_per_group = o->n_per_group,
                               .groups_alike = true,
                               .stochastic = solver->stochastic,
                               .history = solver->n_past > 0,
                               .start = latent_start,
                               .predict = latent_predict,
                               .step = latent_step,
                               .copy = latent_copy,
                               .n_state = kac_latent_state_count(l)};
    kac_latent_search_open(l);
    const kac_status s = latent_init(l);
    if (s != KAC_OK) {
        kac_latent_close(l);
        return s;
    }
    *out = l;
    return KAC_OK;
}

void kac_latent_close(kac_latent *l) {
    if (l == NULL) return;
    kac_latent_guidance_close(l);
    kac_latent_search_close(l);
    kac_unet_cond_free(l->cond);
    kac_free(l->id), kac_free(l->predicted), kac_free(l->predicted_at), kac_free(l->picture_id), kac_free(l->picture_stage);
    kac_free(l->origin), kac_free(l->key), kac_free(l->list), kac_free(l->list2), kac_free(l->cond_row),
        kac_free(l->uncond_row);
    kac_free(l->timesteps), kac_free(l->text_row);
    kac_free(l);
}

kac_process *kac_latent_process(kac_latent *l) {
    return &l->process;
}
const kac_latent_counts *kac_latent_counts_of(const kac_latent *l) {
    return &l->counts;
}
int kac_latent_n_truncated(const kac_latent *l) {
    return l->n_truncated;
}
uint64_t kac_latent_state_id(const kac_latent *l, int slot) {
    return l->id[slot];
}
int kac_latent_i_step(const kac_latent *l) {
    return l->i_step;
}
kac_tensor kac_latent_states(const kac_latent *l) {
    return l->x;
}
