/* Backward of whole networks (the shipped model): segments change bytes and nothing else, any number of threads gives the same bits, a row does
 * not see its neighbours, bf16 stays near f32, a plan run foretells every byte; and a chain of denoising steps, each a segment,
 * keeps one state per step. */
#include "check.h"
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "tensor/convert.h"
#include "tensor/tape.h"

typedef struct setting {
    const struct kac_ops *ops;
    kac_dtype dtype;
    int n_threads;
    int64_t n; /* rows of the batch */
    int n_steps;
    bool no_segments;
} setting;

typedef struct result {
    kac_ctx c;
    kac_tensor dx;
    size_t grads;
} result;

/* Row k of any batch holds the same numbers. */
static kac_status take_rows(kac_tensor *t, kac_ctx *c, uint32_t key, int rank, const int64_t *shape) {
    KAC_TRY(kac_take(t, &c->run, KAC_F32, rank, shape));
    const int64_t n = kac_tensor_count(*t) / shape[0];
    for (int64_t i = 0; i < shape[0] && !c->run.counting; i++)
        kac_rng_normal((float *)t->data + i * n, n, (kac_key){.seed = 6, .purpose = KAC_PURPOSE_TEST, .step = key},
                       (uint32_t)i, 0);
    return KAC_OK;
}

/* y of x, by any of the functions below. */
typedef kac_status forward_fn(kac_ctx *c, const setting *s, void *net, kac_tensor *y, kac_tensor x);

static kac_status backward(result *r, const setting *s, void *net, forward_fn *forward, int rank,
                           const int64_t *shape) {
    kac_ctx *c = &r->c;
    kac_tensor x, y = {0}, dy;
    kac_grad_tape t;
    KAC_TRY(take_rows(&x, c, 1, rank, shape));
    KAC_TRY(kac_take(&r->dx, &c->run, KAC_F32, rank, shape));
    if (!c->run.counting) memset(r->dx.data, 0, kac_tensor_bytes(r->dx));
    KAC_TRY(kac_tape_open(&t, c, 0));
    if (s->no_segments) t.tape.segment = NULL;
    kac_status status = kac_tape_watch(&t, x, r->dx);
    kac_tape_start(&t);
    if (status == KAC_OK) status = forward(c, s, net, &y, x);
    kac_tape_stop(&t);
    if (status == KAC_OK) status = take_rows(&dy, c, 2, y.rank, y.shape);
    if (status == KAC_OK) status = kac_tape_seed(&t, y, dy);
    if (status == KAC_OK) status = kac_tape_replay(&t);
    r->grads = t.grads.peak;
    kac_tape_close(&t);
    return status;
}

/* ---- UNet: steps x' = x − 0.1 · unet(x), each a segment ---- */

typedef struct step {
    const kac_unet *u;
    const kac_unet_cond *cond;
    const double *t;
    const int *row;
    kac_tensor out, x;
} step;

static kac_status run_step(kac_ctx *c, const void *args) {
    const step *m = args;
    kac_tensor eps = {0}, out = m->out;
    KAC_TRY(kac_unet_forward(&eps, m->u, c, m->x, m->t, m->cond, m->row));
    return kac_lincomb(c, &out, 2, (kac_tensor[]){m->x, eps}, (double[]){1, -0.1}, 1);
}

typedef struct unet_net {
    kac_unet *u;
    kac_unet_cond *cond;
} unet_net;

static kac_status forward_unet(kac_ctx *c, const setting *s, void *net, kac_tensor *y, kac_tensor x) {
    const unet_net *m = net;
    static const double t[4] = {500, 300, 500, 100};
    static const int row[4] = {0, 1, 1, 0};
    for (int i = 0; i < s->n_steps; i++) {
        step one = {.u = m->u, .cond = m->cond, .t = t, .row = row, .x = x};
        KAC_TRY(kac_take(&one.out, &c->scratch, KAC_F32, x.rank, x.shape));
        KAC_TRY(kac_segment(c, run_step, &one, sizeof one, one.out));
        x = one.out;
    }
    *y = x;
    return KAC_OK;
}

static kac_status run_unet(result *r, const setting *s) {
    unet_net net = {0};
    kac_tensor tokens = {0};
    KAC_TRY(kac_unet_load(&net.u, &r->c, "weights/shapes-64/unet"));
    kac_status status = take_rows(&tokens, &r->c, 3, 3, (int64_t[]){2, 7, kac_unet_config_of(net.u)->cross_dim[0]});
    if (status == KAC_OK) status = kac_unet_condition(&net.cond, net.u, &r->c, &(kac_unet_inputs){.tokens = tokens});
    if (status == KAC_OK) status = backward(r, s, &net, forward_unet, 4, (int64_t[]){s->n, 8, 8, 4});
    kac_unet_cond_free(net.cond);
    kac_unet_free(net.u);
    return status;
}

/* ---- decoder, CLIP ---- */

static kac_status forward_decode(kac_ctx *c, const setting *s, void *net, kac_tensor *y, kac_tensor x) {
    (void)s;
    return kac_codec_decode(y, net, c, x);
}

