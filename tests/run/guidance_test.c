/* The guidance of latent processes on a small pipeline: the gradient of x0-hat by the state against finite differences, shifted steps and
 * their density, rewards through the decoder. */
#include "check.h"
#include "run/latent_reward.h"
#include "run/pipeline.h"
#include "util/golden.h"
#include <math.h>
#include <string.h>

enum { N = 3, STEPS = 4, ONE = 16 * 8 * 4 };

typedef struct fixture {
    golden g;
    kac_ctx ctx;
    kac_pipeline pipeline;
    kac_solver solver;
    kac_latent_options o;
    kac_latent *latent;
    kac_process *p;
} fixture;

static const kac_tensor none = {0};
static const char *const prompts[] = {"two green stars"};
static const int slots[N] = {0, 1, 2};

static bool fixture_open(fixture *f) {
    return CHECK_OK(golden_open_pipeline(&f->g, "pipeline/tiny")) &&
           CHECK_OK(kac_ctx_open(&f->ctx, kac_cpu_ops(), KAC_F32, 2, NULL)) &&
           CHECK_OK(kac_pipeline_open(&f->pipeline, &f->ctx, f->g.dir, NULL));
}

static bool latent_open(fixture *f, double cfg_scale, double rescale, double clip, kac_solver_kind kind, double eta,
                        int batch, kac_tensor noise) {
    const kac_solver_options so = {.kind = kind, .n_steps = STEPS, .eta = eta};
    if (!CHECK_OK(kac_solver_init(&f->solver, &f->pipeline.schedule, &so))) return false;
    f->solver.clip = clip;
    f->o = (kac_latent_options){.prompts = prompts,
                                .n_groups = 1,
                                .n_per_group = N,
                                .width = 16 * f->pipeline.factor,
                                .height = 8 * f->pipeline.factor,
                                .cfg_scale = cfg_scale,
                                .guidance_rescale = rescale,
                                .seed = 5,
                                .batch = batch,
                                .guided = true,
                                .noise = noise};
    if (!CHECK_OK(kac_latent_open(&f->latent, &f->ctx, &f->pipeline, &f->solver, &f->o))) return false;
    f->p = kac_latent_process(f->latent);
    CHECK(f->p->n_state == ONE);
    return CHECK_OK(f->p->start(f->p, slots, N));
}

static void latent_close(fixture *f) {
    kac_latent_close(f->latent);
    kac_solver_free(&f->solver);
}

/* x0-hat of states that are put into the slots. */
static const float *hat_of(fixture *f, int i_step, const float *x) {
    CHECK_OK(f->p->start(f->p, slots, N)); /* new states */
    memcpy(kac_latent_states(f->latent).data, x, N * ONE * sizeof *x);
    CHECK_OK(f->p->predict(f->p, i_step, slots, N));
    return kac_latent_viewed(f->latent, KAC_STAGE_PREDICTED).data;
}

static void normals(float *out, int n, uint32_t number) {
    kac_rng_normal(out, n, (kac_key){9, KAC_PURPOSE_TEST, number}, 0, 0);
}

/* <d_x, v> against <d_x0, (x0-hat(x + h v) − x0-hat(x − h v)) / 2h>, each state in a direction of its own. */
static void check_pull(fixture *f, int i_step, const char *what, double step, double tolerance) {
    static float x[N * ONE], v[N * ONE], d_x0[N * ONE], d_x[N * ONE], moved[N * ONE];
    double slope[N] = {0};
    memcpy(x, kac_latent_states(f->latent).data, sizeof x);
    normals(v, N * ONE, 1), normals(d_x0, N * ONE, 2);
    hat_of(f, i_step, x);
    if (!CHECK_OK(f->p->pull(f->p, i_step, slots, N, d_x0, d_x))) return;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < N * ONE; i++) moved[i] = x[i] + (float)(sign * step) * v[i];
        const float *hat = hat_of(f, i_step, moved);
        for (int i = 0; i < N * ONE; i++) slope[i / ONE] += sign * (double)d_x0[i] * (double)hat[i] / (2 * step);
    }
    for (int k = 0; k < N; k++) {
        double along = 0, length = 0;
        for (int i = 0; i < ONE; i++) {
            along += (double)d_x[k * ONE + i] * (double)v[k * ONE + i];
            length += (double)d_x[k * ONE + i] * (double)d_x[k * ONE + i];
        }
        printf("%-28s step %d state %d: %9.5f, by differences %9.5f (|d_x| %.4f)\n", what, i_step, k, along, slope[k],
               sqrt(length));
        CHECK_NEAR(along, slope[k], tolerance * sqrt(length) + 1e-4);
    }
}

