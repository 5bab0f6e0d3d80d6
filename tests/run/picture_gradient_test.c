/* From combined rewards back to latents and pixels: against finite differences of the whole set, balanced by norms, the same bits in any batches,
 * the bytes that a plan run foretells; NaN is named. */
#include "check.h"
#include "run/picture_gradient.h"
#include "util/golden_weights.h"
#include <stdlib.h>

enum { N = 3, SIDE = 8, FACTOR = 4, MAX_PARTS = 3 };

static const char *const prompts[] = {"a red circle above a blue square", "a green star below a red square"};
static const int prompt[N] = {0, 1, 0};
static const kac_option_spec table[] = {KAC_REWARD_OPTIONS("rewards", "clip"), {.name = NULL}};

typedef struct setting {
    const char *rewards[MAX_PARTS + 1];
    const char *combine;
    bool decoded, grey;
    kac_reward_balance balance;
    int batch;
} setting;

/* A set of rewards, states, and what the set says of them. */
typedef struct scored {
    setting o;
    kac_ctx c;
    kac_options *options;
    kac_reward_set set;
    kac_codec *codec;
    kac_tensor x, d;
    double values[N * (MAX_PARTS + 2)];
} scored;

static kac_status open_set(scored *s) {
    int n = 0;
    while (s->o.rewards[n] != NULL) n++;
    s->options = kac_options_create(table);
    if (s->options == NULL) return KAC_E_MEMORY;
    if (s->o.combine != NULL) KAC_TRY(kac_options_set(s->options, "combine", s->o.combine));
    KAC_TRY(kac_reward_set_open(&s->set, &s->c, s->o.rewards, n, s->options));
    for (int i = 0; i < n; i++) s->set.parts[i]->batch = s->o.batch;
    return kac_reward_set_prepare(&s->set, prompts, 2);
}

static kac_status run(scored *s) {
    return kac_picture_gradient(&s->set, &s->c, s->o.decoded ? s->codec : NULL, s->x, prompt, s->o.balance, s->values,
                                s->d);
}

/* Pixels in −1 … 1, away from the borders; latents of a normal law. */
static void fill_states(kac_tensor x, bool decoded) {
    float *numbers = x.data;
    kac_rng_normal(numbers, kac_tensor_count(x), (kac_key){.seed = 3, .purpose = KAC_PURPOSE_TEST}, 0, 0);
    for (int64_t i = 0; i < kac_tensor_count(x) && !decoded; i++) numbers[i] = 0.9f * tanhf(numbers[i]);
}

static bool open_scored(scored *s, const struct kac_ops *ops, setting o) {
    *s = (scored){.o = o};
    const int64_t side = o.decoded ? SIDE : SIDE * FACTOR, channels = o.decoded ? 4 : o.grey ? 1 : 3;
    if (!CHECK_OK(kac_ctx_open(&s->c, ops, KAC_F32, 2, NULL)) || !CHECK_OK(open_set(s))) return false;
    if (o.decoded && !CHECK_OK(kac_codec_load(&s->codec, &s->c, "weights/shapes-64/vae"))) return false;
    if (!CHECK_OK(kac_take_make(&s->x, &s->c.run, KAC_F32, N, side, side, channels)) ||
        !CHECK_OK(kac_take_make(&s->d, &s->c.run, KAC_F32, N, side, side, channels)))
        return false;
    if (!s->c.run.counting) fill_states(s->x, o.decoded);
    s->c.scratch.peak = s->c.scratch.used;
    return true;
}

static void close_scored(scored *s) {
    kac_reward_set_close(&s->set);
    kac_codec_free(s->codec);
    kac_options_destroy(s->options);
    kac_ctx_close(&s->c);
}

/* The combined rewards at x + h v. */
static void totals_along(double out[N], scored *s, const float *x, const float *v, double h) {
    float *to = s->x.data;
    for (int64_t i = 0; i < kac_tensor_count(s->x); i++) to[i] = (float)((double)x[i] + h * (double)v[i]);
    CHECK_OK(run(s));
    for (int i = 0; i < N; i++) out[i] = s->values[i * (s->set.n + 2) + s->set.n];
}

