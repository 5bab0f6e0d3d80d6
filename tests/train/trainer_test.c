/* The optimiser against torch.optim.AdamW with get_scheduler of diffusers; which rows the reward-gradient methods keep; the expectation of
 * ddpo's gradient against the exact gradient of the expected reward; what is refused; numbers that are none. */
#include "base/base.h"
#include "check.h"
#include "nn/optimizer.h"
#include "train/chain.h"
#include "train/methods.h"
#include "util/toy_trainee.h"
#include <stdlib.h>

#define SD "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,\"num_train_timesteps\":1000"
#define DDIM                                                                                                           \
    "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"steps_offset\":1,\"set_alpha_to_one\":false}"
#define DPM "{\"_class_name\":\"DPMSolverMultistepScheduler\"," SD "}"
#define FLOW "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\"}"

/* ---- optimiser ---- */

enum { OPT_N = 7, OPT_UPDATES = 6 };

typedef struct opt_case {
    kac_optimizer_options o;
    double lr[3], norm[3]; /* of updates 0, 2, 5 */
    float values[3][OPT_N];
} opt_case;

/* torch 2.x on the CPU, float32. */
static const opt_case opt_cases[] = {
    {{1e-2, 0.9, 0.999, 1e-8, 0.1, 1.0, KAC_LR_CONSTANT, 0, 0, 0},
     {0.01, 0.01, 0.01},
     {2.38484812, 2.38484812, 2.17944956},
     {{-0.713571429f, -0.00999999978f, 0.72357142f, -0.152714297f, 0.580857158f, -0.295428574f, 0.438142866f},
      {-0.727859616f, -0.0226455517f, 0.732003868f, -0.17190285f, 0.585531235f, -0.295075536f, 0.432106107f},
      {-0.733425856f, -0.0357890539f, 0.734131694f, -0.196143955f, 0.569842815f, -0.304824501f, 0.433770269f}}},
    {{3e-2, 0.8, 0.99, 1e-6, 0.01, 0.0, KAC_LR_LINEAR, 2, 8, 0},
     {0, 0.03, 0.015},
     {2.38484812, 2.38484812, 2.17944956},
     {{-0.714285731f, 0.0f, 0.714285731f, -0.142857149f, 0.571428597f, -0.285714298f, 0.428571433f},
      {-0.752276123f, -0.0291415565f, 0.729433835f, -0.185876042f, 0.575199604f, -0.28525719f, 0.415524691f},
      {-0.763297319f, -0.0526751131f, 0.736427665f, -0.232641399f, 0.539697766f, -0.308573544f, 0.424127489f}}},
    {{2e-2, 0.9, 0.95, 1e-8, 0.5, 2.5, KAC_LR_COSINE, 1, 5, 0},
     {0, 0.0170710678, 0},
     {2.38484812, 2.38484812, 2.17944956},
     {{-0.714285731f, 0.0f, 0.714285731f, -0.142857149f, 0.571428597f, -0.285714298f, 0.428571433f},
      {-0.729548395f, -0.0232779048f, 0.720172226f, -0.176438868f, 0.572877169f, -0.280629277f, 0.410976321f},
      {-0.72816062f, -0.0292234868f, 0.717643738f, -0.187140539f, 0.562168598f, -0.284098268f, 0.410630137f}}},
};

static void optimizer(const opt_case *c, double ema) {
    float values[OPT_N], grads[OPT_N], average[OPT_N];
    double norm, lr;
    kac_optimizer opt;
    kac_optimizer_options o = c->o;
    o.ema = ema;
    for (int i = 0; i < OPT_N; i++) average[i] = values[i] = (float)((i * 5 % 11 - 5) / 7.0);
    CHECK_OK(kac_optimizer_open(&opt, &o, values, OPT_N));
    for (int u = 0; u < OPT_UPDATES; u++) {
        for (int i = 0; i < OPT_N; i++) grads[i] = (float)((i + 1) * (u + 2) * 3 % 13 - 6) / 4;
        CHECK_OK(kac_optimizer_step(&opt, values, grads, &norm, &lr));
        const double decay = fmin(ema, (2.0 + u) / (11.0 + u));
        for (int i = 0; i < OPT_N; i++) average[i] = (float)(decay * average[i] + (1 - decay) * values[i]);
        const int k = u == 0 ? 0 : u == 2 ? 1 : u == OPT_UPDATES - 1 ? 2 : -1;
        if (k < 0) continue;
        CHECK_NEAR(lr, c->lr[k], 1e-9);
        CHECK_NEAR(norm, c->norm[k], 1e-6);
        for (int i = 0; i < OPT_N; i++) CHECK_NEAR(values[i], c->values[k][i], 2e-7);
        for (int i = 0; i < OPT_N && ema > 0; i++) CHECK_NEAR(opt.ema[i], average[i], 1e-6);
    }
    float before[OPT_N];
    memcpy(before, values, sizeof before);
    grads[3] = INFINITY;
    CHECK_FAILS(kac_optimizer_step(&opt, values, grads, &norm, &lr), KAC_E_NONFINITE, "norm");
    CHECK(memcmp(before, values, sizeof before) == 0 && opt.update == OPT_UPDATES);
    kac_optimizer_close(&opt);
}

