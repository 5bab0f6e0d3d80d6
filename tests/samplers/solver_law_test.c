/* What a solver must do to a process whose law is known: samples of N(m, s²), seen by a network that predicts exactly.
 * Every row is linear then, so the mean and covariance of (state, past) are followed exactly, without sampling.
 *
 *  - Without noise the solver integrates an ODE with a known solution; halving the steps' size must divide its error by
 *    2 to the method's order.
 *  - With noise and s = 0 the network's x0-hat is the sample itself, and the law of every state must be the process's own
 *    at every step; with s > 0 the law must be approached as the steps get smaller. */
#include "base/base.h"
#include "check.h"
#include "samplers/solver.h"

enum { D = 1 + KAC_SOLVER_PAST };

typedef struct law {
    double mean[D], cov[D][D];
} law;

typedef struct affine { /* value = offset + weight · (x, past) */
    double offset, weight[D];
} affine;

static affine weigh(const kac_sum *s, affine x0, affine out) {
    affine v = {.offset = s->x0 * x0.offset + s->out * out.offset,
                .weight = {s->x + s->x0 * x0.weight[0] + s->out * out.weight[0]}};
    for (int j = 0; j < KAC_SOLVER_PAST; j++) v.weight[1 + j] = s->past[j];
    return v;
}

/* The exact network's output at a state alpha · x_0 + sigma · noise, x_0 ~ N(m, s²). */
static affine network(const kac_solver_row *r, kac_prediction prediction, double m, double s) {
    const double a = r->alpha, b = r->sigma, gain = a * s * s / (a * a * s * s + b * b), norm = sqrt(a * a + b * b);
    const affine x0 = {m * (1 - gain * a), {gain}};
    const affine eps = {-a * x0.offset / b, {(1 - a * x0.weight[0]) / b}};
    affine out = prediction == KAC_PREDICT_EPSILON ? eps : x0;
    if (prediction == KAC_PREDICT_V)
        out = (affine){(a * eps.offset - b * x0.offset) / norm, {(a * eps.weight[0] - b * x0.weight[0]) / norm}};
    if (prediction == KAC_PREDICT_FLOW) out = (affine){eps.offset - x0.offset, {eps.weight[0] - x0.weight[0]}};
    return out;
}

static law follow(law l, const kac_solver_row *r, affine out) {
    const affine x0 = {r->x0_out * out.offset, {r->x0_x + r->x0_out * out.weight[0]}};
    law next = {{0}, {{0}}};
    affine row[D];
    for (int i = 0; i < D; i++) row[i] = weigh(i == 0 ? &r->next : &r->past[i - 1], x0, out);
    for (int i = 0; i < D; i++) {
        next.mean[i] = row[i].offset;
        for (int k = 0; k < D; k++) next.mean[i] += row[i].weight[k] * l.mean[k];
        for (int j = 0; j < D; j++)
            for (int k = 0; k < D; k++)
                for (int q = 0; q < D; q++) next.cov[i][j] += row[i].weight[k] * l.cov[k][q] * row[j].weight[q];
    }
    next.cov[0][0] += r->z * r->z;
    return next;
}

/* The largest error of mean and deviation, in units of the process's own deviation: over all states, or of the last one
 * with at least timestep t_end. What follows the last row is left out: it goes to sigma 0 in one go. */
static double law_error(const kac_solver *s, kac_prediction prediction, double deviation, bool all, double t_end) {
    const double m = 0.7;
    const kac_solver_row *r = s->rows;
    law l = {{r->alpha * m}, {{r->alpha * r->alpha * deviation * deviation + r->sigma * r->sigma}}};
    double worst = 0;
    for (int i = 0; i + 1 < s->n_steps && r[i + 1].timestep >= t_end; i++) {
        l = follow(l, &r[i], network(&r[i], prediction, m, deviation));
        const double a = r[i + 1].alpha, b = r[i + 1].sigma, own = sqrt(a * a * deviation * deviation + b * b);
        const double error = fmax(fabs(l.mean[0] - a * m), fabs(sqrt(fmax(l.cov[0][0], 0)) - own)) / own;
        worst = all ? fmax(worst, error) : error;
    }
    return worst;
}

enum { T = 24000 }; /* fine training steps, that the numbers of steps below divide */

typedef struct method {
    const char *class_name, *keys;
    double order; /* of convergence */
    double eta;
    double t_end; /* methods on timesteps: stop before the singular end at 0 */
} method;

/* Even in log sigma, or by timestep when the class knows nothing else. */
static void write_config(char *text, size_t n, const method *m) {
    static const char common[] =
        "\"beta_start\": 4e-6, \"beta_end\": 8e-4, \"clip_sample\": false, \"prediction_type\": "
        "\"v_prediction\", \"timestep_spacing\": \"trailing\", \"use_exponential_sigmas\": "
        "true, \"sigma_min\": 0.05, \"sigma_max\": 20.0";
    const bool flow = strncmp(m->class_name, "Flow", 4) == 0;
    snprintf(text, n, "{\"_class_name\": \"%sScheduler\", \"num_train_timesteps\": %d%s%s%s}", m->class_name, T,
             m->keys, flow ? "" : ", ", flow ? "" : common);
}

static double error_at(const method *m, int n_steps, double deviation, bool all) {
    char text[1024];
    write_config(text, sizeof text, m);
    kac_schedule schedule;
    kac_solver s;
    if (!CHECK_OK(kac_schedule_parse(&schedule, text, strlen(text), m->class_name))) return NAN;
    double error = NAN;
    if (CHECK_OK(kac_solver_init(&s, &schedule, &(kac_solver_options){.n_steps = n_steps, .eta = m->eta})))
        error = law_error(&s, schedule.prediction, deviation, all, m->t_end);
    kac_solver_free(&s);
    kac_schedule_free(&schedule);
    return error;
}

