#include "run/latent_trainee.h"
#include "run/latent_parts.h"
#include "tensor/tape.h"
#include <math.h>
#include <string.h>

enum { BASE, TUNED, N_STATES };

/* The network's share of some prompts, in a piece of c->run of its own. */
typedef struct conditioning {
    kac_arena arena;
    kac_unet_cond *cond; /* NULL: none yet */
    int *text;           /* [n] which texts */
    int n;
    double cfg_scale;
} conditioning;

typedef struct latent_trainee {
    kac_trainee *t;
    kac_ctx *c;
    const kac_pipeline *pipeline;
    kac_parameters *parameters;
    kac_reward_set *rewards;
    kac_latent_trainee_options o;
    int64_t h, w, channels;
    kac_latent_texts texts;
    int *cond_text, *uncond_text; /* [n_prompts] */
    int n_texts;                  /* of one call, at most */
    conditioning known[N_STATES];
    int state;        /* BASE, TUNED */
    float *in_use;    /* [n_values] what TUNED computes with; NULL: not remembered */
    bool independent; /* conditioning does not depend on θ, as the first backward found */
    kac_grad_tape tape;
    double *values;  /* [batch, n_rewards + 2] */
    uint8_t *rgb;    /* [batch, height, width, 3] */
    int *row, *text; /* [2 · batch]: of a network call */
    double *timestep, *coef;
} latent_trainee;

static latent_trainee *self_of(kac_trainee *t) {
    return t->self;
}

static kac_tensor states_of(const latent_trainee *l, const float *x, int n) {
    const int64_t shape[] = {n, l->h, l->w, l->channels};
    return kac_tensor_of((void *)(uintptr_t)x, KAC_F32, 4, shape);
}

/* A copy in scratch. */
static kac_status bring(latent_trainee *l, kac_tensor *out, const float *x, int n) {
    const kac_tensor from = states_of(l, x, n);
    KAC_TRY(kac_take(out, &l->c->scratch, KAC_F32, 4, from.shape));
    return kac_copy(l->c, out, from);
}

/* ---- θ ---- */

static void forget(conditioning *k) {
    kac_unet_cond_free(k->cond);
    k->cond = NULL;
}

static kac_status trainee_use(kac_trainee *t, const float *values) {
    latent_trainee *l = self_of(t);
    const size_t n_bytes = (size_t)t->n_values * sizeof *values;
    l->state = values == NULL ? BASE : TUNED;
    if (l->in_use == NULL) { /* a whole network is packed anew whatever comes */
        if (values != NULL) forget(&l->known[TUNED]);
        return kac_parameters_apply(l->parameters, l->c, values);
    }
    kac_parameters_switch(l->parameters, values != NULL);
    if (values == NULL || memcmp(l->in_use, values, n_bytes) == 0) return KAC_OK;
    forget(&l->known[TUNED]);
    memcpy(l->in_use, values, n_bytes);
    return kac_parameters_apply(l->parameters, l->c, values);
}

/* ---- what the network is told ---- */

static bool doubles(const latent_trainee *l, double cfg_scale) {
    return cfg_scale > 1 && l->uncond_text != NULL;
}

/* The texts of a call, every one once, to l->text, and which of them each row has. Returns how many. */
static int list_texts(latent_trainee *l, const kac_denoise *in, bool doubled) {
    const int n_rows = doubled ? 2 * in->n : in->n;
    int n = 0;
    for (int i = 0; i < n_rows; i++) {
        const int *texts = doubled && i < in->n ? l->uncond_text : l->cond_text, text = texts[in->prompt[i % in->n]];
        int k = 0;
        while (k < n && l->text[k] != text) k++;
        if (k == n) l->text[n++] = text;
        l->row[i] = k;
    }
    return n;
}

static kac_status condition(latent_trainee *l, conditioning *k, int n, double cfg_scale) {
    if (k->cond != NULL && k->n == n && k->cfg_scale == cfg_scale &&
        memcmp(k->text, l->text, (size_t)n * sizeof *k->text) == 0)
        return KAC_OK;
    const kac_arena run = l->c->run;
    forget(k);
    kac_arena_release(&k->arena, 0);
    l->c->run = k->arena;
    const kac_status s = kac_latent_texts_condition(&k->cond, &l->texts, l->pipeline, l->c, l->text, n, cfg_scale);
    k->arena = l->c->run;
    l->c->run = run;
    KAC_TRY(s);
    memcpy(k->text, l->text, (size_t)n * sizeof *k->text);
    k->n = n, k->cfg_scale = cfg_scale;
    return KAC_OK;
}

