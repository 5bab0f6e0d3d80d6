/* A pipeline that is tuned: the reward's gradient through decoder, solver and network against differences, cpu against ref, what `use` remembers,
 * bytes that do not grow with the number of steps, what is refused. */
#include "base/memory.h"
#include "check.h"
#include "run/latent_trainee.h"
#include "tensor/ops.h"
#include "util/golden.h"
#include <stdlib.h>

enum { N = 2, SIDE = 32, ROWS = 3, MAX_STATE = 8 * 8 * 4 };

static const char *const prompts[] = {"a red circle above a blue square", "two green stars"};
static const char *const negatives[] = {"a blurry picture", NULL};
static const kac_option_spec table[] = {KAC_REWARD_OPTIONS("rewards", "none"), {.name = NULL}};
static const char *const rewards[] = {"color=#3060a0", "brightness=0.7:0.5"};
static const int prompt[N] = {1, 0};

typedef struct model {
    kac_ctx c;
    kac_parameters *p;
    kac_pipeline pipeline;
    kac_solver solver;
    kac_options *options;
    kac_reward_set rewards;
    kac_trainee t;
} model;

static const kac_parameters_spec attention = {.rank = 2, .alpha = 3, .targets = "to_q,to_k,to_v,to_out.0", .seed = 3};

static kac_status open_all(model *m, const golden *g, const kac_parameters_spec *spec, int batch) {
    const kac_solver_options so = {.kind = KAC_SOLVER_DDIM, .n_steps = ROWS, .eta = 0};
    KAC_TRY(kac_parameters_create(&m->p, spec));
    KAC_TRY(kac_pipeline_open(&m->pipeline, &m->c, g->dir, &(kac_pipeline_options){.parameters = m->p}));
    KAC_TRY(kac_solver_init(&m->solver, &m->pipeline.schedule, &so));
    m->options = kac_options_create(table);
    if (m->options == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_reward_set_open(&m->rewards, &m->c, rewards, 2, m->options));
    const kac_latent_trainee_options o = {.prompts = prompts,
                                          .negatives = negatives,
                                          .n_prompts = 2,
                                          .text = {.width = SIDE, .height = SIDE},
                                          .batch = batch};
    return kac_latent_trainee_open(&m->t, &m->c, &m->pipeline, &m->solver, m->p, &m->rewards, &o);
}

static kac_status model_open(model *m, const golden *g, const struct kac_ops *ops, kac_dtype dtype,
                             const kac_parameters_spec *spec, int batch) {
    *m = (model){0};
    KAC_TRY(kac_ctx_open(&m->c, ops, dtype, ops == &kac_ref_ops ? 1 : 2, NULL));
    return open_all(m, g, spec, batch);
}

static void model_close(model *m) {
    kac_latent_trainee_close(&m->t);
    kac_reward_set_close(&m->rewards);
    kac_options_destroy(m->options);
    kac_solver_free(&m->solver);
    kac_pipeline_close(&m->pipeline);
    kac_parameters_free(m->p);
    if (m->c.ops != NULL) kac_ctx_close(&m->c);
}

static void make_random(model *m) {
    for (int64_t i = 0; i < m->t.n_values; i++)
        m->t.values[i] += (float)(0.1 * sin(0.37 * (double)i + 1e-4 * (double)(i % 977) * (double)i));
    CHECK_OK(m->t.use(&m->t, m->t.values));
}

/* ---- a chain without history: x' = a x + b out ---- */

static void row_terms(const kac_solver_row *r, double *a, double *b) {
    *a = r->next.x + r->next.x0 * r->x0_x;
    *b = r->next.out + r->next.x0 * r->x0_out;
}

static kac_denoise inputs(const model *m, int row, const float *x, double cfg_scale) {
    static double time[N], c_in[N];
    for (int i = 0; i < N; i++) time[i] = m->solver.rows[row].timestep, c_in[i] = m->solver.rows[row].c_in;
    return (kac_denoise){.n = N, .x = x, .timestep = time, .c_in = c_in, .prompt = prompt, .cfg_scale = cfg_scale};
}