/* Central differences along each picture's gradient, which move its total by `change`; extrapolated. */
static void check_differences(scored *s, double change, double tolerance) {
    const int64_t n = kac_tensor_count(s->x), n_numbers = n / N;
    double far[2][N], near[2][N];
    float *x = kac_alloc((size_t)n * sizeof *x), *v = kac_alloc((size_t)n * sizeof *v);
    if (!CHECK(x != NULL && v != NULL)) return;
    memcpy(x, s->x.data, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i += n_numbers) {
        double square = 0;
        for (int64_t k = i; k < i + n_numbers; k++) square += pow((double)((const float *)s->d.data)[k], 2);
        CHECK(square > 0);
        for (int64_t k = i; k < i + n_numbers; k++)
            v[k] = (float)((double)((const float *)s->d.data)[k] * change / square);
    }
    for (int k = 0; k < 2; k++) {
        totals_along(far[k], s, x, v, k == 0 ? 1 : -1);
        totals_along(near[k], s, x, v, k == 0 ? 0.5 : -0.5);
    }
    for (int i = 0; i < N; i++) {
        const double slope = (4 * (near[0][i] - near[1][i]) - (far[0][i] - far[1][i]) / 2) / 3 / change;
        printf("  %-24s %-12s picture %d: %.6f for 1\n", s->o.rewards[0], s->o.combine == NULL ? "" : s->o.combine, i,
               slope);
        CHECK_NEAR(slope, 1, tolerance);
    }
    memcpy(s->x.data, x, (size_t)n * sizeof *x);
    kac_free(x), kac_free(v);
}

static void test_setting(setting o, double change, double tolerance) {
    scored all, plan, alone;
    if (!open_scored(&all, kac_cpu_ops(), o) || !CHECK_OK(run(&all))) return;
    CHECK(all.c.scratch.used == 0);
    if (open_scored(&plan, &kac_plan_ops, o) && CHECK_OK(run(&plan)))
        CHECK(plan.c.scratch.peak == all.c.scratch.peak && plan.c.model.peak == all.c.model.used);
    close_scored(&plan);
    o.batch = 2;
    if (open_scored(&alone, kac_cpu_ops(), o) && CHECK_OK(run(&alone))) {
        CHECK(memcmp(alone.values, all.values, (size_t)(N * (all.set.n + 2)) * sizeof(double)) == 0);
        CHECK(memcmp(alone.d.data, all.d.data, kac_tensor_bytes(all.d)) == 0);
    }
    close_scored(&alone);
    check_differences(&all, change, tolerance);
    close_scored(&all);
}

/* Σ slope · g / |g|, from the gradients of single rewards. */
static void test_norm(void) {
    const setting both = {.rewards = {"clip=weights/shapes-clip:2", "color=#2050a0:-0.5"}, .balance = KAC_BALANCE_NORM};
    const double weights[2] = {2, -0.5};
    scored all, part[2];
    if (!open_scored(&all, kac_cpu_ops(), both) || !CHECK_OK(run(&all))) return;
    for (int k = 0; k < 2; k++) {
        const setting one = {.rewards = {k == 0 ? "clip=weights/shapes-clip" : "color=#2050a0"}};
        CHECK(open_scored(&part[k], kac_cpu_ops(), one) && CHECK_OK(run(&part[k])));
    }
    const int64_t n_numbers = kac_tensor_count(all.x) / N;
    for (int i = 0; i < N; i++) {
        double length[2] = {0, 0};
        for (int k = 0; k < 2; k++) {
            CHECK(part[k].values[3 * i] == all.values[4 * i + k]);
            for (int64_t j = i * n_numbers; j < (i + 1) * n_numbers; j++)
                length[k] += pow((double)((const float *)part[k].d.data)[j], 2);
        }
        double worst = 0;
        for (int64_t j = i * n_numbers; j < (i + 1) * n_numbers; j++) {
            double want =
                0; /* states are in −1 … 1: their derivatives are half those of pixels, by which the norms are */
            for (int k = 0; k < 2; k++)
                want += weights[k] * (double)((const float *)part[k].d.data)[j] / sqrt(length[k]) / 2;
            worst = fmax(worst, fabs(want - (double)((const float *)all.d.data)[j]));
        }
        CHECK(worst < 1e-6);
    }
    for (int k = 0; k < 2; k++) close_scored(&part[k]);
    close_scored(&all);
}

