/* What the latent process offers to searches, on a small pipeline: other keys, given noise, states put by and fetched again, states from outside,
 * noise levels; and its saved form with places, whole and damaged. For solvers without noise, with history, with noise, and under a mask. */
#include "check.h"
#include "run/latent_process.h"
#include "run/latent_reward.h"
#include "run/pipeline.h"
#include "util/golden.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 4, STEPS = 5, WIDTH = 16, HEIGHT = 8, ONE = WIDTH * HEIGHT * 4 };

typedef struct solver_case {
    const char *what;
    kac_solver_kind kind;
    double eta;
    bool masked;
} solver_case;

static const solver_case cases[] = {{"ddim", KAC_SOLVER_DDIM, 0, false},
                                    {"dpm++2m", KAC_SOLVER_DPMPP_2M, NAN, false},
                                    {"euler-ancestral", KAC_SOLVER_EULER_ANCESTRAL, NAN, false},
                                    {"dpm++2m-sde", KAC_SOLVER_DPMPP_2M_SDE, NAN, false},
                                    {"ddim with noise, masked", KAC_SOLVER_DDIM, 1, true}};

typedef struct fixture {
    golden g;
    kac_ctx ctx;
    kac_pipeline pipeline;
    kac_solver solver;
    kac_latent *latent;
    kac_process *p;
    uint8_t *rgb, *mask;
} fixture;

static const char *const prompts[] = {"two green stars"};
static const int slots[N] = {0, 1, 2, 3};

static bool fixture_open(fixture *f) {
    return CHECK_OK(golden_open_pipeline(&f->g, "pipeline/tiny")) &&
           CHECK_OK(kac_ctx_open(&f->ctx, kac_cpu_ops(), KAC_F32, 2, NULL)) &&
           CHECK_OK(kac_pipeline_open(&f->pipeline, &f->ctx, f->g.dir, NULL));
}

static void fixture_close(fixture *f) {
    kac_pipeline_close(&f->pipeline);
    kac_ctx_close(&f->ctx);
    golden_close(&f->g);
    kac_free(f->rgb), kac_free(f->mask);
}

static bool latent_open(fixture *f, const solver_case *c) {
    const int64_t w = WIDTH * f->pipeline.factor, h = HEIGHT * f->pipeline.factor;
    const kac_solver_options so = {.kind = c->kind, .n_steps = STEPS, .eta = c->eta};
    if (f->rgb == NULL) f->rgb = kac_alloc((size_t)(w * h * 3)), f->mask = kac_alloc((size_t)(w * h));
    for (int64_t i = 0; i < w * h; i++) {
        f->mask[i] = i % w < w / 2 ? 255 : 0;
        for (int k = 0; k < 3; k++) f->rgb[3 * i + k] = (uint8_t)(i * 7 + k * 50);
    }
    if (!CHECK_OK(kac_solver_init(&f->solver, &f->pipeline.schedule, &so))) return false;
    kac_latent_options o = {.prompts = prompts,
                            .n_groups = 1,
                            .n_per_group = N,
                            .width = w,
                            .height = h,
                            .cfg_scale = 2,
                            .seed = 5,
                            .batch = 2};
    if (c->masked) o.start = (kac_latent_start){.rgb = f->rgb, .mask = f->mask, .from_noise = true};
    if (!CHECK_OK(kac_latent_open(&f->latent, &f->ctx, &f->pipeline, &f->solver, &o))) return false;
    f->p = kac_latent_process(f->latent);
    CHECK(f->p->n_state == ONE && f->p->n_steps == STEPS);
    return true;
}

static void latent_close(fixture *f) {
    kac_latent_close(f->latent);
    kac_solver_free(&f->solver);
}

/* Steps first … end − 1 of n slots from `list`. */
static void walk(fixture *f, const int *list, int n, int first, int end) {
    for (int i = first; i < end; i++) {
        CHECK_OK(f->p->predict(f->p, i, list, n));
        CHECK_OK(f->p->step(f->p, i, list, list, n));
    }
}

static int64_t evaluations(const fixture *f) {
    return kac_latent_counts_of(f->latent)->nfe;
}

static void normals(float *out, int n, uint32_t number) {
    kac_rng_normal(out, n, (kac_key){9, KAC_PURPOSE_TEST, number}, 0, 0);
}