static void test_pull(fixture *f) {
    static const struct {
        const char *what;
        double cfg_scale, rescale, clip;
        kac_solver_kind kind;
        int i_step, batch;
    } cases[] = {{"no guidance", 1, 0, 0, KAC_SOLVER_DDIM, 2, 3},
                 {"guidance 3", 3, 0, 0, KAC_SOLVER_DDIM, 2, 2},
                 {"guidance 3, rescaled", 3, 0.7, 0, KAC_SOLVER_DDIM, 1, 3},
                 {"guidance 2, clipped", 2, 0, 0.8, KAC_SOLVER_DDIM, 3, 1},
                 {"euler-ancestral", 2, 0, 0, KAC_SOLVER_EULER_ANCESTRAL, 2, 3},
                 {"dpm++2m", 2, 0.3, 0, KAC_SOLVER_DPMPP_2M, 1, 2}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        if (!latent_open(f, cases[i].cfg_scale, cases[i].rescale, cases[i].clip, cases[i].kind, NAN, cases[i].batch,
                         none))
            continue;
        const bool kinks = cases[i].clip > 0; /* differences go across some of them */
        check_pull(f, cases[i].i_step, cases[i].what, kinks ? 5e-4 : 4e-3, kinks ? 1.5e-2 : 4e-3);
        latent_close(f);
    }
}

/* States after a step from given ones, under the same noise each time. */
static void next_of(fixture *f, int i_step, const float *x, float *next) {
    CHECK_OK(f->p->write(f->p, slots, N, x));
    CHECK_OK(f->p->predict(f->p, i_step, slots, N));
    CHECK_OK(f->p->step(f->p, i_step, slots, slots, N));
    CHECK_OK(f->p->read(f->p, slots, N, next));
}

/* The adjoint of a whole step against differences of the step itself. */
static void check_pull_step(fixture *f, int i_step, const char *what, double step, double tolerance) {
    static float x[N * ONE], v[N * ONE], d_next[N * ONE], d_x[N * ONE], moved[N * ONE], next[N * ONE];
    double slope[N] = {0};
    CHECK_OK(f->p->read(f->p, slots, N, x));
    normals(v, N * ONE, 1), normals(d_next, N * ONE, 2);
    CHECK_OK(f->p->predict(f->p, i_step, slots, N));
    if (!CHECK_OK(f->p->pull_step(f->p, i_step, slots, N, d_next, d_x))) return;
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < N * ONE; i++) moved[i] = x[i] + (float)(sign * step) * v[i];
        next_of(f, i_step, moved, next);
        for (int i = 0; i < N * ONE; i++) slope[i / ONE] += sign * (double)d_next[i] * (double)next[i] / (2 * step);
    }
    for (int k = 0; k < N; k++) {
        double along = 0, length = 0;
        for (int i = k * ONE; i < (k + 1) * ONE; i++)
            along += (double)d_x[i] * (double)v[i], length += (double)d_x[i] * (double)d_x[i];
        printf("step back, %-17s step %d state %d: %9.5f, by differences %9.5f (|d_x| %.4f)\n", what, i_step, k, along,
               slope[k], sqrt(length));
        CHECK_NEAR(along, slope[k], tolerance * sqrt(length) + 1e-4);
    }
}

static void test_pull_step(fixture *f) {
    static const struct {
        const char *what;
        double cfg_scale, rescale, clip, eta;
        kac_solver_kind kind;
        int i_step, batch;
    } cases[] = {{"ddim", 1, 0, 0, 0, KAC_SOLVER_DDIM, 1, 3},
                 {"ddim, guided", 3, 0.5, 0, 0, KAC_SOLVER_DDIM, 2, 2},
                 {"ddim with noise", 2, 0, 0, 1, KAC_SOLVER_DDIM, 1, 3},
                 {"clipped", 2, 0, 0.8, 0, KAC_SOLVER_DDIM, 1, 1},
                 {"the last", 2, 0, 0, 0, KAC_SOLVER_DDIM, STEPS - 1, 3},
                 {"euler", 2, 0, 0, NAN, KAC_SOLVER_EULER, 1, 3},
                 {"euler-ancestral", 2, 0, 0, NAN, KAC_SOLVER_EULER_ANCESTRAL, 2, 3},
                 {"lcm", 1, 0, 0, NAN, KAC_SOLVER_LCM, 1, 3}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        if (!latent_open(f, cases[i].cfg_scale, cases[i].rescale, cases[i].clip, cases[i].kind, cases[i].eta,
                         cases[i].batch, none))
            continue;
        const bool kinks = cases[i].clip > 0;
        check_pull_step(f, cases[i].i_step, cases[i].what, kinks ? 5e-4 : 4e-3, kinks ? 1.5e-2 : 4e-3);
        latent_close(f);
    }
}

