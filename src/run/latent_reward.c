#include "run/latent_reward.h"
#include "run/picture_gradient.h"
#include <string.h>

struct kac_latent_reward {
    kac_reward reward;
    kac_latent *latent;
    kac_reward_set *rewards;
    int n_rewards, n_slots, n_per_group;
    int n_row; /* n_rewards + 2: single rewards, combined, uncertainty */
    int width, height;
    uint64_t *scored_id; /* [n_slots] state whose values the slot has; 0: none */
    uint8_t *stage;      /* [n_slots] */
    double *values;      /* [n_slots, n_row] */
    int *list;           /* [n_slots] slots to score now */
    const uint8_t **rgb; /* [n_slots] */
    kac_picture *pictures;
    double *scores; /* [n_slots, n_rewards] */
    double *known;  /* [n_slots, n_row] values of the slots asked for, as far as they were known before */
    bool *is_known; /* [n_slots] */
    int batch;      /* states in one gradient */
    int64_t count, grad_count;
    double ms, grad_ms;
};

/* A slot whose stored values belong to the state that `slot` holds; −1: none. */
static int find_scored(const kac_latent_reward *r, int slot, kac_stage stage) {
    const uint64_t id = kac_latent_state_id(r->latent, slot);
    if (r->scored_id[slot] == id && r->stage[slot] == stage) return slot;
    for (int i = 0; i < r->n_slots; i++)
        if (r->scored_id[i] == id && r->stage[i] == stage && i / r->n_per_group == slot / r->n_per_group) return i;
    return -1;
}

/* From the single rewards of the slots of the list to their combined one. A rehearsal has none. */
static kac_status combine_new(kac_latent_reward *r, int n) {
    const kac_reward_set *set = r->rewards;
    for (int i = 0; i < n && !set->parts[0]->c->model.counting; i++)
        KAC_TRY(kac_mix_observe(set->mix, r->values + r->list[i] * r->n_row, 1));
    for (int i = 0; i < n && !set->parts[0]->c->model.counting; i++) {
        double *row = r->values + r->list[i] * r->n_row;
        const kac_status s = kac_mix_total(set->mix, &row[r->n_rewards], &row[r->n_rewards + 1], row);
        if (s != KAC_OK)
            return kac_fail_prefix(s, "particle %d of group %d", r->list[i] % r->n_per_group,
                                   r->list[i] / r->n_per_group);
    }
    return KAC_OK;
}

static kac_status score_new(kac_latent_reward *r, int n, kac_stage stage) {
    KAC_TRY(kac_latent_pictures(r->latent, r->list, n, stage, r->rgb));
    for (int i = 0; i < n; i++)
        r->pictures[i] = (kac_picture){r->rgb[i], r->width, r->height, r->list[i] / r->n_per_group};
    for (int j = 0; j < r->n_rewards; j++) {
        double *scores = r->scores + j * r->n_slots;
        KAC_TRY(kac_image_reward_score(r->rewards->parts[j], r->pictures, n, scores));
        for (int i = 0; i < n; i++) r->values[r->list[i] * r->n_row + j] = scores[i];
        r->count += n;
    }
    KAC_TRY(combine_new(r, n));
    for (int i = 0; i < n; i++) {
        r->scored_id[r->list[i]] = kac_latent_state_id(r->latent, r->list[i]);
        r->stage[r->list[i]] = (uint8_t)stage;
    }
    return KAC_OK;
}

/* The distinct states of slots to r->list; returns how many. Those that need not be scored again are left out. */
static int list_distinct(kac_latent_reward *r, const int *slots, int n, kac_stage stage, bool scored_too) {
    int n_new = 0;
    for (int i = 0; i < n; i++) {
        if (!scored_too && find_scored(r, slots[i], stage) >= 0) continue;
        bool listed = false;
        for (int j = 0; j < n_new && !listed; j++)
            listed = kac_latent_state_id(r->latent, r->list[j]) == kac_latent_state_id(r->latent, slots[i]) &&
                     r->list[j] / r->n_per_group == slots[i] / r->n_per_group;
        if (!listed) r->list[n_new++] = slots[i];
    }
    return n_new;
}

