/* LoRA files: names in every format, what is refused and how it is said, conversion between the formats. */
#include "check.h"
#include "io/lora.h"
#include "io/lora_names.h"
#include "io/safetensors.h"
#include "run/convert_lora.h"
#include "tensor/convert.h"
#include "util/temp.h"
#include <stdlib.h>

enum { MAX_ITEMS = 8, R = 2 };

static char path[512];
static float numbers[64];

/* ---- files of our own ---- */

typedef struct item {
    const char *name;
    int64_t shape[4]; /* up to the first 0; none: one number */
} item;

static void write_lora(const item *items, int n, const char *metadata) {
    kac_st_item out[MAX_ITEMS];
    for (int i = 0; i < n; i++) {
        int rank = 0;
        while (rank < 4 && items[i].shape[rank] > 0) rank++;
        out[i] = (kac_st_item){items[i].name, kac_tensor_of(numbers, KAC_F32, rank, items[i].shape)};
    }
    const kac_st_pair pair = {"lora_adapter_metadata", metadata};
    CHECK_OK(kac_st_write(path, out, n, &pair, metadata != NULL));
}

static void refuses(kac_status status, const char *text, const item *items, int n, const char *metadata) {
    kac_lora l;
    write_lora(items, n, metadata);
    if (!CHECK_FAILS(kac_lora_open(&l, path), status, text)) kac_lora_close(&l);
}
#define REFUSES(status, text, ...)                                                                                     \
    refuses((status), (text), (item[]){__VA_ARGS__}, (int)(sizeof((item[]){__VA_ARGS__}) / sizeof(item)), NULL)

#define K "lora_unet_mid_block_attentions_0_proj_in."
#define P "unet.mid_block.attentions.0.proj_in."

static void test_refused(void) {
    REFUSES(KAC_E_FORMAT, "holds no LoRA", {"conv_in.weight", {4, 4}});
    REFUSES(KAC_E_FORMAT, "holds no LoRA", {"some.alpha", {0}});
    REFUSES(KAC_E_FORMAT, "has no up", {K "lora_down.weight", {R, 4}}, {K "alpha", {0}});
    REFUSES(KAC_E_FORMAT, "has no down", {P "lora_B.weight", {4, R}});
    REFUSES(KAC_E_FORMAT, "cannot be multiplied", {K "lora_down.weight", {R, 4}}, {K "lora_up.weight", {4, 3}});
    REFUSES(KAC_E_FORMAT, "matrices", {K "lora_down.weight", {R}}, {K "lora_up.weight", {4, R}});
    REFUSES(KAC_E_FORMAT, "cannot be multiplied", {K "lora_down.weight", {R, 4, 3, 1}},
            {K "lora_up.weight", {4, R, 3, 1}});
    REFUSES(KAC_E_FORMAT, "one number", {K "lora_down.weight", {R, 4}}, {K "lora_up.weight", {4, R}}, {K "alpha", {2}});
    REFUSES(KAC_E_FORMAT, "occurs twice", {K "lora_down.weight", {R, 4}}, {K "lora_up.weight", {4, R}},
            {P "lora_A.weight", {R, 4}});
    REFUSES(KAC_E_FORMAT, "lora_mid", {K "lora_down.weight", {R, 4, 1, 1}}, {K "lora_up.weight", {4, R, 1, 1}},
            {K "lora_mid.weight", {R, 3, 3, 1}});
    REFUSES(KAC_E_UNSUPPORTED, "LoHa", {K "hada_w1_a", {4, R}});
    REFUSES(KAC_E_UNSUPPORTED, "LoKr", {K "lokr_w1", {R, R}});
    REFUSES(KAC_E_UNSUPPORTED, "DoRA", {K "lora_down.weight", {R, 4}}, {K "lora_up.weight", {4, R}},
            {K "dora_scale", {4}});
    REFUSES(KAC_E_UNSUPPORTED, "DoRA", {P "lora_magnitude_vector", {4}});
    REFUSES(KAC_E_UNSUPPORTED, "bias", {P "lora_B.bias", {4}});
    REFUSES(KAC_E_UNSUPPORTED, "full difference", {K "diff", {4, 4}});
    REFUSES(KAC_E_UNSUPPORTED, "another kind of model", {"transformer.blocks.0.to_q.lora_A.weight", {R, 4}},
            {"transformer.blocks.0.to_q.lora_B.weight", {4, R}});
    const item good[] = {{P "lora_A.weight", {R, 4}}, {P "lora_B.weight", {4, R}}};
    refuses(KAC_E_FORMAT, "", good, 2, "{");
    refuses(KAC_E_FORMAT, "lora_alpha", good, 2, "{\"unet.r\": 2, \"unet.lora_alpha\": \"x\"}");
    refuses(KAC_E_UNSUPPORTED, "LOHA", good, 2, "{\"unet.r\": 2, \"unet.peft_type\": \"LOHA\"}");
    refuses(KAC_E_UNSUPPORTED, "use_dora", good, 2, "{\"unet.r\": 2, \"unet.use_dora\": true}");
    refuses(KAC_E_UNSUPPORTED, "alpha_pattern", good, 2, "{\"unet.r\": 2, \"unet.alpha_pattern\": {\"mid.*\": 2}}");
    kac_lora l;
    CHECK_FAILS(kac_lora_open(&l, temp_dir()), KAC_E_IO, "adapter_model.safetensors");
}