/* ---- trainers ---- */

typedef struct trial {
    toy m;
    kac_trainer tr;
    kac_options *o;
    kac_status status; /* of the opening */
} trial;

static const kac_option_spec command[] = {{"cfg-scale", 0, KAC_OPT_REAL, "1", 0, 100, NULL, "X", "guidance", false},
                                          KAC_TUNE_OPTIONS_END};

static void open_trial(trial *t, const char *method, const char *config, kac_solver_options s,
                       const char *const *options, bool grad) {
    const kac_tune_method *m = kac_tune_method_find(method);
    *t = (trial){0};
    CHECK_OK(toy_open(&t->m, config, &s));
    if (!grad) t->m.trainee.no_grad = "count is a number of objects";
    t->o = kac_options_create(kac_trainer_options);
    CHECK_OK(kac_options_add(t->o, command));
    CHECK_OK(kac_options_add(t->o, m->options));
    for (int i = 0; options[i] != NULL; i += 2) CHECK_OK(kac_options_set(t->o, options[i], options[i + 1]));
    t->status = kac_trainer_open(&t->tr, &t->m.trainee, m, t->o, 3);
}

static void close_trial(trial *t) {
    kac_trainer_close(&t->tr);
    kac_options_destroy(t->o);
    toy_close(&t->m);
}

/* ---- which rows have a gradient ---- */

enum { ROWS = 8, ROUNDS = 3000 };
static kac_status (*toy_backward)(kac_trainee *t, const kac_denoise *in, kac_output_loss loss, void *self, float *d_x);
static int n_kept[ROWS], kept_now[ROWS], n_gaps, n_inputs;

static kac_status count_backward(kac_trainee *t, const kac_denoise *in, kac_output_loss loss, void *self, float *d_x) {
    for (int i = 0; i < t->solver->n_steps; i++)
        if (t->solver->rows[i].timestep == in->timestep[0]) kept_now[i]++;
    n_inputs += d_x != NULL;
    return toy_backward(t, in, loss, self, d_x);
}

static void count_rows(const char *method, const char *option, const char *value) {
    trial t;
    memset(n_kept, 0, sizeof n_kept);
    n_gaps = n_inputs = 0;
    open_trial(&t, method, DDIM, (kac_solver_options){.n_steps = ROWS, .eta = 0},
               (const char *const[]){"batch", "1", "lr", "0", option, value, NULL}, true);
    CHECK_OK(t.status);
    toy_backward = t.m.trainee.backward;
    t.m.trainee.backward = count_backward;
    for (int i = 0; i < ROUNDS; i++) {
        memset(kept_now, 0, sizeof kept_now);
        CHECK_OK(kac_trainer_round(&t.tr, NULL));
        for (int r = 0; r < ROWS; r++) {
            CHECK(kept_now[r] <= 1 || strcmp(method, "draft-lv") == 0);
            n_kept[r] += kept_now[r];
            n_gaps += r > 0 && kept_now[r - 1] && !kept_now[r];
        }
    }
    close_trial(&t);
}

/* Sum of squared deviations in units of a binomial's own; for rows that are neither always nor never kept. */
static void check_chances(const double *p) {
    double sum = 0;
    for (int i = 0; i < ROWS; i++) {
        if (p[i] <= 0 || p[i] >= 1)
            CHECK(n_kept[i] == (int)(p[i] * ROUNDS));
        else
            sum += (n_kept[i] - p[i] * ROUNDS) * (n_kept[i] - p[i] * ROUNDS) / (ROUNDS * p[i] * (1 - p[i]));
    }
    if (!CHECK(sum < 30))
        for (int i = 0; i < ROWS; i++) printf("  row %d: %d of %d, chance %g\n", i, n_kept[i], ROUNDS, p[i]);
}