/* x [ROWS + 1, N, n_state]; totals [N]; d the reward's gradient by the last. */
static void sample(model *m, float *x, double cfg_scale, double *totals, float *d) {
    const int64_t n = N * m->t.n_state;
    static float out[N * MAX_STATE];
    kac_rng_normal(x, n, (kac_key){.seed = 4, .purpose = KAC_PURPOSE_TEST}, 0, 0);
    for (int k = 0; k < ROWS; k++, x += n) {
        double a, b;
        const kac_denoise in = inputs(m, k, x, cfg_scale);
        row_terms(&m->solver.rows[k], &a, &b);
        CHECK_OK(m->t.predict(&m->t, &in, out));
        for (int64_t i = 0; i < n; i++) x[n + i] = (float)(a * (double)x[i] + b * (double)out[i]);
    }
    CHECK_OK(m->t.reward(&m->t, x, prompt, N, totals, d));
}

typedef struct pull {
    const float *d; /* of the state after the row */
    double b;
    int64_t n;
} pull;

static kac_status pull_loss(void *self, const kac_denoise *in, const float *out, float *d_out) {
    const pull *p = self;
    (void)in, (void)out;
    for (int64_t i = 0; i < p->n; i++) d_out[i] = (float)(p->b * (double)p->d[i]);
    return KAC_OK;
}

/* t.grads += the gradient of the sum of the totals; d, of the last state, becomes that of the first. */
static void go_back(model *m, const float *x, double cfg_scale, float *d) {
    const int64_t n = N * m->t.n_state;
    static float d_x[N * MAX_STATE];
    for (int k = ROWS - 1; k >= 0; k--) {
        double a;
        pull p = {.d = d, .n = n};
        const kac_denoise in = inputs(m, k, x + k * n, cfg_scale);
        row_terms(&m->solver.rows[k], &a, &p.b);
        CHECK_OK(m->t.backward(&m->t, &in, pull_loss, &p, d_x));
        for (int64_t i = 0; i < n; i++) d[i] = (float)(a * (double)d[i] + (double)d_x[i]);
    }
}

static double total_at(model *m, const float *values, double cfg_scale) {
    static float x[(ROWS + 1) * N * MAX_STATE], d[N * MAX_STATE];
    double totals[N];
    CHECK_OK(m->t.use(&m->t, values));
    sample(m, x, cfg_scale, totals, d);
    return totals[0] + totals[1];
}

/* Along a mixed direction: the gradient itself, and numbers of no order. States are float, hence the tolerance. */
static void check_difference(model *m, double cfg_scale, double h, double tolerance) {
    const int64_t n = m->t.n_values;
    float *up = kac_alloc((size_t)n * sizeof *up), *down = kac_alloc((size_t)n * sizeof *down);
    double slope = 0, norm = 0, moved2 = 0;
    for (int64_t i = 0; i < n; i++) norm += (double)m->t.grads[i] * (double)m->t.grads[i];
    norm = sqrt(norm);
    for (int64_t i = 0; i < n; i++) {
        const double step = h * ((double)m->t.grads[i] / norm + cos(1.7 * (double)i) / sqrt((double)n));
        up[i] = (float)(m->t.values[i] + step), down[i] = (float)(m->t.values[i] - step);
        const double moved = (double)up[i] - (double)down[i];
        slope += (double)m->t.grads[i] * moved;
        moved2 += moved * moved;
    }
    const double difference = total_at(m, up, cfg_scale) - total_at(m, down, cfg_scale),
                 error = fabs(slope - difference) / (norm * sqrt(moved2));
    printf("slope %.7g, difference %.7g, error %.1e\n", slope, difference, error);
    CHECK(norm > 0 && error < tolerance);
    kac_free(up), kac_free(down);
}

static double distance_of(const float *a, const float *b, int64_t n) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), norm += (double)b[i] * (double)b[i];
    return sqrt(d / norm);
}

