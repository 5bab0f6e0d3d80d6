/* The reference backend against PyTorch, diffusers and Pillow (tests/golden/ops.safetensors, tools/make_golden_ops.py) and against answers
 * that can be written down. Everything else is compared with ref, so ref is proven here. */
#include "io/weights.h"
#include "tensor/convert.h"
#include "tensor/ops.h"
#include "tests/check.h"
#include "tests/util/op_case.h"

static kac_weights golden;
static kac_ctx c;

static kac_tensor get(const char *name) {
    kac_tensor t = {0};
    CHECK_OK(kac_weights_find(&golden, name, &t));
    return t;
}

static void check_golden(kac_status s, kac_tensor out, const char *name) {
    if (!CHECK_OK(s)) return;
    const double error = op_case_distance(out, get(name));
    printf("%-36s %.2e\n", name, error);
    if (!CHECK(error <= 1e-6)) printf("  %s\n", name);
    kac_arena_release(&c.scratch, 0);
}

/* Runs `call` (which writes `out`) and compares with the entry `name`. */
#define GOLDEN(name, call)                                                                                             \
    do {                                                                                                               \
        kac_tensor out = {0};                                                                                          \
        const kac_status status_ = (call);                                                                             \
        check_golden(status_, out, (name));                                                                            \
    } while (0)

static kac_weight pack(const char *name) {
    kac_weight w = {0};
    CHECK_OK(kac_weight_pack(&c, &w, get(name), 1));
    return w;
}

