/* Gradients of a UNet by the factors of its LoRA layers: in double on ref against central differences, on cpu against ref. Factors lie stacked
 * (q, k, v), in cross-attention, behind geglu and beside a convolution. */
#include "check.h"
#include "model/unet_net.h"
#include "tensor/convert.h"
#include "tensor/tape.h"
#include "util/golden.h"

enum { RANK = 3, N_LAYERS = 4, N_FACTORS = 2 * N_LAYERS };

typedef struct net {
    kac_ctx c;
    kac_unet *u;
    kac_unet_cond *cond;
    kac_tensor x, tokens, out, seed;
    kac_weight *factor[N_FACTORS];
    kac_tensor grad[N_FACTORS];
} net;

static kac_status fill(kac_tensor *t, kac_ctx *c, kac_arena *arena, uint32_t key, double scale, int rank,
                       const int64_t *shape) {
    KAC_TRY(kac_take(t, arena, KAC_F32, rank, shape));
    kac_rng_normal(t->data, kac_tensor_count(*t), (kac_key){.seed = 9, .purpose = KAC_PURPOSE_TEST, .step = key}, 0, 0);
    for (int64_t i = 0; i < kac_tensor_count(*t); i++) ((float *)t->data)[i] *= (float)scale;
    (void)c;
    return KAC_OK;
}

/* Gives a layer random factors. */
static kac_status attach(net *n, int i, kac_nn_low *low, const kac_weight *w, int parts) {
    kac_tensor down, up;
    const int64_t k = KAC_MAX(1, w->kh);
    KAC_TRY(fill(&down, &n->c, &n->c.run, 10 + 2 * (uint32_t)i, 0.2, w->kh > 0 ? 4 : 2,
                 (int64_t[]){parts * RANK, w->n_in, k, k}));
    KAC_TRY(fill(&up, &n->c, &n->c.run, 11 + 2 * (uint32_t)i, 0.2, 2, (int64_t[]){w->n_out, RANK}));
    KAC_TRY(kac_weight_pack(&n->c, &low->down, down, 1));
    KAC_TRY(kac_weight_pack(&n->c, &low->up, up, 1));
    low->parts = parts;
    n->factor[2 * i] = &low->down;
    n->factor[2 * i + 1] = &low->up;
    for (int j = 0; j < 2; j++) {
        const kac_tensor like = kac_weight_identity(n->factor[2 * i + j]);
        KAC_TRY(kac_take(&n->grad[2 * i + j], &n->c.run, KAC_F32, like.rank, like.shape));
        memset(n->grad[2 * i + j].data, 0, kac_tensor_bytes(n->grad[2 * i + j]));
    }
    return KAC_OK;
}

static kac_status open_net(net *n, const golden *g, const struct kac_ops *ops, kac_dtype dtype) {
    *n = (net){0};
    KAC_TRY(kac_ctx_open(&n->c, ops, dtype, 2, NULL));
    KAC_TRY(kac_unet_load(&n->u, &n->c, g->dir));
    kac_unet_block *mid = &n->u->mid;
    kac_nn_transformer_block *b = &mid->transformer[0].block[0];
    KAC_TRY(attach(n, 0, &b->attn1.q.low, &b->attn1.q.w, 3));
    KAC_TRY(attach(n, 1, &b->attn2.q.low, &b->attn2.q.w, 1));
    KAC_TRY(attach(n, 2, &b->ff_in.low, &b->ff_in.w, 1));
    KAC_TRY(attach(n, 3, &mid->resnet[0].conv1.low, &mid->resnet[0].conv1.w, 1));
    KAC_TRY(golden_input(&n->x, g, &n->c, "sample"));
    KAC_TRY(golden_input(&n->tokens, g, &n->c, "encoder_hidden_states"));
    KAC_TRY(kac_unet_condition(&n->cond, n->u, &n->c, &(kac_unet_inputs){.tokens = n->tokens}));
    const int64_t shape[4] = {n->x.shape[0], n->x.shape[1], n->x.shape[2], n->u->cfg.out_channels};
    KAC_TRY(kac_take(&n->out, &n->c.run, dtype, 4, shape)); /* in double no digit of the result is lost */
    return fill(&n->seed, &n->c, &n->c.run, 2, 1, 4, shape);
}