static void rows_kept(void) {
    double p[ROWS];
    count_rows("alignprop", "trunc", "perstep");
    for (int i = 0; i < ROWS; i++) p[i] = (i + 1.0) / (ROWS + 1);
    check_chances(p);
    CHECK(n_gaps > ROUNDS / 10); /* each row by itself */
    count_rows("alignprop", "trunc", "uniform:0,8");
    for (int i = 0; i < ROWS; i++) p[i] = i / 7.0;
    check_chances(p);
    CHECK(n_gaps == 0);
    count_rows("alignprop", "trunc", "uniform:3,6");
    for (int i = 0; i < ROWS; i++) p[i] = fmin(fmax((i - 2) / 3.0, 0), 1);
    check_chances(p);
    count_rows("alignprop", "trunc", "fixed:5");
    for (int i = 0; i < ROWS; i++) p[i] = i >= 5;
    check_chances(p);
    count_rows("alignprop", "trunc", "gaussian:5,1.5");
    double total = 0, below = 0;
    const double from = 0.5 * erfc((5 - 1) / 1.5 / sqrt(2)),
                 to = 0.5 * erfc((5 - 8) / 1.5 / sqrt(2)); /* cut to 1 … 7 */
    total = to - from;
    for (int i = 0; i < ROWS; i++) {
        below = 0.5 * erfc((5 - (i + 1)) / 1.5 / sqrt(2)) - from;
        p[i] = i == 0 ? 0 : fmin(below / total, 1);
    }
    check_chances(p);
    count_rows("draft-k", "k", "3");
    for (int i = 0; i < ROWS; i++) p[i] = i >= 5;
    check_chances(p);
    count_rows("draft-lv", "renoise", "2");
    for (int i = 0; i < ROWS - 1; i++) CHECK(n_kept[i] == 0);
    CHECK(n_kept[ROWS - 1] == 3 * ROUNDS);
    count_rows("refl", "from", "4");
    for (int i = 0; i < ROWS; i++) p[i] = i >= 4 ? 0.25 : 0;
    check_chances(p);
    CHECK(n_inputs > 0);
    count_rows("drtune", "k", "4"); /* 0 2 4 6 or 1 3 5 7 */
    for (int i = 0; i < ROWS; i++) p[i] = 0.5;
    CHECK(n_kept[0] == n_kept[6] && n_kept[1] == n_kept[7] && n_kept[0] + n_kept[1] == ROUNDS);
    CHECK(abs(n_kept[0] - ROUNDS / 2) < 5 * sqrt(ROUNDS) / 2);
    CHECK(n_inputs == 0);
}

/* ---- ddpo follows the gradient of the expected reward ---- */

/* E[reward] over all prompts: the chain is linear and its states Gaussian. */
static double exact_reward(const toy *m, const double *v, double cfg) {
    double total = 0;
    for (int p = 0; p < TOY_PROMPTS; p++) {
        double mean[TOY_D] = {0}, cov[TOY_D][TOY_D] = {{0}};
        for (int i = 0; i < TOY_D; i++) cov[i][i] = m->solver.init_noise_sigma * m->solver.init_noise_sigma;
        for (int i_row = 0; i_row < m->solver.n_steps; i_row++) {
            const kac_solver_row *r = &m->solver.rows[i_row];
            const double by_x = r->next.x + r->next.x0 * r->x0_x, by_out = r->next.out + r->next.x0 * r->x0_out;
            double M[TOY_D][TOY_D], out[TOY_D], half[TOY_D][TOY_D] = {{0}}, zero[TOY_D] = {0};
            toy_out(m, v, zero, r->c_in, r->timestep, p, cfg, out);
            for (int i = 0; i < TOY_D; i++)
                for (int j = 0; j < TOY_D; j++) M[i][j] = by_out * r->c_in * v[i * TOY_D + j] + (i == j ? by_x : 0);
            double next[TOY_D];
            for (int i = 0; i < TOY_D; i++) {
                next[i] = by_out * out[i];
                for (int j = 0; j < TOY_D; j++) next[i] += M[i][j] * mean[j];
            }
            memcpy(mean, next, sizeof mean);
            for (int i = 0; i < TOY_D; i++)
                for (int j = 0; j < TOY_D; j++)
                    for (int k = 0; k < TOY_D; k++) half[i][j] += M[i][k] * cov[k][j];
            for (int i = 0; i < TOY_D; i++)
                for (int j = 0; j < TOY_D; j++) {
                    cov[i][j] = i == j ? r->z * r->z : 0;
                    for (int k = 0; k < TOY_D; k++) cov[i][j] += half[i][k] * M[j][k];
                }
        }
        total += toy_reward(m, mean) / TOY_PROMPTS;
        for (int i = 0; i < TOY_D; i++) total += m->q[i] * cov[i][i] / TOY_PROMPTS;
    }
    return total;
}

