/* The way back through a chain against central differences of the same chain written down once more, in double: every solver, masks,
 * guidance, clipped x0-hat, the distance to the base model, chains that end at x0-hat or begin late. */
#include "base/base.h"
#include "check.h"
#include "train/chain.h"
#include "util/toy_trainee.h"
#include <kac/rng.h>

enum { N = 7, MAX_ROWS = 40, SEED = 11, FIRST_SLOT = 3 };

#define SD "\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012,\"num_train_timesteps\":1000"

typedef struct setting {
    const char *name, *config;
    kac_solver_kind kind;
    int n_steps;
    double eta;
} setting;

static const setting settings[] = {
    {"ddim", "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"steps_offset\":1}", 0, 6, 0.0},
    {"ddim eta", "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"set_alpha_to_one\":false}", 0, 6,
     1.0},
    {"ddim clip", "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":true}", 0, 6, 0.5},
    {"ddim v", "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":false,\"prediction_type\":\"v_prediction\"}",
     0, 5, 0.7},
    {"ddim sample", "{\"_class_name\":\"DDIMScheduler\"," SD ",\"clip_sample\":true,\"prediction_type\":\"sample\"}", 0,
     5, 0.7},
    {"ddpm", "{\"_class_name\":\"DDPMScheduler\"," SD ",\"clip_sample\":true}", 0, 6, NAN},
    {"pndm", "{\"_class_name\":\"PNDMScheduler\"," SD "}", 0, 6, NAN},
    {"pndm plms", "{\"_class_name\":\"PNDMScheduler\"," SD ",\"skip_prk_steps\":true}", 0, 7, NAN},
    {"lms", "{\"_class_name\":\"LMSDiscreteScheduler\"," SD "}", 0, 6, NAN},
    {"euler", "{\"_class_name\":\"EulerDiscreteScheduler\"," SD "}", 0, 6, NAN},
    {"euler-ancestral", "{\"_class_name\":\"EulerAncestralDiscreteScheduler\"," SD "}", 0, 6, NAN},
    {"heun", "{\"_class_name\":\"HeunDiscreteScheduler\"," SD "}", 0, 5, NAN},
    {"dpm2", "{\"_class_name\":\"KDPM2DiscreteScheduler\"," SD "}", 0, 5, NAN},
    {"dpm2-ancestral", "{\"_class_name\":\"KDPM2AncestralDiscreteScheduler\"," SD "}", 0, 5, NAN},
    {"dpm++2m", "{\"_class_name\":\"DPMSolverMultistepScheduler\"," SD "}", 0, 6, NAN},
    {"dpm++3m", "{\"_class_name\":\"DPMSolverMultistepScheduler\"," SD ",\"solver_order\":3}", 0, 6, NAN},
    {"dpm++2m-sde", "{\"_class_name\":\"DPMSolverMultistepScheduler\"," SD "}", KAC_SOLVER_DPMPP_2M_SDE, 6, NAN},
    {"dpm++2s", "{\"_class_name\":\"DPMSolverSinglestepScheduler\"," SD "}", 0, 6, NAN},
    {"dpm++2s-sde", "{\"_class_name\":\"DPMSolverSinglestepScheduler\"," SD "}", KAC_SOLVER_DPMPP_2S_SDE, 6, NAN},
    {"deis", "{\"_class_name\":\"DEISMultistepScheduler\"," SD ",\"solver_order\":3}", 0, 6, NAN},
    {"unipc", "{\"_class_name\":\"UniPCMultistepScheduler\"," SD ",\"solver_order\":3}", 0, 6, NAN},
    {"lcm", "{\"_class_name\":\"LCMScheduler\"," SD ",\"clip_sample\":false}", 0, 4, NAN},
    {"tcd", "{\"_class_name\":\"TCDScheduler\"," SD ",\"clip_sample\":false}", 0, 4, NAN},
    {"flow-euler", "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":3.0}", 0, 6, NAN},
    {"flow-euler-sde", "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"stochastic_sampling\":true}", 0, 6, NAN},
    {"flow-heun", "{\"_class_name\":\"FlowMatchHeunDiscreteScheduler\"}", 0, 5, NAN},
};

static const int prompts[N] = {0, 3, 1, 1, 2, 0, 3};