/* Start is linear in its normals; a solver with history has no step back. */
static void test_pull_start(fixture *f) {
    static float z[N * ONE], x[N * ONE], d[N * ONE];
    if (!latent_open(f, 1, 0, 0, KAC_SOLVER_EULER, NAN, N, none)) return;
    normals(z, N * ONE, 7);
    CHECK_OK(f->p->noise(f->p, slots, N, z));
    CHECK_OK(f->p->start(f->p, slots, N));
    CHECK_OK(f->p->read(f->p, slots, N, x));
    CHECK_OK(f->p->pull_step(f->p, -1, slots, N, z, d));
    for (int i = 0; i < N * ONE; i++) CHECK_NEAR((double)x[i], (double)d[i], 1e-5 * fabs((double)d[i]));
    CHECK(!f->p->history);
    CHECK_OK(f->p->start(f->p, slots, N)); /* forgotten after it */
    CHECK_OK(f->p->read(f->p, slots, N, d));
    CHECK(memcmp(x, d, ONE * sizeof *x) != 0);
    latent_close(f);
    if (!latent_open(f, 1, 0, 0, KAC_SOLVER_DPMPP_2M, NAN, N, none)) return;
    CHECK_OK(f->p->predict(f->p, 0, slots, N));
    CHECK_FAILS(f->p->pull_step(f->p, 0, slots, N, z, d), KAC_E_UNSUPPORTED, "history that dpm++2m keeps");
    CHECK(f->p->history);
    latent_close(f);
}

/* The same bits for any batch; copies of a state with one derivative go through the network once. */
static void test_batches(fixture *f) {
    static float d_x0[N * ONE], d_x[3][N * ONE];
    normals(d_x0, N * ONE, 2);
    memcpy(d_x0 + 2 * ONE, d_x0, ONE * sizeof *d_x0);
    for (int batch = 1; batch <= 3; batch++) {
        if (!latent_open(f, 3, 0, 0, KAC_SOLVER_DDIM, 1, batch, none)) return;
        CHECK_OK(f->p->predict(f->p, 0, slots, N));
        if (batch == 3) CHECK_OK(f->p->copy(f->p, (int[]){0}, (int[]){2}, 1));
        CHECK_OK(f->p->pull(f->p, 0, slots, N, d_x0, d_x[batch - 1]));
        CHECK(kac_latent_counts_of(f->latent)->denoiser_grad == (batch == 3 ? 4 : 6));
        latent_close(f);
    }
    CHECK(memcmp(d_x[0], d_x[1], sizeof d_x[0]) == 0);
    CHECK(memcmp(d_x[0], d_x[2], 2 * ONE * sizeof(float)) == 0);
    CHECK(memcmp(d_x[2], d_x[2] + 2 * ONE, ONE * sizeof(float)) == 0);
}

/* With given noise: where a guided step lands, and log p − log q by its formula. */
static void test_shift(fixture *f) {
    static float noise[STEPS * N * ONE], shift[N * ONE], x[2][N * ONE];
    const int64_t shape[] = {STEPS, N, 8, 16, 4};
    double ratio[N];
    normals(noise, STEPS * N * ONE, 3), normals(shift, N * ONE, 4);
    memset(shift + ONE, 0, ONE * sizeof *shift);
    for (int guided = 0; guided < 2; guided++) {
        if (!latent_open(f, 2, 0, 0, KAC_SOLVER_DDIM, 0.7, N, kac_tensor_of(noise, KAC_F32, 5, shape))) return;
        CHECK_OK(f->p->predict(f->p, 0, slots, N));
        if (guided) CHECK_OK(f->p->shift(f->p, 0, slots, N, shift));
        CHECK_OK(f->p->step(f->p, 0, slots, slots, N));
        memcpy(x[guided], kac_latent_states(f->latent).data, sizeof x[guided]);
        CHECK_OK(f->p->log_ratio(f->p, slots, N, ratio));
        const double s = f->p->deviation(f->p, 0);
        CHECK(s == f->solver.rows[0].z && s > 0);
        for (int k = 0; k < N; k++) {
            double want = 0;
            for (int i = k * ONE; i < (k + 1) * ONE && guided; i++) {
                const double z = (double)noise[i], d = (double)shift[i] / s;
                want += 0.5 * z * z - 0.5 * (z + d) * (z + d);
                CHECK_NEAR((double)x[1][i], (double)x[0][i] + (double)shift[i], 1e-5);
            }
            CHECK_NEAR(ratio[k], want, 1e-9 * (1 + fabs(want)));
        }
        if (guided) { /* forgotten after it */
            CHECK_OK(f->p->predict(f->p, 1, slots, N));
            CHECK_OK(f->p->step(f->p, 1, slots, slots, N));
            CHECK_OK(f->p->log_ratio(f->p, slots, N, ratio));
            CHECK(ratio[0] == 0 && ratio[2] == 0);
        }
        latent_close(f);
    }
}

