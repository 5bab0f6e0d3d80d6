#include "check.h"
#include "io/safetensors.h"
#include "model/checkpoint.h"
#include "model/clip.h"
#include "model/codec.h"
#include "model/unet.h"
#include "util/golden_weights.h"
#include "util/temp.h"
#include <stdlib.h>

/* Single files in the original names: what the translation gives is what diffusers' own conversion gives, tensor by tensor and key by
 * key, so the networks are the same too. */

#define DATA "tests/golden/single/"

/* Writes the case's file: numbers by the formula, under the names of the original code. */
static const char *write_file(const cJSON *file, const char *name) {
    const int n = cJSON_GetArraySize(file);
    kac_st_item *items = calloc((size_t)n, sizeof *items);
    int i = 0;
    const cJSON *row;
    cJSON_ArrayForEach(row, file) {
        const cJSON *list = row->child;
        int64_t shape[KAC_MAX_RANK];
        int rank = 0;
        for (const cJSON *d = list->child; d != NULL; d = d->next) shape[rank++] = d->valueint;
        kac_tensor t = kac_tensor_of(NULL, KAC_F32, rank, shape);
        t.data = malloc(kac_tensor_bytes(t) + 4);
        golden_weights(t.data, row->string, kac_tensor_count(t), list->next->valuedouble,
                       list->next->next->valuedouble);
        items[i++] = (kac_st_item){row->string, t};
    }
    const char *path = temp_path(name);
    CHECK_OK(kac_st_write(path, items, n, NULL, 0));
    for (i = 0; i < n; i++) free(items[i].tensor.data);
    free(items);
    return path;
}

/* Every key of `want` is in `have`, and equal. */
static bool same_config(const cJSON *want, const cJSON *have) {
    bool same = true;
    const cJSON *v;
    cJSON_ArrayForEach(v, want) {
        const cJSON *other = cJSON_GetObjectItemCaseSensitive(have, v->string);
        bool ok = other != NULL && cJSON_Compare(v, other, true);
        if (cJSON_IsArray(v) && cJSON_IsNumber(other)) { /* one number for all */
            ok = true;
            for (const cJSON *e = v->child; e != NULL; e = e->next) ok &= e->valuedouble == other->valuedouble;
        } else if (cJSON_IsNumber(v) && cJSON_IsArray(other)) {
            ok = true;
            for (const cJSON *e = other->child; e != NULL; e = e->next) ok &= e->valuedouble == v->valuedouble;
        }
        if (!ok) printf("  %s: %s\n", v->string, other == NULL ? "missing" : cJSON_PrintUnformatted(other));
        same &= ok;
    }
    return same;
}

static void check_network(const kac_checkpoint *m, const cJSON *part) {
    kac_source s;
    const char *name = part->string;
    const cJSON *tensors = cJSON_GetObjectItem(part, "tensors"), *row;
    if (!CHECK_OK(kac_checkpoint_source(&s, m, name))) return;
    CHECK(kac_checkpoint_has(m, name));
    if (!CHECK(same_config(cJSON_GetObjectItem(part, "config"), s.config.root))) printf("  in %s\n", s.path);
    CHECK(s.weights.n_entries == cJSON_GetArraySize(tensors));
    cJSON_ArrayForEach(row, tensors) {
        kac_tensor t;
        if (!CHECK_OK(kac_weights_find(&s.weights, row->string, &t))) continue;
        if (!CHECK(kac_crc32(t.data, kac_tensor_bytes(t), 0) == (uint32_t)row->valuedouble))
            printf("  %s %s\n", s.path, row->string);
    }
    kac_unet_config u;
    kac_codec_config v;
    kac_clip_config c;
    if (strcmp(name, "unet") == 0)
        CHECK_OK(kac_unet_config_read(&u, &s.config));
    else if (strcmp(name, "vae") == 0)
        CHECK_OK(kac_codec_config_read(&v, &s.config));
    else
        CHECK_OK(kac_clip_config_read(&c, &s.config));
    kac_source_close(&s);
}

/* The networks load, so that the shapes are those that the configs imply. */
static void check_loads(const kac_checkpoint *m, const cJSON *part) {
    kac_ctx c;
    kac_source s;
    kac_unet *unet = NULL;
    kac_codec *codec = NULL;
    kac_clip *clip = NULL;
    if (!CHECK_OK(kac_ctx_open(&c, &kac_plan_ops, KAC_F32, 1, NULL))) return;
    if (CHECK_OK(kac_checkpoint_source(&s, m, part->string))) {
        if (strcmp(part->string, "unet") == 0)
            CHECK_OK(kac_unet_load_from(&unet, &c, &s));
        else if (strcmp(part->string, "vae") == 0)
            CHECK_OK(kac_codec_load_from(&codec, &c, &s));
        else
            CHECK_OK(kac_clip_load_from(&clip, &c, &s));
    }
    kac_unet_free(unet);
    kac_codec_free(codec);
    kac_clip_free(clip);
    kac_source_close(&s);
    kac_ctx_close(&c);
}