/* *own: to be freed after the replay; NULL: what is known serves. */
static kac_status condition_recorded(latent_trainee *l, kac_unet_cond **own, int n, double cfg_scale) {
    *own = NULL;
    if (l->cond_text == NULL || l->independent) return KAC_OK;
    kac_tape_start(&l->tape);
    const kac_status s = kac_latent_texts_condition(own, &l->texts, l->pipeline, l->c, l->text, n, cfg_scale);
    kac_tape_stop(&l->tape);
    if (s == KAC_OK && l->state == TUNED) l->independent = l->tape.n_entries == 0;
    return s;
}

/* ---- predict ---- */

/* The network's guided output of x, which is in scratch; recorded when a tape is on. */
static kac_status call_network(latent_trainee *l, kac_tensor *guided, const kac_denoise *in, kac_tensor x,
                               const kac_unet_cond *cond, bool doubled) {
    const int n = in->n, n_rows = doubled ? 2 * n : n;
    kac_ctx *c = l->c;
    kac_tensor input, raw = {0};
    KAC_TRY(kac_take_make(&input, &c->scratch, KAC_F32, n_rows, l->h, l->w, l->channels));
    for (int i = 0; i < n_rows; i++) l->timestep[i] = in->timestep[i % n];
    for (int i = 0; i < n; i++) l->coef[i] = in->c_in == NULL ? 1 : in->c_in[i];
    for (int i = 0; i < n_rows; i += n) {
        kac_tensor half = kac_tensor_slice(input, 0, i, n);
        KAC_TRY(kac_lincomb(c, &half, 1, &x, l->coef, n));
    }
    KAC_TRY(kac_unet_forward(&raw, l->pipeline->unet, c, input, l->timestep, cond, cond == NULL ? NULL : l->row));
    *guided = raw;
    if (!doubled) return KAC_OK;
    *guided = (kac_tensor){0};
    const kac_tensor both[] = {kac_tensor_slice(raw, 0, 0, n), kac_tensor_slice(raw, 0, n, n)};
    return kac_lincomb(c, guided, 2, both, (double[]){1 - in->cfg_scale, in->cfg_scale}, 1);
}

static kac_status predict(latent_trainee *l, const kac_denoise *in, float *out) {
    const bool doubled = doubles(l, in->cfg_scale);
    conditioning *known = &l->known[l->state];
    kac_tensor x, guided, to = states_of(l, out, in->n);
    if (l->cond_text != NULL) KAC_TRY(condition(l, known, list_texts(l, in, doubled), in->cfg_scale));
    KAC_TRY(bring(l, &x, in->x, in->n));
    KAC_TRY(call_network(l, &guided, in, x, known->cond, doubled));
    l->t->counts.denoiser += doubled ? 2 * in->n : in->n;
    return kac_copy(l->c, &to, guided);
}

static kac_status trainee_predict(kac_trainee *t, const kac_denoise *in, float *out) {
    latent_trainee *l = self_of(t);
    KAC_ASSERT(in->n >= 1 && in->n <= t->batch);
    const size_t mark = kac_arena_mark(&l->c->scratch);
    const kac_status s = predict(l, in, out);
    kac_arena_release(&l->c->scratch, mark);
    return s;
}

/* ---- backward ---- */

static kac_status record(latent_trainee *l, kac_tensor *guided, const kac_denoise *in, kac_tensor x,
                         kac_unet_cond **own) {
    const bool doubled = doubles(l, in->cfg_scale);
    const int n = l->cond_text == NULL ? 0 : list_texts(l, in, doubled);
    conditioning *known = &l->known[l->state];
    KAC_TRY(condition_recorded(l, own, n, in->cfg_scale));
    if (*own == NULL && l->cond_text != NULL) KAC_TRY(condition(l, known, n, in->cfg_scale));
    kac_tape_start(&l->tape);
    const kac_status s = call_network(l, guided, in, x, *own != NULL ? *own : known->cond, doubled);
    kac_tape_stop(&l->tape);
    l->t->counts.denoiser_grad += doubled ? 2 * in->n : in->n;
    return s;
}

