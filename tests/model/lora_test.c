/* LoRA in use: rows do not know of each other, merged and at run time agree, plan runs know the bytes, files for other models and files that
 * fit in part are told. */
#include "base/memory.h"
#include "check.h"
#include "io/safetensors.h"
#include "model/source.h"
#include "model/unet.h"
#include "nn/lora.h"
#include "util/golden.h"
#include "util/op_case.h"
#include "util/temp.h"

enum { N = 3, H = 8, W = 8, TOKENS = 7 };

#define FILES "tests/golden/lora/files/"
static const kac_lora_use two[] = {{FILES "adapter.safetensors", 0.5}, {FILES "kohya.safetensors", -0.75}};

typedef struct net {
    kac_ctx c;
    kac_lora_set *set;
    kac_unet *unet;
    kac_unet_cond *cond;
    kac_tensor x;
} net;

static kac_status load(net *m, const golden *g) {
    kac_source source;
    KAC_TRY(kac_source_open_dir(&source, g->dir, "diffusion_pytorch_model"));
    source.lora = m->set, source.lora_part = KAC_LORA_UNET;
    const kac_status s = kac_unet_load_from(&m->unet, &m->c, &source);
    kac_source_close(&source);
    return s;
}

static bool net_open(net *m, const golden *g, const struct kac_ops *ops, kac_dtype dtype, const kac_lora_use *uses,
                     int n, bool merge) {
    *m = (net){0};
    kac_tensor tokens;
    if (!CHECK_OK(kac_ctx_open(&m->c, ops, dtype, 2, NULL)) || !CHECK_OK(kac_lora_set_open(&m->set, uses, n, merge)) ||
        !CHECK_OK(load(m, g)) || !CHECK_OK(kac_lora_set_check(m->set, 1, false)))
        return false;
    CHECK_OK(kac_take_make(&tokens, &m->c.run, KAC_F32, 2, TOKENS, kac_unet_config_of(m->unet)->cross_dim[0]));
    CHECK_OK(kac_take_make(&m->x, &m->c.run, KAC_F32, N, H, W, kac_unet_config_of(m->unet)->in_channels));
    CHECK_OK(kac_randn(&m->c, &m->x, (kac_key){.seed = 1}, (const int[]){0, 1, 2}));
    CHECK_OK(kac_randn(&m->c, &tokens, (kac_key){.seed = 2}, (const int[]){0, 1}));
    return CHECK_OK(kac_unet_condition(&m->cond, m->unet, &m->c, &(kac_unet_inputs){.tokens = tokens}));
}

static void net_close(net *m) {
    kac_unet_cond_free(m->cond);
    kac_unet_free(m->unet);
    kac_lora_set_close(m->set);
    kac_ctx_close(&m->c);
}

static bool forward(net *m, int first, int n, kac_tensor *out) {
    static const double timestep[N] = {981, 1, 500.5};
    static const int prompt[N] = {0, 1, 1};
    *out = (kac_tensor){0};
    return CHECK_OK(kac_unet_forward(out, m->unet, &m->c, kac_tensor_slice(m->x, 0, first, n), timestep + first,
                                     m->cond, prompt + first));
}

static void test_rows(const golden *g, kac_dtype dtype) {
    net m;
    kac_tensor whole, part;
    if (net_open(&m, g, kac_cpu_ops(), dtype, two, 2, false) && forward(&m, 0, N, &whole))
        for (int i = 0; i < N && forward(&m, i, 1, &part); i++)
            CHECK(op_case_same_bits(part, kac_tensor_slice(whole, 0, i, 1)));
    net_close(&m);
}

static void test_merged(const golden *g) {
    net m[3];
    kac_tensor out[3];
    const kac_lora_use none = {FILES "adapter.safetensors", 0};
    bool fine = net_open(&m[0], g, kac_cpu_ops(), KAC_F32, two, 2, false);
    fine = net_open(&m[1], g, kac_cpu_ops(), KAC_F32, two, 2, true) && fine;
    fine = net_open(&m[2], g, kac_cpu_ops(), KAC_F32, &none, 1, false) && fine;
    for (int i = 0; i < 3 && fine; i++) fine = forward(&m[i], 0, N, &out[i]);
    if (fine) {
        const double distance = op_case_distance(out[0], out[1]);
        printf("run time against merged: %.1e; what it changes: %.2f\n", distance, op_case_distance(out[0], out[2]));
        CHECK(distance <= 1e-5 && op_case_distance(out[0], out[2]) > 0.1);
        CHECK(m[0].c.model.used > m[1].c.model.used);
    }
    for (int i = 0; i < 3; i++) net_close(&m[i]);
}

