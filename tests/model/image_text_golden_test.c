/* ImageReward's network and head against its own package. */
#include "check.h"
#include "model/image_text.h"
#include "reward/affine_head.h"
#include "util/golden_run.h"

enum { MAX_IDS = 256 };

/* Texts of one length together; others one by one, without the padding that the reference masks. */
static bool features(golden *g, kac_ctx *c, const kac_image_text *m, kac_tensor *all) {
    static int32_t ids[MAX_IDS];
    int64_t n = 0, n_tokens = 0;
    double used[8];
    int n_used = 0;
    kac_tensor pixels;
    if (!CHECK_OK(golden_ids(g, "input_ids", ids, MAX_IDS, &n, &n_tokens)) ||
        !CHECK_OK(golden_reals(g, "used", used, 8, &n_used)) || !CHECK(n_used == n) ||
        !CHECK_OK(golden_input(&pixels, g, c, "pixel_values")) ||
        !CHECK_OK(kac_take_make(all, &c->run, KAC_F32, n, kac_bert_config_of(m->text)->width)))
        return false;
    bool fine = true;
    if (used[0] == used[1]) return CHECK_OK(kac_image_text_features(all, m, c, pixels, ids, n_tokens));
    for (int64_t i = 0; i < n; i++) {
        kac_tensor row = kac_tensor_slice(*all, 0, i, 1);
        fine = fine && CHECK_OK(kac_image_text_features(&row, m, c, kac_tensor_slice(pixels, 0, i, 1),
                                                        ids + i * n_tokens, (int64_t)used[i]));
    }
    return fine;
}

static bool run(golden *g, kac_ctx *c) {
    kac_source source;
    kac_image_text m;
    kac_affine_head head;
    kac_tensor all, rewards;
    if (!CHECK_OK(kac_source_open_dir(&source, g->dir, "model"))) return false;
    bool fine = CHECK_OK(kac_image_text_load(&m, c, &source));
    if (fine && CHECK_OK(kac_affine_head_load(&head, &source.weights, "mlp.layers."))) {
        fine = features(g, c, &m, &all) && CHECK(golden_output(g, "features", all)) &&
               CHECK_OK(kac_take_make(&rewards, &c->run, KAC_F32, all.shape[0], 1));
        for (int64_t i = 0; i < all.shape[0] && fine; i++)
            ((float *)rewards.data)[i] =
                (float)((kac_affine_head_value(&head, (const float *)all.data + i * head.n) - 0.16717362830052426) /
                        1.0333394966054072);
        fine = fine && CHECK(golden_output(g, "rewards", rewards));
        kac_affine_head_free(&head);
    }
    if (fine) kac_image_text_free(&m);
    kac_source_close(&source);
    return fine;
}

int main(void) {
    CHECK(golden_run("image_reward", run) == 0);
    return check_done();
}