static kac_status through_tape(latent_trainee *l, const kac_denoise *in, kac_output_loss loss, void *self, float *d_x,
                               kac_unet_cond **own) {
    kac_ctx *c = l->c;
    kac_tensor x, dx = {0}, guided, d_out;
    KAC_TRY(bring(l, &x, in->x, in->n));
    KAC_TRY(kac_parameters_watch(l->parameters, &l->tape));
    if (d_x != NULL) {
        KAC_TRY(kac_take(&dx, &c->scratch, KAC_F32, 4, x.shape));
        if (!c->scratch.counting) memset(dx.data, 0, kac_tensor_bytes(dx));
        KAC_TRY(kac_tape_watch(&l->tape, x, dx));
    }
    KAC_TRY(record(l, &guided, in, x, own));
    KAC_TRY(kac_take(&d_out, &c->scratch, KAC_F32, 4, guided.shape));
    KAC_TRY(loss(self, in, guided.data, d_out.data));
    KAC_TRY(kac_tape_seed(&l->tape, guided, d_out));
    KAC_TRY(kac_tape_replay(&l->tape));
    if (!c->scratch.counting) kac_parameters_settle(l->parameters, l->t->grads);
    if (d_x == NULL) return KAC_OK;
    kac_tensor to = states_of(l, d_x, in->n);
    return kac_copy(c, &to, dx);
}

static kac_status trainee_backward(kac_trainee *t, const kac_denoise *in, kac_output_loss loss, void *self,
                                   float *d_x) {
    latent_trainee *l = self_of(t);
    KAC_ASSERT(in->n >= 1 && in->n <= t->batch);
    const size_t mark = kac_arena_mark(&l->c->scratch), run = kac_arena_mark(&l->c->run);
    kac_unet_cond *own = NULL;
    if (l->tape.c == NULL) KAC_TRY(kac_tape_open(&l->tape, l->c, 0));
    const kac_status s = through_tape(l, in, loss, self, d_x, &own);
    kac_unet_cond_free(own);
    if (s != KAC_OK) kac_tape_close(&l->tape); /* with what it still watches */
    kac_arena_release(&l->c->scratch, mark);
    kac_arena_release(&l->c->run, run);
    return s;
}

/* ---- reward ---- */

static kac_status check_finite(const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return KAC_FAIL(KAC_E_NONFINITE, "a sample is not finite; try a lower learning rate or --cfg-scale");
    return KAC_OK;
}

static kac_status make_pictures(latent_trainee *l, kac_tensor x0, uint8_t *rgb) {
    kac_tensor image = {0};
    if (l->pipeline->codec != NULL) KAC_TRY(kac_codec_decode_latents(&image, l->pipeline->codec, l->c, x0));
    if (l->pipeline->codec == NULL) KAC_TRY(kac_picture_colors(l->c, &image, x0));
    if (!l->c->scratch.counting) kac_latent_to_bytes(rgb, image.data, (size_t)kac_tensor_count(image));
    l->t->counts.decoder += x0.shape[0];
    return KAC_OK;
}

static kac_status score(latent_trainee *l, kac_tensor x0, const int *prompt) {
    kac_reward_set *s = l->rewards;
    const int n = (int)x0.shape[0], n_row = s->n + 2, width = (int)l->o.text.width, height = (int)l->o.text.height;
    KAC_TRY(make_pictures(l, x0, l->rgb));
    kac_picture pictures[KAC_REWARD_BATCH];
    double of_one[KAC_REWARD_BATCH];
    for (int first = 0; first < n; first += KAC_REWARD_BATCH) {
        const int some = KAC_MIN(n - first, (int)KAC_REWARD_BATCH);
        for (int i = 0; i < some; i++)
            pictures[i] = (kac_picture){l->rgb + (size_t)(first + i) * (size_t)(width * height * 3), width, height,
                                        prompt[first + i]};
        for (int k = 0; k < s->n; k++) {
            KAC_TRY(kac_image_reward_score(s->parts[k], pictures, some, of_one));
            for (int i = 0; i < some; i++) l->values[(first + i) * n_row + k] = of_one[i];
        }
    }
    return kac_reward_set_combine(s, l->values, n);
}

static kac_status score_with_grad(latent_trainee *l, kac_tensor x0, const int *prompt, float *d_x0) {
    kac_tensor d, to = states_of(l, d_x0, (int)x0.shape[0]);
    KAC_TRY(kac_take(&d, &l->c->scratch, KAC_F32, 4, x0.shape));
    KAC_TRY(kac_picture_gradient(l->rewards, l->c, l->pipeline->codec, x0, prompt, l->o.balance, l->values, d));
    l->t->counts.decoder += x0.shape[0];
    l->t->counts.reward_grad += x0.shape[0];
    return kac_copy(l->c, &to, d);
}