/* Every slot gets the values of its state. */
static void share_values(kac_latent_reward *r, const int *slots, int n, kac_stage stage, double *out) {
    for (int i = 0; i < n; i++) {
        const int source = find_scored(r, slots[i], stage);
        KAC_ASSERT(source >= 0);
        double *values = r->values + slots[i] * r->n_row;
        if (source != slots[i]) memcpy(values, r->values + source * r->n_row, (size_t)r->n_row * sizeof *values);
        r->scored_id[slots[i]] = kac_latent_state_id(r->latent, slots[i]);
        r->stage[slots[i]] = (uint8_t)stage;
        out[i] = values[r->n_rewards];
    }
}

/* States may have changed places among the slots since they were scored: what is known of them is taken out before any of it is written
 * over. */
static void take_known(kac_latent_reward *r, const int *slots, int n, kac_stage stage) {
    for (int i = 0; i < n; i++) {
        const int source = find_scored(r, slots[i], stage);
        r->is_known[i] = source >= 0;
        if (source >= 0)
            memcpy(r->known + i * r->n_row, r->values + source * r->n_row, (size_t)r->n_row * sizeof *r->known);
    }
}

static void put_known(kac_latent_reward *r, const int *slots, int n, kac_stage stage) {
    for (int i = 0; i < n; i++) {
        if (!r->is_known[i]) continue;
        memcpy(r->values + slots[i] * r->n_row, r->known + i * r->n_row, (size_t)r->n_row * sizeof *r->known);
        r->scored_id[slots[i]] = kac_latent_state_id(r->latent, slots[i]);
        r->stage[slots[i]] = (uint8_t)stage;
    }
}

static kac_status latent_score(kac_reward *reward, kac_process *p, const int *slots, int n, kac_stage stage,
                               double *out) {
    kac_latent_reward *r = reward->self;
    (void)p;
    const double start_ms = kac_now_ms(), decoder_ms = kac_latent_counts_of(r->latent)->decoder_ms;
    const int n_new = list_distinct(r, slots, n, stage, false);
    take_known(r, slots, n, stage);
    if (n_new > 0) KAC_TRY(score_new(r, n_new, stage));
    put_known(r, slots, n, stage);
    share_values(r, slots, n, stage, out);
    r->ms += kac_now_ms() - start_ms - (kac_latent_counts_of(r->latent)->decoder_ms - decoder_ms);
    return KAC_OK;
}

/* One batch of the list, from entry `first` on: values to their slots, derivatives to d_list. */
static kac_status grad_batch(kac_latent_reward *r, int first, int n, kac_stage stage, double *rows, float *d_list) {
    int prompt[KAC_REWARD_BATCH];
    kac_tensor states = {0}, d = {0};
    kac_ctx *c = r->rewards->parts[0]->c;
    const int64_t n_state = kac_latent_process(r->latent)->n_state;
    KAC_TRY(kac_gather(c, &states, kac_latent_viewed(r->latent, stage), r->list + first, n));
    KAC_TRY(kac_take(&d, &c->scratch, KAC_F32, states.rank, states.shape));
    for (int i = 0; i < n; i++) prompt[i] = r->list[first + i] / r->n_per_group;
    KAC_TRY(kac_picture_gradient(r->rewards, c, kac_latent_decoder(r->latent, stage), states, prompt, KAC_BALANCE_PLAIN,
                                 rows, d));
    for (int i = 0; i < n; i++) {
        const int slot = r->list[first + i];
        memcpy(r->values + slot * r->n_row, rows + i * r->n_row, (size_t)r->n_row * sizeof *rows);
        r->scored_id[slot] = kac_latent_state_id(r->latent, slot);
        r->stage[slot] = (uint8_t)stage;
        if (!c->model.counting)
            memcpy(d_list + i * n_state, (const float *)d.data + i * n_state, (size_t)n_state * sizeof *d_list);
    }
    r->grad_count += n;
    return KAC_OK;
}