static void policy_gradient(void) {
    enum { N_ROUNDS = 300, N_STEPS = 3 };
    trial t;
    double sum[TOY_VALUES] = {0}, square[TOY_VALUES] = {0}, v[TOY_VALUES], size = 0, noise = 0, rewards = 0;
    open_trial(&t, "ddpo", DDIM, (kac_solver_options){.n_steps = N_STEPS, .eta = 1},
               (const char *const[]){"batch", "1600", "updates", "1", "lr", "0", "beta1", "0", "clip", "0", "track",
                                     "0", "advantage-clip", "1e9", "cfg-scale", "2", NULL},
               true);
    if (!CHECK_OK(t.status)) return;
    CHECK(t.m.solver.rows[N_STEPS - 1].z > 0); /* every source of x0 is an action */
    t.m.l[0] = 0.5;
    for (int i = 0; i < N_ROUNDS; i++) {
        kac_tune_report report;
        CHECK_OK(kac_trainer_round(&t.tr, &report));
        rewards += report.reward_mean / N_ROUNDS;
        for (int j = 0; j < TOY_VALUES;
             j++) { /* the loss has means over rows and numbers, and rewards in units of their deviation */
            const double g = -(double)t.tr.optimizer->m[j] * N_STEPS * TOY_D * report.reward_std;
            sum[j] += g / N_ROUNDS;
            square[j] += g * g / N_ROUNDS;
        }
    }
    for (int j = 0; j < TOY_VALUES; j++) v[j] = t.m.values[j];
    CHECK_NEAR(rewards, exact_reward(&t.m, v, 2), 0.02 * fabs(rewards));
    double want[TOY_VALUES];
    for (int j = 0; j < TOY_VALUES; j++) {
        const double h = 1e-5, at = v[j];
        v[j] = at + h;
        const double up = exact_reward(&t.m, v, 2);
        v[j] = at - h;
        want[j] = (up - exact_reward(&t.m, v, 2)) / (2 * h);
        v[j] = at;
        size = fmax(size, fabs(want[j]));
    }
    for (int j = 0; j < TOY_VALUES; j++) {
        const double error = sqrt(fmax(square[j] - sum[j] * sum[j], 0) / N_ROUNDS);
        noise = fmax(noise, error);
        CHECK_NEAR(sum[j], want[j], 4.5 * error + 1e-3 * size);
    }
    CHECK(noise < 0.15 * size); /* or the comparison would say little */
    close_trial(&t);
}

/* ---- prompts, losses, refusals ---- */

static void prompts_in_passes(void) {
    trial t;
    int seen[TOY_PROMPTS] = {0}, order[2][TOY_PROMPTS];
    open_trial(&t, "alignprop", DDIM, (kac_solver_options){.n_steps = 2, .eta = 0},
               (const char *const[]){"batch", "2", NULL}, true);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++) {
            const int p = kac_trainer_prompt(&t.tr, i, 1);
            seen[p]++;
            if (round < 4) order[round / 2][round % 2 * 2 + i] = p;
        }
        t.tr.round++;
        if (round % 2 == 1)
            for (int p = 0; p < TOY_PROMPTS; p++) CHECK(seen[p] == round / 2 + 1);
    }
    CHECK(memcmp(order[0], order[1], sizeof order[0]) != 0);
    t.tr.round = 0;
    CHECK(kac_trainer_prompt(&t.tr, 0, 2) == kac_trainer_prompt(&t.tr, 1, 2));
    CHECK(kac_trainer_seed(&t.tr, 0) != kac_trainer_seed(&t.tr, 1));
    close_trial(&t);
}

static void refuses(const char *method, const char *config, kac_solver_options s, bool grad, const char *name,
                    const char *value, kac_status status, const char *text) {
    trial t;
    open_trial(&t, method, config, s, (const char *const[]){name, value, NULL}, grad);
    CHECK_FAILS(t.status, status, text);
    close_trial(&t);
}