static kac_status reward(latent_trainee *l, const float *x0, const int *prompt, int n, double *totals, float *d_x0) {
    kac_tensor x;
    KAC_TRY(bring(l, &x, x0, n));
    if (!l->c->scratch.counting) KAC_TRY(check_finite(x0, n * l->t->n_state));
    KAC_TRY(d_x0 == NULL ? score(l, x, prompt) : score_with_grad(l, x, prompt, d_x0));
    l->t->counts.reward += n;
    for (int i = 0; i < n; i++) totals[i] = l->values[i * (l->rewards->n + 2) + l->rewards->n];
    return KAC_OK;
}

static kac_status trainee_reward(kac_trainee *t, const float *x0, const int *prompt, int n, double *totals,
                                 float *d_x0) {
    latent_trainee *l = self_of(t);
    KAC_ASSERT(n >= 1 && n <= t->batch);
    if (l->rewards == NULL || l->rewards->n == 0) return KAC_FAIL(KAC_E_USAGE, "there is no reward; name one");
    const size_t mark = kac_arena_mark(&l->c->scratch);
    const kac_status s = reward(l, x0, prompt, n, totals, d_x0);
    kac_arena_release(&l->c->scratch, mark);
    return s;
}

kac_status kac_latent_trainee_pictures(kac_trainee *t, const float *x0, int n, uint8_t *rgb) {
    latent_trainee *l = self_of(t);
    KAC_ASSERT(n >= 1 && n <= t->batch);
    const size_t mark = kac_arena_mark(&l->c->scratch);
    kac_tensor x;
    kac_status s = bring(l, &x, x0, n);
    if (s == KAC_OK) s = make_pictures(l, x, rgb);
    kac_arena_release(&l->c->scratch, mark);
    return s;
}

/* ---- opening ---- */

static kac_status check_kind(const kac_pipeline *p, const kac_solver *solver, const kac_parameters *parameters,
                             const kac_latent_trainee_options *o) {
    const kac_unet_config *u = kac_unet_config_of(p->unet);
    if (solver->learned != KAC_VARIANCE_SMALL || u->out_channels != p->channels)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: a network that predicts its variance cannot be tuned yet",
                        p->model.path);
    if (kac_pipeline_repaints(p))
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: an inpainting network cannot be tuned", p->model.path);
    if (u->class_embed != KAC_CLASS_EMBED_NONE)
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: a network with class labels cannot be tuned", p->model.path);
    if (u->fourier &&
        !kac_parameters_is_low(parameters)) /* the frequencies are no weights, but a file without them is no network */
        return KAC_FAIL(KAC_E_UNSUPPORTED, "%s: a network with time_embedding_type fourier is tuned by a LoRA only",
                        p->model.path);
    if (o->batch < 1 || 2 * o->batch > KAC_UNET_MAX_BATCH)
        return KAC_FAIL(KAC_E_USAGE, "a batch of %d; between 1 and %d are possible", o->batch, KAC_UNET_MAX_BATCH / 2);
    if (o->text.width < 1 || o->text.height < 1 || o->text.width % p->factor != 0 || o->text.height % p->factor != 0)
        return KAC_FAIL(KAC_E_USAGE, "width and height must be multiples of %lld for this model, not %lld × %lld",
                        (long long)p->factor, (long long)o->text.width, (long long)o->text.height);
    return KAC_OK;
}

/* Every prompt through the text encoder; negative ones are listed first, so that each role stands together. */
static kac_status open_texts(latent_trainee *l) {
    const kac_latent_trainee_options *o = &l->o;
    const size_t n = (size_t)o->n_prompts;
    if (l->pipeline->n_texts == 0) return KAC_OK;
    const bool guided = kac_unet_config_of(l->pipeline->unet)->time_cond_dim == 0;
    l->cond_text = kac_alloc(n * sizeof *l->cond_text);
    if (guided) l->uncond_text = kac_alloc(n * sizeof *l->uncond_text);
    if (l->cond_text == NULL || (guided && l->uncond_text == NULL)) return KAC_E_MEMORY;
    KAC_TRY(kac_latent_texts_open(&l->texts, 2 * o->n_prompts));
    for (int i = 0; i < o->n_prompts && guided; i++)
        l->uncond_text[i] = kac_latent_texts_add(&l->texts, o->negatives == NULL ? NULL : o->negatives[i], true);
    for (int i = 0; i < o->n_prompts; i++) l->cond_text[i] = kac_latent_texts_add(&l->texts, o->prompts[i], false);
    return kac_latent_texts_encode(&l->texts, l->pipeline, l->c, &o->text);
}