#define EPSILON ", \"prediction_type\": \"epsilon\"" /* pndm extrapolates outputs: v beside an old x is of order 1 */
#define NOISE_MODEL ", \"algorithm_type\": \"dpmsolver\", \"final_sigmas_type\": \"sigma_min\""

static const method deterministic[] = {
    {"DDIM", "", 1, 0, T / 3.0},
    {"EulerDiscrete", "", 1, NAN, 0},
    {"HeunDiscrete", "", 2, NAN, 0},
    {"KDPM2Discrete", "", 2, NAN, 0},
    {"LMSDiscrete", "", 4, NAN, 0}, /* its start of lower order is not seen yet */
    {"PNDM", EPSILON ", \"skip_prk_steps\": true", 2, NAN, T / 3.0},
    {"PNDM", EPSILON, 2, NAN, T / 3.0},
    {"DPMSolverMultistep", ", \"solver_order\": 1", 1, NAN, 0},
    {"DPMSolverMultistep", "", 2, NAN, 0},
    {"DPMSolverMultistep", ", \"solver_type\": \"heun\"", 2, NAN, 0},
    /* The reference's third order multistep takes half of the second derivative: small errors, but of order 2. */
    {"DPMSolverMultistep", ", \"solver_order\": 3", 2, NAN, 0},
    {"DPMSolverMultistep", NOISE_MODEL, 2, NAN, 0},
    {"DPMSolverMultistep", NOISE_MODEL ", \"solver_order\": 3", 2, NAN, 0},
    {"DPMSolverSinglestep", "", 2, NAN, 0},
    {"DPMSolverSinglestep", ", \"solver_type\": \"heun\"", 2, NAN, 0},
    {"DPMSolverSinglestep", ", \"solver_order\": 3", 3, NAN, 0},
    {"DPMSolverSinglestep", ", \"solver_order\": 3, \"solver_type\": \"heun\"", 3, NAN, 0},
    {"DEISMultistep", "", 2, NAN, 0},
    {"DEISMultistep", ", \"solver_order\": 3", 3, NAN, 0},
    {"UniPCMultistep", ", \"solver_order\": 1", 2, NAN, 0},
    {"UniPCMultistep", "", 3, NAN, 0},
    {"UniPCMultistep", ", \"solver_order\": 3", 3, NAN, 0},
    {"UniPCMultistep", ", \"solver_type\": \"bh1\"", 3, NAN, 0},
    {"UniPCMultistep", ", \"predict_x0\": false, \"final_sigmas_type\": \"sigma_min\"", 3, NAN, 0},
    {"FlowMatchEulerDiscrete", "", 1, NAN, 0},
    {"FlowMatchEulerDiscrete", ", \"shift\": 3.0", 1, NAN, 0},
    {"FlowMatchHeunDiscrete", "", 2, NAN, 0},
};

/* 61 and 121: whole groups of a singlestep solver up to the last row. */
static void test_orders(void) {
    for (int i = 0; i < KAC_COUNT_OF(deterministic); i++) {
        const method *m = &deterministic[i];
        const int odd = m->t_end == 0;
        const double coarse = error_at(m, 60 + odd, 0.5, false), fine = error_at(m, 120 + odd, 0.5, false);
        const double order = log2(coarse / fine);
        if (!CHECK(order > m->order - 0.35 && order < m->order + 0.8))
            printf("  %s%s: order %.2f, not %g; errors %.2e, %.2e\n", m->class_name, m->keys, order, m->order, coarse,
                   fine);
    }
}

/* Order 0: a method for networks that jump to the sample; with one that predicts its mean the law never becomes exact. */
static const method stochastic[] = {
    {"DDIM", "", 1, 1, T / 3.0},
    {"DDIM", "", 1, 0.4, T / 3.0},
    {"DDPM", "", 1, NAN, T / 3.0},
    {"EulerAncestralDiscrete", "", 1, NAN, T / 3.0},
    {"KDPM2AncestralDiscrete", "", 1, NAN, 0},
    {"DPMSolverMultistep", ", \"algorithm_type\": \"sde-dpmsolver++\"", 1, NAN, 0},
    {"DPMSolverMultistep", ", \"algorithm_type\": \"sde-dpmsolver++\", \"solver_order\": 1", 1, NAN, 0},
    {"DPMSolverMultistep", ", \"algorithm_type\": \"sde-dpmsolver++\", \"solver_order\": 3", 1, NAN, 0},
    {"DPMSolverSinglestep", ", \"algorithm_type\": \"sde-dpmsolver++\"", 1, NAN, 0},
    {"TCD", ", \"original_inference_steps\": 120", 0, 0.3, 0},
    {"LCM", "", 0, NAN, 0},
    {"FlowMatchEulerDiscrete", ", \"stochastic_sampling\": true", 0, NAN, 0},
};

static void test_marginals(void) {
    for (int i = 0; i < KAC_COUNT_OF(stochastic); i++) {
        const method *m = &stochastic[i];
        const double exact = error_at(m, 30, 0, true);
        if (!CHECK(exact < 1e-6)) printf("  %s%s: s = 0, error %.2e\n", m->class_name, m->keys, exact);
        if (m->order == 0) continue;
        const int odd = m->t_end == 0;
        const double coarse = error_at(m, 60 + odd, 0.5, false), fine = error_at(m, 120 + odd, 0.5, false);
        const double order = log2(coarse / fine);
        if (!CHECK(order > m->order - 0.2))
            printf("  %s%s: order %.2f; errors %.2e, %.2e\n", m->class_name, m->keys, order, coarse, fine);
    }
}

int main(void) {
    test_orders();
    test_marginals();
    return check_done();
}
