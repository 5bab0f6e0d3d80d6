/* AlignProp: Prabhudesai et al., Aligning text-to-image diffusion models with reward backpropagation, arXiv 2310.03739, 2023.
 *
 * The gradient of the reward goes back through the whole sampling chain, but through the network only at some of its K rows; through the
 * solver's own linear terms it always goes on. Which rows keep theirs (row 0 is the noisiest):
 *     perstep       row i with probability (i + 1) / (K + 1), each by itself: the released code of 2023 draws its cut-off in 0 … K anew
 *                   at every step
 *     uniform:a,b   rows from b on, one b for the whole batch, drawn from a … b − 1: the paper; the code of 2024 has 30,50 of 50
 *     gaussian:m,s  the same with b = a normal of mean m and deviation s, cut to a whole number: the code of 2024 with 42,5 of 50
 *     fixed:k       rows from k on: 49 of 50 in the configurations named k1; 0: all rows
 * Cut-offs outside 1 … K − 1 are drawn again, as there. Published with it: 50 steps of ddim, guidance 7.5 (2024: 5, eta 1), LoRA of rank
 * 4 at attention layers, AdamW at 1e-3 with weight decay 0.1, gradients clipped at 5, 128 samples an update, loss 0.01 · |r − 10| for
 * aesthetic scores. */
#include "base/base.h"
#include "train/methods.h"
#include "train/pathwise.h"
#include <kac/rng.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const kac_option_spec options[] = {
    {"trunc", 0, KAC_OPT_TEXT, "perstep", 0, 0, NULL, "WHICH",
     "rows that keep their gradient: perstep (released code), uniform:A,B (paper), gaussian:M,S, fixed:K", false},
    KAC_PATHWISE_OPTIONS,
    KAC_TUNE_OPTIONS_END};

typedef enum cut { CUT_PERSTEP, CUT_UNIFORM, CUT_GAUSSIAN, CUT_FIXED } cut;

typedef struct alignprop {
    kac_pathwise path;
    cut kind;
    double a, b;
} alignprop;

enum { STREAM_CUT = 1, MAX_DRAWS = 4096 };

/* "uniform" or "uniform:30,50": n numbers, or none and then `a` and `b` stay. */
static bool read_cut(alignprop *m, const char *text, const char *name, int n) {
    const size_t n_name = strlen(name);
    char rest;
    if (strncmp(text, name, n_name) != 0) return false;
    if (text[n_name] == '\0') return true;
    if (text[n_name] != ':') return false;
    const char *numbers = text + n_name + 1;
    if (n == 1) return sscanf(numbers, "%lf%c", &m->a, &rest) == 1;
    return n == 2 && sscanf(numbers, "%lf,%lf%c", &m->a, &m->b, &rest) == 2;
}

static kac_status parse(alignprop *m, const char *text, int n_rows) {
    const char *names[] = {"perstep", "uniform", "gaussian", "fixed"};
    const double a[] = {0, 0, 0.84 * n_rows, n_rows - 1}, b[] = {0, n_rows, 0.1 * n_rows, 0};
    const int n[] = {0, 2, 2, 1};
    for (int i = 0; i < KAC_COUNT_OF(names); i++) {
        m->kind = (cut)i, m->a = a[i], m->b = b[i];
        if (read_cut(m, text, names[i], n[i])) return KAC_OK;
    }
    return KAC_FAIL(
        KAC_E_USAGE,
        "--trunc %s is none of perstep, uniform:A,B, gaussian:M,S, fixed:K (rows count from 0, the noisiest, to %d)",
        text, n_rows - 1);
}

static kac_status check(const alignprop *m, const char *text, int n_rows) {
    const bool whole = m->a == floor(m->a) && m->b == floor(m->b);
    if (m->kind == CUT_FIXED && !(whole && m->a >= 0 && m->a < n_rows))
        return KAC_FAIL(KAC_E_USAGE, "--trunc %s: the first row with a gradient is one of 0 to %d", text, n_rows - 1);
    if (m->kind == CUT_UNIFORM && !(whole && m->a >= 0 && m->a < m->b && m->b >= 2 && m->b <= n_rows))
        return KAC_FAIL(KAC_E_USAGE,
                        "--trunc %s: the cut-off is drawn from A to B - 1, with 0 <= A < B and 2 <= B <= %d", text,
                        n_rows);
    if (m->kind == CUT_GAUSSIAN && !(isfinite(m->a) && m->b > 0 && m->a + 3 * m->b >= 1 && m->a - 3 * m->b < n_rows))
        return KAC_FAIL(KAC_E_USAGE, "--trunc %s: mean and a deviation above 0, such that cut-offs fall in 1 to %d",
                        text, n_rows - 1);
    return KAC_OK;
}

static kac_status open(kac_trainer *tr) {
    alignprop *m = tr->self;
    const char *text = kac_options_text(tr->options, "trunc");
    const int n_rows = tr->t->solver->n_steps;
    KAC_TRY(parse(m, text, n_rows));
    KAC_TRY(check(m, text, n_rows));
    return kac_pathwise_open(&m->path, tr);
}

static double draw_number(const alignprop *m, const kac_trainer *tr, int part, int i) {
    const int64_t at = (int64_t)part * MAX_DRAWS + i;
    if (m->kind == CUT_UNIFORM) return floor(m->a + kac_trainer_uniform(tr, STREAM_CUT, at) * (m->b - m->a));
    float z;
    kac_rng_normal(&z, 1, (kac_key){kac_trainer_seed(tr, STREAM_CUT), KAC_PURPOSE_DATA, 0}, (uint32_t)part, i);
    return trunc(m->a + m->b * z);
}

static int draw_cut(const alignprop *m, const kac_trainer *tr, int part) {
    const int n_rows = tr->t->solver->n_steps;
    if (m->kind == CUT_FIXED) return (int)m->a;
    for (int i = 0; i < MAX_DRAWS; i++) {
        const double b = draw_number(m, tr, part, i);
        if (b >= 1 && b < n_rows) return (int)b;
    }
    return n_rows - 1;
}

static void choose_rows(alignprop *m, const kac_trainer *tr, int part) {
    const int n_rows = tr->t->solver->n_steps, b = m->kind == CUT_PERSTEP ? 0 : draw_cut(m, tr, part);
    for (int i = 0; i < n_rows; i++) {
        const double u = kac_trainer_uniform(tr, STREAM_CUT, (int64_t)part * n_rows + i);
        m->path.keep[i] = m->kind == CUT_PERSTEP ? (int)(u * (n_rows + 1)) <= i : i >= b;
    }
}

static kac_status run(kac_trainer *tr) {
    alignprop *m = tr->self;
    double n_kept = 0.0;
    for (int part = 0; part < tr->accum; part++) {
        choose_rows(m, tr, part);
        for (int i = 0; i < tr->t->solver->n_steps; i++) n_kept += m->path.keep[i];
        KAC_TRY(kac_pathwise_draw(&m->path, tr, part, 0));
        KAC_TRY(kac_pathwise_pull(&m->path, tr, false, 0, 1.0));
    }
    kac_trainer_note(tr, "rows", n_kept / tr->accum);
    return kac_pathwise_update(&m->path, tr);
}

static void close(kac_trainer *tr) {
    kac_pathwise_close(&((alignprop *)tr->self)->path);
}

const kac_tune_method kac_tune_alignprop = {
    .name = "alignprop",
    .summary = "reward gradients through the whole chain, through the network at randomly chosen rows",
    .options = options,
    .needs_grad = true,
    .n_self = sizeof(alignprop),
    .open = open,
    .round = run,
    .close = close};