/* ---- names and scales ---- */

static void test_scales(void) {
    const item plain[] = {{P "lora_A.weight", {R, 4}}, {P "lora_B.weight", {4, R}}};
    const item kohya[] = {{K "lora_down.weight", {R, 4}}, {K "lora_up.weight", {4, R}}, {K "alpha", {0}}};
    const struct {
        const item *items;
        int n;
        const char *metadata;
        double scale;
    } cases[] = {{plain, 2, NULL, 1},
                 {kohya, 2, NULL, 1},
                 {kohya, 3, NULL, 3.5 / R},
                 {plain, 2, "{\"r\": 2, \"lora_alpha\": 6}", 3},
                 {plain, 2, "{\"unet.r\": 2, \"unet.lora_alpha\": 6, \"unet.use_rslora\": true}", 6 / sqrt(R)},
                 {plain, 2, "{\"unet.r\": 2, \"unet.lora_alpha\": 6, \"unet.alpha_pattern\": {\"proj_in\": 8}}", 4},
                 {plain, 2, "{\"unet.r\": 2, \"unet.lora_alpha\": 6, \"unet.alpha_pattern\": {\"j_in\": 8}}", 3},
                 {plain, 2, "{\"unet.r\": 2, \"unet.lora_alpha\": 6, \"unet.alpha_pattern\": {\"^proj_in\": 8}}", 3},
                 {plain, 2, "{\"text_encoder.r\": 2, \"text_encoder.lora_alpha\": 6}", 1}};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        kac_lora l;
        write_lora(cases[i].items, cases[i].n, cases[i].metadata);
        if (!CHECK_OK(kac_lora_open(&l, path))) continue;
        CHECK(l.n_modules == 1 && l.modules[0].part == KAC_LORA_UNET);
        CHECK_TEXT(l.modules[0].path, "mid_block.attentions.0.proj_in");
        CHECK_NEAR(l.modules[0].scale, cases[i].scale, 1e-12);
        kac_lora_close(&l);
    }
}

