/* Gradients of LoRA factors against PEFT's in float64, for several sets of layers (tests/golden/lora_grad): all factors are read from the file
 * that diffusers wrote, and every one's gradient is compared. */
#include "check.h"
#include "model/unet.h"
#include "nn/parameters_parts.h"
#include "util/golden.h"
#include <stdlib.h>

enum { MAX_ROWS = 8, MAX_IDS = 64 };

static const char *const names[] = {"attention", "feed", "convs", "projections", "added"};

typedef struct tuned {
    kac_ctx c;
    kac_parameters *p;
    kac_unet *u;
    kac_unet_cond *cond;
    kac_unet_inputs in;
    kac_tensor x, out, seed;
    double t[MAX_ROWS], time_ids[MAX_IDS];
    float *values, *grads;
} tuned;

static kac_status load(tuned *n, const golden *g, const kac_weights *want) {
    const char *rank = kac_weights_metadata(want, "rank"), *alpha = kac_weights_metadata(want, "alpha"),
               *targets = kac_weights_metadata(want, "targets");
    if (rank == NULL || alpha == NULL || targets == NULL) return KAC_FAIL(KAC_E_FORMAT, "no metadata");
    const kac_parameters_spec spec = {
        .rank = (int)strtol(rank, NULL, 10), .alpha = strtod(alpha, NULL), .targets = targets};
    kac_source source;
    KAC_TRY(kac_parameters_create(&n->p, &spec));
    KAC_TRY(kac_source_open_dir(&source, g->dir, "diffusion_pytorch_model"));
    source.parameters = n->p;
    const kac_status s = kac_unet_load_from(&n->u, &n->c, &source);
    kac_source_close(&source);
    return s == KAC_OK ? kac_parameters_finish(n->p, &n->c) : s;
}

static kac_status read_values(tuned *n, const char *factors) {
    const size_t n_bytes = (size_t)kac_parameters_count(n->p) * sizeof *n->values;
    n->values = kac_alloc(n_bytes), n->grads = kac_alloc(n_bytes);
    if (n->values == NULL || n->grads == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_parameters_read(n->p, n->values, factors));
    return kac_parameters_apply(n->p, &n->c, n->values);
}

static kac_status take_inputs(tuned *n, const golden *g, const kac_weights *want) {
    int n_t = 0, n_ids = 0;
    kac_tensor seed;
    KAC_TRY(golden_input(&n->x, g, &n->c, "sample"));
    KAC_TRY(golden_input(&n->in.tokens, g, &n->c, "encoder_hidden_states"));
    KAC_TRY(golden_reals(g, "timestep", n->t, MAX_ROWS, &n_t));
    for (int64_t i = n_t; i < n->x.shape[0]; i++) n->t[i] = n->t[0];
    if (kac_unet_config_of(n->u)->addition == KAC_ADDITION_TEXT_TIME) {
        KAC_TRY(golden_input(&n->in.pooled, g, &n->c, "text_embeds"));
        KAC_TRY(golden_reals(g, "time_ids", n->time_ids, MAX_IDS, &n_ids));
        n->in.time_ids = n->time_ids, n->in.n_time_ids = n_ids / (int)n->x.shape[0];
    }
    KAC_TRY(kac_weights_find(want, "grad.out.sample", &seed));
    seed = kac_tensor_transpose(kac_tensor_transpose(seed, 1, 2), 2, 3); /* the file's is NCHW */
    KAC_TRY(kac_take(&n->seed, &n->c.run, KAC_F32, 4, seed.shape));
    KAC_TRY(kac_take(&n->out, &n->c.run, n->c.dtype, 4, seed.shape));
    return kac_copy(&n->c, &n->seed, seed);
}

static kac_status tuned_open(tuned *n, const golden *g, const kac_weights *want, const char *factors,
                             const struct kac_ops *ops, kac_dtype dtype) {
    *n = (tuned){0};
    KAC_TRY(kac_ctx_open(&n->c, ops, dtype, 1, NULL));
    KAC_TRY(load(n, g, want));
    KAC_TRY(read_values(n, factors));
    return take_inputs(n, g, want);
}

