/* ReFL: Xu et al., ImageReward: learning and evaluating human preferences for text-to-image generation, NeurIPS 2023, algorithm 1.
 *
 * The chain is run without a gradient to a random late row, whose x0-hat is scored instead of a finished sample; the gradient goes through
 * that one call. Published: 40 steps, the row drawn from 30 to 39, no guidance, loss max(0, 2 − r) (--loss hinge --loss-target 2) times
 * 0.001, AdamW at 1e-5 with weight decay 0.01 on the full network, 64 samples an update. */
#include "train/methods.h"
#include "train/pathwise.h"

static const kac_option_spec options[] = {
    {"from", 0, KAC_OPT_INT, NULL, 0, 100000, NULL, "ROW",
     "first row that may be scored (default: three quarters of them: 30 of 40)", false},
    {"to", 0, KAC_OPT_INT, NULL, 0, 100000, NULL, "ROW", "last row that may be scored (default: the last)", false},
    KAC_PATHWISE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef struct refl {
    kac_pathwise path;
    int from, to;
} refl;

enum { STREAM_ROW = 1 };

static kac_status open(kac_trainer *tr) {
    refl *m = tr->self;
    const kac_options *o = tr->options;
    const int n_rows = tr->t->solver->n_steps;
    m->from = kac_options_given(o, "from") ? (int)kac_options_int(o, "from") : n_rows * 3 / 4;
    m->to = kac_options_given(o, "to") ? (int)kac_options_int(o, "to") : n_rows - 1;
    if (m->from > m->to || m->to >= n_rows)
        return KAC_FAIL(KAC_E_USAGE, "--from %d --to %d: rows are 0 to %d, in this order", m->from, m->to, n_rows - 1);
    return kac_pathwise_open(&m->path, tr);
}

static kac_status run(kac_trainer *tr) {
    refl *m = tr->self;
    for (int part = 0; part < tr->accum; part++) {
        const int row = m->from + (int)(kac_trainer_uniform(tr, STREAM_ROW, part) * (m->to - m->from + 1));
        m->path.keep[row] = true;
        KAC_TRY(kac_pathwise_draw(&m->path, tr, part, row + 1));
        KAC_TRY(kac_pathwise_pull(&m->path, tr, false, row, 1.0));
        m->path.keep[row] = false;
        kac_trainer_note(tr, "row", row);
    }
    return kac_pathwise_update(&m->path, tr);
}

static void close(kac_trainer *tr) {
    kac_pathwise_close(&((refl *)tr->self)->path);
}

const kac_tune_method kac_tune_refl = {.name = "refl",
                                       .summary = "reward gradients of x0-hat at one random late row",
                                       .options = options,
                                       .needs_grad = true,
                                       .n_self = sizeof(refl),
                                       .open = open,
                                       .round = run,
                                       .close = close};