static void test_case(const char *name) {
    char path[128];
    kac_json j;
    kac_checkpoint m;
    snprintf(path, sizeof path, DATA "%s.json", name);
    if (!CHECK_OK(kac_json_load(&j, path))) return;
    const char *file = write_file(cJSON_GetObjectItem(j.root, "file"), "single.safetensors");
    const cJSON *parts = cJSON_GetObjectItem(j.root, "components"), *part;
    if (CHECK_OK(kac_checkpoint_open(&m, file, NULL))) {
        CHECK(m.single && m.ldm.v_prediction == cJSON_IsTrue(cJSON_GetObjectItem(j.root, "v_prediction")));
        cJSON_ArrayForEach(part, parts) {
            check_network(&m, part);
            check_loads(&m, part);
        }
        kac_source s;
        if (cJSON_GetObjectItem(parts, "unet") == NULL)
            CHECK_FAILS(kac_checkpoint_source(&s, &m, "unet"), KAC_E_FORMAT, "holds no unet");
        kac_checkpoint_close(&m);
    }
    kac_json_free(&j);
}

/* What the options and the file's own statements do to the prediction. */
static void test_prediction(void) {
    kac_json j, scheduler;
    kac_checkpoint m;
    if (!CHECK_OK(kac_json_load(&j, DATA "sd1.json"))) return;
    const char *file = write_file(cJSON_GetObjectItem(j.root, "file"), "p.safetensors");
    const struct {
        const char *asked, *got;
    } rows[] = {{NULL, "epsilon"}, {"v_prediction", "v_prediction"}, {"epsilon", "epsilon"}};
    for (int i = 0; i < KAC_COUNT_OF(rows); i++) {
        if (!CHECK_OK(kac_checkpoint_open(&m, file, &(kac_checkpoint_options){.prediction = rows[i].asked}))) continue;
        if (CHECK_OK(kac_checkpoint_scheduler(&scheduler, &m)))
            CHECK_TEXT(cJSON_GetObjectItem(scheduler.root, "prediction_type")->valuestring, rows[i].got);
        kac_json_free(&scheduler);
        kac_checkpoint_close(&m);
    }
    CHECK_FAILS(kac_checkpoint_open(&m, file, &(kac_checkpoint_options){.prediction = "x0"}), KAC_E_USAGE, "x0");
    kac_json_free(&j);
}

/* Files that are no such checkpoint, or one with a part missing or too much. */
static void test_refused(void) {
    kac_checkpoint m;
    kac_source s;
    kac_json j;
    CHECK_FAILS(kac_checkpoint_open(&m, "tests/io/data/torch/plain.pt", NULL), KAC_E_UNSUPPORTED,
                "no network under the names");
    CHECK_FAILS(kac_checkpoint_open(&m, temp_path("nowhere"), NULL), KAC_E_IO, "no model folder or file");
    CHECK_FAILS(kac_source_open(&s, "tests/io/data/torch/plain.pt", "unet"), KAC_E_UNSUPPORTED, "no network");
    if (!CHECK_OK(kac_json_load(&j, DATA "sd1.json"))) return;
    cJSON *file = cJSON_GetObjectItem(j.root, "file");
    cJSON *more = cJSON_Duplicate(cJSON_GetObjectItem(file, "betas"), true);
    cJSON_AddItemToObject(file, "model.diffusion_model.temporal.weight", more);
    CHECK_FAILS(kac_source_open(&s, write_file(file, "a.safetensors"), "unet"), KAC_E_UNSUPPORTED, "temporal.weight");
    cJSON_DeleteItemFromObject(file, "model.diffusion_model.temporal.weight");
    cJSON_DeleteItemFromObject(file, "model.diffusion_model.output_blocks.4.0.in_layers.0.weight");
    CHECK_FAILS(kac_source_open(&s, write_file(file, "b.safetensors"), "unet"), KAC_E_FORMAT, "output_blocks");
    kac_json_free(&j);
}

int main(void) {
    static const char *const cases[] = {"sd1", "sd2", "xl", "refiner", "inpaint", "lcm", "vae_alone"};
    for (int i = 0; i < KAC_COUNT_OF(cases); i++) test_case(cases[i]);
    test_prediction();
    test_refused();
    return check_done();
}
