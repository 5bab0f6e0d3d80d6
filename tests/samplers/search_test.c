/* What processes offer to searches, on mixtures: other noise, states put by, states from outside, given normals, saving. */
#include "exact.h"
#include <kac/rng.h>

enum { K = 6, N = 2 * K, STEPS = EXACT_STEPS };

typedef struct states {
    double x[N][2];
} states;

static kac_mixture *make(const char *kernel, uint64_t seed) {
    return exact_mixture(kernel, 1, 2, K, seed);
}

static states look(kac_mixture *m) {
    states out;
    for (int i = 0; i < N; i++)
        memcpy(out.x[i], kac_mixture_point(kac_mixture_process(m), i, KAC_STAGE_FINAL), sizeof out.x[i]);
    return out;
}

static bool same(const double *a, const double *b) {
    return memcmp(a, b, 2 * sizeof *a) == 0;
}

static void list_all(int *slots) {
    for (int i = 0; i < N; i++) slots[i] = i;
}

static void begin(kac_process *p) {
    int all[N];
    list_all(all);
    CHECK_OK(p->start(p, all, N));
}

static void go_on(kac_process *p, int from, int to, const int *slots, int n) {
    for (int i = from; i < to; i++) {
        CHECK_OK(p->predict(p, i, slots, n));
        CHECK_OK(p->step(p, i, slots, slots, n));
    }
}

/* All slots through steps from … to. */
static states run(kac_mixture *m, int from, int to) {
    kac_process *p = kac_mixture_process(m);
    int all[N];
    list_all(all);
    if (from == 0) begin(p);
    go_on(p, from, to, all, N);
    return look(m);
}

/* A slot with another's number draws what the other would, from the start and from any step; numbers beyond are other noise. */
static void test_rekey(const char *kernel) {
    kac_mixture *m = make(kernel, 3), *other = make(kernel, 3);
    kac_process *p = kac_mixture_process(other);
    const states plain = run(m, 0, STEPS);
    const int slots[] = {0, 1, 2, K, K + 1, K + 2};
    const uint64_t keys[] = {1, 2, 0, 5, K, 1ull << 40};
    p->rekey(p, slots, 6, keys);
    const states moved = run(other, 0, STEPS);
    CHECK(same(moved.x[0], plain.x[1]) && same(moved.x[1], plain.x[2]) && same(moved.x[2], plain.x[0]));
    CHECK(same(moved.x[K], plain.x[K + 5]) && same(moved.x[3], plain.x[3]));
    for (int i = K + 1; i < K + 3; i++)
        for (int j = 0; j < N; j++) CHECK(!same(moved.x[i], plain.x[j]));
    kac_mixture_destroy(other);

    other = make(kernel, 3), p = kac_mixture_process(other); /* groups do not share other numbers either */
    const int pair[] = {0, K};
    const uint64_t far[] = {1ull << 33, 1ull << 33};
    p->rekey(p, pair, 2, far);
    const states apart = run(other, 0, 1);
    CHECK(!same(apart.x[0], apart.x[K]));
    kac_mixture_destroy(other);

    other = make(kernel, 3), p = kac_mixture_process(other); /* a copy with its source's number goes the same way */
    run(other, 0, 7);
    const int from = 2, to = 4;
    const uint64_t key = 2;
    CHECK_OK(p->copy(p, &from, &to, 1));
    p->rekey(p, &to, 1, &key);
    const states late = run(other, 7, STEPS);
    CHECK(same(late.x[2], late.x[4]) && same(late.x[2], plain.x[2]));
    kac_mixture_destroy(m), kac_mixture_destroy(other);
}

/* Put by, fetched into any slot and continued under its number: the same bits, and what was predicted is not predicted again. */
static void test_places(const char *kernel) {
    kac_mixture *m = make(kernel, 4), *other = make(kernel, 4);
    kac_process *p = kac_mixture_process(other);
    const states plain = run(m, 0, STEPS);
    int all[N];
    list_all(all);
    run(other, 0, 9);
    CHECK_OK(p->predict(p, 9, all, N));
    const int kept[] = {1, 5, K + 2};
    const int64_t places[] = {7, 0, 3};
    CHECK_OK(p->store(p, kept, 3, places));
    run(other, 9, 13); /* slots go elsewhere meanwhile */
    CHECK_OK(p->store(p, all, 1, (const int64_t[]){8}));
    const int64_t evaluations = kac_mixture_evaluations(other);
    const int into[] = {3, 1, K};
    const uint64_t keys[] = {1, 5, 2};
    p->rekey(p, into, 3, keys);
    CHECK_OK(p->fetch(p, places, into, 3));
    CHECK_OK(p->predict(p, 9, into, 3));
    CHECK(kac_mixture_evaluations(other) == evaluations);
    CHECK_OK(p->step(p, 9, into, into, 3));
    go_on(p, 10, STEPS, into, 3);
    CHECK(kac_mixture_evaluations(other) == evaluations + 3 * (STEPS - 10));
    const states back = look(other);
    CHECK(same(back.x[3], plain.x[1]) && same(back.x[1], plain.x[5]) && same(back.x[K], plain.x[K + 2]));

    /* the same place twice, into two slots with different numbers: two children */
    const int64_t twice[] = {7, 7};
    const int two[] = {0, 2};
    const uint64_t children[] = {1, 100};
    p->rekey(p, two, 2, children);
    CHECK_OK(p->fetch(p, twice, two, 2));
    go_on(p, 9, STEPS, two, 2);
    const states grown = look(other);
    CHECK(same(grown.x[0], plain.x[1]) && !same(grown.x[2], plain.x[1]));

    const int64_t none[] = {9}, below[] = {-1};
    CHECK_FAILS(p->fetch(p, none, two, 1), KAC_E_FORMAT, "place 9");
    CHECK_FAILS(p->fetch(p, below, two, 1), KAC_E_FORMAT, "place -1");
    kac_mixture_destroy(m), kac_mixture_destroy(other);
}

