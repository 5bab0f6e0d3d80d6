/* A UNet's rows do not know of each other, its scratch memory is what a plan run says, and nothing is allocated in a pass. */
#include "base/memory.h"
#include "check.h"
#include "model/unet.h"
#include "util/golden.h"

enum { N = 5, H = 8, W = 8, TOKENS = 7 };

typedef struct net {
    kac_ctx c;
    kac_unet *unet;
    kac_unet_cond *cond;
    kac_tensor x;
} net;

static bool net_open(net *m, const golden *g, const struct kac_ops *ops, kac_dtype dtype, int n_threads) {
    *m = (net){0};
    kac_tensor tokens;
    if (!CHECK_OK(kac_ctx_open(&m->c, ops, dtype, n_threads, NULL)) ||
        !CHECK_OK(kac_unet_load(&m->unet, &m->c, g->dir)))
        return false;
    const kac_unet_config *cfg = kac_unet_config_of(m->unet);
    CHECK_OK(kac_take_make(&tokens, &m->c.run, KAC_F32, 2, TOKENS, cfg->cross_dim[0]));
    CHECK_OK(kac_take_make(&m->x, &m->c.run, KAC_F32, N, H, W, cfg->in_channels));
    CHECK_OK(kac_randn(&m->c, &m->x, (kac_key){.seed = 1}, (const int[]){0, 1, 2, 3, 4}));
    CHECK_OK(kac_randn(&m->c, &tokens, (kac_key){.seed = 2}, (const int[]){0, 1}));
    return CHECK_OK(kac_unet_condition(&m->cond, m->unet, &m->c, &(kac_unet_inputs){.tokens = tokens}));
}

static void net_close(net *m) {
    kac_unet_cond_free(m->cond);
    kac_unet_free(m->unet);
    kac_ctx_close(&m->c);
}

static const double timestep[N] = {981, 1, 981, 500.5, 1};
static const int prompt[N] = {0, 1, 1, 0, 0};

/* Rows first … first + n − 1 alone. */
static bool forward(net *m, int first, int n, kac_tensor *out) {
    *out = (kac_tensor){0};
    return CHECK_OK(kac_unet_forward(out, m->unet, &m->c, kac_tensor_slice(m->x, 0, first, n), timestep + first,
                                     m->cond, prompt + first));
}

static void test_split(const golden *g, const struct kac_ops *ops, kac_dtype dtype) {
    net m, one;
    kac_tensor whole, part;
    if (!net_open(&m, g, ops, dtype, 2) || !forward(&m, 0, N, &whole)) return;
    const size_t row_bytes = kac_tensor_bytes(whole) / N;
    for (int n = 1; n <= 3; n++)
        for (int first = 0; first + n <= N; first += n) {
            if (!forward(&m, first, n, &part)) return;
            CHECK(memcmp((char *)whole.data + (size_t)first * row_bytes, part.data, (size_t)n * row_bytes) == 0);
        }
    if (net_open(&one, g, ops, dtype, 1) && forward(&one, 0, N, &part))
        CHECK(memcmp(whole.data, part.data, kac_tensor_bytes(whole)) == 0);
    net_close(&one);
    net_close(&m);
}

/* The plan's bytes are the bytes. */
static void test_plan(const golden *g, kac_dtype dtype) {
    net real, plan;
    kac_tensor out;
    if (!net_open(&real, g, kac_cpu_ops(), dtype, 2) || !net_open(&plan, g, &kac_plan_ops, dtype, 2)) return;
    CHECK(real.c.model.used == plan.c.model.used && real.c.model.used > 0);
    CHECK(real.c.run.used == plan.c.run.used);
    for (int n = 1; n <= N; n += 2) {
        real.c.scratch.peak = plan.c.scratch.peak = 0;
        if (!forward(&real, 0, n, &out) || !forward(&plan, 0, n, &out)) return;
        CHECK(real.c.scratch.peak == plan.c.scratch.peak);
        CHECK(real.c.scratch.peak > 0);
    }
    CHECK(plan.c.counts.flops > 0);
    net_close(&plan);
    net_close(&real);
}