static kac_status open_setting(toy *m, const setting *c) {
    const kac_solver_options o = {.kind = c->kind, .n_steps = c->n_steps, .eta = c->eta};
    KAC_TRY(toy_open(m, c->config, &o));
    m->bend = 0.2;
    m->l[1] = 0.3;
    for (int i = 0; i < TOY_VALUES; i++) m->values[i] += 0.02f * (float)((i * 7) % 5 - 2);
    return m->trainee.use(&m->trainee, m->values);
}

/* ---- the chain once more ---- */

typedef struct chain {
    const toy *m;
    const kac_chain_draw *draw;
    const kac_chain_plan *plan; /* NULL: no row is live */
    int n_rows;
    double x[MAX_ROWS + 1][N][TOY_D], out[MAX_ROWS][N][TOY_D],
        base[MAX_ROWS][N][TOY_D]; /* as drawn, for what is held constant */
} chain;

static double sum_of(const kac_sum *s, double x, double x0, double out, const double past[]) {
    double v = s->x * x + s->x0 * x0 + s->out * out;
    for (int j = 0; j < KAC_SOLVER_PAST; j++) v += s->past[j] * past[j];
    return v;
}

static void first_state(const chain *c, int sample, double x[TOY_D]) {
    float z[TOY_D];
    const int same = c->draw->same_start, from = same > 1 ? sample - sample % same : sample;
    kac_rng_normal(z, TOY_D, (kac_key){SEED, KAC_PURPOSE_INIT, 0}, (uint32_t)(FIRST_SLOT + from), 0);
    for (int j = 0; j < TOY_D; j++)
        x[j] = c->draw->start != NULL ? c->draw->start[sample * TOY_D + j] : c->m->solver.init_noise_sigma * z[j];
}

static void step_all(const kac_solver *s, int i_row, bool ends, const double *out, double x[TOY_D],
                     double past[TOY_D][KAC_SOLVER_PAST], const float *z) {
    const kac_solver_row *r = &s->rows[i_row];
    for (int j = 0; j < TOY_D; j++) {
        double x0 = r->x0_x * x[j] + r->x0_out * out[j], before[KAC_SOLVER_PAST];
        if (s->clip > 0) x0 = fmin(fmax(x0, -s->clip), s->clip);
        memcpy(before, past[j], sizeof before);
        for (int k = 0; k < KAC_SOLVER_PAST; k++) past[j][k] = sum_of(&r->past[k], x[j], x0, out[j], before);
        x[j] = ends ? x0 : sum_of(&r->next, x[j], x0, out[j], before) + r->z * z[j];
    }
}

/* The loss of one sample with parameters `values` where the plan keeps the network, and recorded outputs elsewhere. */
static double loss_of(chain *c, const double *values, const double *frozen, const double *base, int i, bool record) {
    const kac_solver *s = &c->m->solver;
    double x[TOY_D], past[TOY_D][KAC_SOLVER_PAST] = {{0}}, loss = 0;
    first_state(c, i, x);
    for (int i_row = c->draw->begin; i_row < c->n_rows; i_row++) {
        const kac_solver_row *r = &s->rows[i_row];
        const bool live = !record && c->plan->keep[i_row] && i_row >= c->plan->first;
        double out[TOY_D];
        float z[TOY_D];
        if (record) {
            memcpy(c->x[i_row][i], x, sizeof x);
            toy_out(c->m, frozen, x, r->c_in, r->timestep, prompts[i], c->draw->cfg_scale, c->out[i_row][i]);
            toy_out(c->m, base, x, r->c_in, r->timestep, prompts[i], c->draw->cfg_scale, c->base[i_row][i]);
        }
        memcpy(out, c->out[i_row][i], sizeof out);
        if (live)
            toy_out(c->m, values, c->plan->stop_input ? c->x[i_row][i] : x, r->c_in, r->timestep, prompts[i],
                    c->draw->cfg_scale, out);
        for (int j = 0; live && j < TOY_D; j++)
            loss += c->plan->kl / TOY_D * (out[j] - c->base[i_row][i][j]) * (out[j] - c->base[i_row][i][j]);
        kac_rng_normal(z, TOY_D, (kac_key){SEED, KAC_PURPOSE_STEP, (uint32_t)i_row}, (uint32_t)(FIRST_SLOT + i), 0);
        step_all(s, i_row, c->draw->n_rows > 0 && i_row == c->n_rows - 1, out, x, past, z);
    }
    memcpy(c->x[c->n_rows][i], x, sizeof x);
    return loss + toy_reward(c->m, x) / N;
}

