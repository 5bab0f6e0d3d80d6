#include "util/toy_trainee.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

void toy_out(const toy *m, const double *values, const double *x, double c_in, double timestep, int prompt,
             double cfg_scale, double *out) {
    const double s = cfg_scale > 1.0 ? cfg_scale : 1.0;
    for (int i = 0; i < TOY_D; i++) {
        double v = 0.0;
        for (int j = 0; j < TOY_D; j++) v += values[i * TOY_D + j] * c_in * x[j];
        v += timestep / 1000.0 * values[TOY_TIME + i] + m->bend * sin(c_in * x[i]);
        out[i] = v + s * values[TOY_BIAS + prompt * TOY_D + i] + (1.0 - s) * values[TOY_NONE + i];
    }
}

double toy_reward(const toy *m, const double *x0) {
    double r = 0.0;
    for (int j = 0; j < TOY_D; j++) r += m->q[j] * (x0[j] - m->goal[j]) * (x0[j] - m->goal[j]) + m->l[j] * x0[j];
    return r;
}

static void to_double(double *out, const float *in, int n) {
    for (int i = 0; i < n; i++) out[i] = in[i];
}

static kac_status use(kac_trainee *t, const float *values) {
    toy *m = t->self;
    m->n_use++;
    memcpy(m->used, values == NULL ? m->base : values, sizeof m->used);
    return KAC_OK;
}

static void forward(toy *m, const kac_denoise *in, float *out) {
    double values[TOY_VALUES];
    to_double(values, m->used, TOY_VALUES);
    for (int i = 0; i < in->n; i++) {
        double x[TOY_D], o[TOY_D];
        to_double(x, in->x + i * TOY_D, TOY_D);
        toy_out(m, values, x, in->c_in == NULL ? 1.0 : in->c_in[i], in->timestep[i], in->prompt[i], in->cfg_scale, o);
        for (int j = 0; j < TOY_D; j++) out[i * TOY_D + j] = (float)o[j];
    }
}

static kac_status predict(kac_trainee *t, const kac_denoise *in, float *out) {
    if (in->n < 1 || in->n > t->batch) return KAC_FAIL(KAC_E_USAGE, "%d states in one call", in->n);
    forward(t->self, in, out);
    t->counts.denoiser += in->n;
    return KAC_OK;
}

enum { MAX_BATCH = 64 };

static kac_status backward(kac_trainee *t, const kac_denoise *in, kac_output_loss loss, void *self, float *d_x) {
    toy *m = t->self;
    float out[MAX_BATCH * TOY_D], d_out[MAX_BATCH * TOY_D];
    if (in->n < 1 || in->n > t->batch) return KAC_FAIL(KAC_E_USAGE, "%d states in one call", in->n);
    forward(m, in, out);
    KAC_TRY(loss(self, in, out, d_out));
    t->counts.denoiser_grad += in->n;
    const double s = in->cfg_scale > 1.0 ? in->cfg_scale : 1.0;
    for (int i = 0; i < in->n; i++) {
        const float *x = in->x + i * TOY_D, *d = d_out + i * TOY_D;
        const double c_in = in->c_in == NULL ? 1.0 : in->c_in[i];
        for (int a = 0; a < TOY_D; a++) {
            for (int b = 0; b < TOY_D; b++) m->grads[a * TOY_D + b] += (float)(d[a] * c_in * x[b]);
            m->grads[TOY_BIAS + in->prompt[i] * TOY_D + a] += (float)(s * d[a]);
            m->grads[TOY_NONE + a] += (float)((1.0 - s) * d[a]);
            m->grads[TOY_TIME + a] += (float)(in->timestep[i] / 1000.0 * d[a]);
            double sum = m->bend * cos(c_in * x[a]) * d[a];
            for (int b = 0; b < TOY_D; b++) sum += m->used[b * TOY_D + a] * (double)d[b];
            if (d_x != NULL) d_x[i * TOY_D + a] = (float)(c_in * sum);
        }
    }
    return KAC_OK;
}

static kac_status reward(kac_trainee *t, const float *x0, const int *prompt, int n, double *totals, float *d_x0) {
    toy *m = t->self;
    (void)prompt;
    if (n < 1 || n > t->batch) return KAC_FAIL(KAC_E_USAGE, "%d pictures in one call", n);
    for (int i = 0; i < n; i++) {
        double x[TOY_D];
        to_double(x, x0 + i * TOY_D, TOY_D);
        totals[i] = ++m->n_rewards == m->poison ? NAN : toy_reward(m, x);
        for (int j = 0; d_x0 != NULL && j < TOY_D; j++)
            d_x0[i * TOY_D + j] = (float)(2.0 * m->q[j] * (x[j] - m->goal[j]) + m->l[j]);
    }
    t->counts.reward += n;
    return KAC_OK;
}

kac_status toy_open(toy *m, const char *config, const kac_solver_options *o) {
    *m = (toy){0};
    KAC_TRY(kac_schedule_parse(&m->schedule, config, strlen(config), "toy"));
    KAC_TRY(kac_solver_init(&m->solver, &m->schedule, o));
    kac_rng_normal(m->base, TOY_VALUES, (kac_key){7, KAC_PURPOSE_TEST, 0}, 0, 0);
    for (int i = 0; i < TOY_VALUES; i++) m->base[i] *= 0.2f;
    for (int i = 0; i < TOY_D; i++) m->base[i * TOY_D + i] += 0.5f;
    memcpy(m->values, m->base, sizeof m->values);
    memcpy(m->used, m->base, sizeof m->used);
    for (int j = 0; j < TOY_D; j++) m->q[j] = -1.0, m->goal[j] = 0.5;
    m->trainee = (kac_trainee){.self = m,
                               .n_state = TOY_D,
                               .n_prompts = TOY_PROMPTS,
                               .batch = 5,
                               .schedule = &m->schedule,
                               .solver = &m->solver,
                               .n_values = TOY_VALUES,
                               .values = m->values,
                               .grads = m->grads,
                               .use = use,
                               .predict = predict,
                               .backward = backward,
                               .reward = reward};
    return KAC_OK;
}

void toy_close(toy *m) {
    kac_solver_free(&m->solver);
    kac_schedule_free(&m->schedule);
}
