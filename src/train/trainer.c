#include "train/trainer.h"
#include "base/base.h"
#include "nn/optimizer.h"
#include "train/methods.h"
#include <kac/rng.h>
#include <math.h>
#include <string.h>

const kac_option_spec kac_trainer_options[] = {
    {"batch", 0, KAC_OPT_INT, "4", 1, 65536, NULL, "N", "samples drawn at once", false},
    {"accum", 0, KAC_OPT_INT, "1", 1, 65536, NULL, "N", "batches whose gradients are added up before an update", false},
    {"lr", 0, KAC_OPT_REAL, "4e-4", 0, 1, NULL, "X",
     "learning rate; published: LoRA 1e-3 at 128 samples an update, 4e-4 at 4, ddpo and nft 3e-4, full networks 1e-5",
     false},
    {"weight-decay", 0, KAC_OPT_REAL, "1e-4", 0, 1, NULL, "X", "decoupled weight decay (published: 1e-4 to 0.1)",
     false},
    {"beta1", 0, KAC_OPT_REAL, "0.9", 0, 0.9999, NULL, "X", "AdamW's decay of the first moment", false},
    {"beta2", 0, KAC_OPT_REAL, "0.999", 0, 0.999999, NULL, "X", "AdamW's decay of the second moment", false},
    {"adam-eps", 0, KAC_OPT_REAL, "1e-8", 1e-16, 1, NULL, "X", "AdamW's epsilon", false},
    {"clip", 0, KAC_OPT_REAL, "1", 0, 1e9, NULL, "X", "largest norm of the gradient; 0: any", false},
    {"warmup", 0, KAC_OPT_INT, "0", 0, 1e9, NULL, "N", "updates over which the learning rate rises from 0", false},
    {"lr-schedule", 0, KAC_OPT_CHOICE, "constant", 0, 0, "constant|linear|cosine", NULL,
     "how the learning rate goes on after the warm-up", false},
    {"lr-updates", 0, KAC_OPT_INT, "0", 0, 1e9, NULL, "N", "update at which linear and cosine reach 0", false},
    {"ema", 0, KAC_OPT_REAL, "0", 0, 0.999999, NULL, "X",
     "decay of a moving average of the weights, which is then what is saved; 0: none", false},
    {"kl", 0, KAC_OPT_REAL, "0", 0, 1e9, NULL, "X",
     "weight of the mean squared distance between the outputs of the tuned and the base network", false},
    {"l2", 0, KAC_OPT_REAL, "0", 0, 1e9, NULL, "X", "weight of the squared distance of the weights to their beginning",
     false},
    KAC_TUNE_OPTIONS_END};

enum { ORDER_SLOT = 0x7fffffff }; /* of the shuffles; streams of methods count from 0 */

/* ---- open, close ---- */

static kac_status check_method(const kac_trainee *t, const kac_tune_method *m) {
    if (m->needs_grad && t->no_grad != NULL) {
        kac_text names = {0};
        for (const kac_tune_method *const *o = kac_tune_method_list(); *o != NULL; o++)
            if (!(*o)->needs_grad) kac_text_add(&names, "%s%s", names.n == 0 ? "" : ", ", (*o)->name);
        const kac_status status =
            KAC_FAIL(KAC_E_USAGE, "%s follows the reward's gradient, and there is none: %s; methods that need none: %s",
                     m->name, t->no_grad, names.s == NULL ? "none" : names.s);
        kac_text_free(&names);
        return status;
    }
    return m->needs_density ? kac_solver_need_density(t->solver, m->name) : KAC_OK;
}

static kac_status read_optimizer(kac_optimizer_options *o, const kac_options *from) {
    const char *schedule = kac_options_text(from, "lr-schedule");
    *o = (kac_optimizer_options){.lr = kac_options_real(from, "lr"),
                                 .beta1 = kac_options_real(from, "beta1"),
                                 .beta2 = kac_options_real(from, "beta2"),
                                 .eps = kac_options_real(from, "adam-eps"),
                                 .weight_decay = kac_options_real(from, "weight-decay"),
                                 .clip = kac_options_real(from, "clip"),
                                 .schedule = strcmp(schedule, "linear") == 0   ? KAC_LR_LINEAR
                                             : strcmp(schedule, "cosine") == 0 ? KAC_LR_COSINE
                                                                               : KAC_LR_CONSTANT,
                                 .warmup = kac_options_int(from, "warmup"),
                                 .total = kac_options_int(from, "lr-updates"),
                                 .ema = kac_options_real(from, "ema")};
    if (o->schedule != KAC_LR_CONSTANT && o->total <= o->warmup)
        return KAC_FAIL(KAC_E_USAGE, "--lr-schedule %s needs --lr-updates, larger than --warmup %lld", schedule,
                        (long long)o->warmup);
    return KAC_OK;
}

