/* AutoencoderKL and AutoencoderTiny against the reference implementation, every named intermediate result. */
#include "check.h"
#include "model/codec.h"
#include "util/golden_run.h"

static bool both_ways(golden *g, kac_ctx *c, const kac_codec *v) {
    kac_tensor image, z, code = {0}, decoded = {0};
    const char *name = kac_codec_config_of(v)->tiny ? "latents" : "moments";
    return CHECK_OK(golden_input(&image, g, c, "sample")) && CHECK_OK(kac_codec_encode(&code, v, c, image)) &&
           CHECK(golden_output(g, name, code)) && CHECK_OK(golden_input(&z, g, c, "z")) &&
           CHECK_OK(kac_codec_decode(&decoded, v, c, z)) && CHECK(golden_output(g, "sample", decoded));
}

static bool run(golden *g, kac_ctx *c) {
    kac_codec *v;
    if (!CHECK_OK(kac_codec_load(&v, c, g->dir))) return false;
    const bool fine = both_ways(g, c, v);
    kac_codec_free(v);
    return fine;
}

int main(void) {
    CHECK(golden_run("vae", run) == 0);
    CHECK(golden_run("tiny", run) == 0);
    return check_done();
}
