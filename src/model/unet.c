/* One forward pass. Scratch memory is a stack:
 *
 *     time | two buffers that take turns | skip 0 | skip 1 | … | what a block needs while it runs
 *
 * The down path pushes skips and works in them; the up path pops them, so that the widest layers at the end run with
 * few of them left. */
#include "model/unet_net.h"
#include "nn/scope.h"
#include "tensor/tape.h"

enum { MAX_SKIPS = KAC_UNET_MAX_BLOCKS * (KAC_UNET_MAX_LAYERS + 1) + 1 };

typedef struct pass {
    const kac_unet *u;
    kac_ctx *c;
    kac_nn_time time;
    kac_nn_cond cond;
    kac_tensor turn[2]; /* flat */
    int i_turn;
    kac_tensor skip[MAX_SKIPS];
    size_t mark[MAX_SKIPS]; /* the stack below skip i */
    int n_skip;
} pass;

/* ---- time ---- */

/* Rows of time embeddings: image n uses row[n], made of timestep t[row] and of what prompt prompt[row] adds. */
typedef struct time_rows {
    int n, n_images;
    int row[KAC_UNET_MAX_BATCH], prompt[KAC_UNET_MAX_BATCH];
    double t[KAC_UNET_MAX_BATCH];
} time_rows;

static bool adds_to_time(const kac_unet_cond *cond) {
    return cond != NULL && (cond->wave_add.data != NULL || cond->time_add.data != NULL || cond->time_more.data != NULL);
}

static void find_rows(time_rows *r, const double *t, const kac_unet_cond *cond, const int *cond_row, int n) {
    const bool prompts = adds_to_time(cond);
    r->n = 0, r->n_images = n;
    for (int i = 0; i < n; i++) {
        const int prompt = prompts ? cond_row[i] : 0;
        int k = 0;
        while (k < r->n && (r->t[k] != t[i] || r->prompt[k] != prompt)) k++;
        if (k == r->n) r->t[r->n] = t[i], r->prompt[r->n++] = prompt;
        r->row[i] = k;
    }
}

static kac_status activate(kac_ctx *c, kac_tensor *x, kac_act act) {
    if (act == KAC_ACT_NONE) return KAC_OK;
    kac_tensor y = kac_scope_reuse(c, *x);
    KAC_TRY(kac_activate(c, &y, *x, act));
    *x = y;
    return KAC_OK;
}

/* A row per distinct timestep, reported as a row per image, which is what the reference computes. */
static kac_status tap_rows(const pass *p, kac_tensor rows, const time_rows *r, const char *name) {
    if (p->c->tap == NULL) return KAC_OK;
    kac_tensor all = KAC_NONE;
    KAC_TRY(kac_gather(p->c, &all, rows, r->row, r->n_images));
    return kac_tap(p->c, all, "%s", name);
}

/* *x += the prompts' rows. */
static kac_status add_rows(kac_ctx *c, kac_tensor *x, kac_tensor rows, const time_rows *r) {
    if (rows.data == NULL) return KAC_OK;
    kac_tensor own = KAC_NONE, sum = kac_scope_reuse(c, *x);
    KAC_TRY(kac_gather(c, &own, rows, r->prompt, r->n));
    KAC_TRY(kac_add(c, &sum, *x, own));
    *x = sum;
    return KAC_OK;
}

static kac_status embed_rows(pass *p, kac_tensor *out, const kac_unet_cond *cond, const time_rows *r) {
    const kac_unet_config *cfg = &p->u->cfg;
    kac_ctx *c = p->c;
    kac_tensor wave = KAC_NONE, emb = cond != NULL && cond->time_more.data != NULL ? KAC_NONE : *out;
    KAC_TRY(kac_unet_wave(c, &wave, p->u, r->t, r->n));
    KAC_TRY(tap_rows(p, wave, r, "time_proj"));
    if (cond != NULL) KAC_TRY(add_rows(c, &wave, cond->wave_add, r));
    KAC_TRY(kac_unet_mlp_run(c, &emb, &p->u->time, wave));
    KAC_TRY(tap_rows(p, emb, r, "time_embedding"));
    if (cond != NULL) KAC_TRY(add_rows(c, &emb, cond->time_add, r));
    if (cond != NULL && cond->time_more.data != NULL) {
        kac_tensor more = KAC_NONE;
        KAC_TRY(kac_gather(c, &more, cond->time_more, r->prompt, r->n));
        KAC_TRY(kac_concat(c, out, emb, more, 1));
        emb = *out;
    }
    KAC_TRY(activate(c, &emb, cfg->time_post));
    *out = emb;
    return KAC_OK;
}