static kac_status take_memory(kac_trainer *tr) {
    const kac_trainee *t = tr->t;
    const size_t n_values = (size_t)t->n_values;
    kac_optimizer_options o;
    KAC_TRY(read_optimizer(&o, tr->options));
    tr->optimizer = kac_alloc(sizeof *tr->optimizer);
    tr->order = kac_alloc(((size_t)t->n_prompts + 1) * sizeof(int));
    tr->self = kac_alloc(tr->method->n_self);
    if (tr->optimizer == NULL || tr->order == NULL || tr->self == NULL) return KAC_E_MEMORY;
    tr->order[0] = -1;
    KAC_TRY(kac_optimizer_open(tr->optimizer, &o, t->values, t->n_values));
    if (tr->l2 == 0.0) return KAC_OK;
    tr->start = kac_alloc(n_values * sizeof(float));
    if (tr->start == NULL) return KAC_E_MEMORY;
    memcpy(tr->start, t->values, n_values * sizeof(float));
    return KAC_OK;
}

static kac_status open_all(kac_trainer *tr) {
    const kac_options *o = tr->options;
    KAC_TRY(check_method(tr->t, tr->method));
    if (tr->t->n_prompts < 1) return KAC_FAIL(KAC_E_USAGE, "there are no prompts to tune on");
    if (tr->t->n_values < 1) return KAC_FAIL(KAC_E_USAGE, "there are no weights to tune");
    tr->batch = (int)kac_options_int(o, "batch");
    tr->accum = (int)kac_options_int(o, "accum");
    tr->n_round = (int64_t)tr->batch * tr->accum;
    if (tr->n_round > 1 << 24)
        return KAC_FAIL(KAC_E_USAGE, "--batch %d times --accum %d is too much", tr->batch, tr->accum);
    tr->cfg_scale = kac_options_has(o, "cfg-scale") ? kac_options_real(o, "cfg-scale") : 1.0;
    tr->kl = kac_options_real(o, "kl");
    tr->l2 = kac_options_real(o, "l2");
    KAC_TRY(take_memory(tr));
    KAC_TRY(tr->method->open(tr));
    memset(tr->t->grads, 0, (size_t)tr->t->n_values * sizeof(float));
    return tr->t->use(tr->t, tr->t->values);
}

kac_status kac_trainer_open(kac_trainer *tr, kac_trainee *t, const kac_tune_method *method, const kac_options *options,
                            uint64_t seed) {
    *tr = (kac_trainer){.t = t, .method = method, .options = options, .seed = seed};
    const kac_status status = open_all(tr);
    if (status != KAC_OK) kac_trainer_close(tr);
    return status;
}

void kac_trainer_close(kac_trainer *tr) {
    if (tr->self != NULL) tr->method->close(tr);
    if (tr->optimizer != NULL) kac_optimizer_close(tr->optimizer);
    kac_free(tr->optimizer);
    kac_free(tr->self);
    kac_free(tr->start);
    kac_free(tr->order);
    *tr = (kac_trainer){0};
}

/* ---- a round ---- */

static void finish_report(kac_trainer *tr) {
    kac_tune_report *r = &tr->report;
    const double n = r->n_rewards, updates = KAC_MAX(tr->n_updates, 1);
    r->round = tr->round;
    r->update = tr->update;
    if (r->n_rewards > 0) {
        r->reward_mean = tr->reward_sum / n;
        r->reward_std = sqrt(fmax(tr->reward_sum2 / n - r->reward_mean * r->reward_mean, 0.0));
    }
    r->loss = tr->loss_sum / updates;
    r->grad_norm = tr->norm_sum / updates;
    r->counts = tr->t->counts;
}

kac_status kac_trainer_round(kac_trainer *tr, kac_tune_report *report) {
    const double begin_ms = kac_now_ms();
    tr->report = (kac_tune_report){0};
    tr->reward_sum = tr->reward_sum2 = tr->loss_sum = tr->norm_sum = 0.0;
    tr->n_updates = 0;
    memset(tr->t->grads, 0, (size_t)tr->t->n_values * sizeof(float)); /* a round that failed may have left some */
    const kac_status status = tr->method->round(tr);
    if (status == KAC_E_NONFINITE) return kac_fail_prefix(status, "round %lld", (long long)tr->round + 1);
    KAC_TRY(status);
    tr->round++;
    finish_report(tr);
    tr->report.ms = kac_now_ms() - begin_ms;
    if (report != NULL) *report = tr->report;
    return KAC_OK;
}

/* Adds l2 · |θ − start|² and its gradient. */
static double add_l2(const kac_trainer *tr) {
    const kac_trainee *t = tr->t;
    double sum = 0.0;
    for (int64_t i = 0; tr->start != NULL && i < t->n_values; i++) {
        const double d = (double)t->values[i] - tr->start[i];
        t->grads[i] = (float)(t->grads[i] + 2.0 * tr->l2 * d);
        sum += d * d;
    }
    return tr->l2 * sum;
}