/* Two pieces of c->run, as large as the texts of the largest call need. */
static kac_status open_known(latent_trainee *l) {
    if (l->cond_text == NULL) return KAC_OK;
    const size_t mark = kac_arena_mark(&l->c->run);
    l->n_texts = KAC_MIN(2 * l->o.batch, l->texts.n);
    for (int i = 0; i < l->n_texts; i++) l->text[i] = i;
    kac_unet_cond *cond = NULL;
    KAC_TRY(kac_latent_texts_condition(&cond, &l->texts, l->pipeline, l->c, l->text, l->n_texts, 1));
    kac_unet_cond_free(cond);
    const size_t n_bytes = kac_arena_mark(&l->c->run) - mark;
    kac_arena_release(&l->c->run, mark);
    for (int i = 0; i < N_STATES; i++) {
        conditioning *k = &l->known[i];
        k->arena = (kac_arena){.name = "conditioning", .cap = n_bytes, .counting = l->c->run.counting};
        k->arena.base = kac_arena_take(&l->c->run, n_bytes);
        k->text = kac_alloc((size_t)l->n_texts * sizeof *k->text);
        if (k->arena.base == NULL || k->text == NULL) return KAC_E_MEMORY;
    }
    return KAC_OK;
}

static kac_status open_rewards(latent_trainee *l) {
    kac_reward_set *s = l->rewards;
    if (s == NULL || s->n == 0) return KAC_OK;
    for (int k = 0; k < s->n; k++) s->parts[k]->batch = KAC_MIN(l->o.batch, (int)KAC_REWARD_BATCH);
    l->t->no_grad = kac_reward_set_no_grad(s);
    return kac_reward_set_prepare(s, l->o.plain != NULL ? l->o.plain : l->o.prompts, l->o.n_prompts);
}

static kac_status open_lists(latent_trainee *l) {
    const size_t n = (size_t)l->o.batch, n_values = (size_t)l->t->n_values;
    l->row = kac_alloc(2 * n * sizeof *l->row), l->text = kac_alloc(2 * n * sizeof *l->text);
    l->timestep = kac_alloc(2 * n * sizeof *l->timestep), l->coef = kac_alloc(n * sizeof *l->coef);
    l->values = kac_alloc(n * (size_t)((l->rewards == NULL ? 0 : l->rewards->n) + 2) * sizeof *l->values);
    l->rgb = kac_alloc(n * (size_t)(l->o.text.width * l->o.text.height * 3));
    l->t->values = kac_alloc(n_values * sizeof *l->t->values), l->t->grads = kac_alloc(n_values * sizeof *l->t->grads);
    return l->row == NULL || l->text == NULL || l->timestep == NULL || l->coef == NULL || l->values == NULL ||
                   l->rgb == NULL || l->t->values == NULL || l->t->grads == NULL
               ? KAC_E_MEMORY
               : KAC_OK;
}

static kac_status open_all(latent_trainee *l) {
    kac_trainee *t = l->t;
    const size_t n_bytes = (size_t)t->n_values * sizeof *t->values;
    KAC_TRY(kac_parameters_finish(l->parameters, l->c));
    KAC_TRY(open_lists(l));
    if (!l->c->model.counting) memcpy(t->values, kac_parameters_start(l->parameters), n_bytes);
    if (kac_parameters_is_low(l->parameters)) {
        l->in_use = kac_alloc(n_bytes);
        if (l->in_use == NULL) return KAC_E_MEMORY;
        if (!l->c->model.counting) memcpy(l->in_use, t->values, n_bytes);
    }
    l->state = TUNED;
    KAC_TRY(open_texts(l));
    KAC_TRY(open_rewards(l));
    return open_known(l);
}