/* States go out and in as they are; given normals are those that the next step uses, once. */
static void test_outside(void) {
    kac_mixture *m = make("ddim", 5), *other = make("ddim", 5);
    kac_process *p = kac_mixture_process(m), *q = kac_mixture_process(other);
    float x[N][2], again[N][2], z[2];
    int all[N];
    list_all(all);
    begin(p);
    CHECK(p->n_state == 2);
    CHECK_OK(p->read(p, all, N, x[0]));
    CHECK_OK(q->write(q, all, N, x[0]));
    CHECK_OK(q->read(q, all, N, again[0]));
    CHECK(memcmp(x, again, sizeof x) == 0);
    const states plain = (go_on(p, 0, 1, all, N), look(m)), from_outside = (go_on(q, 0, 1, all, N), look(other));
    /* without rounding there is nothing between them: the start of this kernel is f32 */
    for (int i = 0; i < N; i++) CHECK(same(plain.x[i], from_outside.x[i]));

    /* slot 3 is given slot 1's normals, and slot 1's state */
    const int from = 1, to = 3;
    kac_rng_normal(z, 2, (kac_key){5, KAC_PURPOSE_STEP, 1}, 1, 0);
    CHECK_OK(q->copy(q, &from, &to, 1));
    CHECK_OK(q->noise(q, &to, 1, z));
    go_on(q, 1, 2, all, N);
    states now = look(other);
    CHECK(same(now.x[1], now.x[3]));
    go_on(q, 2, 3, all, N);
    now = look(other);
    CHECK(!same(now.x[1], now.x[3]));

    double alpha, sigma;
    for (int i = 0; i <= STEPS; i++) {
        const double t = 1 - (double)i / STEPS, bar = exp(-2 * (0.25 * t + 0.5 * t * t * 11.75));
        p->level(p, i, &alpha, &sigma);
        CHECK_NEAR(alpha, sqrt(bar), 1e-12);
        CHECK_NEAR(sigma, sqrt(1 - bar), 1e-12);
    }
    kac_mixture_destroy(m), kac_mixture_destroy(other);
}

/* Slots, numbers and places in another process of the same kind: the same bits from there on. Blocks that are none are refused. */
static void test_saving(const char *kernel) {
    kac_mixture *m = make(kernel, 6), *other = make(kernel, 6);
    kac_process *p = kac_mixture_process(m), *q = kac_mixture_process(other);
    int all[N];
    list_all(all);
    const uint64_t key = 77;
    run(m, 0, 5);
    CHECK_OK(p->predict(p, 5, all, N));
    CHECK_OK(p->store(p, all, 4, (const int64_t[]){2, 0, 5, 1}));
    p->rekey(p, all, 1, &key);
    CHECK_OK(p->step(p, 5, all, all, N));
    const size_t n = (size_t)p->state_bytes(p);
    char *block = kac_alloc(n);
    CHECK_OK(p->state_save(p, block));
    const states want = run(m, 6, STEPS);
    CHECK_OK(q->state_load(q, block, n));
    CHECK(q->state_bytes(q) == (int64_t)n);
    const states got = run(other, 6, STEPS);
    for (int i = 0; i < N; i++) CHECK(same(want.x[i], got.x[i]));
    const int64_t evaluations = kac_mixture_evaluations(other), place = 5;
    const int slot = K;
    CHECK_OK(p->fetch(p, &place, &slot, 1));
    CHECK_OK(q->fetch(q, &place, &slot, 1));
    CHECK_OK(q->predict(q, 5, &slot, 1)); /* the prediction came along */
    CHECK(kac_mixture_evaluations(other) == evaluations);
    go_on(p, 5, STEPS, &slot, 1), go_on(q, 5, STEPS, &slot, 1);
    CHECK(same(look(m).x[K], look(other).x[K]));

    for (size_t cut = 1; cut < n; cut += 1 + cut / 3) {
        kac_mixture *third = make(kernel, 6);
        kac_process *r = kac_mixture_process(third);
        const kac_status status = r->state_load(r, block, n - cut);
        CHECK(status == KAC_E_FORMAT || status == KAC_OK); /* whole places may be missing */
        if (status == KAC_OK) CHECK_FAILS(r->fetch(r, &place, &slot, 1), KAC_E_FORMAT, "place 5");
        kac_mixture_destroy(third);
    }
    kac_free(block);
    kac_mixture_destroy(m), kac_mixture_destroy(other);
}

int main(void) {
    static const char *const kernels[] = {"exact", "ddim"};
    for (int i = 0; i < 2; i++) {
        test_rekey(kernels[i]);
        test_places(kernels[i]);
        test_saving(kernels[i]);
    }
    test_outside();
    return check_done();
}