kac_status kac_trainer_update(kac_trainer *tr, double loss) {
    kac_trainee *t = tr->t;
    double norm, lr;
    loss += add_l2(tr);
    if (!isfinite(loss)) return KAC_FAIL(KAC_E_NONFINITE, "the loss is %g", loss);
    KAC_TRY(kac_optimizer_step(tr->optimizer, t->values, t->grads, &norm, &lr));
    memset(t->grads, 0, (size_t)t->n_values * sizeof(float));
    tr->update++;
    tr->n_updates++;
    tr->loss_sum += loss;
    tr->norm_sum += norm;
    tr->report.lr = lr;
    return t->use(t, t->values);
}

void kac_trainer_note_rewards(kac_trainer *tr, const double *totals, int n) {
    for (int i = 0; i < n; i++) {
        tr->reward_sum += totals[i];
        tr->reward_sum2 += totals[i] * totals[i];
    }
    tr->report.n_rewards += n;
}

void kac_trainer_note(kac_trainer *tr, const char *name, double value) {
    kac_tune_report *r = &tr->report;
    int i = 0;
    while (i < r->n_extras && strcmp(r->extra[i].name, name) != 0) i++;
    KAC_ASSERT(i < KAC_REPORT_EXTRAS);
    r->extra[i].name = name;
    r->extra[i].value = value;
    r->n_extras = KAC_MAX(r->n_extras, i + 1);
}

/* ---- chance ---- */

/* Fisher and Yates. */
static void shuffle_prompts(const kac_trainer *tr, int pass) {
    const kac_key key = {tr->seed, KAC_PURPOSE_DATA, (uint32_t)pass};
    int *prompt = tr->order + 1;
    for (int i = 0; i < tr->t->n_prompts; i++) {
        const int j = (int)(kac_rng_uniform(key, ORDER_SLOT, i) * (i + 1));
        prompt[i] = prompt[j];
        prompt[j] = i;
    }
    tr->order[0] = pass;
}

int kac_trainer_prompt(const kac_trainer *tr, int64_t i, int group) {
    const int64_t at = tr->round * (tr->n_round / group) + i / group;
    const int pass = (int)(at / tr->t->n_prompts);
    if (tr->order[0] != pass) shuffle_prompts(tr, pass);
    return tr->order[1 + at % tr->t->n_prompts];
}

static kac_key key_of(const kac_trainer *tr) {
    return (kac_key){tr->seed, KAC_PURPOSE_DATA, (uint32_t)tr->round};
}

uint64_t kac_trainer_seed(const kac_trainer *tr, uint32_t stream) {
    const uint64_t high = (uint64_t)(kac_rng_uniform(key_of(tr), 2 * stream + 1, 0) * 0x1p32);
    const uint64_t low = (uint64_t)(kac_rng_uniform(key_of(tr), 2 * stream + 1, 1) * 0x1p32);
    return high << 32 | low;
}

double kac_trainer_uniform(const kac_trainer *tr, uint32_t stream, int64_t i) {
    return kac_rng_uniform(key_of(tr), 2 * stream, i);
}

/* ---- state ---- */

int kac_trainer_state(kac_trainer *tr, kac_trainer_piece pieces[KAC_TRAINER_PIECES]) {
    const size_t n_values_bytes = (size_t)tr->t->n_values * sizeof(float);
    int n = 0;
    pieces[n++] = (kac_trainer_piece){"round", &tr->round, sizeof tr->round};
    pieces[n++] = (kac_trainer_piece){"update", &tr->update, sizeof tr->update};
    pieces[n++] = (kac_trainer_piece){"values", tr->t->values, n_values_bytes};
    pieces[n++] = (kac_trainer_piece){"moment1", tr->optimizer->m, n_values_bytes};
    pieces[n++] = (kac_trainer_piece){"moment2", tr->optimizer->v, n_values_bytes};
    if (tr->optimizer->ema != NULL) pieces[n++] = (kac_trainer_piece){"ema", tr->optimizer->ema, n_values_bytes};
    if (tr->start != NULL) pieces[n++] = (kac_trainer_piece){"start", tr->start, n_values_bytes};
    if (tr->method->state != NULL) {
        pieces[n].name = "method";
        pieces[n].data = tr->method->state(tr, &pieces[n].n_bytes);
        n++;
    }
    KAC_ASSERT(n <= KAC_TRAINER_PIECES);
    return n;
}

kac_status kac_trainer_restored(kac_trainer *tr) {
    tr->optimizer->update = tr->update;
    tr->order[0] = -1;
    return tr->t->use(tr->t, tr->t->values);
}

const float *kac_trainer_values(const kac_trainer *tr) {
    return tr->optimizer->ema != NULL ? tr->optimizer->ema : tr->t->values;
}