/* Without noise: shifted copies part, others stay one; there is no density. */
static void test_without_noise(fixture *f) {
    static float shift[N * ONE];
    double ratio[N];
    shift[2 * ONE] = 1;
    if (!latent_open(f, 1, 0, 0, KAC_SOLVER_DDIM, 0, N, none)) return;
    CHECK_OK(f->p->predict(f->p, 0, slots, N));
    CHECK_OK(f->p->copy(f->p, (int[]){0, 0}, (int[]){1, 2}, 2));
    CHECK_OK(f->p->shift(f->p, 0, slots, N, shift));
    CHECK_OK(f->p->step(f->p, 0, slots, slots, N));
    CHECK(kac_latent_state_id(f->latent, 0) == kac_latent_state_id(f->latent, 1));
    CHECK(kac_latent_state_id(f->latent, 0) != kac_latent_state_id(f->latent, 2));
    CHECK_OK(f->p->log_ratio(f->p, slots, 2, ratio));
    CHECK_FAILS(f->p->log_ratio(f->p, slots, N, ratio), KAC_E_UNSUPPORTED, "without noise");
    CHECK(f->p->deviation(f->p, 0) == 0 && f->p->gain(f->p, 0) > 0);
    latent_close(f);
}

/* Ancestral DDIM: (b − a) / sqrt(a b), a and b alpha-bar now and next; the parametrisation does not matter. */
static void test_gain(fixture *f) {
    if (!latent_open(f, 1, 0, 0, KAC_SOLVER_DDIM, 1, N, none)) return;
    for (int i = 0; i + 1 < STEPS; i++) {
        const double a = pow(f->solver.rows[i].alpha, 2), b = pow(f->solver.rows[i + 1].alpha, 2);
        CHECK_NEAR(f->p->gain(f->p, i), (b - a) / sqrt(a * b), 1e-6);
    }
    latent_close(f);
}

/* A reward's gradient by x0-hat, through the decoder, against finite differences of itself. */
static void test_reward(fixture *f) {
    static float x[N * ONE], v[N * ONE], d[N * ONE], spare[N * ONE];
    const char *const specs[] = {"brightness=0.9:2", "color=#ff8000"};
    kac_reward_set rewards = {0};
    kac_latent_reward *lr = NULL;
    double values[N], moved[2][N];
    const kac_option_spec table[] = {KAC_REWARD_OPTIONS("", ""), {NULL}};
    kac_options *options = kac_options_create(table);
    if (!latent_open(f, 1, 0, 0, KAC_SOLVER_DDIM, 1, 2, none)) return;
    CHECK_OK(kac_reward_set_open(&rewards, &f->ctx, specs, 2, options));
    CHECK_OK(kac_latent_reward_open(&lr, f->latent, &rewards, &f->o));
    kac_reward *r = kac_latent_reward_of(lr);
    normals(x, N * ONE, 5), normals(v, N * ONE, 6);
    for (int i = 0; i < N * ONE; i++) x[i] *= 0.5f;
    float *state = kac_latent_states(f->latent).data;
    memcpy(state, x, sizeof x);
    CHECK_OK(r->grad(r, f->p, slots, N, KAC_STAGE_FINAL, values, d));
    CHECK(kac_latent_reward_grad_count(lr) == N);
    for (int side = 0; side < 2; side++) {
        CHECK_OK(f->p->start(f->p, slots, N));
        for (int i = 0; i < N * ONE; i++) state[i] = x[i] + (side ? 5e-4f : -5e-4f) * v[i];
        CHECK_OK(r->grad(r, f->p, slots, N, KAC_STAGE_FINAL, moved[side], spare));
    }
    for (int k = 0; k < N; k++) {
        double along = 0, length = 0;
        for (int i = k * ONE; i < (k + 1) * ONE; i++)
            along += (double)d[i] * (double)v[i], length += (double)d[i] * (double)d[i];
        const double slope = (moved[1][k] - moved[0][k]) / 1e-3;
        printf("reward of state %d: %.6f, slope %.6f, by differences %.6f\n", k, values[k], along, slope);
        CHECK(length > 0);
        CHECK_NEAR(along, slope, 0.03 * sqrt(length) + 1e-5);
    }
    kac_latent_reward_close(lr);
    kac_reward_set_close(&rewards);
    kac_options_destroy(options);
    latent_close(f);
}

int main(void) {
    fixture f = {0};
    if (!fixture_open(&f)) return check_done();
    test_pull(&f);
    test_pull_step(&f);
    test_pull_start(&f);
    test_batches(&f);
    test_shift(&f);
    test_without_noise(&f);
    test_gain(&f);
    test_reward(&f);
    kac_pipeline_close(&f.pipeline);
    kac_ctx_close(&f.ctx);
    golden_close(&f.g);
    return check_done();
}
