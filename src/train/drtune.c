/* DRTune: Wu et al., Deep reward supervisions for tuning text-to-image diffusion models, arXiv 2405.00760, 2024, algorithm 1.
 *
 * The reward's gradient reaches the network at K rows spread evenly over the chain with a random offset, but never goes on through the
 * network's input: what an early row did reaches the end through the solver's linear terms alone, which keeps deep gradients from
 * exploding. With --jump-early M the chain ends up to M rows early, at the x0-hat of a random row. */
#include "train/methods.h"
#include "train/pathwise.h"

static const kac_option_spec options[] = {{"k", 0, KAC_OPT_INT, "5", 1, 100000, NULL, "K",
                                           "rows with a gradient, spread evenly (at most as many as there are)", false},
                                          {"jump-early", 0, KAC_OPT_INT, "0", 0, 100000, NULL, "M",
                                           "end up to M rows early, at x0-hat; 0: finished samples", false},
                                          KAC_PATHWISE_OPTIONS,
                                          KAC_TUNE_OPTIONS_END};

typedef struct drtune {
    kac_pathwise path;
    int k, early;
} drtune;

enum { STREAM_OFFSET = 1, STREAM_STOP = 2 };

static kac_status open(kac_trainer *tr) {
    drtune *m = tr->self;
    const int n_rows = tr->t->solver->n_steps;
    m->k = (int)kac_options_int(tr->options, "k");
    m->early = (int)kac_options_int(tr->options, "jump-early");
    if (m->k > n_rows) m->k = n_rows;
    if (m->early >= n_rows)
        return KAC_FAIL(KAC_E_USAGE, "--jump-early %d, but a sample takes %d calls of the network", m->early, n_rows);
    return kac_pathwise_open(&m->path, tr);
}

/* Of the rows that run; all K of them when there are so many. */
static void choose_rows(drtune *m, const kac_trainer *tr, int part, int n_rows) {
    const int n_all = tr->t->solver->n_steps, k = m->k < n_rows ? m->k : n_rows;
    const int stride = n_rows / k, spare = n_rows - stride * (k - 1);
    const int offset = (int)(kac_trainer_uniform(tr, STREAM_OFFSET, part) * spare);
    for (int i = 0; i < n_all; i++) m->path.keep[i] = false;
    for (int i = 0; i < k; i++) m->path.keep[offset + i * stride] = true;
}

static kac_status run(kac_trainer *tr) {
    drtune *m = tr->self;
    const int n_all = tr->t->solver->n_steps;
    for (int part = 0; part < tr->accum; part++) {
        const int n_rows = n_all - (int)(kac_trainer_uniform(tr, STREAM_STOP, part) * (m->early + 1));
        choose_rows(m, tr, part, n_rows);
        KAC_TRY(kac_pathwise_draw(&m->path, tr, part, n_rows < n_all ? n_rows : 0));
        KAC_TRY(kac_pathwise_pull(&m->path, tr, true, 0, 1.0));
    }
    return kac_pathwise_update(&m->path, tr);
}

static void close(kac_trainer *tr) {
    kac_pathwise_close(&((drtune *)tr->self)->path);
}

const kac_tune_method kac_tune_drtune = {.name = "drtune",
                                         .summary = "reward gradients at chosen rows, none through the network's input",
                                         .options = options,
                                         .needs_grad = true,
                                         .n_self = sizeof(drtune),
                                         .open = open,
                                         .round = run,
                                         .close = close};