static void test_gradient(const golden *g, const kac_parameters_spec *spec, double cfg_scale) {
    static float x[(ROWS + 1) * N * MAX_STATE], d_ref[N * MAX_STATE], d[N * MAX_STATE];
    double totals[N], totals_ref[N];
    model ref, fast;
    if (CHECK_OK(model_open(&ref, g, &kac_ref_ops, KAC_F64, spec, N)) &&
        CHECK_OK(model_open(&fast, g, kac_cpu_ops(), KAC_F32, spec, N))) {
        make_random(&ref), make_random(&fast);
        sample(&ref, x, cfg_scale, totals_ref, d_ref);
        go_back(&ref, x, cfg_scale, d_ref);
        sample(&fast, x, cfg_scale, totals, d);
        go_back(&fast, x, cfg_scale, d);
        for (int i = 0; i < N; i++) CHECK_NEAR(totals[i], totals_ref[i], 1e-4 * fabs(totals_ref[i]));
        const double error = distance_of(fast.t.grads, ref.t.grads, ref.t.n_values),
                     error_x = distance_of(d, d_ref, N * ref.t.n_state);
        printf("cfg %g: cpu off by %.1e (parameters), %.1e (first state)\n", cfg_scale, error, error_x);
        CHECK(error < 1e-3 && error_x < 1e-3);
        CHECK(ref.t.counts.denoiser_grad == N * ROWS * (cfg_scale > 1 ? 2 : 1) && ref.t.counts.reward_grad == N);
        check_difference(&ref, cfg_scale, 5e-4, spec->kind == KAC_PARAMETERS_FULL ? 2e-3 : 5e-4);
    }
    model_close(&ref);
    model_close(&fast);
}

/* ---- what is remembered ---- */

static void test_use(const golden *g) {
    static float x[N * MAX_STATE], first[N * MAX_STATE], base[N * MAX_STATE], out[N * MAX_STATE];
    model m;
    if (CHECK_OK(model_open(&m, g, kac_cpu_ops(), KAC_F32, &attention, N))) {
        const size_t n_bytes = (size_t)(N * m.t.n_state) * sizeof *out;
        kac_rng_normal(x, N * m.t.n_state, (kac_key){.seed = 4, .purpose = KAC_PURPOSE_TEST}, 0, 0);
        const kac_denoise in = inputs(&m, 0, x, 3);
        CHECK_OK(m.t.predict(&m.t, &in, base)); /* up factors are zero */
        make_random(&m);
        CHECK_OK(m.t.predict(&m.t, &in, first));
        CHECK(memcmp(first, base, n_bytes) != 0);
        CHECK_OK(m.t.use(&m.t, NULL));
        CHECK_OK(m.t.predict(&m.t, &in, out));
        CHECK(distance_of(out, base, N * m.t.n_state) < 1e-6);
        CHECK_OK(m.t.use(&m.t, m.t.values));
        CHECK_OK(m.t.predict(&m.t, &in, out));
        CHECK(memcmp(out, first, n_bytes) == 0);
        const int other[N] = {0, 0};
        kac_denoise changed = in;
        changed.prompt = other;
        CHECK_OK(m.t.predict(&m.t, &changed, out));
        CHECK(memcmp(out, first, n_bytes / N) != 0);
        CHECK(memcmp(out + m.t.n_state, first + m.t.n_state, n_bytes / N) == 0); /* rows do not know of each other */
        changed.n = 1;
        CHECK_OK(m.t.predict(&m.t, &changed, out));
        CHECK_OK(m.t.predict(&m.t, &in, out));
        CHECK(memcmp(out, first, n_bytes) == 0);
    }
    model_close(&m);
}

/* Rewards without a gradient are those of 8-bit pictures. */
static void test_reward(const golden *g) {
    static float x[(ROWS + 1) * N * MAX_STATE], d[N * MAX_STATE];
    double with[N], without[N];
    model m;
    if (CHECK_OK(model_open(&m, g, kac_cpu_ops(), KAC_F32, &attention, N))) {
        sample(&m, x, 3, with, d);
        float *last = x + ROWS * N * m.t.n_state;
        CHECK_OK(m.t.reward(&m.t, last, prompt, N, without, NULL));
        for (int i = 0; i < N; i++) CHECK_NEAR(with[i], without[i], 4e-3);
        CHECK(m.t.no_grad == NULL && m.t.counts.reward == 2 * N);
        last[m.t.n_state + 5] = NAN;
        CHECK_FAILS(m.t.reward(&m.t, last, prompt, N, without, NULL), KAC_E_NONFINITE, "not finite");
    }
    model_close(&m);
}

/* ---- memory ---- */