static void tuned_close(tuned *n) {
    kac_unet_cond_free(n->cond);
    kac_unet_free(n->u);
    kac_parameters_free(n->p);
    kac_free(n->values), kac_free(n->grads);
    if (n->c.ops != NULL) kac_ctx_close(&n->c);
}

static kac_status backward(tuned *n) {
    kac_grad_tape t;
    KAC_TRY(kac_tape_open(&t, &n->c, 0));
    kac_status s = kac_parameters_watch(n->p, &t);
    kac_tape_start(&t);
    if (s == KAC_OK) s = kac_unet_condition(&n->cond, n->u, &n->c, &n->in);
    if (s == KAC_OK) s = kac_unet_forward(&n->out, n->u, &n->c, n->x, n->t, n->cond, NULL);
    kac_tape_stop(&t);
    if (s == KAC_OK) s = kac_tape_seed(&t, n->out, n->seed);
    if (s == KAC_OK) s = kac_tape_replay(&t);
    kac_tape_close(&t);
    kac_parameters_settle(n->p, n->grads);
    return s;
}

/* One factor; the file's error, relative L2. */
static double distance(const kac_weights *want, const char *layer, char factor, const float *have, int64_t n) {
    char key[GOLDEN_MAX_NAME + 32];
    kac_tensor t;
    double d = 0, norm = 0;
    snprintf(key, sizeof key, "unet.%s.lora_%c.weight", layer, factor);
    if (!CHECK_OK(kac_weights_find(want, key, &t)) || !CHECK(kac_tensor_count(t) == n)) return HUGE_VAL;
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)have[i], y = (double)((const float *)t.data)[i];
        d += (x - y) * (x - y), norm += y * y;
    }
    return sqrt(d / norm);
}

static void compare(const tuned *n, const kac_weights *want, const char *what, double tolerance) {
    double worst = 0;
    int n_factors = 0;
    const char *where = "";
    for (int i = 0; i < n->p->n_layers; i++)
        for (int k = 0; k < n->p->layer[i].n_parts; k++) {
            const kac_parameters_layer *l = &n->p->layer[i];
            if (!l->part[k].tuned) continue;
            const float *at = n->grads + l->part[k].at;
            const int64_t n_down = kac_parameters_n_down(n->p, l);
            const double error = fmax(distance(want, l->part[k].name, 'A', at, n_down),
                                      distance(want, l->part[k].name, 'B', at + n_down, kac_parameters_n_up(n->p, l)));
            if (!(error <= worst)) worst = error, where = l->part[k].name;
            n_factors += 2;
        }
    printf("%s: %d factors, worst %.1e of %.1e at %s\n", what, n_factors, worst, tolerance, where);
    CHECK(worst <= tolerance && n_factors == want->n_entries - 2);
}

static void test_case(const char *name) {
    char path[128], factors[128], network[64], what[64];
    kac_weights want;
    kac_tensor off;
    golden g;
    snprintf(path, sizeof path, "tests/golden/lora_grad/%s.safetensors", name);
    snprintf(factors, sizeof factors, "tests/golden/lora_grad/%s.lora.safetensors", name);
    if (!CHECK_OK(kac_weights_open(&want, path))) return;
    snprintf(network, sizeof network, "%s", kac_weights_metadata(&want, "network"));
    if (CHECK_OK(kac_weights_find(&want, "reference_f32_error", &off)) && CHECK_OK(golden_open(&g, network))) {
        for (int k = 0; k < 2; k++) {
            tuned n;
            snprintf(what, sizeof what, "%s on %s", name, k == 0 ? "ref" : "cpu");
            if (CHECK_OK(tuned_open(&n, &g, &want, factors, k == 0 ? &kac_ref_ops : kac_cpu_ops(),
                                    k == 0 ? KAC_F64 : KAC_F32)) &&
                CHECK_OK(backward(&n)))
                compare(&n, &want, what, k == 0 ? 1e-5 : 4 * (double)((const float *)off.data)[0]);
            tuned_close(&n);
        }
        golden_close(&g);
    }
    kac_weights_close(&want);
}

int main(void) {
    for (int i = 0; i < KAC_COUNT_OF(names); i++) test_case(names[i]);
    return check_done();
}
