/* UNet2DConditionModel and UNet2DModel against the reference implementation, every named intermediate result. */
#include "check.h"
#include "model/unet.h"
#include "util/golden_run.h"

enum { MAX_ROWS = 8, MAX_IDS = 64 };

typedef struct conditions {
    kac_unet_inputs in;
    double time_ids[MAX_IDS], labels[MAX_ROWS];
} conditions;

/* Every input beside sample and timestep that the case has. */
static bool read_conditions(conditions *k, golden *g, kac_ctx *c, const kac_unet_config *cfg, int n) {
    int n_ids = 0, n_labels = 0;
    k->in.n = n;
    if (cfg->conditional && !CHECK_OK(golden_input(&k->in.tokens, g, c, "encoder_hidden_states"))) return false;
    if (cfg->addition == KAC_ADDITION_TEXT_TIME) {
        if (!CHECK_OK(golden_input(&k->in.pooled, g, c, "text_embeds")) ||
            !CHECK_OK(golden_reals(g, "time_ids", k->time_ids, MAX_IDS, &n_ids)))
            return false;
        k->in.time_ids = k->time_ids, k->in.n_time_ids = n_ids / n;
    }
    if (cfg->time_cond_dim > 0 && !CHECK_OK(golden_input(&k->in.timestep_cond, g, c, "timestep_cond"))) return false;
    if (cfg->class_embed == KAC_CLASS_EMBED_NONE) return true;
    if (cfg->class_embed != KAC_CLASS_EMBED_TABLE && cfg->class_embed != KAC_CLASS_EMBED_TIMESTEP)
        return CHECK_OK(golden_input(&k->in.label_rows, g, c, "class_labels"));
    k->in.labels = k->labels;
    return CHECK_OK(golden_reals(g, "class_labels", k->labels, MAX_ROWS, &n_labels)) && CHECK(n_labels == n);
}

static bool forward(golden *g, kac_ctx *c, const kac_unet *u) {
    kac_tensor sample, out = {0};
    kac_unet_cond *cond = NULL;
    conditions k = {0};
    double t[MAX_ROWS];
    int n_t = 0;
    if (!CHECK_OK(golden_input(&sample, g, c, "sample")) || !CHECK_OK(golden_reals(g, "timestep", t, MAX_ROWS, &n_t)))
        return false;
    const int64_t n = sample.shape[0];
    for (int64_t i = n_t; i < n; i++) t[i] = t[0];
    const kac_unet_config *cfg = kac_unet_config_of(u);
    bool fine = true;
    if (cfg->conditional || cfg->class_embed != KAC_CLASS_EMBED_NONE)
        fine = read_conditions(&k, g, c, cfg, (int)n) && CHECK_OK(kac_unet_condition(&cond, u, c, &k.in));
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
