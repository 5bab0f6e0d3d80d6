/* kac run COMPONENT from file to file: golden inputs in the reference's names and layouts, and inputs that do not fit. */
#include "check.h"
#include "run/run_component.h"
#include "tensor/ops.h"
#include "util/golden.h"
#include "util/temp.h"

enum { MAX_ITEMS = 8 };

/* The case's inputs as a file under their own names, without the one called `without`. */
static const char *write_inputs(const golden *g, const char *without) {
    kac_st_item items[MAX_ITEMS];
    int n = 0;
    for (int i = 0; i < g->data.n_entries && n < MAX_ITEMS; i++) {
        const char *name = g->data.entries[i].name;
        if (strncmp(name, "in.", 3) != 0 || (without != NULL && strcmp(name + 3, without) == 0)) continue;
        items[n].name = name + 3;
        CHECK_OK(kac_weights_find(&g->data, name, &items[n++].tensor));
    }
    const char *path = temp_path("in.safetensors");
    CHECK_OK(kac_st_write(path, items, n, NULL, 0));
    return path;
}

/* Every stored element of tensor `name` of the file against the case's table ("outputs" or "taps"). */
static void compare(const golden *g, const kac_weights *file, const char *table, const char *prefix, const char *name,
                    double tolerance) {
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(g->json.root, table), name);
    const int64_t stride = (int64_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(entry, "stride"));
    char stored[2 * GOLDEN_MAX_NAME];
    kac_tensor want, have;
    double d = 0, norm = 0;
    snprintf(stored, sizeof stored, "%s.%s", prefix, name);
    if (!CHECK_OK(kac_weights_find(&g->data, stored, &want)) || !CHECK_OK(kac_weights_find(file, name, &have)) ||
        !CHECK(stride > 0))
        return;
    CHECK(have.dtype == KAC_F32 && (kac_tensor_count(have) + stride - 1) / stride == kac_tensor_count(want));
    CHECK(have.rank == cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(entry, "shape")));
    for (int64_t i = 0; i < kac_tensor_count(want); i++) {
        const double x = (double)((const float *)have.data)[i * stride], y = (double)((const float *)want.data)[i];
        d += (x - y) * (x - y);
        norm += y * y;
    }
    CHECK_NEAR(sqrt(d / norm), 0, tolerance);
}

static kac_run_component_args args_of(const golden *g, const char *component, const char *in_path) {
    return (kac_run_component_args){.component = component,
                                    .model_dir = g->dir,
                                    .in_path = in_path,
                                    .out_path = temp_path("out.safetensors"),
                                    .ops = kac_cpu_ops(),
                                    .dtype = KAC_F32,
                                    .n_threads = 2};
}

static void test_component(const char *name, const char *component, const char *const *outputs, const char *tap) {
    golden g;
    kac_weights out = {0}, taps = {0};
    if (!CHECK_OK(golden_open(&g, name))) return;
    kac_run_component_args a = args_of(&g, component, write_inputs(&g, NULL));
    double ms[2] = {0};
    a.taps_path = temp_path("taps.safetensors");
    a.n_repeat = 2;
    a.repeat_ms = ms;
    if (CHECK_OK(kac_run_component(&a)) && CHECK_OK(kac_weights_open(&out, a.out_path)) &&
        CHECK_OK(kac_weights_open(&taps, a.taps_path))) {
        for (int i = 0; outputs[i] != NULL; i++) compare(&g, &out, "outputs", "out", outputs[i], 1e-5);
        compare(&g, &taps, "taps", "tap", tap, 1e-5);
        CHECK(ms[0] > 0 && ms[1] > 0);
    }
    kac_weights_close(&out);
    kac_weights_close(&taps);
    golden_close(&g);
}

static void expect(golden *g, kac_run_component_args a, kac_status status, const char *message) {
    (void)g;
    CHECK_FAILS(kac_run_component(&a), status, message);
    CHECK(!kac_file_exists(a.out_path));
}

static const char *one_tensor(const char *name, kac_tensor t, const kac_st_item *more, int n_more) {
    kac_st_item items[MAX_ITEMS] = {{.name = name, .tensor = t}};
    for (int i = 0; i < n_more; i++) items[i + 1] = more[i];
    const char *path = temp_path("bad.safetensors");
    CHECK_OK(kac_st_write(path, items, n_more + 1, NULL, 0));
    return path;
}