static void test_linear(void) {
    static const char *const acts[] = {"none", "silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "tanh", "mish"};
    const kac_weight w = pack("linear.w");
    const kac_tensor x = get("linear.x"), b = get("linear.b"), r = get("linear.r");
    for (int i = 0; i < KAC_COUNT_OF(acts); i++) {
        char name[64];
        snprintf(name, sizeof name, "linear.%s", acts[i]);
        GOLDEN(name, kac_linear(&c, &out, x, &w, (kac_linear_opt){.bias = b, .residual = r, .act = (kac_act)i}));
    }
    GOLDEN("linear.geglu", kac_linear(&c, &out, x, &w, (kac_linear_opt){.bias = b, .geglu = true}));
    kac_tensor narrow = {0};
    CHECK_OK(kac_take(&narrow, &c.run, KAC_F32, 3, (int64_t[]){2, 3, 5}));
    CHECK_OK(kac_copy(&c, &narrow, kac_tensor_slice(r, 2, 0, 5)));
    GOLDEN("matmul_t", kac_matmul_t(&c, &out, x, narrow, 0.25));
}

static void test_conv(void) {
    const kac_weight w = pack("conv.w"), one = pack("conv.w1"), patch = pack("conv.patch.w");
    const kac_tensor x = get("conv.x"), b = get("conv.b"), row_bias = get("conv.row_bias"), r = get("conv.r");
    const int rows[] = {1, 0, 1};
    GOLDEN("conv.same", kac_conv2d(&c, &out, x, &w, (kac_conv_opt){.stride = 1, .pad = {1, 1, 1, 1}, .bias = b}));
    GOLDEN("conv.full", kac_conv2d(&c, &out, x, &w,
                                   (kac_conv_opt){.stride = 1,
                                                  .pad = {1, 1, 1, 1},
                                                  .bias = b,
                                                  .row_bias = row_bias,
                                                  .row_index = rows,
                                                  .residual = r,
                                                  .act = KAC_ACT_SILU}));
    GOLDEN("conv.stride2", kac_conv2d(&c, &out, x, &w, (kac_conv_opt){.stride = 2, .pad = {0, 0, 1, 1}, .bias = b}));
    GOLDEN("conv.uneven", kac_conv2d(&c, &out, x, &w, (kac_conv_opt){.stride = 1, .pad = {2, 0, 1, 3}}));
    GOLDEN("conv.one", kac_conv2d(&c, &out, x, &one, (kac_conv_opt){.stride = 1}));
    GOLDEN("conv.patch", kac_conv2d(&c, &out, x, &patch, (kac_conv_opt){.stride = 3}));
}

static void test_attention(void) {
    const kac_tensor q = get("attention.q"), k = get("attention.k"), v = get("attention.v");
    const int rows[] = {2, 0, 2};
    GOLDEN("attention.plain", kac_attention(&c, &out, q, k, v, (kac_attention_opt){.scale = 0.5}));
    GOLDEN("attention.scale", kac_attention(&c, &out, q, k, v, (kac_attention_opt){.scale = 0.3}));
    GOLDEN("attention.rows", kac_attention(&c, &out, q, k, v, (kac_attention_opt){.scale = 0.5, .kv_row = rows}));
    GOLDEN("attention.causal", kac_attention(&c, &out, q, kac_tensor_slice(k, 1, 0, 5), kac_tensor_slice(v, 1, 0, 5),
                                             (kac_attention_opt){.scale = 0.5, .causal = true}));
}

static void test_norms(void) {
    const kac_tensor x = get("norm.x"), g = get("norm.g"), b = get("norm.b"), none = {0}, rows = get("norm.rows");
    const kac_tensor flipped[] = {kac_tensor_slice(x, 0, 1, 1), kac_tensor_slice(x, 0, 0, 1)};
    const int index[] = {1, 0};
    GOLDEN("norm.group", kac_group_norm(&c, &out, x, g, b, 4, 1e-5, KAC_ACT_NONE));
    GOLDEN("norm.group_silu", kac_group_norm(&c, &out, x, g, b, 2, 1e-3, KAC_ACT_SILU));
    GOLDEN("norm.layer", kac_layer_norm(&c, &out, x, g, b, 1e-6));
    GOLDEN("norm.layer_plain", kac_layer_norm(&c, &out, x, none, none, 1e-6));
    GOLDEN("norm.l2", kac_l2_normalize(&c, &out, x));
    GOLDEN("norm.affine", kac_affine(&c, &out, x, g, b));
    GOLDEN("norm.modulate",
           kac_modulate(&c, &out, x, kac_tensor_slice(rows, 1, 0, 8), kac_tensor_slice(rows, 1, 8, 8), index));
    GOLDEN("norm.row_stats", kac_row_stats(&c, &out, x));
    GOLDEN("norm.clamp", kac_clamp(&c, &out, x, 4.5, 5.5));
    kac_tensor y = {0};
    CHECK_OK(kac_take(&y, &c.run, KAC_F32, 4, x.shape));
    for (int i = 0; i < 2; i++) {
        kac_tensor image = kac_tensor_slice(y, 0, i, 1);
        CHECK_OK(kac_copy(&c, &image, flipped[i]));
    }
    GOLDEN("norm.lincomb", kac_lincomb(&c, &out, 2, (kac_tensor[]){x, y}, (double[]){0.3, -1.7}, 1));
}

static void test_embeddings(void) {
    const double t[] = {999, 500.5, 1, 0};
    GOLDEN("time.sd", kac_timestep_embedding(&c, &out, t, 4, 32, true, 0, 1, 10000));
    GOLDEN("time.ddpm", kac_timestep_embedding(&c, &out, t, 4, 33, false, 1, 1, 10000));
    GOLDEN("time.scaled", kac_timestep_embedding(&c, &out, t, 4, 16, true, 0, 2.5, 2000));
    GOLDEN("embedding.out",
           kac_embedding(&c, &out, get("embedding.ids"), get("embedding.table"), get("embedding.position")));
}

static void test_resample(void) {
    static const char *const filters[] = {"nearest", "bilinear", "bicubic", "lanczos"};
    static const int sizes[][2] = {{5, 4}, {20, 17}, {13, 3}};
    const kac_tensor x = get("resample.x");
    char name[64];
    for (int f = 0; f < KAC_COUNT_OF(filters); f++)
        for (int i = 0; i < KAC_COUNT_OF(sizes); i++) {
            snprintf(name, sizeof name, "resample.pillow.%s.%dx%d", filters[f], sizes[i][0], sizes[i][1]);
            GOLDEN(name, kac_resample(&c, &out, x, sizes[i][0], sizes[i][1], (kac_filter)f));
            snprintf(name, sizeof name, "resample.torch.%s.%dx%d", filters[f], sizes[i][0], sizes[i][1]);
            if (kac_weights_entry_of(&golden, name) == NULL) continue;
            GOLDEN(name, kac_resample(&c, &out, x, sizes[i][0], sizes[i][1], (kac_filter)f));
        }
    GOLDEN("upsample.26x20", kac_upsample_nearest(&c, &out, x, 26, 20));
    GOLDEN("upsample.7x23", kac_upsample_nearest(&c, &out, x, 7, 23));
    GOLDEN("avg_pool2", kac_avg_pool2(&c, &out, x));
}

static void test_conversions(void) {
    const kac_tensor x = get("convert.f32"), bf16 = get("convert.bf16"), f16 = get("convert.f16");
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < kac_tensor_count(x); i++) {
        const float value = ((const float *)x.data)[i];
        const uint16_t want_bf16 = ((const uint16_t *)bf16.data)[i], want_f16 = ((const uint16_t *)f16.data)[i];
        uint16_t stored[2];
        kac_element_store(stored, KAC_BF16, 0, value);
        kac_element_store(stored, KAC_F16, 1, value);
        n_wrong += kac_f32_to_bf16(value) != want_bf16 || kac_f32_to_f16(value) != want_f16 || stored[0] != want_bf16 ||
                   stored[1] != want_f16;
    }
    CHECK(n_wrong == 0);
    for (uint32_t bits = 0; bits < 65536;
         bits++) { /* every 16-bit number survives the way to f32 and back, NaN stays NaN */
        const float a = kac_f16_to_f32((uint16_t)bits), b = kac_bf16_to_f32((uint16_t)bits);
        n_wrong += isnan(a) ? !isnan(kac_f16_to_f32(kac_f32_to_f16(a))) : kac_f32_to_f16(a) != bits;
        n_wrong += isnan(b) ? !isnan(kac_bf16_to_f32(kac_f32_to_bf16(b))) : kac_f32_to_bf16(b) != bits;
    }
    CHECK(n_wrong == 0);
    CHECK(isnan(kac_bf16_to_f32(kac_f32_to_bf16(kac_f32_of_bits(0x7f800001u)))));
    CHECK(isnan(kac_f16_to_f32(kac_f32_to_f16(kac_f32_of_bits(0xff800001u)))));
    /* One rounding, not two: just above a tie of bf16 in double, exactly a tie in f32. */
    uint16_t one;
    kac_element_store(&one, KAC_BF16, 0, 1 + 0x1p-8 + 0x1p-40);
    CHECK(one == 0x3f81);
    kac_element_store(&one, KAC_BF16, 0, 1 + 0x1p-8);
    CHECK(one == 0x3f80);
}

