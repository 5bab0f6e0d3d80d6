#include "train/pathwise.h"
#include "base/base.h"
#include <math.h>
#include <string.h>

enum { STREAM_NOISE = 0 };

static kac_status read_loss(kac_pathwise *p, const kac_options *o) {
    const char *loss = kac_options_text(o, "loss");
    p->kind = strcmp(loss, "distance") == 0 ? KAC_LOSS_DISTANCE
              : strcmp(loss, "hinge") == 0  ? KAC_LOSS_HINGE
                                            : KAC_LOSS_REWARD;
    p->unit = kac_options_bool(o, "unit-gradient");
    if (p->kind == KAC_LOSS_REWARD && kac_options_given(o, "loss-target"))
        return KAC_FAIL(KAC_E_USAGE, "--loss-target is of --loss distance and hinge; --loss reward has none");
    if (p->kind == KAC_LOSS_REWARD) return KAC_OK;
    if (!kac_options_given(o, "loss-target"))
        return KAC_FAIL(KAC_E_USAGE, "--loss %s needs --loss-target: the reward to reach", loss);
    p->target = kac_options_real(o, "loss-target");
    return KAC_OK;
}

kac_status kac_pathwise_open(kac_pathwise *p, kac_trainer *tr) {
    const kac_trainee *t = tr->t;
    const size_t n = (size_t)tr->batch;
    KAC_TRY(read_loss(p, tr->options));
    p->keep = kac_alloc((size_t)t->solver->n_steps * sizeof(bool));
    p->prompt = kac_alloc(n * sizeof(int));
    p->totals = kac_alloc(n * sizeof(double));
    p->d_x0 = kac_alloc(n * (size_t)t->n_state * sizeof(float));
    if (p->keep == NULL || p->prompt == NULL || p->totals == NULL || p->d_x0 == NULL) return KAC_E_MEMORY;
    return kac_chain_open(&p->chain, tr->t, tr->batch);
}

void kac_pathwise_close(kac_pathwise *p) {
    kac_chain_close(&p->chain);
    kac_free(p->keep);
    kac_free(p->prompt);
    kac_free(p->totals);
    kac_free(p->d_x0);
}

kac_status kac_pathwise_draw(kac_pathwise *p, kac_trainer *tr, int part, int n_rows) {
    const int first = part * tr->batch;
    if (part == 0) p->loss = p->kl = 0.0;
    for (int i = 0; i < tr->batch; i++) p->prompt[i] = kac_trainer_prompt(tr, first + i, 1);
    const kac_chain_draw draw = {.prompt = p->prompt,
                                 .seed = kac_trainer_seed(tr, STREAM_NOISE),
                                 .first_slot = first,
                                 .cfg_scale = tr->cfg_scale,
                                 .n_rows = n_rows};
    return kac_chain_sample(&p->chain, &draw);
}

/* L(r) and its derivative. */
static double loss_of(const kac_pathwise *p, double r, double *slope) {
    const double gap = p->target - r;
    if (p->kind == KAC_LOSS_REWARD) {
        *slope = -1.0;
        return -r;
    }
    *slope = gap > 0.0 ? -1.0 : p->kind == KAC_LOSS_DISTANCE && gap < 0.0 ? 1.0 : 0.0;
    return p->kind == KAC_LOSS_DISTANCE ? fabs(gap) : fmax(gap, 0.0);
}

static double norm_of(const float *g, int64_t n) {
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)g[i] * g[i];
    return sqrt(sum);
}

kac_status kac_pathwise_pull(kac_pathwise *p, kac_trainer *tr, bool stop_input, int first, double weight) {
    const int64_t n_state = tr->t->n_state;
    const double share = weight / ((double)tr->batch * tr->accum);
    double kl = 0.0;
    KAC_TRY(kac_chain_reward(&p->chain, p->totals, p->d_x0));
    kac_trainer_note_rewards(tr, p->totals, tr->batch);
    for (int i = 0; i < tr->batch; i++) {
        float *g = p->d_x0 + i * n_state;
        double slope;
        p->loss += share * loss_of(p, p->totals[i], &slope);
        const double norm = p->unit ? norm_of(g, n_state) : 1.0, scale = norm > 0.0 ? share * slope / norm : 0.0;
        for (int64_t j = 0; j < n_state; j++) g[j] = (float)(scale * g[j]);
    }
    const kac_chain_plan plan = {.keep = p->keep, .stop_input = stop_input, .first = first, .kl = share * tr->kl};
    KAC_TRY(kac_chain_backward(&p->chain, &plan, p->d_x0, &kl));
    p->kl += kl;
    return KAC_OK;
}

kac_status kac_pathwise_update(kac_pathwise *p, kac_trainer *tr) {
    if (tr->kl > 0.0) kac_trainer_note(tr, "kl", p->kl / tr->kl);
    return kac_trainer_update(tr, p->loss + p->kl);
}