static void test_bad_inputs(void) {
    static float zeros[2 * 4 * 8 * 8];
    static int64_t numbers[16];
    golden g;
    if (!CHECK_OK(golden_open(&g, "unet/plain_blocks"))) return;
    const kac_tensor sample = kac_tensor_make(zeros, KAC_F32, 2, 4, 8, 8);
    const kac_st_item time3 = {.name = "timestep", .tensor = kac_tensor_make(numbers, KAC_I64, 3)};
    expect(&g, args_of(&g, "unet", temp_path("nowhere")), KAC_E_IO, "nowhere");
    expect(&g, args_of(&g, "scheduler2", write_inputs(&g, NULL)), KAC_E_USAGE, "scheduler2");
    expect(&g, args_of(&g, "unet", write_inputs(&g, "timestep")), KAC_E_USAGE, "lacks the tensor \"timestep\"");
    expect(&g, args_of(&g, "unet", write_inputs(&g, "encoder_hidden_states")), KAC_E_USAGE, "encoder_hidden_states");
    expect(&g, args_of(&g, "unet", one_tensor("sample", kac_tensor_make(zeros, KAC_F32, 4, 8, 8), NULL, 0)),
           KAC_E_SHAPE, "rank 3");
    expect(&g, args_of(&g, "unet", one_tensor("sample", kac_tensor_make(numbers, KAC_I64, 1, 4, 2, 2), NULL, 0)),
           KAC_E_USAGE, "I64");
    expect(&g, args_of(&g, "unet", one_tensor("sample", kac_tensor_make(zeros, KAC_F32, 0, 4, 8, 8), NULL, 0)),
           KAC_E_SHAPE, "empty");
    expect(&g, args_of(&g, "unet", one_tensor("sample", sample, &time3, 1)), KAC_E_SHAPE, "one per row");
    expect(&g, args_of(&g, "vae.decode", write_inputs(&g, NULL)), KAC_E_UNSUPPORTED, "UNet2DConditionModel");
    kac_run_component_args a = args_of(&g, "unet", write_inputs(&g, NULL));
    a.model_dir = temp_path("no such folder");
    expect(&g, a, KAC_E_IO, "no such folder");
    a.model_dir = temp_dir();
    expect(&g, a, KAC_E_IO, "neither config.json nor unet/config.json");
    golden_close(&g);
}

/* Inputs that only some networks read. */
static void test_bad_conditions(void) {
    static const struct {
        const char *name, *without;
    } missing[] = {{"unet/sdxl", "time_ids"},
                   {"unet/sdxl", "text_embeds"},
                   {"unet/class_table", "class_labels"},
                   {"unet/class_identity", "class_labels"},
                   {"unet_plain/classes", "class_labels"}};
    for (int i = 0; i < KAC_COUNT_OF(missing); i++) {
        golden g;
        if (!CHECK_OK(golden_open(&g, missing[i].name))) return;
        expect(&g, args_of(&g, "unet", write_inputs(&g, missing[i].without)), KAC_E_USAGE, missing[i].without);
        golden_close(&g);
    }
    static float zeros[3 * 3 * 8 * 8];
    static const int64_t labels[3] = {0, 10, 11};
    const kac_st_item more[] = {
        {.name = "timestep", .tensor = kac_tensor_make(zeros, KAC_F32, 1)},
        {.name = "class_labels", .tensor = kac_tensor_make((void *)(uintptr_t)labels, KAC_I64, 3)}};
    golden g;
    if (!CHECK_OK(golden_open(&g, "unet_plain/classes"))) return;
    const kac_tensor sample = kac_tensor_make(zeros, KAC_F32, 3, 3, 8, 8);
    expect(&g, args_of(&g, "unet", one_tensor("sample", sample, more, 2)), KAC_E_SHAPE, "the classes 0 to 10");
    golden_close(&g);
}

static void test_bad_ids(void) {
    static const int32_t ids[4] = {97, 1, 98, 500};
    golden g;
    if (!CHECK_OK(golden_open(&g, "clip_text/sd2"))) return;
    const char *path = one_tensor("input_ids", kac_tensor_make((void *)(uintptr_t)ids, KAC_I32, 1, 4), NULL, 0);
    expect(&g, args_of(&g, "text_encoder", path), KAC_E_SHAPE, "outside this text encoder's vocabulary");
    path = one_tensor("input_ids", kac_tensor_make((void *)(uintptr_t)ids, KAC_F32, 1, 4), NULL, 0);
    expect(&g, args_of(&g, "text_encoder", path), KAC_E_USAGE, "must be I64 or I32");
    expect(&g, args_of(&g, "clip", path), KAC_E_UNSUPPORTED, "text encoder only");
    golden_close(&g);
}

int main(void) {
    test_component("unet/inpaint", "unet", (const char *const[]){"sample", NULL}, "mid_block");
    test_component("unet_plain/heads", "unet", (const char *const[]){"sample", NULL}, "down_blocks.1.attentions.0");
    test_component("unet/sdxl", "unet", (const char *const[]){"sample", NULL}, "add_embedding");
    test_component("unet/class_table", "unet", (const char *const[]){"sample", NULL}, "class_embedding");
    test_component("unet/class_identity", "unet", (const char *const[]){"sample", NULL}, "encoder_hid_proj");
    test_component("unet_plain/classes", "unet", (const char *const[]){"sample", NULL}, "time_embedding");
    test_component("clip_text/bigg", "text_encoder", (const char *const[]){"last_hidden_state", "text_embeds", NULL},
                   "text_projection");
    test_component("vae/no_attention", "vae.encode", (const char *const[]){"moments", NULL}, "encoder.mid_block");
    test_component("vae/no_attention", "vae.decode", (const char *const[]){"sample", NULL}, "decoder.conv_in");
    test_component("tiny/three", "vae.encode", (const char *const[]){"latents", NULL}, "encoder.layers.0");
    test_component("clip_text/eos_lower", "text_encoder",
                   (const char *const[]){"last_hidden_state", "pooler_output", NULL}, "text_model.encoder.layers.0");
    test_component("clip/patch_14", "clip",
                   (const char *const[]){"image_embeds", "text_embeds", "logits_per_image", NULL},
                   "vision_model.embeddings");
    CHECK(remove(temp_path("out.safetensors")) == 0);
    test_bad_inputs();
    test_bad_conditions();
    test_bad_ids();
    return check_done();
}
