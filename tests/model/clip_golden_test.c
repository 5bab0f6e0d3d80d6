/* CLIPTextModel, CLIPTextModelWithProjection and CLIPModel against the reference implementation, every named intermediate result. */
#include "check.h"
#include "model/clip.h"
#include "util/golden_run.h"

enum { MAX_IDS = 1024 };

static bool text(golden *g, kac_ctx *c, const kac_clip *m) {
    static int32_t ids[MAX_IDS];
    int64_t n = 0, n_tokens = 0;
    kac_clip_text_out out;
    return CHECK_OK(golden_ids(g, "input_ids", ids, MAX_IDS, &n, &n_tokens)) &&
           CHECK_OK(kac_clip_text(&out, m, c, ids, n, n_tokens, 0)) &&
           CHECK(golden_output(g, "last_hidden_state", out.hidden)) &&
           (out.embeds.data != NULL ? CHECK(golden_output(g, "text_embeds", out.embeds))
                                    : CHECK(golden_output(g, "pooler_output", out.pooled)));
}

static bool text_and_image(golden *g, kac_ctx *c, const kac_clip *m) {
    static int32_t ids[MAX_IDS];
    int64_t n = 0, n_tokens = 0;
    kac_tensor pixels, image = {0}, words = {0}, logits = {0};
    return CHECK_OK(golden_ids(g, "input_ids", ids, MAX_IDS, &n, &n_tokens)) &&
           CHECK_OK(golden_input(&pixels, g, c, "pixel_values")) &&
           CHECK_OK(kac_clip_text_embeds(&words, m, c, ids, n, n_tokens, true)) &&
           CHECK(golden_output(g, "text_embeds", words)) &&
           CHECK_OK(kac_clip_image_embeds(&image, m, c, pixels, true)) &&
           CHECK(golden_output(g, "image_embeds", image)) && CHECK_OK(kac_clip_logits(&logits, m, c, image, words)) &&
           CHECK(golden_output(g, "logits_per_image", logits));
}

static bool run(golden *g, kac_ctx *c) {
    kac_clip *m;
    if (!CHECK_OK(kac_clip_load(&m, c, g->dir))) return false;
    const bool fine = kac_clip_config_of(m)->has_vision ? text_and_image(g, c, m) : text(g, c, m);
    kac_clip_free(m);
    return fine;
}

int main(void) {
    CHECK(golden_run("clip_text", run) == 0);
    CHECK(golden_run("clip", run) == 0);
    return check_done();
}