/* Outside of −1 … 1 nothing pulls; on the border it does. */
static void test_clamped(void) {
    scored s;
    if (!open_scored(&s, kac_cpu_ops(), (setting){.rewards = {"color=#2050a0"}})) return;
    float *x = s.x.data;
    x[0] = 1.25f, x[1] = -1.25f, x[2] = 1, x[3] = -1;
    CHECK_OK(run(&s));
    const float *d = s.d.data;
    CHECK(d[0] == 0 && d[1] == 0 && d[2] < 0 && d[3] > 0);
    x[4] = NAN;
    CHECK_FAILS(run(&s), KAC_E_NONFINITE, "the reward color=#2050a0 is not a finite number");
    s.c.scratch.used = 0;
    close_scored(&s);
}

/* A grey counts as the coloured picture with the same in all channels, and its derivative is the sum over them. */
static void test_grey(void) {
    scored grey, all;
    const setting o = {.rewards = {"clip=weights/shapes-clip", "color=#2050a0"}};
    setting o_grey = o;
    o_grey.grey = true;
    if (!open_scored(&grey, kac_cpu_ops(), o_grey) || !open_scored(&all, kac_cpu_ops(), o)) return;
    const int64_t n = kac_tensor_count(grey.x);
    for (int64_t i = 0; i < 3 * n; i++) ((float *)all.x.data)[i] = ((const float *)grey.x.data)[i / 3];
    CHECK_OK(run(&grey));
    CHECK_OK(run(&all));
    CHECK(memcmp(grey.values, all.values, (size_t)(N * (all.set.n + 2)) * sizeof(double)) == 0);
    const float *d = all.d.data;
    for (int64_t i = 0; i < n; i++)
        if (!CHECK(fabs((double)((const float *)grey.d.data)[i] - (double)(d[3 * i] + d[3 * i + 1] + d[3 * i + 2])) <
                   1e-6))
            break;
    close_scored(&grey);
    close_scored(&all);
}

static void test_without(void) {
    scored s;
    if (!open_scored(&s, kac_cpu_ops(), (setting){.rewards = {"color=#2050a0", "shapes-judge"}})) return;
    CHECK_TEXT(kac_reward_set_no_grad(&s.set), "shapes-judge");
    CHECK_FAILS(run(&s), KAC_E_UNSUPPORTED, "reward shapes-judge has no gradient");
    close_scored(&s);
    if (!open_scored(&s, kac_cpu_ops(), (setting){.rewards = {"color=#2050a0", "brightness=1"}})) return;
    CHECK(kac_reward_set_no_grad(&s.set) == NULL);
    close_scored(&s);
    if (!open_scored(&s, kac_cpu_ops(), (setting){.rewards = {"color=#2050a0"}})) return;
    s.x.shape[3] = 2, s.d.shape[3] = 2;
    for (int i = 3; i-- > 0;) s.x.stride[i] = s.d.stride[i] = s.x.stride[i + 1] * s.x.shape[i + 1];
    CHECK_FAILS(run(&s), KAC_E_UNSUPPORTED, "pictures of 3 channels, these have 2");
    s.c.scratch.used = 0;
    close_scored(&s);
}

int main(void) {
    const char *clip = "clip=weights/shapes-clip";
    test_setting((setting){.rewards = {clip}, .decoded = true}, 2e-3, 5e-3);
    test_setting((setting){.rewards = {clip, "color=#2050a0:3"}, .decoded = true}, 2e-3, 5e-3);
    test_setting((setting){.rewards = {"clip=weights/shapes-clip:2,target=0.9", "color=#2050a0,hinge=0.1"}}, 1e-3,
                 3e-3);
    test_setting((setting){.rewards = {clip, "color=#2050a0:2", "brightness=0.9"}, .combine = "mean-std=1"}, 1e-3,
                 3e-3);
    test_setting((setting){.rewards = {clip, "color=#2050a0:2", "brightness=0.9"}, .combine = "softmin=0.3"}, 1e-3,
                 3e-3);
    test_setting((setting){.rewards = {clip, "color=#2050a0:2"}, .combine = "shrink=2"}, 1e-3, 3e-3);
    test_setting((setting){.rewards = {"clip-logit=weights/shapes-clip,sigmoid=0/20", "color=#2050a0,exp:2"},
                           .combine = "product"},
                 1e-3, 3e-3);
    test_setting((setting){.rewards = {clip, "color=#2050a0:2"}, .grey = true}, 1e-3, 3e-3);
    test_grey();
    test_norm();
    test_clamped();
    test_without();
    return check_done();
}
