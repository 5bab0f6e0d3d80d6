/* The gradients of ddpo, dpo-online, nft and raft against central differences of their losses, written down once more from the formulas and
 * in double; with β1 = 0 AdamW's first moment is the gradient of the last update. */
#include "base/base.h"
#include "check.h"
#include "nn/optimizer.h"
#include "train/chain.h"
#include "train/methods.h"
#include "train/noised.h"
#include "util/toy_trainee.h"

#define SD "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,\"num_train_timesteps\":1000"
#define DDIM                                                                                                           \
    "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"steps_offset\":1,\"set_alpha_to_one\":false}"
#define DDIM_END                                                                                                       \
    "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":true,\"clip_sample_range\":1.5,\"steps_offset\":1}"
#define DDIM_V "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"prediction_type\":\"v_prediction\"}"
#define ANCESTRAL "{\"_class_name\":\"EulerAncestralDiscreteScheduler\"," SD "}"
#define FLOW "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"stochastic_sampling\":true}"

enum { N_STEPS = 4, N = 16, S = TOY_D };

typedef struct trial {
    toy m;
    kac_trainer tr;
    kac_options *o;
    kac_chain ch; /* of the round that the trainer is about to run */
    int prompt[N];
    double totals[N], cfg;
    double old[TOY_VALUES];
} trial;

static const kac_option_spec command[] = {{"cfg-scale", 0, KAC_OPT_REAL, "1", 0, 100, NULL, "X", "guidance", false},
                                          KAC_TUNE_OPTIONS_END};

static void to_double(double *out, const float *in, int n) {
    for (int i = 0; i < n; i++) out[i] = in[i];
}

static void open_trial(trial *t, const char *method, const char *config, double eta, const char *const *options) {
    const char *const always[] = {"beta1", "0", "clip", "0", "weight-decay", "0", "batch", "16", "kl", "0.3", NULL};
    const kac_tune_method *m = kac_tune_method_find(method);
    *t = (trial){0};
    CHECK_OK(toy_open(&t->m, config, &(kac_solver_options){.n_steps = N_STEPS, .eta = eta}));
    for (int i = 0; i < TOY_VALUES; i++) t->m.values[i] += 0.01f * (float)((i * 7) % 5 - 2);
    t->m.bend = 0.1;
    t->o = kac_options_create(kac_trainer_options);
    CHECK_OK(kac_options_add(t->o, command));
    CHECK_OK(kac_options_add(t->o, m->options));
    for (int i = 0; always[i] != NULL; i += 2) CHECK_OK(kac_options_set(t->o, always[i], always[i + 1]));
    for (int i = 0; options[i] != NULL; i += 2) CHECK_OK(kac_options_set(t->o, options[i], options[i + 1]));
    CHECK_OK(kac_trainer_open(&t->tr, &t->m.trainee, m, t->o, 21));
    CHECK_OK(kac_chain_open(&t->ch, &t->m.trainee, N));
    t->cfg = kac_options_real(t->o, "cfg-scale");
}

static void close_trial(trial *t) {
    kac_chain_close(&t->ch);
    kac_trainer_close(&t->tr);
    kac_options_destroy(t->o);
    toy_close(&t->m);
}

/* The samples that the next round will draw. */
static void foresee(trial *t, int group, int same, const float *policy) {
    kac_trainee *e = &t->m.trainee;
    for (int i = 0; i < N; i++) t->prompt[i] = kac_trainer_prompt(&t->tr, i, group);
    to_double(t->old, policy, TOY_VALUES);
    CHECK_OK(e->use(e, policy));
    CHECK_OK(kac_chain_sample(&t->ch, &(kac_chain_draw){.prompt = t->prompt,
                                                        .seed = kac_trainer_seed(&t->tr, 0),
                                                        .cfg_scale = t->cfg,
                                                        .same_start = same}));
    CHECK_OK(kac_chain_reward(&t->ch, t->totals, NULL));
    CHECK_OK(e->use(e, e->values));
}

typedef double (*loss_of)(const trial *t, const double *values);

static void compare(const char *name, const trial *t, const float *at, loss_of loss) {
    double values[TOY_VALUES], want[TOY_VALUES], size = 0;
    int bad = 0;
    to_double(values, at, TOY_VALUES);
    for (int i = 0; i < TOY_VALUES; i++) {
        const double h = 1e-6, v = values[i];
        values[i] = v + h;
        const double up = loss(t, values);
        values[i] = v - h;
        want[i] = (up - loss(t, values)) / (2 * h);
        values[i] = v;
        size = fmax(size, fabs(want[i]));
    }
    CHECK(size > 1e-3);
    for (int i = 0; i < TOY_VALUES; i++) bad += !(fabs(t->tr.optimizer->m[i] - want[i]) <= 1e-3 * size);
    if (CHECK(bad == 0)) return;
    printf("  %s: %d of %d wrong\n", name, bad, TOY_VALUES);
    for (int i = 0; i < TOY_VALUES; i += 4) printf("    %d: %g, wanted %g\n", i, t->tr.optimizer->m[i], want[i]);
}

