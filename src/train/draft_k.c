/* DRaFT-K: Clark et al., Directly fine-tuning diffusion models on differentiable rewards, arXiv 2309.17400, 2023.
 *
 * The reward's gradient goes back through the last K rows only; the state before them is a constant. K = 1 is the paper's choice for the
 * effort; large K with 50 rows explodes. Published: 50 steps of ddim, guidance 7.5, LoRA of rank 8 with batch 4 and learning rate 4e-4 (rank
 * 32, batch 16, 2e-4), AdamW with weight decay 0.1. */
#include "train/methods.h"
#include "train/pathwise.h"

static const kac_option_spec options[] = {
    {"k", 0, KAC_OPT_INT, "1", 1, 100000, NULL, "K", "rows at the end that the gradient goes through", false},
    KAC_PATHWISE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef struct draft_k {
    kac_pathwise path;
    int first;
} draft_k;

static kac_status open(kac_trainer *tr) {
    draft_k *m = tr->self;
    const int n_rows = tr->t->solver->n_steps, k = (int)kac_options_int(tr->options, "k");
    if (k > n_rows) return KAC_FAIL(KAC_E_USAGE, "--k %d, but a sample takes %d calls of the network", k, n_rows);
    m->first = n_rows - k;
    KAC_TRY(kac_pathwise_open(&m->path, tr));
    for (int i = m->first; i < n_rows; i++) m->path.keep[i] = true;
    return KAC_OK;
}

static kac_status run(kac_trainer *tr) {
    draft_k *m = tr->self;
    for (int part = 0; part < tr->accum; part++) {
        KAC_TRY(kac_pathwise_draw(&m->path, tr, part, 0));
        KAC_TRY(kac_pathwise_pull(&m->path, tr, false, m->first, 1.0));
    }
    return kac_pathwise_update(&m->path, tr);
}

static void close(kac_trainer *tr) {
    kac_pathwise_close(&((draft_k *)tr->self)->path);
}

const kac_tune_method kac_tune_draft_k = {.name = "draft-k",
                                          .summary = "reward gradients through the last K rows",
                                          .options = options,
                                          .needs_grad = true,
                                          .n_self = sizeof(draft_k),
                                          .open = open,
                                          .round = run,
                                          .close = close};
