/* What is tuned of a network: which layers patterns choose, values in and out, gradients against differences, files there and back. */
#include "check.h"
#include "io/safetensors.h"
#include "model/unet.h"
#include "nn/lora.h"
#include "nn/parameters.h"
#include "tensor/convert.h"
#include "util/golden.h"
#include "util/op_case.h"
#include "util/temp.h"

static const double timestep[2] = {981, 1};

typedef struct net {
    kac_ctx c;
    kac_parameters *p;
    kac_lora_set *lora;
    kac_unet *u;
    kac_unet_cond *cond;
    kac_tensor x, tokens, out, seed;
    float *values, *grads;
} net;

static kac_status load(net *n, const char *dir) {
    kac_source source;
    KAC_TRY(kac_source_open_dir(&source, dir, "diffusion_pytorch_model"));
    source.parameters = n->p, source.lora = n->lora;
    const kac_status s = kac_unet_load_from(&n->u, &n->c, &source);
    kac_source_close(&source);
    return s;
}

static kac_status take_inputs(net *n, const golden *g) {
    if (n->c.run.counting) return KAC_OK;
    KAC_TRY(golden_input(&n->x, g, &n->c, "sample"));
    KAC_TRY(golden_input(&n->tokens, g, &n->c, "encoder_hidden_states"));
    const int64_t shape[4] = {n->x.shape[0], n->x.shape[1], n->x.shape[2], kac_unet_config_of(n->u)->out_channels};
    KAC_TRY(kac_take(&n->out, &n->c.run, n->c.dtype == KAC_F64 ? KAC_F64 : KAC_F32, 4, shape));
    KAC_TRY(kac_take(&n->seed, &n->c.run, KAC_F32, 4, shape));
    kac_rng_normal(n->seed.data, kac_tensor_count(n->seed), (kac_key){.seed = 9, .purpose = KAC_PURPOSE_TEST}, 0, 0);
    return KAC_OK;
}

/* spec NULL: nothing is tuned. */
static kac_status net_open(net *n, const golden *g, const char *dir, const struct kac_ops *ops, kac_dtype dtype,
                           const kac_parameters_spec *spec, const kac_lora_use *file) {
    *n = (net){0};
    KAC_TRY(kac_ctx_open(&n->c, ops, dtype, ops == &kac_ref_ops ? 1 : 2, NULL));
    if (spec != NULL) KAC_TRY(kac_parameters_create(&n->p, spec));
    if (file != NULL) KAC_TRY(kac_lora_set_open(&n->lora, file, 1, false));
    KAC_TRY(load(n, dir));
    KAC_TRY(take_inputs(n, g));
    if (spec == NULL) return KAC_OK;
    KAC_TRY(kac_parameters_finish(n->p, &n->c));
    const size_t n_bytes = (size_t)kac_parameters_count(n->p) * sizeof *n->values;
    n->values = kac_alloc(n_bytes), n->grads = kac_alloc(n_bytes);
    if (n->values == NULL || n->grads == NULL) return KAC_E_MEMORY;
    memcpy(n->values, kac_parameters_start(n->p), n_bytes);
    return KAC_OK;
}

static void net_close(net *n) {
    kac_unet_cond_free(n->cond);
    kac_unet_free(n->u);
    kac_parameters_free(n->p);
    kac_lora_set_close(n->lora);
    kac_free(n->values), kac_free(n->grads);
    if (n->c.ops != NULL) kac_ctx_close(&n->c);
}

static kac_status forward(net *n) {
    kac_unet_cond_free(n->cond);
    n->cond = NULL;
    KAC_TRY(kac_unet_condition(&n->cond, n->u, &n->c, &(kac_unet_inputs){.tokens = n->tokens}));
    return kac_unet_forward(&n->out, n->u, &n->c, n->x, timestep, n->cond, NULL);
}

static kac_status backward(net *n) {
    kac_grad_tape t;
    KAC_TRY(kac_tape_open(&t, &n->c, 0));
    kac_status s = kac_parameters_watch(n->p, &t);
    kac_tape_start(&t);
    if (s == KAC_OK) s = forward(n);
    kac_tape_stop(&t);
    if (s == KAC_OK) s = kac_tape_seed(&t, n->out, n->seed);
    if (s == KAC_OK) s = kac_tape_replay(&t);
    kac_tape_close(&t);
    kac_parameters_settle(n->p, n->grads);
    return s;
}