static void test_no_allocation(const golden *g) {
    net m;
    kac_tensor out, again;
    if (!net_open(&m, g, kac_cpu_ops(), KAC_F32, 2) || !forward(&m, 0, N, &out)) return;
    kac_alloc_fail_after(1);
    CHECK(forward(&m, 0, N, &again));
    kac_alloc_fail_after(0);
    net_close(&m);
}

enum { MAX_SEEN = 1024 };

/* The inputs that a replay of the common ops would read, with their checksums when they were recorded. */
typedef struct seen_tape {
    kac_tape tape;
    int64_t n_ops;
    int n;
    kac_tensor x[MAX_SEEN];
    uint32_t crc[MAX_SEEN];
} seen_tape;

static uint32_t crc_of(kac_tensor x) {
    return kac_crc32(x.data, kac_tensor_bytes(x), 0);
}

static kac_status record(kac_tape *t, kac_op op, const void *args, size_t n_args) {
    seen_tape *self = (seen_tape *)t;
    (void)n_args;
    self->n_ops++;
    const kac_tensor x = op == KAC_OP_group_norm   ? ((const kac_group_norm_args *)args)->x
                         : op == KAC_OP_layer_norm ? ((const kac_layer_norm_args *)args)->x
                         : op == KAC_OP_linear     ? ((const kac_linear_args *)args)->x
                         : op == KAC_OP_conv2d     ? ((const kac_conv2d_args *)args)->x
                                                   : (kac_tensor){0};
    if (x.data == NULL || !kac_tensor_contiguous(x)) return KAC_OK;
    CHECK(self->n < MAX_SEEN);
    self->x[self->n] = x;
    self->crc[self->n++] = crc_of(x);
    return KAC_OK;
}

/* While a tape records, nothing that it saw is overwritten, and the numbers are the same. */
static void test_recording(const golden *g) {
    static seen_tape tape = {.tape = {.record = record}};
    net m;
    kac_tensor plain, recorded;
    if (!net_open(&m, g, kac_cpu_ops(), KAC_F32, 2) || !forward(&m, 0, N, &plain)) return;
    const int64_t ops = m.c.counts.ops;
    m.c.tape = &tape.tape;
    if (!forward(&m, 0, N, &recorded)) return;
    m.c.tape = NULL;
    CHECK(memcmp(plain.data, recorded.data, kac_tensor_bytes(plain)) == 0);
    CHECK(tape.n_ops == m.c.counts.ops - ops && tape.n > 100);
    for (int i = 0; i < tape.n; i++) CHECK(crc_of(tape.x[i]) == tape.crc[i]);
    net_close(&m);
}

static void test_refusals(const golden *g) {
    net m;
    kac_tensor out = {0};
    if (!net_open(&m, g, kac_cpu_ops(), KAC_F32, 1)) return;
    const size_t used = m.c.scratch.used;
    kac_tensor narrow = kac_tensor_make(m.x.data, KAC_F32, 1, H, W, 3);
    CHECK_FAILS(kac_unet_forward(&out, m.unet, &m.c, narrow, timestep, m.cond, prompt), KAC_E_SHAPE, "this UNet wants");
    CHECK_FAILS(kac_unet_forward(&out, m.unet, &m.c, m.x, timestep, NULL, NULL), KAC_E_USAGE, "needs a prompt");
    CHECK_FAILS(kac_unet_forward(&out, m.unet, &m.c, m.x, timestep, m.cond, NULL), KAC_E_SHAPE,
                "2 prompts for 5 images");
    CHECK_FAILS(kac_unet_forward(&out, m.unet, &m.c, m.x, timestep, m.cond, (const int[]){0, 1, 2, 0, 0}), KAC_E_SHAPE,
                "prompt 2 of 2");
    CHECK(m.c.scratch.used == used);
    net_close(&m);
}

int main(void) {
    golden g;
    if (!CHECK_OK(golden_open(&g, "unet/sd2"))) return check_done();
    test_split(&g, kac_cpu_ops(), KAC_F32);
    test_split(&g, kac_cpu_ops(), KAC_BF16);
    test_split(&g, &kac_ref_ops, KAC_F32);
    test_plan(&g, KAC_F32);
    test_plan(&g, KAC_BF16);
    test_no_allocation(&g);
    test_recording(&g);
    test_refusals(&g);
    golden_close(&g);
    return check_done();
}
