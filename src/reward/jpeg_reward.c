#include "reward/jpeg_reward.h"
#include "io/image.h"

static kac_status jpeg_score(kac_image_reward *r, const kac_picture *pictures, int n, double *out) {
    for (int i = 0; i < n; i++) {
        size_t bytes = 0;
        if (!r->c->model.counting)
            KAC_TRY(kac_jpeg_size(&bytes, pictures[i].rgb, pictures[i].width, pictures[i].height, 95));
        out[i] = (double)bytes / 1000;
    }
    return KAC_OK;
}

kac_status kac_jpeg_reward_open(kac_image_reward *r, const char *path) {
    (void)path;
    r->score = jpeg_score;
    return KAC_OK;
}