static bool same(const float *a, const float *b) {
    return memcmp(a, b, ONE * sizeof *a) == 0;
}

/* All final states of plain samples. */
static void plain(fixture *f, float *x) {
    CHECK_OK(f->p->start(f->p, slots, N));
    walk(f, slots, N, 0, STEPS);
    CHECK_OK(f->p->read(f->p, slots, N, x));
}

/* ---- states put by ---- */

/* From any slot, at any time, with or without its prediction, a state goes on to the same bits; a kept prediction costs nothing. */
static void test_store(fixture *f, const solver_case *c) {
    static float end[N * ONE], again[N * ONE], hat[ONE];
    static const int64_t bare = 3, predicted = 0;
    static const uint64_t key_of_1 = 1;
    const int slot = 2;
    if (!latent_open(f, c)) return;
    CHECK_OK(f->p->start(f->p, slots, N));
    walk(f, slots, N, 0, 2);
    CHECK_OK(f->p->store(f->p, &slots[1], 1, &bare));
    CHECK_OK(f->p->predict(f->p, 2, slots, N));
    CHECK_OK(f->p->store(f->p, &slots[1], 1, &predicted));
    memcpy(hat, (float *)kac_latent_viewed(f->latent, KAC_STAGE_PREDICTED).data + ONE, sizeof hat);
    walk(f, slots, N, 2, STEPS);
    CHECK_OK(f->p->read(f->p, slots, N, end));
    for (int kept = 0; kept < 2; kept++) {
        const int64_t before = evaluations(f);
        f->p->rekey(f->p, &slot, 1, &key_of_1);
        CHECK_OK(f->p->fetch(f->p, kept ? &predicted : &bare, &slot, 1));
        CHECK_OK(f->p->predict(f->p, 2, &slot, 1));
        CHECK(evaluations(f) == before + !kept);
        CHECK(same(hat, (float *)kac_latent_viewed(f->latent, KAC_STAGE_PREDICTED).data + slot * ONE));
        walk(f, &slot, 1, 2, STEPS);
        CHECK_OK(f->p->read(f->p, &slot, 1, again));
        if (!CHECK(same(again, end + ONE))) printf("  %s, %s\n", c->what, kept ? "with its prediction" : "without");
    }
    CHECK_FAILS(f->p->fetch(f->p, (int64_t[]){2}, &slot, 1), KAC_E_FORMAT, "place 2");
    CHECK_FAILS(f->p->fetch(f->p, (int64_t[]){4}, &slot, 1), KAC_E_FORMAT, "place 4");
    CHECK_FAILS(f->p->fetch(f->p, (int64_t[]){-1}, &slot, 1), KAC_E_FORMAT, "place -1");
    latent_close(f);
}

/* A prediction belongs to the step at which it was made, whatever others were predicted since; copies take it along. */
static void test_mixed_steps(fixture *f, const solver_case *c) {
    static float hat[ONE], x[2 * ONE];
    static const int64_t place = 0, bare = 1;
    if (!latent_open(f, c)) return;
    CHECK_OK(f->p->start(f->p, slots, N));
    walk(f, slots, 1, 0, 3);
    CHECK_OK(f->p->store(f->p, slots, 1, &bare));
    CHECK_OK(f->p->predict(f->p, 3, slots, 1));
    memcpy(hat, kac_latent_viewed(f->latent, KAC_STAGE_PREDICTED).data, sizeof hat);
    CHECK_OK(f->p->predict(f->p, 0, &slots[1], 1));
    CHECK_OK(f->p->copy(f->p, &slots[0], &slots[2], 1));
    CHECK_OK(f->p->store(f->p, &slots[2], 1, &place));
    CHECK_OK(f->p->fetch(f->p, &place, &slots[3], 1));
    CHECK(same(hat, (float *)kac_latent_viewed(f->latent, KAC_STAGE_PREDICTED).data + 3 * ONE));
    CHECK_OK(f->p->fetch(f->p, &bare, &slots[2], 1)); /* the same state, not predicted: a copy of slot 0 makes it so */
    CHECK_OK(f->p->copy(f->p, &slots[0], &slots[2], 1));
    const int64_t before = evaluations(f);
    CHECK_OK(f->p->predict(f->p, 3, &slots[2], 1));
    CHECK(evaluations(f) == before);
    f->p->rekey(f->p, &slots[2], 1, (uint64_t[]){3});
    CHECK_OK(f->p->step(f->p, 3, &slots[2], &slots[2], 1));
    CHECK_OK(f->p->step(f->p, 3, &slots[3], &slots[3], 1));
    CHECK_OK(f->p->read(f->p, &slots[2], 2, x));
    CHECK(same(x, x + ONE));
    latent_close(f);
}

