/* Checkpoints in open_clip's names against open_clip itself. */
#include "check.h"
#include "model/clip.h"
#include "model/open_clip.h"
#include "util/golden_run.h"

enum { MAX_IDS = 256 };

static bool embeds(golden *g, kac_ctx *c, const kac_clip *m) {
    static int32_t ids[MAX_IDS];
    int64_t n = 0, n_tokens = 0;
    kac_tensor pixels, image = {0}, words = {0}, scale;
    if (!CHECK_OK(golden_ids(g, "input_ids", ids, MAX_IDS, &n, &n_tokens)) ||
        !CHECK_OK(golden_input(&pixels, g, c, "pixel_values")) || !CHECK_OK(kac_take_make(&scale, &c->run, KAC_F32, 1)))
        return false;
    *(float *)scale.data = (float)kac_clip_config_of(m)->logit_scale;
    return CHECK_OK(kac_clip_text_embeds(&words, m, c, ids, n, n_tokens, true)) &&
           CHECK(golden_output(g, "text_embeds", words)) &&
           CHECK_OK(kac_clip_image_embeds(&image, m, c, pixels, true)) &&
           CHECK(golden_output(g, "image_embeds", image)) && CHECK(golden_output(g, "logit_scale", scale));
}

static bool run(golden *g, kac_ctx *c) {
    kac_source source;
    kac_clip *m = NULL;
    const char *act = "";
    if (!CHECK_OK(kac_source_open_dir(&source, g->dir, "model"))) return false;
    CHECK_OK(kac_json_text(&g->json, g->json.root, "act", &act));
    bool fine = CHECK(kac_open_clip_is(&source.weights)) &&
                CHECK_OK(kac_open_clip_translate(&source, strcmp(act, "quick_gelu") == 0)) &&
                CHECK_OK(kac_clip_load_from(&m, c, &source));
    kac_source_close(&source);
    fine = fine && embeds(g, c, m);
    kac_clip_free(m);
    return fine;
}

int main(void) {
    CHECK(golden_run("open_clip", run) == 0);
    return check_done();
}
