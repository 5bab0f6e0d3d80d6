/* DRaFT-LV: Clark et al., Directly fine-tuning diffusion models on differentiable rewards, arXiv 2309.17400, 2023, algorithm 1.
 *
 * DRaFT-1 whose gradient varies less: beside the last row of the chain, the sample x0 is noised n times to the level of that row with
 * fresh noise, denoised by one call and scored,
 *     x = α x0 + σ z,   x0' = x0-hat(x),   gradient of r(x0') by θ, x a constant,
 * and the mean of the 1 + n gradients is followed (n = 2 in the paper: about twice as fast for a tenth more effort).
 * Published settings: as of draft-k. */
#include "base/base.h"
#include "train/methods.h"
#include "train/pathwise.h"
#include <kac/rng.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"renoise", 0, KAC_OPT_INT, "2", 0, 1000, NULL, "N", "times that each sample is noised and denoised again", false},
    KAC_PATHWISE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef struct draft_lv {
    kac_pathwise path;
    float *x0, *start; /* [batch, n_state] */
    int n_again;
} draft_lv;

enum { STREAM_AGAIN = 1 };

static kac_status open(kac_trainer *tr) {
    draft_lv *m = tr->self;
    const size_t n = (size_t)tr->batch * (size_t)tr->t->n_state;
    m->n_again = (int)kac_options_int(tr->options, "renoise");
    m->x0 = kac_alloc(n * sizeof(float));
    m->start = kac_alloc(n * sizeof(float));
    if (m->x0 == NULL || m->start == NULL) return KAC_E_MEMORY;
    KAC_TRY(kac_pathwise_open(&m->path, tr));
    m->path.keep[tr->t->solver->n_steps - 1] = true;
    return KAC_OK;
}

/* The last row again, from x0 with noise `number` of this round. */
static kac_status draw_again(draft_lv *m, kac_trainer *tr, int part, int number) {
    const int last = tr->t->solver->n_steps - 1;
    const kac_solver_row *row = &tr->t->solver->rows[last];
    const int64_t n_state = tr->t->n_state;
    const kac_key key = {kac_trainer_seed(tr, STREAM_AGAIN), KAC_PURPOSE_DATA, (uint32_t)number};
    for (int i = 0; i < tr->batch; i++) {
        float *x = m->start + i * n_state;
        const float *x0 = m->x0 + i * n_state;
        kac_rng_normal(x, n_state, key, (uint32_t)(part * tr->batch + i), 0);
        for (int64_t j = 0; j < n_state; j++) x[j] = (float)(row->alpha * x0[j] + row->sigma * x[j]);
    }
    const kac_chain_draw draw = {
        .prompt = m->path.prompt, .cfg_scale = tr->cfg_scale, .n_rows = last + 1, .begin = last, .start = m->start};
    return kac_chain_sample(&m->path.chain, &draw);
}

static kac_status run(kac_trainer *tr) {
    draft_lv *m = tr->self;
    const int n_rows = tr->t->solver->n_steps;
    const double weight = 1.0 / (1 + m->n_again);
    for (int part = 0; part < tr->accum; part++) {
        KAC_TRY(kac_pathwise_draw(&m->path, tr, part, 0));
        memcpy(m->x0, m->path.chain.x0, (size_t)tr->batch * (size_t)tr->t->n_state * sizeof(float));
        KAC_TRY(kac_pathwise_pull(&m->path, tr, false, n_rows - 1, weight));
        for (int i = 0; i < m->n_again; i++) {
            KAC_TRY(draw_again(m, tr, part, i));
            KAC_TRY(kac_pathwise_pull(&m->path, tr, false, n_rows - 1, weight));
        }
    }
    return kac_pathwise_update(&m->path, tr);
}

static void close(kac_trainer *tr) {
    draft_lv *m = tr->self;
    kac_pathwise_close(&m->path);
    kac_free(m->x0);
    kac_free(m->start);
}

const kac_tune_method kac_tune_draft_lv = {.name = "draft-lv",
                                           .summary =
                                               "reward gradients through the last row, averaged over fresh noises",
                                           .options = options,
                                           .needs_grad = true,
                                           .n_self = sizeof(draft_lv),
                                           .open = open,
                                           .round = run,
                                           .close = close};