static void test_bytes(const golden *g, const kac_parameters_spec *spec) {
    static float x[(ROWS + 1) * N * MAX_STATE], d[N * MAX_STATE];
    kac_latent_trainee_bytes plan, once;
    double totals[N];
    model m, dry;
    if (CHECK_OK(model_open(&m, g, kac_cpu_ops(), KAC_F32, spec, N)) &&
        CHECK_OK(model_open(&dry, g, &kac_plan_ops, KAC_F32, spec, N)) &&
        CHECK_OK(kac_latent_trainee_rehearse(&dry.t, &plan))) {
        CHECK_OK(m.t.use(&m.t, NULL));
        sample(&m, x, 3, totals, d);
        CHECK_OK(m.t.use(&m.t, m.t.values));
        for (int i = 0; i < 3; i++) {
            sample(&m, x, 3, totals, d);
            go_back(&m, x, 3, d);
            CHECK_OK(m.t.reward(&m.t, x, prompt, N, totals, NULL));
            const kac_latent_trainee_bytes now = {m.c.model.peak, m.c.run.peak, m.c.scratch.peak, m.c.gradients_peak};
            if (i < 2) once = now;                       /* the trainee's tape stays open from the first time on */
            CHECK(memcmp(&now, &once, sizeof now) == 0); /* nothing grows with the number of steps */
        }
        printf("bytes: model %zu, run %zu, scratch %zu, gradients %zu\n", once.model, once.run, once.scratch,
               once.gradients);
        CHECK(once.model == plan.model && once.run == plan.run && once.gradients == plan.gradients);
        if (!CHECK(once.scratch == plan.scratch)) printf("scratch: %zu, planned %zu\n", once.scratch, plan.scratch);
    }
    model_close(&m);
    model_close(&dry);
}

/* Without segments: more memory, the same bits. */
static void test_keep_all(const golden *g) {
    static float x[(ROWS + 1) * N * MAX_STATE], d[N * MAX_STATE], first[N * MAX_STATE];
    double totals[N];
    model m, all;
    if (CHECK_OK(model_open(&m, g, kac_cpu_ops(), KAC_F32, &attention, N)) &&
        CHECK_OK(model_open(&all, g, kac_cpu_ops(), KAC_F32, &attention, N))) {
        all.c.keep_all = true;
        make_random(&m), make_random(&all);
        sample(&m, x, 3, totals, d);
        memcpy(first, d, sizeof d);
        m.c.scratch.peak = all.c.scratch.peak = 0; /* of the network alone */
        go_back(&m, x, 3, d);
        memcpy(d, first, sizeof d);
        go_back(&all, x, 3, d);
        CHECK(memcmp(m.t.grads, all.t.grads, (size_t)m.t.n_values * sizeof(float)) == 0);
        CHECK(all.c.scratch.peak > m.c.scratch.peak);
    }
    model_close(&m);
    model_close(&all);
}

static void test_refusals(const golden *g) {
    model m = {0};
    if (!CHECK_OK(model_open(&m, g, kac_cpu_ops(), KAC_F32, &attention, N))) return;
    kac_latent_trainee_options o = {.prompts = prompts, .n_prompts = 2, .text = {.width = SIDE + 1, .height = SIDE}};
    kac_trainee t;
    CHECK_FAILS(kac_latent_trainee_open(&t, &m.c, &m.pipeline, &m.solver, m.p, NULL, &o), KAC_E_USAGE, "batch");
    o.batch = 1;
    CHECK_FAILS(kac_latent_trainee_open(&t, &m.c, &m.pipeline, &m.solver, m.p, NULL, &o), KAC_E_USAGE, "multiples");
    m.solver.learned = KAC_VARIANCE_LEARNED;
    CHECK_FAILS(kac_latent_trainee_open(&t, &m.c, &m.pipeline, &m.solver, m.p, NULL, &o), KAC_E_UNSUPPORTED,
                "variance");
    model_close(&m);
}

int main(void) {
    golden g, xl;
    if (!CHECK_OK(golden_open_pipeline(&g, "pipeline/tiny"))) return check_done();
    const kac_parameters_spec self = {.rank = 3, .alpha = 1, .targets = "attn1.to_q,conv2"},
                              full = {.kind = KAC_PARAMETERS_FULL};
    test_gradient(&g, &attention, 3);
    test_gradient(&g, &self, 1);
    test_gradient(&g, &full, 2);
    test_use(&g);
    test_reward(&g);
    test_bytes(&g, &attention);
    test_bytes(&g, &self);
    test_keep_all(&g);
    test_refusals(&g);
    if (CHECK_OK(golden_open_pipeline(&xl, "pipeline/xl"))) {
        const kac_parameters_spec more = {.rank = 2, .alpha = 2, .targets = "attn2.to_*,add_embedding.linear_1"};
        test_gradient(&xl, &more, 3);
        golden_close(&xl);
    }
    golden_close(&g);
    return check_done();
}