/* The embedding of r->n timesteps, bare where somebody wants it so, and with the activation that every residual block begins with. */
static kac_status embed_time(pass *p, const kac_unet_cond *cond, const time_rows *r) {
    const kac_unet_config *cfg = &p->u->cfg;
    kac_ctx *c = p->c;
    kac_tensor emb = KAC_NONE;
    KAC_TRY(kac_take_make(&emb, &c->scratch, c->dtype, r->n, cfg->time_dim * (cfg->class_concat ? 2 : 1)));
    if (cfg->skip_time_act) KAC_TRY(kac_take(&p->time.bare, &c->scratch, c->dtype, emb.rank, emb.shape));
    const size_t mark = kac_scope_open(c);
    KAC_TRY(embed_rows(p, &emb, cond, r));
    if (cfg->skip_time_act) KAC_TRY(kac_copy(c, &p->time.bare, emb));
    KAC_TRY(activate(c, &emb, cfg->act));
    kac_scope_close(c, mark);
    p->time.act = emb;
    return KAC_OK;
}

/* ---- the two buffers ---- */

static int64_t halved(const kac_unet_block *b, int64_t size) {
    return b->sampler_is_resnet ? size / 2 : (size + b->sampler.pad[0] + b->sampler.pad[2] - 3) / 2 + 1;
}

/* Room for the largest result of the middle and the up path. */
static int64_t turn_count(const kac_unet *u, int64_t h, int64_t w) {
    const int n = u->cfg.n_blocks;
    int64_t pixels[KAC_UNET_MAX_BLOCKS], most = 0;
    for (int i = 0; i < n; i++) {
        pixels[i] = h * w;
        if (!u->down[i].has_sampler) continue;
        h = halved(&u->down[i], h);
        w = halved(&u->down[i], w);
    }
    for (int i = 0; i < n; i++) { /* a block's result is as large as the level above after its upsampling */
        const int level = n - 1 - i;
        most = KAC_MAX(most, pixels[level > 0 ? level - 1 : 0] * u->up[i].n_out);
    }
    return KAC_MAX(most, pixels[n - 1] * u->cfg.channels[n - 1]);
}

/* Where the next result goes; while a tape records, a fresh tensor. */
static kac_tensor next_turn(pass *p, int64_t n, int64_t h, int64_t w, int64_t channels) {
    if (p->c->tape != NULL) return KAC_NONE;
    p->i_turn = !p->i_turn;
    KAC_ASSERT(n * h * w * channels <= p->turn[0].shape[0]);
    return kac_tensor_make(p->turn[p->i_turn].data, p->c->dtype, n, h, w, channels);
}

/* ---- blocks ---- */

static kac_status push_skip(pass *p, int64_t n, int64_t h, int64_t w, int64_t channels) {
    KAC_ASSERT(p->n_skip < MAX_SKIPS);
    p->mark[p->n_skip] = kac_scope_open(p->c);
    return kac_take_make(&p->skip[p->n_skip++], &p->c->scratch, p->c->dtype, n, h, w, channels);
}

static kac_status attend(pass *p, const kac_unet_block *b, int i, kac_tensor *x) {
    if (i >= b->n_attentions) return KAC_OK;
    if (b->type == KAC_BLOCK_CROSS_ATTN) return kac_nn_transformer_run(p->c, &b->transformer[i], x, p->cond);
    return kac_nn_attention_run(p->c, &b->attention[i], x);
}

static kac_status run_down(pass *p, const kac_unet_block *b) {
    for (int i = 0; i < b->n_resnets; i++) {
        const kac_tensor x = p->skip[p->n_skip - 1];
        KAC_TRY(push_skip(p, x.shape[0], x.shape[1], x.shape[2], b->n_out));
        kac_tensor *y = &p->skip[p->n_skip - 1];
        KAC_TRY(kac_nn_resnet_run(p->c, y, &b->resnet[i], x, p->time));
        KAC_TRY(attend(p, b, i, y));
    }
    if (b->has_sampler) {
        const kac_tensor x = p->skip[p->n_skip - 1];
        const kac_unet_block *back = &p->u->up[p->u->cfg.n_blocks - 2 - (b - p->u->down)];
        if (back->sampler_is_resnet && (x.shape[1] % 2 != 0 || x.shape[2] % 2 != 0))
            return KAC_FAIL(KAC_E_SHAPE, "%s doubles sizes, so that %lldx%lld cannot come back; use a multiple of %d",
                            back->sampler_path.s, (long long)x.shape[2], (long long)x.shape[1],
                            1 << (p->u->cfg.n_blocks - 1));
        KAC_TRY(push_skip(p, x.shape[0], halved(b, x.shape[1]), halved(b, x.shape[2]), b->n_out));
        kac_tensor *y = &p->skip[p->n_skip - 1];
        if (b->sampler_is_resnet)
            KAC_TRY(kac_nn_resnet_run(p->c, y, &b->sampler_resnet, x, p->time));
        else {
            KAC_TRY(kac_nn_conv_run(p->c, y, &b->sampler, x, KAC_ACT_NONE, KAC_NONE));
            KAC_TRY(kac_tap(p->c, *y, "%s", b->sampler_path.s));
        }
    }
    return kac_tap(p->c, p->skip[p->n_skip - 1], "%s", b->path.s);
}