/* ---- other noise ---- */

static void test_keys(fixture *f, const solver_case *c) {
    static float want[N * ONE], x[N * ONE];
    static const uint64_t keys[N] = {3, 7, 1, (uint64_t)1 << 40};
    if (!latent_open(f, c)) return;
    plain(f, want);
    f->p->rekey(f->p, slots, N, keys);
    plain(f, x);
    if (!CHECK(same(x, want + 3 * ONE) && same(x + 2 * ONE, want + ONE))) printf("  %s\n", c->what);
    CHECK(!same(x + 3 * ONE, want) && !same(x + ONE, want + ONE)); /* 2^40 is not 0 */
    f->p->rekey(f->p, slots, N, (uint64_t[]){7, 7, 7, 7});
    plain(f, want);
    CHECK(same(want, x + ONE) && same(want + 3 * ONE, want));
    latent_close(f);
}

/* Given normals: start is linear in them, a step moves by its deviation times them; both forget them. */
static void test_noise(fixture *f, const solver_case *c) {
    static float z[N * ONE], x[N * ONE], base[N * ONE];
    static const float nothing[ONE];
    if (!latent_open(f, c)) return;
    normals(z, N * ONE, 1);
    CHECK_OK(f->p->noise(f->p, slots, 2, z));
    CHECK_OK(f->p->start(f->p, slots, N));
    CHECK_OK(f->p->read(f->p, slots, N, x));
    for (int i = 0; i < 2 * ONE; i++)
        CHECK_NEAR((double)x[i], f->solver.init_noise_sigma * (double)z[i], 1e-6 * fabs((double)x[i]));
    CHECK_OK(f->p->start(f->p, slots, 1));
    CHECK_OK(f->p->read(f->p, slots, 1, base));
    CHECK(!same(x, base));
    if (!f->p->stochastic || c->masked) {
        latent_close(f);
        return;
    }
    for (int given = 0; given < 2; given++) { /* z and 0 from one state; slot 1 is left alone */
        const int64_t place = 0;
        if (given == 0) CHECK_OK(f->p->predict(f->p, 0, slots, 1));
        if (given == 0) CHECK_OK(f->p->store(f->p, slots, 1, &place));
        CHECK_OK(f->p->fetch(f->p, &place, slots, 1));
        CHECK_OK(f->p->noise(f->p, slots, 1, given ? z : nothing));
        CHECK_OK(f->p->step(f->p, 0, slots, slots, 1));
        CHECK_OK(f->p->read(f->p, slots, 1, given ? x : base));
    }
    const double s = f->p->deviation(f->p, 0);
    CHECK(s > 0);
    for (int i = 0; i < ONE; i++)
        CHECK_NEAR((double)x[i] - (double)base[i], s * (double)z[i], 1e-5 * (1 + fabs((double)base[i])));
    latent_close(f);
}

/* ---- states from outside, levels ---- */

static void test_write(fixture *f, const solver_case *c) {
    static float x[N * ONE], want[N * ONE], again[N * ONE];
    double alpha, sigma;
    if (!latent_open(f, c)) return;
    CHECK_OK(f->p->start(f->p, slots, N));
    CHECK_OK(f->p->read(f->p, slots, N, x));
    walk(f, slots, N, 0, STEPS);
    CHECK_OK(f->p->read(f->p, slots, N, want));
    const uint64_t id = kac_latent_state_id(f->latent, 0);
    CHECK_OK(f->p->write(f->p, slots, N, x));
    CHECK(kac_latent_state_id(f->latent, 0) > id);
    walk(f, slots, N, 0, STEPS);
    CHECK_OK(f->p->read(f->p, slots, N, again));
    if (!CHECK(memcmp(want, again, sizeof want) == 0)) printf("  %s\n", c->what);
    for (int i = 0; i < STEPS; i++) {
        f->p->level(f->p, i, &alpha, &sigma);
        CHECK(alpha == f->solver.rows[i].alpha && sigma == f->solver.rows[i].sigma && sigma > 0);
    }
    f->p->level(f->p, STEPS, &alpha, &sigma);
    CHECK(alpha == 1 && sigma == 0);
    CHECK(f->p->history == (f->solver.n_past > 0));
    latent_close(f);
}