/* ---- what losses are made of ---- */

static void out_at(const trial *t, const double *values, const float *x, int i_row, int prompt, double cfg,
                   double out[S]) {
    const kac_solver_row *r = &t->m.solver.rows[i_row];
    double v[S];
    to_double(v, x, S);
    toy_out(&t->m, values, v, r->c_in, r->timestep, prompt, cfg, out);
}

static double log_p(const trial *t, const double *values, int i_row, int i) {
    const kac_solver *s = &t->m.solver;
    const kac_solver_row *r = &s->rows[i_row];
    const float *x = kac_chain_state(&t->ch, i_row, i), *next = kac_chain_state(&t->ch, i_row + 1, i);
    double out[S], sum = 0;
    out_at(t, values, x, i_row, t->prompt[i], t->cfg, out);
    for (int j = 0; j < S; j++) {
        double x0 = r->x0_x * x[j] + r->x0_out * out[j];
        if (s->clip > 0) x0 = fmin(fmax(x0, -s->clip), s->clip);
        const double d = next[j] - (r->next.x * x[j] + r->next.x0 * x0 + r->next.out * out[j]);
        sum += -0.5 * d * d / (r->z * r->z) / S;
    }
    return sum;
}

/* mean (out − out of the base model)² */
static double kl_at(const trial *t, const double *values, const float *x, int i_row, int prompt, double cfg) {
    double base[TOY_VALUES], a[S], b[S], sum = 0;
    to_double(base, t->m.base, TOY_VALUES);
    out_at(t, values, x, i_row, prompt, cfg, a);
    out_at(t, base, x, i_row, prompt, cfg, b);
    for (int j = 0; j < S; j++) sum += (a[j] - b[j]) * (a[j] - b[j]) / S;
    return sum;
}

static int rows_with_noise(const trial *t) {
    int n = 0;
    while (n < t->m.solver.n_steps && t->m.solver.rows[n].z > 0) n++;
    return n;
}

static void advantages(const trial *t, double a[N]) {
    double mean = 0, square = 0;
    for (int i = 0; i < N; i++) mean += t->totals[i] / N;
    for (int i = 0; i < N; i++) square += (t->totals[i] - mean) * (t->totals[i] - mean) / N;
    for (int i = 0; i < N; i++) a[i] = fmin(fmax((t->totals[i] - mean) / (sqrt(square) + 1e-6), -1.2), 1.2);
}

/* ---- ddpo: the second update, whose ratios are not 1, some of them clipped ---- */

static double range_now;

static double ddpo_loss(const trial *t, const double *values) {
    const int n_rows = rows_with_noise(t);
    double a[N], loss = 0;
    advantages(t, a);
    for (int i = 0; i < N; i++)
        for (int r = 0; r < n_rows; r++) {
            const double ratio = exp(log_p(t, values, r, i) - log_p(t, t->old, r, i));
            loss += fmax(-a[i] * ratio, -a[i] * fmin(fmax(ratio, 1 - range_now), 1 + range_now)) / (N * n_rows);
            loss += 0.3 * kl_at(t, values, kac_chain_state(&t->ch, r, i), r, t->prompt[i], t->cfg) / (N * n_rows);
        }
    return loss;
}

static void ddpo(const char *config, double eta, const char *cfg, const char *range, double lr) {
    float first[TOY_VALUES];
    char rate[32];
    kac_tune_report report;
    snprintf(rate, sizeof rate, "%g", lr);
    for (int passes = 1; passes <= 2; passes++) {
        trial t;
        open_trial(&t, "ddpo", config, eta,
                   (const char *const[]){"updates", "1", "passes", passes == 1 ? "1" : "2", "track", "0", "clip-range",
                                         range, "advantage-clip", "1.2", "cfg-scale", cfg, "lr", rate, NULL});
        float start[TOY_VALUES];
        memcpy(start, t.m.values, sizeof start);
        foresee(&t, 1, 1, start);
        CHECK_OK(kac_trainer_round(&t.tr, &report));
        double share_clipped = 0;
        range_now = kac_options_real(t.o, "clip-range");
        for (int i = 0; i < report.n_extras; i++) {
            if (strcmp(report.extra[i].name, "first_ratio") == 0) CHECK(report.extra[i].value == 1.0);
            if (strcmp(report.extra[i].name, "clip_fraction") == 0) share_clipped = report.extra[i].value;
        }
        CHECK(passes == 1 ? share_clipped == 0 : share_clipped > 0.1 && share_clipped < 0.49); /* of both passes */
        compare(passes == 1 ? "ddpo, first update" : "ddpo, second", &t, passes == 1 ? start : first, ddpo_loss);
        memcpy(first, t.m.values, sizeof first);
        close_trial(&t);
    }
}