static kac_status run_mid(pass *p, kac_tensor *x) {
    const kac_unet_block *b = &p->u->mid;
    *x = p->skip[p->n_skip - 1];
    if (b->type == KAC_BLOCK_NONE) return KAC_OK;
    for (int i = 0; i < b->n_resnets; i++) {
        kac_tensor y = next_turn(p, x->shape[0], x->shape[1], x->shape[2], b->n_out);
        KAC_TRY(kac_nn_resnet_run(p->c, &y, &b->resnet[i], *x, p->time));
        *x = y;
        KAC_TRY(attend(p, b, i, x));
    }
    return kac_tap(p->c, *x, "%s", b->path.s);
}

static kac_status run_up_sampler(pass *p, const kac_unet_block *b, kac_tensor *x) {
    const kac_tensor below = p->skip[p->n_skip - 1];
    kac_tensor y = next_turn(p, x->shape[0], below.shape[1], below.shape[2], b->n_out);
    if (b->sampler_is_resnet) {
        KAC_TRY(kac_nn_resnet_run(p->c, &y, &b->sampler_resnet, *x, p->time));
    } else {
        KAC_TRY(kac_nn_out(p->c, &y, x->shape[0], below.shape[1], below.shape[2], b->n_out));
        const size_t mark = kac_scope_open(p->c);
        kac_tensor large = KAC_NONE;
        KAC_TRY(kac_upsample_nearest(p->c, &large, *x, below.shape[1], below.shape[2]));
        KAC_TRY(kac_nn_conv_run(p->c, &y, &b->sampler, large, KAC_ACT_NONE, KAC_NONE));
        kac_scope_close(p->c, mark);
        KAC_TRY(kac_tap(p->c, y, "%s", b->sampler_path.s));
    }
    *x = y;
    return KAC_OK;
}

static kac_status run_up(pass *p, const kac_unet_block *b, kac_tensor *x) {
    for (int i = 0; i < b->n_resnets; i++) {
        const kac_tensor skip = p->skip[--p->n_skip];
        kac_tensor y = next_turn(p, x->shape[0], x->shape[1], x->shape[2], b->n_out);
        KAC_TRY(kac_nn_resnet_join(p->c, &y, &b->resnet[i], *x, skip, p->time));
        *x = y;
        kac_scope_close(p->c, p->mark[p->n_skip]);
        KAC_TRY(attend(p, b, i, x));
    }
    if (b->has_sampler) KAC_TRY(run_up_sampler(p, b, x));
    return kac_tap(p->c, *x, "%s", b->path.s);
}

/* ---- the whole ---- */

static kac_status prepare_input(pass *p, kac_tensor *x) {
    kac_ctx *c = p->c;
    KAC_TRY(kac_nn_cast(c, x));
    if (!p->u->cfg.center_input) return KAC_OK;
    kac_tensor centered = KAC_NONE;
    KAC_TRY(kac_affine(c, &centered, *x, p->u->center_scale, p->u->center_shift));
    *x = centered;
    return KAC_OK;
}

static kac_status finish(pass *p, kac_tensor *out, kac_tensor x, const time_rows *r) {
    kac_ctx *c = p->c;
    kac_tensor h = KAC_NONE, y = out->dtype == c->dtype ? *out : KAC_NONE;
    KAC_TRY(kac_nn_norm_run(c, &h, &p->u->norm_out, x, p->u->cfg.head_act));
    KAC_TRY(kac_nn_conv_run(c, &y, &p->u->conv_out, h, KAC_ACT_NONE, KAC_NONE));
    KAC_TRY(kac_tap(c, y, "conv_out"));
    if (y.data != out->data) KAC_TRY(kac_copy(c, out, y));
    if (!p->u->cfg.divide_by_time) return KAC_OK;
    double coef[KAC_UNET_MAX_BATCH];
    for (int i = 0; i < r->n_images; i++) coef[i] = 1 / r->t[r->row[i]];
    kac_tensor whole = kac_scope_reuse(c, *out);
    KAC_TRY(kac_lincomb(c, &whole, 1, out, coef, r->n_images));
    *out = whole;
    return KAC_OK;
}