static void refused(void) {
    const kac_solver_options plain = {.n_steps = 5, .eta = 0}, noisy = {.n_steps = 5, .eta = 1},
                             own = {.n_steps = 5, .eta = NAN},
                             sde = {.kind = KAC_SOLVER_DPMPP_2M_SDE, .n_steps = 5, .eta = NAN};
    refuses("alignprop", DDIM, plain, false, NULL, NULL, KAC_E_USAGE,
            "count is a number of objects; methods that need none: ddpo");
    refuses("ddpo", DDIM, plain, true, NULL, NULL, KAC_E_USAGE, "ddpo needs a solver whose steps draw noise");
    refuses("dpo-online", FLOW, own, true, NULL, NULL, KAC_E_USAGE, "flow-euler-sde");
    refuses("ddpo", DPM, sde, true, NULL, NULL, KAC_E_USAGE, "depend on the present state alone");
    refuses("ddpo", DDIM, noisy, true, "group", "3", KAC_E_USAGE, "--group 3 does not divide");
    refuses("dpo-online", DDIM, noisy, true, "group", "3", KAC_E_USAGE, "--group 3 does not divide");
    refuses("raft", DDIM, plain, true, "batch", "15", KAC_E_USAGE, "--group 4 does not divide");
    refuses("nft", DDIM, plain, true, "track-least", "17", KAC_E_USAGE, "--track 16");
    refuses("draft-k", DDIM, plain, true, "k", "6", KAC_E_USAGE, "--k 6");
    refuses("refl", DDIM, plain, true, "to", "5", KAC_E_USAGE, "rows are 0 to 4");
    refuses("drtune", DDIM, plain, true, "jump-early", "5", KAC_E_USAGE, "--jump-early 5");
    refuses("alignprop", DDIM, plain, true, "lr-schedule", "cosine", KAC_E_USAGE, "--lr-updates");
    refuses("alignprop", DDIM, plain, true, "loss", "hinge", KAC_E_USAGE, "--loss-target");
    const char *const cuts[] = {"",
                                "all",
                                "fixed",
                                "fixed:",
                                "fixed:5",
                                "fixed:-1",
                                "fixed:1.5",
                                "fixed:2x",
                                "uniform:3",
                                "uniform:2,2",
                                "uniform:0,6",
                                "uniform:0,1",
                                "gaussian:nan,1",
                                "gaussian:3,0",
                                "gaussian:90,1",
                                "perstep:2"};
    for (int i = 0; i < KAC_COUNT_OF(cuts); i++)
        if (strcmp(cuts[i], "fixed") != 0) /* the last row */
            refuses("alignprop", DDIM, plain, true, "trunc", cuts[i], KAC_E_USAGE, "--trunc");
}

/* Losses of the reward: the target is reached and kept, from both sides. */
static void targets(const char *loss, double low, double high) {
    trial t;
    kac_tune_report report = {0};
    open_trial(&t, "alignprop", DDIM, (kac_solver_options){.n_steps = 5, .eta = 0},
               (const char *const[]){"loss", loss, "loss-target", "-3", "lr", "0.01", "batch", "16", "unit-gradient",
                                     "true", NULL},
               true);
    CHECK_OK(t.status);
    for (int i = 0; i < 400; i++) CHECK_OK(kac_trainer_round(&t.tr, &report));
    if (!CHECK(report.reward_mean > low && report.reward_mean < high)) printf("  %s: %g\n", loss, report.reward_mean);
    close_trial(&t);
}

static void no_number(const char *method) {
    trial t;
    kac_tune_report report;
    float good[TOY_VALUES];
    open_trial(&t, method, DDIM, (kac_solver_options){.n_steps = 5, .eta = 1},
               (const char *const[]){"batch", "20", "lr", "0.01", NULL}, true);
    CHECK_OK(t.status);
    for (int i = 0; i < 2; i++) CHECK_OK(kac_trainer_round(&t.tr, &report));
    memcpy(good, t.m.values, sizeof good);
    t.m.poison = (int)t.m.n_rewards + 3;
    CHECK_FAILS(kac_trainer_round(&t.tr, &report), KAC_E_NONFINITE, "round 3: the reward of sample 2 is");
    CHECK(memcmp(good, t.m.values, sizeof good) == 0 && t.tr.round == 2);
    close_trial(&t);
}

int main(void) {
    for (int i = 0; i < KAC_COUNT_OF(opt_cases); i++) optimizer(&opt_cases[i], i == 1 ? 0.2 : 0);
    rows_kept();
    policy_gradient();
    prompts_in_passes();
    refused();
    targets("distance", -3.6, -2.4);
    targets("hinge", -3.4, 0);
    no_number("alignprop");
    no_number("ddpo");
    no_number("nft");
    return check_done();
}