/* ---- saving ---- */

/* A state with places, gaps between them, some predicted, some not. */
static char *make_saved(fixture *f, size_t *n_bytes) {
    CHECK_OK(f->p->start(f->p, slots, N));
    f->p->rekey(f->p, slots, N, (uint64_t[]){0, 5, 2, 9});
    CHECK_OK(f->p->store(f->p, &slots[0], 1, (int64_t[]){1}));
    walk(f, slots, N, 0, 2);
    CHECK_OK(f->p->predict(f->p, 2, &slots[3], 1));
    CHECK_OK(f->p->store(f->p, &slots[3], 1, (int64_t[]){4}));
    *n_bytes = (size_t)f->p->state_bytes(f->p);
    char *saved = kac_alloc(*n_bytes);
    CHECK_OK(f->p->state_save(f->p, saved));
    return saved;
}

/* What comes after it: the slots go on, then what the places keep. */
static void go_on(fixture *f, float *x) {
    walk(f, slots, N, 2, STEPS);
    CHECK_OK(f->p->read(f->p, slots, N, x));
    const int64_t before = evaluations(f);
    CHECK_OK(f->p->fetch(f->p, (int64_t[]){4}, &slots[1], 1));
    CHECK_OK(f->p->predict(f->p, 2, &slots[1], 1));
    CHECK(evaluations(f) == before);
    walk(f, &slots[1], 1, 2, STEPS);
    CHECK_OK(f->p->fetch(f->p, (int64_t[]){1}, &slots[2], 1));
    walk(f, &slots[2], 1, 0, STEPS);
    CHECK_OK(f->p->read(f->p, &slots[1], 2, x + N * ONE));
}

static void test_save(fixture *f, const solver_case *c) {
    static float want[(N + 2) * ONE], x[(N + 2) * ONE];
    size_t n_bytes;
    if (!latent_open(f, c)) return;
    char *saved = make_saved(f, &n_bytes);
    go_on(f, want);
    CHECK_OK(f->p->state_load(f->p, saved, n_bytes)); /* into the same process, */
    go_on(f, x);
    if (!CHECK(memcmp(want, x, sizeof x) == 0)) printf("  %s\n", c->what);
    latent_close(f);
    if (!latent_open(f, c)) return;
    CHECK_OK(f->p->state_load(f->p, saved, n_bytes)); /* and into a fresh one */
    CHECK((size_t)f->p->state_bytes(f->p) == n_bytes);
    go_on(f, x);
    if (!CHECK(memcmp(want, x, sizeof x) == 0)) printf("  %s, a fresh one\n", c->what);
    latent_close(f);
    kac_free(saved);
}

/* Cut anywhere or with wrong heads, a block is refused, or leaves places out; nothing else happens. */
static void test_damaged(fixture *f, const solver_case *c) {
    size_t n_bytes;
    int n_refused = 0;
    if (!latent_open(f, c)) return;
    char *saved = make_saved(f, &n_bytes);
    for (size_t n = 0; n < n_bytes; n += n < 64 || n_bytes - n < 64 ? 1 : 997) {
        const kac_status s = f->p->state_load(f->p, saved, n);
        n_refused += s == KAC_E_FORMAT;
        CHECK(s == KAC_OK || s == KAC_E_FORMAT);
        if (s == KAC_E_FORMAT && strstr(kac_error(), "too short") != NULL) continue;       /* nothing was taken */
        CHECK_FAILS(f->p->fetch(f->p, (int64_t[]){4}, slots, 1), KAC_E_FORMAT, "place 4"); /* it is not whole */
    }
    CHECK(n_refused > 64);
    char *longer = kac_alloc(n_bytes + 8);
    memcpy(longer, saved, n_bytes);
    CHECK_FAILS(f->p->state_load(f->p, longer, n_bytes + 8), KAC_E_FORMAT, "damaged");
    const size_t place = (size_t)(1 + f->solver.n_past + 1) * ONE * sizeof(float),
                 head = n_bytes - place - 3 * sizeof(int64_t);
    static const int64_t wrong[] = {-3, STEPS, INT64_MAX, INT64_MIN};
    for (int i = 0; i < KAC_COUNT_OF(wrong); i++) {
        memcpy(longer, saved, n_bytes);
        memcpy(longer + head + 2 * sizeof(int64_t), &wrong[i], sizeof wrong[i]);
        CHECK_FAILS(f->p->state_load(f->p, longer, n_bytes), KAC_E_FORMAT, "damaged");
    }
    kac_free(longer), kac_free(saved);
    latent_close(f);
}