static kac_status run_all(pass *p, kac_tensor *out, kac_tensor x, const kac_unet_cond *cond, const time_rows *r) {
    const kac_unet *u = p->u;
    const int64_t n = x.shape[0], h = x.shape[1], w = x.shape[2];
    kac_ctx *c = p->c;
    KAC_TRY(embed_time(p, cond, r));
    if (c->tape == NULL)
        for (int i = 0; i < 2; i++) KAC_TRY(kac_take_make(&p->turn[i], &c->scratch, c->dtype, n * turn_count(u, h, w)));
    KAC_TRY(push_skip(p, n, h, w, u->cfg.channels[0]));
    const size_t mark = kac_scope_open(c);
    KAC_TRY(prepare_input(p, &x));
    KAC_TRY(kac_nn_conv_run(c, &p->skip[0], &u->conv_in, x, KAC_ACT_NONE, KAC_NONE));
    kac_scope_close(c, mark);
    KAC_TRY(kac_tap(c, p->skip[0], "conv_in"));
    for (int i = 0; i < u->cfg.n_blocks; i++) KAC_TRY(run_down(p, &u->down[i]));
    KAC_TRY(run_mid(p, &x));
    for (int i = 0; i < u->cfg.n_blocks; i++) KAC_TRY(run_up(p, &u->up[i], &x));
    KAC_ASSERT(p->n_skip == 0);
    return finish(p, out, x, r);
}

static kac_status check_cond(const kac_unet *u, const kac_unet_cond *cond, const int *row, int64_t n) {
    const kac_unet_config *cfg = &u->cfg;
    if (cond == NULL && (u->n_kv > 0 || cfg->addition != KAC_ADDITION_NONE))
        return KAC_FAIL(KAC_E_USAGE, "this UNet needs a prompt");
    if (cond == NULL && cfg->class_embed != KAC_CLASS_EMBED_NONE)
        return KAC_FAIL(KAC_E_USAGE, "this UNet needs class labels");
    if (cond == NULL) return KAC_OK;
    KAC_ASSERT(cond->n_kv == u->n_kv);
    if (row == NULL)
        return cond->n == n || cond->n == 1
                   ? KAC_OK
                   : KAC_FAIL(KAC_E_SHAPE, "%lld prompts for %lld images", (long long)cond->n, (long long)n);
    for (int64_t i = 0; i < n; i++)
        if (row[i] < 0 || row[i] >= cond->n)
            return KAC_FAIL(KAC_E_SHAPE, "image %lld wants prompt %d of %lld", (long long)i, row[i],
                            (long long)cond->n);
    return KAC_OK;
}

static kac_status check_times(const kac_unet *u, const double *timestep, int64_t n) {
    for (int64_t i = 0; i < n && u->cfg.divide_by_time; i++)
        if (!(timestep[i] > 0))
            return KAC_FAIL(KAC_E_USAGE, "this UNet takes the logarithm of the timestep %g; it must be positive",
                            timestep[i]);
    return KAC_OK;
}

kac_status kac_unet_forward(kac_tensor *out, const kac_unet *u, kac_ctx *c, kac_tensor sample, const double *timestep,
                            const kac_unet_cond *cond, const int *cond_row) {
    time_rows r;
    int first[KAC_UNET_MAX_BATCH];
    if (sample.rank != 4 || sample.shape[3] != u->cfg.in_channels)
        return KAC_FAIL(KAC_E_SHAPE, "this UNet wants [images, height, width, %lld]", (long long)u->cfg.in_channels);
    const int64_t n = sample.shape[0];
    if (n < 1 || n > KAC_UNET_MAX_BATCH)
        return KAC_FAIL(KAC_E_SHAPE, "a batch of %lld images; it must be between 1 and %d: split it", (long long)n,
                        KAC_UNET_MAX_BATCH);
    KAC_TRY(check_cond(u, cond, cond_row, n));
    KAC_TRY(check_times(u, timestep, n));
    if (cond != NULL && cond_row == NULL) {
        for (int64_t i = 0; i < n; i++) first[i] = cond->n == 1 ? 0 : (int)i;
        cond_row = first;
    }
    if (out->data == NULL)
        KAC_TRY(kac_take_make(out, &c->scratch, KAC_F32, n, sample.shape[1], sample.shape[2], u->cfg.out_channels));
    find_rows(&r, timestep, cond, cond_row, (int)n);
    pass p = {.u = u, .c = c, .time = {.row = kac_tape_keep(c, r.row, sizeof r.row)}};
    if (cond != NULL) {
        p.cond.layer = kac_tape_keep(c, cond->kv, (size_t)cond->n_kv * sizeof cond->kv[0]);
        p.cond.row = kac_tape_keep(c, cond_row, (size_t)n * sizeof *cond_row);
    }
    if (p.time.row == NULL || (cond != NULL && p.cond.row == NULL)) return KAC_E_MEMORY;
    const size_t mark = kac_scope_open(c);
    const kac_status s = run_all(&p, out, sample, cond, &r);
    kac_scope_close(c, mark);
    return s;
}