static double loss_at(net *n, const float *values) {
    double loss = 0;
    CHECK_OK(kac_parameters_apply(n->p, &n->c, values));
    CHECK_OK(forward(n));
    for (int64_t i = 0; i < kac_tensor_count(n->out); i++)
        loss += kac_element_load(n->out.data, n->out.dtype, i) * (double)((const float *)n->seed.data)[i];
    return loss;
}

static void make_random(net *n, double size) {
    for (int64_t i = 0; i < kac_parameters_count(n->p); i++)
        n->values[i] += (float)(size * sin(0.37 * (double)i + 1e-4 * (double)(i % 977) * (double)i));
}

/* Along one direction; the step is what the float values really moved by. */
static void check_difference(net *n, double h, double tolerance) {
    const int64_t count = kac_parameters_count(n->p);
    float *up = kac_alloc((size_t)count * sizeof *up), *down = kac_alloc((size_t)count * sizeof *down);
    double slope = 0, size = 0, steps = 0;
    for (int64_t i = 0; i < count; i++) {
        const double step = h * cos(1.7 * (double)i);
        up[i] = (float)(n->values[i] + step), down[i] = (float)(n->values[i] - step);
        const double moved = (double)up[i] - (double)down[i], d = n->grads[i];
        slope += d * moved, size += d * d, steps += moved * moved;
    }
    const double difference = loss_at(n, up) - loss_at(n, down);
    const double error = fabs(slope - difference) / sqrt(size * steps);
    printf("slope %.7g, difference %.7g, error %.1e\n", slope, difference, error);
    CHECK(size > 0 && error < tolerance);
    kac_free(up), kac_free(down);
}

static double distance_of(const float *a, const float *b, int64_t n) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), norm += (double)b[i] * (double)b[i];
    return sqrt(d / norm);
}

static void check_same_grads(const golden *g, const net *ref, const kac_parameters_spec *spec, double tolerance) {
    net fast;
    if (CHECK_OK(net_open(&fast, g, g->dir, kac_cpu_ops(), KAC_F32, spec, NULL))) {
        memcpy(fast.values, ref->values, (size_t)kac_parameters_count(ref->p) * sizeof *fast.values);
        CHECK_OK(kac_parameters_apply(fast.p, &fast.c, fast.values));
        CHECK_OK(backward(&fast));
        const double d = distance_of(fast.grads, ref->grads, kac_parameters_count(ref->p));
        printf("cpu off by %.1e\n", d);
        CHECK(d < tolerance);
    }
    net_close(&fast);
}

static void test_gradients(const golden *g, const kac_parameters_spec *spec, double moved, double tolerance) {
    net n, base;
    const bool low = spec->kind == KAC_PARAMETERS_LORA;
    if (CHECK_OK(net_open(&n, g, g->dir, &kac_ref_ops, KAC_F64, spec, NULL)) &&
        CHECK_OK(net_open(&base, g, g->dir, &kac_ref_ops, KAC_F64, NULL, NULL)) && CHECK_OK(forward(&n)) &&
        CHECK_OK(forward(&base))) {
        CHECK(op_case_distance(n.out, base.out) <= (low ? 0 : 1e-15)); /* at the start nothing has changed */
        make_random(&n, moved);
        CHECK_OK(kac_parameters_apply(n.p, &n.c, n.values));
        CHECK_OK(backward(&n));
        CHECK(op_case_distance(n.out, base.out) > 1e-3);
        check_difference(&n, low ? 1e-4 : 1e-6, tolerance);
        check_same_grads(g, &n, spec, 1e-4);
        CHECK_OK(kac_parameters_apply(n.p, &n.c, NULL));
        CHECK_OK(forward(&n));
        CHECK(op_case_distance(n.out, base.out) == 0);
    }
    net_close(&n);
    net_close(&base);
}

/* Half precision holds its own copy; the values stay f32. */
static void test_bf16(const golden *g, const kac_parameters_spec *spec) {
    net n, base;
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_BF16, spec, NULL)) &&
        CHECK_OK(net_open(&base, g, g->dir, kac_cpu_ops(), KAC_F32, spec, NULL))) {
        make_random(&n, 0.1), make_random(&base, 0.1);
        CHECK_OK(kac_parameters_apply(n.p, &n.c, n.values));
        CHECK_OK(kac_parameters_apply(base.p, &base.c, base.values));
        CHECK_OK(backward(&n));
        CHECK_OK(backward(&base));
        CHECK(op_case_distance(n.out, base.out) < 0.1);
        CHECK(distance_of(n.grads, base.grads, kac_parameters_count(n.p)) < 0.2);
    }
    net_close(&n);
    net_close(&base);
}