kac_status kac_latent_trainee_open(kac_trainee *t, kac_ctx *c, const kac_pipeline *p, const kac_solver *solver,
                                   kac_parameters *parameters, kac_reward_set *rewards,
                                   const kac_latent_trainee_options *o) {
    *t = (kac_trainee){0};
    KAC_TRY(check_kind(p, solver, parameters, o));
    latent_trainee *l = kac_alloc(sizeof *l);
    if (l == NULL) return KAC_E_MEMORY;
    *l = (latent_trainee){
        .t = t, .c = c, .pipeline = p, .parameters = parameters, .rewards = rewards, .o = *o, .channels = p->channels};
    l->h = o->text.height / p->factor, l->w = o->text.width / p->factor;
    *t = (kac_trainee){.self = l,
                       .n_state = l->h * l->w * l->channels,
                       .n_prompts = o->n_prompts,
                       .batch = o->batch,
                       .schedule = &p->schedule,
                       .solver = solver,
                       .n_values = kac_parameters_count(parameters),
                       .use = trainee_use,
                       .predict = trainee_predict,
                       .backward = trainee_backward,
                       .reward = trainee_reward};
    const kac_status s = open_all(l);
    if (s != KAC_OK) kac_latent_trainee_close(t);
    return s;
}

void kac_latent_trainee_close(kac_trainee *t) {
    latent_trainee *l = self_of(t);
    if (l == NULL) return;
    for (int i = 0; i < N_STATES; i++) forget(&l->known[i]), kac_free(l->known[i].text);
    kac_tape_close(&l->tape);
    kac_latent_texts_close(&l->texts);
    kac_free(l->cond_text), kac_free(l->uncond_text), kac_free(l->in_use), kac_free(l->values), kac_free(l->rgb);
    kac_free(l->row), kac_free(l->text), kac_free(l->timestep), kac_free(l->coef);
    kac_free(t->values), kac_free(t->grads);
    kac_free(l);
    *t = (kac_trainee){0};
}

int kac_latent_trainee_n_truncated(const kac_trainee *t) {
    const latent_trainee *l = t->self;
    return l->texts.n_truncated;
}

/* ---- rehearsal ---- */

static kac_status no_loss(void *self, const kac_denoise *in, const float *out, float *d_out) {
    (void)self, (void)in, (void)out, (void)d_out;
    return KAC_OK;
}

/* As many different prompts as a call can have, in a rehearsal's own arrays. */
static kac_status rehearse_calls(kac_trainee *t, const kac_denoise *in, float *states, double *totals) {
    latent_trainee *l = self_of(t);
    KAC_TRY(t->use(t, NULL));
    KAC_TRY(t->predict(t, in, states));
    KAC_TRY(t->use(t, t->values));
    KAC_TRY(t->predict(t, in, states));
    for (int i = 0; i < 2; i++) /* the first one finds out whether conditioning is recorded */
        KAC_TRY(t->backward(t, in, no_loss, NULL, states));
    if (l->rewards == NULL || l->rewards->n == 0) return KAC_OK;
    KAC_TRY(t->reward(t, in->x, in->prompt, in->n, totals, NULL));
    return t->no_grad != NULL ? KAC_OK : t->reward(t, in->x, in->prompt, in->n, totals, states);
}

kac_status kac_latent_trainee_rehearse(kac_trainee *t, kac_latent_trainee_bytes *bytes) {
    latent_trainee *l = self_of(t);
    const kac_ctx *c = l->c;
    const int n = t->batch;
    KAC_ASSERT(c->scratch.counting);
    float *states = kac_alloc((size_t)(n * t->n_state) * sizeof *states);
    double *numbers = kac_alloc((size_t)n * sizeof *numbers);
    int *prompt = kac_alloc((size_t)n * sizeof *prompt);
    kac_status s = states == NULL || numbers == NULL || prompt == NULL ? KAC_E_MEMORY : KAC_OK;
    if (s == KAC_OK) {
        for (int i = 0; i < n; i++) prompt[i] = i % t->n_prompts, numbers[i] = 1;
        const kac_denoise in = {.n = n, .x = states, .timestep = numbers, .prompt = prompt, .cfg_scale = 2};
        double *totals = l->coef;
        s = rehearse_calls(t, &in, states, totals);
    }
    kac_free(states), kac_free(numbers), kac_free(prompt);
    const size_t n_values = (size_t)t->n_values;
    *bytes = (kac_latent_trainee_bytes){.model = c->model.peak,
                                        .run = c->run.peak,
                                        .scratch = c->scratch.peak,
                                        .gradients = c->gradients_peak,
                                        .host = n_values * (l->in_use != NULL ? 4 : 3) * sizeof(float)};
    return s;
}