static void test_plan(const golden *g, kac_dtype dtype, bool merge) {
    net real, plan;
    kac_tensor out;
    bool fine = net_open(&real, g, kac_cpu_ops(), dtype, two, 2, merge);
    fine = net_open(&plan, g, &kac_plan_ops, dtype, two, 2, merge) && fine;
    if (fine && CHECK(real.c.model.used == plan.c.model.used && real.c.model.peak == plan.c.model.peak)) {
        real.c.scratch.peak = plan.c.scratch.peak = 0;
        kac_alloc_fail_after(1);
        CHECK(forward(&real, 0, N, &out));
        kac_alloc_fail_after(0);
        if (forward(&plan, 0, N, &out)) CHECK(real.c.scratch.peak == plan.c.scratch.peak);
    }
    net_close(&real);
    net_close(&plan);
}

static void check_load(const golden *g, const char *path, kac_status loaded, bool partial, kac_status checked,
                       const char *text) {
    net m = {0};
    CHECK_OK(kac_ctx_open(&m.c, kac_cpu_ops(), KAC_F32, 1, NULL));
    if (CHECK_OK(kac_lora_set_open(&m.set, &(kac_lora_use){path, 1}, 1, false))) {
        kac_status s = load(&m, g);
        if (loaded != KAC_OK)
            CHECK_FAILS(s, loaded, text);
        else if (CHECK_OK(s)) {
            s = kac_lora_set_check(m.set, 1, partial);
            if (checked == KAC_OK)
                CHECK_OK(s);
            else
                CHECK_FAILS(s, checked, text);
        }
    }
    net_close(&m);
}

/* One module that fits beside `name`. */
static const char *mixed_file(const char *name, int64_t n_in) {
    static float zeros[64 * 64];
    const char *path = temp_path("mixed.safetensors");
    char a[160], b[160];
    snprintf(a, sizeof a, "%s.lora_A.weight", name), snprintf(b, sizeof b, "%s.lora_B.weight", name);
    const kac_st_item items[] = {
        {"unet.mid_block.attentions.0.proj_in.lora_A.weight", kac_tensor_make(zeros, KAC_F32, 2, 32)},
        {"unet.mid_block.attentions.0.proj_in.lora_B.weight", kac_tensor_make(zeros, KAC_F32, 32, 2)},
        {a, kac_tensor_make(zeros, KAC_F32, 2, n_in)},
        {b, kac_tensor_make(zeros, KAC_F32, 32, 2)}};
    CHECK_OK(kac_st_write(path, items, 4, NULL, 0));
    return path;
}

static void test_misfits(const golden *g) {
    check_load(
        g, mixed_file("unet.mid_block.attentions.7.proj_in", 32), KAC_OK, false, KAC_E_FORMAT,
        "1 of its modules and keys belong to nothing in this model (first: unet mid_block.attentions.7.proj_in)");
    check_load(g, mixed_file("unet.mid_block.attentions.7.proj_in", 32), KAC_OK, true, KAC_OK, NULL);
    check_load(g, mixed_file("unknown.layer", 32), KAC_OK, false, KAC_E_FORMAT, "unknown.layer");
    check_load(g, mixed_file("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 2048), KAC_E_SHAPE, false,
               KAC_OK, "for SDXL");
    check_load(g, mixed_file("text_encoder.text_model.encoder.layers.0.mlp.fc1", 32), KAC_OK, false, KAC_OK, NULL);
    check_load(g, FILES "kohya_xl.safetensors", KAC_E_SHAPE, false, KAC_OK, "this model's layer");
    kac_lora_set *set;
    CHECK_FAILS(kac_lora_set_open(&set, &(kac_lora_use){FILES "kohya.safetensors", NAN}, 1, false), KAC_E_USAGE,
                "finite");
}

int main(void) {
    golden g;
    if (!CHECK_OK(golden_open(&g, "lora/several"))) return check_done();
    test_rows(&g, KAC_F32);
    test_rows(&g, KAC_BF16);
    test_merged(&g);
    for (int i = 0; i < 2; i++) {
        test_plan(&g, KAC_F32, i == 1);
        test_plan(&g, KAC_BF16, i == 1);
    }
    test_misfits(&g);
    golden_close(&g);
    return check_done();
}