static void test_names(void) {
    static const struct {
        const char *key, *path;
        kac_lora_part part;
    } cases[] = {
        {"lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_up.weight",
         "text_model.encoder.layers.0.self_attn.out_proj", KAC_LORA_TEXT},
        {"lora_te2_text_projection.lora_up.weight", "text_projection", KAC_LORA_TEXT_2},
        {"lora_unet__down_blocks_0_resnets_1_time_emb_proj.lora_down.weight", "down_blocks.0.resnets.1.time_emb_proj",
         KAC_LORA_UNET},
        {"base_model.model.down_blocks.0.attentions.0.proj_in.lora_A.default.weight",
         "down_blocks.0.attentions.0.proj_in", KAC_LORA_UNET},
        {"base_model.model.encoder.layers.3.mlp.fc1.lora_A.weight", "text_model.encoder.layers.3.mlp.fc1",
         KAC_LORA_TEXT},
        {"mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_out_lora.up.weight",
         "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0", KAC_LORA_UNET},
        {"text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
         "text_model.encoder.layers.0.self_attn.out_proj", KAC_LORA_TEXT},
        {"text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
         "text_model.encoder.layers.0.self_attn.q_proj", KAC_LORA_TEXT_2},
        {"diffusion_model.input_blocks.4.1.proj_in.lora_A.weight", "input_blocks.4.1.proj_in", KAC_LORA_UNET},
    };
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) {
        kac_lora_key k;
        bool known;
        CHECK_OK(kac_lora_key_read(&k, &known, cases[i].key, "f"));
        CHECK(known && k.part == cases[i].part);
        CHECK_TEXT(k.path, cases[i].path);
    }
    static const char *const sgm[][2] = {{"input_blocks.0.0", "conv_in"},
                                         {"input_blocks.3.0.op", "down_blocks.0.downsamplers.0.conv"},
                                         {"input_blocks.4.1.proj_in", "down_blocks.1.attentions.0.proj_in"},
                                         {"input_blocks.5.0.in_layers.2", "down_blocks.1.resnets.1.conv1"},
                                         {"middle_block.2.out_layers.3", "mid_block.resnets.1.conv2"},
                                         {"middle_block.1.proj_out", "mid_block.attentions.0.proj_out"},
                                         {"output_blocks.2.1.conv", "up_blocks.0.upsamplers.0.conv"},
                                         {"output_blocks.5.2.conv", "up_blocks.1.upsamplers.0.conv"},
                                         {"output_blocks.4.0.skip_connection", "up_blocks.1.resnets.1.conv_shortcut"},
                                         {"time_embed.2", "time_embedding.linear_2"},
                                         {"label_emb.0.0", "add_embedding.linear_1"}};
    char name[KAC_LORA_MAX_NAME];
    for (int i = 0; i < KAC_COUNT_OF(sgm); i++)
        if (CHECK(kac_lora_from_sgm(name, sgm[i][0], 2))) CHECK_TEXT(name, sgm[i][1]);
    CHECK(!kac_lora_from_sgm(name, "input_blocks.x.0.op", 2) && !kac_lora_from_sgm(name, "middle_block.3.proj", 2));
}

/* ---- conversion ---- */

/* |ΔW − ΔW'| / |ΔW'| of two modules. */
static double distance(const kac_lora_module *a, const kac_lora_module *b) {
    const int64_t row = a->n_in * a->kh * a->kw;
    if (a->n_in != b->n_in || a->n_out != b->n_out || a->rank != b->rank || a->kh != b->kh) return INFINITY;
    double *f[4];
    for (int i = 0; i < 4; i++) {
        const kac_lora_module *m = i < 2 ? a : b;
        f[i] = malloc((size_t)(i % 2 == 0 ? m->rank * row : m->n_out * m->rank) * sizeof(double));
        (i % 2 == 0 ? kac_lora_down_values : kac_lora_up_values)(f[i], m);
    }
    double difference = 0, norm = 0;
    for (int64_t o = 0; o < a->n_out; o++)
        for (int64_t i = 0; i < row; i++) {
            double x = 0, y = 0;
            for (int64_t r = 0; r < a->rank; r++) {
                x += a->scale * f[1][o * a->rank + r] * f[0][r * row + i];
                y += b->scale * f[3][o * b->rank + r] * f[2][r * row + i];
            }
            difference += (x - y) * (x - y), norm += y * y;
        }
    for (int i = 0; i < 4; i++) free(f[i]);
    return sqrt(difference / norm);
}