static void close_net(net *n) {
    kac_unet_cond_free(n->cond);
    kac_unet_free(n->u);
    kac_ctx_close(&n->c);
}

static kac_status forward(net *n) {
    static const double t[2] = {981, 1};
    return kac_unet_forward(&n->out, n->u, &n->c, n->x, t, n->cond, NULL);
}

static kac_status backward(net *n) {
    kac_grad_tape t;
    KAC_TRY(kac_tape_open(&t, &n->c, 0));
    kac_status s = KAC_OK;
    for (int i = 0; i < N_FACTORS && s == KAC_OK; i++)
        s = kac_tape_watch(&t, kac_weight_identity(n->factor[i]), n->grad[i]);
    kac_tape_start(&t);
    if (s == KAC_OK) s = forward(n);
    kac_tape_stop(&t);
    if (s == KAC_OK) s = kac_tape_seed(&t, n->out, n->seed);
    if (s == KAC_OK) s = kac_tape_replay(&t);
    kac_tape_close(&t);
    return s;
}

/* Where entry i of a factor (in the order of checkpoints) lies in ref's packed weights, [n_out, taps, n_in]. */
static int64_t packed_at(const kac_weight *w, int64_t i) {
    const int64_t n_taps = (int64_t)KAC_MAX(1, w->kh) * KAC_MAX(1, w->kw), tap = i % n_taps, row = i / n_taps;
    return (row / w->n_in * n_taps + tap) * w->n_in + row % w->n_in;
}

/* All factors along one random direction. */
static void move(net *n, double h) {
    for (int i = 0; i < N_FACTORS; i++)
        for (int64_t j = 0; j < kac_tensor_count(n->grad[i]); j++)
            ((double *)n->factor[i]->data)[packed_at(n->factor[i], j)] += h * sin(1.7 * (double)(j + 31 * i));
}

static double moved_loss(net *n, double h) {
    double loss = 0;
    move(n, h);
    CHECK_OK(forward(n));
    move(n, -h);
    for (int64_t i = 0; i < kac_tensor_count(n->out); i++)
        loss += kac_element_load(n->out.data, n->out.dtype, i) * (double)((const float *)n->seed.data)[i];
    return loss;
}

static void check_difference(net *n) {
    double slope = 0, size = 0, steps = 0;
    for (int i = 0; i < N_FACTORS; i++)
        for (int64_t j = 0; j < kac_tensor_count(n->grad[i]); j++) {
            const double d = (double)((const float *)n->grad[i].data)[j], step = sin(1.7 * (double)(j + 31 * i));
            slope += d * step;
            size += d * d;
            steps += step * step;
        }
    const double h = 1e-4, difference = (moved_loss(n, h) - moved_loss(n, -h)) / (2 * h);
    const double error = fabs(slope - difference) / sqrt(size * steps);
    printf("slope %.7g, difference %.7g, error %.1e\n", slope, difference, error);
    CHECK(size > 0 && error < 1e-6);
}

static void check_same(const net *fast, const net *ref, int i) {
    double d = 0, norm = 0;
    for (int64_t j = 0; j < kac_tensor_count(ref->grad[i]); j++) {
        const double x = ((const float *)fast->grad[i].data)[j], y = ((const float *)ref->grad[i].data)[j];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    printf("factor %d: cpu off by %.1e\n", i, sqrt(d / norm));
    CHECK(sqrt(d / norm) < 4e-5); /* six times what float32 costs PyTorch here */
}

int main(void) {
    golden g;
    net ref, fast;
    if (!CHECK_OK(golden_open(&g, "unet/sd2"))) return check_done();
    if (CHECK_OK(open_net(&ref, &g, &kac_ref_ops, KAC_F64)) && CHECK_OK(backward(&ref)) &&
        CHECK_OK(open_net(&fast, &g, kac_cpu_ops(), KAC_F32)) && CHECK_OK(backward(&fast)))
        for (int i = 0; i < N_FACTORS; i++) check_same(&fast, &ref, i);
    if (fast.u != NULL) check_difference(&ref);
    close_net(&ref);
    close_net(&fast);
    golden_close(&g);
    return check_done();
}