static void test_lora_file(const golden *g, const kac_parameters_spec *spec, kac_lora_format format) {
    static const char *const meta[] = {"kac.method", "alignprop \"5\"", NULL};
    const char *path = temp_path("tuned.safetensors");
    net n, user;
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, spec, NULL))) {
        make_random(&n, 0.1);
        const int64_t count = kac_parameters_count(n.p);
        CHECK_OK(kac_parameters_write(n.p, n.values, format, path, meta));
        CHECK_OK(kac_parameters_read(n.p, n.grads, path));
        CHECK(distance_of(n.grads, n.values, count) < 1e-7);
        CHECK_OK(kac_parameters_apply(n.p, &n.c, n.values));
        CHECK_OK(forward(&n));
        const kac_lora_use use = {path, 1};
        if (CHECK_OK(net_open(&user, g, g->dir, kac_cpu_ops(), KAC_F32, NULL, &use)) && CHECK_OK(forward(&user)) &&
            CHECK_OK(kac_lora_set_check(user.lora, 1, false))) {
            CHECK(kac_lora_set_matched(user.lora, 0) == kac_parameters_layers(n.p));
            CHECK_TEXT(kac_weights_metadata(&kac_lora_set_file(user.lora, 0)->weights, "kac.method"), meta[1]);
            CHECK(op_case_distance(user.out, n.out) < 1e-6);
        }
        net_close(&user);
        /* tuned on top of a file, which is merged */
        if (CHECK_OK(net_open(&user, g, g->dir, kac_cpu_ops(), KAC_F32, spec, &use)) && CHECK_OK(forward(&user)))
            CHECK(op_case_distance(user.out, n.out) < 1e-5);
        net_close(&user);
    }
    net_close(&n);
}

static void test_misfits(const golden *g, const kac_parameters_spec *spec) {
    const char *path = temp_path("tuned.safetensors");
    kac_parameters_spec other = *spec;
    net n;
    other.rank = 3;
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, &other, NULL)))
        CHECK_FAILS(kac_parameters_read(n.p, n.values, path), KAC_E_SHAPE, "has rank 2");
    net_close(&n);
    other = *spec, other.targets = "to_q";
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, &other, NULL)))
        CHECK_FAILS(kac_parameters_read(n.p, n.values, path), KAC_E_FORMAT, "of them are tuned");
    net_close(&n);
    other.targets = "to_q,to_v,conv2";
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, &other, NULL)))
        CHECK_FAILS(kac_parameters_read(n.p, n.values, path), KAC_E_FORMAT, "has nothing for the layer");
    net_close(&n);
}

static void test_whole_file(const golden *g) {
    const kac_parameters_spec spec = {.kind = KAC_PARAMETERS_FULL};
    char dir[256];
    snprintf(dir, sizeof dir, "%s", temp_path("whole"));
    CHECK_OK(kac_dir_make(dir));
    char *weights = kac_path_join(dir, "diffusion_pytorch_model.safetensors"), *to = kac_path_join(dir, "config.json"),
         *from = kac_path_join(g->dir, "config.json"), *text;
    size_t n_text;
    net n, again;
    if (CHECK_OK(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, &spec, NULL)) &&
        CHECK_OK(kac_file_read(&text, &n_text, from, 1 << 20))) {
        CHECK_OK(kac_file_write(to, text, n_text));
        kac_free(text);
        make_random(&n, 0.01);
        CHECK_OK(kac_parameters_write(n.p, n.values, KAC_LORA_KOHYA, weights, NULL));
        CHECK_OK(kac_parameters_apply(n.p, &n.c, n.values));
        CHECK_OK(forward(&n));
        if (CHECK_OK(net_open(&again, g, dir, kac_cpu_ops(), KAC_F32, NULL, NULL)) && CHECK_OK(forward(&again)))
            CHECK(op_case_distance(again.out, n.out) == 0);
        net_close(&again);
        CHECK_OK(kac_parameters_read(n.p, n.grads, weights));
        CHECK(memcmp(n.grads, n.values, (size_t)kac_parameters_count(n.p) * sizeof *n.values) == 0);
    }
    net_close(&n);
    kac_free(weights), kac_free(to), kac_free(from);
}