static void convert_one(const char *in, kac_lora_format format, int dtype, double tolerance) {
    kac_lora before, after;
    kac_lora_written r;
    const kac_convert_lora_args a = {.in = in, .out = path, .format = format, .dtype = dtype};
    if (!CHECK_OK(kac_convert_lora(&r, &a)) || !CHECK_OK(kac_lora_open(&before, in))) return;
    kac_lora_resolve_sgm(&before, 2);
    if (CHECK_OK(kac_lora_open(&after, path))) {
        CHECK(after.format == format && after.n_modules == before.n_modules && r.n_modules == after.n_modules);
        double worst = 0;
        for (int i = 0; i < before.n_modules; i++) {
            const kac_lora_module *m = kac_lora_find(&after, before.modules[i].part, before.modules[i].flat);
            if (CHECK(m != NULL)) worst = KAC_MAX(worst, distance(m, &before.modules[i]));
        }
        if (!CHECK(worst <= tolerance)) printf("%s to %s: %.2e\n", in, kac_lora_format_name(format), worst);
        kac_lora_close(&after);
    }
    kac_lora_close(&before);
}

static void test_conversion(void) {
    static const char *const files[] = {"adapter", "pipeline", "diffusers", "kohya", "kohya_xl", "processor"};
    char in[96];
    for (int i = 0; i < KAC_COUNT_OF(files); i++)
        for (int format = 0; format < KAC_LORA_PROCESSOR; format++) {
            snprintf(in, sizeof in, "tests/golden/lora/files/%s.safetensors", files[i]);
            convert_one(in, (kac_lora_format)format, KAC_F32, 1e-6);
            convert_one(in, (kac_lora_format)format, KAC_BF16, 2e-2);
        }
    convert_one("tests/golden/lora/files/processor.safetensors", KAC_LORA_PROCESSOR, -1, 1e-6);
    kac_lora_written r;
    const kac_convert_lora_args a = {
        .in = "tests/golden/lora/files/adapter.safetensors", .out = path, .format = KAC_LORA_PROCESSOR, .dtype = -1};
    CHECK_FAILS(kac_convert_lora(&r, &a), KAC_E_UNSUPPORTED, "attention layers only");
    CHECK(kac_convert_is_lora(a.in) && !kac_convert_is_lora("tests/golden/lora/adapter.safetensors"));
}

/* A Tucker core: what its own product gives, and the same after conversion to a format without cores. */
static void test_tucker(void) {
    const item items[] = {
        {K "lora_down.weight", {R, 3, 1, 1}}, {K "lora_up.weight", {4, R, 1, 1}}, {K "lora_mid.weight", {R, R, 3, 1}}};
    write_lora(items, 3, NULL);
    kac_lora l;
    if (!CHECK_OK(kac_lora_open(&l, path))) return;
    double down[R * 3 * 3];
    kac_lora_down_values(down, &l.modules[0]);
    const float *core = l.modules[0].mid.data, *first = l.modules[0].down.data;
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 3; i++)
            for (int tap = 0; tap < 3; tap++) {
                double want = 0;
                for (int q = 0; q < R; q++) want += (double)core[(r * R + q) * 3 + tap] * (double)first[q * 3 + i];
                CHECK_NEAR(down[(r * 3 + i) * 3 + tap], want, 1e-12);
            }
    kac_lora_close(&l);
    char in[512];
    snprintf(in, sizeof in, "%s", temp_path("tucker.safetensors"));
    CHECK(rename(path, in) == 0);
    convert_one(in, KAC_LORA_PEFT, KAC_F32, 1e-6);
    convert_one(in, KAC_LORA_KOHYA, KAC_F32, 1e-6);
}

int main(void) {
    snprintf(path, sizeof path, "%s", temp_path("lora.safetensors"));
    for (int i = 0; i < KAC_COUNT_OF(numbers); i++) numbers[i] = 3.5F - 0.37F * (float)i;
    test_refused();
    test_scales();
    test_names();
    test_conversion();
    test_tucker();
    return check_done();
}
