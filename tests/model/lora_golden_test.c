/* LoRA files that PEFT and diffusers wrote, in every key format, against what diffusers computes with them: at run time and merged, on every
 * backend. */
#include "check.h"
#include "model/clip.h"
#include "model/source.h"
#include "model/unet.h"
#include "nn/lora.h"
#include "util/golden_run.h"

enum { MAX_FILES = 4 };

static bool merge;

static kac_lora_part part_of(const golden *g) {
    const char *name = "";
    CHECK_OK(kac_json_text(&g->json, g->json.root, "part", &name));
    return strcmp(name, "unet") == 0           ? KAC_LORA_UNET
           : strcmp(name, "text_encoder") == 0 ? KAC_LORA_TEXT
                                               : KAC_LORA_TEXT_2;
}

/* The case's files: [[name, scale], …] beside it. */
static kac_status open_set(kac_lora_set **set, const golden *g) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(g->json.root, "lora"), *item = NULL;
    kac_lora_use uses[MAX_FILES];
    char *paths[MAX_FILES];
    int n = 0;
    cJSON_ArrayForEach(item, list) {
        paths[n] = kac_format("tests/golden/lora/files/%s", cJSON_GetStringValue(cJSON_GetArrayItem(item, 0)));
        uses[n] = (kac_lora_use){paths[n], cJSON_GetNumberValue(cJSON_GetArrayItem(item, 1))};
        n++;
    }
    const kac_status s = kac_lora_set_open(set, uses, n, merge);
    for (int i = 0; i < n; i++) kac_free(paths[i]);
    return s;
}

static bool forward_unet(golden *g, kac_ctx *c, const kac_unet *u) {
    kac_tensor sample, out = {0};
    kac_unet_cond *cond = NULL;
    kac_unet_inputs in = {0};
    double t[8];
    int n_t = 0;
    if (!CHECK_OK(golden_input(&sample, g, c, "sample")) || !CHECK_OK(golden_reals(g, "timestep", t, 8, &n_t)) ||
        !CHECK_OK(golden_input(&in.tokens, g, c, "encoder_hidden_states")))
        return false;
    in.n = (int)sample.shape[0];
    for (int i = n_t; i < in.n; i++) t[i] = t[0];
    const bool fine = CHECK_OK(kac_unet_condition(&cond, u, c, &in)) &&
                      CHECK_OK(kac_unet_forward(&out, u, c, sample, t, cond, NULL)) &&
                      CHECK(golden_output(g, "sample", out));
    kac_unet_cond_free(cond);
    return fine;
}

static bool run_unet(golden *g, kac_ctx *c, const kac_source *source) {
    kac_unet *u;
    if (!CHECK_OK(kac_unet_load_from(&u, c, source))) return false;
    const bool fine = forward_unet(g, c, u);
    kac_unet_free(u);
    return fine;
}

static bool run_text(golden *g, kac_ctx *c, const kac_source *source) {
    kac_clip *clip;
    int32_t ids[64];
    int64_t n, length;
    kac_clip_text_out out;
    if (!CHECK_OK(kac_clip_load_from(&clip, c, source))) return false;
    bool fine = CHECK_OK(golden_ids(g, "input_ids", ids, 64, &n, &length)) &&
                CHECK_OK(kac_clip_text(&out, clip, c, ids, n, length, 0)) &&
                CHECK(golden_output(g, "last_hidden_state", out.hidden));
    if (fine && golden_has_output(g, "pooler_output")) fine = CHECK(golden_output(g, "pooler_output", out.pooled));
    kac_tensor embeds = {0};
    if (fine && golden_has_output(g, "text_embeds"))
        fine = CHECK_OK(kac_clip_text_embeds(&embeds, clip, c, ids, n, length, false)) &&
               CHECK(golden_output(g, "text_embeds", embeds));
    kac_clip_free(clip);
    return fine;
}

static bool run(golden *g, kac_ctx *c) {
    kac_source source;
    kac_lora_set *set;
    const kac_lora_part part = part_of(g);
    if (!CHECK_OK(kac_source_open_dir(&source, g->dir, part == KAC_LORA_UNET ? "diffusion_pytorch_model" : "model")))
        return false;
    bool fine = CHECK_OK(open_set(&set, g));
    if (fine) {
        source.lora = set, source.lora_part = part;
        fine = part == KAC_LORA_UNET ? run_unet(g, c, &source) : run_text(g, c, &source);
        fine = CHECK_OK(kac_lora_set_check(set, 1u << part, false)) && fine;
        kac_lora_set_close(set);
    }
    kac_source_close(&source);
    return fine;
}

int main(void) {
    for (int i = 0; i < 2; i++) {
        merge = i == 1;
        printf("%s:\n", merge ? "merged" : "at run time");
        CHECK(golden_run("lora", run) == 0);
    }
    return check_done();
}