/* ---- dpo-online ---- */

static double dpo_loss(const trial *t, const double *values) {
    const int n_rows = rows_with_noise(t), group = 4;
    double base[TOY_VALUES], loss = 0;
    to_double(base, t->m.base, TOY_VALUES);
    for (int g = 0; g < N; g += group) {
        int win = g, lose = g;
        for (int i = g; i < g + group; i++) {
            if (t->totals[i] > t->totals[win]) win = i;
            if (t->totals[i] < t->totals[lose]) lose = i;
        }
        for (int r = 0; r < n_rows; r++) {
            double l[2];
            for (int k = 0; k < 2; k++) {
                const int i = k == 0 ? win : lose;
                const double ratio = exp(log_p(t, values, r, i) - log_p(t, base, r, i));
                l[k] = log(fmin(fmax(ratio, 1 - range_now), 1 + range_now));
                loss += 0.3 * 0.5 * kl_at(t, values, kac_chain_state(&t->ch, r, i), r, t->prompt[i], t->cfg) /
                        (N / group * n_rows);
            }
            loss += log(1 + exp(-2.0 * (l[0] - l[1]))) / (N / group * n_rows);
        }
    }
    return loss;
}

static void dpo(const char *config, double eta, const char *cfg, const char *range, bool same) {
    trial t;
    open_trial(&t, "dpo-online", config, eta,
               (const char *const[]){"group", "4", "beta", "2", "clip-range", range, "same-noise",
                                     same ? "true" : "false", "lr", "0", "cfg-scale", cfg, NULL});
    range_now = kac_options_real(t.o, "clip-range");
    foresee(&t, 4, same ? 4 : 1, t.m.values);
    CHECK_OK(kac_trainer_round(&t.tr, NULL));
    compare("dpo-online", &t, t.m.values, dpo_loss);
    close_trial(&t);
}

/* ---- nft: the second round, where the old policy and θ differ ---- */

enum { LEVELS = 3 };
static kac_noised noised;
static double beta_now;

static double nft_loss(const trial *t, const double *values) {
    double a[N], loss = 0;
    advantages(t, a);
    for (int e = 0; e < N * LEVELS; e++) {
        const kac_solver_row *r = &t->m.solver.rows[noised.row[e]];
        const float *x = noised.x + e * S, *x0 = kac_chain_state(&t->ch, t->ch.n_rows, e / LEVELS);
        const double w = fmin(fmax(a[e / LEVELS] / 1.2 / 2 + 0.5, 0), 1);
        double now[TOY_VALUES], mine[S], fixed[S], old[S], square[2] = {0}, size[2] = {0};
        to_double(now, t->m.values, TOY_VALUES);
        out_at(t, values, x, noised.row[e], t->prompt[e / LEVELS], t->cfg, mine);
        out_at(t, now, x, noised.row[e], t->prompt[e / LEVELS], t->cfg, fixed); /* for what has no slope */
        out_at(t, t->old, x, noised.row[e], t->prompt[e / LEVELS], t->cfg, old);
        for (int k = 0; k < 2; k++)
            for (int j = 0; j < S; j++) {
                const double b = k == 0 ? beta_now : -beta_now;
                const double error = r->x0_x * x[j] + r->x0_out * ((1 - b) * old[j] + b * mine[j]) - x0[j];
                square[k] += error * error / S;
                size[k] += fabs(r->x0_x * x[j] + r->x0_out * ((1 - b) * old[j] + b * fixed[j]) - x0[j]) / S;
            }
        loss += 1.2 / beta_now * (w * square[0] / size[0] + (1 - w) * square[1] / size[1]) / (N * LEVELS);
        loss += 0.3 * kl_at(t, values, x, noised.row[e], t->prompt[e / LEVELS], t->cfg) / (N * LEVELS);
    }
    return loss;
}