static double loss_of_all(chain *c, const double *values, const double *frozen, const double *base, bool record) {
    double loss = 0;
    for (int i = 0; i < N; i++) loss += loss_of(c, values, frozen, base, i, record);
    return loss;
}

static chain reference; /* large */

/* Central differences by every parameter. */
static void differences(const toy *m, const kac_chain_draw *draw, const kac_chain_plan *plan, int n_rows,
                        double *grad) {
    double values[TOY_VALUES], frozen[TOY_VALUES], base[TOY_VALUES];
    for (int i = 0; i < TOY_VALUES; i++) values[i] = frozen[i] = m->values[i], base[i] = m->base[i];
    chain *c = &reference;
    c->m = m, c->draw = draw, c->plan = plan, c->n_rows = n_rows;
    loss_of_all(c, values, frozen, base, true);
    for (int i = 0; i < TOY_VALUES; i++) {
        const double h = 1e-5;
        values[i] = frozen[i] + h;
        const double up = loss_of_all(c, values, frozen, base, false);
        values[i] = frozen[i] - h;
        grad[i] = (up - loss_of_all(c, values, frozen, base, false)) / (2 * h);
        values[i] = frozen[i];
    }
}

/* ---- cases ---- */

static double largest(const double *a, int n) {
    double v = 0;
    for (int i = 0; i < n; i++) v = fmax(v, fabs(a[i]));
    return v;
}

static void compare(const char *name, toy *m, const kac_chain_draw *draw, const kac_chain_plan *plan) {
    kac_trainee *t = &m->trainee;
    kac_chain ch;
    double totals[N], want[TOY_VALUES], kl = 0, size = 0;
    float g[N * TOY_D];
    if (!CHECK_OK(kac_chain_open(&ch, t, N))) return;
    CHECK_OK(kac_chain_sample(&ch, draw));
    CHECK_OK(kac_chain_reward(&ch, totals, g));
    for (int i = 0; i < N * TOY_D; i++) g[i] /= N;
    memset(m->grads, 0, sizeof m->grads);
    const int n_use = m->n_use;
    CHECK_OK(kac_chain_backward(&ch, plan, g, &kl));
    CHECK(m->n_use == n_use + (plan->kl > 0 ? 2 : 0)); /* to the base model and back, or not at all */
    CHECK(memcmp(m->used, m->values, sizeof m->used) == 0);
    differences(m, draw, plan, ch.n_rows, want);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < TOY_D; j++) size = fmax(size, fabs(reference.x[ch.n_rows][i][j]));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < TOY_D; j++)
            CHECK_NEAR(ch.x0[i * TOY_D + j], reference.x[ch.n_rows][i][j], 2e-5 * (1 + size));
    const double tolerance = 3e-4 * (1e-3 + largest(want, TOY_VALUES));
    int bad = 0;
    for (int i = 0; i < TOY_VALUES; i++) bad += !(fabs(m->grads[i] - want[i]) <= tolerance);
    if (!CHECK(bad == 0)) {
        printf("  %s, cfg %g, kl %g, first %d, stop %d: %d of %d wrong\n", name, draw->cfg_scale, plan->kl, plan->first,
               plan->stop_input, bad, TOY_VALUES);
        for (int i = 0; i < TOY_VALUES; i += 5) printf("    %d: %g, wanted %g\n", i, m->grads[i], want[i]);
    }
    CHECK(plan->kl == 0 ? kl == 0 : kl > 0);
    kac_chain_close(&ch);
}

