/* UNet2DConditionModel and UNet2DModel against the reference implementation, every named intermediate result. */
#include "check.h"
#include "model/unet.h"
#include "util/golden_run.h"

static bool forward(golden *g, kac_ctx *c, const kac_unet *u) {
    kac_tensor sample, tokens, out = {0};
    kac_unet_cond *cond = NULL;
    double t[8];
    int n_t = 0;
    if (!CHECK_OK(golden_input(&sample, g, c, "sample")) || !CHECK_OK(golden_reals(g, "timestep", t, 8, &n_t)))
        return false;
    const int64_t n = sample.shape[0];
    for (int64_t i = n_t; i < n; i++) t[i] = t[0];
    bool fine = true;
    if (kac_unet_config_of(u)->conditional)
        fine = CHECK_OK(golden_input(&tokens, g, c, "encoder_hidden_states")) &&
               CHECK_OK(kac_unet_condition(&cond, u, c, &(kac_unet_inputs){.tokens = tokens}));
    const size_t used = c->scratch.used;
    fine =
        fine && CHECK_OK(kac_unet_forward(&out, u, c, sample, t, cond, NULL)) && CHECK(golden_output(g, "sample", out));
    CHECK(!fine || c->scratch.used - used == (kac_tensor_bytes(out) + 63) / 64 * 64);
    kac_unet_cond_free(cond);
    return fine;
}

static bool run(golden *g, kac_ctx *c) {
    kac_unet *u;
    if (!CHECK_OK(kac_unet_load(&u, c, g->dir))) return false;
    const bool fine = forward(g, c, u);
    kac_unet_free(u);
    return fine;
}

int main(void) {
    CHECK(golden_run("unet", run) == 0);
    CHECK(golden_run("unet_plain", run) == 0);
    return check_done();
}