static void test_integers(void) {
    static const double in[] = {0, 1.9, -1.9, 255.5, 1e30, -1e30, NAN};
    static const int32_t want_i32[] = {0, 1, -1, 255, INT32_MAX, INT32_MIN, 0};
    static const uint8_t want_u8[] = {0, 1, 0, 255, 255, 0, 0};
    static const uint64_t want_u64[] = {0, 1, 0, 255, UINT64_MAX, 0, 0};
    static const int64_t want_i64[] = {0, 1, -1, 255, INT64_MAX, INT64_MIN, 0};
    for (int i = 0; i < KAC_COUNT_OF(in); i++) {
        int32_t i32;
        uint8_t u8;
        uint64_t u64;
        int64_t i64;
        kac_element_store(&i32, KAC_I32, 0, in[i]);
        kac_element_store(&u8, KAC_U8, 0, in[i]);
        kac_element_store(&u64, KAC_U64, 0, in[i]);
        kac_element_store(&i64, KAC_I64, 0, in[i]);
        CHECK(i32 == want_i32[i] && u8 == want_u8[i] && u64 == want_u64[i] && i64 == want_i64[i]);
    }
}

/* Answers that can be written down. */
static void test_closed_forms(void) {
    float x[] = {3, 4, 0, -1}, y[4], q[] = {1, 0}, k[] = {40, 0, -40, 0}, v[] = {1, 2, 3, 4};
    kac_tensor out = kac_tensor_make(y, KAC_F32, 2, 2);
    CHECK_OK(kac_l2_normalize(&c, &out, kac_tensor_make(x, KAC_F32, 2, 2)));
    CHECK_NEAR(y[0], 0.6, 1e-7);
    CHECK_NEAR(y[3], -1, 0);
    /* A key that wins by 80: its value alone; no overflow on the way. */
    out = kac_tensor_make(y, KAC_F32, 1, 1, 1, 2);
    CHECK_OK(kac_attention(&c, &out, kac_tensor_make(q, KAC_F32, 1, 1, 1, 2), kac_tensor_make(k, KAC_F32, 1, 2, 1, 2),
                           kac_tensor_make(v, KAC_F32, 1, 2, 1, 2), (kac_attention_opt){.scale = 100}));
    CHECK(y[0] == 1 && y[1] == 2);
    /* Normals come in the order of the image's memory, from element 0 of the slot. */
    float normal[3];
    const kac_key key = {.seed = 3, .purpose = KAC_PURPOSE_INIT, .step = 0};
    float two[2][3];
    out = kac_tensor_make(two, KAC_F32, 2, 3);
    CHECK_OK(kac_randn(&c, &out, key, (int[]){9, 4}));
    kac_rng_normal(normal, 3, key, 4, 0);
    CHECK(memcmp(two[1], normal, sizeof normal) == 0);
    /* The first term is rounded, the second fused: 1 + 2^-24 appears only if the product of the second term is not rounded. */
    float a[] = {-1}, b[] = {1 + 0x1p-12f}, z[1];
    out = kac_tensor_make(z, KAC_F32, 1);
    const kac_tensor terms[] = {kac_tensor_make(a, KAC_F32, 1), kac_tensor_make(b, KAC_F32, 1)};
    CHECK_OK(kac_lincomb(&c, &out, 2, terms, (double[]){1, 1 + 0x1p-12}, 1));
    CHECK(z[0] == 0x1p-11f + 0x1p-24f);
}

int main(void) {
    if (!CHECK_OK(kac_weights_open(&golden, "tests/golden/ops.safetensors")) ||
        !CHECK_OK(kac_ctx_open(&c, &kac_ref_ops, KAC_F32, 2, NULL)))
        return check_done();
    test_linear();
    test_conv();
    test_attention();
    test_norms();
    test_embeddings();
    test_resample();
    test_conversions();
    test_integers();
    test_closed_forms();
    kac_ctx_close(&c);
    kac_weights_close(&golden);
    return check_done();
}