static kac_status run_codec(result *r, const setting *s) {
    kac_codec *v;
    KAC_TRY(kac_codec_load(&v, &r->c, "weights/shapes-64/vae"));
    const kac_status status =
        backward(r, s, v, forward_decode, 4, (int64_t[]){s->n, 8, 8, kac_codec_config_of(v)->latent_channels});
    kac_codec_free(v);
    return status;
}

static kac_status forward_clip(kac_ctx *c, const setting *s, void *net, kac_tensor *y, kac_tensor x) {
    (void)s;
    return kac_clip_image_embeds(y, net, c, x, true);
}

static kac_status run_clip(result *r, const setting *s) {
    kac_clip *m;
    KAC_TRY(kac_clip_load(&m, &r->c, "weights/shapes-clip"));
    const kac_clip_config *cfg = kac_clip_config_of(m);
    const kac_status status =
        backward(r, s, m, forward_clip, 4, (int64_t[]){s->n, cfg->image_size, cfg->image_size, cfg->image_channels});
    kac_clip_free(m);
    return status;
}

/* ---- checks ---- */

typedef kac_status run_fn(result *r, const setting *s);

static bool run(result *r, run_fn *network, setting s) {
    *r = (result){0};
    if (s.ops == NULL) s.ops = kac_cpu_ops();
    if (s.dtype == 0) s.dtype = KAC_F32;
    if (s.n_threads == 0) s.n_threads = 2;
    if (s.n == 0) s.n = 2;
    if (s.n_steps == 0) s.n_steps = 1;
    return CHECK_OK(kac_ctx_open(&r->c, s.ops, s.dtype, s.n_threads, NULL)) && CHECK_OK(network(r, &s));
}

static double distance(kac_tensor a, kac_tensor b) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < kac_tensor_count(b); i++) {
        const double x = ((const float *)a.data)[i], y = ((const float *)b.data)[i];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    return norm > 0 ? sqrt(d / norm) : INFINITY;
}

static bool same(kac_tensor a, kac_tensor b) {
    return memcmp(a.data, b.data, KAC_MIN(kac_tensor_bytes(a), kac_tensor_bytes(b))) == 0;
}

static void check_network(const char *name, run_fn *network, double bf16_tolerance) {
    result plain, whole, threads, more, coarse, planned;
    if (run(&plain, network, (setting){0}) && run(&whole, network, (setting){.no_segments = true}) &&
        run(&threads, network, (setting){.n_threads = 3}) && run(&more, network, (setting){.n = 3}) &&
        run(&coarse, network, (setting){.dtype = KAC_BF16}) &&
        run(&planned, network, (setting){.ops = &kac_plan_ops})) {
        CHECK(same(plain.dx, whole.dx));   /* segments */
        CHECK(same(plain.dx, threads.dx)); /* threads */
        CHECK(same(plain.dx, more.dx));    /* the first two rows of three */
        CHECK(plain.c.scratch.peak < whole.c.scratch.peak);
        CHECK(planned.c.scratch.peak == plain.c.scratch.peak && planned.grads == plain.grads);
        CHECK(planned.c.run.peak == plain.c.run.peak && planned.c.model.peak == plain.c.model.peak);
        const double off = distance(coarse.dx, plain.dx);
        CHECK(off > 0 && off < bf16_tolerance);
        printf("%-5s bf16 off by %.2g; scratch %.2f MB (%.2f without segments), gradients %.2f MB\n", name, off,
               1e-6 * (double)plain.c.scratch.peak, 1e-6 * (double)whole.c.scratch.peak, 1e-6 * (double)plain.grads);
    }
    result *const all[] = {&plain, &whole, &threads, &more, &coarse, &planned};
    for (int i = 0; i < KAC_COUNT_OF(all); i++) kac_ctx_close(&all[i]->c);
}

/* Bytes of a chain of steps: one state more for each, nothing else. */
static void test_chain(void) {
    result two, five, real;
    if (run(&two, run_unet, (setting){.ops = &kac_plan_ops, .n_steps = 2}) &&
        run(&five, run_unet, (setting){.ops = &kac_plan_ops, .n_steps = 5}) &&
        run(&real, run_unet, (setting){.n_steps = 3})) {
        const size_t state = (size_t)2 * 8 * 8 * 4 * sizeof(float);
        CHECK(five.c.scratch.peak - two.c.scratch.peak == 3 * state);
        CHECK(five.grads == two.grads);
        CHECK(real.c.scratch.peak - two.c.scratch.peak == state && real.grads == two.grads);
        CHECK(distance(real.dx, real.dx) == 0);
    }
    kac_ctx_close(&two.c);
    kac_ctx_close(&five.c);
    kac_ctx_close(&real.c);
}

int main(void) {
    check_network("unet", run_unet, 0.1);
    check_network("vae", run_codec, 0.1);
    check_network("clip", run_clip, 0.1);
    test_chain();
    return check_done();
}