static void test_plan(const golden *g, const kac_parameters_spec *spec) {
    net real, plan;
    if (CHECK_OK(net_open(&real, g, g->dir, kac_cpu_ops(), KAC_F32, spec, NULL)) &&
        CHECK_OK(net_open(&plan, g, g->dir, &kac_plan_ops, KAC_F32, spec, NULL))) {
        CHECK(real.c.model.peak == plan.c.model.peak && real.c.scratch.peak == plan.c.scratch.peak);
        CHECK(kac_parameters_count(real.p) == kac_parameters_count(plan.p));
    }
    net_close(&real);
    net_close(&plan);
}

static void check_refused(const golden *g, const kac_parameters_spec *spec, const char *text) {
    net n;
    CHECK_FAILS(net_open(&n, g, g->dir, kac_cpu_ops(), KAC_F32, spec, NULL), KAC_E_USAGE, text);
    net_close(&n);
}

static void test_refusals(const golden *g) {
    const kac_parameters_spec good = {.rank = 2, .alpha = 2, .targets = "to_q"};
    kac_parameters_spec s = good;
    s.rank = 0, check_refused(g, &s, "at least 1, not 0");
    s = good, s.targets = " , ", check_refused(g, &s, "no layers to tune");
    s = good, s.alpha = NAN, check_refused(g, &s, "alpha");
    s = good, s.targets = "to_q,to_z", check_refused(g, &s, "\"to_z\" matches no layer");
    CHECK(strstr(kac_error(), "to_out.0, ") != NULL && strstr(kac_error(), "to_k") != NULL);
    s = good, s.targets = "to_", check_refused(g, &s, "\"to_\" matches no layer");
    s = good, s.rank = 17, check_refused(g, &s, "rank 17 is larger than the layer down_blocks.0");
    s = good, s.rank = 5, s.targets = "conv_out", check_refused(g, &s, "maps 144 to 4 numbers; at most 4");
    s = good, s.kind = KAC_PARAMETERS_FULL, check_refused(g, &s, "cannot be chosen");
}

/* What patterns choose, counted by the names of the layers. */
static void check_layers(const golden *g, const char *targets, int wanted) {
    const kac_parameters_spec spec = {.rank = 1, .alpha = 1, .targets = targets};
    net n;
    if (CHECK_OK(net_open(&n, g, g->dir, &kac_plan_ops, KAC_F32, &spec, NULL)))
        if (!CHECK(kac_parameters_layers(n.p) == wanted))
            printf("%s: %d layers, not %d\n", targets, kac_parameters_layers(n.p), wanted);
    net_close(&n);
}

int main(void) {
    golden g;
    if (!CHECK_OK(golden_open(&g, "unet/sd2"))) return check_done();
    /* 16 transformers: 6 on the way down, 1 in the middle, 9 on the way up */
    check_layers(&g, "to_q", 32);
    check_layers(&g, "to_q, attn2.to_k", 48);
    check_layers(&g, "attn2.*", 64);
    check_layers(&g, "attn2.*,to_v", 80);
    check_layers(&g, "mid_block.attentions.0.*", 2 + 8 + 2);
    check_layers(&g, "mid_block.*.conv1", 2);
    check_layers(&g, "ff.net.0.proj", 16);
    test_refusals(&g);
    const kac_parameters_spec some = {
        .rank = 2, .alpha = 3, .targets = "to_q,to_v,attn2.to_k,proj_in,mid_block.resnets.0.conv1,downsamplers.0.conv"};
    test_gradients(&g, &some, 0.15, 1e-6);
    const kac_parameters_spec full = {.kind = KAC_PARAMETERS_FULL};
    test_gradients(&g, &full, 0.02, 1e-5);
    test_bf16(&g, &some);
    test_lora_file(&g, &some, KAC_LORA_KOHYA);
    test_lora_file(&g, &some, KAC_LORA_PEFT);
    test_misfits(&g, &some);
    test_whole_file(&g);
    test_plan(&g, &some);
    test_plan(&g, &full);
    golden_close(&g);
    return check_done();
}