static const float *old_policy(trial *t) {
    kac_trainer_piece p[KAC_TRAINER_PIECES];
    const int n = kac_trainer_state(&t->tr, p);
    CHECK_TEXT(p[n - 1].name, "method");
    return (const float *)((char *)p[n - 1].data + p[n - 1].n_bytes) - TOY_VALUES;
}

static void nft(const char *config, double eta, const char *cfg, const char *beta) {
    trial t;
    float old[TOY_VALUES];
    open_trial(&t, "nft", config, eta,
               (const char *const[]){"levels",         "3",   "beta",        beta,     "track",      "0",
                                     "advantage-clip", "1.2", "lr",          "0.05",   "old-rise",   "0.7",
                                     "old-most",       "0.7", "lr-schedule", "linear", "lr-updates", "1",
                                     "cfg-scale",      cfg,   NULL});
    memcpy(old, t.m.values, sizeof old);
    CHECK(memcmp(old_policy(&t), old, sizeof old) == 0);
    CHECK_OK(kac_trainer_round(&t.tr, NULL));
    for (int i = 0; i < TOY_VALUES; i++) CHECK_NEAR(old_policy(&t)[i], 0.7 * old[i] + 0.3 * t.m.values[i], 1e-6);
    memcpy(old, old_policy(&t), sizeof old);
    foresee(&t, 1, 1, old);
    CHECK_OK(kac_noised_open(&noised, &t.m.trainee, N * LEVELS));
    for (int e = 0; e < N * LEVELS; e++)
        kac_noised_set(&noised, &t.tr, 1, e, kac_chain_state(&t.ch, t.ch.n_rows, e / LEVELS), t.prompt[e / LEVELS],
                       e / LEVELS);
    CHECK_OK(kac_trainer_round(&t.tr, NULL)); /* at rate 0: θ stays */
    beta_now = kac_options_real(t.o, "beta");
    compare("nft", &t, t.m.values, nft_loss);
    kac_noised_close(&noised);
    close_trial(&t);
}

/* ---- raft ---- */

static double raft_loss(const trial *t, const double *values) {
    double loss = 0;
    for (int e = 0; e < N / 8 * LEVELS; e++) {
        const kac_solver_row *r = &t->m.solver.rows[noised.row[e]];
        const float *x = noised.x + e * S;
        int best = e / LEVELS * 8;
        for (int i = best; i < (e / LEVELS + 1) * 8; i++)
            if (t->totals[i] > t->totals[best]) best = i;
        const float *x0 = kac_chain_state(&t->ch, t->ch.n_rows, best);
        double out[S];
        out_at(t, values, x, noised.row[e], t->prompt[best], 1, out);
        for (int j = 0; j < S; j++) { /* what was predicted is noise here */
            const double noise = (x[j] - r->alpha * x0[j]) / r->sigma;
            loss += (out[j] - noise) * (out[j] - noise) / (S * N / 8 * LEVELS);
        }
        loss += 0.3 * kl_at(t, values, x, noised.row[e], t->prompt[best], 1) / (N / 8 * LEVELS);
    }
    return loss;
}

static void raft(void) {
    trial t;
    open_trial(&t, "raft", DDIM, 0,
               (const char *const[]){"group", "8", "levels", "3", "lr", "0", "cfg-scale", "2", NULL});
    foresee(&t, 8, 1, t.m.values);
    CHECK_OK(kac_noised_open(&noised, &t.m.trainee, N / 8 * LEVELS));
    for (int e = 0; e < N / 8 * LEVELS; e++) {
        int best = e / LEVELS * 8;
        for (int i = best; i < (e / LEVELS + 1) * 8; i++)
            if (t.totals[i] > t.totals[best]) best = i;
        kac_noised_set(&noised, &t.tr, 1, e, kac_chain_state(&t.ch, t.ch.n_rows, best), t.prompt[best], best);
    }
    CHECK_OK(kac_trainer_round(&t.tr, NULL));
    compare("raft", &t, t.m.values, raft_loss);
    kac_noised_close(&noised);
    close_trial(&t);
}

int main(void) {
    ddpo(DDIM, 1, "1", "0.02", 0.004);
    ddpo(DDIM_END, 0.7, "3", "0.02", 0.004);
    ddpo(ANCESTRAL, NAN, "2", "0.02", 0.004);
    ddpo(FLOW, NAN, "1", "0.02", 0.004);
    dpo(DDIM, 1, "1", "0.5", true);
    dpo(DDIM_V, 1, "2", "0.05", false);
    nft(DDIM, 0, "1", "1");
    nft(DDIM_V, 1, "2", "0.1");
    nft(FLOW, NAN, "1", "0.5");
    raft();
    return check_done();
}