/* Values are those of the unrounded pictures. */
static kac_status latent_grad(kac_reward *reward, kac_process *p, const int *slots, int n, kac_stage stage, double *out,
                              float *d_state) {
    kac_latent_reward *r = reward->self;
    kac_arena *scratch = &r->rewards->parts[0]->c->scratch;
    const double start_ms = kac_now_ms();
    const size_t mark = kac_arena_mark(scratch);
    const int n_new = list_distinct(r, slots, n, stage, true);
    double rows[KAC_REWARD_BATCH * (KAC_MAX_REWARDS + 2)];
    float *d_list = kac_alloc((size_t)n_new * (size_t)p->n_state * sizeof *d_list);
    kac_status s = d_list == NULL ? KAC_E_MEMORY : KAC_OK;
    for (int i = 0; i < n_new && s == KAC_OK; i += r->batch) {
        s = grad_batch(r, i, KAC_MIN(r->batch, n_new - i), stage, rows, d_list + i * p->n_state);
        if (s == KAC_OK) kac_arena_release(scratch, mark);
    }
    if (s == KAC_OK) share_values(r, slots, n, stage, out);
    for (int i = 0; i < n && s == KAC_OK; i++)
        for (int j = 0; j < n_new; j++)
            if (kac_latent_state_id(r->latent, r->list[j]) == kac_latent_state_id(r->latent, slots[i]) &&
                r->list[j] / r->n_per_group == slots[i] / r->n_per_group)
                memcpy(d_state + i * p->n_state, d_list + j * p->n_state, (size_t)p->n_state * sizeof *d_state);
    kac_free(d_list);
    r->grad_ms += kac_now_ms() - start_ms;
    return s;
}

static kac_status reward_init(kac_latent_reward *r, const kac_latent_options *o) {
    const size_t n = (size_t)r->n_slots;
    r->scored_id = kac_alloc(n * sizeof *r->scored_id), r->stage = kac_alloc(n),
    r->list = kac_alloc(n * sizeof *r->list);
    r->values = kac_alloc(n * (size_t)r->n_row * sizeof *r->values),
    r->scores = kac_alloc(n * (size_t)r->n_rewards * sizeof *r->scores);
    r->rgb = kac_alloc(n * sizeof *r->rgb), r->pictures = kac_alloc(n * sizeof *r->pictures);
    r->known = kac_alloc(n * (size_t)r->n_row * sizeof *r->known), r->is_known = kac_alloc(n * sizeof *r->is_known);
    if (r->known == NULL || r->is_known == NULL || r->scored_id == NULL || r->stage == NULL || r->list == NULL ||
        r->values == NULL || r->scores == NULL || r->rgb == NULL || r->pictures == NULL)
        return KAC_E_MEMORY;
    for (int j = 0; j < r->n_rewards; j++) r->rewards->parts[j]->batch = o->batch; /* as large as what was rehearsed */
    return kac_reward_set_prepare(r->rewards, o->prompts, o->n_groups);
}

kac_status kac_latent_reward_open(kac_latent_reward **out, kac_latent *l, kac_reward_set *rewards,
                                  const kac_latent_options *o) {
    kac_latent_reward *r = kac_alloc(sizeof *r);
    if (r == NULL) return KAC_E_MEMORY;
    *r = (kac_latent_reward){.latent = l,
                             .rewards = rewards,
                             .n_rewards = rewards->n,
                             .n_row = rewards->n + 2,
                             .n_slots = o->n_groups * o->n_per_group,
                             .n_per_group = o->n_per_group,
                             .width = (int)o->width,
                             .height = (int)o->height,
                             .batch = KAC_MIN(o->batch, KAC_REWARD_BATCH)};
    r->reward = (kac_reward){.self = r,
                             .name = rewards->n == 1 ? rewards->parts[0]->name : "combined",
                             .score = latent_score,
                             .grad = o->guided ? latent_grad : NULL};
    const kac_status s = reward_init(r, o);
    if (s != KAC_OK) {
        kac_latent_reward_close(r);
        return s;
    }
    *out = r;
    return KAC_OK;
}

void kac_latent_reward_close(kac_latent_reward *r) {
    if (r == NULL) return;
    kac_free(r->scored_id), kac_free(r->stage), kac_free(r->list), kac_free(r->values), kac_free(r->scores);
    kac_free(r->rgb), kac_free(r->pictures), kac_free(r->known), kac_free(r->is_known);
    kac_free(r);
}

kac_reward *kac_latent_reward_of(kac_latent_reward *r) {
    return &r->reward;
}

const double *kac_latent_reward_values(const kac_latent_reward *r, int slot) {
    return r->scored_id[slot] == kac_latent_state_id(r->latent, slot) ? r->values + slot * r->n_row : NULL;
}

int64_t kac_latent_reward_count(const kac_latent_reward *r) {
    return r->count;
}
int64_t kac_latent_reward_grad_count(const kac_latent_reward *r) {
    return r->grad_count;
}
double kac_latent_reward_grad_ms(const kac_latent_reward *r) {
    return r->grad_ms;
}
double kac_latent_reward_ms(const kac_latent_reward *r) {
    return r->ms;
}
