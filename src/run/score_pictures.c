#include "run/score_pictures.h"
#include "io/image.h"
#include <math.h>
#include <string.h>

enum { MAX_BATCH = 64 };
static const size_t MAX_BATCH_BYTES = (size_t)256 << 20; /* of decoded pictures */

/* Pictures in memory, with the distinct prompts among them. */
typedef struct batch {
    kac_reward_set *set;
    size_t run_mark; /* text embeddings of the batch before go when the next one's come */
    kac_scored *items[MAX_BATCH];
    kac_image images[MAX_BATCH];
    kac_picture pictures[MAX_BATCH];
    const char *prompts[MAX_BATCH];
    int n, n_prompts;
    size_t n_bytes;
    double values[KAC_MAX_REWARDS][MAX_BATCH];
} batch;

/* Keeps the message of what just failed, with the file's name in it. */
static void note_error(kac_scored *item) {
    const char *what = kac_error();
    item->error = strstr(what, item->path) != NULL ? kac_strdup(what) : kac_format("%s: %s", item->path, what);
}

/* A status that is about this run, not about a picture. */
static bool is_fatal(const batch *b, kac_status s) {
    bool lost = s == KAC_E_MEMORY || s == KAC_E_DEVICE;
    for (int k = 0; k < b->set->n; k++) lost |= b->set->parts[k]->lost;
    return lost;
}

static kac_status score_range(batch *b, int first, int n) {
    for (int k = 0; k < b->set->n; k++) {
        const kac_status s = kac_image_reward_score(b->set->parts[k], b->pictures + first, n, b->values[k] + first);
        if (s != KAC_OK) return s;
    }
    return KAC_OK;
}

static kac_status prepare(batch *b, const char *const *prompts, int n) {
    if (b->set->n == 0) return KAC_OK;
    kac_arena *run = &b->set->parts[0]->c->run;
    kac_arena_release(run, b->run_mark);
    return kac_reward_set_prepare(b->set, prompts, n);
}

/* When the whole batch fails, each picture alone, so that the one at fault is known. */
static kac_status score_singly(batch *b) {
    kac_arena *scratch = &b->set->parts[0]->c->scratch;
    const size_t mark = kac_arena_mark(scratch);
    for (int i = 0; i < b->n; i++) {
        kac_status s = prepare(b, &b->prompts[b->pictures[i].prompt], 1);
        b->pictures[i].prompt = 0;
        if (s == KAC_OK) s = score_range(b, i, 1);
        kac_arena_release(scratch, mark);
        if (s != KAC_OK && is_fatal(b, s)) return s;
        if (s != KAC_OK) note_error(b->items[i]);
    }
    return KAC_OK;
}

static kac_status flush(batch *b) {
    if (b->n == 0) return KAC_OK;
    kac_arena *scratch = &b->set->parts[0]->c->scratch;
    const size_t mark = kac_arena_mark(scratch);
    kac_status s = prepare(b, b->prompts, b->n_prompts);
    if (s == KAC_OK) s = score_range(b, 0, b->n);
    kac_arena_release(scratch, mark);
    if (s != KAC_OK && !is_fatal(b, s)) s = score_singly(b);
    for (int i = 0; i < b->n; i++) {
        for (int k = 0; k < b->set->n; k++) b->items[i]->values[k] = b->values[k][i];
        kac_image_free(&b->images[i]);
    }
    b->n = b->n_prompts = 0, b->n_bytes = 0;
    return s;
}

static int prompt_index(batch *b, const char *prompt) {
    for (int i = 0; i < b->n_prompts; i++)
        if (strcmp(b->prompts[i], prompt) == 0) return i;
    b->prompts[b->n_prompts] = prompt;
    return b->n_prompts++;
}

static kac_status add(batch *b, kac_scored *item) {
    kac_image image;
    if (item->prompt == NULL && kac_reward_set_needs_prompt(b->set)) {
        (void)KAC_FAIL(KAC_E_USAGE, "%s does not say its prompt; give --prompt", item->path);
        note_error(item);
        return KAC_OK;
    }
    const kac_status s = kac_image_load(&image, item->path);
    if (s == KAC_E_MEMORY) return s;
    if (s != KAC_OK) {
        note_error(item);
        return KAC_OK;
    }
    const size_t n_bytes = (size_t)image.width * (size_t)image.height * 3;
    if (b->n == MAX_BATCH || b->n_bytes + n_bytes > MAX_BATCH_BYTES) {
        const kac_status flushed = flush(b);
        if (flushed != KAC_OK) {
            kac_image_free(&image);
            return flushed;
        }
    }
    b->items[b->n] = item, b->images[b->n] = image, b->n_bytes += n_bytes;
    b->pictures[b->n++] = (kac_picture){.rgb = image.rgb,
                                        .width = image.width,
                                        .height = image.height,
                                        .prompt = prompt_index(b, item->prompt == NULL ? "" : item->prompt)};
    return KAC_OK;
}

static kac_status combine(kac_scored *items, int n, kac_reward_set *set) {
    for (int i = 0; i < n; i++)
        if (items[i].error == NULL && kac_mix_observe(set->mix, items[i].values, 1) != KAC_OK) note_error(&items[i]);
    for (int i = 0; i < n; i++) {
        kac_scored *item = &items[i];
        if (item->error != NULL) continue;
        const kac_status s = kac_mix_total(set->mix, &item->total, &item->uncertainty, item->values);
        if (s == KAC_E_MEMORY) return s;
        if (s != KAC_OK) note_error(item);
    }
    return KAC_OK;
}

kac_status kac_score_pictures(kac_scored *items, int n, kac_reward_set *set, const kac_score_hooks *hooks) {
    int n_prompts = 0;
    for (int i = 0; i < n; i++) n_prompts += items[i].prompt != NULL;
    if (n > 0 && n_prompts == 0 && kac_reward_set_needs_prompt(set))
        return KAC_FAIL(KAC_E_USAGE, "%s does not say its prompt; give --prompt", items[0].path);
    batch *b = kac_alloc(sizeof *b);
    if (b == NULL) return KAC_E_MEMORY;
    b->set = set;
    if (set->n > 0) b->run_mark = kac_arena_mark(&set->parts[0]->c->run);
    kac_status s = KAC_OK;
    for (int i = 0; i < n && s == KAC_OK; i++) {
        s = add(b, &items[i]);
        if (hooks->progress != NULL) hooks->progress(hooks->self, i + 1 - b->n, n);
    }
    if (s == KAC_OK) s = flush(b);
    for (int i = 0; i < b->n; i++) kac_image_free(&b->images[i]);
    kac_free(b);
    return s == KAC_OK ? combine(items, n, set) : s;
}

void kac_scored_free(kac_scored *item) {
    kac_free(item->path), kac_free(item->prompt), kac_free(item->error);
    *item = (kac_scored){0};
}