/* States that changed places since they were scored keep their rewards, with new ones among them, and none is scored again. */
static void test_rewards_follow(fixture *f, const solver_case *c) {
    static const char *const specs[] = {"brightness=0.9:2", "color=#ff8000"};
    static const int64_t places[N] = {0, 1, 2, 3}, changed[2][N] = {{1, 0, 3, 2}, {2, 3, 1, 1}};
    const kac_option_spec table[] = {KAC_REWARD_OPTIONS("", ""),
                                     {NULL, 0, KAC_OPT_BOOL, NULL, 0, 0, NULL, NULL, NULL, false}};
    kac_options *options = kac_options_create(table);
    kac_reward_set rewards = {0};
    kac_latent_reward *lr = NULL;
    double first[N], now[N];
    if (!latent_open(f, c)) return;
    const kac_latent_options o = {.prompts = prompts,
                                  .n_groups = 1,
                                  .n_per_group = N,
                                  .width = WIDTH * f->pipeline.factor,
                                  .height = HEIGHT * f->pipeline.factor,
                                  .batch = 2};
    CHECK_OK(kac_reward_set_open(&rewards, &f->ctx, specs, 2, options));
    CHECK_OK(kac_latent_reward_open(&lr, f->latent, &rewards, &o));
    kac_reward *r = kac_latent_reward_of(lr);
    CHECK_OK(f->p->start(f->p, slots, N));
    CHECK_OK(f->p->store(f->p, slots, N, places));
    CHECK_OK(r->score(r, f->p, slots, N, KAC_STAGE_FINAL, first));
    const int64_t count = kac_latent_reward_count(lr);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(f->p->fetch(f->p, changed[i], slots, N));
        CHECK_OK(r->score(r, f->p, slots, N, KAC_STAGE_FINAL, now));
        for (int j = 0; j < N; j++) CHECK(now[j] == first[changed[i][j]]);
        CHECK(kac_latent_reward_count(lr) == count);
    }
    CHECK_OK(f->p->fetch(f->p, changed[0], slots, N)); /* slot 2 knows state 1, and becomes a new one */
    CHECK_OK(r->score(r, f->p, slots, N, KAC_STAGE_FINAL, now));
    CHECK_OK(f->p->fetch(f->p, (int64_t[]){1, 0, 0}, slots, 3));
    f->p->rekey(f->p, slots, 1, (uint64_t[]){77});
    CHECK_OK(f->p->start(f->p, slots, 1)); /* state 1 was known of slot 0 alone */
    CHECK_OK(f->p->fetch(f->p, (int64_t[]){1}, &slots[1], 1));
    CHECK_OK(r->score(r, f->p, slots, N, KAC_STAGE_FINAL, now));
    CHECK(now[1] == first[1] && now[2] == first[0] && now[0] != first[0] && now[0] != first[1]);
    kac_latent_reward_close(lr);
    kac_reward_set_close(&rewards);
    kac_options_destroy(options);
    latent_close(f);
}

int main(void) {
    fixture f = {0};
    if (!fixture_open(&f)) return check_done();
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        test_store(&f, &cases[i]);
        test_mixed_steps(&f, &cases[i]);
        test_keys(&f, &cases[i]);
        test_noise(&f, &cases[i]);
        test_write(&f, &cases[i]);
        test_save(&f, &cases[i]);
    }
    test_damaged(&f, &cases[1]);
    test_rewards_follow(&f, &cases[0]);
    fixture_close(&f);
    return check_done();
}
