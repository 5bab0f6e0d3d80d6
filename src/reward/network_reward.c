#include "reward/network_reward.h"
#include "reward/preprocess_tensor.h"
#include "reward/reward_files.h"
#include "tensor/tape.h"
#include <string.h>

/* Up to so many numbers of a network's input its whole forward pass is kept, not computed again: 20 shipped pictures, or one of 224 × 224, for
 * which a ViT-L/14 has 0.4 GB of results. By shapes alone, so that a plan run knows. */
enum { KEPT_NUMBERS = 1 << 18 };

/* How many prompts from the first on go into one call of features. */
static int run_length(const kac_image_reward *r, const int *prompt, int n) {
    const kac_network_reward *net = r->self;
    int k = 1;
    while (k < n && (net->together == NULL || net->together(r, prompt[0], prompt[k]))) k++;
    return k;
}

/* out, and the derivatives by features into d (no tensor: not wanted). */
static void values_of(const kac_image_reward *r, double *out, kac_tensor features, kac_tensor d, const int *prompt) {
    const kac_network_reward *net = r->self;
    const int64_t width = features.shape[1];
    for (int64_t i = 0; i < features.shape[0]; i++)
        out[i] = r->c->model.counting ? 0
                                      : net->value(r, (const float *)features.data + i * width, width, prompt[i],
                                                   d.data == NULL ? NULL : (float *)d.data + i * width);
}

/* ---- score ---- */

static kac_status network_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    const kac_network_reward *net = r->self;
    int prompt[KAC_REWARD_BATCH];
    KAC_ASSERT(n <= KAC_REWARD_BATCH);
    for (int i = 0; i < n; i++) prompt[i] = pictures[i].prompt;
    for (int i = 0, k; i < n; i += k) {
        k = run_length(r, prompt + i, n - i);
        const size_t mark = kac_arena_mark(&r->c->scratch);
        kac_tensor pixels = {0}, features = {0};
        KAC_TRY(kac_reward_pixels(&pixels, r, net->preprocess, net->size, pictures + i, k));
        KAC_TRY(net->features(&features, r, pixels, prompt + i));
        values_of(r, out + i, features, (kac_tensor){0}, prompt + i);
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}

/* ---- gradient ---- */

static kac_status features_of(kac_tensor *features, kac_image_reward *r, kac_tensor images, const int *prompt) {
    const kac_network_reward *net = r->self;
    int w, h;
    kac_preprocess_size(net->preprocess, (int)images.shape[2], (int)images.shape[1], &w, &h);
    if (w != net->size || h != net->size)
        return KAC_FAIL(KAC_E_SHAPE, "%s: preprocessing gives %d × %d pictures, the model wants %lld × %lld", r->name,
                        w, h, (long long)net->size, (long long)net->size);
    kac_tensor pixels = {0};
    KAC_TRY(kac_preprocess_tensor(r->c, &pixels, net->preprocess, images));
    return net->features(features, r, pixels, prompt);
}

static kac_status through_tape(kac_grad_tape *t, kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                               kac_tensor d_images) {
    kac_tensor features = {0}, d;
    const kac_network_reward *net = r->self;
    KAC_TRY(kac_tape_watch(t, images, d_images));
    if (images.shape[0] * net->size * net->size * 3 <= KEPT_NUMBERS) kac_tape_keep_segments(t);
    kac_tape_start(t);
    const kac_status s = features_of(&features, r, images, prompt);
    kac_tape_stop(t);
    KAC_TRY(s);
    KAC_TRY(kac_take(&d, &r->c->scratch, KAC_F32, 2, features.shape));
    values_of(r, out, features, d, prompt);
    KAC_TRY(kac_tape_seed(t, features, d));
    return kac_tape_replay(t);
}

static kac_status network_grad(kac_image_reward *r, kac_tensor images, const int *prompt, double *out,
                               kac_tensor d_images) {
    const int n = (int)images.shape[0];
    if (!r->c->scratch.counting) memset(d_images.data, 0, kac_tensor_bytes(d_images));
    for (int i = 0, k; i < n; i += k) {
        k = run_length(r, prompt + i, n - i);
        const size_t mark = kac_arena_mark(&r->c->scratch);
        kac_grad_tape tape;
        KAC_TRY(kac_tape_open(&tape, r->c, 0));
        const kac_status s = through_tape(&tape, r, kac_tensor_slice(images, 0, i, k), prompt + i, out + i,
                                          kac_tensor_slice(d_images, 0, i, k));
        kac_tape_close(&tape);
        KAC_TRY(s);
        kac_arena_release(&r->c->scratch, mark);
    }
    return KAC_OK;
}

void kac_network_reward_init(kac_image_reward *r, const kac_network_reward *net) {
    *(kac_network_reward *)r->self = *net;
    r->score = network_score, r->grad = network_grad;
}