static void try_masks(const setting *c) {
    toy m;
    if (!CHECK_OK(open_setting(&m, c))) {
        printf("  %s\n", c->name);
        return;
    }
    const int n_rows = KAC_MIN(m.solver.n_steps, MAX_ROWS);
    bool all[MAX_ROWS] = {false}, some[MAX_ROWS] = {false}, last[MAX_ROWS] = {false}, none[MAX_ROWS] = {false};
    CHECK(n_rows == m.solver.n_steps);
    for (int i = 0; i < n_rows; i++) all[i] = true, some[i] = (i * 5) % 3 != 1, last[i] = i >= n_rows - 2;
    const kac_chain_draw plain = {.prompt = prompts, .seed = SEED, .first_slot = FIRST_SLOT, .cfg_scale = 1};
    kac_chain_draw guided = plain, to_x0 = plain, same = plain;
    guided.cfg_scale = 3;
    to_x0.n_rows = n_rows - 2;
    same.same_start = 3;
    compare(c->name, &m, &plain, &(kac_chain_plan){.keep = all});
    compare(c->name, &m, &guided, &(kac_chain_plan){.keep = some});
    compare(c->name, &m, &guided, &(kac_chain_plan){.keep = some, .stop_input = true});
    compare(c->name, &m, &plain, &(kac_chain_plan){.keep = some, .kl = 0.7});
    compare(c->name, &m, &same, &(kac_chain_plan){.keep = last});
    compare(c->name, &m, &plain, &(kac_chain_plan){.keep = all, .first = n_rows - 3});
    compare(c->name, &m, &plain, &(kac_chain_plan){.keep = none});
    compare(c->name, &m, &to_x0, &(kac_chain_plan){.keep = all});
    float start[N * TOY_D];
    for (int i = 0; i < N * TOY_D; i++) start[i] = 0.1f * (float)(i % 7) - 0.3f;
    kac_chain_draw late = plain;
    late.begin = n_rows - 1, late.start = start, late.n_rows = n_rows;
    compare(c->name, &m, &late, &(kac_chain_plan){.keep = all});
    toy_close(&m);
}

/* What clips: the mask must matter, or the cases above would not see it. */
static void clipping_is_used(void) {
    toy m;
    kac_chain ch;
    int n_clipped = 0;
    CHECK_OK(open_setting(&m, &settings[2]));
    CHECK_OK(kac_chain_open(&ch, &m.trainee, N));
    CHECK_OK(kac_chain_sample(
        &ch, &(kac_chain_draw){.prompt = prompts, .seed = SEED, .first_slot = FIRST_SLOT, .cfg_scale = 1}));
    for (int i = 0; i < ch.n_rows * N * TOY_D; i++) n_clipped += !ch.inside[i];
    CHECK(n_clipped > 5 && n_clipped < ch.n_rows * N * TOY_D - 5);
    kac_chain_close(&ch);
    toy_close(&m);
}

static void refused(void) {
    toy m;
    kac_chain ch;
    const kac_solver_options o = {.n_steps = 5, .eta = NAN};
    CHECK_OK(toy_open(&m, "{\"_class_name\":\"DDIMScheduler\"," SD ",\"thresholding\":true}", &o));
    CHECK_FAILS(kac_chain_open(&ch, &m.trainee, N), KAC_E_UNSUPPORTED, "thresholding");
    toy_close(&m);
    CHECK_OK(toy_open(&m, "{\"_class_name\":\"DDPMScheduler\"," SD ",\"variance_type\":\"learned_range\"}", &o));
    CHECK_FAILS(kac_chain_open(&ch, &m.trainee, N), KAC_E_UNSUPPORTED, "variance_type");
    toy_close(&m);
    CHECK_OK(open_setting(&m, &settings[15]));
    CHECK_OK(kac_chain_open(&ch, &m.trainee, N));
    const float start[N * TOY_D] = {0};
    CHECK_FAILS(kac_chain_sample(
                    &ch, &(kac_chain_draw){.prompt = prompts, .seed = 1, .cfg_scale = 1, .begin = 2, .start = start}),
                KAC_E_UNSUPPORTED, "keeps some");
    m.values[0] = NAN;
    CHECK_OK(m.trainee.use(&m.trainee, m.values));
    CHECK_FAILS(kac_chain_sample(&ch, &(kac_chain_draw){.prompt = prompts, .seed = 1, .cfg_scale = 1}), KAC_E_NONFINITE,
                "sample 0");
    kac_chain_close(&ch);
    toy_close(&m);
}

int main(void) {
    for (int i = 0; i < KAC_COUNT_OF(settings); i++) try_masks(&settings[i]);
    clipping_is_used();
    refused();
    return check_done();
}
